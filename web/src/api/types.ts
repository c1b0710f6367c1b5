/** The types of the admin API, as docs/openapi.json says. Times are RFC 3339 in UTC. */

export type Opt<T> = T | null | undefined;
export type NodeId = string;

export interface Problem {
  file?: string | null;
  /** From 1; 0 for the file as a whole */
  line: number;
  column: number;
  key: string;
  message: string;
}

export interface ErrorBody {
  error: string;
  reason?: string | null;
  problems?: Problem[];
}

export interface Session {
  csrf_token: string;
  expires: string;
}

export interface ErrorCount {
  kind: string;
  count: number;
}

export interface Status {
  node_id: NodeId;
  mesh: string;
  version: string;
  started: string;
  config?: string | null;
  state_dir: string;
  listen: string[];
  accepts: boolean;
  links_up: number;
  upstreams: number;
  upstreams_up: number;
  sessions: number;
  nodes_known: number;
  nodes_reachable: number;
  failovers: number;
  transit: { circuits: number; packets: number; bytes: number; dropped: ErrorCount[] };
  draining: boolean;
  flows_open: number;
  flows_total: number;
  bytes_sent: number;
  bytes_received: number;
  rtt_ms?: number | null;
  loss?: number | null;
  errors_per_minute: number;
  flow_memory: number;
  certificate_expires: string;
  issuer: boolean;
  errors: ErrorCount[];
}

export type PeerState = "up" | "dialling" | "down";

export interface Peer {
  node_id: NodeId;
  name?: string | null;
  state: PeerState;
  address?: string | null;
  dialled: boolean;
  since: string;
  rtt_ms?: number | null;
  loss?: number | null;
  groups: string[];
  relay: boolean;
  last_error?: string | null;
}

export type RouteState = "in_use" | "warm" | "impaired" | "down" | "known" | "unreachable";

export interface Route {
  node_id: NodeId;
  /** This node first; empty for one that can't be reached */
  path: NodeId[];
  hops: number;
  cost_ms?: number | null;
  state: RouteState;
  rtt_ms?: number | null;
  loss?: number | null;
}

export interface TopologyNode {
  node_id: NodeId;
  reachable: boolean;
  hops?: number | null;
  relay: boolean;
  issuer: boolean;
  draining: boolean;
  services: string[];
}

export interface TopologyLink {
  a: NodeId;
  b: NodeId;
  own: boolean;
  cost_ms?: number | null;
  rtt_ms?: number | null;
  loss?: number | null;
}

export interface TopologyPath {
  node_id: NodeId;
  path: NodeId[];
  state: RouteState;
  rtt_ms?: number | null;
  loss?: number | null;
  flows_open: number;
}

export interface Topology {
  generation: number;
  /** This node first */
  nodes: TopologyNode[];
  links: TopologyLink[];
  paths: TopologyPath[];
}

export type Origin = "file" | "runtime";

export interface Proxy {
  name: string;
  origin: Origin;
  protocol: string;
  listen: string;
  target: string;
  /** Ends flows without a byte for this long; where the node says so */
  idle_timeout?: string | null;
  error?: string | null;
  flows_open: number;
  flows_total: number;
  flows_failed: number;
  bytes_up: number;
  bytes_down: number;
}

export interface ProxySpec {
  name: string;
  local_port?: number;
  local_address?: string;
  protocol?: string;
  target_node_id?: string;
  target_address?: string;
  target_service?: string;
  idle_timeout?: string;
}

export interface Service {
  name: string;
  protocol: string;
  node_id: NodeId;
  reachable: boolean;
  address?: string | null;
  allow?: string[] | null;
  origin?: Origin | null;
  error?: string | null;
}

export interface ServiceSpec {
  name: string;
  address: string;
  protocol?: string;
  allow?: string[];
}

export interface Flow {
  id: string;
  role: "ingress" | "egress";
  proxy: string;
  peer: NodeId;
  target: string;
  client?: string | null;
  started: string;
  duration_ms: number;
  bytes_up: number;
  bytes_down: number;
  connected: boolean;
  /** None while it is open */
  reason?: string | null;
  detail?: string | null;
}

export interface Flows {
  open: Flow[];
  ended: Flow[];
}

export type Column = (number | null)[];

export const COLUMNS = [
  "sent",
  "received",
  "transit",
  "flows_open",
  "flows_started",
  "flows_failed",
  "errors",
  "failovers",
  "links_up",
  "rtt_ms",
  "loss",
  "cpu",
  "memory",
] as const;
export type ColumnName = (typeof COLUMNS)[number];

export interface History {
  step_s: number;
  /** The moment that the first entry ends at */
  from?: string | null;
  columns: Record<ColumnName, Column>;
  peers: { node_id: NodeId; rtt_ms: Column }[];
}

export type Sample = { [K in ColumnName]?: number | null };

export interface LogLine {
  level: string;
  target: string;
  message: string;
  fields: Record<string, string>;
}

export type LogEntry = LogLine & { at: string };

export interface Config {
  path?: string | null;
  applied: string;
  values: unknown;
  warnings: Problem[];
  needs_restart: string[];
}

export interface Reload {
  changed: string[];
  needs_restart: string[];
  failed: string[];
  warnings: Problem[];
}

export interface Drain {
  flows_open: number;
  timeout_s: number;
}

export interface Throughput {
  bytes: number;
  seconds: number;
  mbit_per_s: number;
}

export interface Speedtest {
  node_id: NodeId;
  up: Throughput;
  down: Throughput;
  rtt_idle_ms?: number | null;
  rtt_loaded_ms?: number | null;
  route: NodeId[];
}

export interface Ping {
  node_id: NodeId;
  rtt_ms: number;
  route: NodeId[];
}

export interface TraceHop {
  node_id: NodeId;
  rtt_ms?: number | null;
  link_rtt_ms?: number | null;
  link_loss?: number | null;
  error?: string | null;
}

export interface Trace {
  node_id: NodeId;
  hops: TraceHop[];
}

export interface TokenRequest {
  ttl_s: number;
  uses: number;
  node: NodeId | null;
  groups: string[];
  relay: boolean;
}

export interface Token {
  token: string;
  join: string;
  expires: string;
}

/** What happened; `kind` says which of the rest is there. */
export type Change =
  | { kind: "peer"; node_id: NodeId; state: PeerState; reason?: string | null }
  | { kind: "node"; node_id: NodeId; reachable: boolean }
  | { kind: "topology"; generation: number }
  | { kind: "failover"; node_id: NodeId; from: NodeId[]; to: NodeId[] }
  | { kind: "session"; node_id: NodeId; open: boolean }
  | { kind: "proxy"; name: string }
  | { kind: "service"; name: string }
  | { kind: "reload"; result?: Reload | null; error?: string | null }
  | { kind: "drain"; flows_open: number }
  | { kind: "certificate"; expires: string }
  | ({ kind: "sample" } & Sample)
  | ({ kind: "log" } & LogLine)
  | { kind: "lagged"; missed: number };

export type Kind = Change["kind"];
export type ChangeOf<K extends Kind> = Extract<Change, { kind: K }>;
export type Event<K extends Kind = Kind> = ChangeOf<K> & { id: number; at: string };

/** Every kind, as `EventSource` wants each named. */
export const KINDS: readonly Kind[] = [
  "peer",
  "node",
  "topology",
  "failover",
  "session",
  "proxy",
  "service",
  "reload",
  "drain",
  "certificate",
  "sample",
  "log",
  "lagged",
];
