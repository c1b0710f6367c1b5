/** The last hour, live, and the last week. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, get } from "../api/client";
import { on, onMissed } from "../api/stream";
import type { History } from "../api/types";
import { peers } from "./resource";
import { append, fromHistory, type Series } from "./series";

/** Entries of the last hour at 1 s. */
const HOUR = 3600;
/** Neighbours are asked for every two seconds. */
const FRESH_MS = 5000;
/** The week is asked for again when it has a new entry. */
const WEEK_REFRESH_MS = 60_000;

export const hour = signal<Series | undefined>(undefined);
export const week = signal<Series | undefined>(undefined);
export const historyError = signal<ApiError | undefined>(undefined);

async function ask(step: "1s" | "1m"): Promise<void> {
  try {
    const series = fromHistory(await get<History>(`/history?step=${step}`));
    (step === "1s" ? hour : week).value = series;
    historyError.value = undefined;
  } catch (error) {
    historyError.value = error instanceof ApiError ? error : new ApiError(0, String(error));
  }
}

/** Those of the last answer, while someone asks for the neighbours. */
function rtts(): Map<string, number | null | undefined> {
  const fresh = Date.now() - peers.at.value < FRESH_MS;
  return new Map(fresh ? peers.data.value?.map((peer) => [peer.node_id, peer.rtt_ms]) : []);
}

let users = 0;
let stop: (() => void)[] = [];

function acquire(): () => void {
  users += 1;
  if (users === 1) {
    void ask("1s");
    stop = [
      on("sample", (event) => {
        if (hour.value) hour.value = append(hour.value, Date.parse(event.at), event, rtts(), HOUR);
      }),
      onMissed(() => void ask("1s")),
    ];
  }
  return () => {
    users -= 1;
    if (users === 0) for (const end of stop.splice(0)) end();
  };
}

/** Keeps the last hour going while the component is shown. */
export function useHour(): void {
  useEffect(acquire, []);
}

/** Keeps the last week going while the component is shown and wants it. */
export function useWeek(wanted: boolean): void {
  useEffect(() => {
    if (!wanted) return;
    void ask("1m");
    const timer = window.setInterval(() => void ask("1m"), WEEK_REFRESH_MS);
    return () => window.clearInterval(timer);
  }, [wanted]);
}

/** Asks again for the figures of single neighbours, which samples leave out. */
export function refreshHour(): void {
  void ask("1s");
}
