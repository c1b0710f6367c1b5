/** Order and windows of tables. Pure. */

export type Sortable = string | number | boolean | null | undefined;

export interface Order {
  by: string;
  down: boolean;
}

const collator = new Intl.Collator("en", { numeric: true });

/** A sorted copy; what is unknown stands last in either direction. Equal rows keep their order. */
export function sorted<T>(rows: readonly T[], by: (row: T) => Sortable, down: boolean): T[] {
  const keyed = rows.map((row) => ({ row, key: by(row) }));
  keyed.sort((a, b) => {
    if (a.key == null || b.key == null) return (a.key == null ? 1 : 0) - (b.key == null ? 1 : 0);
    const order =
      typeof a.key === "string" && typeof b.key === "string"
        ? collator.compare(a.key, b.key)
        : Number(a.key) - Number(b.key);
    return down ? -order : order;
  });
  return keyed.map((entry) => entry.row);
}

/** Rows beyond the visible ones that exist all the same, so that a quick scroll shows no hole. */
const SPARE = 12;

/** Which rows can be seen. */
export function windowOf(count: number, row: number, top: number, height: number): { from: number; to: number } {
  // A list that became shorter may have been scrolled further than it reaches now.
  const start = Math.min(Math.floor(top / row), Math.max(0, count - Math.ceil(height / row)));
  return { from: Math.max(0, start - SPARE), to: Math.min(count, start + Math.ceil(height / row) + SPARE) };
}
