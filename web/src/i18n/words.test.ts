import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { en } from "./en";
import { zh } from "./zh";

const SOURCE = fileURLToPath(new URL("../", import.meta.url));
const text = readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
  .filter((name) => /\.tsx?$/.test(name) && !/\.test\.ts$|i18n\/(en|zh)\.ts$/.test(name))
  .map((name) => readFileSync(`${SOURCE}/${name}`, "utf8"))
  .join("\n");

/** Beginnings of keys whose ends are words of the API or of a list: `role.${…}`. */
const prefixes = [
  ...[...text.matchAll(/\bt\(\s*`([a-z_]+\.)\$\{/g)].map((match) => match[1] ?? ""),
  ...[...text.matchAll(/\bword\("([a-z_]+)"/g)].map((match) => `${match[1]}.`),
];

describe("the words", () => {
  it("are the same in both languages", () => expect(Object.keys(zh)).toEqual(Object.keys(en)));
  it("have the same places for values", () => {
    const places = (sentence: string) => [...sentence.matchAll(/\{\w+\}/g)].map((match) => match[0]).sort();
    for (const key of Object.keys(en) as (keyof typeof en)[]) expect(places(zh[key]), key).toEqual(places(en[key]));
  });
  it("are all used", () => {
    const unused = Object.keys(en).filter(
      (key) => !text.includes(`"${key}"`) && !prefixes.some((prefix) => key.startsWith(prefix)),
    );
    expect(unused).toEqual([]);
  });
  it("are all there", () => {
    const asked = [...text.matchAll(/\bt\(\s*(?:[^"()]*\?\s*)?"([a-z_]+\.[\w.]+)"/g)].map((match) => match[1] ?? "");
    expect(asked.length).toBeGreaterThan(150);
    expect(asked.filter((key) => !(key in en))).toEqual([]);
  });
  it("of beginnings each begin something", () => {
    expect(prefixes.length).toBeGreaterThan(5);
    for (const prefix of prefixes)
      expect(
        Object.keys(en).some((key) => key.startsWith(prefix)),
        prefix,
      ).toBe(true);
  });
  it("are Chinese in Chinese", () => {
    const foreign = Object.entries(zh)
      .filter(([, words]) => !/[\u4e00-\u9fff]/.test(words))
      .map(([key]) => key);
    expect(foreign).toEqual(["event.peer", "measure.ping"]);
  });
});
