/** Requests to the node that served this page. */

import { signal } from "@preact/signals";
import { remember, remembered } from "../i18n";
import type { ErrorBody, Problem, Session } from "./types";

const BASE = "/api/v1";

/** An answer takes no longer than a trace or a speed test of 30 s both ways. */
const TIMEOUT_MS = 90_000;

/** What the API or the network says went wrong. Its words are shown as they are. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly problems: Problem[] = [],
  ) {
    super(message);
  }

  /** Whether the node did not answer at all. */
  get unreachable(): boolean {
    return this.status === 0;
  }
}

/** Where the session stands. `asking` until the node has answered for the first time. */
export const session = signal<"asking" | "none" | "open" | "expired">("asking");

let csrf = "";

/** Whether this browser ever had a session here. The cookie itself can't be seen from a script. */
const SIGNED_IN = "ffmesh.signed_in";

function opened(answer: Session): void {
  csrf = answer.csrf_token;
  session.value = "open";
  remember(SIGNED_IN, "yes");
}

/** Looks whether the browser has a session. Throws where the node does not answer. */
export async function findSession(): Promise<boolean> {
  if (remembered(SIGNED_IN) !== "yes" && session.value === "asking") {
    session.value = "none";
    return false;
  }
  try {
    opened(await request<Session>("GET", "/session"));
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      session.value = session.value === "open" || session.value === "expired" ? "expired" : "none";
      return false;
    }
    throw error;
  }
}

/** Opens a session with the admin token or with a one-time code of the command line. */
export async function login(secret: { token: string } | { code: string }): Promise<void> {
  opened(await request<Session>("POST", "/login", secret));
}

export async function logout(): Promise<void> {
  try {
    await request("POST", "/logout");
  } finally {
    csrf = "";
    session.value = "none";
    remember(SIGNED_IN, "no");
  }
}

export const get = <T>(path: string) => request<T>("GET", path);
export const post = <T>(path: string, body: unknown = {}) => request<T>("POST", path, body);
export const put = <T>(path: string, body: unknown) => request<T>("PUT", path, body);
export const remove = (path: string) => request<void>("DELETE", path);

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(BASE + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new ApiError(0, error instanceof Error ? error.message : String(error));
  }
  if (answer.ok) return (await read(answer)) as T;
  const failure = (await read(answer).catch(() => undefined)) as Partial<ErrorBody> | undefined;
  // A wrong token at the login form is no end of a session.
  if (answer.status === 401 && path !== "/login" && session.value === "open") session.value = "expired";
  throw new ApiError(answer.status, failure?.error ?? `${answer.status} ${answer.statusText}`, failure?.problems ?? []);
}

async function read(answer: Response): Promise<unknown> {
  const text = await answer.text();
  return text === "" ? undefined : JSON.parse(text);
}
