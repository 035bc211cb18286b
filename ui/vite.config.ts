import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

export default defineConfig({
  // Straight from its source: the page is built with one command.
  resolve: { alias: { 'tickfan-client': fileURLToPath(new URL('../clients/ts/src/index.ts', import.meta.url)) } },
  build: {
    target: 'es2022',
    // The gateway's policy allows files of its own, and nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/ws': { target: 'ws://127.0.0.1:8080', ws: true } } },
});
