/**
 * One connection from start to end: the handshake, detection of silence, requests with their answers, and the round
 * trips that determine the gateway's time. It ends once, with a reason, and leaves no timers.
 */

import { DeliveryWatch, type Delivery } from './delivery.js';
import type { Broken } from './ledger.js';
import {
  read,
  type Ack,
  type Bye,
  type ClockStep,
  type Gap,
  type Heartbeat,
  type Hello,
  type Joined,
  type Lag,
  type Pong,
  type Quote,
  type Refusal,
  type Replay,
  type Request,
  type Status,
  type Trade,
  type UnknownMessage,
} from './messages.js';
import { OffsetWindow, Timers, type Clock } from './timing.js';

/** The required part of the browsers' `WebSocket`. */
export interface SocketLike {
  binaryType: string;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  /** Ends the connection without a closing handshake, if supported. */
  terminate?(): void;
  /** Time that the current message has waited for this program, milliseconds, if known. */
  readonly waitedMs?: number;
}

/** A class with the interface of the browsers' `WebSocket`. */
export type SocketConstructor = new (url: string, protocols?: string | string[]) => SocketLike;

/** Options of a link. */
export interface LinkSetup {
  readonly url: string;
  readonly WebSocket: SocketConstructor;
  readonly clock: Clock;
  /** Time limit for the handshake and the hello, milliseconds. */
  readonly openMs: number;
  /** Time limit for an answer, milliseconds. */
  readonly answerMs: number;
  /** Heartbeat intervals of silence after which a link is considered lost. */
  readonly heartbeats: number;
  /** Milliseconds between two pings. */
  readonly pingMs: number;
  /** Age from which on data is late, milliseconds. */
  readonly lateMs: number;
  /** Longest message, UTF-16 units. */
  readonly messageMax: number;
  /** Most requests without an answer. */
  readonly requestsMax: number;
}

/** Why a link ended. */
export interface LinkEnd {
  /** The close code; 1006 if the connection ended without one. */
  readonly code: number;
  readonly why: string;
  /** The preceding `bye` of the gateway, if any. */
  readonly bye: Bye | undefined;
}

/** Callbacks of a link. None of them may throw. */
export interface LinkListener {
  opened(hello: Hello): void;
  message(message: Trade | Quote | Gap | Status | Heartbeat | Lag | Replay): void;
  broken(broken: Broken): void;
  unknown(message: UnknownMessage): void;
  /** Data has become late, or is no longer late, or for another reason. */
  delivery(delivery: Delivery): void;
  ended(end: LinkEnd): void;
}

/** A failed request. */
export class RequestError extends Error {
  override readonly name = 'RequestError';

  /** @param code the gateway's, or `lost`, `closed`, `timeout`, `too_many`. */
  constructor(
    readonly code: string,
    message: string,
    /** Whether the same request may succeed later. */
    readonly retry: boolean,
    /** Delay before a retry is useful, milliseconds, if the gateway sends it. */
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

/** A request without an answer. */
interface Pending {
  readonly op: Request['op'];
  readonly settle: (answer: Ack | Pong) => void;
  readonly fail: (error: RequestError) => void;
  readonly stop: () => void;
}

/** Number of round trips that are evaluated: a minute of them. */
const WINDOW = 60;
/** Most pings without an answer: if answers are late, more pings make them later. */
const PINGS_MAX = 4;
/** Milliseconds between the first two pings; the interval doubles up to the configured one. */
const FIRST_PING_MS = 250;
/** Time limit for the closing handshake, milliseconds. */
const GOODBYE_MS = 1000;

export class Link {
  readonly #setup: LinkSetup;
  readonly #listener: LinkListener;
  readonly #timers: Timers;
  readonly #pending = new Map<number, Pending>();
  readonly #window = new OffsetWindow(WINDOW);
  #socket: SocketLike | undefined;
  #hello: Hello | undefined;
  #bye: Bye | undefined;
  #ended = false;
  #lastId = 0;
  #heard = 0;
  #trouble = '';
  #stopOpening: () => void = () => {};
  readonly #watched: DeliveryWatch;
  #told: Delivery['why'] = 'new';
  #pings = 0;
  #pingedMs = 0;
  #pingMs: number;
  /** Milliseconds until the next ping while one may end a lateness. */
  #soonMs: number;
  #pingWaitMs = FIRST_PING_MS;
  #isTimed = false;

  constructor(setup: LinkSetup, listener: LinkListener) {
    this.#setup = setup;
    this.#listener = listener;
    this.#timers = new Timers(setup.clock);
    this.#pingMs = setup.pingMs;
    this.#soonMs = setup.pingMs / 4;
    this.#watched = new DeliveryWatch(setup.clock, setup.lateMs, setup.pingMs);
    this.#stopOpening = this.#timers.after(setup.openMs, () => this.#abort('no hello came in time'));
    try {
      this.#socket = this.#open();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      // Asynchronously, because the caller does not have this link yet.
      this.#timers.stop();
      this.#timers.after(0, () => this.#end(1006, why));
    }
  }

  /** The first message of the gateway; undefined before. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** Offset of the gateway's clock from the local one. */
  get offset() {
    return this.#window.best;
  }

  /** Whether received data is current. */
  get delivery(): Delivery {
    return this.#watched.check();
  }

  /** Everything that the gateway had to send at this local time has been processed. */
  get provenMs(): number {
    return this.#watched.provenMs;
  }

  /** Records how long the gateway took to encode a tick after its receipt. */
  tickTook(ms: number): void {
    this.#watched.told(ms);
  }

  #open(): SocketLike {
    const { WebSocket, url } = this.#setup;
    const socket = new WebSocket(url, ['tickfan.v1']);
    socket.binaryType = 'arraybuffer';
    socket.onmessage = (event: { data: unknown }) => this.#frame(event.data);
    socket.onerror = (event: { message?: unknown }) => {
      if (typeof event.message === 'string') this.#trouble = event.message;
    };
    socket.onclose = ({ code, reason }: { code?: number; reason?: string }) => {
      this.#end(code ?? 1006, reason || this.#bye?.why || this.#trouble || 'the connection was lost');
    };
    return socket;
  }

  /** Sends a request. `settle` is called before the next message is processed, which a promise could not guarantee. */
  ask(request: Request, settle: Pending['settle'], fail: Pending['fail']): void {
    if (this.#ended || this.#hello === undefined || this.#socket === undefined) {
      fail(new RequestError('lost', 'there is no connection', true));
      return;
    }
    if (this.#pending.size >= this.#setup.requestsMax) {
      fail(new RequestError('too_many', `${this.#pending.size} requests wait for their answers`, true));
      return;
    }
    this.#lastId += 1;
    const id = this.#lastId;
    const stop = this.#timers.after(this.#setup.answerMs, () => {
      this.#pending.delete(id);
      fail(new RequestError('timeout', `no answer to ${request.op} in ${this.#setup.answerMs} ms`, true));
    });
    this.#pending.set(id, { op: request.op, settle, fail, stop });
    try {
      this.#socket.send(JSON.stringify({ ...request, id }));
    } catch {
      // The socket is closing; its end fails the request.
    }
  }

  /** Measures a round trip. */
  ping(settle: (rtt_us: number) => void, fail: Pending['fail']): void {
    const us = (ms: number) => Math.round(ms * 1000);
    const sent = this.#watched.moment();
    this.ask(
      { op: 'ping' },
      (pong) => {
        if (pong.type !== 'pong') return;
        const { rtt_us } = this.#window.add(us(sent.ms), pong.in, pong.out, us(this.#setup.clock.now()));
        this.#watched.answered(sent);
        settle(rtt_us);
        this.#tellDelivery();
      },
      (error) => {
        // An error proves nothing: it overtakes what the gateway has not read of its feed.
        fail(error);
        this.#tellDelivery();
      },
    );
  }

  /** Closes the connection. `ended` is called after the closing handshake, or after its time limit. */
  close(): void {
    if (this.#ended) return;
    this.#timers.stop();
    this.#timers.after(GOODBYE_MS, () => this.#abort('closed', 1000));
    try {
      this.#socket?.close(1000);
    } catch {
      this.#abort('closed', 1000);
    }
  }

  /** Aborts the connection. */
  fail(why: string): void {
    this.#abort(why);
  }

  #abort(why: string, code = 1006): void {
    const socket = this.#socket;
    this.#end(code, why);
    if (socket === undefined) return;
    try {
      if (socket.terminate) socket.terminate();
      else socket.close();
    } catch {
      // It was already closed.
    }
  }

  #end(code: number, why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timers.stop();
    const socket = this.#socket;
    if (socket !== undefined) {
      socket.onmessage = socket.onclose = null;
      // `ws` throws errors without a listener.
      socket.onerror = () => {};
    }
    for (const [, { fail, stop }] of this.#pending) {
      stop();
      fail(new RequestError('lost', `the connection was lost: ${why}`, true));
    }
    this.#pending.clear();
    this.#listener.ended({ code, why, bye: this.#bye });
  }

  #frame(data: unknown): void {
    if (this.#ended) return;
    const now = this.#setup.clock.now();
    this.#heard = now;
    this.#watched.heard(now, this.#socket?.waitedMs ?? 0);
    this.#read(data);
    // A browser delays the timers of a hidden page by up to a minute.
    if (this.#hello !== undefined && now - this.#pingedMs >= this.#pingMs) this.#ping();
  }

  #read(data: unknown): void {
    if (typeof data !== 'string') {
      this.#listener.broken({ kind: 'binary', message: 'a binary message' });
      return;
    }
    if (data.length > this.#setup.messageMax) {
      this.#listener.broken({ kind: 'too_big', message: `a message of ${data.length} characters` });
      return;
    }
    const reading = read(data);
    if (reading.kind === 'bad') {
      this.#listener.broken({ kind: 'unreadable', message: `${reading.what}: ${data.slice(0, 200)}` });
    } else if (reading.kind === 'unknown') {
      this.#listener.unknown(reading.message);
    } else if (reading.message.type === 'hello') {
      this.#greeted(reading.message);
    } else if (this.#hello === undefined && reading.message.type !== 'bye') {
      this.#listener.broken({ kind: 'unreadable', message: `${reading.message.type} before hello` });
    } else {
      this.#known(reading.message);
    }
  }

  #greeted(hello: Hello): void {
    if (this.#hello !== undefined) {
      this.#listener.broken({ kind: 'unreadable', message: 'a second hello' });
      return;
    }
    this.#hello = hello;
    this.#stopOpening();
    this.#watch(Math.max(hello.heartbeat_ms, 1));
    // If the gateway allows few requests per second, half of them are left for others.
    const leastMs = 2000 / hello.limits.ops_per_s;
    this.#pingMs = Math.max(this.#setup.pingMs, leastMs);
    this.#soonMs = Math.max(this.#setup.pingMs / 4, leastMs);
    this.#listener.opened(hello);
    // After the requests made by the callback, so that the answer proves that the snapshots have arrived.
    this.#measure();
  }

  #known(message: Trade | Quote | Gap | Status | Joined | Heartbeat | ClockStep | Lag | Replay | Bye | Ack | Pong | Refusal): void {
    switch (message.type) {
      case 'bye':
        this.#bye = message;
        return;
      case 'ack':
      case 'pong':
      case 'error':
        this.#answer(message);
        return;
      case 'joined':
        // It ends a catch-up, which this client never requests.
        return;
      case 'clock_step':
        // Each ping determines the offset of the gateway's clock anew.
        return;
      case 'lag':
        this.#watched.level(message.level);
        this.#listener.message(message);
        this.#tellDelivery();
        return;
      default:
        this.#listener.message(message);
    }
  }

  #answer(answer: Ack | Pong | Refusal): void {
    const pending = typeof answer.id === 'number' ? this.#pending.get(answer.id) : undefined;
    const fits = answer.type === 'error' || (answer.type === 'pong' ? 'ping' : answer.op) === pending?.op;
    if (pending === undefined || !fits) {
      const what = answer.type === 'error' ? `: ${answer.msg}` : '';
      this.#listener.broken({ kind: 'answer', message: `${answer.type} answers no request${what}` });
      return;
    }
    this.#pending.delete(answer.id as number);
    pending.stop();
    if (answer.type === 'error') {
      pending.fail(new RequestError(answer.code, answer.msg, answer.retry, answer.retry_after_ms));
    } else {
      pending.settle(answer);
    }
  }

  /** Checks for silence twice per heartbeat interval. */
  #watch(heartbeatMs: number): void {
    const { clock, heartbeats } = this.#setup;
    const period = Math.max(heartbeatMs / 2, 50);
    const due = clock.now() + period;
    this.#timers.after(period, () => {
      const now = clock.now();
      // This program was blocked, not the link: messages that arrived meanwhile are not read yet.
      if (now - due > period) this.#heard = now;
      if (now - this.#heard > heartbeatMs * heartbeats)
        this.#abort(`nothing was heard for ${Math.round(now - this.#heard)} ms`);
      else this.#watch(heartbeatMs);
    });
  }

  #measure(): void {
    if (this.#ended) return;
    // Frequent at first: while a page is loading, round trips are long.
    const waitMs = Math.min(this.#pingWaitMs, this.#pingMs);
    this.#pingWaitMs *= 2;
    this.#watched.expect(this.#setup.clock.now() + waitMs);
    this.#timers.after(waitMs, () => this.#measure());
    this.#ping();
    this.#tellDelivery();
  }

  #ping(): void {
    if (this.#ended || this.#pings >= PINGS_MAX) return;
    this.#pings += 1;
    this.#pingedMs = this.#setup.clock.now();
    const done = () => {
      this.#pings -= 1;
    };
    this.ping(done, done);
  }

  /** Reports changes, and checks again when data becomes late. */
  #tellDelivery(): void {
    if (this.#ended) return;
    const delivery = this.#watched.check();
    if (delivery.why !== this.#told) {
      this.#told = delivery.why;
      this.#listener.delivery(delivery);
    }
    const { isLate, why, behindMs } = delivery;
    const { lateMs } = this.#setup;
    // The lateness ends with an answer, so that a ping is sent soon.
    const isNearlyOver = isLate && why !== 'shed' && behindMs <= lateMs;
    if ((isLate && !isNearlyOver) || this.#isTimed || this.#ended) return;
    this.#isTimed = true;
    // A timer may fire slightly early.
    this.#timers.after(isNearlyOver ? this.#soonMs : lateMs - behindMs + 1, () => {
      if (isNearlyOver) this.#ping();
      this.#isTimed = false;
      this.#tellDelivery();
    });
  }
}
