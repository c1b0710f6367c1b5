import { describe, expect, it } from "vitest";
import { sorted, windowOf } from "./rows";

describe("rows", () => {
  const rows = [{ at: 2 }, { at: null }, { at: 10 }, { at: 1 }];
  it("are sorted, what is unknown last in either direction", () => {
    expect(sorted(rows, (row) => row.at, false).map((row) => row.at)).toEqual([1, 2, 10, null]);
    expect(sorted(rows, (row) => row.at, true).map((row) => row.at)).toEqual([10, 2, 1, null]);
  });
  it("have numbers in names in their order", () => {
    expect(sorted(["n10", "n9"], (name) => name, false)).toEqual(["n9", "n10"]);
  });
});

describe("a window", () => {
  it("has what can be seen, and some more", () => {
    const { from, to } = windowOf(5000, 34, 34 * 1000, 340);
    expect(from).toBeLessThanOrEqual(1000);
    expect(from).toBeGreaterThan(900);
    expect(to).toBeGreaterThanOrEqual(1010);
    expect(to).toBeLessThan(1100);
  });
  it("stays in the list, even where that became shorter", () => {
    expect(windowOf(5000, 34, 0, 340).from).toBe(0);
    expect(windowOf(20, 34, 34 * 4000, 340)).toEqual({ from: 0, to: 20 });
    expect(windowOf(0, 34, 100, 340)).toEqual({ from: 0, to: 0 });
  });
});
