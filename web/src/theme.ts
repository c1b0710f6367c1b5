/** Light and dark: as the system has it until someone chooses. */

import { computed, effect, signal } from "@preact/signals";
import { remember, remembered } from "./i18n";

export type Theme = "light" | "dark";

const STORED = "ffmesh.theme";
const query = window.matchMedia("(prefers-color-scheme: dark)");
const system = signal<Theme>(query.matches ? "dark" : "light");
query.addEventListener("change", () => (system.value = query.matches ? "dark" : "light"));

const stored = remembered(STORED);
const choice = signal<Theme | undefined>(stored === "light" || stored === "dark" ? stored : undefined);

export const theme = computed<Theme>(() => choice.value ?? system.value);

effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function toggleTheme(): void {
  const to = theme.value === "dark" ? "light" : "dark";
  choice.value = to;
  remember(STORED, to);
}

const still = window.matchMedia("(prefers-reduced-motion: reduce)");
/** Whether things may move. */
export const motion = signal(!still.matches);
still.addEventListener("change", () => (motion.value = !still.matches));

/** Colours for what is drawn on a canvas, from the style sheet. */
export function palette(): Record<
  "text" | "muted" | "line" | "surface" | "accent" | "second" | "third" | "good" | "warn" | "bad" | "faint",
  string
> {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: of("text"),
    muted: of("muted"),
    line: of("line"),
    surface: of("surface"),
    accent: of("accent"),
    second: of("second"),
    third: of("third"),
    good: of("good"),
    warn: of("warn"),
    bad: of("bad"),
    faint: of("faint"),
  };
}
