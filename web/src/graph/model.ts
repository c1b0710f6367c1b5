/** The topology as it is drawn and read. Pure. */

import type { Failover } from "../state/journal";
import type { NodeId, Peer, Topology, TopologyLink, TopologyNode, TopologyPath } from "../api/types";

export type Role = "self" | "unreachable" | "relay" | "neighbour" | "node";

export interface GraphNode extends TopologyNode {
  role: Role;
  neighbour: boolean;
}

export type LinkMark = "lost" | "won" | "in_use" | "warm" | "none";

export interface GraphLink extends TopologyLink {
  key: string;
  mark: LinkMark;
}

export interface Graph {
  self: NodeId | undefined;
  nodes: GraphNode[];
  links: GraphLink[];
}

/** How long a failover is shown in the graph. */
export const SHOWN_MS = 12_000;

export const keyOf = (a: NodeId, b: NodeId): string => (a < b ? `${a} ${b}` : `${b} ${a}`);

function edges(path: readonly NodeId[]): string[] {
  return path.slice(1).map((node, index) => keyOf(path[index] ?? node, node));
}

/**
 * Marks what flows take, what stands ready and what has just changed: `recent` has the failovers of the last seconds, the
 * newest first. A link that died is drawn as long as its failover is.
 */
export function graphOf(topology: Topology, recent: readonly Failover[]): Graph {
  const self = topology.nodes[0]?.node_id;
  const neighbours = new Set<NodeId>();
  for (const link of topology.links) {
    if (link.own) neighbours.add(link.a === self ? link.b : link.a);
  }
  const relaying = new Set(topology.paths.filter(alive).flatMap((path) => path.path.slice(1, -1)));
  const nodes = topology.nodes.map((node, index) => ({
    ...node,
    neighbour: neighbours.has(node.node_id),
    role: role(node, index === 0, neighbours, relaying),
  }));
  const used = new Map<string, TopologyPath["state"]>();
  for (const path of topology.paths) {
    for (const key of edges(path.path)) {
      if (path.state === "in_use" || !used.has(key)) used.set(key, path.state);
    }
  }
  // Of each session its last one: what it took before and left again is no news.
  const latest = recent.filter((each, at) => recent.findIndex((other) => other.node_id === each.node_id) === at);
  const lost = new Set(latest.flatMap((failover) => edges(failover.from)));
  const won = new Set(latest.flatMap((failover) => edges(failover.to)));
  // What carries packets again is not lost any more.
  for (const path of topology.paths.filter(alive)) for (const key of edges(path.path)) lost.delete(key);
  const mark = (key: string): LinkMark => {
    if (won.has(key)) return "won";
    if (lost.has(key)) return "lost";
    const state = used.get(key);
    return state === "in_use" ? "in_use" : state === "warm" ? "warm" : "none";
  };
  const links = topology.links.map((link): GraphLink => {
    const key = keyOf(link.a, link.b);
    return { ...link, key, mark: mark(key) };
  });
  const there = new Set(links.map((link) => link.key));
  const known = new Set(nodes.map((node) => node.node_id));
  for (const key of lost) {
    const [a, b] = key.split(" ") as [NodeId, NodeId];
    if (there.has(key) || !known.has(a) || !known.has(b)) continue;
    links.push({ a, b, own: a === self || b === self, key, mark: won.has(key) ? "won" : "lost" });
  }
  return { self, nodes, links: links.filter((link) => known.has(link.a) && known.has(link.b)) };
}

function alive(path: TopologyPath): boolean {
  return path.state === "in_use" || path.state === "warm" || path.state === "impaired";
}

/** A relay is one that carries something for this node, not one that only may. */
function role(node: TopologyNode, self: boolean, neighbours: Set<NodeId>, relaying: Set<NodeId>): Role {
  if (self) return "self";
  if (!node.reachable) return "unreachable";
  if (relaying.has(node.node_id)) return "relay";
  return neighbours.has(node.node_id) ? "neighbour" : "node";
}

/** Neighbours that are being dialled or were lost and that the graph does not have. */
export function missing(topology: Topology, peers: readonly Peer[] | undefined): Peer[] {
  const known = new Set(topology.nodes.map((node) => node.node_id));
  return (peers ?? []).filter((peer) => peer.state !== "up" && !known.has(peer.node_id));
}

/** The node that lies next in a direction, for the arrow keys. */
export function next(
  from: NodeId,
  direction: "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown",
  nodes: readonly NodeId[],
  place: (id: NodeId) => { x: number; y: number } | undefined,
): NodeId {
  const start = place(from);
  if (!start) return nodes[0] ?? from;
  let best = from;
  let least = Infinity;
  for (const id of nodes) {
    const there = place(id);
    if (!there || id === from) continue;
    const [dx, dy] = [there.x - start.x, there.y - start.y];
    const [along, across] =
      direction === "ArrowLeft"
        ? [-dx, dy]
        : direction === "ArrowRight"
          ? [dx, dy]
          : direction === "ArrowUp"
            ? [-dy, dx]
            : [dy, dx];
    if (along <= 0) continue;
    // What lies rather to the side comes after all that lies ahead, but it can be reached.
    const aside = Math.abs(across) > 1.5 * along ? 1e6 : 0;
    const cost = along + 2 * Math.abs(across) + aside;
    if (cost < least) {
      least = cost;
      best = id;
    }
  }
  return best;
}
