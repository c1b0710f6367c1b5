import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openapi, { astToString, COMMENT_HEADER } from "openapi-typescript";
import { expect, it } from "vitest";

const document = new URL("../../../docs/openapi.json", import.meta.url);

it.skipIf(!existsSync(document))(
  "the schema is that of the API's document: `npm run types` makes it anew",
  async () => {
    const made = COMMENT_HEADER + astToString(await openapi(document));
    const kept = readFileSync(fileURLToPath(new URL("./schema.d.ts", import.meta.url)), "utf8");
    expect(kept).toBe(made);
  },
);
