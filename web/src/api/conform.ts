/**
 * Holds the types of this page against those that `npm run types` makes from docs/openapi.json: what does not compile
 * here has changed in the API. Nothing of it is in the built page.
 */

import type { components } from "./schema";
import type * as own from "./types";

type Schemas = components["schemas"];
type Schema<Name extends string> = Name extends keyof Schemas ? Schemas[Name] : never;

/** A node sends every field; the document has those as optional that an older one may leave out. */
type Whole<T> = T extends (infer Item)[] ? Whole<Item>[] : T extends object ? { [Key in keyof T]-?: Whole<T[Key]> } : T;

/** What the API answers must be what this page reads. */
type Reads<Mine, Name extends string> = [Whole<Schema<Name>>] extends [Mine] ? true : Name;
/** What this page sends must be what the API takes. */
type Sends<Mine, Name extends string> = [Schema<Name>] extends [never] ? true : Mine extends Schema<Name> ? true : Name;

type Wrong<Checks extends Record<string, true | string>> = Exclude<Checks[keyof Checks], true>;

type Answers = {
  Config: Reads<own.Config, "Config">;
  Drain: Reads<own.Drain, "Drain">;
  Error: Reads<own.ErrorBody, "Error">;
  Flows: Reads<own.Flows, "Flows">;
  History: Reads<own.History, "History">;
  LogEntry: Reads<own.LogEntry, "LogEntry">;
  Peer: Reads<own.Peer, "Peer">;
  Ping: Reads<own.Ping, "Ping">;
  Proxy: Reads<own.Proxy, "Proxy">;
  Reload: Reads<own.Reload, "Reload">;
  Route: Reads<own.Route, "Route">;
  Service: Reads<own.Service, "Service">;
  Session: Reads<own.Session, "Session">;
  Speedtest: Reads<own.Speedtest, "Speedtest">;
  Status: Reads<own.Status, "Status">;
  Token: Reads<own.Token, "Token">;
  Topology: Reads<own.Topology, "Topology">;
  Trace: Reads<own.Trace, "Trace">;
};

type Requests = {
  ProxySpec: Sends<own.ProxySpec, "ProxySpec">;
  ServiceSpec: Sends<own.ServiceSpec, "ServiceSpec">;
  TokenRequest: Sends<own.TokenRequest, "TokenRequest">;
};

/** The names of the types that do not fit: none. */
export type Misfits = Wrong<Answers> | Wrong<Requests>;
const none: [Misfits] extends [never] ? true : Misfits = true;
void none;
