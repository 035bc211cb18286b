// Fan-out with Node's `ws`: ticks arrive as JSON lines over TCP and are forwarded unchanged to the subscribers of their
// symbol.
'use strict';
const http = require('http');
const { WebSocketServer } = require('ws');
const { ticks } = require('./ticks.js');

const bySymbol = new Map();
const server = http.createServer();
const sockets = new WebSocketServer({ server });

sockets.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (text) => {
    for (const symbol of JSON.parse(text).symbols) {
      if (!bySymbol.has(symbol)) bySymbol.set(symbol, new Set());
      bySymbol.get(symbol).add(socket);
    }
    socket.send('{"type":"ack"}');
  });
  socket.on('close', () => bySymbol.forEach((subscribers) => subscribers.delete(socket)));
});

const publish = ticks((symbol, line) => {
  const subscribers = bySymbol.get(symbol);
  if (!subscribers) return;
  const bytes = Buffer.from(line, 'latin1');
  for (const socket of subscribers) socket.send(bytes, { binary: false });
});

server.listen({ port: 0, host: '127.0.0.1', backlog: 1024 }, () => {
  publish.listen(0, '127.0.0.1', () => {
    const at = (listener) => `127.0.0.1:${listener.address().port}`;
    console.log(`ws ready ws=ws://${at(server)}/ws publish=${at(publish)}`);
  });
});
