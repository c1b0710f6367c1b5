/** What the chart library is told of the graph. */

import { ms, percent, plain } from "../format";
import { t } from "../i18n";
import type { palette } from "../theme";
import type { Layout } from "./layout";
import type { Graph, GraphLink, GraphNode } from "./model";

type Colors = ReturnType<typeof palette>;

/** Up to here each own link carries its figures, and each node its name. */
const FEW = 60;
/** Beyond that nodes are drawn smaller. */
const SMALL = 0.7;

interface View {
  layout: Layout;
  colors: Colors;
  selected: string | undefined;
  /** Whether there is room for figures beside the links */
  wide: boolean;
  /** Alternates while a failover is shown, so that its links pulse. */
  beat: boolean;
}

const SIZES = { self: 24, relay: 18, neighbour: 16, node: 13, unreachable: 14 } as const;
const SYMBOLS = {
  self: "roundRect",
  relay: "diamond",
  neighbour: "circle",
  node: "circle",
  unreachable: "circle",
} as const;

export function graphOption(graph: Graph, view: View) {
  const few = graph.nodes.length <= FEW;
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    tooltip: {
      renderMode: "richText",
      confine: true,
      backgroundColor: view.colors.surface,
      borderColor: view.colors.line,
      textStyle: { color: view.colors.text, fontSize: 12 },
    },
    series: [
      {
        id: "mesh",
        type: "graph",
        layout: "none",
        roam: true,
        draggable: true,
        // A square of the layout is one on the screen, whatever the shape of that.
        preserveAspect: "contain",
        scaleLimit: { min: 0.3, max: 8 },
        left: view.wide ? 60 : 36,
        right: view.wide ? 60 : 36,
        top: 40,
        bottom: 46,
        labelLayout: { hideOverlap: true },
        emphasis: { focus: few ? "none" : "adjacency", scale: 1.15 },
        blur: { itemStyle: { opacity: 0.35 }, lineStyle: { opacity: 0.12 } },
        data: graph.nodes.map((node) => nodeItem(node, few, view)),
        links: graph.links.map((link) => linkItem(link, few, view)),
      },
    ],
  };
}

function nodeItem(node: GraphNode, few: boolean, view: View) {
  const { colors } = view;
  const place = view.layout.place(node.node_id);
  const selected = node.node_id === view.selected;
  const hollow = node.role === "unreachable";
  const fill = node.role === "self" ? colors.accent : node.role === "relay" ? colors.second : colors.third;
  return {
    id: node.node_id,
    name: node.node_id,
    x: place?.x ?? 0,
    y: place?.y ?? 0,
    symbol: SYMBOLS[node.role],
    symbolSize:
      (few ? 1 : SMALL) * (SIZES[node.role] + (node.neighbour && node.role === "relay" ? 4 : 0)) + (selected ? 6 : 0),
    itemStyle: {
      color: hollow ? colors.surface : fill,
      borderColor: hollow ? colors.bad : selected ? colors.text : node.neighbour ? colors.text : colors.surface,
      borderWidth: selected ? 3 : hollow ? 2 : node.neighbour ? 1.5 : 1,
      borderType: hollow ? "dashed" : "solid",
      opacity: node.draining ? 0.55 : 1,
    },
    label: {
      show: few || selected || node.role === "self" || node.neighbour,
      position: "bottom",
      distance: 5,
      color: hollow ? colors.bad : colors.text,
      fontSize: 11,
      fontWeight: node.role === "self" || selected ? "bold" : "normal",
      textBorderColor: colors.surface,
      textBorderWidth: 3,
      formatter: () =>
        `${hollow ? "✕ " : ""}${plain(node.node_id)}${node.draining ? ` (${t("topology.draining")})` : ""}`,
    },
    tooltip: { formatter: () => nodeText(node) },
  };
}

function nodeText(node: GraphNode): string {
  const lines = [plain(node.node_id), t(`role.${node.role}`)];
  if (node.hops != null && node.role !== "self") lines.push(`${t("topology.hops")}: ${node.hops}`);
  if (node.services.length > 0) lines.push(`${t("nav.services")}: ${plain(node.services.slice(0, 8).join(", "))}`);
  return lines.join("\n");
}

function linkItem(link: GraphLink, few: boolean, view: View) {
  const { colors } = view;
  const marks = {
    lost: { color: colors.bad, width: view.beat ? 6 : 3, type: "dotted", opacity: 1 },
    won: { color: colors.good, width: view.beat ? 6 : 3.5, type: "solid", opacity: 1 },
    in_use: { color: colors.accent, width: 3.5, type: "solid", opacity: 1 },
    warm: { color: colors.accent, width: 2, type: "dashed", opacity: 0.9 },
    none: { color: colors.faint, width: link.own ? 1.8 : 1.1, type: "solid", opacity: few ? 0.9 : 0.38 },
  } as const;
  const figures = linkText(link);
  return {
    source: link.a,
    target: link.b,
    lineStyle: marks[link.mark],
    label: {
      show: figures !== "" && few && view.wide && link.own,
      formatter: () => figures,
      color: colors.text,
      fontSize: 10.5,
      backgroundColor: colors.surface,
      padding: [1, 3],
      borderRadius: 3,
    },
    z: link.mark === "none" ? 0 : 1,
    tooltip: {
      formatter: () => [`${plain(link.a)} – ${plain(link.b)}`, figures, costText(link)].filter(Boolean).join("\n"),
    },
    emphasis: { lineStyle: { width: marks[link.mark].width + 1 } },
  };
}

function linkText(link: GraphLink): string {
  if (link.rtt_ms == null) return "";
  return link.loss ? `${ms(link.rtt_ms)} · ${percent(link.loss)}` : ms(link.rtt_ms);
}

function costText(link: GraphLink): string {
  return link.cost_ms == null ? t("topology.last_resort") : `${t("topology.cost")}: ${ms(link.cost_ms)}`;
}
