import { useState } from "preact/hooks";
import { post, put, remove } from "../api/client";
import type { Proxy, ProxySpec } from "../api/types";
import { bytes, count, shown } from "../format";
import { language, t } from "../i18n";
import { proxies, useResource } from "../state/resource";
import { Confirm } from "../ui/dialog";
import { Badge, Card, Heading, Loaded } from "../ui/parts";
import { Table, type ColumnOf } from "../ui/table";
import { ProxyForm } from "./proxy_form";
import { specOf } from "./specs";

type Open = { what: "add" } | { what: "change" | "remove"; proxy: Proxy } | undefined;

export function ProxiesPage() {
  const resource = useResource(proxies);
  const [open, setOpen] = useState<Open>();
  const lang = language.value;
  const columns: ColumnOf<Proxy>[] = [
    { id: "name", title: t("column.name"), by: (proxy) => proxy.name, cell: (proxy) => <b>{shown(proxy.name)}</b> },
    {
      id: "state",
      title: t("column.state"),
      by: (proxy) => proxy.error != null,
      cell: (proxy) =>
        proxy.error ? (
          <span class="long">
            <Badge tone="bad">{t("proxies.failed")}</Badge> {shown(proxy.error)}
          </span>
        ) : (
          <Badge tone="good">{t("proxies.listening")}</Badge>
        ),
    },
    {
      id: "protocol",
      title: t("column.protocol"),
      by: (proxy) => proxy.protocol,
      cell: (proxy) => shown(proxy.protocol),
    },
    {
      id: "listen",
      title: t("column.listen"),
      by: (proxy) => proxy.listen,
      cell: (proxy) => <span class="mono">{shown(proxy.listen)}</span>,
    },
    {
      id: "target",
      title: t("column.target"),
      by: (proxy) => proxy.target,
      cell: (proxy) => <span class="mono">{shown(proxy.target)}</span>,
    },
    {
      id: "open",
      title: t("column.open"),
      figure: true,
      by: (proxy) => proxy.flows_open,
      cell: (proxy) => count(proxy.flows_open, lang),
    },
    {
      id: "total",
      title: t("column.total"),
      figure: true,
      by: (proxy) => proxy.flows_total,
      cell: (proxy) => count(proxy.flows_total, lang),
    },
    {
      id: "failed",
      title: t("column.failed"),
      figure: true,
      by: (proxy) => proxy.flows_failed,
      cell: (proxy) => count(proxy.flows_failed, lang),
    },
    {
      id: "up",
      title: t("column.up"),
      figure: true,
      by: (proxy) => proxy.bytes_up,
      cell: (proxy) => bytes(proxy.bytes_up),
    },
    {
      id: "down",
      title: t("column.down"),
      figure: true,
      by: (proxy) => proxy.bytes_down,
      cell: (proxy) => bytes(proxy.bytes_down),
    },
  ];
  const tools: ColumnOf<Proxy> = {
    id: "tools",
    title: t("column.actions"),
    cell: (proxy) => (
      <span class="row-tools">
        <button
          type="button"
          class="small"
          aria-label={t("proxies.change_named", { name: shown(proxy.name) })}
          onClick={() => setOpen({ what: "change", proxy })}
        >
          {t("common.change")}
        </button>
        <button
          type="button"
          class="small"
          aria-label={t("proxies.remove_named", { name: shown(proxy.name) })}
          onClick={() => setOpen({ what: "remove", proxy })}
        >
          {t("common.remove")}
        </button>
      </span>
    ),
  };
  const save = async (spec: ProxySpec) => {
    if (open?.what === "change") await put(`/proxies/${encodeURIComponent(open.proxy.name)}`, spec);
    else await post("/proxies", spec);
    resource.refresh();
  };
  return (
    <>
      <Heading title={t("nav.proxies")}>
        <button type="button" class="primary" onClick={() => setOpen({ what: "add" })}>
          {t("proxies.add")}
        </button>
      </Heading>
      <Loaded of={resource}>
        {(list) => (
          <>
            <Card title={t("proxies.runtime")} class="flush">
              <p class="hint inset">{t("proxies.runtime_hint")}</p>
              <Table
                stack
                label={t("proxies.runtime")}
                columns={[...columns, tools]}
                rows={list.filter((proxy) => proxy.origin === "runtime")}
                id={(proxy) => proxy.name}
                empty={t("proxies.runtime_empty")}
              />
            </Card>
            <Card title={t("proxies.file")} class="flush">
              <p class="hint inset">{t("proxies.file_hint")}</p>
              <Table
                stack
                label={t("proxies.file")}
                columns={columns}
                rows={list.filter((proxy) => proxy.origin !== "runtime")}
                id={(proxy) => proxy.name}
                empty={t("proxies.file_empty")}
              />
            </Card>
          </>
        )}
      </Loaded>
      {(open?.what === "add" || open?.what === "change") && (
        <ProxyForm
          title={open.what === "add" ? t("proxies.add") : t("proxies.change_named", { name: shown(open.proxy.name) })}
          spec={open.what === "change" ? specOf(open.proxy) : undefined}
          onSave={save}
          onClose={() => setOpen(undefined)}
        />
      )}
      {open?.what === "remove" && (
        <Confirm
          title={t("proxies.remove_named", { name: shown(open.proxy.name) })}
          text={t("proxies.remove_text", { flows: open.proxy.flows_open })}
          action={t("common.remove")}
          onConfirm={async () => {
            await remove(`/proxies/${encodeURIComponent(open.proxy.name)}`);
            resource.refresh();
          }}
          onClose={() => setOpen(undefined)}
        />
      )}
    </>
  );
}
