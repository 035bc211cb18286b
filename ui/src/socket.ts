/**
 * A socket that is read in a worker. A browser takes longer to deliver a message than the page takes to read it, and
 * would do so between two frames: the worker receives the messages instead, and passes them on to the page in batches.
 *
 * The gateway must notice a page that does not keep up, so that it can send `lag`: the worker therefore stops reading
 * soon after the page has stopped taking batches. A `WebSocket` cannot pause reading, a `WebSocketStream` can; without
 * it, the page reads its socket itself.
 */

import type { SocketConstructor, SocketLike } from 'tickfan-client';
import type { FromWorker, ToWorker } from './socket.worker.js';

/** Whether the page reads its sockets itself: always, or since the worker's script failed to load. */
let isAlone = !('WebSocketStream' in globalThis);

class WorkerSocket implements SocketLike {
  /** Ignored; data arrives as the worker sends it. */
  binaryType = 'arraybuffer';
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  /** Time that the oldest message of the current batch has waited for the page, milliseconds. */
  waitedMs = 0;
  readonly #worker = new Worker(new URL('./socket.worker.ts', import.meta.url), { type: 'module' });

  constructor(url: string, protocols?: string | string[]) {
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#told(data);
    this.#worker.onerror = () => {
      isAlone = true;
      this.#over(1006, 'the worker that reads the socket has failed');
    };
    this.#tell({ open: url, protocols: [protocols ?? []].flat() });
  }

  send(text: string): void {
    this.#tell({ send: text });
  }

  close(code = 1000, reason = ''): void {
    this.#tell({ close: code, reason });
  }

  terminate(): void {
    this.#worker.terminate();
  }

  #tell(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #told(message: FromWorker): void {
    if (message === 'opened') this.onopen?.({});
    else if ('code' in message) this.#over(message.code, message.reason);
    else {
      this.waitedMs = message.waitedMs;
      try {
        for (const data of message.messages) this.onmessage?.({ data });
      } finally {
        this.#tell('taken');
      }
    }
  }

  #over(code: number, reason: string): void {
    this.#worker.terminate();
    this.onclose?.({ code, reason });
  }
}

/** Creates the best available socket. */
export const Socket: SocketConstructor = new Proxy(WorkerSocket, {
  construct: (worker, [url, protocols]: [string, string[]]) => (isAlone ? new WebSocket(url, protocols) : new worker(url, protocols)),
});
