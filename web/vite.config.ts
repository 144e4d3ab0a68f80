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
  // To work on the page beside a live agent: EVENKEEL_AGENT=https://198.18.0.1:8443 npx vite
  server: { proxy: { "/v1": { target: process.env.EVENKEEL_AGENT ?? "http://localhost:8080", secure: false } } },
});
