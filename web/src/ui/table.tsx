/** Tables: sorted by a click on a head, and of any length: only the rows that can be seen exist. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import { sorted, windowOf, type Order, type Sortable } from "./rows";

export interface ColumnOf<T> {
  id: string;
  title: string;
  cell: (row: T) => ComponentChildren;
  /** What it is sorted by; without it the column can't be. */
  by?: (row: T) => Sortable;
  /** Figures stand at the right. */
  figure?: boolean;
}

/** Height of a row in px; the style sheet says the same. */
const ROW = 34;
/** Up to here a table is shown whole. */
const WHOLE = 100;

interface Props<T> {
  label: string;
  columns: ColumnOf<T>[];
  rows: T[];
  id: (row: T) => string;
  order?: Order;
  empty: string;
  rowClass?: (row: T) => string;
  /** On a phone each row is shown as a block of its own */
  stack?: boolean;
}

export function Table<T>(props: Props<T>) {
  const [order, setOrder] = useState<Order | undefined>(props.order);
  const column = props.columns.find((column) => column.id === order?.by);
  const rows = useMemo(
    () => (column?.by ? sorted(props.rows, column.by, order?.down ?? false) : props.rows),
    [props.rows, order, column?.id],
  );
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const windowed = rows.length > WHOLE;

  useEffect(() => {
    const element = box.current;
    if (!element || !windowed) return;
    let frame = 0;
    const look = () => {
      frame = 0;
      setView({ top: element.scrollTop, height: element.clientHeight });
    };
    const later = () => {
      frame ||= requestAnimationFrame(look);
    };
    look();
    element.addEventListener("scroll", later, { passive: true });
    const observer = new ResizeObserver(later);
    observer.observe(element);
    return () => {
      cancelAnimationFrame(frame);
      element.removeEventListener("scroll", later);
      observer.disconnect();
    };
  }, [windowed]);

  const { from, to } = windowed ? windowOf(rows.length, ROW, view.top, view.height) : { from: 0, to: rows.length };
  const filler = (count: number) =>
    count > 0 && (
      <tr class="filler" aria-hidden="true">
        <td colSpan={props.columns.length} height={count * ROW} />
      </tr>
    );
  return (
    <div
      class={`table-box ${windowed ? "windowed" : ""} ${props.stack ? "stack" : ""}`}
      ref={box}
      role="region"
      aria-label={props.label}
      tabIndex={0}
    >
      <table role="table" aria-rowcount={rows.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            {props.columns.map((each) => {
              const active = each.id === order?.by;
              return (
                <th
                  key={each.id}
                  scope="col"
                  class={each.figure ? "figure" : ""}
                  aria-sort={active ? (order.down ? "descending" : "ascending") : undefined}
                >
                  {each.by ? (
                    <button
                      type="button"
                      class="sort"
                      onClick={() => setOrder({ by: each.id, down: active ? !order.down : !!each.figure })}
                    >
                      {each.title}
                      <span class="arrow" aria-hidden="true">
                        {active ? (order.down ? "▼" : "▲") : ""}
                      </span>
                    </button>
                  ) : (
                    each.title
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {filler(from)}
          {rows.slice(from, to).map((row, index) => (
            <tr key={props.id(row)} role="row" aria-rowindex={from + index + 2} class={props.rowClass?.(row) ?? ""}>
              {props.columns.map((each) => (
                <td key={each.id} role="cell" data-title={each.title} class={each.figure ? "figure" : ""}>
                  {each.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {filler(rows.length - to)}
        </tbody>
      </table>
      {rows.length === 0 && <p class="empty">{props.empty || t("common.nothing")}</p>}
    </div>
  );
}
