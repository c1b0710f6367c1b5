import type { Config } from "../api/types";
import { shown } from "../format";
import { t } from "../i18n";
import { href } from "../router";
import { config, proxies, services, useResource } from "../state/resource";
import { Badge, Card, Copy, Empty, Heading, Loaded, Problems, Time } from "../ui/parts";
import { yaml } from "./yaml";

export function ConfigPage() {
  const resource = useResource(config);
  return (
    <>
      <Heading title={t("nav.config")}>
        <a class="button" href={href("actions")}>
          {t("actions.reload")}
        </a>
      </Heading>
      <Loaded of={resource}>{(now) => <Values now={now} />}</Loaded>
    </>
  );
}

function Values({ now }: { now: Config }) {
  const text = yaml(now.values);
  return (
    <>
      <dl class="facts">
        <div>
          <dt>{t("fact.config")}</dt>
          <dd>{now.path ? shown(now.path) : t("config.no_file")}</dd>
        </div>
        <div>
          <dt>{t("config.applied")}</dt>
          <dd>
            <Time at={now.applied} />
          </dd>
        </div>
      </dl>
      {now.needs_restart.length > 0 && (
        <Card title={t("config.needs_restart")} class="warn">
          <p>{t("config.needs_restart_text")}</p>
          <ul class="plain-list">
            {now.needs_restart.map((key) => (
              <li key={key}>
                <code>{shown(key)}</code>
              </li>
            ))}
          </ul>
        </Card>
      )}
      {now.warnings.length > 0 && (
        <Card title={t("config.warnings")} class="warn">
          <Problems list={now.warnings} />
        </Card>
      )}
      <Runtime />
      <Card title={t("config.values")} tools={<Copy text={text} label={t("common.copy")} />}>
        <p class="hint">{t("config.values_hint")}</p>
        <pre class="yaml" tabIndex={0}>
          {text.split("\n").map((line, index) => (
            <YamlLine key={index} line={shown(line)} />
          ))}
        </pre>
      </Card>
    </>
  );
}

/** Keys stand out from values. */
function YamlLine({ line }: { line: string }) {
  const match = /^([\s-]*)([^\s:"[{][^:]*|"[^"]*")(:)(.*)$/.exec(line);
  if (!match) return <>{`${line}\n`}</>;
  return (
    <>
      {match[1]}
      <span class="key">{match[2]}</span>
      {`:${match[4]}\n`}
    </>
  );
}

/** What was added at run time stands beside the file, not in it. */
function Runtime() {
  const added = (useResource(proxies).data.value ?? []).filter((proxy) => proxy.origin === "runtime");
  const offered = (useResource(services).data.value ?? []).filter((service) => service.origin === "runtime");
  return (
    <Card title={t("config.runtime")}>
      {added.length + offered.length === 0 ? (
        <Empty>{t("config.no_runtime")}</Empty>
      ) : (
        <ul class="plain-list">
          {added.map((proxy) => (
            <li key={`proxy ${proxy.name}`}>
              <Badge tone="info">{t("column.proxy")}</Badge> <a href={href("proxies")}>{shown(proxy.name)}</a>{" "}
              <span class="mono">
                {shown(proxy.listen)} → {shown(proxy.target)}
              </span>
            </li>
          ))}
          {offered.map((service) => (
            <li key={`service ${service.name}`}>
              <Badge tone="info">{t("column.service")}</Badge> <a href={href("services")}>{shown(service.name)}</a>{" "}
              <span class="mono">{service.address && shown(service.address)}</span>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
