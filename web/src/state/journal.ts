/** The important events that the node has kept, and those that come; newest first. */

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

/** An event that comes again, after the connection was lost, is no new one. */
function added<E extends { id: number; at: string }>(events: E[], event: E): E[] {
  if (events.some((known) => known.id === event.id && known.at === event.at)) return events;
  return [event, ...events].slice(0, KEPT);
}

export function startJournal(): void {
  for (const kind of IMPORTANT) {
    on(kind, (event) => {
      journal.value = added(journal.value, event as JournalEvent);
    });
  }
  on("failover", (event) => {
    failovers.value = added(failovers.value, event);
  });
}
