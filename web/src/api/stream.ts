/** The node's events: one stream for the whole page, kept alive. */

import { signal } from "@preact/signals";
import { findSession, session } from "./client";
import { KINDS, type Event, type Kind } from "./types";

/** Waits between attempts to come back, seconds: quickly at first, then without pressing a node that is down. */
const PAUSES_S = [1, 2, 4, 8, 15];

/** Whether events flow. */
export const link = signal<"connecting" | "live" | "lost">("connecting");
/** When the connection was lost. */
export const lostAt = signal<number | undefined>(undefined);
/** When the next attempt is made. */
export const retryAt = signal<number | undefined>(undefined);

type Listener = (event: Event) => void;
const listeners = new Map<Kind, Set<Listener>>();
const anew = new Set<() => void>();

/** Calls `listener` for each event of a kind; the answer stops it. */
export function on<K extends Kind>(kind: K, listener: (event: Event<K>) => void): () => void {
  let all = listeners.get(kind);
  if (!all) listeners.set(kind, (all = new Set()));
  // `deliver` calls it with events of this kind only.
  const entry = listener as unknown as Listener;
  all.add(entry);
  return () => all.delete(entry);
}

/** Calls `listener` when events were missed: all that is shown has to be asked for again. */
export function onMissed(listener: () => void): () => void {
  anew.add(listener);
  return () => anew.delete(listener);
}

let source: EventSource | undefined;
let timer: number | undefined;
let attempts = 0;
let wasLive = false;
let lastId = 0;
/** How far the clock of this machine is ahead of the node's, ms. */
let ahead = 0;

/** What the node's clock says now, as far as its samples tell. */
export const nodeNow = (): number => Date.now() - ahead;

/** Opens the stream. It is opened again whenever it breaks, until [`close`]. */
export function open(): void {
  close();
  link.value = lostAt.value === undefined ? "connecting" : "lost";
  // At first those that the node has kept, too: what happened before this page was opened.
  source = new EventSource(`/api/v1/events?after=${lastId}`, { withCredentials: true });
  source.onopen = () => {
    attempts = 0;
    lostAt.value = undefined;
    retryAt.value = undefined;
    link.value = "live";
    if (wasLive) for (const listener of anew) listener();
    wasLive = true;
  };
  source.onerror = lost;
  for (const kind of KINDS) source.addEventListener(kind, (message) => deliver(kind, message.data));
}

/** Ends the stream for good. */
export function close(): void {
  source?.close();
  source = undefined;
  window.clearTimeout(timer);
}

/** Tries at once instead of waiting. */
export function retry(): void {
  window.clearTimeout(timer);
  retryAt.value = undefined;
  // The browser does not tell why a stream failed; the session does.
  findSession().then(
    (there) => (there ? open() : close()),
    () => lost(),
  );
}

function lost(): void {
  close();
  if (session.value !== "open") return;
  link.value = "lost";
  lostAt.value ??= Date.now();
  const pause = (PAUSES_S[Math.min(attempts, PAUSES_S.length - 1)] ?? 1) * 1000;
  attempts += 1;
  retryAt.value = Date.now() + pause;
  timer = window.setTimeout(retry, pause);
}

function deliver(kind: Kind, data: string): void {
  let event: Event;
  try {
    event = JSON.parse(data) as Event;
  } catch {
    return;
  }
  if (event.kind === "sample") ahead = Date.now() - Date.parse(event.at);
  // Numbers go on after a restart of the node; it says `lagged` to who comes with one of before.
  lastId = event.id;
  if (kind === "lagged") for (const listener of anew) listener();
  for (const listener of listeners.get(kind) ?? []) listener(event);
}
