/** The parts of Apache ECharts that the console draws with. */

import { GraphChart, LineChart } from "echarts/charts";
import { GridComponent, TooltipComponent } from "echarts/components";
import { init as start, use, type ECharts } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";

use([GraphChart, LineChart, GridComponent, TooltipComponent, CanvasRenderer]);

export type Canvas = ECharts;

export function init(place: HTMLElement): Canvas {
  return start(place, undefined, { renderer: "canvas" });
}
