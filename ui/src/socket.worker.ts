/** In a worker: reads one socket for the page. See socket.ts. */

/** Messages of the page: open a socket, send, close, or `taken` for a processed batch. */
export type ToWorker =
  | { readonly open: string; readonly protocols: readonly string[] }
  | { readonly send: string }
  | { readonly close: number; readonly reason: string }
  | 'taken';

/** Messages in order, and the time that the oldest has waited for the page, milliseconds. */
export interface Batch {
  readonly messages: readonly unknown[];
  readonly waitedMs: number;
}

/** Received messages, or the state of the socket. */
export type FromWorker = Batch | 'opened' | { readonly code: number; readonly reason: string };

/** The required part of the interface, which the compiler does not know yet. */
declare class WebSocketStream {
  constructor(url: string, options: { protocols: readonly string[] });
  readonly opened: Promise<{ readable: ReadableStream<unknown>; writable: WritableStream<string> }>;
  readonly closed: Promise<{ closeCode: number; reason: string }>;
  close(info: { closeCode: number; reason: string }): void;
}

/** Milliseconds for which ticks are gathered: a quarter of a frame. */
const GATHER_MS = 4;
/**
 * Most messages that wait for the page, and most milliseconds that it may take for a batch; beyond them reading pauses.
 */
const WAITING_MAX = 1000;
const TAKING_MS = 100;

let stream: WebSocketStream | undefined;
let writer: WritableStreamDefaultWriter<string> | undefined;
let waiting: unknown[] = [];
/** Arrival time of the oldest of them. */
let waitingSinceMs = 0;
/** Whether the page has not taken the last batch yet. */
let isUnderway = false;
let givenMs = 0;
let timer = 0;
let goOn: () => void = () => {};

const tell = (message: FromWorker) => postMessage(message);

function tellAll(): void {
  tell({ messages: waiting, waitedMs: performance.now() - waitingSinceMs });
  waiting = [];
}

function give(): void {
  clearTimeout(timer);
  timer = 0;
  if (waiting.length === 0 || isUnderway) return;
  tellAll();
  isUnderway = true;
  givenMs = performance.now();
  goOn();
}

/** Passes on at once, unless there was a batch just before. */
function giveSoon(): void {
  const left = givenMs + GATHER_MS - performance.now();
  if (left <= 0) give();
  else if (timer === 0) timer = setTimeout(give, left);
}

/** Only ticks are frequent enough to be gathered; the answer to a ping is time-critical. */
const isTick = (message: unknown) => typeof message === 'string' && /^\{"type":"(trade|quote)"/.test(message);

async function read(reader: ReadableStreamDefaultReader<unknown>): Promise<void> {
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    if (waiting.length === 0) waitingSinceMs = performance.now();
    waiting.push(value);
    if (isTick(value)) giveSoon();
    else give();
    const isLate = isUnderway && performance.now() - givenMs > TAKING_MS;
    if (isLate || waiting.length >= WAITING_MAX) await new Promise<void>((resolve) => (goOn = resolve));
  }
}

async function open(url: string, protocols: readonly string[]): Promise<void> {
  stream = new WebSocketStream(url, { protocols });
  // A connection that broke has a code and a reason as well.
  const ended = stream.closed.catch(({ closeCode, reason }) => ({ closeCode: closeCode ?? 1006, reason: reason ?? '' }));
  try {
    const { readable, writable } = await stream.opened;
    writer = writable.getWriter();
    tell('opened');
    await read(readable.getReader());
  } catch {
    // `ended` has the reason.
  }
  const { closeCode, reason } = await ended;
  if (waiting.length > 0) tellAll();
  tell({ code: closeCode, reason });
}

onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data === 'taken') {
    isUnderway = false;
    giveSoon();
  } else if ('open' in data) open(data.open, data.protocols).catch(() => tell({ code: 1006, reason: '' }));
  else if ('send' in data) writer?.write(data.send).catch(() => {});
  else stream?.close({ closeCode: data.close, reason: data.reason });
};
