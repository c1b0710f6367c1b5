/** What the shapes and lines of the graph mean. */

import { t } from "../i18n";

export function Legend() {
  return (
    <ul class="graph-legend" aria-label={t("topology.legend")}>
      <li>
        <Shape>
          <rect x="3" y="3" width="12" height="12" rx="3" class="fill-self" />
        </Shape>
        {t("role.self")}
      </li>
      <li>
        <Shape>
          <path d="M9 1.5 16.5 9 9 16.5 1.5 9z" class="fill-relay" />
        </Shape>
        {t("role.relay")}
      </li>
      <li>
        <Shape>
          <circle cx="9" cy="9" r="5.5" class="fill-node" />
        </Shape>
        {t("role.node")}
      </li>
      <li>
        <Shape>
          <circle cx="9" cy="9" r="5.5" class="fill-node ring" />
        </Shape>
        {t("topology.is_neighbour")}
      </li>
      <li>
        <Shape>
          <circle cx="9" cy="9" r="6" class="hollow" />
        </Shape>
        {t("role.unreachable")}
      </li>
      <li>
        <Shape>
          <path d="M0 9h18" class="line-used" />
        </Shape>
        {t("mark.in_use")}
      </li>
      <li>
        <Shape>
          <path d="M0 9h18" class="line-warm" />
        </Shape>
        {t("mark.warm")}
      </li>
      <li>
        <Shape>
          <path d="M0 9h18" class="line-lost" />
        </Shape>
        {t("mark.lost")}
      </li>
      <li>
        <Shape>
          <path d="M0 9h18" class="line-won" />
        </Shape>
        {t("mark.won")}
      </li>
    </ul>
  );
}

function Shape({ children }: { children: preact.ComponentChildren }) {
  return (
    <svg viewBox="0 0 18 18" class="shape" aria-hidden="true">
      {children}
    </svg>
  );
}
