/** A gateway that does what none may do, over real sockets: the client tells, and nothing of it is left when it is closed. */

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import {
  connect,
  type Broken,
  type Client,
  type ConnectOptions,
  type LinkEvent,
  type Replay,
  type UnknownMessage,
} from 'tickfan-client';
import { WebSocketServer, type WebSocket } from 'ws';
import { until } from './gateway.js';

const HELLO = JSON.stringify({
  ...{ type: 'hello', v: 1, session: 's', epoch: 'e1', feed: 'live', time: 1, heartbeat_ms: 5000 },
  limits: { symbols: 1000, frame_bytes: 65_536, ops_per_s: 50 },
});
const TICK = { type: 'trade', symbol: 'demo:A', seq: 1, price: '1', size: '1', rx: 1, tx: 1 };

interface Hostile {
  readonly client: Client;
  readonly links: LinkEvent[];
  readonly broken: Broken[];
  readonly unknown: UnknownMessage[];
  readonly errors: unknown[];
  /** Connections so far. */
  readonly connections: () => number;
}

/** A server that does this with each connection, and a client of it. */
async function against(
  t: TestContext,
  behave: (socket: WebSocket, connection: number) => void,
  options: ConnectOptions = {},
): Promise<Hostile> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await new Promise((resolve) => server.once('listening', resolve));
  let connections = 0;
  server.on('connection', (socket) => {
    socket.on('error', () => {});
    behave(socket, ++connections);
  });
  const [links, broken, unknown, errors]: [LinkEvent[], Broken[], UnknownMessage[], unknown[]] = [[], [], [], []];
  const client = connect(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    backoff: { baseMs: 10, maxMs: 20 },
    onLink: (event) => links.push(event),
    onBroken: (it) => broken.push(it),
    onUnknown: (it) => unknown.push(it),
    onError: (error) => errors.push(error),
    ...options,
  });
  t.after(async () => {
    await client.close();
    for (const socket of server.clients) socket.terminate();
    await new Promise((resolve) => server.close(resolve));
    // A timer that runs on keeps the process from ending; say so before that.
    await until(
      'no timer and no socket is left',
      () => !process.getActiveResourcesInfo().some((it) => ['Timeout', 'TCPSocketWrap'].includes(it)),
    );
    assert.deepEqual(errors, []);
  });
  return { client, links, broken, unknown, errors, connections: () => connections };
}

const options = { timeout: 120_000 };

test('junk, binary, huge and unknown messages', options, async (t) => {
  const it = await against(
    t,
    (socket) => {
      socket.send(HELLO);
      socket.send(Buffer.from([1, 2, 3]));
      for (const junk of [
        '',
        '{',
        'null',
        '{"type":{}}',
        '['.repeat(100_000),
        JSON.stringify({ ...TICK, symbol: '<b>' }),
      ])
        socket.send(junk);
      socket.send(JSON.stringify({ type: 'later', x: 'x'.repeat(2_000_000) }));
      socket.send(JSON.stringify({ ...TICK, symbol: '__proto__:x' }));
      socket.send('{"type":"rewind","__proto__":{"type":"hello"},"speed":2}');
    },
    { messageMax: 1_000_000 },
  );
  await until('the last', () => it.unknown.length === 1);
  assert.deepEqual(
    it.broken.map(({ kind }) => kind),
    ['binary', ...Array(6).fill('unreadable'), 'too_big', 'unasked'],
  );
  assert.ok(it.client.isOpen);
});

test('a replay that is none, and one that refuses', options, async (t) => {
  const replays: Replay[] = [];
  const status = { type: 'replay', state: 'playing', position: 5, from: 1, to: 9, speed: 1, loop: false };
  const it = await against(
    t,
    (socket) => {
      socket.send(HELLO);
      for (const wrong of [{ state: 'flying' }, { position: -1 }, { to: 1e300 }, { speed: 'fast' }, { speed: null }, { loop: 1 }, { from: undefined }])
        socket.send(JSON.stringify({ ...status, ...wrong }));
      socket.send(JSON.stringify(status));
      socket.on('message', (data) => {
        const { op, id, do: what, token } = JSON.parse(String(data)) as Record<string, unknown>;
        if (op !== 'replay') return;
        const refused = { type: 'error', id, code: 'auth', msg: 'a token is needed', retry: false };
        // A request is answered once, and by its own op.
        if (what === 'stop') socket.send(JSON.stringify({ type: 'ack', op: 'list', id, subscriptions: [] }));
        else socket.send(JSON.stringify(token === 'secret' ? { type: 'ack', op, id } : refused));
      });
    },
    { onReplay: (replay) => replays.push(replay), answerMs: 500 },
  );
  await until('it is told', () => replays.length === 1);
  assert.deepEqual(replays, [status]);
  assert.deepEqual(
    it.broken.map(({ kind }) => kind),
    Array(7).fill('unreadable'),
  );
  await assert.rejects(it.client.replay.pause(), { name: 'RequestError', code: 'auth', retry: false });
  it.client.replay.token = 'secret';
  await it.client.replay.pause();
  await assert.rejects(it.client.replay.stop(), { name: 'RequestError', code: 'timeout' });
  assert.equal(it.broken.at(-1)?.kind, 'answer');
});

test('a breaker of the rule', options, async (t) => {
  const it = await against(t, (socket) => {
    socket.send(HELLO);
    socket.on('message', (data) => {
      const request = JSON.parse(String(data)) as { op: string; id: number; channel: string };
      if (request.op !== 'subscribe') return;
      const row = { symbol: 'demo:A', channel: 'trade', mode: 'every', state: 'live' };
      socket.send(
        JSON.stringify({ type: 'ack', op: 'subscribe', id: request.id, channel: 'trade', ok: [row], rejected: [] }),
      );
      for (const seq of [1, 2, 4, 4, 3, 5]) socket.send(JSON.stringify({ ...TICK, seq }));
      socket.send(JSON.stringify({ type: 'gap', symbol: 'demo:A', channel: 'trade', from: 8, to: 9, why: 'new' }));
    });
  });
  const seqs: number[] = [];
  it.client.subscribe('trade', 'demo:A', (trade) => seqs.push(trade.seq));
  await until('the last', () => it.broken.length === 4);
  assert.deepEqual(
    it.broken.map(({ kind, missing }) => [kind, missing]),
    [
      ['update', 1],
      ['update', -1],
      ['update', -2],
      ['gap', 2],
    ],
  );
  assert.deepEqual(seqs, [1, 2, 4, 5]);
});

test('each class of close code, while it opens and after', options, async (t) => {
  for (const [code, back] of [
    [1000, true],
    [1001, true],
    [1011, true],
    [1013, true],
    [4000, true],
    [4499, true],
    [1002, false],
    [1008, false],
    [4500, false],
    [4999, false],
  ] as const) {
    for (const early of [false, true]) {
      await t.test(`${code}${early ? ' before hello' : ''}`, async (t) => {
        const it = await against(t, (socket, connection) => {
          if (!early || connection > 1) socket.send(HELLO);
          if (connection === 1) socket.close(code);
        });
        await until('it has made up its mind', () =>
          it.links.some(({ state }) => (back ? state === 'lost' : state === 'closed')),
        );
        if (back) await until('it is back', () => it.connections() === 2 && it.client.isOpen);
        const first = it.links.find(({ state }) => state === 'lost' || state === 'closed');
        assert.deepEqual(
          [first?.state, first !== undefined && 'code' in first && first.code],
          [back ? 'lost' : 'closed', code],
        );
      });
    }
  }
});

test('a connection that is cut, and one that never says a word', options, async (t) => {
  const it = await against(
    t,
    (socket, connection) => {
      if (connection === 1) socket.terminate();
      if (connection > 2) socket.send(HELLO);
    },
    { openMs: 200 },
  );
  await until('the third is good', () => it.client.isOpen);
  assert.deepEqual(
    it.links.flatMap((event) => (event.state === 'lost' ? [event.code] : [])),
    [1006, 1006],
  );
  assert.ok(it.connections() >= 3);
});

test('one that falls silent, answers nothing and does not even say goodbye', options, async (t) => {
  const silent = HELLO.replace('"heartbeat_ms":5000', '"heartbeat_ms":100');
  const it = await against(t, (socket, connection) => {
    socket.send(connection === 1 ? silent : HELLO);
    // The goodbye is not read either.
    if (connection > 1) (socket as unknown as { _socket: { pause(): void } })._socket.pause();
  });
  it.client.subscribe('trade', 'demo:A', () => {});
  await until('the silence is noticed', () =>
    it.links.some((event) => event.state === 'lost' && event.why.startsWith('nothing was heard')),
  );
  await until('it is back', () => it.client.isOpen);
});

test('a door that is shut', options, async (t) => {
  const server = createServer((_, response) => response.writeHead(403).end()).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const links: LinkEvent[] = [];
  const client = connect(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    backoff: { baseMs: 10, maxMs: 20 },
    onLink: (event) => links.push(event),
  });
  t.after(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  await until('it has tried three times', () => links.filter(({ state }) => state === 'lost').length >= 3);
  assert.ok(links.some((event) => event.state === 'lost' && event.why.includes('403')));
});
