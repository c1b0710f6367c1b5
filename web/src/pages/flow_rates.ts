/** Figures of flows between two looks. Pure. */

import type { Flow } from "../api/types";

/** Bytes a second. */
export interface Rates {
  up: number;
  down: number;
}

/** Rates of the flows that were there before, by id and role: a flow back to this node has both of its ends here. */
export function ratesOf(before: readonly Flow[], now: readonly Flow[], millis: number): Map<string, Rates> {
  const rates = new Map<string, Rates>();
  if (millis <= 0) return rates;
  const known = new Map(before.map((flow) => [`${flow.id} ${flow.role}`, flow]));
  for (const flow of now) {
    const key = `${flow.id} ${flow.role}`;
    const earlier = known.get(key);
    if (!earlier) continue;
    // The node's own clock, where it says how long the flow has been open.
    const span = flow.duration_ms > earlier.duration_ms ? flow.duration_ms - earlier.duration_ms : millis;
    const rate = (to: number, from: number) => Math.max(0, ((to - from) * 1000) / span);
    rates.set(key, { up: rate(flow.bytes_up, earlier.bytes_up), down: rate(flow.bytes_down, earlier.bytes_down) });
  }
  return rates;
}

/** Whether a flow has `wanted`, in lower case, anywhere in what names it. */
export function matches(flow: Flow, wanted: string): boolean {
  return [flow.id, flow.proxy, flow.peer, flow.target, flow.client, flow.reason, flow.detail].some((text) =>
    text?.toLowerCase().includes(wanted),
  );
}
