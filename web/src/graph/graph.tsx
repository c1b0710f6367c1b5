/** The mesh as a graph: drawn on a canvas, walked with the arrow keys. */

import { useEffect, useRef, useState } from "preact/hooks";
import { shown } from "../format";
import { language, t } from "../i18n";
import { motion, palette } from "../theme";
import { useCanvas } from "../ui/chart";
import { Loading } from "../ui/parts";
import { Layout } from "./layout";
import { next, type Graph } from "./model";
import { graphOption } from "./option";

/** Places outlive the page: coming back shows the same picture. */
const layout = new Layout();
/** Two beats a second at most: nothing here may flash. */
const BEAT_MS = 600;

/** Narrower than this, figures beside the links would cover the nodes. */
const WIDE_PX = 560;
/** A pointer that moved less than this has clicked. */
const DRAGGED_PX = 4;

interface Pointer {
  offsetX: number;
  offsetY: number;
}

interface Props {
  graph: Graph;
  selected: string | undefined;
  onSelect: (id: string | undefined) => void;
}

export function GraphView({ graph, selected, onSelect }: Props) {
  const { place, canvas, shade } = useCanvas();
  const [arranged, setArranged] = useState(0);
  const [beat, setBeat] = useState(false);
  const ids = graph.nodes.map((node) => node.node_id);
  const ready = ids.length > 0 && layout.covers(ids);
  const lang = language.value;
  const moves = motion.value;
  const changing = graph.links.some((link) => link.mark === "lost" || link.mark === "won");

  // Each new set of nodes is arranged once; a run that is overtaken by a newer set ends unseen.
  const shape = ids.join(" ");
  const arrange = () =>
    layout.arrange(
      ids,
      graph.links.map((link) => [link.a, link.b]),
      () => setArranged((count) => count + 1),
    );
  useEffect(() => {
    if (!layout.covers(ids)) arrange();
  }, [shape]);

  useEffect(() => {
    if (!changing || !moves) return setBeat(false);
    const timer = window.setInterval(() => setBeat((on) => !on), BEAT_MS);
    return () => window.clearInterval(timer);
  }, [changing, moves]);

  const held = useRef<({ id: string } & Pointer) | undefined>(undefined);
  useEffect(() => {
    if (canvas && ready && !held.current) {
      const wide = canvas.getWidth() >= WIDE_PX;
      canvas.setOption(graphOption(graph, { layout, colors: palette(), selected, wide, beat }));
    }
  }, [canvas, graph, selected, beat, arranged, ready, shade, lang]);

  const choose = useRef(onSelect);
  choose.current = onSelect;
  useEffect(() => {
    if (!canvas) return;
    canvas.on("click", (hit) => {
      if (hit.dataType === "node") choose.current((hit.data as { id: string }).id);
    });
    // A node that was dragged stays where it was put. Nothing is drawn anew under the hand that holds it.
    canvas.on("mousedown", (hit) => {
      const event = hit.event as unknown as Pointer;
      if (hit.dataType === "node") {
        held.current = { id: (hit.data as { id: string }).id, offsetX: event.offsetX, offsetY: event.offsetY };
      }
    });
    const release = (event: Pointer) => {
      const node = held.current;
      held.current = undefined;
      if (!node || Math.hypot(event.offsetX - node.offsetX, event.offsetY - node.offsetY) < DRAGGED_PX) return;
      const [x, y] = canvas.convertFromPixel({ seriesIndex: 0 }, [event.offsetX, event.offsetY]) as number[];
      if (x !== undefined && y !== undefined) layout.move(node.id, { x, y });
      setArranged((count) => count + 1);
    };
    canvas.getZr().on("mouseup", release as never);
    canvas.getZr().on("globalout", () => (held.current = undefined));
  }, [canvas]);

  const keys = (event: KeyboardEvent) => {
    switch (event.key) {
      case "ArrowLeft":
      case "ArrowRight":
      case "ArrowUp":
      case "ArrowDown":
        onSelect(next(selected ?? graph.self ?? "", event.key, ids, (id) => layout.place(id)));
        break;
      case "Home":
        onSelect(graph.self);
        break;
      case "Escape":
        onSelect(undefined);
        break;
      default:
        return;
    }
    event.preventDefault();
  };

  return (
    <div class="graph">
      <div
        class="canvas"
        ref={place}
        tabIndex={0}
        role="application"
        aria-label={t("topology.graph_label", { nodes: graph.nodes.length, links: graph.links.length })}
        aria-describedby="graph-keys"
        onKeyDown={keys}
      />
      <p class="visually-hidden" id="graph-keys">
        {t("topology.keys")}
      </p>
      <p class="visually-hidden" aria-live="polite">
        {selected ? shown(selected) : ""}
      </p>
      {!(canvas && ready) && <Loading />}
      <div class="graph-tools">
        <button
          type="button"
          class="small"
          onClick={() => {
            layout.forget();
            arrange();
          }}
        >
          {t("topology.arrange")}
        </button>
      </div>
    </div>
  );
}
