/** Ping, trace and speed test of one node. */

import { useState } from "preact/hooks";
import { post } from "../api/client";
import type { Ping, Speedtest, Trace } from "../api/types";
import { bytes, digits, ms, percent, routeText, shown } from "../format";
import { t } from "../i18n";
import { useAction } from "./dialog";
import { Failure, Loading } from "./parts";

type Result = { kind: "ping"; of: Ping } | { kind: "trace"; of: Trace } | { kind: "speedtest"; of: Speedtest };

export function Measure({ node, seconds }: { node: string; seconds?: number }) {
  const [running, setRunning] = useState<Result["kind"] | undefined>();
  const { run, busy, error, result } = useAction(async (kind: Result["kind"]): Promise<Result> => {
    setRunning(kind);
    switch (kind) {
      case "ping":
        return { kind, of: await post<Ping>("/ping", { node }) };
      case "trace":
        return { kind, of: await post<Trace>("/trace", { node }) };
      case "speedtest":
        return { kind, of: await post<Speedtest>("/speedtest", seconds ? { node, duration_s: seconds } : { node }) };
    }
  });
  const button = (kind: Result["kind"]) => (
    <button type="button" disabled={busy || node === ""} onClick={() => void run(kind)}>
      {t(`measure.${kind}`)}
    </button>
  );
  return (
    <div class="measure">
      <div class="buttons start">
        {button("ping")}
        {button("trace")}
        {button("speedtest")}
      </div>
      <div aria-live="polite">
        {busy && (
          <div class="running">
            <Loading />
            {running === "speedtest" && <p class="hint">{t("measure.patience")}</p>}
          </div>
        )}
        {error && <Failure error={error} />}
        {result?.kind === "ping" && <PingResult ping={result.of} />}
        {result?.kind === "trace" && <TraceResult trace={result.of} />}
        {result?.kind === "speedtest" && <SpeedResult test={result.of} />}
      </div>
    </div>
  );
}

function PingResult({ ping }: { ping: Ping }) {
  return (
    <dl class="pairs result">
      <dt>{t("column.rtt")}</dt>
      <dd>{ms(ping.rtt_ms)}</dd>
      <dt>{t("measure.route")}</dt>
      <dd class="mono">{routeText(ping.route)}</dd>
    </dl>
  );
}

function TraceResult({ trace }: { trace: Trace }) {
  return (
    <div class="scroll-x">
      <table class="result">
        <thead>
          <tr>
            <th scope="col">#</th>
            <th scope="col">{t("column.node")}</th>
            <th scope="col" class="figure">
              {t("column.rtt")}
            </th>
            <th scope="col" class="figure">
              {t("measure.link_rtt")}
            </th>
            <th scope="col" class="figure">
              {t("measure.link_loss")}
            </th>
          </tr>
        </thead>
        <tbody>
          {trace.hops.map((hop, index) => (
            <tr key={index}>
              <td>{index + 1}</td>
              <td>
                <span class="mono">{shown(hop.node_id)}</span>
                {hop.error && <span class="row-error">{shown(hop.error)}</span>}
              </td>
              <td class="figure">{ms(hop.rtt_ms)}</td>
              <td class="figure">{ms(hop.link_rtt_ms)}</td>
              <td class="figure">{percent(hop.link_loss)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function SpeedResult({ test }: { test: Speedtest }) {
  return (
    <dl class="pairs result">
      <dt>{t("measure.up")}</dt>
      <dd>
        <b>{digits(test.up.mbit_per_s)} Mbit/s</b> <span class="note">{bytes(test.up.bytes)}</span>
      </dd>
      <dt>{t("measure.down")}</dt>
      <dd>
        <b>{digits(test.down.mbit_per_s)} Mbit/s</b> <span class="note">{bytes(test.down.bytes)}</span>
      </dd>
      <dt>{t("measure.rtt_idle")}</dt>
      <dd>{ms(test.rtt_idle_ms)}</dd>
      <dt>{t("measure.rtt_loaded")}</dt>
      <dd>{ms(test.rtt_loaded_ms)}</dd>
      <dt>{t("measure.route")}</dt>
      <dd class="mono">{routeText(test.route)}</dd>
    </dl>
  );
}
