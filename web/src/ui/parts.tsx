/** Small pieces that every page uses. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { ApiError } from "../api/client";
import { link } from "../api/stream";
import type { Problem } from "../api/types";
import { moment, shown, utc } from "../format";
import { language, t } from "../i18n";
import type { Resource } from "../state/resource";
import { Icon } from "./icons";

export type Tone = "good" | "warn" | "bad" | "off" | "info";

/** A word with a mark: the mark tells the same without colour. */
export function Badge({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <span class={`badge ${tone}`}>
      {tone !== "info" && <Icon name={tone} />}
      {children}
    </span>
  );
}

/** A moment, local, with UTC as its title. */
export function Time({ at }: { at: string | number }) {
  return (
    <time dateTime={new Date(at).toJSON() ?? undefined} title={utc(at)}>
      {moment(at, language.value)}
    </time>
  );
}

export function Heading({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="heading">
      <div class="tools">
        <h1 tabIndex={-1}>{title}</h1>
        {link.value === "lost" && <span class="stale-mark">{t("lost.stale")}</span>}
      </div>
      {children && <div class="tools">{children}</div>}
    </div>
  );
}

export function Card(props: {
  title?: string;
  tools?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}) {
  return (
    <section class={`card ${props.class ?? ""}`}>
      {props.title && (
        <div class="card-head">
          <h2>{props.title}</h2>
          {props.tools && <div class="tools">{props.tools}</div>}
        </div>
      )}
      {props.children}
    </section>
  );
}

/** An error in the API's own words, with each problem at its place. */
export function Failure({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="failure" role="alert">
      <Icon name="warn" />
      <div>
        <p>{error.unreachable ? t("error.unreachable") : shown(error.message)}</p>
        <Problems list={error.problems} />
        {retry && (
          <button type="button" class="small" onClick={retry}>
            {t("common.retry")}
          </button>
        )}
      </div>
    </div>
  );
}

export function Problems({ list }: { list: Problem[] }) {
  if (list.length === 0) return null;
  return (
    <ul class="problems">
      {list.map((problem, index) => (
        <li key={index}>
          {/* Without a file the place is one in the JSON of a form, which nobody sees. */}
          {problem.file && problem.line > 0 && (
            <span class="place">
              {shown(problem.file)}:{problem.line}:{problem.column}
            </span>
          )}
          {problem.key && <code>{shown(problem.key)}</code>}
          <span>{shown(problem.message)}</span>
        </li>
      ))}
    </ul>
  );
}

export function Loading() {
  return (
    <div class="loading" role="status">
      <span class="spinner" aria-hidden="true" />
      {t("common.loading")}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** Shows `children` of the data, or why there is none. Old data stays while asking fails. */
export function Loaded<T>(props: { of: Resource<T>; children: (data: T) => ComponentChildren }) {
  const data = props.of.data.value;
  const error = props.of.error.value;
  if (data === undefined) return error ? <Failure error={error} retry={props.of.refresh} /> : <Loading />;
  return (
    <>
      {error && !error.unreachable && error.status !== 401 && <Failure error={error} retry={props.of.refresh} />}
      {props.children(data)}
    </>
  );
}

/** Copies text. Where the browser forbids it, the text is selected for copying by hand. */
export function Copy({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      field.className = "off-screen";
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    setDone(true);
    window.setTimeout(() => setDone(false), 2000);
  };
  return (
    <button type="button" class="small" onClick={copy}>
      <Icon name={done ? "good" : "copy"} />
      <span aria-live="polite">{done ? t("common.copied") : label}</span>
    </button>
  );
}

/** A labelled field of a form. */
export function Field(props: { label: string; hint?: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span class="label">{props.label}</span>
      {props.children}
      {props.hint && <span class="hint">{props.hint}</span>}
    </label>
  );
}

/** One of several, shown at once. */
export function Choice<T extends string>(props: {
  label: string;
  value: T;
  options: { value: T; label: string }[];
  onChange: (value: T) => void;
}) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.options.map((option) => (
        <button
          type="button"
          key={option.value}
          aria-pressed={props.value === option.value}
          onClick={() => props.onChange(option.value)}
        >
          {option.label}
        </button>
      ))}
    </div>
  );
}
