"""WebSocket frames byte by byte (RFC 6455), for clients that a library does not allow: that do not read, do not
answer pings, or violate the protocol. Nothing in here is shared with the gateway.
"""

import base64
import json
import os
import socket
import struct
import time

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def request(path, host, headers=()):
    """The head of a WebSocket handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin1")


def frame(opcode, payload=b"", fin=True, masked=True):
    """A frame of a client. The mask is zero: it costs nothing, and is one like any other."""
    payload = payload.encode() if isinstance(payload, str) else payload
    first, mask = (0x80 if fin else 0) | opcode, 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, mask | len(payload))
    elif len(payload) < 65_536:
        head = struct.pack("!BBH", first, mask | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, mask | 127, len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Frames:
    """Takes bytes of a gateway, gives whole frames: pairs of opcode and payload."""

    def __init__(self):
        self.rest = bytearray()

    def feed(self, data):
        self.rest += data
        at, out, rest = 0, [], self.rest
        while len(rest) - at >= 2:
            length, start = rest[at + 1] & 0x7F, at + 2
            if length == 126:
                if len(rest) < at + 4:
                    break
                length, start = struct.unpack_from("!H", rest, at + 2)[0], at + 4
            elif length == 127:
                if len(rest) < at + 10:
                    break
                length, start = struct.unpack_from("!Q", rest, at + 2)[0], at + 10
            if len(rest) < start + length:
                break
            out.append((rest[at] & 0x0F, bytes(rest[start : start + length])))
            at = start + length
        del rest[:at]
        return out


class Socket:
    """A blocking connection. It does nothing by itself but answer pings, unless `answers_pings` is false."""

    def __init__(self, address, path="/ws", headers=(), timeout=10.0, rcvbuf=None, answers_pings=True, host=None):
        self.answers_pings, self.frames, self.waiting = answers_pings, Frames(), []
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self.sock.sendall(request(path, host or f"{address[0]}:{address[1]}", headers))
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(65_536)
            if not data:
                break
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        self.status = int(words[1]) if len(words) > 1 else 0
        self.body = rest
        if self.status == 101:
            self.waiting = self.frames.feed(rest)

    def send(self, message):
        self.sock.sendall(frame(TEXT, json.dumps(message)))

    def raw(self, data):
        self.sock.sendall(data)

    def next(self, timeout):
        """The next frame; `None` if there is none in time. At the end EOFError."""
        until = time.monotonic() + timeout
        while not self.waiting:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(262_144)
            except TimeoutError:
                return None
            if not data:
                raise EOFError
            self.waiting = self.frames.feed(data)
        opcode, payload = self.waiting.pop(0)
        if opcode == PING and self.answers_pings:
            self.raw(frame(PONG, payload))
        return opcode, payload

    def message(self, timeout):
        """The next message, an object; a close frame is `{"close": code}`. `None` if there is none in time."""
        until = time.monotonic() + timeout
        while (one := self.next(max(0.0, until - time.monotonic()))) is not None:
            opcode, payload = one
            if opcode == TEXT:
                return json.loads(payload)
            if opcode == CLOSE:
                return {"close": struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005}
        return None

    def close_code(self, timeout):
        """Reads to the end: the code of the close frame, or how it ended without one."""
        until = time.monotonic() + timeout
        try:
            while (message := self.message(max(0.0, until - time.monotonic()))) is not None:
                if "close" in message:
                    return message["close"]
        except EOFError:
            return "eof"
        except OSError as error:
            return type(error).__name__
        return "open"

    def close(self):
        self.sock.close()


def http(address, method, path, headers=(), body="", timeout=10.0, host=None):
    """The status and the body of an answer."""
    with socket.create_connection(address, timeout=timeout) as sock:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host or f'{address[0]}:{address[1]}'}",
            "Connection: close",
            *headers,
        ]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin1"))
        answer = b""
        while data := sock.recv(262_144):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 else 0), body
