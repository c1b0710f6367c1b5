import { describe, expect, it } from "vitest";
import type { Proxy } from "../api/types";
import { fieldsOf, NEW_PROXY, specFrom, specOf, wordsOf } from "./specs";

const proxy = (listen: string, target: string): Proxy => ({
  name: "web",
  origin: "runtime",
  protocol: "tcp",
  listen,
  target,
  flows_open: 0,
  flows_total: 0,
  flows_failed: 0,
  bytes_up: 0,
  bytes_down: 0,
});

describe("a proxy", () => {
  it("as it is shown becomes the spec that made it", () => {
    expect(specOf(proxy("127.0.0.1:3333", "server 127.0.0.1:80"))).toEqual({
      name: "web",
      protocol: "tcp",
      local_address: "127.0.0.1",
      local_port: 3333,
      target_node_id: "server",
      target_address: "127.0.0.1:80",
    });
    expect(specOf(proxy("[::1]:3333", "service web"))).toMatchObject({ local_address: "::1", target_service: "web" });
    expect(specOf(proxy("unix:/run/a b.sock", "server unix:/run/a b.sock"))).toMatchObject({
      local_address: "unix:/run/a b.sock",
      target_address: "unix:/run/a b.sock",
    });
    expect(specOf(proxy("127.0.0.1:1080", "server *"))).not.toHaveProperty("target_address");
    // A node may be called that, too.
    expect(specOf(proxy("127.0.0.1:1", "service 127.0.0.1:80"))).toMatchObject({ target_node_id: "service" });
  });
  it("goes through the form unchanged", () => {
    for (const [listen, target] of [
      ["127.0.0.1:3333", "server 127.0.0.1:80"],
      ["unix:/run/x.sock", "service web"],
      ["[::]:1080", "server *"],
    ] as const) {
      const spec = specOf(proxy(listen, target));
      expect(JSON.parse(JSON.stringify(specFrom(fieldsOf(spec))))).toEqual(spec);
    }
  });
  it("leaves to the node what the form leaves open", () => {
    const spec = specFrom({
      ...NEW_PROXY,
      name: " web ",
      local_port: "80",
      target_node_id: "a",
      target_address: "b:1",
    });
    expect(JSON.parse(JSON.stringify(spec))).toEqual({
      name: "web",
      protocol: "tcp",
      local_address: "127.0.0.1",
      local_port: 80,
      target_node_id: "a",
      target_address: "b:1",
    });
  });
});

it("words stand between commas and spaces", () => {
  expect(wordsOf(" a, b  c,,")).toEqual(["a", "b", "c"]);
  expect(wordsOf(" ")).toEqual([]);
});
