import { useState } from "preact/hooks";
import { post } from "../api/client";
import type { Drain, Reload, Token } from "../api/types";
import { shown } from "../format";
import { t } from "../i18n";
import { query } from "../router";
import { status, topology, useResource } from "../state/resource";
import { Confirm, useAction } from "../ui/dialog";
import { Measure } from "../ui/measure";
import { Badge, Card, Copy, Failure, Field, Heading, Problems, Time } from "../ui/parts";
import { wordsOf } from "./specs";

export function Actions() {
  return (
    <>
      <Heading title={t("nav.actions")} />
      <div class="action-cards">
        <div>
          <MeasureCard />
          <ReloadCard />
          <DrainCard />
        </div>
        <div>
          <TokenCard />
        </div>
      </div>
    </>
  );
}

function MeasureCard() {
  const nodes = useResource(topology).data.value?.nodes.slice(1) ?? [];
  const [node, setNode] = useState(query.value.get("node") ?? "");
  const [seconds, setSeconds] = useState(3);
  const wanted = node.trim();
  return (
    <Card title={t("actions.measure")}>
      <p class="hint">{t("actions.measure_hint")}</p>
      <div class="columns">
        <Field label={t("column.node")}>
          <input
            type="text"
            name="node"
            list="mesh-nodes"
            spellcheck={false}
            autocomplete="off"
            value={node}
            onInput={(event) => setNode(event.currentTarget.value)}
          />
        </Field>
        <Field label={t("actions.seconds")}>
          <input
            type="number"
            min={1}
            max={30}
            value={seconds}
            onInput={(event) => setSeconds(Number(event.currentTarget.value) || 3)}
          />
        </Field>
      </div>
      <datalist id="mesh-nodes">
        {nodes.map((node) => (
          <option key={node.node_id} value={node.node_id} />
        ))}
      </datalist>
      <Measure key={wanted} node={wanted} seconds={seconds} />
    </Card>
  );
}

const UNITS = { minutes: 60, hours: 3600, days: 86_400 };

function TokenCard() {
  const issuer = useResource(status).data.value?.issuer;
  const [amount, setAmount] = useState(1);
  const [unit, setUnit] = useState<keyof typeof UNITS>("hours");
  const [uses, setUses] = useState(1);
  const [node, setNode] = useState("");
  const [groups, setGroups] = useState("");
  const [relay, setRelay] = useState(true);
  const { run, busy, error, result } = useAction(() =>
    post<Token>("/tokens", {
      ttl_s: Math.round(amount * UNITS[unit]),
      uses,
      node: node.trim() || null,
      groups: wordsOf(groups),
      relay,
    }),
  );
  return (
    <Card title={t("actions.token")}>
      <p class="hint">{issuer === false ? t("actions.no_issuer") : t("actions.token_hint")}</p>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void run();
        }}
      >
        <div class="columns">
          <Field label={t("actions.ttl")}>
            <span class="joined">
              <input
                type="number"
                name="ttl"
                min={1}
                max={8760}
                required
                value={amount}
                onInput={(event) => setAmount(Number(event.currentTarget.value))}
              />
              <select
                aria-label={t("actions.unit")}
                value={unit}
                onChange={(event) => setUnit(event.currentTarget.value as keyof typeof UNITS)}
              >
                {(Object.keys(UNITS) as (keyof typeof UNITS)[]).map((name) => (
                  <option key={name} value={name}>
                    {t(`unit.${name}`)}
                  </option>
                ))}
              </select>
            </span>
          </Field>
          <Field label={t("actions.uses")}>
            <input
              type="number"
              name="uses"
              min={1}
              required
              value={uses}
              onInput={(event) => setUses(Number(event.currentTarget.value))}
            />
          </Field>
          <Field label={t("actions.only_node")} hint={t("actions.only_node_hint")}>
            <input
              type="text"
              name="node"
              spellcheck={false}
              value={node}
              onInput={(event) => setNode(event.currentTarget.value)}
            />
          </Field>
          <Field label={t("column.groups")} hint={t("actions.groups_hint")}>
            <input
              type="text"
              name="groups"
              spellcheck={false}
              value={groups}
              onInput={(event) => setGroups(event.currentTarget.value)}
            />
          </Field>
        </div>
        <label class="check">
          <input
            type="checkbox"
            name="relay"
            checked={relay}
            onChange={(event) => setRelay(event.currentTarget.checked)}
          />
          {t("actions.relay")}
        </label>
        {error && <Failure error={error} />}
        <div class="buttons start">
          <button type="submit" class="primary" disabled={busy || issuer === false}>
            {t("actions.make_token")}
          </button>
        </div>
      </form>
      {result && (
        <div class="token" role="status">
          <p>
            {t("actions.token_made")} <Time at={result.expires} />
          </p>
          <pre tabIndex={0}>{shown(result.join)}</pre>
          <div class="buttons start">
            <Copy text={result.join} label={t("actions.copy_join")} />
            <Copy text={result.token} label={t("actions.copy_token")} />
          </div>
        </div>
      )}
    </Card>
  );
}

function ReloadCard() {
  const { run, busy, error, result } = useAction(() => post<Reload>("/reload"));
  const list = (title: string, keys: string[]) =>
    keys.length > 0 && (
      <>
        <h3>{title}</h3>
        <ul class="plain-list">
          {keys.map((key) => (
            <li key={key}>
              <code>{shown(key)}</code>
            </li>
          ))}
        </ul>
      </>
    );
  return (
    <Card title={t("actions.reload")}>
      <p class="hint">{t("actions.reload_hint")}</p>
      <div class="buttons start">
        <button type="button" class="primary" disabled={busy} onClick={() => void run()}>
          {t("actions.reload_now")}
        </button>
      </div>
      <div aria-live="polite">
        {error && <Failure error={error} />}
        {result && (
          <div class="result">
            {result.changed.length + result.needs_restart.length + result.failed.length === 0 ? (
              <Badge tone="good">{t("actions.nothing_changed")}</Badge>
            ) : (
              <Badge tone={result.failed.length > 0 ? "warn" : "good"}>{t("actions.reloaded")}</Badge>
            )}
            {list(t("actions.changed"), result.changed)}
            {list(t("config.needs_restart"), result.needs_restart)}
            {list(t("actions.failed"), result.failed)}
            {result.warnings.length > 0 && <h3>{t("config.warnings")}</h3>}
            <Problems list={result.warnings} />
          </div>
        )}
      </div>
    </Card>
  );
}

function DrainCard() {
  const [asking, setAsking] = useState(false);
  const [done, setDone] = useState<Drain | undefined>();
  const now = useResource(status).data.value;
  return (
    <Card title={t("actions.drain")}>
      <p class="hint">{t("actions.drain_hint")}</p>
      <div class="buttons start">
        <button type="button" class="danger" disabled={now?.draining} onClick={() => setAsking(true)}>
          {t("actions.drain_now")}
        </button>
      </div>
      {done && <p role="status">{t("actions.drain_begun", { flows: done.flows_open, seconds: done.timeout_s })}</p>}
      {asking && (
        <Confirm
          title={t("actions.drain_title")}
          text={t("actions.drain_text", { flows: now?.flows_open ?? 0 })}
          action={t("actions.drain_now")}
          onConfirm={async () => {
            setDone(await post<Drain>("/drain"));
            status.refresh();
          }}
          onClose={() => setAsking(false)}
        />
      )}
    </Card>
  );
}
