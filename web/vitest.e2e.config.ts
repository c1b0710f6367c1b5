import { defineConfig } from "vitest/config";

// One browser at a time: the figures of smoothness are worth nothing otherwise.
export default defineConfig({
  test: {
    include: ["e2e/**/*.test.ts"],
    environment: "node",
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
