/** What the API says now, kept fresh while something shows it. */

import { signal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ApiError, get } from "../api/client";
import { link, on, onMissed } from "../api/stream";
import type { Config, Flows, Kind, Peer, Proxy, Route, Service, Status, Topology } from "../api/types";

/** Events may come in bursts; asking more often than this shows nothing more. */
const LEAST_GAP_MS = 1000;

interface Options {
  /** Asks again after each of these events */
  on?: Kind[];
  /** Asks again each so many ms, for figures that change without an event */
  every?: number;
}

export class Resource<T> {
  readonly data: Signal<T | undefined> = signal(undefined);
  readonly error: Signal<ApiError | undefined> = signal(undefined);
  /** When `data` came, by this machine's clock. */
  readonly at: Signal<number> = signal(0);

  private users = 0;
  private asking = false;
  private again = false;
  private asked = 0;
  private timer: number | undefined;
  private stop: (() => void)[] = [];

  constructor(
    readonly path: string,
    private readonly options: Options = {},
  ) {}

  /** Asks at once, or as soon as the gap lets it. */
  refresh = (): void => {
    if (this.users === 0) return;
    if (this.asking) {
      this.again = true;
      return;
    }
    window.clearTimeout(this.timer);
    const wait = this.asked + LEAST_GAP_MS - performance.now();
    if (wait > 0 && this.asked > 0) this.timer = window.setTimeout(this.ask, wait);
    else void this.ask();
  };

  /** Keeps it fresh until the answer is called. */
  acquire(): () => void {
    this.users += 1;
    if (this.users === 1) this.start();
    return () => {
      this.users -= 1;
      if (this.users === 0) this.pause();
    };
  }

  private start(): void {
    this.asked = 0;
    for (const kind of this.options.on ?? []) this.stop.push(on(kind, this.refresh));
    this.stop.push(onMissed(this.refresh));
    if (this.options.every) {
      const tick = window.setInterval(() => {
        if (!document.hidden && link.value !== "lost") this.refresh();
      }, this.options.every);
      const shown = () => !document.hidden && this.refresh();
      document.addEventListener("visibilitychange", shown);
      this.stop.push(() => {
        window.clearInterval(tick);
        document.removeEventListener("visibilitychange", shown);
      });
    }
    this.refresh();
  }

  private pause(): void {
    window.clearTimeout(this.timer);
    for (const stop of this.stop.splice(0)) stop();
  }

  private ask = async (): Promise<void> => {
    this.asking = true;
    this.again = false;
    this.asked = performance.now();
    try {
      const data = await get<T>(this.path);
      this.data.value = data;
      this.at.value = Date.now();
      this.error.value = undefined;
    } catch (error) {
      this.error.value = error instanceof ApiError ? error : new ApiError(0, String(error));
    } finally {
      this.asking = false;
    }
    if (this.again) this.refresh();
  };
}

/** A resource that is kept fresh while the component is shown. */
export function useResource<T>(resource: Resource<T>): Resource<T> {
  useEffect(() => resource.acquire(), [resource]);
  return resource;
}

const FIGURES_MS = 2000;

export const status = new Resource<Status>("/status", {
  on: ["peer", "session", "drain", "certificate", "reload", "failover"],
  every: FIGURES_MS,
});
export const peers = new Resource<Peer[]>("/peers", { on: ["peer"], every: FIGURES_MS });
export const routes = new Resource<Route[]>("/routes", {
  on: ["topology", "session", "failover", "node"],
  every: FIGURES_MS,
});
export const topology = new Resource<Topology>("/topology", {
  on: ["topology", "peer", "node", "session", "failover"],
  every: FIGURES_MS,
});
export const proxies = new Resource<Proxy[]>("/proxies", { on: ["proxy", "reload"], every: FIGURES_MS });
export const services = new Resource<Service[]>("/services", { on: ["service", "reload", "node", "topology"] });
export const flows = new Resource<Flows>("/flows", { every: 1000 });
export const config = new Resource<Config>("/config", { on: ["reload", "proxy", "service"] });
