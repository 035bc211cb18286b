/** The same in Node: where it has no WebSocket of its own, the package `ws` is taken, if it is there. */

import { connect as connectWith, type Client, type ConnectOptions } from './client.js';
import type { SocketConstructor } from './link.js';

export * from './index.js';

/** The longest message that is read into memory, bytes: the answer to `*` names every symbol. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

const ofNode = (globalThis as { WebSocket?: SocketConstructor }).WebSocket ?? (await ofWs());

async function ofWs(): Promise<SocketConstructor | undefined> {
  // Not for the compiler to resolve: it need not be installed.
  const name = 'ws';
  try {
    const { WebSocket } = (await import(name)) as {
      WebSocket: new (
        url: string,
        protocols: string | string[] | undefined,
        options: object,
      ) => InstanceType<SocketConstructor>;
    };
    return class extends WebSocket {
      constructor(url: string, protocols?: string | string[]) {
        super(url, protocols, { maxPayload: MESSAGE_BYTES_MAX, perMessageDeflate: false });
      }
    };
  } catch {
    return undefined;
  }
}

/** See `connect` of the browsers' entry. */
export function connect(url: string | URL, options: ConnectOptions = {}): Client {
  const WebSocket = options.WebSocket ?? ofNode;
  return connectWith(url, WebSocket === undefined ? options : { ...options, WebSocket });
}
