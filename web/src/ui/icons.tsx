/** Line icons of one size, drawn for this page. */

import type { Page } from "../router";

const PATHS: Record<
  Page | "menu" | "close" | "sun" | "moon" | "out" | "copy" | "warn" | "good" | "bad" | "off",
  string
> = {
  overview: "M3 13h4v8H3zM10 3h4v18h-4zM17 9h4v12h-4z",
  topology: "M5 19a2 2 0 1 0 0-.01M19 19a2 2 0 1 0 0-.01M12 5a2 2 0 1 0 0-.01M11 7 6 17M13 7l5 10M7 19h10",
  peers: "M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 21a7 7 0 0 1 14 0M17 4a4 4 0 0 1 0 7M19 14a7 7 0 0 1 3 6",
  routes: "M6 19a2 2 0 1 0 0-.01M18 5a2 2 0 1 0 0-.01M8 19h6a4 4 0 0 0 0-8h-4a4 4 0 0 1 0-8h6",
  proxies: "M3 7h13M13 3l4 4-4 4M21 17H8M11 13l-4 4 4 4",
  services: "M4 4h16v6H4zM4 14h16v6H4zM8 7h.01M8 17h.01",
  flows: "M3 6h18M3 12h12M3 18h7M18 12l3 3-3 3",
  history: "M3 3v18h18M7 15l4-5 3 3 6-7",
  log: "M5 3h14v18H5zM8 8h8M8 12h8M8 16h5",
  config: "M4 6h10M18 6h2M4 12h2M10 12h10M4 18h8M16 18h4M14 4v4M6 10v4M12 16v4",
  actions: "M13 2 4 14h7l-1 8 9-12h-7z",
  menu: "M4 6h16M4 12h16M4 18h16",
  close: "M6 6l12 12M18 6 6 18",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10z",
  out: "M9 4H5v16h4M14 8l4 4-4 4M18 12H9",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  warn: "M12 4 2.5 20h19zM12 10v4M12 17h.01",
  good: "M5 12l5 5 9-10",
  bad: "M6 6l12 12M18 6 6 18",
  off: "M5 12h14",
};

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
