/** The example of README.md, as it stands there, against the real gateway. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Gateway, keep, SKIP, until } from './gateway.js';

test('the example of README.md works', { skip: SKIP, timeout: 180_000 }, async (t) => {
  const here = fileURLToPath(new URL('..', import.meta.url));
  const example = /```js\n(.*?)```/s.exec(readFileSync(`${here}/README.md`, 'utf8'))?.[1] ?? '';
  const address = 'ws://127.0.0.1:8080/ws';
  assert.ok(example.includes(address));
  const gateway = keep(t, await Gateway.start(['replay', '--loop', 'feeds/coinbase.zst']));
  // Where it stands decides what `tickfan-client` is.
  const folder = mkdtempSync(`${here}/build/example-`);
  const file = `${folder}/example.mjs`;
  writeFileSync(file, example.replace(address, gateway.ws));
  const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) child[name].on('data', (text) => (said[name] += text));
  await until('a trade and a quote', () => {
    assert.equal(child.exitCode, null, said.stderr);
    return (
      /^coinbase:BTC-USD [\d.]+ [\d.]+ (buy|sell)$/m.test(said.stdout) &&
      /^coinbase:ETH-USD [\d.]+ [\d.]+$/m.test(said.stdout)
    );
  });
  assert.match(said.stderr, /^connecting\nopen\n/);
  assert.doesNotMatch(said.stderr, /not as promised/);
});
