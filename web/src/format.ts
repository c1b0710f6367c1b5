/** Figures and texts as people read them. Pure, but for the language that is passed in. */

const NONE = "–";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const RATE_UNITS = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];

/** Three significant digits, no exponent: 1.23, 12.3, 123. */
export function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95 || size === 0) return value.toFixed(0);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

function scaled(value: number, base: number, units: string[]): string {
  let scale = 0;
  let rest = value;
  while (Math.abs(rest) >= base * 0.9995 && scale < units.length - 1) {
    rest /= base;
    scale += 1;
  }
  return `${scale === 0 ? rest.toFixed(0) : digits(rest)} ${units[scale]}`;
}

/** Bytes in binary units. */
export function bytes(value: number | null | undefined): string {
  return value == null ? NONE : scaled(value, 1024, UNITS);
}

/** Bytes a second as bits a second in decimal units, as links are sold. */
export function rate(bytesPerSecond: number | null | undefined): string {
  return bytesPerSecond == null ? NONE : scaled(bytesPerSecond * 8, 1000, RATE_UNITS);
}

/** Milliseconds: 0.12 ms, 12.3 ms, 1.50 s. */
export function ms(value: number | null | undefined): string {
  if (value == null) return NONE;
  return value >= 1000 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
}

/** A share from 0 to 1 in percent. A loss that is small but there is not shown as 0. */
export function percent(share: number | null | undefined): string {
  if (share == null) return NONE;
  const value = share * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

/** A plain number, grouped. */
export function count(value: number | null | undefined, language: string): string {
  return value == null ? NONE : value.toLocaleString(language, { maximumFractionDigits: 1 });
}

/** A span of time in its two largest units: 850 ms, 4.2 s, 3 min 20 s, 5 h 02 min, 3 d 4 h. */
export function duration(millis: number): string {
  if (millis < 1000) return `${Math.max(0, Math.round(millis))} ms`;
  const seconds = millis / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  const two = (value: number) => String(value).padStart(2, "0");
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  return `${minutes} min ${two(whole % 60)} s`;
}

/** A moment in local time; with the day where that is not today. */
export function moment(at: number | string, language: string, now = Date.now()): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return NONE;
  const clock = date.toLocaleTimeString(language, { hour12: false });
  if (date.toDateString() === new Date(now).toDateString()) return clock;
  return `${date.toLocaleDateString(language, { year: "numeric", month: "2-digit", day: "2-digit" })} ${clock}`;
}

/** The same moment in UTC, for titles. */
export function utc(at: number | string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime())
    ? ""
    : date
        .toISOString()
        .replace("T", " ")
        .replace(/\.\d+Z$/, " UTC");
}

/** Text from elsewhere: control characters and those that turn the direction of writing are spelt out. */
export function shown(text: string): string {
  return text.replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (char) => `\\u{${char.charCodeAt(0).toString(16)}}`,
  );
}

/** The nodes of a route. */
export function routeText(path: readonly string[]): string {
  return path.map(shown).join(" → ");
}

/** Text for a canvas, whose labels take braces for markup. */
export function plain(text: string): string {
  return shown(text).replace(/\{/g, "❴").replace(/\}/g, "❵");
}
