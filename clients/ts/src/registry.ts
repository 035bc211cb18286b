/**
 * What the program wants, what the gateway has of it on this connection, and the requests that make the two the same.
 * Pure: it makes requests and takes answers, and knows neither socket nor time.
 *
 * Several subscriptions may want the same symbol, and wildcards overlap with symbols. The gateway has one set of terms for
 * each symbol and channel of a connection, those of the narrowest that was asked for, so that is asked for the most that anybody
 * wants of it.
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

/** Symbols that one request names, at most: so many are taken by every gateway, and its answer has room for all of them. */
const SYMBOLS_PER_REQUEST = 1000;

/** One subscription of the program's. */
export interface Wish {
  readonly channels: readonly Channel[];
  /** Symbols and wildcards; none that another one of them covers. A bare name gives way to the full one. */
  readonly symbols: Set<string>;
  terms: Terms;
  readonly snapshot: boolean;
  /** It has been given what was there already; before that it is told nothing. */
  primed: boolean;
  tick(tick: Tick): void;
  gap(gap: Gap): void;
  status(status: Status): void;
  /** The gateway's word on one of its symbols. */
  answered(channel: Channel, symbol: string, row: SubscriptionRow | Rejected): void;
}

/** What of its terms is looked at with each tick. */
export interface Asked {
  readonly max_hz: number | null;
  readonly snapshot: boolean;
}

/** Terms with nothing left out. */
interface FullTerms extends Asked {
  readonly mode: Mode;
  readonly cut: boolean;
}

/** A request with what it is about. */
export interface Planned {
  readonly channel: Channel;
  readonly request: Extract<Request, { op: 'subscribe' | 'unsubscribe' | 'set' }>;
  readonly symbols: readonly string[];
  readonly terms: FullTerms | undefined;
}

/** What an answer has changed. */
export interface Change {
  /** States that the answer shows. */
  readonly states: readonly Status[];
  readonly rejected: readonly (Rejected & { readonly channel: Channel })[];
  /** What is wrong with the answer itself. */
  readonly broken: readonly string[];
}

const CHANNELS: readonly Channel[] = ['trade', 'quote'];

/** The mode of a channel where nothing else is said. */
export function modeOf(channel: Channel, { mode }: Terms): Mode {
  return mode ?? (channel === 'trade' ? 'every' : 'latest');
}

/** The newest value as the start of a subscription. */
export function asSnapshot({ n: _, ...value }: Tick): Tick {
  return { ...value, snap: true } as Tick;
}

/** The symbol and the wildcards that take it. */
function takers(symbol: string): string[] {
  const colon = symbol.indexOf(':');
  return colon < 0 ? [symbol] : [...new Set([symbol, `${symbol.slice(0, colon)}:*`, '*'])];
}

/** The side of one channel. */
class Side {
  readonly wanted = new Map<string, Set<Wish>>();
  /** How many of them are wildcards. */
  wildcards = 0;
  /** What the gateway has, with its terms. */
  readonly wire = new Map<string, FullTerms>();
  /** What it has refused on this connection. */
  readonly refused = new Set<string>();

  /** Whether the gateway was asked for this symbol. */
  asked(symbol: string): FullTerms | undefined {
    // Of each tick: nearly always it was asked for by its name.
    const own = this.wire.get(symbol);
    if (own !== undefined) return own;
    for (const taker of takers(symbol)) {
      const terms = this.wire.get(taker);
      if (terms !== undefined) return terms;
    }
    return undefined;
  }
}

/** See the head of this file. */
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

  /** Who wants this symbol, each once. Who comes or goes while this is looked through may be in it, or not. */
  wishes(channel: Channel, symbol: string): Iterable<Wish> {
    const { wanted, wildcards } = this.#sides[channel];
    // Asked with each tick, and mostly nobody else can want it.
    if (wildcards === 0) return wanted.get(symbol) ?? [];
    return takers(symbol).flatMap((taker) => [...(wanted.get(taker) ?? [])]);
  }

  /** The terms under which the gateway was asked for this symbol; undefined if it was not. */
  asked(channel: Channel, symbol: string): Asked | undefined {
    return this.#sides[channel].asked(symbol);
  }

  /** Whether the gateway has all that this one wants, or has refused it. */
  has(channel: Channel, symbol: string): boolean {
    return this.#sides[channel].wire.has(symbol);
  }

  /** A connection begins with nothing. */
  begin(): void {
    for (const { wire, refused } of Object.values(this.#sides)) {
      wire.clear();
      refused.clear();
    }
  }

  /**
   * The requests that bring the gateway nearer to what is wanted; none if there is nothing to do. Once all of them are
   * answered there may be more to do.
   */
  plan(limits: Hello['limits']): Planned[] {
    return CHANNELS.flatMap((channel) => {
      const gone = this.#gone(channel);
      const planned = gone.length > 0 ? this.#chunks('unsubscribe', channel, gone, undefined, limits) : [];
      return [...planned, ...this.#missing(channel, gone, limits)];
    });
  }

  /**
   * What the gateway has and nobody wants. What a wildcard still takes stays: to unsubscribe from it would take it out of the
   * wildcard.
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
    // The widest first: they bring most at once.
    const symbols = [...new Set([...wanted.keys(), ...wire.keys()])].sort((a, b) => width(b) - width(a));
    for (const symbol of symbols) {
      const terms = this.#terms(channel, symbol);
      const had = wire.get(symbol);
      if (refused.has(symbol) || gone.includes(symbol) || (had !== undefined && sameTerms(had, terms))) continue;
      // What a wildcard brought that goes is asked for once it is gone: then it is known where to go on.
      if (had === undefined && gone.some((pattern) => covers(pattern, symbol))) continue;
      const op = had !== undefined && had.cut === terms.cut ? 'set' : 'subscribe';
      const key = JSON.stringify([op, terms]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { op, terms, symbols: [symbol] });
      else group.symbols.push(symbol);
    }
    return [...groups.values()].flatMap((group) => this.#chunks(group.op, channel, group.symbols, group.terms, limits));
  }

  /** The most that anybody wants of it. */
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

  /** Requests of a size that the gateway takes. */
  #chunks(
    op: Planned['request']['op'],
    channel: Channel,
    symbols: readonly string[],
    terms: FullTerms | undefined,
    limits: Hello['limits'],
  ): Planned[] {
    const chunks: Planned[] = [];
    // A fourth is left for what is around the symbols.
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

  /** Where to go on, as much of it as fits; the rest begins as any does, and what it missed is told as `away`. */
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

  /** Takes the answer to a request. */
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
    // What is asked for by something else stays.
    const isGone = (symbol: string) =>
      symbols.some((pattern) => covers(pattern, symbol)) && side.asked(symbol) === undefined;
    const { wanted } = side;
    this.#ledger.released(channel, isGone);
    this.#ledger.forget(channel, (symbol) => isGone(symbol) && !takers(symbol).some((taker) => wanted.has(taker)));
  }

  #changed({ channel, symbols, terms }: Planned, rejected: readonly Rejected[]): Change {
    const { wire } = this.#sides[channel];
    if (terms !== undefined) for (const symbol of symbols) wire.set(symbol, terms);
    // It will be asked for again.
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
      // The numbers are of no use, a wildcard's not either: it is asked for again, without.
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

  /** A request was refused as a whole. */
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
    // The states of what it goes on with come by themselves; what else it takes is live unless one comes before its first value.
    return [];
  }

  /** A bare name has become a symbol. */
  #rename(channel: Channel, bare: string, symbol: string): void {
    for (const wish of [...(this.#sides[channel].wanted.get(bare) ?? [])]) {
      const taken = [...wish.symbols].some((other) => other !== bare && covers(other, symbol));
      // Its other channels are renamed with it: a bare name means the same on each.
      for (const own of wish.channels) {
        this.#unlist(own, bare, wish);
        if (taken) continue;
        this.#list(own, symbol, wish);
        // Others have it already, so no snapshot comes.
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
    // Who asks again, asks again.
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

/** How much a pattern takes, roughly. */
function width(symbol: string): number {
  return symbol === '*' ? 2 : isWildcard(symbol) ? 1 : 0;
}

const encoder = new TextEncoder();

function byteLength(text: string): number {
  return encoder.encode(text).length;
}
