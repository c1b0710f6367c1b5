/** Reads what matters to those who do not see the screen: failovers, lost links, drains, reloads. */

import { useEffect, useState } from "preact/hooks";
import { nodeNow } from "../api/stream";
import { language } from "../i18n";
import { journal, type JournalEvent } from "../state/journal";
import { sentence } from "./event";

/** Kinds that are worth an interruption. */
const SPOKEN: JournalEvent["kind"][] = ["failover", "peer", "drain", "reload"];
/** One at a time; bursts are told by their last. */
const PAUSE_MS = 1500;
/** What happened earlier is history. */
const FRESH_MS = 30_000;

export function Announcer() {
  const [text, setText] = useState("");
  const latest = journal.value[0];
  const lang = language.value;
  useEffect(() => {
    if (!latest || !SPOKEN.includes(latest.kind) || nodeNow() - Date.parse(latest.at) > FRESH_MS) return;
    const timer = window.setTimeout(() => setText(sentence(latest)), PAUSE_MS);
    return () => window.clearTimeout(timer);
  }, [latest, lang]);
  return (
    <p class="visually-hidden" aria-live="polite">
      {text}
    </p>
  );
}
