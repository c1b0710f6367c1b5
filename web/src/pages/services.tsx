import { useState } from "preact/hooks";
import { post, put, remove } from "../api/client";
import type { Service, ServiceSpec } from "../api/types";
import { shown } from "../format";
import { t } from "../i18n";
import { services, useResource } from "../state/resource";
import { Confirm, Dialog, useAction } from "../ui/dialog";
import { NodeLink } from "../ui/node";
import { Badge, Card, Failure, Field, Heading, Loaded } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";
import { wordsOf } from "./specs";

type Open = { what: "add" } | { what: "change" | "remove"; service: Service } | undefined;

export function ServicesPage() {
  const resource = useResource(services);
  const [open, setOpen] = useState<Open>();
  const name: ColumnOf<Service> = {
    id: "name",
    title: t("column.name"),
    by: (service) => service.name,
    cell: (service) => <b>{shown(service.name)}</b>,
  };
  const protocol: ColumnOf<Service> = {
    id: "protocol",
    title: t("column.protocol"),
    by: (service) => service.protocol,
    cell: (service) => shown(service.protocol),
  };
  const own: ColumnOf<Service>[] = [
    name,
    {
      id: "state",
      title: t("column.state"),
      by: (service) => service.error != null,
      cell: (service) =>
        service.error ? (
          <span class="long">
            <Badge tone="bad">{t("services.not_offered")}</Badge> {shown(service.error)}
          </span>
        ) : (
          <Badge tone="good">{t("services.offered")}</Badge>
        ),
    },
    protocol,
    {
      id: "address",
      title: t("column.address"),
      by: (service) => service.address,
      cell: (service) => <span class="mono">{service.address ? shown(service.address) : "–"}</span>,
    },
    {
      id: "allow",
      title: t("column.allow"),
      cell: (service) => (service.allow ? service.allow.map(shown).join(", ") : t("services.everyone")),
    },
  ];
  const tools: ColumnOf<Service> = {
    id: "tools",
    title: t("column.actions"),
    cell: (service) => (
      <span class="row-tools">
        <button
          type="button"
          class="small"
          aria-label={t("services.change_named", { name: shown(service.name) })}
          onClick={() => setOpen({ what: "change", service })}
        >
          {t("common.change")}
        </button>
        <button
          type="button"
          class="small"
          aria-label={t("services.remove_named", { name: shown(service.name) })}
          onClick={() => setOpen({ what: "remove", service })}
        >
          {t("common.remove")}
        </button>
      </span>
    ),
  };
  const others: ColumnOf<Service>[] = [
    name,
    {
      id: "node",
      title: t("column.node"),
      by: (service) => service.node_id,
      cell: (service) => <NodeLink id={service.node_id} />,
    },
    {
      id: "reachable",
      title: t("column.reachable"),
      by: (service) => service.reachable,
      cell: (service) => (
        <Badge tone={service.reachable ? "good" : "bad"}>{service.reachable ? t("common.yes") : t("common.no")}</Badge>
      ),
    },
    protocol,
  ];
  const save = async (spec: ServiceSpec) => {
    if (open?.what === "change") await put(`/services/${encodeURIComponent(open.service.name)}`, spec);
    else await post("/services", spec);
    resource.refresh();
  };
  return (
    <>
      <Heading title={t("nav.services")}>
        <button type="button" class="primary" onClick={() => setOpen({ what: "add" })}>
          {t("services.add")}
        </button>
      </Heading>
      <Loaded of={resource}>
        {(list) => (
          <>
            <Card title={t("services.runtime")} class="flush">
              <p class="hint inset">{t("services.runtime_hint")}</p>
              <Table
                stack
                label={t("services.runtime")}
                columns={[...own, tools]}
                rows={list.filter((service) => service.origin === "runtime")}
                id={(service) => service.name}
                empty={t("services.runtime_empty")}
              />
            </Card>
            <Card title={t("services.file")} class="flush">
              <p class="hint inset">{t("services.file_hint")}</p>
              <Table
                stack
                label={t("services.file")}
                columns={own}
                rows={list.filter((service) => service.origin === "file")}
                id={(service) => service.name}
                empty={t("services.file_empty")}
              />
            </Card>
            <Card title={t("services.others")} class="flush">
              <Table
                stack
                label={t("services.others")}
                columns={others}
                rows={list.filter((service) => service.origin == null)}
                id={(service) => `${service.node_id} ${service.name}`}
                empty={t("services.others_empty")}
              />
            </Card>
          </>
        )}
      </Loaded>
      {(open?.what === "add" || open?.what === "change") && (
        <ServiceForm
          title={
            open.what === "add" ? t("services.add") : t("services.change_named", { name: shown(open.service.name) })
          }
          service={open.what === "change" ? open.service : undefined}
          onSave={save}
          onClose={() => setOpen(undefined)}
        />
      )}
      {open?.what === "remove" && (
        <Confirm
          title={t("services.remove_named", { name: shown(open.service.name) })}
          text={t("services.remove_text")}
          action={t("common.remove")}
          onConfirm={async () => {
            await remove(`/services/${encodeURIComponent(open.service.name)}`);
            resource.refresh();
          }}
          onClose={() => setOpen(undefined)}
        />
      )}
    </>
  );
}

interface FormProps {
  title: string;
  service: Service | undefined;
  onSave: (spec: ServiceSpec) => Promise<void>;
  onClose: () => void;
}

function ServiceForm({ title, service, onSave, onClose }: FormProps) {
  const [name, setName] = useState(service?.name ?? "");
  const [address, setAddress] = useState(service?.address ?? "");
  const [protocol, setProtocol] = useState(service?.protocol ?? "tcp");
  const [allow, setAllow] = useState(service?.allow?.join(", ") ?? "");
  const { run, busy, error } = useAction(onSave);
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        class="form"
        onSubmit={async (event) => {
          event.preventDefault();
          const words = wordsOf(allow);
          const spec = {
            name: name.trim(),
            address: address.trim(),
            protocol,
            allow: words.length > 0 ? words : undefined,
          };
          if (await run(spec)) onClose();
        }}
      >
        <div class="columns">
          <Field label={t("column.name")}>
            <input
              type="text"
              name="name"
              required
              autofocus
              spellcheck={false}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </Field>
          <Field label={t("column.protocol")}>
            <select name="protocol" value={protocol} onChange={(event) => setProtocol(event.currentTarget.value)}>
              <option value="tcp">tcp</option>
              <option value="udp">udp</option>
            </select>
          </Field>
        </div>
        <Field label={t("column.address")} hint={t("services.address_hint")}>
          <input
            type="text"
            name="address"
            required
            spellcheck={false}
            value={address}
            onInput={(event) => setAddress(event.currentTarget.value)}
          />
        </Field>
        <Field label={t("column.allow")} hint={t("services.allow_hint")}>
          <input
            type="text"
            name="allow"
            spellcheck={false}
            value={allow}
            onInput={(event) => setAllow(event.currentTarget.value)}
          />
        </Field>
        {error && <Failure error={error} />}
        <div class="buttons">
          <button type="button" onClick={onClose}>
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
