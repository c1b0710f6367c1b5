/** The important events since this page was opened, newest first. */

import { signal } from "@preact/signals";
import { on } from "../api/stream";
import type { Event, Kind } from "../api/types";

/** More than anyone reads through; the log has the rest. */
const KEPT = 200;

/** Kinds that a person wants to know of. */
const IMPORTANT = [
  "peer",
  "node",
  "failover",
  "session",
  "proxy",
  "service",
  "reload",
  "drain",
  "certificate",
] as const satisfies readonly Kind[];

export type JournalEvent = Event<(typeof IMPORTANT)[number]>;
export type Failover = Event<"failover">;

export const journal = signal<JournalEvent[]>([]);
export const failovers = signal<Failover[]>([]);

export function startJournal(): void {
  for (const kind of IMPORTANT) {
    on(kind, (event) => {
      journal.value = [event as JournalEvent, ...journal.value].slice(0, KEPT);
    });
  }
  on("failover", (event) => {
    failovers.value = [event, ...failovers.value].slice(0, KEPT);
  });
}
