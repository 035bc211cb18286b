/**
 * One connection from its beginning to its end: the handshake, the watch over its silence, requests and their answers,
 * and the round trips that tell the gateway's time. It ends once, says why, and leaves no timer behind.
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

/** As much of the browsers' `WebSocket` as is needed. */
export interface SocketLike {
  binaryType: string;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  /** Ends it without a goodbye, where there is such a thing. */
  terminate?(): void;
  /** For how many milliseconds the message that is handed over had waited for this program, where that is known. */
  readonly waitedMs?: number;
}

/** A class like the browsers' `WebSocket`. */
export type SocketConstructor = new (url: string, protocols?: string | string[]) => SocketLike;

/** What a link needs. */
export interface LinkSetup {
  readonly url: string;
  readonly WebSocket: SocketConstructor;
  readonly clock: Clock;
  /** Milliseconds for the handshake and the hello. */
  readonly openMs: number;
  /** Milliseconds for an answer. */
  readonly answerMs: number;
  /** Heartbeats of silence after which a link counts as lost. */
  readonly heartbeats: number;
  /** Milliseconds between two pings. */
  readonly pingMs: number;
  /** Milliseconds after which what was told is late. */
  readonly lateMs: number;
  /** The longest message, UTF-16 units. */
  readonly messageMax: number;
  /** Requests that wait for their answers, at most. */
  readonly requestsMax: number;
}

/** Why a link ended. */
export interface LinkEnd {
  /** The close code; 1006 where the connection ended without one. */
  readonly code: number;
  readonly why: string;
  /** What the gateway said before. */
  readonly bye: Bye | undefined;
}

/** Who listens to a link. None of these may throw. */
export interface LinkListener {
  opened(hello: Hello): void;
  message(message: Trade | Quote | Gap | Status | Heartbeat | Lag | Replay): void;
  broken(broken: Broken): void;
  unknown(message: UnknownMessage): void;
  /** What was told has become late, or is not any more, or for another reason. */
  delivery(delivery: Delivery): void;
  ended(end: LinkEnd): void;
}

/** A request that could not be carried out. */
export class RequestError extends Error {
  override readonly name = 'RequestError';

  /** @param code the gateway's, or `lost`, `closed`, `timeout`, `too_many`. */
  constructor(
    readonly code: string,
    message: string,
    /** Whether the same request may succeed later. */
    readonly retry: boolean,
    /** How long it is of no use before, if the gateway sends it, milliseconds. */
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

/** What becomes of a request. */
interface Pending {
  readonly op: Request['op'];
  readonly settle: (answer: Ack | Pong) => void;
  readonly fail: (error: RequestError) => void;
  readonly stop: () => void;
}

/** Round trips that are looked at: a minute of them. */
const WINDOW = 60;
/** Pings that may wait for their answers: where answers are late, more questions make them later. */
const PINGS_MAX = 4;
/** Milliseconds between the first two pings; the wait doubles up to the usual one. */
const FIRST_PING_MS = 250;
/** Milliseconds that a goodbye may take. */
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
  /** Milliseconds to the next ping where it ends a lateness. */
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
      // Whoever made this link does not have it yet.
      this.#timers.stop();
      this.#timers.after(0, () => this.#end(1006, why));
    }
  }

  /** What the gateway said first; undefined before. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** The gateway's clock against ours. */
  get offset() {
    return this.#window.best;
  }

  /** Whether what was told still holds. */
  get delivery(): Delivery {
    return this.#watched.check();
  }

  /** Whatever the gateway had to tell then, by our clock, has been taken in. */
  get provenMs(): number {
    return this.#watched.provenMs;
  }

  /** A tick took the gateway so long, from its receipt until it was encoded. */
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

  /** Asks. The answer is told before the message that comes behind it, which no promise could do. */
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
      // It is closing; its end fails the request.
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
        // That proves nothing: it overtakes what the gateway has not read of its feed.
        fail(error);
        this.#tellDelivery();
      },
    );
  }

  /** Says goodbye. `ended` is told when the other side has answered, or when it has had time enough. */
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

  /** Gives it up. */
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
      // It was closed already.
    }
  }

  #end(code: number, why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timers.stop();
    const socket = this.#socket;
    if (socket !== undefined) {
      socket.onmessage = socket.onclose = null;
      // `ws` throws an error that nobody listens to.
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
    // A browser keeps timers of a page that is not seen for a minute.
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
    // Where few requests a second are allowed, half of them are left to others.
    const leastMs = 2000 / hello.limits.ops_per_s;
    this.#pingMs = Math.max(this.#setup.pingMs, leastMs);
    this.#soonMs = Math.max(this.#setup.pingMs / 4, leastMs);
    this.#listener.opened(hello);
    // Behind what was asked for by that: so its answer proves that the snapshots have come.
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
        // It ends what this client never asks for.
        return;
      case 'clock_step':
        // Each ping gives the offset of the gateway's clock anew.
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

  /** Looks for silence twice a heartbeat. */
  #watch(heartbeatMs: number): void {
    const { clock, heartbeats } = this.#setup;
    const period = Math.max(heartbeatMs / 2, 50);
    const due = clock.now() + period;
    this.#timers.after(period, () => {
      const now = clock.now();
      // This program stood still, not the link: what came meanwhile has not been read yet.
      if (now - due > period) this.#heard = now;
      if (now - this.#heard > heartbeatMs * heartbeats)
        this.#abort(`nothing was heard for ${Math.round(now - this.#heard)} ms`);
      else this.#watch(heartbeatMs);
    });
  }

  #measure(): void {
    if (this.#ended) return;
    // Soon at first: while a page is being built, round trips are long.
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

  /** Tells what has changed, and looks again when what was told becomes late. */
  #tellDelivery(): void {
    if (this.#ended) return;
    const delivery = this.#watched.check();
    if (delivery.why !== this.#told) {
      this.#told = delivery.why;
      this.#listener.delivery(delivery);
    }
    const { isLate, why, behindMs } = delivery;
    const { lateMs } = this.#setup;
    // Late for the time being: asked soon, it is over soon.
    const isNearlyOver = isLate && why !== 'shed' && behindMs <= lateMs;
    if ((isLate && !isNearlyOver) || this.#isTimed || this.#ended) return;
    this.#isTimed = true;
    // A timer may be some early.
    this.#timers.after(isNearlyOver ? this.#soonMs : lateMs - behindMs + 1, () => {
      if (isNearlyOver) this.#ping();
      this.#isTimed = false;
      this.#tellDelivery();
    });
  }
}
