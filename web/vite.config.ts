import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { constants, gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** Text below this size goes into one packet anyway. */
const WORTH_COMPRESSING = 1024;

/** Lays a `.gz` beside each text file, so that a node never compresses anything itself. */
function gzip(): Plugin {
  let dir = "dist";
  return {
    name: "gzip",
    apply: "build",
    configResolved(config) {
      dir = config.build.outDir;
    },
    closeBundle() {
      for (const name of readdirSync(dir, { recursive: true, encoding: "utf8" })) {
        if (!/\.(html|js|css|svg|json)$/.test(name)) continue;
        const bytes = readFileSync(join(dir, name));
        if (bytes.length < WORTH_COMPRESSING) continue;
        writeFileSync(join(dir, `${name}.gz`), gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION }));
      }
    },
  };
}

export default defineConfig({
  plugins: [gzip()],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    // The policy of the page lets no data: address in but images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        manualChunks: (id) => (/node_modules\/(echarts|zrender|tslib)\//.test(id) ? "charts" : undefined),
      },
    },
  },
  server: {
    // `npm run dev` beside a node, or beside `npm run mock`.
    proxy: { "/api": process.env.FFMESH_ADMIN ?? "http://127.0.0.1:9464" },
  },
});
