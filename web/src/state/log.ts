/** The last lines of the log, and those that come. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, get } from "../api/client";
import { on, onMissed } from "../api/stream";
import type { LogEntry } from "../api/types";

/** As many as the node keeps. */
const KEPT = 1000;
/** Lines that come in a burst are shown together. */
const GATHER_MS = 200;

export interface Line extends LogEntry {
  /** Counts the lines of this page */
  key: number;
}

export const lines = signal<Line[] | undefined>(undefined);
export const logError = signal<ApiError | undefined>(undefined);

let count = 0;

async function ask(): Promise<void> {
  try {
    const entries = await get<LogEntry[]>("/log");
    lines.value = entries.map((entry) => ({ ...entry, key: (count += 1) }));
    logError.value = undefined;
  } catch (error) {
    logError.value = error instanceof ApiError ? error : new ApiError(0, String(error));
  }
}

export const refreshLog = (): void => void ask();

/** Follows the log while the component is shown. */
export function useLog(): void {
  useEffect(() => {
    let gathered: Line[] = [];
    let timer: number | undefined;
    void ask();
    const flush = () => {
      timer = undefined;
      if (lines.value) lines.value = [...lines.value, ...gathered].slice(-KEPT);
      gathered = [];
    };
    const stop = on("log", ({ at, level, target, message, fields }) => {
      gathered.push({ at, level, target, message, fields, key: (count += 1) });
      timer ??= window.setTimeout(flush, GATHER_MS);
    });
    const anew = onMissed(() => void ask());
    return () => {
      stop();
      anew();
      window.clearTimeout(timer);
    };
  }, []);
}
