import { useEffect, useMemo, useState } from "preact/hooks";
import { nodeNow } from "../api/stream";
import { GraphView } from "../graph/graph";
import { graphOf, missing, SHOWN_MS, type GraphLink, type GraphNode } from "../graph/model";
import { ms, percent, routeText, shown } from "../format";
import { t, word } from "../i18n";
import { query } from "../router";
import { failovers, type Failover } from "../state/journal";
import { peers, topology, useResource } from "../state/resource";
import { Legend } from "../graph/legend";
import { NodeLink } from "../ui/node";
import { NodeDetails } from "../ui/node_details";
import { Badge, Card, Choice, Empty, Heading, Loaded, Time } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";

const SHOWN_FAILOVERS = 50;

/** The failovers of the last seconds; the page looks again when the oldest of them has been shown long enough. */
function useRecent(): Failover[] {
  const [now, setNow] = useState(nodeNow());
  const all = failovers.value;
  const recent = all.filter((failover) => now - Date.parse(failover.at) < SHOWN_MS);
  useEffect(() => setNow(nodeNow()), [all]);
  useEffect(() => {
    if (recent.length === 0) return;
    const timer = window.setTimeout(() => setNow(nodeNow()), 1000);
    return () => window.clearTimeout(timer);
  }, [now, recent.length]);
  return recent;
}

export function TopologyPage() {
  const resource = useResource(topology);
  const neighbours = useResource(peers).data.value;
  const recent = useRecent();
  const [view, setView] = useState<"graph" | "table">("graph");
  const [selected, select] = useState<string | undefined>(query.value.get("node") ?? undefined);
  const asked = query.value.get("node");
  useEffect(() => {
    if (asked) select(asked);
  }, [asked]);
  const data = resource.data.value;
  // As they are counted: where no route was left, nothing was gone over to.
  const done = failovers.value.filter((failover) => failover.to.length > 0);
  const signs = recent.map((failover) => failover.id).join();
  const graph = useMemo(() => data && graphOf(data, recent), [data, signs]);
  return (
    <>
      <Heading title={t("nav.topology")}>
        <Choice
          label={t("topology.view")}
          value={view}
          options={[
            { value: "graph", label: t("topology.graph") },
            { value: "table", label: t("topology.table") },
          ]}
          onChange={setView}
        />
      </Heading>
      <Loaded of={resource}>
        {(data) =>
          graph && (
            <div class={`topology ${selected ? "with-details" : ""}`}>
              <div class="topology-main">
                {view === "graph" ? (
                  <Card class="flush">
                    <GraphView graph={graph} selected={selected} onSelect={select} />
                    <Legend />
                  </Card>
                ) : (
                  <Tables nodes={graph.nodes} links={graph.links} onSelect={select} />
                )}
              </div>
              {selected && (
                <NodeDetails
                  id={selected}
                  node={graph.nodes.find((node) => node.node_id === selected)}
                  links={graph.links.filter((link) => link.a === selected || link.b === selected)}
                  paths={data.paths.filter((path) => path.node_id === selected)}
                  self={graph.self === selected}
                  onClose={() => select(undefined)}
                />
              )}
            </div>
          )
        }
      </Loaded>
      {data && missing(data, neighbours).length > 0 && (
        <Card title={t("topology.missing")}>
          <ul class="plain-list">
            {missing(data, neighbours).map((peer) => (
              <li key={peer.node_id}>
                <span class="mono">{shown(peer.node_id)}</span>{" "}
                <Badge tone={peer.state === "down" ? "bad" : "warn"}>{word("peer", peer.state)}</Badge>{" "}
                {peer.last_error && shown(peer.last_error)}
              </li>
            ))}
          </ul>
        </Card>
      )}
      <Card title={t("topology.failovers")}>
        {done.length === 0 ? (
          <Empty>{t("topology.no_failovers")}</Empty>
        ) : (
          <ol class="failovers">
            {done.slice(0, SHOWN_FAILOVERS).map((failover) => (
              <li key={`${failover.id} ${failover.at}`} class={recent.includes(failover) ? "fresh" : ""}>
                <Time at={failover.at} />
                <NodeLink id={failover.node_id} />
                <span class="from">
                  <Badge tone="bad">{t("topology.old_path")}</Badge>{" "}
                  <span class="mono">{routeText(failover.from)}</span>
                </span>
                <span class="to">
                  <Badge tone="good">{t("topology.new_path")}</Badge> <span class="mono">{routeText(failover.to)}</span>
                </span>
              </li>
            ))}
          </ol>
        )}
      </Card>
    </>
  );
}

function Tables(props: { nodes: GraphNode[]; links: GraphLink[]; onSelect: (id: string) => void }) {
  const nodes: ColumnOf<GraphNode>[] = [
    {
      id: "node",
      title: t("column.node"),
      by: (node) => node.node_id,
      cell: (node) => (
        <button type="button" class="link mono" onClick={() => props.onSelect(node.node_id)}>
          {shown(node.node_id)}
        </button>
      ),
    },
    { id: "role", title: t("column.role"), by: (node) => node.role, cell: (node) => t(`role.${node.role}`) },
    {
      id: "reachable",
      title: t("column.reachable"),
      by: (node) => node.reachable,
      cell: (node) => (
        <Badge tone={node.reachable ? "good" : "bad"}>{node.reachable ? t("common.yes") : t("common.no")}</Badge>
      ),
    },
    { id: "hops", title: t("column.hops"), figure: true, by: (node) => node.hops, cell: (node) => node.hops ?? "–" },
    {
      id: "services",
      title: t("nav.services"),
      by: (node) => node.services.length,
      cell: (node) => <span class="long">{node.services.map(shown).join(", ") || "–"}</span>,
    },
  ];
  const links: ColumnOf<GraphLink>[] = [
    {
      id: "a",
      title: t("column.from"),
      by: (link) => link.a,
      cell: (link) => <span class="mono">{shown(link.a)}</span>,
    },
    { id: "b", title: t("column.to"), by: (link) => link.b, cell: (link) => <span class="mono">{shown(link.b)}</span> },
    { id: "use", title: t("column.use"), by: (link) => link.mark, cell: (link) => t(`mark.${link.mark}`) },
    { id: "rtt", title: t("column.rtt"), figure: true, by: (link) => link.rtt_ms, cell: (link) => ms(link.rtt_ms) },
    { id: "loss", title: t("column.loss"), figure: true, by: (link) => link.loss, cell: (link) => percent(link.loss) },
    { id: "cost", title: t("column.cost"), figure: true, by: (link) => link.cost_ms, cell: (link) => ms(link.cost_ms) },
  ];
  return (
    <>
      <Card title={t("topology.nodes")} class="flush">
        <Table label={t("topology.nodes")} columns={nodes} rows={props.nodes} id={(node) => node.node_id} empty="" />
      </Card>
      <Card title={t("topology.links")} class="flush">
        <Table
          label={t("topology.links")}
          columns={links}
          rows={props.links}
          id={(link) => link.key}
          empty={t("topology.no_links")}
        />
      </Card>
    </>
  );
}
