/** In a worker: reads one socket for the page. See socket.ts. */

/** A page opens one socket, sends, and says when it has taken what it was given. */
export type ToWorker =
  | { readonly open: string; readonly protocols: readonly string[] }
  | { readonly send: string }
  | { readonly close: number; readonly reason: string }
  | 'taken';

/** Messages in order, and for how long the oldest had waited for the page, milliseconds. */
export interface Batch {
  readonly messages: readonly unknown[];
  readonly waitedMs: number;
}

/** What was read, or what became of the socket. */
export type FromWorker = Batch | 'opened' | { readonly code: number; readonly reason: string };

/** As much of it as is needed; the compiler does not know it yet. */
declare class WebSocketStream {
  constructor(url: string, options: { protocols: readonly string[] });
  readonly opened: Promise<{ readable: ReadableStream<unknown>; writable: WritableStream<string> }>;
  readonly closed: Promise<{ closeCode: number; reason: string }>;
  close(info: { closeCode: number; reason: string }): void;
}

/** Milliseconds that ticks gather: a fourth of a frame. */
const GATHER_MS = 4;
/** Messages that may wait for the page, and milliseconds that it may take for those before them; then no more is read. */
const WAITING_MAX = 1000;
const TAKING_MS = 100;

let stream: WebSocketStream | undefined;
let writer: WritableStreamDefaultWriter<string> | undefined;
let waiting: unknown[] = [];
/** When the oldest of them came. */
let waitingSinceMs = 0;
/** The page has not taken yet what it was given last. */
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

/** At once, unless there was something just before. */
function giveSoon(): void {
  const left = givenMs + GATHER_MS - performance.now();
  if (left <= 0) give();
  else if (timer === 0) timer = setTimeout(give, left);
}

/** Only ticks come so often that they had better gather; an answer to a ping tells the time. */
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
  // What was cut off in the middle of something has a code and a reason, too.
  const ended = stream.closed.catch(({ closeCode, reason }) => ({ closeCode: closeCode ?? 1006, reason: reason ?? '' }));
  try {
    const { readable, writable } = await stream.opened;
    writer = writable.getWriter();
    tell('opened');
    await read(readable.getReader());
  } catch {
    // Why, its end says.
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
