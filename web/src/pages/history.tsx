import { useState } from "preact/hooks";
import { t } from "../i18n";
import { hour, refreshHour, useHour, useWeek, week } from "../state/history";
import { peers, useResource } from "../state/resource";
import { Choice, Heading } from "../ui/parts";
import { Charts } from "./charts";

const MINUTE = 60_000;
const SPANS = {
  "5m": 5 * MINUTE,
  "15m": 15 * MINUTE,
  "1h": 60 * MINUTE,
  "6h": 360 * MINUTE,
  "1d": 1440 * MINUTE,
  "1w": 7 * 1440 * MINUTE,
};
type Span = keyof typeof SPANS;

export function HistoryPage() {
  const [span, setSpan] = useState<Span>("1h");
  const fine = SPANS[span] <= SPANS["1h"];
  useHour();
  useResource(peers);
  useWeek(!fine);
  const series = fine ? hour.value : week.value;
  return (
    <>
      <Heading title={t("nav.history")}>
        <Choice
          label={t("history.span")}
          value={span}
          options={(Object.keys(SPANS) as Span[]).map((value) => ({ value, label: t(`span.${value}`) }))}
          onChange={(span) => {
            setSpan(span);
            if (SPANS[span] <= SPANS["1h"]) refreshHour();
          }}
        />
      </Heading>
      <p class="hint">{fine ? t("history.fine") : t("history.coarse")}</p>
      <Charts
        series={series}
        span={SPANS[span]}
        only={["throughput", "flows", "rtt", "peers", "errors", "loss", "cpu", "memory"]}
      />
    </>
  );
}
