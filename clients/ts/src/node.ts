/** Entry point for Node: without a WebSocket of its own, it uses the package `ws`, if installed. */

import { connect as connectWith, type Client, type ConnectOptions } from './client.js';
import type { SocketConstructor } from './link.js';

export * from './index.js';

/** Longest message that is read into memory, bytes: the answer to `*` lists all symbols. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

const ofNode = (globalThis as { WebSocket?: SocketConstructor }).WebSocket ?? (await ofWs());

async function ofWs(): Promise<SocketConstructor | undefined> {
  // A variable, so that the compiler does not resolve the package: it may not be installed.
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

/** See `connect` of the browser entry point. */
export function connect(url: string | URL, options: ConnectOptions = {}): Client {
  const WebSocket = options.WebSocket ?? ofNode;
  return connectWith(url, WebSocket === undefined ? options : { ...options, WebSocket });
}
