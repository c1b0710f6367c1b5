import { useState } from "preact/hooks";
import type { Route } from "../api/types";
import { ms, percent, routeText } from "../format";
import { t, word } from "../i18n";
import { routes, useResource } from "../state/resource";
import { NodeLink } from "../ui/node";
import { Badge, Heading, Loaded, type Tone } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";

export const ROUTE_TONES: Record<string, Tone> = {
  in_use: "good",
  warm: "info",
  impaired: "warn",
  down: "bad",
  known: "off",
  unreachable: "bad",
};

export function RoutesPage() {
  const resource = useResource(routes);
  const [filter, setFilter] = useState("");
  const columns: ColumnOf<Route>[] = [
    {
      id: "node",
      title: t("column.node"),
      by: (route) => route.node_id,
      cell: (route) => <NodeLink id={route.node_id} />,
    },
    {
      id: "state",
      title: t("column.state"),
      by: (route) => route.state,
      cell: (route) => <Badge tone={ROUTE_TONES[route.state] ?? "off"}>{word("route", route.state)}</Badge>,
    },
    {
      id: "path",
      title: t("column.path"),
      by: (route) => route.path.join(" "),
      cell: (route) => <span class="mono">{routeText(route.path) || "–"}</span>,
    },
    {
      id: "hops",
      title: t("column.hops"),
      figure: true,
      by: (route) => route.hops,
      cell: (route) => route.hops || "–",
    },
    {
      id: "cost",
      title: t("column.cost"),
      figure: true,
      by: (route) => route.cost_ms,
      cell: (route) => ms(route.cost_ms),
    },
    { id: "rtt", title: t("column.rtt"), figure: true, by: (route) => route.rtt_ms, cell: (route) => ms(route.rtt_ms) },
    {
      id: "loss",
      title: t("column.loss"),
      figure: true,
      by: (route) => route.loss,
      cell: (route) => percent(route.loss),
    },
  ];
  const wanted = filter.trim().toLowerCase();
  return (
    <>
      <Heading title={t("nav.routes")}>
        <input
          type="search"
          placeholder={t("routes.filter")}
          aria-label={t("routes.filter")}
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
      </Heading>
      <Loaded of={resource}>
        {(list) => (
          <Table
            label={t("nav.routes")}
            columns={columns}
            rows={
              wanted ? list.filter((route) => [route.node_id, ...route.path].some((id) => id.includes(wanted))) : list
            }
            id={(route) => `${route.node_id} ${route.path.join(" ")}`}
            empty={wanted ? t("common.no_match") : t("routes.empty")}
          />
        )}
      </Loaded>
    </>
  );
}
