/** Values as YAML, for reading and for copying into a file. Pure. */

/** Text that YAML reads as that same text. */
const BARE = /^[A-Za-z_/][\w./-]*$/;
const WORDS = /^(true|false|yes|no|on|off|null|y|n)$/i;

function scalar(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value) ?? "null";
  return BARE.test(value) && !WORDS.test(value) ? value : JSON.stringify(value);
}

function isBranch(value: unknown): value is object {
  return typeof value === "object" && value !== null && Object.keys(value).length > 0;
}

function leaf(value: unknown): string {
  if (Array.isArray(value)) return "[]";
  return typeof value === "object" && value !== null ? "{}" : scalar(value);
}

/** Lines of a value, each without its indentation for now. */
function lines(value: unknown): string[] {
  if (!isBranch(value)) return [leaf(value)];
  if (Array.isArray(value)) {
    if (value.every((item) => !isBranch(item)) && value.length <= 8) return [`[${value.map(leaf).join(", ")}]`];
    return value.flatMap((item) => lines(item).map((line, index) => (index === 0 ? `- ${line}` : `  ${line}`)));
  }
  return Object.entries(value).flatMap(([key, item]) => {
    const below = lines(item);
    const inline = !isBranch(item) || (Array.isArray(item) && below.length === 1 && below[0]?.startsWith("["));
    return inline ? [`${scalar(key)}: ${below[0]}`] : [`${scalar(key)}:`, ...below.map((line) => `  ${line}`)];
  });
}

export function yaml(value: unknown): string {
  return `${lines(value).join("\n")}\n`;
}
