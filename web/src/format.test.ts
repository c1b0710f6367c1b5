import { describe, expect, it } from "vitest";
import { bytes, count, digits, duration, moment, ms, percent, plain, rate, shown, utc } from "./format";

describe("figures", () => {
  it("have three digits at most after which nobody looks", () => {
    expect(digits(1.234)).toBe("1.23");
    expect(digits(12.34)).toBe("12.3");
    expect(digits(99.96)).toBe("100");
    expect(digits(123.4)).toBe("123");
    expect(digits(0)).toBe("0");
  });
  it("of bytes are binary", () => {
    expect(bytes(0)).toBe("0 B");
    expect(bytes(1023)).toBe("1023 B");
    expect(bytes(1024)).toBe("1.00 KiB");
    expect(bytes(1024 * 1024 - 1)).toBe("1.00 MiB");
    expect(bytes(1024 * 1024)).toBe("1.00 MiB");
    expect(bytes(2.5 * 1024 ** 5)).toBe("2.50 PiB");
    expect(bytes(5000 * 1024 ** 5)).toBe("5000 PiB");
    expect(bytes(null)).toBe("–");
  });
  it("of rates are bits, decimal", () => {
    expect(rate(125)).toBe("1.00 kbit/s");
    expect(rate(12_500_000)).toBe("100 Mbit/s");
    expect(rate(undefined)).toBe("–");
  });
  it("of small losses are not nothing", () => {
    expect(percent(0)).toBe("0 %");
    expect(percent(0.0002)).toBe("< 0.1 %");
    expect(percent(0.012)).toBe("1.2 %");
    expect(percent(1)).toBe("100 %");
  });
  it("of time take the unit that fits", () => {
    expect(ms(0.123)).toBe("0.12 ms");
    expect(ms(1500)).toBe("1.50 s");
    expect(duration(-5)).toBe("0 ms");
    expect(duration(4200)).toBe("4.2 s");
    expect(duration(59_990)).toBe("1 min 00 s");
    expect(duration(3_599_600)).toBe("1 h 00 min");
    expect(duration(90_061_000)).toBe("1 d 1 h");
  });
  it("are grouped as the language does", () => {
    expect(count(12_345, "en")).toBe("12,345");
    expect(count(undefined, "en")).toBe("–");
  });
});

describe("moments", () => {
  const now = new Date(2026, 0, 2, 12, 0, 0);
  it("of today have no day", () => {
    expect(moment(new Date(2026, 0, 2, 9, 5, 1).getTime(), "en-GB", now.getTime())).toBe("09:05:01");
    expect(moment(new Date(2026, 0, 1, 9, 5, 1).getTime(), "en-GB", now.getTime())).toContain("01/01/2026");
  });
  it("are UTC in titles", () => expect(utc("2026-01-02T03:04:05.678Z")).toBe("2026-01-02 03:04:05 UTC"));
  it("that are none do no harm", () => {
    expect(moment("nonsense", "en")).toBe("–");
    expect(utc("nonsense")).toBe("");
  });
});

describe("text from elsewhere", () => {
  it("cannot turn the direction of writing or ring the bell", () => {
    expect(shown("a\u202eb\u0007c\u2066\u0000")).toBe("a\\u{202e}b\\u{7}c\\u{2066}\\u{0}");
    expect(shown("中文 é <b>\n\t")).toBe("中文 é <b>\n\t");
  });
  it("has no markup on a canvas", () => expect(plain("{a|b}")).toBe("❴a|b❵"));
});
