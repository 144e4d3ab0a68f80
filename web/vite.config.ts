// One script, one style sheet, no source that is loaded from elsewhere.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    outDir: "dist/site",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
  },
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  server: { proxy: { "/v1": process.env.EVENKEEL_AGENT ?? "http://localhost:8080" } },
});
