/** Chromium, as it is installed with Debian, and what every test wants of a page. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext, type BrowserContextOptions, type Page } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** What a page may say on its console and what it must not: anything at all but what a test has asked for. */
export class Watch {
  readonly said: string[] = [];

  constructor(page: Page, allowed: RegExp[] = []) {
    page.on("console", (message) => {
      if (!["error", "warning"].includes(message.type())) return;
      const text = `${message.type()}: ${message.text()} (${message.location().url})`;
      if (!allowed.some((pattern) => pattern.test(text))) this.said.push(text);
    });
    page.on("pageerror", (error) => this.said.push(`uncaught: ${error.stack ?? error.message}`));
    page.on("crash", () => this.said.push("the page crashed"));
  }
}

/** A fresh profile each time, which is gone afterwards. */
export async function browser(
  options: BrowserContextOptions = {},
): Promise<{ context: BrowserContext; close: () => Promise<void> }> {
  const profile = mkdtempSync(join(tmpdir(), "console-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    viewport: { width: 1360, height: 860 },
    locale: "en-GB",
    reducedMotion: "no-preference",
    ...options,
  });
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
