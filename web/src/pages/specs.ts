/** Between what the API shows and what it takes. Pure. */

import type { Proxy, ProxySpec } from "../api/types";

/** What a form holds: all of it text. */
export interface ProxyFields {
  name: string;
  protocol: string;
  local_address: string;
  local_port: string;
  kind: "address" | "service" | "exit";
  target_node_id: string;
  target_address: string;
  target_service: string;
  idle_timeout: string;
}

export const NEW_PROXY: ProxyFields = {
  name: "",
  protocol: "tcp",
  local_address: "127.0.0.1",
  local_port: "",
  kind: "address",
  target_node_id: "",
  target_address: "",
  target_service: "",
  idle_timeout: "",
};

/** A proxy as a spec, from the words that the API shows: `NODE ADDRESS`, `service NAME` or `NODE *`. */
export function specOf(proxy: Proxy): ProxySpec {
  const spec: ProxySpec = { name: proxy.name, protocol: proxy.protocol };
  if (proxy.idle_timeout) spec.idle_timeout = proxy.idle_timeout;
  if (proxy.listen.startsWith("unix:")) {
    spec.local_address = proxy.listen;
  } else {
    const colon = proxy.listen.lastIndexOf(":");
    spec.local_address = proxy.listen.slice(0, colon).replace(/^\[|\]$/g, "");
    spec.local_port = Number(proxy.listen.slice(colon + 1));
  }
  const [first = "", ...rest] = proxy.target.split(" ");
  const second = rest.join(" ");
  if (first === "service" && !/^unix:|:\d+$|^\*$/.test(second)) spec.target_service = second;
  else {
    spec.target_node_id = first;
    if (second !== "" && second !== "*") spec.target_address = second;
  }
  return spec;
}

export function fieldsOf(spec: ProxySpec): ProxyFields {
  return {
    name: spec.name,
    protocol: spec.protocol ?? "tcp",
    local_address: spec.local_address ?? "127.0.0.1",
    local_port: spec.local_port === undefined ? "" : String(spec.local_port),
    kind: spec.target_service ? "service" : spec.target_address ? "address" : "exit",
    target_node_id: spec.target_node_id ?? "",
    target_address: spec.target_address ?? "",
    target_service: spec.target_service ?? "",
    idle_timeout: spec.idle_timeout ?? "",
  };
}

/** What the form says, without what it leaves open: the node knows the defaults and checks the rest. */
export function specFrom(fields: ProxyFields): ProxySpec {
  const text = (value: string) => (value.trim() === "" ? undefined : value.trim());
  const unix = fields.local_address.trim().startsWith("unix:");
  const port = text(fields.local_port);
  const spec: ProxySpec = {
    name: fields.name.trim(),
    protocol: fields.protocol,
    local_address: text(fields.local_address),
    local_port: unix || port === undefined ? undefined : Number(port),
    idle_timeout: text(fields.idle_timeout),
  };
  if (fields.kind === "service") spec.target_service = text(fields.target_service);
  else spec.target_node_id = text(fields.target_node_id);
  if (fields.kind === "address") spec.target_address = text(fields.target_address);
  return spec;
}

/** Words of a list in one field: by commas or spaces. */
export function wordsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}
