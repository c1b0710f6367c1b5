/** One node, with what can be measured of it. */

import { useEffect, useRef } from "preact/hooks";
import type { TopologyPath } from "../api/types";
import { ms, percent, routeText, shown } from "../format";
import type { GraphLink, GraphNode } from "../graph/model";
import { t, word } from "../i18n";
import { ROUTE_TONES } from "../pages/routes";
import { Icon } from "./icons";
import { Measure } from "./measure";
import { Badge } from "./parts";

interface Props {
  id: string;
  node: GraphNode | undefined;
  links: GraphLink[];
  paths: TopologyPath[];
  self: boolean;
  onClose: () => void;
}

export function NodeDetails(props: Props) {
  const panel = useRef<HTMLElement>(null);
  const { node } = props;
  useEffect(() => {
    // On a phone the panel lies below the graph.
    if (window.innerWidth < 900) panel.current?.scrollIntoView({ block: "nearest" });
  }, [props.id]);
  return (
    <aside
      class="card details"
      ref={panel}
      aria-label={t("node.details", { node: shown(props.id) })}
      onKeyDown={(event) => event.key === "Escape" && props.onClose()}
    >
      <div class="card-head">
        <h2 class="mono">{shown(props.id)}</h2>
        <button type="button" class="ghost" aria-label={t("common.close")} onClick={props.onClose}>
          <Icon name="close" />
        </button>
      </div>
      {node ? (
        <>
          <p class="badges">
            <Badge tone={node.reachable ? "good" : "bad"}>
              {node.reachable ? t("node.reachable") : t("node.unreachable")}
            </Badge>
            {props.self && <Badge tone="info">{t("role.self")}</Badge>}
            {node.neighbour && <Badge tone="info">{t("role.neighbour")}</Badge>}
            {node.role === "relay" && <Badge tone="info">{t("role.relay")}</Badge>}
            {node.issuer && <Badge tone="info">{t("node.issuer")}</Badge>}
            {node.draining && <Badge tone="warn">{t("topology.draining")}</Badge>}
          </p>
          <dl class="pairs">
            {node.hops != null && !props.self && (
              <>
                <dt>{t("column.hops")}</dt>
                <dd>{node.hops}</dd>
              </>
            )}
            <dt>{t("nav.services")}</dt>
            <dd>{node.services.map(shown).join(", ") || "–"}</dd>
          </dl>
        </>
      ) : (
        <p class="hint">{t("node.not_there")}</p>
      )}
      {props.paths.length > 0 && (
        <>
          <h3>{t("node.paths")}</h3>
          <ul class="path-list">
            {props.paths.map((path) => (
              <li key={path.path.join(" ")}>
                <Badge tone={ROUTE_TONES[path.state] ?? "off"}>{word("route", path.state)}</Badge>
                <span class="mono">{routeText(path.path)}</span>
                <span class="note">
                  {ms(path.rtt_ms)} · {percent(path.loss)} · {t("node.flows", { flows: path.flows_open })}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
      {props.links.length > 0 && (
        <>
          <h3>{t("topology.links")}</h3>
          <ul class="link-list">
            {props.links.map((link) => (
              <li key={link.key}>
                <span class="mono">{shown(link.a === props.id ? link.b : link.a)}</span>
                <span class="note">
                  {link.mark === "lost"
                    ? t("mark.lost")
                    : link.rtt_ms != null
                      ? `${ms(link.rtt_ms)} · ${percent(link.loss)}`
                      : `${t("topology.cost")} ${ms(link.cost_ms)}`}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
      {!props.self && <Measure key={props.id} node={props.id} />}
    </aside>
  );
}
