/** Pictures of every page, to be looked at: `npx vite-node e2e/shots.ts DIRECTORY [filter]`. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { browser } from "./browser";
import { CODE, Mock } from "./mock";
import { empty, large } from "./world";

const directory = process.argv[2] ?? "shots";
const filter = process.argv[3] ?? "";
mkdirSync(directory, { recursive: true });

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
const LOOKS = [
  { name: "light-en", options: { colorScheme: "light" as const } },
  { name: "dark-en", options: { colorScheme: "dark" as const } },
  { name: "light-zh", options: { colorScheme: "light" as const, locale: "zh-CN" } },
  {
    name: "phone-en",
    options: {
      colorScheme: "light" as const,
      viewport: { width: 360, height: 740 },
      deviceScaleFactor: 2,
      isMobile: true,
      hasTouch: true,
    },
  },
  {
    name: "phone-dark-zh",
    options: {
      colorScheme: "dark" as const,
      locale: "zh-CN",
      viewport: { width: 360, height: 740 },
      deviceScaleFactor: 2,
      isMobile: true,
      hasTouch: true,
    },
  },
];

const mock = new Mock();
await mock.start();
for (const look of LOOKS) {
  if (filter && !look.name.includes(filter.split("/")[0] ?? "")) continue;
  const { context, close } = await browser(look.options);
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("console", (message) => console.log(look.name, message.type(), message.text()));
  page.on("pageerror", (error) => console.log(look.name, error.message));
  const shot = (name: string) => page.screenshot({ path: join(directory, `${look.name}-${name}.png`) });
  const only = filter.split("/")[1];
  await page.goto(mock.url);
  await page.locator("form").waitFor();
  await shot("login");
  await page.goto(`${mock.url}#code=${CODE}`);
  await page.reload();
  await page.locator("main h1").waitFor();
  mock.emit({ kind: "peer", node_id: "laptop", state: "down", reason: "no answer for 5 s" });
  mock.emit({ kind: "session", node_id: "server", open: true });
  for (const name of PAGES) {
    if (only && only !== name) continue;
    await page.goto(`${mock.url}#/${name}`);
    await page.waitForTimeout(1300);
    await shot(name);
    if (name === "topology") {
      await page.goto(`${mock.url}#/topology?node=server`);
      mock.world.failover();
      mock.emit({
        kind: "failover",
        node_id: "server",
        from: ["client", "relay-1", "server"],
        to: ["client", "relay-2", "server"],
      });
      await page.waitForTimeout(1500);
      await page.getByRole("button", { name: /^(Trace|路径跟踪)$/ }).click();
      await page.waitForTimeout(400);
      await page.screenshot({ path: join(directory, `${look.name}-failover.png`), fullPage: true });
      mock.world = (await import("./world")).world();
    }
    if (name === "proxies") {
      await page.getByRole("button", { name: /^(Add a proxy|添加代理)$/ }).click();
      await shot("proxy-form");
      await page.keyboard.press("Escape");
    }
    if (name === "actions") {
      await page.getByRole("button", { name: /^(Make a token|创建令牌)$/ }).click();
      await page.getByRole("button", { name: /^(Reload now|立即重载)$/ }).click();
      await page.waitForTimeout(500);
      await page.screenshot({ path: join(directory, `${look.name}-actions-done.png`), fullPage: true });
      await page.getByRole("button", { name: /^(Drain|排空)$/ }).click();
      await shot("drain");
      await page.keyboard.press("Escape");
    }
  }
  if (look.name === "light-en" && !only) {
    mock.world = large();
    await page.goto(`${mock.url}#/topology`);
    await page.waitForTimeout(5000);
    await shot("large");
    mock.world = empty();
    for (const name of ["overview", "topology", "proxies", "flows"]) {
      await page.goto(`${mock.url}#/${name}`);
      await page.waitForTimeout(2500);
      await shot(`empty-${name}`);
    }
    await mock.stop();
    await page.waitForTimeout(2500);
    await shot("lost");
    await mock.start();
    await page.waitForTimeout(6000);
    mock.expire();
    await page.waitForTimeout(4000);
    await shot("expired");
    mock.world = (await import("./world")).world();
  }
  await close();
}
await mock.stop();
