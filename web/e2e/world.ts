/** A small mesh, or a large one, as its client node would show it. The same each time. */

import type {
  Change,
  Column,
  Config,
  Flow,
  Flows,
  History,
  LogEntry,
  Peer,
  Proxy,
  ProxySpec,
  Route,
  Sample,
  Service,
  ServiceSpec,
  Status,
  Topology,
  TopologyNode,
} from "../src/api/types";

const ago = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();

/** Numbers that look random and are the same each time. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 4_294_967_296;
    return state / 4_294_967_296;
  };
}

const node = (node_id: string, more: Partial<TopologyNode> = {}): TopologyNode => ({
  node_id,
  reachable: true,
  hops: 1,
  relay: false,
  issuer: false,
  draining: false,
  services: [],
  ...more,
});

/** HTML, control characters and marks that turn the direction of writing. */
export const NASTY = `<img src=x onerror="window.__hit=1"><script>window.__hit=1</script>\u202e\u0007{a|b}`;

export class World {
  changes: Change[] = [];
  random = dice(7);
  ticks = 0;
  draining = false;
  status: Status;
  peers: Peer[];
  routes: Route[];
  topology: Topology;
  proxies: Proxy[];
  services: Service[];
  flows: Flows;
  log: LogEntry[];
  config: Config;

  constructor() {
    this.peers = [
      peer("relay-1", { name: "upstream-1", rtt_ms: 11.8, loss: 0, relay: true, groups: ["infra"] }),
      peer("relay-2", { name: "upstream-2", rtt_ms: 23.4, loss: 0.004, relay: true, groups: ["infra", "eu"] }),
      peer("laptop", {
        state: "down",
        since: ago(320),
        dialled: false,
        last_error: "no answer for 5 s; the link was given up",
        address: null,
      }),
    ];
    this.topology = {
      generation: 4,
      nodes: [
        node("client", { hops: 0 }),
        node("db", { hops: 2, services: ["postgres"] }),
        node("laptop", { reachable: false, hops: null }),
        node("relay-1", { relay: true, issuer: true }),
        node("relay-2", { relay: true, draining: false }),
        node("server", { hops: 2, services: ["web", "ssh"] }),
      ],
      links: [
        { a: "client", b: "relay-1", own: true, cost_ms: 6, rtt_ms: 11.8, loss: 0 },
        { a: "client", b: "relay-2", own: true, cost_ms: 12, rtt_ms: 23.4, loss: 0.004 },
        { a: "relay-1", b: "relay-2", own: false, cost_ms: 4 },
        { a: "relay-1", b: "server", own: false, cost_ms: 5 },
        { a: "relay-2", b: "server", own: false, cost_ms: 7 },
        { a: "db", b: "relay-2", own: false, cost_ms: 3 },
        { a: "db", b: "server", own: false, cost_ms: 1 },
      ],
      paths: [
        {
          node_id: "server",
          path: ["client", "relay-1", "server"],
          state: "in_use",
          rtt_ms: 21.9,
          loss: 0,
          flows_open: 14,
        },
        {
          node_id: "server",
          path: ["client", "relay-2", "server"],
          state: "warm",
          rtt_ms: 38.1,
          loss: 0.004,
          flows_open: 14,
        },
      ],
    };
    this.routes = [
      { node_id: "db", path: ["client", "relay-2", "db"], hops: 2, cost_ms: 15, state: "known" },
      { node_id: "laptop", path: [], hops: 0, state: "unreachable" },
      { node_id: "relay-1", path: ["client", "relay-1"], hops: 1, cost_ms: 6, state: "known" },
      { node_id: "relay-2", path: ["client", "relay-2"], hops: 1, cost_ms: 12, state: "known" },
      {
        node_id: "server",
        path: ["client", "relay-1", "server"],
        hops: 2,
        cost_ms: 11,
        state: "in_use",
        rtt_ms: 21.9,
        loss: 0,
      },
      {
        node_id: "server",
        path: ["client", "relay-2", "server"],
        hops: 2,
        cost_ms: 19,
        state: "warm",
        rtt_ms: 38.1,
        loss: 0.004,
      },
    ];
    this.proxies = [
      proxy("web-service", "127.0.0.1:3333", "server 127.0.0.1:80", {
        flows_open: 12,
        flows_total: 48_211,
        flows_failed: 3,
        bytes_up: 9.1e7,
        bytes_down: 2.4e9,
      }),
      proxy("database", "127.0.0.1:5432", "db 127.0.0.1:5432", {
        flows_open: 2,
        flows_total: 812,
        bytes_up: 1.2e7,
        bytes_down: 8.8e7,
      }),
      proxy("browser", "127.0.0.1:80", "server *", {
        protocol: "socks5",
        error: "port 80 of 127.0.0.1 is taken; trying again each 5 s",
      }),
      proxy("ssh", "127.0.0.1:2222", "server 127.0.0.1:22", {
        origin: "runtime",
        flows_total: 4,
        bytes_up: 52_000,
        bytes_down: 311_000,
      }),
    ];
    this.services = [
      service("metrics", "client", { address: "127.0.0.1:9100", allow: ["group:dev"], origin: "file" }),
      service("preview", "client", { address: "127.0.0.1:5173", origin: "runtime" }),
      service("postgres", "db"),
      service("ssh", "server"),
      service("web", "server"),
    ];
    this.flows = { open: [], ended: [] };
    for (let index = 0; index < 14; index += 1) this.flows.open.push(this.flow(index));
    for (let index = 0; index < 40; index += 1) this.flows.ended.push(this.flow(1000 + index, true));
    this.log = [
      entry(400, "INFO", "ffmesh::node", "node started", { node: "client", mesh: "office" }),
      entry(399, "INFO", "ffmesh::link", "link is up", { peer: "relay-1", address: "192.0.2.10:3334" }),
      entry(398, "INFO", "ffmesh::link", "link is up", { peer: "relay-2", address: "[2001:db8::7]:3334" }),
      entry(320, "WARN", "ffmesh::link", "link was lost", { peer: "laptop", reason: "no answer for 5 s" }),
      entry(90, "ERROR", "ffmesh::ingress", "cannot listen", {
        proxy: "browser",
        error: "Address already in use (os error 98)",
      }),
      entry(30, "DEBUG", "ffmesh::session", "map sent", { peer: "server", epoch: "17" }),
    ];
    this.config = {
      path: "/etc/ffmesh/client.yaml",
      applied: ago(400),
      values: {
        node_id: "client",
        state_dir: "/var/lib/ffmesh/client",
        proxies: [
          {
            name: "web-service",
            local_address: "127.0.0.1",
            local_port: 3333,
            protocol: "tcp",
            target_node_id: "server",
            target_address: "127.0.0.1:80",
          },
        ],
        services: [
          { name: "metrics", address: "127.0.0.1:9100", allow: ["group:dev"], health_check: { interval: "5s" } },
        ],
        access: [],
        quic: {
          listen_port: null,
          upstreams: [{ name: "upstream-1", node_id: "relay-1", address: "relay-1.example.com:3334", cost: 0 }],
          congestion: "auto",
        },
        mesh: { transit: true, cost: 0, hold: "10m", drain_timeout: "30s" },
        admin: { listen: "127.0.0.1:9464" },
        log: { level: "info", format: "text" },
        watch: true,
      },
      warnings: [
        {
          file: "/etc/ffmesh/client.yaml",
          line: 21,
          column: 3,
          key: "mesh.cost",
          message: "has no effect: this node carries no transit",
        },
      ],
      needs_restart: ["quic.listen_port"],
    };
    this.status = {
      node_id: "client",
      mesh: "office",
      version: "0.1.0",
      started: ago(400),
      config: "/etc/ffmesh/client.yaml",
      state_dir: "/var/lib/ffmesh/client",
      listen: ["0.0.0.0:48211"],
      accepts: false,
      links_up: 2,
      upstreams: 2,
      upstreams_up: 2,
      sessions: 2,
      nodes_known: 5,
      nodes_reachable: 4,
      failovers: 3,
      transit: { circuits: 2, packets: 812_331, bytes: 9.2e8, dropped: [] },
      draining: false,
      flows_open: 14,
      flows_total: 49_027,
      bytes_sent: 1.03e8,
      bytes_received: 2.49e9,
      rtt_ms: 17.6,
      loss: 0.002,
      errors_per_minute: 0.4,
      flow_memory: 1_310_720,
      certificate_expires: new Date(Date.now() + 131 * 86_400_000).toISOString(),
      issuer: true,
      errors: [
        { kind: "target_refused", count: 11 },
        { kind: "link_lost", count: 3 },
      ],
    };
  }

  flow(index: number, ended = false): Flow {
    const reasons = ["done", "done", "done", "reset", "refused", "timeout"];
    const age = 2 + Math.floor(this.random() * 3000);
    return {
      id: index.toString(16).padStart(8, "0"),
      role: index % 5 === 4 ? "egress" : "ingress",
      proxy: index % 3 === 2 ? "database" : "web-service",
      peer: index % 3 === 2 ? "db" : "server",
      target: index % 3 === 2 ? "127.0.0.1:5432" : "127.0.0.1:80",
      client: index % 5 === 4 ? null : `127.0.0.1:${40_000 + (index % 20_000)}`,
      started: ago(age),
      duration_ms: age * 1000,
      bytes_up: Math.floor(this.random() * 4e6),
      bytes_down: Math.floor(this.random() * 9e7),
      connected: ended || index % 11 !== 10,
      reason: ended ? reasons[index % reasons.length] : null,
      detail: ended && index % reasons.length === 4 ? "connection refused by 127.0.0.1:80" : null,
    };
  }

  /** One second passes. */
  live(): void {
    this.ticks += 1;
    for (const flow of this.flows.open) {
      flow.duration_ms += 1000;
      flow.bytes_up += Math.floor(this.random() * 40_000);
      flow.bytes_down += Math.floor(this.random() * 900_000);
    }
    for (const peer of this.peers) if (peer.rtt_ms != null) peer.rtt_ms += (this.random() - 0.5) * 0.6;
  }

  sample(): Sample {
    const wave = Math.sin(this.ticks / 9);
    return figures(wave, this.random(), this.flows.open.length);
  }

  history(step_s: number, length: number): History {
    const random = dice(3);
    const samples = Array.from({ length }, (_, index) => {
      // The node did not run for a while, once.
      if (index > length * 0.3 && index < length * 0.34) return undefined;
      return figures(Math.sin(index / (length / 14)), random(), 14);
    });
    const column = (name: keyof Sample): Column => samples.map((sample) => sample?.[name] ?? null);
    const names: (keyof Sample)[] = [
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
    ];
    return {
      step_s,
      from: ago((length - 1) * step_s),
      columns: Object.fromEntries(names.map((name) => [name, column(name)])) as History["columns"],
      peers: this.peers.slice(0, 3).map((peer, at) => ({
        node_id: peer.node_id,
        rtt_ms: samples.map((sample) => (sample ? 10 + at * 9 + 2 * (sample.rtt_ms ?? 0) * 0.1 : null)),
      })),
    };
  }

  /** Relay-1 dies: the session goes on over relay-2. */
  failover(): void {
    this.topology.generation += 1;
    this.topology.links = this.topology.links.filter((link) => link.a !== "relay-1" && link.b !== "relay-1");
    for (const node of this.topology.nodes)
      if (node.node_id === "relay-1") Object.assign(node, { reachable: false, hops: null });
    this.topology.paths = [
      {
        node_id: "server",
        path: ["client", "relay-2", "server"],
        state: "in_use",
        rtt_ms: 38.1,
        loss: 0.004,
        flows_open: 14,
      },
    ];
    Object.assign(this.peers[0] ?? {}, {
      state: "dialling",
      since: ago(0),
      rtt_ms: null,
      loss: null,
      last_error: "no answer",
    });
    this.status.links_up = 1;
    this.status.upstreams_up = 1;
    this.status.failovers += 1;
  }

  /** Answers a request: status and body. */
  api(method: string, path: string, query: URLSearchParams, body: string): [number, unknown] {
    const input = (body ? JSON.parse(body) : {}) as Record<string, unknown>;
    switch (`${method} ${path}`) {
      case "GET /status":
        return [200, { ...this.status, draining: this.draining, flows_open: this.flows.open.length }];
      case "GET /peers":
        return [200, this.peers];
      case "GET /routes":
        return [200, this.routes];
      case "GET /topology":
        return [200, this.topology];
      case "GET /proxies":
        return [200, this.proxies];
      case "GET /services":
        return [200, this.services];
      case "GET /flows":
        return [200, this.flows];
      case "GET /log":
        return [200, this.log];
      case "GET /config":
        return [200, this.config];
      case "GET /history":
        return [200, query.get("step") === "1m" ? this.history(60, 10_080) : this.history(1, 3600)];
      case "POST /ping":
        return [200, { node_id: input.node, rtt_ms: 21.7, route: ["client", "relay-1", input.node] }];
      case "POST /trace":
        return [
          200,
          {
            node_id: input.node,
            hops: [
              { node_id: "relay-1", rtt_ms: 11.8, link_rtt_ms: 11.7, link_loss: 0 },
              { node_id: input.node, rtt_ms: 21.7, link_rtt_ms: 9.8, link_loss: 0.012 },
            ],
          },
        ];
      case "POST /speedtest":
        return [
          200,
          {
            node_id: input.node,
            up: { bytes: 3.2e8, seconds: 3, mbit_per_s: 853.2 },
            down: { bytes: 3.4e8, seconds: 3, mbit_per_s: 907.1 },
            rtt_idle_ms: 21.7,
            rtt_loaded_ms: 25.1,
            route: ["client", "relay-1", input.node],
          },
        ];
      case "POST /tokens":
        return [
          200,
          {
            token: "ffm1.k3q9",
            join: "ffmesh join ffm1.k3q9vt5m2nb8x7wz4r6y1pdhc0 node.yaml",
            expires: new Date(Date.now() + Number(input.ttl_s) * 1000).toISOString(),
          },
        ];
      case "POST /reload": {
        const result = {
          changed: ["proxies.web: added", "log.level"],
          needs_restart: ["quic.listen_port"],
          failed: [],
          warnings: this.config.warnings,
        };
        this.changes.push({ kind: "reload", result });
        return [200, result];
      }
      case "POST /drain":
        this.draining = true;
        this.changes.push({ kind: "drain", flows_open: 14 });
        return [200, { flows_open: 14, timeout_s: 30 }];
    }
    return this.edit(method, path, input);
  }

  private edit(method: string, path: string, input: Record<string, unknown>): [number, unknown] {
    const [, what, encoded] = path.split("/");
    const name = encoded === undefined ? undefined : decodeURIComponent(encoded);
    if (what !== "proxies" && what !== "services") return [404, { error: "no such path; the API is under /api/v1/" }];
    const list: (Proxy | Service)[] = what === "proxies" ? this.proxies : this.services;
    const at = list.findIndex((each) => each.name === name);
    if (name !== undefined && at < 0)
      return [404, { error: `there is no ${what === "proxies" ? "proxy" : "service"} ${name}` }];
    const kind = what === "proxies" ? "proxy" : "service";
    if (method === "DELETE") {
      list.splice(at, 1);
      this.changes.push({ kind, name: name ?? "" });
      return [204, undefined];
    }
    if (input.local_port === 70_000) {
      return [
        422,
        {
          error: "the proxy is not valid",
          problems: [{ line: 1, column: 30, key: "local_port", message: "70000 is no port: 1 to 65535 was expected" }],
        },
      ];
    }
    const made =
      what === "proxies"
        ? fromProxySpec(input as unknown as ProxySpec)
        : fromServiceSpec(input as unknown as ServiceSpec);
    if (at >= 0) list[at] = made;
    else list.push(made);
    this.changes.push({ kind, name: made.name });
    return [200, made];
  }
}

function figures(wave: number, random: number, flows: number): Sample {
  return {
    sent: 300_000 + 120_000 * wave + 60_000 * random,
    received: 5_200_000 + 2_100_000 * wave + 900_000 * random,
    transit: 800_000 + 300_000 * random,
    flows_open: flows + Math.round(3 * wave),
    flows_started: 2 + random,
    flows_failed: random > 0.97 ? 1 : 0,
    errors: random > 0.96 ? 1 : 0,
    failovers: 0,
    links_up: 2,
    rtt_ms: 17.6 + 1.5 * wave + random,
    loss: random > 0.9 ? 0.01 : 0.001,
    cpu: 0.08 + 0.03 * wave + 0.02 * random,
    memory: 61_000_000 + 2_000_000 * wave,
  };
}

function peer(node_id: string, more: Partial<Peer>): Peer {
  return {
    node_id,
    name: null,
    state: "up",
    address: "192.0.2.10:3334",
    dialled: true,
    since: ago(399),
    rtt_ms: null,
    loss: null,
    groups: [],
    relay: false,
    last_error: null,
    ...more,
  };
}

function proxy(name: string, listen: string, target: string, more: Partial<Proxy> = {}): Proxy {
  return {
    name,
    origin: "file",
    protocol: "tcp",
    listen,
    target,
    error: null,
    flows_open: 0,
    flows_total: 0,
    flows_failed: 0,
    bytes_up: 0,
    bytes_down: 0,
    ...more,
  };
}

function service(name: string, node_id: string, more: Partial<Service> = {}): Service {
  return {
    name,
    protocol: "tcp",
    node_id,
    reachable: true,
    address: null,
    allow: null,
    origin: null,
    error: null,
    ...more,
  };
}

function fromProxySpec(spec: ProxySpec): Proxy {
  const listen =
    spec.local_port === undefined
      ? (spec.local_address ?? "")
      : `${spec.local_address ?? "127.0.0.1"}:${spec.local_port}`;
  const target = spec.target_service
    ? `service ${spec.target_service}`
    : `${spec.target_node_id} ${spec.target_address ?? "*"}`;
  return proxy(spec.name, listen, target, { origin: "runtime", protocol: spec.protocol ?? "tcp" });
}

function fromServiceSpec(spec: ServiceSpec): Service {
  return service(spec.name, "client", {
    protocol: spec.protocol ?? "tcp",
    address: spec.address,
    allow: spec.allow ?? null,
    origin: "runtime",
  });
}

function entry(
  seconds: number,
  level: string,
  target: string,
  message: string,
  fields: Record<string, string>,
): LogEntry {
  return { at: ago(seconds), level, target, message, fields };
}

export const world = (): World => new World();

/** 300 nodes behind 20 relays, and 5,000 flows. */
export function large(): World {
  const made = new World();
  const random = dice(11);
  const relays = Array.from({ length: 20 }, (_, index) => `relay-${String(index + 1).padStart(2, "0")}`);
  const leaves = Array.from({ length: 279 }, (_, index) => `node-${String(index + 1).padStart(3, "0")}`);
  const pick = () => relays[Math.floor(random() * relays.length)] ?? "";
  const links = new Map<string, Topology["links"][number]>();
  const join = (a: string, b: string) => {
    if (a === b) return;
    const [first, second] = a < b ? [a, b] : [b, a];
    const own = first === "client" || second === "client";
    links.set(`${first} ${second}`, {
      a: own ? "client" : first,
      b: own ? (first === "client" ? second : first) : second,
      own,
      cost_ms: 2 + random() * 30,
      rtt_ms: own ? 4 + random() * 30 : null,
      loss: own ? random() * 0.01 : null,
    });
  };
  for (const relay of relays) {
    join(relay, pick());
    join(relay, pick());
    join(relay, pick());
  }
  for (const leaf of leaves) {
    join(leaf, pick());
    join(leaf, pick());
  }
  for (const relay of relays.slice(0, 3)) join("client", relay);
  made.topology = {
    generation: 1,
    nodes: [
      node("client", { hops: 0 }),
      ...leaves.map((id) => node(id, { hops: 3, reachable: random() > 0.03, services: random() > 0.8 ? ["web"] : [] })),
      ...relays.map((id) => node(id, { hops: 2, relay: true })),
    ],
    links: [...links.values()],
    paths: [
      { node_id: "relay-02", path: ["client", "relay-02"], state: "in_use", rtt_ms: 12, loss: 0, flows_open: 40 },
    ],
  };
  made.flows.open = Array.from({ length: 5000 }, (_, index) => made.flow(index));
  made.flows.ended = Array.from({ length: 1000 }, (_, index) => made.flow(10_000 + index, true));
  return made;
}

/** Nothing but the node itself. */
export function empty(): World {
  const made = new World();
  made.peers = [];
  made.routes = [];
  made.proxies = [];
  made.services = [];
  made.flows = { open: [], ended: [] };
  made.log = [];
  made.topology = { generation: 0, nodes: [node("client", { hops: 0 })], links: [], paths: [] };
  Object.assign(made.status, {
    links_up: 0,
    upstreams: 0,
    upstreams_up: 0,
    sessions: 0,
    nodes_known: 0,
    nodes_reachable: 0,
    rtt_ms: null,
    loss: null,
    errors: [],
    errors_per_minute: 0,
    issuer: false,
  });
  made.config.warnings = [];
  made.config.needs_restart = [];
  return made;
}

/** Every text that comes from elsewhere tries to be more than text. */
export function nasty(): World {
  const made = new World();
  for (const proxy of made.proxies)
    Object.assign(proxy, { name: `${proxy.name} ${NASTY}`, target: NASTY, error: NASTY });
  for (const service of made.services)
    Object.assign(service, { name: `${service.name} ${NASTY}`, allow: [NASTY], error: NASTY, address: NASTY });
  for (const peer of made.peers)
    Object.assign(peer, {
      node_id: `${peer.node_id}${NASTY}`,
      last_error: NASTY,
      groups: [NASTY],
      name: NASTY,
      address: NASTY,
    });
  for (const route of made.routes) Object.assign(route, { path: [NASTY, `${route.node_id}${NASTY}`] });
  for (const node of made.topology.nodes) node.services = [NASTY];
  made.topology.nodes.push(node(NASTY));
  made.topology.links.push({ a: "client", b: NASTY, own: true, cost_ms: 1, rtt_ms: 1, loss: 0 });
  for (const flow of [...made.flows.open, ...made.flows.ended])
    Object.assign(flow, { proxy: NASTY, peer: NASTY, target: NASTY, client: NASTY, detail: NASTY });
  for (const line of made.log) Object.assign(line, { target: NASTY, message: NASTY, fields: { [NASTY]: NASTY } });
  made.config.values = { [NASTY]: NASTY, list: [NASTY] };
  made.config.warnings = [{ file: NASTY, line: 1, column: 1, key: NASTY, message: NASTY }];
  made.config.needs_restart = [NASTY];
  made.config.path = NASTY;
  Object.assign(made.status, {
    mesh: NASTY,
    config: NASTY,
    state_dir: NASTY,
    listen: [NASTY],
    errors: [{ kind: NASTY, count: 1 }],
  });
  return made;
}
