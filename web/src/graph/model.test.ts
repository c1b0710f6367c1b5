import { describe, expect, it } from "vitest";
import type { Topology } from "../api/types";
import type { Failover } from "../state/journal";
import { graphOf, keyOf, missing, next } from "./model";

const node = (node_id: string, reachable = true, relay = false) => ({
  node_id,
  reachable,
  relay,
  issuer: false,
  draining: false,
  services: [],
});

const topology: Topology = {
  generation: 1,
  nodes: [node("me"), node("r1", false, true), node("r2", true, true), node("server")],
  links: [
    { a: "me", b: "r2", own: true, rtt_ms: 5, cost_ms: 3 },
    { a: "r2", b: "server", own: false, cost_ms: 2 },
    { a: "server", b: "stranger", own: false, cost_ms: 2 },
  ],
  paths: [
    { node_id: "server", path: ["me", "r1", "server"], state: "down", flows_open: 1 },
    { node_id: "server", path: ["me", "r2", "server"], state: "warm", flows_open: 1 },
    { node_id: "server", path: ["me", "r2"], state: "in_use", flows_open: 1 },
  ],
};

const failover: Failover = {
  kind: "failover",
  id: 1,
  at: "2026-01-01T00:00:00Z",
  node_id: "server",
  from: ["me", "r1", "server"],
  to: ["me", "r2", "server"],
};

const mark = (graph: ReturnType<typeof graphOf>, a: string, b: string) =>
  graph.links.find((link) => link.key === keyOf(a, b))?.mark;

describe("the graph", () => {
  it("tells nodes apart", () => {
    const graph = graphOf(topology, []);
    expect(graph.self).toBe("me");
    expect(graph.nodes.map((node) => node.role)).toEqual(["self", "unreachable", "relay", "node"]);
    expect(graph.nodes.map((node) => node.neighbour)).toEqual([false, false, true, false]);
  });
  it("marks what flows take before what only stands ready", () => {
    const graph = graphOf(topology, []);
    expect(mark(graph, "me", "r2")).toBe("in_use");
    expect(mark(graph, "server", "r2")).toBe("warm");
  });
  it("shows a failover: the new path, and the old one though its links are gone", () => {
    const graph = graphOf(topology, [failover]);
    expect(mark(graph, "me", "r2")).toBe("won");
    expect(mark(graph, "me", "r1")).toBe("lost");
    expect(mark(graph, "r1", "server")).toBe("lost");
  });
  it("has no link as lost that carries packets again", () => {
    const paths = topology.paths.map((path) => ({ ...path, state: "warm" as const }));
    const graph = graphOf({ ...topology, paths }, [failover]);
    expect(mark(graph, "me", "r1")).toBeUndefined();
    expect(mark(graph, "me", "r2")).toBe("won");
  });
  it("draws as a relay what carries something, not what only may", () => {
    const role = (paths: Topology["paths"]) => graphOf({ ...topology, paths }, []).nodes[2]?.role;
    expect(role(topology.paths)).toBe("relay");
    expect(role(topology.paths.filter((path) => path.path.length === 2))).toBe("neighbour");
  });
  it("shows of two failovers of a session the last", () => {
    const back = { ...failover, id: 2, from: failover.to, to: failover.from };
    const graph = graphOf({ ...topology, paths: [] }, [back, failover]);
    expect(mark(graph, "me", "r2")).toBe("lost");
    expect(mark(graph, "me", "r1")).toBeUndefined();
  });
  it("has no link to a node that it doesn't have", () => {
    expect(graphOf(topology, [{ ...failover, from: ["me", "gone", "server"] }]).links.length).toBe(2);
  });
  it("knows which neighbours it lacks", () => {
    const peer = { state: "dialling" as const, dialled: true, since: "", groups: [], relay: false };
    expect(
      missing(topology, [
        { ...peer, node_id: "new" },
        { ...peer, node_id: "r1" },
      ]).map((peer) => peer.node_id),
    ).toEqual(["new"]);
  });
});

it("arrow keys go to what lies that way", () => {
  const places: Record<string, { x: number; y: number }> = {
    a: { x: 0, y: 0 },
    b: { x: 10, y: 1 },
    c: { x: 4, y: 30 },
    d: { x: -5, y: 0 },
  };
  const go = (direction: Parameters<typeof next>[1]) => next("a", direction, Object.keys(places), (id) => places[id]);
  expect(go("ArrowRight")).toBe("b");
  expect(go("ArrowLeft")).toBe("d");
  expect(go("ArrowDown")).toBe("c");
  expect(go("ArrowUp")).toBe("a");
});
