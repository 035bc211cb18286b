// Reads the publisher's lines; calls `each` with the symbol and the text of every tick.
'use strict';
const net = require('net');

const KEY = '"symbol":"';

exports.ticks = (each) =>
  net.createServer((socket) => {
    let rest = '';
    socket.setEncoding('latin1');
    socket.on('error', () => {});
    socket.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const from = line.indexOf(KEY) + KEY.length;
        if (from >= KEY.length) each(line.slice(from, line.indexOf('"', from)), line);
      }
    });
  });
