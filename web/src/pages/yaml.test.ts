import { describe, expect, it } from "vitest";
import { yaml } from "./yaml";

describe("yaml", () => {
  it("reads as the file is written", () => {
    expect(yaml({ node_id: "a", proxies: [{ name: "web", local_port: 80 }], access: [], log: { level: "info" } })).toBe(
      "node_id: a\nproxies:\n  - name: web\n    local_port: 80\naccess: []\nlog:\n  level: info\n",
    );
  });
  it("quotes what would be read as something else", () => {
    expect(yaml({ a: "no", b: "10", c: "x: y", d: "# z", e: null, f: true, g: "line\nbreak", "h: i": 1 })).toBe(
      'a: "no"\nb: "10"\nc: "x: y"\nd: "# z"\ne: null\nf: true\ng: "line\\nbreak"\n"h: i": 1\n',
    );
  });
  it("writes short lists in one line and nested ones in several", () => {
    expect(yaml({ allow: ["group:dev", "node:a"] })).toBe('allow: ["group:dev", "node:a"]\n');
    expect(yaml([[1, 2], { a: [{ b: {} }] }])).toBe("- [1, 2]\n- a:\n    - b: {}\n");
  });
});
