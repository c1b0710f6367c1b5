/** The words of the console, in English and Chinese. */

import { computed, signal } from "@preact/signals";
import { en } from "./en";
import { zh } from "./zh";

export type Key = keyof typeof en;
export type Language = "en" | "zh-CN";

const STORED = "ffmesh.language";
const words: Record<Language, Record<Key, string>> = { en, "zh-CN": zh };

function first(): Language {
  const stored = remembered(STORED);
  if (stored === "en" || stored === "zh-CN") return stored;
  return navigator.languages
    .find((tag) => /^(en|zh)\b/i.test(tag))
    ?.toLowerCase()
    .startsWith("zh")
    ? "zh-CN"
    : "en";
}

export const language = signal<Language>(first());
/** The words of the language; reading it makes a component follow a switch. */
const chosen = computed(() => words[language.value]);

export function setLanguage(to: Language): void {
  language.value = to;
  remember(STORED, to);
}

/** A sentence, with `{name}` replaced by values. The result is text, never markup. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return chosen.value[key].replace(/\{(\w+)\}/g, (whole, name: string) => {
    const value = values[name];
    return value === undefined ? whole : String(value);
  });
}

/** The word for one of the API's words, or that word itself where this page doesn't know it. */
export function word(prefix: string, value: string): string {
  const key = `${prefix}.${value}`;
  return key in chosen.value ? chosen.value[key as Key] : value;
}

/** Private windows may refuse storage; then a choice lasts as long as the page. */
export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Nothing to do: it holds for this page.
  }
}
