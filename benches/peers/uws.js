// Fan-out with uWebSockets' own topics: ticks arrive as JSON lines over TCP and are forwarded unchanged to the
// subscribers of their symbol.
'use strict';
const uWS = require('uwebsockets');
const { ticks } = require('./ticks.js');

const app = uWS.App();
app.ws('/*', {
  maxBackpressure: 1024 * 1024,
  message: (socket, bytes) => {
    for (const symbol of JSON.parse(Buffer.from(bytes).toString()).symbols) socket.subscribe(symbol);
    socket.send('{"type":"ack"}', false);
  },
});

const publish = ticks((symbol, line) => app.publish(symbol, line, false));

app.listen('127.0.0.1', 0, (listener) => {
  if (!listener) process.exit(1);
  publish.listen(0, '127.0.0.1', () => {
    const [ws, ticks] = [uWS.us_socket_local_port(listener), publish.address().port];
    console.log(`uws ready ws=ws://127.0.0.1:${ws}/ws publish=127.0.0.1:${ticks}`);
  });
});
