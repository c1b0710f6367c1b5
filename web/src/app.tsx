/** The frame around the pages: who this is, where one can go, and whether the node answers. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { findSession, login, logout, session } from "./api/client";
import { close, link, open } from "./api/stream";
import { shown } from "./format";
import { language, setLanguage, t, type Key } from "./i18n";
import { Actions } from "./pages/actions";
import { ConfigPage } from "./pages/config";
import { FlowsPage } from "./pages/flows";
import { HistoryPage } from "./pages/history";
import { LogPage } from "./pages/log";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { PeersPage } from "./pages/peers";
import { ProxiesPage } from "./pages/proxies";
import { RoutesPage } from "./pages/routes";
import { ServicesPage } from "./pages/services";
import { TopologyPage } from "./pages/topology";
import { href, page, PAGES, takeCode, type Page } from "./router";
import { startJournal } from "./state/journal";
import { status, useResource } from "./state/resource";
import { theme, toggleTheme } from "./theme";
import { Announcer } from "./ui/announcer";
import { LostBanner } from "./ui/banner";
import { Icon } from "./ui/icons";
import { Loading } from "./ui/parts";

const TITLES: Record<Page, Key> = {
  overview: "nav.overview",
  topology: "nav.topology",
  peers: "nav.peers",
  routes: "nav.routes",
  proxies: "nav.proxies",
  services: "nav.services",
  flows: "nav.flows",
  history: "nav.history",
  log: "nav.log",
  config: "nav.config",
  actions: "nav.actions",
};

const VIEWS: Record<Page, () => preact.JSX.Element> = {
  overview: Overview,
  topology: TopologyPage,
  peers: PeersPage,
  routes: RoutesPage,
  proxies: ProxiesPage,
  services: ServicesPage,
  flows: FlowsPage,
  history: HistoryPage,
  log: LogPage,
  config: ConfigPage,
  actions: Actions,
};

startJournal();

/** How long until a node that did not answer at first is asked again. */
const ASK_AGAIN_MS = 2000;

export function App() {
  const state = session.value;
  const lang = language.value;
  const failed = useSignal<unknown>(undefined);
  useEffect(() => {
    document.documentElement.lang = lang;
  }, [lang]);
  useEffect(() => {
    let timer: number | undefined;
    let code = takeCode();
    const begin = async () => {
      try {
        if (code) await login({ code });
        else await findSession();
      } catch (error) {
        if (code) {
          // A code that was used already: the browser may have its session still.
          failed.value = error;
          await findSession().catch(() => (session.value = "none"));
          return;
        }
        timer = window.setTimeout(begin, ASK_AGAIN_MS);
      }
    };
    void begin();
    // A link of the command line, opened where the console is shown already.
    const again = () => {
      code = takeCode();
      if (!code) return;
      window.clearTimeout(timer);
      failed.value = undefined;
      void begin();
    };
    window.addEventListener("hashchange", again);
    return () => {
      window.removeEventListener("hashchange", again);
      window.clearTimeout(timer);
    };
  }, []);
  useEffect(() => {
    if (state !== "open") return close();
    open();
    return close;
  }, [state]);

  if (state === "asking") return <Loading />;
  if (state !== "open") return <Login expired={state === "expired"} first={failed.value} />;
  return <Shell />;
}

function Shell() {
  const here = page.value;
  const menu = useSignal(false);
  const View = VIEWS[here];
  const now = useResource(status).data.value;
  const title = t(TITLES[here]);
  useEffect(() => {
    document.title = `${title} · ${now?.node_id ?? "FFMesh"}`;
  }, [title, now?.node_id]);
  useEffect(() => {
    menu.value = false;
    window.scrollTo(0, 0);
    if (document.activeElement !== document.body) {
      document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
    }
  }, [here]);
  return (
    <div class="shell">
      <a
        class="skip"
        href={href(here)}
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        {t("shell.skip")}
      </a>
      <header class="top">
        <button
          type="button"
          class="ghost menu"
          aria-expanded={menu.value}
          aria-controls="nav"
          aria-label={t("shell.menu")}
          onClick={() => (menu.value = !menu.value)}
        >
          <Icon name={menu.value ? "close" : "menu"} />
        </button>
        <a class="brand" href={href("overview")}>
          <img src="/icon.svg" alt="" width={24} height={24} />
          <span>FFMesh</span>
        </a>
        {now && (
          <div class="who">
            <b>{shown(now.node_id)}</b>
            <span class="mesh">{shown(now.mesh)}</span>
          </div>
        )}
        <span class="spring" />
        <LinkState />
        <select
          class="language"
          aria-label={t("shell.language")}
          value={language.value}
          onChange={(event) => setLanguage(event.currentTarget.value === "zh-CN" ? "zh-CN" : "en")}
        >
          <option value="en" lang="en">
            English
          </option>
          <option value="zh-CN" lang="zh-CN">
            中文
          </option>
        </select>
        <ThemeButton />
        <button type="button" class="ghost" aria-label={t("shell.logout")} title={t("shell.logout")} onClick={logout}>
          <Icon name="out" />
        </button>
      </header>
      <nav id="nav" class={menu.value ? "open" : ""} aria-label={t("shell.nav")}>
        <ul>
          {PAGES.map((name) => (
            <li key={name}>
              <a
                href={href(name)}
                aria-current={name === here ? "page" : undefined}
                onClick={() => (menu.value = false)}
              >
                <Icon name={name} />
                {t(TITLES[name])}
              </a>
            </li>
          ))}
        </ul>
        {now && <p class="version">{t("shell.version", { version: shown(now.version) })}</p>}
      </nav>
      <main id="main" tabIndex={-1} class={link.value === "lost" ? "stale" : ""}>
        <LostBanner />
        {now?.draining && (
          <div class="banner warn" role="status">
            <Icon name="warn" />
            <p>{t("shell.draining", { flows: now.flows_open })}</p>
          </div>
        )}
        <View key={here} />
      </main>
      <Announcer />
    </div>
  );
}

function LinkState() {
  const state = link.value;
  const tone = state === "live" ? "good" : state === "lost" ? "bad" : "off";
  return (
    <span class={`live ${tone}`} role="status">
      <Icon name={tone} />
      <span>{t(`link.${state}`)}</span>
    </span>
  );
}

export function ThemeButton() {
  const label = theme.value === "dark" ? t("shell.light") : t("shell.dark");
  return (
    <button type="button" class="ghost" aria-label={label} title={label} onClick={toggleTheme}>
      <Icon name={theme.value === "dark" ? "sun" : "moon"} />
    </button>
  );
}
