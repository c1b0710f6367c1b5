import { useState } from "preact/hooks";
import type { ProxySpec } from "../api/types";
import { t } from "../i18n";
import { services, topology, useResource } from "../state/resource";
import { Dialog, useAction } from "../ui/dialog";
import { Choice, Failure, Field } from "../ui/parts";
import { fieldsOf, NEW_PROXY, specFrom, type ProxyFields } from "./specs";

/** Protocols that nodes of this version serve; an entry that has another one keeps it. */
const SERVED = ["tcp"];

interface Props {
  title: string;
  /** What is changed; none for a new one */
  spec: ProxySpec | undefined;
  onSave: (spec: ProxySpec) => Promise<void>;
  onClose: () => void;
}

export function ProxyForm(props: Props) {
  const [fields, setFields] = useState<ProxyFields>(props.spec ? fieldsOf(props.spec) : NEW_PROXY);
  const { run, busy, error } = useAction(props.onSave);
  const nodes = useResource(topology).data.value?.nodes ?? [];
  const offered = useResource(services).data.value ?? [];
  const unix = fields.local_address.trim().startsWith("unix:");
  const open = fields.protocol === "socks5" || fields.protocol === "http";
  const text = (name: keyof ProxyFields, more: Record<string, unknown> = {}) => (
    <input
      type="text"
      name={name}
      spellcheck={false}
      autocomplete="off"
      value={fields[name]}
      onInput={(event) => setFields({ ...fields, [name]: event.currentTarget.value })}
      {...more}
    />
  );
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <form
        class="form"
        onSubmit={async (event) => {
          event.preventDefault();
          if (await run(specFrom(fields))) props.onClose();
        }}
      >
        <div class="columns">
          <Field label={t("column.name")}>{text("name", { required: true, autofocus: true })}</Field>
          <Field label={t("column.protocol")}>
            <select
              name="protocol"
              value={fields.protocol}
              onChange={(event) => {
                const protocol = event.currentTarget.value;
                const exit = protocol === "socks5" || protocol === "http";
                setFields({
                  ...fields,
                  protocol,
                  kind: exit ? "exit" : fields.kind === "exit" ? "address" : fields.kind,
                });
              }}
            >
              {[...new Set([...SERVED, props.spec?.protocol ?? "tcp"])].map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
            </select>
          </Field>
          <Field label={t("proxies.local_address")} hint={t("proxies.local_address_hint")}>
            {text("local_address")}
          </Field>
          <Field label={t("proxies.local_port")}>
            {text("local_port", { inputMode: "numeric", pattern: "[0-9]{1,5}", disabled: unix, required: !unix })}
          </Field>
        </div>
        {!open && (
          <Choice
            label={t("proxies.leads_to")}
            value={fields.kind}
            options={[
              { value: "address", label: t("proxies.to_address") },
              { value: "service", label: t("proxies.to_service") },
            ]}
            onChange={(kind) => setFields({ ...fields, kind })}
          />
        )}
        {fields.kind === "service" ? (
          <Field label={t("proxies.target_service")}>
            {text("target_service", { required: true, list: "known-services" })}
          </Field>
        ) : (
          <div class="columns">
            <Field label={t("proxies.target_node")}>
              {text("target_node_id", { required: true, list: "known-nodes" })}
            </Field>
            {fields.kind === "address" && (
              <Field label={t("proxies.target_address")} hint={t("proxies.target_address_hint")}>
                {text("target_address", { required: true })}
              </Field>
            )}
          </div>
        )}
        <Field label={t("proxies.idle_timeout")} hint={t("proxies.idle_timeout_hint")}>
          {text("idle_timeout")}
        </Field>
        <datalist id="known-nodes">
          {nodes.map((node) => (
            <option key={node.node_id} value={node.node_id} />
          ))}
        </datalist>
        <datalist id="known-services">
          {[...new Set(offered.map((service) => service.name))].map((name) => (
            <option key={name} value={name} />
          ))}
        </datalist>
        {error && <Failure error={error} />}
        <div class="buttons">
          <button type="button" onClick={props.onClose}>
            {t("common.cancel")}
          </button>
          <button type="submit" class="primary" disabled={busy}>
            {t("common.save")}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
