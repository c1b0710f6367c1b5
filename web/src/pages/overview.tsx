import { useEffect } from "preact/hooks";
import type { Status } from "../api/types";
import { bytes, count, duration, ms, percent, rate, shown } from "../format";
import { language, t } from "../i18n";
import { href } from "../router";
import { hour, useHour } from "../state/history";
import { journal } from "../state/journal";
import { status, useResource } from "../state/resource";
import { EventRow } from "../ui/event";
import { Badge, Card, Empty, Heading, Loaded, Time, type Tone } from "../ui/parts";
import { Charts } from "./charts";

const DAY_MS = 86_400_000;
/** Certificates renew themselves from half their life on; one that is this near its end did not. */
const CERTIFICATE_NEAR_MS = 14 * DAY_MS;
/** One that had no longer to go when the node started is short-lived on purpose, as long as half of that is left. */
const CERTIFICATE_SHORT_MS = 2 * DAY_MS;
const SHOWN_EVENTS = 12;
const HOUR_MS = 3_600_000;

export function Overview() {
  useHour();
  const resource = useResource(status);
  useEffect(() => resource.refresh(), []);
  return (
    <>
      <Heading title={t("nav.overview")} />
      <Loaded of={resource}>{(now) => <Figures now={now} />}</Loaded>
      <Charts series={hour.value} span={HOUR_MS} only={["throughput", "rtt", "errors"]} />
      <Card title={t("overview.events")}>
        {journal.value.length === 0 ? (
          <Empty>{t("overview.no_events")}</Empty>
        ) : (
          <ol class="events">
            {journal.value.slice(0, SHOWN_EVENTS).map((event) => (
              <EventRow key={`${event.id} ${event.at}`} event={event} />
            ))}
          </ol>
        )}
      </Card>
    </>
  );
}

/** In one word how the node stands, and why. */
function state(now: Status): { tone: Tone; text: string } {
  if (now.draining) return { tone: "warn", text: t("overview.draining") };
  if (now.upstreams > 0 && now.upstreams_up === 0) return { tone: "bad", text: t("overview.no_upstream") };
  if (now.upstreams_up < now.upstreams) return { tone: "warn", text: t("overview.some_upstreams") };
  if (now.links_up === 0) return { tone: "warn", text: t("overview.alone") };
  return { tone: "good", text: t("overview.connected") };
}

/** Whether the certificate should have been renewed by now. */
function ends(now: Status, left: number): boolean {
  const life = Date.parse(now.certificate_expires) - Date.parse(now.started);
  return left < CERTIFICATE_NEAR_MS && (life > CERTIFICATE_SHORT_MS || left < life / 2);
}

function Figures({ now }: { now: Status }) {
  const lang = language.value;
  const stand = state(now);
  const left = Date.parse(now.certificate_expires) - Date.now();
  const sent = hour.value?.columns.sent.at(-1);
  const received = hour.value?.columns.received.at(-1);
  return (
    <>
      <dl class="figures">
        <Figure title={t("figure.connection")} href={href("peers")} note={t("figure.links", { links: now.links_up })}>
          <Badge tone={stand.tone}>{stand.text}</Badge>
        </Figure>
        <Figure title={t("figure.sent")} note={rate(sent)}>
          {bytes(now.bytes_sent)}
        </Figure>
        <Figure title={t("figure.received")} note={rate(received)}>
          {bytes(now.bytes_received)}
        </Figure>
        <Figure title={t("figure.transit")} note={t("figure.circuits", { circuits: now.transit.circuits })}>
          {bytes(now.transit.bytes)}
        </Figure>
        <Figure title={t("figure.rtt")} note={now.loss != null && t("figure.loss", { loss: percent(now.loss) })}>
          {ms(now.rtt_ms)}
        </Figure>
        <Figure
          title={t("figure.errors")}
          note={now.errors[0] && `${shown(now.errors[0].kind)}: ${count(now.errors[0].count, lang)}`}
        >
          {count(now.errors_per_minute, lang)}
        </Figure>
        <Figure
          title={t("figure.flows")}
          href={href("flows")}
          note={t("figure.flows_total", { flows: count(now.flows_total, lang) })}
        >
          {count(now.flows_open, lang)}
        </Figure>
        <Figure
          title={t("figure.failovers")}
          href={href("topology")}
          note={t("figure.sessions", { sessions: now.sessions })}
        >
          {count(now.failovers, lang)}
        </Figure>
        <Figure
          title={t("figure.nodes")}
          href={href("topology")}
          note={t("figure.nodes_known", { known: count(now.nodes_known, lang) })}
        >
          {count(now.nodes_reachable, lang)}
        </Figure>
        <Figure title={t("figure.certificate")} note={<Time at={now.certificate_expires} />}>
          {ends(now, left) ? (
            <Badge tone={left < 0 ? "bad" : "warn"}>
              {left < 0 ? t("figure.expired") : t("figure.expires_soon", { left: duration(left) })}
            </Badge>
          ) : (
            duration(left)
          )}
        </Figure>
      </dl>
      <dl class="facts">
        <Fact title={t("fact.up_since")}>
          <Time at={now.started} />
        </Fact>
        <Fact title={t("fact.listen")}>{now.listen.map(shown).join(", ") || "–"}</Fact>
        <Fact title={t("fact.accepts")}>{now.accepts ? t("common.yes") : t("common.no")}</Fact>
        <Fact title={t("fact.issuer")}>{now.issuer ? t("common.yes") : t("common.no")}</Fact>
        <Fact title={t("fact.upstreams")}>
          {now.upstreams_up} / {now.upstreams}
        </Fact>
        <Fact title={t("fact.memory")}>{bytes(now.flow_memory)}</Fact>
        <Fact title={t("fact.config")}>{now.config ? shown(now.config) : "–"}</Fact>
        <Fact title={t("fact.state_dir")}>{shown(now.state_dir)}</Fact>
        {now.errors.length > 0 && (
          <Fact title={t("fact.errors")}>
            {now.errors.map((error) => `${shown(error.kind)} ${count(error.count, lang)}`).join(" · ")}
          </Fact>
        )}
      </dl>
    </>
  );
}

function Figure(props: {
  title: string;
  note?: preact.ComponentChildren;
  href?: string;
  children: preact.ComponentChildren;
}) {
  return (
    <div class="figure-box">
      <dt>{props.href ? <a href={props.href}>{props.title}</a> : props.title}</dt>
      <dd class="value">{props.children}</dd>
      <dd class="note">{props.note}</dd>
    </div>
  );
}

function Fact(props: { title: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{props.title}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}
