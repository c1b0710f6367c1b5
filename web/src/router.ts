/** Pages live behind `#/name`, so that the node needs to know of one page only. */

import { computed, signal } from "@preact/signals";

export const PAGES = [
  "overview",
  "topology",
  "peers",
  "routes",
  "proxies",
  "services",
  "flows",
  "history",
  "log",
  "config",
  "actions",
] as const;
export type Page = (typeof PAGES)[number];

const CODE = /^#code=(.+)$/;
const hash = signal(CODE.test(window.location.hash) ? "" : window.location.hash);
window.addEventListener("hashchange", () => {
  // A code is no page: it is taken, and what is shown stays.
  if (!CODE.test(window.location.hash)) hash.value = window.location.hash;
});

export const page = computed<Page>(() => {
  const name = hash.value.replace(/^#\//, "").split("?")[0];
  return PAGES.find((page) => page === name) ?? "overview";
});

/** What follows the page's name: `#/actions?node=relay-1`. */
export const query = computed(() => new URLSearchParams(hash.value.split("?")[1] ?? ""));

export function href(page: Page, query: Record<string, string> = {}): string {
  const search = new URLSearchParams(query).toString();
  return `#/${page}${search ? `?${search}` : ""}`;
}

/** The one-time code of `#code=…`, which leaves the address and the history at once. */
export function takeCode(): string | undefined {
  const match = CODE.exec(window.location.hash);
  if (!match?.[1]) return undefined;
  window.history.replaceState(null, "", window.location.pathname + hash.value);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}
