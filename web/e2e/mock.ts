/** A node that is not one: serves the built console and answers as the admin API does, from a world that a test can change. */

import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import type { Change } from "../src/api/types";
import { world, type World } from "./world";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));

/** That of the node, word for word. */
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

export const TOKEN = "the-token";
export const CODE = "a-code";
const CSRF = "a-csrf-token";

export class Mock {
  world: World = world();
  /** Answers with this instead, by `METHOD /path`. */
  failures = new Map<string, { status: number; body: unknown }>();
  /** What was asked for, as `METHOD /path body`. */
  asked: string[] = [];
  /** How long each answer of the API takes, ms. */
  delay = 0;

  private sessions = new Set<string>();
  private streams = new Set<ServerResponse>();
  private server: Server | undefined;
  private port = 0;
  private kept: string[] = [];
  private ticking: NodeJS.Timeout | undefined;

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Listens, on the same port as before where there was one. */
  async start(): Promise<void> {
    this.server = createServer((request, response) => {
      this.answer(request, response).catch((error: unknown) => {
        response.writeHead(500).end(String(error));
      });
    });
    await new Promise<void>((resolve) => this.server?.listen(this.port, "127.0.0.1", resolve));
    const address = this.server.address();
    if (typeof address === "object" && address) this.port = address.port;
    this.ticking = setInterval(() => this.tick(), 1000);
  }

  /** Is gone, as a node that was stopped. */
  async stop(): Promise<void> {
    clearInterval(this.ticking);
    for (const stream of this.streams) stream.destroy();
    this.streams.clear();
    this.server?.closeAllConnections();
    await new Promise((resolve) => this.server?.close(resolve));
  }

  /** Forgets all sessions, as after a restart or when they are too old. */
  expire(): void {
    this.sessions.clear();
    for (const stream of this.streams) stream.destroy();
  }

  emit(change: Change): void {
    const event = { id: this.kept.length + 1, at: new Date().toISOString(), ...change };
    const text = `id: ${event.id}\nevent: ${change.kind}\ndata: ${JSON.stringify(event)}\n\n`;
    this.kept.push(["sample", "log", "lagged"].includes(change.kind) ? "" : text);
    for (const stream of this.streams) stream.write(text);
  }

  private tick(): void {
    this.world.live();
    this.emit({ kind: "sample", ...this.world.sample() });
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader("Content-Security-Policy", POLICY);
    response.setHeader("X-Content-Type-Options", "nosniff");
    response.setHeader("Referrer-Policy", "no-referrer");
    response.setHeader("X-Frame-Options", "DENY");
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    const url = new URL(request.url ?? "/", this.url);
    if (!url.pathname.startsWith("/api/v1/")) return file(url.pathname, response);
    const path = url.pathname.slice("/api/v1".length);
    const body = await text(request);
    this.asked.push(`${request.method} ${path} ${body}`.trim());
    if (this.delay) await new Promise((resolve) => setTimeout(resolve, this.delay));
    const failure = this.failures.get(`${request.method} ${path}`);
    if (failure) return json(response, failure.status, failure.body);
    const cookie = /ffmesh_session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    if (path === "/login") return this.login(response, body);
    if (!cookie || !this.sessions.has(cookie)) {
      return json(response, 401, { error: "no session: sign in with the token in admin.token", problems: [] });
    }
    if (request.method !== "GET" && request.headers["x-csrf-token"] !== CSRF) {
      return json(response, 403, { error: "the header X-CSRF-Token is missing or wrong" });
    }
    if (path === "/session") return json(response, 200, session());
    if (path === "/logout") {
      this.sessions.delete(cookie);
      response.writeHead(204).end();
      return;
    }
    if (path === "/events") return this.stream(response, Number(url.searchParams.get("after") ?? this.kept.length));
    const [status, answer] = this.world.api(request.method ?? "GET", path, url.searchParams, body);
    if (status === 204) response.writeHead(204).end();
    else json(response, status, answer);
    this.world.changes.splice(0).forEach((change) => this.emit(change));
  }

  private login(response: ServerResponse, body: string): void {
    const { token, code } = JSON.parse(body) as { token?: string; code?: string };
    if (token !== TOKEN && code !== CODE) {
      return json(response, 401, { error: "the token is wrong: it is in admin.token in the state directory" });
    }
    const id = `s${Math.random().toString(36).slice(2)}`;
    this.sessions.add(id);
    response.setHeader("Set-Cookie", `ffmesh_session=${id}; HttpOnly; SameSite=Strict; Path=/`);
    json(response, 200, session());
  }

  private stream(response: ServerResponse, after: number): void {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    response.write(`: hello\n\n${this.kept.slice(after).join("")}`);
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
  }
}

const session = () => ({ csrf_token: CSRF, expires: new Date(Date.now() + 3_600_000).toISOString() });

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store" });
  response.end(JSON.stringify(body));
}

async function text(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString("utf8");
}

async function file(path: string, response: ServerResponse): Promise<void> {
  const name = normalize(path === "/" ? "/index.html" : path);
  try {
    const bytes = await readFile(join(DIST, name));
    response.writeHead(200, { "Content-Type": TYPES[extname(name)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}
