/** Says that the node does not answer, and since when what is shown is old. */

import { useEffect, useState } from "preact/hooks";
import { link, lostAt, retry, retryAt } from "../api/stream";
import { t } from "../i18n";
import { Icon } from "./icons";
import { Time } from "./parts";

export function LostBanner() {
  const [, tick] = useState(0);
  const lost = link.value === "lost";
  useEffect(() => {
    if (!lost) return;
    const timer = window.setInterval(() => tick((count) => count + 1), 1000);
    return () => window.clearInterval(timer);
  }, [lost]);
  if (!lost) return null;
  const left = Math.max(0, Math.ceil(((retryAt.value ?? 0) - Date.now()) / 1000));
  return (
    <div class="banner bad">
      <Icon name="warn" />
      <p role="alert">
        {t("lost.text")} <Time at={lostAt.value ?? Date.now()} />
      </p>
      <span class="countdown">{left > 0 ? t("lost.again", { seconds: left }) : t("lost.trying")}</span>
      <button type="button" class="small" onClick={retry}>
        {t("lost.now")}
      </button>
    </div>
  );
}
