/** Events in words. */

import { moment, routeText, shown } from "../format";
import { language, t, word } from "../i18n";
import type { JournalEvent } from "../state/journal";
import { Badge, Time, type Tone } from "./parts";

export function sentence(event: JournalEvent): string {
  switch (event.kind) {
    case "peer": {
      const state = t("event.peer", { node: shown(event.node_id), state: word("peer", event.state) });
      return event.reason ? `${state}: ${shown(event.reason)}` : state;
    }
    case "node":
      return t(event.reachable ? "event.node_reachable" : "event.node_unreachable", { node: shown(event.node_id) });
    case "failover":
      return event.to.length > 0
        ? t("event.failover", { node: shown(event.node_id), from: routeText(event.from), to: routeText(event.to) })
        : t("event.failover_none", { node: shown(event.node_id), from: routeText(event.from) });
    case "session":
      return t(event.open ? "event.session_open" : "event.session_ended", { node: shown(event.node_id) });
    case "proxy":
      return t("event.proxy", { name: shown(event.name) });
    case "service":
      return t("event.service", { name: shown(event.name) });
    case "reload":
      if (event.error) return t("event.reload_refused", { error: shown(event.error) });
      return event.result?.changed.length
        ? t("event.reload", { changed: shown(event.result.changed.join(", ")) })
        : t("event.reload_nothing");
    case "drain":
      return t("event.drain", { flows: event.flows_open });
    case "certificate":
      return t("event.certificate", { expires: moment(event.expires, language.value) });
  }
}

function tone(event: JournalEvent): Tone {
  switch (event.kind) {
    case "peer":
      return event.state === "up" ? "good" : event.state === "down" ? "bad" : "warn";
    case "node":
      return event.reachable ? "good" : "bad";
    case "failover":
      return event.to.length > 0 ? "warn" : "bad";
    case "reload":
      return event.error ? "bad" : "good";
    case "drain":
      return "warn";
    default:
      return "info";
  }
}

export function EventRow({ event }: { event: JournalEvent }) {
  return (
    <li>
      <Time at={event.at} />
      <Badge tone={tone(event)}>{t(`kind.${event.kind}`)}</Badge>
      <span class="words">{sentence(event)}</span>
    </li>
  );
}
