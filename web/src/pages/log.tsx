import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { shown } from "../format";
import { t } from "../i18n";
import { lines, logError, refreshLog, useLog, type Line } from "../state/log";
import { Empty, Failure, Heading, Loading, Time } from "../ui/parts";

const LEVELS = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"] as const;
type Level = (typeof LEVELS)[number];

/** Nearer to the end than this, px, the list follows new lines. */
const AT_END_PX = 40;

function has(line: Line, wanted: string): boolean {
  return (
    line.message.toLowerCase().includes(wanted) ||
    line.target.toLowerCase().includes(wanted) ||
    Object.entries(line.fields).some(([key, value]) => `${key}=${value}`.toLowerCase().includes(wanted))
  );
}

export function LogPage() {
  useLog();
  const [level, setLevel] = useState<Level>("TRACE");
  const [text, setText] = useState("");
  const [held, setHeld] = useState<Line[] | undefined>();
  const box = useRef<HTMLDivElement>(null);
  const follow = useRef(true);
  const all = held ?? lines.value;
  const wanted = text.trim().toLowerCase();
  const least = LEVELS.indexOf(level);
  const rows = useMemo(
    () => all?.filter((line) => LEVELS.indexOf(line.level as Level) <= least && (wanted === "" || has(line, wanted))),
    [all, least, wanted],
  );
  useEffect(() => {
    const element = box.current;
    if (element && follow.current) element.scrollTop = element.scrollHeight;
  }, [rows]);
  return (
    <>
      <Heading title={t("nav.log")}>
        <label class="inline">
          <span>{t("log.level")}</span>
          <select value={level} onChange={(event) => setLevel(event.currentTarget.value as Level)}>
            {LEVELS.map((name) => (
              <option key={name} value={name}>
                {name === "TRACE" ? t("log.all") : name}
              </option>
            ))}
          </select>
        </label>
        <input
          type="search"
          placeholder={t("log.filter")}
          aria-label={t("log.filter")}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button
          type="button"
          aria-pressed={held !== undefined}
          onClick={() => setHeld(held ? undefined : (lines.value ?? []))}
        >
          {held ? t("log.resume") : t("log.pause")}
        </button>
      </Heading>
      {logError.value && <Failure error={logError.value} retry={refreshLog} />}
      {!rows && !logError.value && <Loading />}
      {rows && (
        <div
          class="log"
          ref={box}
          tabIndex={0}
          role="log"
          aria-live="off"
          aria-label={t("nav.log")}
          onScroll={(event) => {
            const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
            follow.current = scrollHeight - scrollTop - clientHeight < AT_END_PX;
          }}
        >
          {rows.length === 0 && <Empty>{all?.length ? t("common.no_match") : t("log.empty")}</Empty>}
          {rows.map((line) => (
            <LogRow key={line.key} line={line} />
          ))}
        </div>
      )}
    </>
  );
}

function LogRow({ line }: { line: Line }) {
  return (
    <p class={`line ${LEVELS.includes(line.level as Level) ? line.level.toLowerCase() : ""}`}>
      <Time at={line.at} />
      <span class="level">{shown(line.level)}</span>
      <span class="target">{shown(line.target)}</span>
      <span class="message">{shown(line.message)}</span>
      {Object.entries(line.fields).map(([key, value]) => (
        <span class="pair" key={key}>
          <span class="key">{shown(key)}=</span>
          {shown(value)}
        </span>
      ))}
    </p>
  );
}
