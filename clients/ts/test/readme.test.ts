/** README.md as it stands there: a project that is not ours installs the package, and its example runs, against the real gateway. */

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { folder, Gateway, keep, repository, SKIP, until } from './gateway.js';

const README = readFileSync(fileURLToPath(new URL('../README.md', import.meta.url)), 'utf8');

/** The first block of this language. */
function block(language: string): string {
  const found = new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 's').exec(README)?.[1];
  assert.ok(found !== undefined, language);
  return found;
}

/** A clone has what is in git: nothing that was installed or built. */
function clone(to: string): void {
  const made = ['node_modules', 'dist', 'build'];
  cpSync(join(repository, 'clients/ts'), join(to, 'clients/ts'), { recursive: true, filter: (path) => !made.includes(basename(path)) });
}

/** Runs the lines of the block as somebody who types them. What was fetched once is not fetched again. */
function type(lines: string, cwd: string): void {
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_|INIT_CWD$)/.test(name));
  const env = { ...Object.fromEntries(own), npm_config_prefer_offline: 'true' };
  const { status, stdout, stderr } = spawnSync('sh', ['-e', '-c', lines], { cwd, env, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

test('README.md: the package is installed by another project, and its example works', { skip: SKIP, timeout: 300_000 }, async (t) => {
  const project = folder();
  clone(join(project, 'tickfan'));
  type(block('sh'), project);
  // It is no link into the clone, and brings its types.
  const installed = createRequire(join(project, 'any.js')).resolve('tickfan-client');
  assert.equal(installed, join(realpathSync(project), 'node_modules/tickfan-client/dist/node.js'));
  assert.match(readFileSync(installed.replace('node.js', 'index.d.ts'), 'utf8'), /export \{ Client, connect \}/);

  const example = block('js');
  const address = 'ws://127.0.0.1:8080/ws';
  assert.ok(example.includes(address) && example.includes("from 'tickfan-client'"));
  const gateway = keep(t, await Gateway.start(['replay', '--loop', 'feeds/coinbase.zst']));
  const file = join(project, 'example.mjs');
  writeFileSync(file, example.replace(address, gateway.ws));
  const child = spawn(process.execPath, [file], { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] });
  keep(t, { close: () => child.kill('SIGKILL') });
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
