/** The console of a real node: that of the client of `ffmesh demo`, a mesh of four nodes in one process. */

import { spawn, type ChildProcess } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { get } from "node:http";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Status } from "../src/api/types";
import { bytes } from "../src/format";
import { browser, Watch } from "./browser";

const FFMESH = process.env.FFMESH ?? fileURLToPath(new URL("../../target/release/ffmesh", import.meta.url));

const PAGES = [
  "overview",
  "topology",
  "peers",
  "routes",
  "proxies",
  "services",
  "flows",
  "history",
  "log",
  "config",
  "actions",
];

interface Ready {
  web: string;
  console: string;
}

let demo: ChildProcess;
let lines: Interface;
let ready: Ready;
let page: Page;
let watch: Watch;
let close: () => Promise<void>;
/** A flow that stays open, so that there is a session whose routes can die. */
let stream: ReturnType<typeof get>;

const type = (line: string) => demo.stdin?.write(`${line}\n`);
const go = async (name: string) => {
  await page.evaluate((name) => (window.location.hash = `#/${name}`), name);
  await page.locator("main h1").waitFor();
};

beforeAll(async () => {
  demo = spawn(FFMESH, ["demo", "--json", "--port", "0"], { stdio: ["pipe", "pipe", "inherit"] });
  lines = createInterface({ input: demo.stdout! });
  ready = await new Promise<Ready>((resolve, reject) => {
    lines.once("line", (line) => resolve(JSON.parse(line) as Ready));
    demo.once("error", reject);
    demo.once("exit", (code) => reject(new Error(`the demo ended with status ${code} before it was ready`)));
  });
  stream = get(`${ready.web}stream`, (answer) => answer.resume());
  stream.on("error", () => {});
  const started = await browser();
  close = started.close;
  page = started.context.pages()[0] ?? (await started.context.newPage());
  page.setDefaultTimeout(15_000);
  watch = new Watch(page);
  await page.goto(ready.console);
  await page.locator(".live.good").waitFor();
});

afterAll(async () => {
  stream?.destroy();
  await close?.();
  lines?.close();
  if (demo && demo.exitCode === null) {
    const ended = new Promise((resolve) => demo.once("exit", resolve));
    demo.kill("SIGTERM");
    await ended;
  }
});

describe("the console of a node", () => {
  it("is opened by the link of the demo, which leaves no code behind", () => {
    expect(page.url()).not.toContain("code=");
  });

  it("has every page, in both languages", async () => {
    for (const [language, title] of [
      ["en", "Overview"],
      ["zh-CN", "概览"],
      ["en", "Overview"],
    ] as const) {
      await page.locator("select.language").selectOption(language);
      await go("overview");
      await page.getByRole("heading", { name: title }).waitFor();
      for (const name of PAGES) {
        await go(name);
        await expect.poll(() => page.locator("main .loading").count(), { timeout: 10_000 }).toBe(0);
        expect(await page.locator("main .failure").allInnerTexts(), name).toEqual([]);
      }
    }
    expect(watch.said).toEqual([]);
  });

  it("shows what the node knows", async () => {
    await go("peers");
    for (const relay of ["relay-1", "relay-2"]) {
      await page.getByRole("row", { name: new RegExp(`${relay} up`) }).waitFor();
    }
    await go("flows");
    await expect.poll(() => page.locator("tbody tr").count()).toBeGreaterThan(0);
    await go("overview");
    await expect
      .poll(() => page.locator(".figure-box").filter({ hasText: "Sent" }).locator(".value").innerText())
      .not.toBe("0 B");
    expect(watch.said).toEqual([]);
  });

  it("shows a failover as it happens", async () => {
    await go("topology");
    await page.locator(".graph canvas").waitFor();
    await page.getByRole("button", { name: "Table" }).click();
    // The relay that the flow takes now.
    const used = await expect
      .poll(async () => (await page.getByRole("row", { name: /Flows take it/ }).allInnerTexts()).join(" "), {
        timeout: 15_000,
      })
      .toMatch(/relay-\d/)
      .then(
        async () =>
          /relay-\d/.exec((await page.getByRole("row", { name: /Flows take it/ }).allInnerTexts()).join(" "))?.[0],
      );
    const other = used === "relay-1" ? "relay-2" : "relay-1";
    await page.getByRole("button", { name: "Graph" }).click();
    type(`kill ${used}`);
    const row = page.locator(".failovers li").first();
    await expect.poll(() => row.innerText(), { timeout: 20_000 }).toContain(`client → ${used} → server`);
    expect(await row.innerText()).toContain(`client → ${other} → server`);
    type(`start ${used}`);
    await go("peers");
    await page.getByRole("row", { name: new RegExp(`${used} up`) }).waitFor({ timeout: 30_000 });
    expect(watch.said).toEqual([]);
  });

  it("has the figures of the API and of the metrics", async () => {
    await go("overview");
    const figure = (title: string) => page.locator(".figure-box").filter({ hasText: title }).innerText();
    // Some of them change all the time: they are compared until they were read within one moment.
    const differ = async () => {
      const [status, metrics] = await page.evaluate(async () => {
        const [status, metrics] = await Promise.all([fetch("/api/v1/status"), fetch("/metrics")]);
        return [(await status.json()) as Status, await metrics.text()] as const;
      });
      const sample = (name: string) => {
        const line = metrics.split("\n").find((line) => line.startsWith(`${name} `));
        return Number(line?.slice(name.length + 1));
      };
      const errors = metrics.matchAll(/^ffmesh_errors_total{.*} (\d+)$/gm);
      const shown = await Promise.all(["Sent", "Failovers", "Connection"].map(figure));
      const pairs = {
        sent: [shown[0]?.includes(bytes(status.bytes_sent)), true],
        failovers: [shown[1]?.includes(`\n${status.failovers}\n`), true],
        links: [shown[2]?.includes(`${status.links_up}`), true],
        "sent in metrics": [sample('ffmesh_flow_bytes_total{proxy="web",direction="up"}'), status.bytes_sent],
        "failovers in metrics": [sample("ffmesh_failovers_total"), status.failovers],
        "links in metrics": [sample('ffmesh_peers{state="up"}'), status.links_up],
        "errors in metrics": [
          [...errors].reduce((sum, [, count]) => sum + Number(count), 0),
          status.errors.reduce((sum, { count }) => sum + count, 0),
        ],
        "a failover": [status.failovers > 0, true],
      };
      return Object.entries(pairs).filter(([, [one, other]]) => one !== other);
    };
    await expect.poll(differ, { timeout: 15_000 }).toEqual([]);
    expect(watch.said).toEqual([]);
  });

  it("measures, and adds a proxy that works", async () => {
    await go("topology?node=server");
    await page.getByRole("button", { name: "Ping" }).click();
    await page.locator(".result dd").first().waitFor();
    await page.getByRole("button", { name: "Trace" }).click();
    await page.getByRole("cell", { name: "server", exact: true }).waitFor();
    await go("proxies");
    await page.getByRole("button", { name: "Add a proxy" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("textbox", { name: "Name", exact: true }).fill("added");
    await dialog.getByLabel("Local address").fill("unix:/tmp/ffmesh-console-test.sock");
    await dialog.getByLabel("Target node").fill("server");
    await dialog.getByLabel("Target address").fill("127.0.0.1:9");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByRole("button", { name: "Remove proxy added" }).click();
    await dialog.getByRole("button", { name: "Remove" }).click();
    await expect.poll(() => page.getByRole("button", { name: "Remove proxy added" }).count()).toBe(0);
    expect(watch.said).toEqual([]);
  });

  it("reloads the page and its configuration", async () => {
    await page.reload();
    await page.locator(".live.good").waitFor();
    await go("actions");
    await page.getByRole("button", { name: "Reload now" }).click();
    // The demo's nodes have no file: then the node says so, and the page shows its words.
    await page.locator(".result .badge, main .failure").first().waitFor();
    for (const words of await page.locator("main .failure").allInnerTexts()) expect(words).toMatch(/file/);
    expect(watch.said.filter((line) => !/Failed to load resource.*reload/.test(line))).toEqual([]);
  });
});
