/** Charts of figures over time. */

import { useEffect, useRef, useState } from "preact/hooks";
import { moment, plain } from "../format";
import { language, t } from "../i18n";
import { last, type Points } from "../state/series";
import { palette, theme } from "../theme";
import type { Canvas } from "./echarts";
import { Loading } from "./parts";

export interface Line {
  name: string;
  points: Points;
}

interface Props {
  title: string;
  lines: Line[];
  format: (value: number) => string;
  /** Milliseconds that the axis spans, up to `end` */
  span: number;
  end: number;
  /** Draws the first line as an area */
  area?: boolean;
}

const DASHES = ["solid", "dashed", "dotted"] as const;

/** Loads the library when the first chart is shown. */
export function useCanvas() {
  const place = useRef<HTMLDivElement>(null);
  const [canvas, setCanvas] = useState<Canvas | undefined>();
  const shade = theme.value;
  useEffect(() => {
    let made: Canvas | undefined;
    let gone = false;
    void import("./echarts").then(({ init }) => {
      if (gone || !place.current) return;
      made = init(place.current);
      setCanvas(made);
    });
    const observer = new ResizeObserver(() => made?.resize());
    if (place.current) observer.observe(place.current);
    return () => {
      gone = true;
      observer.disconnect();
      made?.dispose();
    };
  }, []);
  return { place, canvas, shade };
}

export function Chart(props: Props) {
  const { place, canvas, shade } = useCanvas();
  const lang = language.value;
  useEffect(() => {
    canvas?.setOption(option(props, lang), { replaceMerge: ["series"] });
  });
  const latest = props.lines
    .slice(0, 3)
    .map((line) => {
      const value = lastOf(line);
      return `${line.name} ${value == null ? "–" : props.format(value)}`;
    })
    .join(", ");
  return (
    <figure class="chart" data-theme-of={shade}>
      <figcaption>
        <h2>{props.title}</h2>
        <ul class="legend">
          {props.lines.slice(0, 8).map((line, index) => {
            const value = lastOf(line);
            return (
              <li key={line.name}>
                <svg class="stroke" viewBox="0 0 18 6" aria-hidden="true">
                  <path class={`stroke-${index % 3} dash-${Math.floor(index / 3) || index % 3}`} d="M0 3h18" />
                </svg>
                <span>{line.name}</span>
                <b>{value == null ? "–" : props.format(value)}</b>
              </li>
            );
          })}
        </ul>
      </figcaption>
      <div class="canvas" ref={place} role="img" aria-label={t("chart.label", { title: props.title, latest })} />
      {!canvas && <Loading />}
    </figure>
  );
}

/** Round figures at the axis: `20 ms`, not `20.0 ms`. */
function short(text: string): string {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
}

function lastOf(line: Line): number | null | undefined {
  return last(line.points.map((point) => point[1]));
}

function option(props: Props, lang: string) {
  const colors = palette();
  const shades = [colors.accent, colors.second, colors.third];
  const label = { color: colors.muted, fontSize: 11 };
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    grid: { left: 8, right: 14, top: 10, bottom: 4, containLabel: true },
    xAxis: {
      type: "time",
      min: props.end - props.span,
      max: props.end,
      axisLine: { lineStyle: { color: colors.line } },
      axisTick: { show: false },
      axisLabel: { ...label, hideOverlap: true },
      splitNumber: 5,
    },
    yAxis: {
      type: "value",
      min: 0,
      splitNumber: 3,
      axisLabel: { ...label, formatter: (value: number) => short(props.format(value)) },
      splitLine: { lineStyle: { color: colors.line, opacity: 0.6 } },
    },
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      confine: true,
      backgroundColor: colors.surface,
      borderColor: colors.line,
      textStyle: { color: colors.text, fontSize: 12 },
      axisPointer: { lineStyle: { color: colors.muted } },
      formatter: (hits: { seriesName: string; value: [number, number | null] }[]) => {
        const first = hits[0];
        if (!first) return "";
        const lines = hits
          .slice(0, 12)
          .map((hit) => `${hit.seriesName}  ${hit.value[1] == null ? "–" : props.format(hit.value[1])}`);
        return [moment(first.value[0], lang), ...lines].join("\n");
      },
    },
    series: props.lines.map((line, index) => ({
      id: line.name,
      name: plain(line.name),
      type: "line",
      showSymbol: false,
      connectNulls: false,
      data: line.points,
      color: shades[index % 3],
      lineStyle: { width: 1.6, type: DASHES[(Math.floor(index / 3) || index) % 3] },
      areaStyle: props.area && index === 0 ? { opacity: 0.14 } : undefined,
      emphasis: { disabled: true },
    })),
  };
}
