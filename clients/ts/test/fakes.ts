/** Time that a test moves by hand, and sockets whose other end is the test. */

import type { Clock, ConnectOptions, LinkEvent, SocketLike } from 'tickfan-client';
import { Client } from 'tickfan-client';

export class ManualClock implements Clock {
  #now = 1_714_564_800_000;
  #setMs = 0;
  #timers: { at: number; callback: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now + this.#setMs;
  }

  /** Somebody sets the machine's clock; or it sleeps, and the even clock with it. */
  setWall(byMs: number): void {
    this.#setMs += byMs;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer = { at: this.#now + ms, callback };
    this.#timers.push(timer);
    return timer;
  }

  clearTimeout(timer: unknown): void {
    this.#timers = this.#timers.filter((other) => other !== timer);
  }

  /** How many timers run. */
  get running(): number {
    return this.#timers.length;
  }

  /** Lets so much time pass, timer by timer. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#now = Math.max(this.#now, next.at);
      this.clearTimeout(next);
      next.callback();
      await settled();
    }
    this.#now = end;
    await settled();
  }

  /** The program stands still: time passes, and no timer fires before it goes on. */
  async stall(ms: number): Promise<void> {
    this.#now += ms;
    await this.pass(0);
  }
}

/** Lets promises settle. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The end of a connection that the client holds. */
export class FakeSocket implements SocketLike {
  binaryType = 'blob';
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: unknown) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  readonly sent: Record<string, any>[] = [];
  closedWith: number | undefined;
  readonly #seen = new Set<unknown>();

  constructor(
    readonly url: string,
    readonly protocols: unknown,
  ) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(code?: number): void {
    this.closedWith = code ?? 1005;
  }

  /** The gateway says this. */
  say(message: unknown): void {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
  }

  sayBytes(data: ArrayBuffer): void {
    this.onmessage?.({ data });
  }

  hello(epoch = 'e1', limits = {}): void {
    this.say({
      ...{ type: 'hello', v: 1, session: 's', epoch, feed: 'replay', time: 1_714_564_800_000_000, heartbeat_ms: 5000 },
      limits: { symbols: 1000, frame_bytes: 65_536, ops_per_s: 50, ...limits },
    });
  }

  /** The connection ends with this code. */
  end(code = 1006, reason = ''): void {
    this.onclose?.({ code, reason });
  }

  /** The oldest request with this op that was not taken yet. */
  request(op: string): Record<string, any> {
    const found = this.sent.find((request) => request['op'] === op && !this.#seen.has(request));
    if (found === undefined) throw new Error(`no ${op} in ${JSON.stringify(this.sent)}`);
    this.#seen.add(found);
    return found;
  }

  /** Answers the oldest ping that was not answered yet, by the gateway's clock. */
  pong(gatewayMs = 1_714_564_800_000): void {
    const us = Math.round(gatewayMs * 1000);
    this.say({ type: 'pong', id: this.request('ping')['id'], in: us, out: us });
  }

  /** Pings that were not answered yet. */
  get pings(): number {
    return this.sent.filter((request) => request['op'] === 'ping' && !this.#seen.has(request)).length;
  }

  /** True if there is no request but pings that was not taken yet. */
  get isQuiet(): boolean {
    return this.sent.every((request) => request['op'] === 'ping' || this.#seen.has(request));
  }

  /** Accepts the oldest subscribe. */
  async accept(more: Record<string, unknown> = {}): Promise<Record<string, any>> {
    const request = this.request('subscribe');
    const row = (symbol: string) => ({
      symbol,
      channel: request['channel'],
      mode: request['mode'],
      state: 'live',
      ...more,
    });
    const ok = (request['symbols'] as string[]).map(row);
    this.say({ type: 'ack', id: request['id'], op: 'subscribe', channel: request['channel'], ok, rejected: [] });
    await settled();
    return request;
  }
}

/** A client with everything in the test's hands. */
export class Bench {
  readonly clock = new ManualClock();
  readonly sockets: FakeSocket[] = [];
  readonly links: LinkEvent[] = [];
  readonly heard: Record<'gap' | 'broken' | 'status' | 'lag' | 'rejected' | 'unknown' | 'error' | 'delivery', any[]> = {
    ...{ gap: [], broken: [], status: [], lag: [], delivery: [], rejected: [], unknown: [], error: [] },
  };
  chance = 0.5;
  readonly client: Client;

  constructor(options: ConnectOptions = {}) {
    const { sockets, heard } = this;
    class Socket extends FakeSocket {
      constructor(url: string, protocols: unknown) {
        super(url, protocols);
        sockets.push(this);
      }
    }
    this.client = new Client('ws://gateway/ws', {
      WebSocket: Socket,
      clock: this.clock,
      random: () => this.chance,
      onLink: (event) => this.links.push(event),
      onGap: (gap) => heard.gap.push(gap),
      onBroken: (broken) => heard.broken.push(broken),
      onStatus: (status) => heard.status.push(status),
      onLag: (lag) => heard.lag.push(lag),
      onDelivery: (delivery) => heard.delivery.push(delivery.why ?? 'prompt'),
      onRejected: (rejected) => heard.rejected.push(rejected),
      onUnknown: (message) => heard.unknown.push(message),
      onError: (error) => heard.error.push(error),
      ...options,
    });
  }

  /** The newest socket. */
  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error('there was no connection yet');
    return socket;
  }

  /** The states of the link so far. */
  get states(): string[] {
    return this.links.map(({ state }) => state);
  }

  /** Lets the client connect, and says hello. */
  async open(epoch = 'e1', limits = {}): Promise<FakeSocket> {
    await this.clock.pass(0);
    this.socket.hello(epoch, limits);
    await settled();
    return this.socket;
  }

  /** Loses the connection, and lets the client come back to this epoch. */
  async reopen(epoch = 'e1', limits = {}): Promise<FakeSocket> {
    this.socket.end();
    await this.waitOut();
    this.socket.hello(epoch, limits);
    await settled();
    return this.socket;
  }

  /** Lets the time pass that the client waits for before it comes back. */
  async waitOut(): Promise<void> {
    const last = this.links.at(-1);
    if (last?.state === 'lost') await this.clock.pass(last.retryInMs);
  }

  /** Ends it, and makes sure that nothing runs on. */
  async end(): Promise<void> {
    const closed = this.client.close();
    this.sockets.at(-1)?.end(1000);
    await this.clock.pass(0);
    await closed;
    if (this.clock.running > 0) throw new Error(`${this.clock.running} timers run on`);
  }
}

const TIMES = { rx: 1_714_564_800_000_000, tx: 1_714_564_800_000_010 };

export function trade(symbol: string, seq: number, more: Record<string, unknown> = {}) {
  return { type: 'trade', symbol, seq, price: '1.25', size: '3', ...TIMES, ...more };
}

export function quote(symbol: string, seq: number, more: Record<string, unknown> = {}) {
  return { type: 'quote', symbol, seq, bid: '1.24', ask: '1.26', ...TIMES, ...more };
}
