// Echo in Node's ways: a pipe with its back pressure, and pulling by `readable`.
//
// Speaks to the test by lines: prints "listening MODE PORT", reads "connect MODE HOST PORT
// TARGET" (CONNECT through a proxy), ends when its input ends.
'use strict';
const net = require('net');
const readline = require('readline');

const modes = {
  // Flowing mode, by the library's own hands.
  pipe(socket) {
    socket.pipe(socket);
  },
  // Paused mode: takes what is there, waits for room, takes more.
  pull(socket) {
    let full = false;
    const take = () => {
      let piece;
      while (!full && (piece = socket.read()) !== null) {
        full = !socket.write(piece);
      }
    };
    socket.on('readable', take);
    socket.on('drain', () => {
      full = false;
      take();
    });
    socket.on('end', () => socket.end());
  },
};

function open(socket, mode) {
  socket.setNoDelay(true);
  socket.on('error', (error) => console.error(mode, error.message));
  modes[mode](socket);
}

for (const mode of Object.keys(modes)) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => open(socket, mode));
  server.listen(0, '127.0.0.1', () => console.log('listening', mode, server.address().port));
}

function connect(mode, host, port, target) {
  const socket = net.connect({ host, port, allowHalfOpen: true });
  socket.on('error', (error) => console.error(mode, error.message));
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  let head = Buffer.alloc(0);
  const read = () => {
    let piece;
    while ((piece = socket.read()) !== null) {
      head = Buffer.concat([head, piece]);
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) continue;
      socket.removeListener('readable', read);
      if (head.toString('latin1', 9, 12) !== '200') throw new Error(head.toString());
      const rest = head.subarray(end + 4);
      if (rest.length > 0) socket.unshift(rest);
      open(socket, mode);
      return;
    }
  };
  socket.on('readable', read);
}

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [, mode, host, port, target] = line.split(' ');
    connect(mode, host, Number(port), target);
  })
  .on('close', () => process.exit(0));
