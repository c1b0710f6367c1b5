/** The charts of a node's figures, for the overview and the history. */

import { useMemo } from "preact/hooks";
import type { ColumnName } from "../api/types";
import { bytes, digits, ms, percent, rate, shown } from "../format";
import { language, t, type Key } from "../i18n";
import { historyError, refreshHour } from "../state/history";
import { points, type Series } from "../state/series";
import { Chart, type Line } from "../ui/chart";
import { Failure, Loading } from "../ui/parts";

/** Points of a line: about one for each pixel of a wide screen. */
const MOST_POINTS = 900;
/** Neighbours in one chart; more can't be told apart. */
const MOST_PEERS = 9;

type Name = "throughput" | "rtt" | "errors" | "flows" | "peers" | "loss" | "cpu" | "memory";

interface Plan {
  title: Key;
  columns: [ColumnName, Key][];
  format: (value: number) => string;
  area?: boolean;
}

const whole = (value: number) => (Number.isInteger(value) ? String(value) : digits(value));
const perSecond = (value: number) => `${digits(value)}/s`;

const PLANS: Record<Exclude<Name, "peers">, Plan> = {
  throughput: {
    title: "chart.throughput",
    columns: [
      ["sent", "chart.sent"],
      ["received", "chart.received"],
      ["transit", "chart.transit"],
    ],
    format: rate,
    area: true,
  },
  rtt: { title: "chart.rtt", columns: [["rtt_ms", "chart.mean"]], format: ms },
  errors: {
    title: "chart.errors",
    columns: [
      ["errors", "chart.all_errors"],
      ["flows_failed", "chart.flows_failed"],
    ],
    format: perSecond,
  },
  flows: {
    title: "chart.flows",
    columns: [["flows_open", "chart.flows_open"]],
    format: whole,
    area: true,
  },
  loss: { title: "chart.loss", columns: [["loss", "chart.mean"]], format: percent },
  cpu: { title: "chart.cpu", columns: [["cpu", "chart.cores"]], format: percent, area: true },
  memory: { title: "chart.memory", columns: [["memory", "chart.resident"]], format: bytes, area: true },
};

export function Charts({ series, span, only }: { series: Series | undefined; span: number; only: Name[] }) {
  const lang = language.value;
  const charts = useMemo(
    () => (series ? only.map((name) => ({ name, ...chart(name, series, span) })) : []),
    [series, span, lang, only.join()],
  );
  const error = historyError.value;
  if (!series) return error ? <Failure error={error} retry={refreshHour} /> : <Loading />;
  return (
    <>
      {error && !error.unreachable && <Failure error={error} retry={refreshHour} />}
      <div class="charts">
        {charts.map(({ name, title, lines, format, area }) => (
          <Chart key={name} title={title} lines={lines} format={format} area={area} span={span} end={series.end} />
        ))}
      </div>
    </>
  );
}

function chart(name: Name, series: Series, span: number) {
  const line = (name: string, column: (number | null)[]): Line => ({
    name,
    points: points(column, series.end, series.stepMs, span, MOST_POINTS),
  });
  if (name === "peers") {
    const lines = series.peers.slice(0, MOST_PEERS).map((peer) => line(shown(peer.node_id), peer.rtt_ms));
    return { title: t("chart.peers"), lines, format: ms, area: false };
  }
  const plan = PLANS[name];
  const lines = plan.columns.map(([column, title]) => line(t(title), series.columns[column]));
  return { title: t(plan.title), lines, format: plan.format, area: plan.area ?? false };
}
