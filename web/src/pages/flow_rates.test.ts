import { expect, it } from "vitest";
import type { Flow } from "../api/types";
import { matches, ratesOf } from "./flow_rates";

const flow = (id: string, more: Partial<Flow>): Flow => ({
  id,
  role: "ingress",
  proxy: "web",
  peer: "server",
  target: "127.0.0.1:80",
  started: "2026-01-01T00:00:00Z",
  duration_ms: 1000,
  bytes_up: 0,
  bytes_down: 0,
  connected: true,
  ...more,
});

it("rates are bytes by the node's own clock", () => {
  const before = [flow("a", { bytes_up: 100, bytes_down: 1000 })];
  const now = [flow("a", { bytes_up: 300, bytes_down: 5000, duration_ms: 3000 }), flow("b", { bytes_up: 9 })];
  const rates = ratesOf(before, now, 1000);
  expect(rates.get("a ingress")).toEqual({ up: 100, down: 2000 });
  expect(rates.has("b ingress")).toBe(false);
});

it("both ends of a flow that leads back are told apart", () => {
  const both = [flow("a", { bytes_up: 1 }), flow("a", { role: "egress", bytes_up: 5 })];
  const now = both.map((each) => ({ ...each, bytes_up: each.bytes_up * 3, duration_ms: 2000 }));
  const rates = ratesOf(both, now, 1000);
  expect(rates.get("a ingress")?.up).toBe(2);
  expect(rates.get("a egress")?.up).toBe(10);
});

it("the filter looks at all that names a flow", () => {
  expect(matches(flow("a", { detail: "Refused" }), "refused")).toBe(true);
  expect(matches(flow("a", {}), "server")).toBe(true);
  expect(matches(flow("a", {}), "other")).toBe(false);
});
