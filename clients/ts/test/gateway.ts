/** The real gateway, on free ports of this machine, and a road to it that can be cut or made narrow. */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Broken, Gap } from 'tickfan-client';

/** Longer than anything takes; only what is broken makes a test wait for it. */
const PATIENCE_MS = 60_000;
const TOKEN = 'token-of-the-tests';

/** The binary, or why these tests cannot run. */
export const BINARY = process.env['TICKFAN_BIN'] ?? '';
export const SKIP = BINARY === '' ? 'TICKFAN_BIN does not name the gateway: see README.md' : false;

export const repository = fileURLToPath(new URL('../../..', import.meta.url));

/** However slow the machine is, nobody is called slow or dead for that. */
export const PATIENT = [
  'session.outbox_bytes_max=67108864',
  'session.warn_behind_ms=1800000',
  'session.shed_behind_ms=3600000',
  'session.pong_timeout_ms=3600000',
];

/** The arguments that set these keys. */
export const settings = (keys: readonly string[]) => keys.flatMap((key) => ['--set', key]);

const kept = new WeakMap<TestContext, { close(): unknown }[]>();

/** Closes it when the test is over, however that comes; what was kept last is closed first. */
export function keep<T extends { close(): unknown }>(test: TestContext, it: T): T {
  const all = kept.get(test) ?? [];
  if (all.length === 0) {
    kept.set(test, all);
    test.after(async () => {
      for (const one of all.reverse()) await one.close();
    });
  }
  all.push(it);
  return it;
}

/** Waits until it is so. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Runs the binary to its end and gives what it printed. */
export function run(args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(BINARY, args, {
    cwd: repository,
    env: bare(),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`tickfan ${args.join(' ')}: ${status}\n${stderr}`);
  return stdout;
}

/** Nothing of the machine's own configuration. */
function bare(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TICKFAN_')));
}

/** What is left to do at the end, however it comes. */
const leftovers: (() => void)[] = [];
process.on('exit', () => leftovers.forEach((clear) => clear()));

/** A folder that goes with the process. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'tickfan-client-'));
  leftovers.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export class Gateway {
  private constructor(
    readonly process: ChildProcess,
    readonly ws: string,
    readonly admin: string,
    readonly publishAt: string | undefined,
  ) {}

  /** Starts it with these arguments and waits until it is ready. */
  static async start(args: readonly string[], listen = '127.0.0.1:0'): Promise<Gateway> {
    const child = spawn(BINARY, [...args, '--listen', listen, '--admin', '127.0.0.1:0'], {
      cwd: repository,
      env: bare(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    leftovers.push(() => child.kill('SIGKILL'));
    let said = '';
    child.stderr.on('data', (text) => (said += text));
    const ready = await new Promise<string>((resolve, reject) => {
      createInterface(child.stdout).once('line', resolve);
      child.once('exit', (code) => reject(new Error(`the gateway ended: ${code}\n${said}`)));
      child.once('error', reject);
    });
    const words = new Map(ready.split(' ').map((word) => [word.split('=')[0], word.slice(word.indexOf('=') + 1)]));
    return new Gateway(child, words.get('ws') ?? '', words.get('admin') ?? '', words.get('publish'));
  }

  /** Without feeds, for what a test publishes itself. */
  static publishing(keys: readonly string[] = PATIENT, listen?: string): Promise<Gateway> {
    const config = join(folder(), 'publish.toml');
    writeFileSync(config, `[publish]\nlisten = "127.0.0.1:0"\ntoken = "${TOKEN}"\nvenues = ["demo"]\n`);
    return Gateway.start(['serve', '--config', config, ...settings(keys)], listen);
  }

  /** Where clients connect. */
  get address(): string {
    return new URL(this.ws).host;
  }

  /** The sum of a metric. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    const rows = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return rows.reduce((sum, row) => sum + Number(row.slice(row.lastIndexOf(' ') + 1)), 0);
  }

  async publisher(): Promise<Publisher> {
    const { hostname, port } = new URL(`tcp://${this.publishAt}`);
    const socket = connectTcp(Number(port), hostname);
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    socket.on('error', () => {});
    socket.resume();
    socket.write(`${JSON.stringify({ op: 'auth', token: TOKEN })}\n`);
    return new Publisher(socket);
  }

  /** Stops it and waits until it is gone. */
  async stop(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.kill('SIGTERM');
    await gone;
  }

  /** The end of a test: nobody waits for goodbyes. */
  async close(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.stop();
  }
}

export class Publisher {
  constructor(readonly socket: Socket) {}

  /** Publishes trades and quotes of these symbols, one of each a round. */
  ticks(symbols: readonly string[], rounds: number): void {
    for (let i = 0; i < rounds; i++) {
      for (const symbol of symbols) {
        this.#line({ type: 'trade', symbol, price: '1.25', size: '3' });
        this.#line({ type: 'quote', symbol, bid: '1.24', ask: `1.${26 + (i % 50)}` });
      }
    }
  }

  /** Trades of a symbol that has a long name, to have many bytes of them. */
  trades(symbol: string, count: number): void {
    const line = `${JSON.stringify({ type: 'trade', symbol, price: '1.25', size: '3' })}\n`;
    this.socket.write(line.repeat(count));
  }

  #line(tick: object): void {
    this.socket.write(`${JSON.stringify(tick)}\n`);
  }

  close(): void {
    this.socket.destroy();
  }
}

/**
 * Publishes trades of this symbol from another process until the gateway sheds a client; this one stands still meanwhile.
 *
 * @returns how many.
 */
export function publishUntilShed({ admin, publishAt }: Gateway, symbol: string): number {
  const script = `
    import { connect } from 'node:net';
    const [admin, port, first, line] = process.argv.slice(1);
    const socket = connect(Number(port), '127.0.0.1').resume();
    const write = (text) => new Promise((resolve, reject) => socket.write(text, (error) => (error ? reject(error) : resolve())));
    const metric = async (name) => Number(new RegExp('^' + name + '(?:{.*})? ([0-9]+)$', 'm').exec(await (await fetch(admin + '/metrics')).text())[1]);
    await write(first);
    let count = 0;
    const before = await metric('tickfan_published_total');
    do {
      await write(line.repeat(500));
      count += 500;
      while ((await metric('tickfan_published_total')) < before + count);
    } while ((await metric('tickfan_sheds_total')) === 0);
    console.log(count);
    socket.end();`;
  const auth = `${JSON.stringify({ op: 'auth', token: TOKEN })}\n`;
  const line = `${JSON.stringify({ type: 'trade', symbol, price: '1.25', size: '3' })}\n`;
  const port = new URL(`tcp://${publishAt}`).port;
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', script, admin, port, auth, line],
    {
      encoding: 'utf8',
      timeout: PATIENCE_MS,
    },
  );
  if (status !== 0) throw new Error(`publishing: ${status}\n${stderr}`);
  return Number(stdout);
}

/** A road to the gateway that can be cut, made narrow, and held up. */
export class Proxy {
  readonly #server: Server;
  readonly #pairs = new Set<Socket>();
  target: string;
  /** Bytes a second that a client gets at most. */
  bytesPerSecond = Infinity;
  /** Nothing goes either way until it is let go. */
  #held: { readonly until: Promise<void>; readonly release: () => void } | undefined;

  private constructor(server: Server, target: string) {
    this.#server = server;
    this.target = target;
    server.on('connection', (client) => this.#join(client));
  }

  static async to(target: string): Promise<Proxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Proxy(server, target);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  #join(client: Socket): void {
    const { hostname, port } = new URL(`tcp://${this.target}`);
    const gateway = connectTcp(Number(port), hostname);
    for (const [one, other] of [
      [client, gateway],
      [gateway, client],
    ] as const) {
      this.#pairs.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        this.#pairs.delete(one);
        other.destroy();
      });
    }
    // Whoever was cut off has been told by `close`.
    void this.#carry(client, gateway, () => Infinity).catch(() => {});
    void this.#carry(gateway, client, () => this.bytesPerSecond).catch(() => {});
  }

  async #carry(from: Socket, to: Socket, bytesPerSecond: () => number): Promise<void> {
    for await (const data of from as AsyncIterable<Buffer>) {
      for (let at = 0; at < data.length; ) {
        await this.#held?.until;
        const slice = data.subarray(at, at + Math.max(1, bytesPerSecond() / 20));
        at += slice.length;
        if (!to.write(slice)) await once(to, 'drain');
        if (bytesPerSecond() < Infinity) await sleep(50);
      }
    }
    to.end();
  }

  /** Holds up whatever is on it, as a cable does that is pulled: nobody is told. */
  hold(): void {
    let release = () => {};
    const until = new Promise<void>((resolve) => (release = resolve));
    this.#held ??= { until, release };
  }

  /** Lets it go on. */
  release(): void {
    this.#held?.release();
    this.#held = undefined;
  }

  /** Cuts every connection, without a word. */
  cut(): void {
    for (const socket of this.#pairs) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    this.release();
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** What a client told of what went wrong or missing. */
export class Complaints {
  readonly gaps: Gap[] = [];
  readonly broken: Broken[] = [];
  readonly errors: unknown[] = [];

  get hooks() {
    return {
      onGap: (gap: Gap) => void this.gaps.push(gap),
      onBroken: (broken: Broken) => void this.broken.push(broken),
      onError: (error: unknown) => void this.errors.push(error),
    };
  }
}
