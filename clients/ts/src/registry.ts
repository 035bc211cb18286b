/**
 * The subscriptions of the program, their state at the gateway, and the requests that bring the two together. Pure: it
 * creates requests and processes answers, without socket or clock.
 *
 * Several subscriptions may include the same symbol, and wildcards overlap with symbols. The gateway has one set of
 * terms per symbol and channel of a connection, those of the narrowest subscription. The registry therefore requests
 * the most demanding terms of all subscriptions.
 */

import type { Ledger } from './ledger.js';
import {
  covers,
  isWildcard,
  type AckSubscribe,
  type Channel,
  type Gap,
  type Hello,
  type Mode,
  type Rejected,
  type Request,
  type Status,
  type SubscriptionRow,
  type Terms,
  type Tick,
} from './messages.js';

/** Most symbols of one request: every gateway accepts this number, and its answer has room for all of them. */
const SYMBOLS_PER_REQUEST = 1000;

/** One subscription of the program. */
export interface Wish {
  readonly channels: readonly Channel[];
  /** Symbols and wildcards that do not cover each other. A bare name is replaced by the full symbol. */
  readonly symbols: Set<string>;
  terms: Terms;
  readonly snapshot: boolean;
  /** Whether it has received the existing values; before that it receives nothing. */
  primed: boolean;
  tick(tick: Tick): void;
  gap(gap: Gap): void;
  status(status: Status): void;
  /** Called with the gateway's answer for one of its symbols. */
  answered(channel: Channel, symbol: string, row: SubscriptionRow | Rejected): void;
}

/** The terms that are needed for each tick. */
export interface Asked {
  readonly max_hz: number | null;
  readonly snapshot: boolean;
}

/** Terms without omitted fields. */
interface FullTerms extends Asked {
  readonly mode: Mode;
  readonly cut: boolean;
}

/** A request with its subject. */
export interface Planned {
  readonly channel: Channel;
  readonly request: Extract<Request, { op: 'subscribe' | 'unsubscribe' | 'set' }>;
  readonly symbols: readonly string[];
  readonly terms: FullTerms | undefined;
}

/** The effects of an answer. */
export interface Change {
  /** States contained in the answer. */
  readonly states: readonly Status[];
  readonly rejected: readonly (Rejected & { readonly channel: Channel })[];
  /** Violations of the protocol by the answer itself. */
  readonly broken: readonly string[];
}

const CHANNELS: readonly Channel[] = ['trade', 'quote'];

/** The mode of a channel, by default that of the channel. */
export function modeOf(channel: Channel, { mode }: Terms): Mode {
  return mode ?? (channel === 'trade' ? 'every' : 'latest');
}

/** The newest value as the start of a subscription. */
export function asSnapshot({ n: _, ...value }: Tick): Tick {
  return { ...value, snap: true } as Tick;
}

/** The symbol and the wildcards that cover it. */
function takers(symbol: string): string[] {
  const colon = symbol.indexOf(':');
  return colon < 0 ? [symbol] : [...new Set([symbol, `${symbol.slice(0, colon)}:*`, '*'])];
}

/** The registry of one channel. */
class Side {
  readonly wanted = new Map<string, Set<Wish>>();
  /** Number of wildcards among them. */
  wildcards = 0;
  /** Subscriptions at the gateway, with their terms. */
  readonly wire = new Map<string, FullTerms>();
  /** Subscriptions that the gateway has rejected on this connection. */
  readonly refused = new Set<string>();

  /** The terms of the gateway's subscription that covers this symbol, if any. */
  asked(symbol: string): FullTerms | undefined {
    // Called for each tick: it is usually subscribed by name.
    const own = this.wire.get(symbol);
    if (own !== undefined) return own;
    for (const taker of takers(symbol)) {
      const terms = this.wire.get(taker);
      if (terms !== undefined) return terms;
    }
    return undefined;
  }
}

/** See the top of this file. */
export class Registry {
  readonly #sides: Record<Channel, Side> = { trade: new Side(), quote: new Side() };
  readonly #ledger: Ledger;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  add(wish: Wish): void {
    for (const channel of wish.channels) for (const symbol of wish.symbols) this.#list(channel, symbol, wish);
  }

  remove(wish: Wish): void {
    for (const channel of wish.channels) for (const symbol of wish.symbols) this.#unlist(channel, symbol, wish);
  }

  /**
   * The subscriptions of this symbol, without duplicates. Subscriptions added or removed during the iteration may or
   * may not be included.
   */
  wishes(channel: Channel, symbol: string): Iterable<Wish> {
    const { wanted, wildcards } = this.#sides[channel];
    // Called for each tick, usually without wildcards.
    if (wildcards === 0) return wanted.get(symbol) ?? [];
    return takers(symbol).flatMap((taker) => [...(wanted.get(taker) ?? [])]);
  }

  /** The terms of the gateway's subscription of this symbol; undefined without one. */
  asked(channel: Channel, symbol: string): Asked | undefined {
    return this.#sides[channel].asked(symbol);
  }

  /** Whether the gateway has this subscription. */
  has(channel: Channel, symbol: string): boolean {
    return this.#sides[channel].wire.has(symbol);
  }

  /** Starts a connection, which has no subscriptions. */
  begin(): void {
    for (const { wire, refused } of Object.values(this.#sides)) {
      wire.clear();
      refused.clear();
    }
  }

  /**
   * The requests that bring the gateway closer to the program's subscriptions; empty if nothing needs to change. More
   * may be needed once all are answered.
   */
  plan(limits: Hello['limits']): Planned[] {
    return CHANNELS.flatMap((channel) => {
      const gone = this.#gone(channel);
      const planned = gone.length > 0 ? this.#chunks('unsubscribe', channel, gone, undefined, limits) : [];
      return [...planned, ...this.#missing(channel, gone, limits)];
    });
  }

  /**
   * Subscriptions at the gateway that the program does not need. Symbols of a remaining wildcard are kept, because
   * unsubscribing would remove them from the wildcard.
   */
  #gone(channel: Channel): string[] {
    const { wanted, wire, refused } = this.#sides[channel];
    return [...wire.keys()].filter(
      (symbol) => !takers(symbol).some((taker) => wanted.has(taker) && (taker === symbol || !refused.has(taker))),
    );
  }

  #missing(channel: Channel, gone: readonly string[], limits: Hello['limits']): Planned[] {
    const { wanted, wire, refused } = this.#sides[channel];
    const groups = new Map<string, { op: 'subscribe' | 'set'; terms: FullTerms; symbols: string[] }>();
    // Wildcards first: they cover the most.
    const symbols = [...new Set([...wanted.keys(), ...wire.keys()])].sort((a, b) => width(b) - width(a));
    for (const symbol of symbols) {
      const terms = this.#terms(channel, symbol);
      const had = wire.get(symbol);
      if (refused.has(symbol) || gone.includes(symbol) || (had !== undefined && sameTerms(had, terms))) continue;
      // A symbol of a wildcard that is being removed is requested after the removal, when the number to resume from is
      // known.
      if (had === undefined && gone.some((pattern) => covers(pattern, symbol))) continue;
      const op = had !== undefined && had.cut === terms.cut ? 'set' : 'subscribe';
      const key = JSON.stringify([op, terms]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { op, terms, symbols: [symbol] });
      else group.symbols.push(symbol);
    }
    return [...groups.values()].flatMap((group) => this.#chunks(group.op, channel, group.symbols, group.terms, limits));
  }

  /** The most demanding terms of all subscriptions. */
  #terms(channel: Channel, symbol: string): FullTerms {
    const wishes = takers(symbol).flatMap((taker) => [...(this.#sides[channel].wanted.get(taker) ?? [])]);
    const every = wishes.some(({ terms }) => modeOf(channel, terms) === 'every');
    const rates = wishes.map(({ terms }) => terms.max_hz ?? null);
    const unlimited = every || rates.includes(null);
    return {
      mode: every ? 'every' : 'latest',
      max_hz: unlimited ? null : Math.max(...rates.map((rate) => rate ?? 0)),
      cut: every && wishes.some(({ terms }) => terms.on_slow === 'cut'),
      snapshot: wishes.some(({ snapshot }) => snapshot),
    };
  }

  /** Splits into requests that the gateway accepts. */
  #chunks(
    op: Planned['request']['op'],
    channel: Channel,
    symbols: readonly string[],
    terms: FullTerms | undefined,
    limits: Hello['limits'],
  ): Planned[] {
    const chunks: Planned[] = [];
    // A quarter is reserved for the rest of the message.
    let room = (limits.frame_bytes * 3) / 4;
    let chunk: string[] = [];
    const close = () => {
      if (chunk.length > 0) chunks.push(this.#request(op, channel, chunk, terms, limits));
      [chunk, room] = [[], (limits.frame_bytes * 3) / 4];
    };
    for (const symbol of symbols) {
      const bytes = byteLength(symbol) * 2 + 32;
      if (chunk.length >= SYMBOLS_PER_REQUEST || room < bytes) close();
      chunk.push(symbol);
      room -= bytes;
    }
    close();
    return chunks;
  }

  #request(
    op: Planned['request']['op'],
    channel: Channel,
    symbols: readonly string[],
    terms: FullTerms | undefined,
    limits: Hello['limits'],
  ): Planned {
    const target = { channel, symbols };
    if (op === 'unsubscribe' || terms === undefined)
      return { ...target, request: { op: 'unsubscribe', ...target }, terms: undefined };
    const { mode, max_hz } = terms;
    if (op === 'set')
      return { ...target, terms, request: { op, ...target, mode, ...(mode === 'latest' ? { max_hz } : {}) } };
    const resume = this.#resume(channel, symbols, limits);
    const request = {
      op,
      ...target,
      mode,
      ...(max_hz === null ? {} : { max_hz }),
      ...(terms.cut ? { on_slow: 'cut' as const } : {}),
      ...(terms.snapshot ? {} : { snapshot: false }),
      ...(resume === undefined ? {} : { resume }),
    };
    return { ...target, terms, request };
  }

  /**
   * The numbers to resume from, as many as fit. The other streams restart, and their missed ticks are reported as
   * `away`.
   */
  #resume(
    channel: Channel,
    symbols: readonly string[],
    limits: Hello['limits'],
  ): { epoch: string; seq: Record<string, number> } | undefined {
    const { epoch } = this.#ledger;
    const named = new Set(symbols);
    const points = this.#ledger.points(channel, (symbol) => takers(symbol).some((taker) => named.has(taker)));
    if (epoch === undefined || points.length === 0) return undefined;
    let room = limits.frame_bytes - 512 - symbols.reduce((sum, symbol) => sum + byteLength(symbol) + 8, 0);
    const fits = points.filter(([symbol, seq]) => (room -= byteLength(symbol) + String(seq).length + 8) >= 0);
    return fits.length === 0 ? undefined : { epoch, seq: Object.fromEntries(fits) };
  }

  /** Processes the answer to a request. */
  answer(
    planned: Planned,
    ack: AckSubscribe | { ok: readonly { symbol: string }[]; rejected: readonly Rejected[] },
  ): Change {
    switch (planned.request.op) {
      case 'unsubscribe':
        this.#released(planned);
        return { states: [], rejected: [], broken: [] };
      case 'set':
        return this.#changed(planned, ack.rejected);
      case 'subscribe':
        return this.#subscribed(planned, (ack as AckSubscribe).ok, ack.rejected);
    }
  }

  #released({ channel, symbols }: Planned): void {
    const side = this.#sides[channel];
    for (const symbol of symbols) side.wire.delete(symbol);
    // Symbols that another subscription covers are kept.
    const isGone = (symbol: string) =>
      symbols.some((pattern) => covers(pattern, symbol)) && side.asked(symbol) === undefined;
    const { wanted } = side;
    this.#ledger.released(channel, isGone);
    this.#ledger.forget(channel, (symbol) => isGone(symbol) && !takers(symbol).some((taker) => wanted.has(taker)));
  }

  #changed({ channel, symbols, terms }: Planned, rejected: readonly Rejected[]): Change {
    const { wire } = this.#sides[channel];
    if (terms !== undefined) for (const symbol of symbols) wire.set(symbol, terms);
    // It is requested again.
    for (const { symbol, code } of rejected) if (code === 'not_subscribed') wire.delete(symbol);
    return { states: [], rejected: rejected.map((row) => ({ ...row, channel })), broken: [] };
  }

  #subscribed(planned: Planned, rows: readonly SubscriptionRow[], rejected: readonly Rejected[]): Change {
    const { channel, symbols } = planned;
    const side = this.#sides[channel];
    const open = new Set(symbols);
    const broken: string[] = [];
    const states: Status[] = [];
    for (const row of rows) {
      const asked = open.has(row.symbol)
        ? row.symbol
        : [...open].find((text) => !text.includes(':') && row.symbol.endsWith(`:${text}`));
      if (asked === undefined || row.channel !== channel) {
        broken.push(`the answer names ${row.symbol} ${row.channel}, which was not asked for`);
        continue;
      }
      open.delete(asked);
      states.push(...this.#accept(planned, asked, row));
    }
    for (const row of rejected) {
      if (!open.delete(row.symbol)) {
        broken.push(`the answer refuses ${row.symbol}, which was not asked for`);
        continue;
      }
      // The numbers are invalid, also those of a wildcard: it is requested again without them.
      if (row.code === 'bad_resume') this.#ledger.forget(channel, (symbol) => covers(row.symbol, symbol));
      else this.#refuse(channel, row);
    }
    for (const symbol of open) {
      broken.push(`the answer does not name ${symbol}`);
      this.#refuse(channel, { symbol, code: 'no_answer', msg: 'the answer does not name it' });
    }
    for (const symbol of side.refused) if (!side.wanted.has(symbol)) side.refused.delete(symbol);
    return { states, rejected: rejected.map((row) => ({ ...row, channel })), broken };
  }

  /** Records that a request was rejected as a whole. */
  refuse({ channel, symbols }: Planned, code: string, msg: string): void {
    for (const symbol of symbols) this.#refuse(channel, { symbol, code, msg });
  }

  #refuse(channel: Channel, row: Rejected): void {
    const { refused, wanted } = this.#sides[channel];
    refused.add(row.symbol);
    for (const wish of wanted.get(row.symbol) ?? []) wish.answered(channel, row.symbol, row);
  }

  #accept({ channel, request, terms }: Planned, asked: string, row: SubscriptionRow): Status[] {
    const { symbol, state, resumed } = row;
    const side = this.#sides[channel];
    for (const text of new Set([asked, symbol]))
      for (const wish of side.wanted.get(text) ?? []) wish.answered(channel, asked, row);
    if (asked !== symbol) this.#rename(channel, asked, symbol);
    if (terms !== undefined) side.wire.set(symbol, terms);
    const resume = request.op === 'subscribe' ? request.resume : undefined;
    const begin = { snapshot: terms?.snapshot ?? true, asked: resume?.seq, resumed };
    if (!isWildcard(symbol)) {
      this.#ledger.subscribed(channel, symbol, begin);
      return state === undefined ? [] : [{ type: 'status', symbol, state }];
    }
    this.#ledger.subscribedWildcard(channel, (other) => covers(symbol, other), begin);
    // The states of resumed symbols follow as messages; other symbols are live unless a state precedes their first
    // value.
    return [];
  }

  /** Replaces a bare name by its full symbol. */
  #rename(channel: Channel, bare: string, symbol: string): void {
    for (const wish of [...(this.#sides[channel].wanted.get(bare) ?? [])]) {
      const taken = [...wish.symbols].some((other) => other !== bare && covers(other, symbol));
      // Its other channels are renamed as well: a bare name means the same on each.
      for (const own of wish.channels) {
        this.#unlist(own, bare, wish);
        if (taken) continue;
        this.#list(own, symbol, wish);
        // Another subscription already has it, so that no snapshot follows.
        if (wish.snapshot)
          this.#ledger.values(own, (other) => other === symbol).forEach((value) => wish.tick(asSnapshot(value)));
      }
      wish.symbols.delete(bare);
      if (!taken) wish.symbols.add(symbol);
    }
  }

  #list(channel: Channel, symbol: string, wish: Wish): void {
    const side = this.#sides[channel];
    const { wanted, refused } = side;
    const wishes = wanted.get(symbol);
    if (wishes === undefined) {
      wanted.set(symbol, new Set([wish]));
      if (isWildcard(symbol)) side.wildcards += 1;
    } else wishes.add(wish);
    // A new subscription retries a rejected symbol.
    refused.delete(symbol);
  }

  #unlist(channel: Channel, symbol: string, wish: Wish): void {
    const side = this.#sides[channel];
    const { wanted, refused } = side;
    const wishes = wanted.get(symbol);
    if (wishes?.delete(wish) !== true || wishes.size > 0) return;
    wanted.delete(symbol);
    if (isWildcard(symbol)) side.wildcards -= 1;
    refused.delete(symbol);
  }
}

function sameTerms(a: FullTerms, b: FullTerms): boolean {
  return a.mode === b.mode && a.max_hz === b.max_hz && a.cut === b.cut;
}

/** Relative size of what a pattern covers. */
function width(symbol: string): number {
  return symbol === '*' ? 2 : isWildcard(symbol) ? 1 : 0;
}

const encoder = new TextEncoder();

function byteLength(text: string): number {
  return encoder.encode(text).length;
}
