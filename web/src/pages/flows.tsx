import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Flow, Flows } from "../api/types";
import { bytes, count, duration, rate, shown, utc } from "../format";
import { language, t, word } from "../i18n";
import { flows, useResource } from "../state/resource";
import { NodeLink } from "../ui/node";
import { Badge, Choice, Heading, Loaded, Time, type Tone } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";
import { matches, ratesOf, type Rates } from "./flow_rates";

const TONES: Record<string, Tone> = { done: "good", reset: "warn", drained: "warn", idle: "off" };

/** Rates between the last two answers. */
function useRates(data: Flows | undefined, at: number): Map<string, Rates> {
  const before = useRef<{ data: Flows; at: number } | undefined>(undefined);
  const [rates, setRates] = useState(new Map<string, Rates>());
  useEffect(() => {
    if (!data) return;
    if (before.current && at > before.current.at) {
      setRates(ratesOf(before.current.data.open, data.open, at - before.current.at));
    }
    before.current = { data, at };
  }, [data]);
  return rates;
}

export function FlowsPage() {
  const resource = useResource(flows);
  const data = resource.data.value;
  const rates = useRates(data, resource.at.value);
  const [which, setWhich] = useState<"open" | "ended">("open");
  const [filter, setFilter] = useState("");
  const lang = language.value;
  const rows = useMemo(() => {
    const all = data?.[which] ?? [];
    const wanted = filter.trim().toLowerCase();
    return wanted ? all.filter((flow) => matches(flow, wanted)) : all;
  }, [data, which, filter]);

  const key = (flow: Flow) => `${flow.id} ${flow.role}`;
  const figures = (flow: Flow) => rates.get(key(flow));
  const columns: ColumnOf<Flow>[] = [
    { id: "proxy", title: t("column.proxy"), by: (flow) => flow.proxy, cell: (flow) => <b>{shown(flow.proxy)}</b> },
    { id: "role", title: t("column.role"), by: (flow) => flow.role, cell: (flow) => t(`flow.${flow.role}`) },
    { id: "peer", title: t("column.peer"), by: (flow) => flow.peer, cell: (flow) => <NodeLink id={flow.peer} /> },
    {
      id: "target",
      title: t("column.target"),
      by: (flow) => flow.target,
      cell: (flow) => <span class="mono">{shown(flow.target)}</span>,
    },
    {
      id: "client",
      title: t("column.client"),
      by: (flow) => flow.client,
      cell: (flow) => <span class="mono">{flow.client ? shown(flow.client) : "–"}</span>,
    },
    ...(which === "ended"
      ? [
          {
            id: "started",
            title: t("column.started"),
            by: (flow: Flow) => flow.started,
            cell: (flow: Flow) => <Time at={flow.started} />,
          },
        ]
      : []),
    {
      id: "duration",
      title: t("column.duration"),
      figure: true,
      by: (flow) => flow.duration_ms,
      cell: (flow) => <span title={utc(flow.started)}>{duration(flow.duration_ms)}</span>,
    },
    {
      id: "up",
      title: t("column.up"),
      figure: true,
      by: (flow) => flow.bytes_up,
      cell: (flow) => bytes(flow.bytes_up),
    },
    {
      id: "down",
      title: t("column.down"),
      figure: true,
      by: (flow) => flow.bytes_down,
      cell: (flow) => bytes(flow.bytes_down),
    },
    ...(which === "open"
      ? [
          {
            id: "rate_up",
            title: t("column.rate_up"),
            figure: true,
            by: (flow: Flow) => figures(flow)?.up,
            cell: (flow: Flow) => rate(figures(flow)?.up),
          },
          {
            id: "rate_down",
            title: t("column.rate_down"),
            figure: true,
            by: (flow: Flow) => figures(flow)?.down,
            cell: (flow: Flow) => rate(figures(flow)?.down),
          },
          {
            id: "connected",
            title: t("column.state"),
            by: (flow: Flow) => flow.connected,
            cell: (flow: Flow) => (
              <Badge tone={flow.connected ? "good" : "warn"}>
                {flow.connected ? t("flow.connected") : t("flow.connecting")}
              </Badge>
            ),
          },
        ]
      : [
          {
            id: "reason",
            title: t("column.reason"),
            by: (flow: Flow) => flow.reason,
            cell: (flow: Flow) => (
              <span class="long">
                <Badge tone={TONES[flow.reason ?? ""] ?? "bad"}>{word("reason", shown(flow.reason ?? ""))}</Badge>{" "}
                {flow.detail && shown(flow.detail)}
              </span>
            ),
          },
        ]),
  ];
  return (
    <>
      <Heading title={t("nav.flows")}>
        <Choice
          label={t("flows.which")}
          value={which}
          options={[
            { value: "open", label: t("flows.open", { count: count(data?.open.length, lang) }) },
            { value: "ended", label: t("flows.ended", { count: count(data?.ended.length, lang) }) },
          ]}
          onChange={setWhich}
        />
        <input
          type="search"
          placeholder={t("flows.filter")}
          aria-label={t("flows.filter")}
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
        <span class="hint" aria-live="polite">
          {filter.trim() ? t("flows.matching", { count: count(rows.length, lang) }) : ""}
        </span>
      </Heading>
      <Loaded of={resource}>
        {() => (
          <Table
            key={which}
            label={t("nav.flows")}
            columns={columns}
            rows={rows}
            id={key}
            empty={filter.trim() ? t("common.no_match") : t(which === "open" ? "flows.none_open" : "flows.none_ended")}
          />
        )}
      </Loaded>
    </>
  );
}
