import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const css = readFileSync(fileURLToPath(new URL("./base.css", import.meta.url)), "utf8");

function colours(selector: string): Record<string, string> {
  const start = css.indexOf(`${selector} {`);
  const block = css.slice(start, css.indexOf("}", start));
  return Object.fromEntries([...block.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6})/g)].map((match) => [match[1], match[2]]));
}

/** Relative luminance and contrast as WCAG 2.2 defines them. */
function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5]
    .map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [light = 0, dark = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light + 0.05) / (dark + 0.05);
}

for (const [name, selector] of [
  ["light", ":root"],
  ["dark", ':root[data-theme="dark"]'],
] as const) {
  describe(`${name} colours`, () => {
    const all = colours(selector);
    const of = (name: string) => all[name] ?? "#000000";
    it("of text are AA on whatever it stands on", () => {
      for (const text of ["text", "muted", "accent", "second", "third", "good", "warn", "bad"]) {
        for (const ground of ["bg", "surface", "raised"]) {
          expect(contrast(of(text), of(ground)), `${text} on ${ground}`).toBeGreaterThanOrEqual(4.5);
        }
      }
      for (const tone of ["good", "warn", "bad", "accent"]) {
        expect(contrast(of(tone), of(`${tone}-soft`)), `${tone}-soft`).toBeGreaterThanOrEqual(4.5);
      }
      expect(contrast(of("on-accent"), of("accent"))).toBeGreaterThanOrEqual(4.5);
    });
    it("of fields and links are seen", () => {
      expect(contrast(of("field"), of("surface"))).toBeGreaterThanOrEqual(3);
      expect(contrast(of("faint"), of("surface"))).toBeGreaterThanOrEqual(3);
    });
  });
}
