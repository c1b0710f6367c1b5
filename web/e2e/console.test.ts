/** Every page in a real browser, against a node that is played. Any word on the browser's console is a failure. */

import type { BrowserContextOptions, Page } from "playwright-core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { browser, Watch } from "./browser";
import { CODE, Mock, TOKEN } from "./mock";
import { empty, large, nasty } from "./world";

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
] as const;

/** What Chromium says of answers that a test has asked for. */
const REFUSED = [/Failed to load resource/];

let mock: Mock;
const cleanup: (() => Promise<void>)[] = [];

beforeEach(async () => {
  mock = new Mock();
  await mock.start();
});

afterEach(async () => {
  for (const close of cleanup.splice(0)) await close();
  await mock.stop();
});

async function fresh(
  options: BrowserContextOptions = {},
  allowed: RegExp[] = [],
): Promise<{ page: Page; watch: Watch }> {
  const { context, close } = await browser(options);
  cleanup.push(close);
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(15_000);
  return { page, watch: new Watch(page, allowed) };
}

/** Signed in, with the code that the command line makes. */
async function signedIn(options: BrowserContextOptions = {}, allowed: RegExp[] = []) {
  const { page, watch } = await fresh(options, allowed);
  await page.goto(`${mock.url}#code=${CODE}`);
  await page.locator(".live.good").waitFor();
  return { page, watch };
}

const go = async (page: Page, name: string) => {
  await page.evaluate((name) => (window.location.hash = `#/${name}`), name);
  await page.locator(`nav a[aria-current][href="#/${name.split("?")[0]}"]`).waitFor({ state: "attached" });
};

const overflow = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe("signing in", () => {
  it("takes the token, and says when it is wrong", async () => {
    const { page, watch } = await fresh({}, REFUSED);
    await page.goto(mock.url);
    await page.getByLabel("Admin token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await expect.poll(() => page.getByRole("alert").textContent()).toContain("the token is wrong");
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    expect(watch.said).toEqual([]);
  });

  it("with a code leaves no code behind, and lasts over a reload", async () => {
    const { page, watch } = await signedIn();
    expect(page.url()).not.toContain(CODE);
    expect(await page.evaluate(() => history.length)).toBeLessThanOrEqual(2);
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Admin token").waitFor();
    expect(mock.asked).toContain("POST /logout");
    await page.reload();
    await page.getByLabel("Admin token").waitFor();
    expect(watch.said).toEqual([]);
  });
});

describe("a link with a code", () => {
  it("signs in also where the console is shown already, and leaves no code behind", async () => {
    const { page, watch } = await signedIn({}, REFUSED);
    const logins = () => mock.asked.filter((line) => line.startsWith("POST /login")).length;
    await go(page, "peers");
    await page.evaluate((code) => (window.location.hash = `#code=${code}`), CODE);
    await expect.poll(logins).toBe(2);
    await expect.poll(() => page.url()).not.toContain(CODE);
    await page.getByRole("heading", { name: "Peers" }).waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Admin token").waitFor();
    await page.evaluate((code) => (window.location.hash = `#code=${code}`), CODE);
    await page.locator(".live.good").waitFor();
    expect(page.url()).not.toContain(CODE);
    expect(watch.said).toEqual([]);
  });
});

describe("every page", () => {
  for (const look of [
    { name: "light, English", options: { colorScheme: "light", locale: "en-GB" } },
    { name: "dark, Chinese", options: { colorScheme: "dark", locale: "zh-CN" } },
    { name: "a phone", options: { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true } },
  ] as { name: string; options: BrowserContextOptions }[]) {
    it(`shows what it should: ${look.name}`, async () => {
      const { page, watch } = await signedIn(look.options);
      for (const name of PAGES) {
        await go(page, name);
        await page.locator("main h1").waitFor();
        await expect.poll(() => page.locator("main .loading").count(), { timeout: 8000 }).toBe(0);
        expect(await page.locator("main .failure").count(), name).toBe(0);
        expect((await page.locator("main").innerText()).length, name).toBeGreaterThan(20);
        expect(await overflow(page), `${name} is wider than the screen`).toBeLessThanOrEqual(0);
      }
      const dark = look.options.colorScheme === "dark";
      expect(await page.locator("html").getAttribute("data-theme")).toBe(dark ? "dark" : "light");
      expect(await page.locator("html").getAttribute("lang")).toBe(look.options.locale === "zh-CN" ? "zh-CN" : "en");
      expect(watch.said).toEqual([]);
    });
  }

  it("says so when there is nothing", async () => {
    mock.world = empty();
    const { page, watch } = await signedIn();
    for (const [name, words] of [
      ["peers", "No neighbours"],
      ["routes", "No other node"],
      ["proxies", "None was added"],
      ["services", "No other node offers any"],
      ["flows", "No flow is open"],
      ["log", "The log is empty"],
      ["topology", "No session has left"],
      ["config", "No proxy or service was added"],
      ["actions", "This node is no issuer"],
    ] as const) {
      await go(page, name);
      await page.getByText(words).first().waitFor();
    }
    expect(watch.said).toEqual([]);
  });

  it("says that it is loading, and what went wrong in the API's words", async () => {
    mock.delay = 700;
    const { page, watch } = await signedIn({}, REFUSED);
    await go(page, "peers");
    await page.locator("main .loading").waitFor();
    mock.delay = 0;
    for (const path of [
      "/peers",
      "/routes",
      "/proxies",
      "/services",
      "/flows",
      "/topology",
      "/config",
      "/log",
      "/history",
    ]) {
      mock.failures.set(`GET ${path}`, {
        status: 503,
        body: { error: `no ${path} now; ask again in a minute`, problems: [] },
      });
    }
    for (const name of ["routes", "proxies", "services", "flows", "topology", "config", "log", "history"]) {
      await go(page, name);
      await page.getByText(`no /${name} now; ask again in a minute`).first().waitFor();
    }
    await go(page, "config");
    await page.getByText("no /config now").waitFor();
    // At once: the page may ask again by itself, too.
    const again = await page.getByRole("button", { name: "Try again" }).elementHandle();
    mock.failures.clear();
    await again?.evaluate((button) => (button as HTMLElement).click());
    await page.getByRole("heading", { name: "Values in force" }).waitFor();
    expect(watch.said).toEqual([]);
  });

  it("is text, whatever names there are", async () => {
    mock.world = nasty();
    const { page, watch } = await signedIn();
    for (const name of PAGES) {
      await go(page, name);
      await expect.poll(() => page.locator("main .loading").count(), { timeout: 8000 }).toBe(0);
      if (name === "topology") await page.getByRole("button", { name: "Table" }).click();
    }
    await go(page, "proxies");
    await page.getByText("\\u{202e}", { exact: false }).first().waitFor();
    expect(await page.evaluate(() => "__hit" in window)).toBe(false);
    expect(await page.locator("main img, main script").count()).toBe(0);
    expect(watch.said).toEqual([]);
  });
});

describe("the connection", () => {
  it("is lost and comes back, and old data says that it is old", async () => {
    const { page, watch } = await signedIn({}, REFUSED);
    await go(page, "peers");
    await page.getByRole("cell", { name: "relay-2" }).waitFor();
    await mock.stop();
    await page.getByText("The node does not answer.").waitFor();
    await page.getByText("old data").waitFor();
    expect(await page.getByRole("cell", { name: "relay-2" }).count()).toBe(1);
    mock.world.peers.push({ ...structuredClone(mock.world.peers[0]!), node_id: "newcomer" });
    await mock.start();
    await page.getByRole("cell", { name: "newcomer" }).waitFor({ timeout: 25_000 });
    await expect.poll(() => page.getByText("The node does not answer.").count()).toBe(0);
    expect(watch.said).toEqual([]);
  });

  it("ends with the session, and goes on where it was after signing in again", async () => {
    const { page, watch } = await signedIn({}, REFUSED);
    await go(page, "routes");
    mock.expire();
    await page.getByText("Your session has expired").waitFor();
    await page.getByLabel("Admin token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Routes" }).waitFor();
    expect(watch.said).toEqual([]);
  });

  it("asks anew for all it shows when events were missed", async () => {
    const { page } = await signedIn();
    await go(page, "services");
    await page.getByRole("cell", { name: "preview", exact: true }).waitFor();
    mock.asked = [];
    mock.emit({ kind: "lagged", missed: 12 });
    await expect.poll(() => mock.asked.includes("GET /services")).toBe(true);
  });
});

describe("what one can do", () => {
  it("a proxy is added, changed and removed, and problems are told", async () => {
    const { page, watch } = await signedIn({}, REFUSED);
    await go(page, "proxies");
    await page.getByRole("button", { name: "Add a proxy" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("new one");
    await dialog.getByLabel("Local port").fill("70000");
    await dialog.getByLabel("Target node").fill("server");
    await dialog.getByLabel("Target address").fill("127.0.0.1:22");
    await dialog.getByRole("button", { name: "Save" }).click();
    await dialog.getByText("70000 is no port").waitFor();
    expect(await dialog.locator(".place").count(), "places in the JSON of a form").toBe(0);
    expect(await dialog.getByLabel("Protocol").locator("option").allInnerTexts()).toEqual(["tcp"]);
    await dialog.getByLabel("Local port").fill("2022");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByRole("cell", { name: "127.0.0.1:2022" }).waitFor();
    expect(mock.asked.filter((line) => line.startsWith("POST /proxies")).at(-1)).toContain('"local_port":2022');
    await page.getByRole("button", { name: "Change proxy new one" }).click();
    await dialog.getByLabel("Local port").fill("2023");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByRole("cell", { name: "127.0.0.1:2023" }).waitFor();
    expect(mock.asked.some((line) => line.startsWith("PUT /proxies/new%20one"))).toBe(true);
    await page.getByRole("button", { name: "Remove proxy new one" }).click();
    await dialog.getByRole("button", { name: "Remove" }).click();
    await expect.poll(() => page.getByRole("cell", { name: "127.0.0.1:2023" }).count()).toBe(0);
    // Those of the file can't be touched here.
    expect(await page.getByRole("button", { name: "Change proxy web-service" }).count()).toBe(0);
    expect(watch.said).toEqual([]);
  });

  it("a service is added and removed", async () => {
    const { page, watch } = await signedIn();
    await go(page, "services");
    await page.getByRole("button", { name: "Add a service" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("textbox", { name: "Name", exact: true }).fill("wiki");
    await dialog.getByLabel("Address").fill("127.0.0.1:8080");
    await dialog.getByLabel("May use it").fill("group:dev, node:laptop");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByRole("cell", { name: "group:dev, node:laptop" }).waitFor();
    await page.getByRole("button", { name: "Remove service wiki" }).click();
    await dialog.getByRole("button", { name: "Remove" }).click();
    await expect.poll(() => page.getByRole("cell", { name: "wiki", exact: true }).count()).toBe(0);
    expect(watch.said).toEqual([]);
  });

  it("tokens, reload, measurements and drain", async () => {
    const { page, watch } = await signedIn({}, REFUSED);
    await go(page, "actions");
    await page.getByLabel("Groups").fill("dev, ops");
    await page.getByLabel("It may relay for others").uncheck();
    await page.getByRole("button", { name: "Make a token" }).click();
    await page.getByText("ffmesh join ffm1.").waitFor();
    expect(mock.asked.find((line) => line.startsWith("POST /tokens"))).toContain(
      '"groups":["dev","ops"],"relay":false',
    );

    await page.getByRole("button", { name: "Reload now" }).click();
    await page.getByText("proxies.web: added").waitFor();
    mock.failures.set("POST /reload", {
      status: 422,
      body: {
        error: "the file was not applied",
        problems: [{ file: "/etc/f.yaml", line: 7, column: 5, key: "mesh.hold", message: "a duration was expected" }],
      },
    });
    await page.getByRole("button", { name: "Reload now" }).click();
    await page.getByText("/etc/f.yaml:7:5").waitFor();

    await page.getByLabel("Node", { exact: true }).fill("server");
    await page.getByRole("button", { name: "Speed test" }).click();
    await page.getByText("907 Mbit/s").waitFor();
    await page.getByRole("button", { name: "Ping" }).click();
    await page.getByText("21.7 ms").waitFor();

    await page.getByRole("button", { name: "Drain", exact: true }).click();
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(mock.asked.some((line) => line.startsWith("POST /drain"))).toBe(false);
    await page.getByRole("button", { name: "Drain", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
    await page.getByText("This node is draining").waitFor();
    expect(watch.said).toEqual([]);
  });

  it("the log is filtered and paused", async () => {
    const { page, watch } = await signedIn();
    await go(page, "log");
    await page.getByText("node started").waitFor();
    mock.emit({ kind: "log", level: "WARN", target: "ffmesh::x", message: "first new line", fields: { a: "b" } });
    await page.getByText("first new line").waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    mock.emit({ kind: "log", level: "WARN", target: "ffmesh::x", message: "second new line", fields: {} });
    await page.waitForTimeout(600);
    expect(await page.getByText("second new line").count()).toBe(0);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText("second new line").waitFor();
    await page.getByLabel("Level").selectOption("WARN");
    await expect.poll(() => page.getByText("node started").count()).toBe(0);
    await page.getByLabel("Filter lines").fill("a=b");
    await expect.poll(() => page.locator(".log .line").count()).toBe(1);
    expect(watch.said).toEqual([]);
  });

  it("the language and the theme are switched and remembered", async () => {
    const { page, watch } = await signedIn({ colorScheme: "light" });
    await page.getByLabel("Language").selectOption("zh-CN");
    await page.getByRole("heading", { name: "概览" }).waitFor();
    await page.getByRole("button", { name: "切换到深色" }).click();
    await page.reload();
    await page.getByRole("heading", { name: "概览" }).waitFor();
    expect(await page.locator("html").getAttribute("data-theme")).toBe("dark");
    expect(watch.said).toEqual([]);
  });
});

describe("a failover", () => {
  it("is seen as it happens, in the graph, in the list and by those who listen", async () => {
    const { page, watch } = await signedIn();
    await go(page, "topology");
    await page.locator(".graph canvas").waitFor();
    await page.getByText("No session has left").waitFor();
    mock.world.failover();
    mock.emit({
      kind: "failover",
      node_id: "server",
      from: ["client", "relay-1", "server"],
      to: ["client", "relay-2", "server"],
    });
    const row = page.locator(".failovers li.fresh");
    await row.waitFor();
    expect(await row.innerText()).toContain("client → relay-1 → server");
    await page.getByRole("button", { name: "Table" }).click();
    // As soon as the graph is that of after it.
    await expect.poll(() => page.getByRole("cell", { name: "Just lost" }).count()).toBe(2);
    expect(await page.getByRole("cell", { name: "Just taken" }).count()).toBe(2);
    await expect
      .poll(() => page.locator("[aria-live=polite]").allInnerTexts(), { timeout: 8000 })
      .toContain("To server: client → relay-1 → server died, now client → relay-2 → server");
    // After a while it is history.
    await expect.poll(() => page.locator(".failovers li.fresh").count(), { timeout: 20_000 }).toBe(0);
    expect(await page.locator(".failovers li").count()).toBe(1);
    expect(watch.said).toEqual([]);
  });
});

describe("the keyboard", () => {
  it("reaches all, sees where it is, and dialogs keep it", async () => {
    const { page, watch } = await signedIn();
    await page.reload();
    await page.locator(".live.good").waitFor();
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.className)).toBe("skip");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");

    await go(page, "topology");
    await page.locator(".graph canvas").waitFor();
    await page.getByRole("application").focus();
    await page.keyboard.press("Home");
    await page.getByRole("complementary", { name: "Node client" }).waitFor();
    await page.keyboard.press("ArrowRight");
    const details = page.getByRole("complementary");
    await expect.poll(() => details.getAttribute("aria-label")).not.toBe("Node client");
    await page.keyboard.press("Escape");
    await expect.poll(() => details.count()).toBe(0);

    await go(page, "proxies");
    const add = page.getByRole("button", { name: "Add a proxy" });
    await add.focus();
    const outline = await add.evaluate((element) => getComputedStyle(element).outlineStyle);
    expect(outline).not.toBe("none");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    for (let press = 0; press < 25; press += 1) {
      await page.keyboard.press("Tab");
      const inside = await page.evaluate(() => {
        const active = document.activeElement;
        return active === document.body || active?.closest("dialog") !== null;
      });
      expect(inside, `after ${press + 1} tabs`).toBe(true);
    }
    await page.keyboard.press("Escape");
    await expect.poll(() => page.getByRole("dialog").count()).toBe(0);
    expect(await add.evaluate((element) => element === document.activeElement)).toBe(true);

    await page.getByRole("button", { name: "Name" }).first().focus();
    await page.keyboard.press("Enter");
    expect(await page.locator("th[aria-sort]").count()).toBe(1);
    expect(watch.said).toEqual([]);
  });
});

describe("much", () => {
  /** Frames and long tasks of some seconds, in ms. */
  async function smoothness(page: Page, seconds: number, act: () => Promise<void>) {
    await page.evaluate(() => {
      const figures = { frames: [] as number[], tasks: [] as number[] };
      Object.assign(window, { figures });
      let before = performance.now();
      const frame = (now: number) => {
        figures.frames.push(now - before);
        before = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
      new PerformanceObserver((list) =>
        figures.tasks.push(...list.getEntries().map((entry) => entry.duration)),
      ).observe({ type: "longtask" });
    });
    const end = Date.now() + seconds * 1000;
    while (Date.now() < end) await act();
    return page.evaluate(() => {
      const { frames, tasks } = (window as unknown as { figures: { frames: number[]; tasks: number[] } }).figures;
      frames.sort((a, b) => a - b);
      return {
        frames: frames.length,
        median: frames[Math.floor(frames.length / 2)] ?? 0,
        p95: frames[Math.floor(frames.length * 0.95)] ?? 0,
        longest: Math.max(0, ...tasks),
        busy: tasks.reduce((sum, task) => sum + task, 0),
      };
    });
  }

  it("stays smooth: 300 nodes that change each second", async () => {
    mock.world = large();
    const { page, watch } = await signedIn();
    await go(page, "topology");
    await expect.poll(() => page.locator("main .loading").count(), { timeout: 20_000 }).toBe(0);
    const change = setInterval(() => {
      mock.world.topology.generation += 1;
      mock.emit({ kind: "topology", generation: mock.world.topology.generation });
    }, 200);
    const figures = await smoothness(page, 6, async () => {
      await page.mouse.move(400 + Math.random() * 500, 250 + Math.random() * 300);
      await page.waitForTimeout(50);
    });
    clearInterval(change);
    console.log("300 nodes:", JSON.stringify(figures));
    // Five events a second, but one question a second.
    expect(mock.asked.filter((line) => line === "GET /topology").length).toBeLessThan(14);
    // Generous: machines that build this have two cores and no graphics.
    expect(figures.median).toBeLessThan(50);
    expect(figures.longest).toBeLessThan(700);
    expect(watch.said).toEqual([]);
  });

  it("stays smooth: 5,000 flows that change each second", async () => {
    mock.world = large();
    const { page, watch } = await signedIn();
    await go(page, "flows");
    await page.getByRole("button", { name: "Open (5,000)" }).waitFor();
    const rows = await page.locator(".table-box tbody tr").count();
    expect(rows).toBeLessThan(100);
    const box = page.locator(".table-box");
    let at = 0;
    const figures = await smoothness(page, 6, async () => {
      at = (at + 900) % 160_000;
      await box.evaluate((element, at) => (element.scrollTop = at), at);
      await page.waitForTimeout(50);
    });
    console.log("5,000 flows:", JSON.stringify(figures));
    expect(figures.median).toBeLessThan(50);
    expect(figures.longest).toBeLessThan(700);
    await page.getByRole("button", { name: "Down rate" }).click();
    await page.getByLabel("Filter flows").fill("40017");
    await expect.poll(() => page.locator(".table-box tbody tr:not(.filler)").count()).toBe(1);
    expect(watch.said).toEqual([]);
  });
});
