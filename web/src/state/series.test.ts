import { describe, expect, it } from "vitest";
import { COLUMNS, type Column, type History } from "../api/types";
import { append, fromHistory, last, points, type Series } from "./series";

const from = Date.parse("2026-01-01T00:00:10Z");

function history(sent: Column): History {
  const columns = Object.fromEntries(COLUMNS.map((name) => [name, sent])) as History["columns"];
  return { step_s: 1, from: "2026-01-01T00:00:10Z", columns, peers: [{ node_id: "relay", rtt_ms: sent }] };
}

const series = (sent: Column): Series => fromHistory(history(sent));

describe("a history", () => {
  it("ends where its last entry does", () => expect(series([1, 2, 3]).end).toBe(from + 2000));
  it("may be empty", () => expect(points(series([]).columns.sent, from, 1000, 60_000, 10)).toEqual([]));
  it("goes on with samples", () => {
    const next = append(series([1, 2]), from + 2000, { sent: 9 }, new Map([["relay", 4]]), 10);
    expect(next.columns.sent).toEqual([1, 2, 9]);
    expect(next.columns.received).toEqual([1, 2, null]);
    expect(next.peers[0]?.rtt_ms).toEqual([1, 2, 4]);
    expect(next.end).toBe(from + 2000);
  });
  it("has nulls where samples were missed", () => {
    const next = append(series([1]), from + 3000, { sent: 9 }, new Map(), 10);
    expect(next.columns.sent).toEqual([1, null, null, 9]);
  });
  it("keeps no more than it should, whatever the gap", () => {
    const next = append(series([1, 2, 3]), from + 10 * 365 * 86_400_000, { sent: 9 }, new Map(), 4);
    expect(next.columns.sent).toEqual([null, null, null, 9]);
  });
  it("takes no sample twice", () => {
    const before = series([1, 2]);
    expect(append(before, from + 1000, { sent: 9 }, new Map(), 10)).toBe(before);
  });
});

describe("points", () => {
  const column = Array.from({ length: 100 }, (_, index) => index);
  it("are all of them where there is room", () => {
    const line = points(column, from, 1000, 10_000, 50);
    expect(line.length).toBe(10);
    expect(line.at(-1)).toEqual([from, 99]);
    expect(line[0]).toEqual([from - 9000, 90]);
  });
  it("are thinned to means", () => {
    const line = points(column, from, 1000, 100_000, 10);
    expect(line.length).toBeLessThanOrEqual(11);
    expect(line.at(-1)?.[0]).toBe(from);
    const values = line.map((point) => point[1] ?? -1);
    expect([...values].sort((a, b) => a - b)).toEqual(values);
  });
  it("keep their buckets as time goes on", () => {
    const before = points(column, from, 1000, 100_000, 10);
    const after = points([...column.slice(1), 100], from + 1000, 1000, 100_000, 10);
    const middle = before.slice(2, -2);
    for (const point of middle) expect(after).toContainEqual(point);
  });
  it("of an unknown stretch are null", () => {
    expect(points([null, null, 4, null], from, 1000, 4000, 2).map((point) => point[1])).toContain(4);
    expect(points([null, null], from, 1000, 2000, 1)).toContainEqual([from, null]);
  });
});

it("the last value is the last that is known", () => {
  expect(last([1, 2, null])).toBe(2);
  expect(last([null])).toBe(null);
});
