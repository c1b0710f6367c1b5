/** Figures over time: from the history, continued by samples. Pure. */

import { COLUMNS, type Column, type ColumnName, type History, type Sample } from "../api/types";

/** Columns of one length; `end` is the moment, in ms, that the last entry ends at. */
export interface Series {
  stepMs: number;
  end: number;
  columns: Record<ColumnName, Column>;
  peers: { node_id: string; rtt_ms: Column }[];
}

export function fromHistory(history: History): Series {
  const stepMs = history.step_s * 1000;
  const length = Math.max(0, ...COLUMNS.map((name) => history.columns[name]?.length ?? 0));
  const first = history.from ? Date.parse(history.from) : Date.now();
  const columns = {} as Record<ColumnName, Column>;
  for (const name of COLUMNS) columns[name] = history.columns[name] ?? [];
  return { stepMs, end: first + (length - 1) * stepMs, columns, peers: history.peers ?? [] };
}

/**
 * Appends one sample, and the round trip times of single neighbours, of which samples say nothing. Keeps the last `keep`
 * entries. What lies between is unknown: null.
 */
export function append(
  series: Series,
  at: number,
  sample: Sample,
  rtts: ReadonlyMap<string, number | null | undefined>,
  keep: number,
): Series {
  const steps = Math.round((at - series.end) / series.stepMs);
  if (steps <= 0) return series;
  const gap = Math.min(steps - 1, keep);
  const nulls: Column = new Array<null>(gap).fill(null);
  const extend = (column: Column, value: number | null) => [...column, ...nulls, value].slice(-keep);
  const columns = {} as Record<ColumnName, Column>;
  for (const name of COLUMNS) columns[name] = extend(series.columns[name], sample[name] ?? null);
  const peers = series.peers.map((peer) => ({ ...peer, rtt_ms: extend(peer.rtt_ms, rtts.get(peer.node_id) ?? null) }));
  return { ...series, end: series.end + steps * series.stepMs, columns, peers };
}

export type Points = [number, number | null][];

/** The last `span` ms of a column as points, thinned to at most `most` of them: means of buckets. */
export function points(column: Column, end: number, stepMs: number, span: number, most: number): Points {
  const count = Math.min(column.length, Math.round(span / stepMs));
  const start = column.length - count;
  const width = Math.max(1, Math.ceil(count / most));
  const result: Points = [];
  // Buckets keep their places as time goes on, or the line would tremble with each sample.
  const first = Math.floor(end / stepMs) - (column.length - 1 - start);
  for (let from = start - (first % width); from < column.length; from += width) {
    let sum = 0;
    let known = 0;
    const to = Math.min(from + width, column.length);
    for (let index = Math.max(from, start); index < to; index += 1) {
      const value = column[index];
      if (value != null) {
        sum += value;
        known += 1;
      }
    }
    const at = end - (column.length - to) * stepMs;
    if (to > start) result.push([at, known === 0 ? null : sum / known]);
  }
  return result;
}

/** The last value that is known. */
export function last(column: Column): number | null {
  for (let index = column.length - 1; index >= 0; index -= 1) {
    const value = column[index];
    if (value != null) return value;
  }
  return null;
}
