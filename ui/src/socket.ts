/**
 * A socket that is read beside the page. A browser takes longer to hand a message over than the page needs to read it, and
 * would do so between two frames: here a worker is handed them, and gives the page what has gathered, in one piece.
 *
 * A page that does not keep up must be felt by the gateway, which then says so: the worker reads on only for a moment while the
 * page has not taken what it was given. A `WebSocket` cannot wait, a `WebSocketStream` can; where there is none, the page reads
 * its socket itself.
 */

import type { SocketConstructor, SocketLike } from 'tickfan-client';
import type { FromWorker, ToWorker } from './socket.worker.js';

/** The page reads its sockets itself: from the first on, or since the worker's script could not be had. */
let isAlone = !('WebSocketStream' in globalThis);

class WorkerSocket implements SocketLike {
  /** As the worker gives them, whatever is said here. */
  binaryType = 'arraybuffer';
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  /** For how long the oldest of what is read now had waited for the page. */
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

/** Makes the socket that is best here. */
export const Socket: SocketConstructor = new Proxy(WorkerSocket, {
  construct: (worker, [url, protocols]: [string, string[]]) => (isAlone ? new WebSocket(url, protocols) : new worker(url, protocols)),
});
