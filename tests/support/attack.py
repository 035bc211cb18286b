"""attack.py BINARY [--seconds N] [--cases a,b] [--short]: latency of a healthy client beside hostile ones.

In each case a healthy client, the probe, is measured alone and then beside the disturbance. It subscribes to every
tick of the replayed captures. Its *age* of a tick is from `rx` (in a replay: when the tick was due) to when the
probe has read it; a *stall* is a time in which nothing came though a tick was due. A case is bad where beside the
disturbance the median age is more than 1.5 times that alone, the 99th percentile more than 20 ms, or a stall longer
than 50 ms; where a number is missing; and where a case has a rule of its own, which its row says.

Everything runs on one machine. CPU time of the attackers must not count as the gateway's latency: they run at nice
15, the probe at nice -10 where that is permitted, the gateway at the nice it is started with. The case `cpu` is a
process at nice 15 that only counts: its row is the error of the method. Other load on the machine makes every row
worse, that of the probe alone included.

`--short` is the form that the tests run: each case small and for a moment. It judges no times, only that the
gateway serves, that the probe's account holds and that closes have the right codes. Exit code 1 where a case is
bad.
"""

import argparse
import json
import multiprocessing
import os
import re
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import wire
from accounts import Account, Shown, Totals
from gateway import PATIENCE_S, REPLAYED, TOKEN, Gateway, end_with_parent, replayed
from wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, Socket, frame

P50_TIMES, P99_MS, STALL_MS = 1.5, 20.0, 50.0
MIB = 1024 * 1024
ATTACKER_NICE, PROBE_NICE = 15, -10
# Longer than `[session] pong_timeout_ms` by default.
PAUSE_S = 22


# The healthy client.


def probe(address, seconds, began, pipe):
    """Reads for `seconds`, and sends its figures through `pipe`."""
    end_with_parent()
    try:
        os.nice(PROBE_NICE)
    except PermissionError:
        pass
    totals, ages, stall = Totals(), [], 0.0
    ended = None
    try:
        sock = Socket(address, timeout=PATIENCE_S)
        hello = sock.message(PATIENCE_S)
        account = Account(totals, Shown(), hello["epoch"], replayed)
        sock.send(
            {
                "op": "subscribe",
                "id": 1,
                "channel": ["trade", "quote"],
                "symbols": [f"{v}*" for v in REPLAYED],
                "mode": "every",
            }
        )
        while (ack := sock.message(PATIENCE_S)) is not None and ack.get("type") != "ack":
            if "close" in ack:
                raise EOFError(f"closed with {ack['close']}")
        account.subscribed(ack, "start")
        began.set()
        until, arrived = time.time() + seconds, time.time()
        latest = until + PATIENCE_S
        # A slow machine makes it take longer, until there is a tick.
        while (now := time.time()) < until or not ages and now < latest:
            message = sock.message(max(until - now, 0.1))
            if message is None:
                continue
            if "close" in message:
                ended = message["close"]
                break
            account.take(message)
            if message["type"] in ("trade", "quote") and "snap" not in message:
                now = time.time()
                age = now - message["rx"] / 1e6
                ages.append(age)
                stall = max(stall, min(age, now - arrived))
                arrived = now
        # A feed that has stopped is a stall as well; 1 s is longer than any pause of the captures.
        stall = max(stall, time.time() - arrived - 1.0) if seconds > 2 else stall
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    began.set()
    ages.sort()
    at = lambda p: 1e3 * ages[min(len(ages) - 1, int(p * len(ages)))] if ages else float("nan")
    faults = Counter(totals.faults)
    pipe.send(
        (len(ages), at(0.5), at(0.99), 1e3 * stall, dict(faults), sum(totals.gaps.values()), ended, totals.examples[:2])
    )


class Seen:
    """The figures of a probe."""

    def __init__(self, seen):
        self.ticks, self.p50, self.p99, self.stall, self.faults, self.named, self.ended, self.examples = seen

    def broken(self):
        """Faults, on a machine of any speed."""
        found = [f"{count} {kind}" for kind, count in self.faults.items()]
        return [
            *found,
            *([f"the probe was closed: {self.ended}"] if self.ended else []),
            *([] if self.ticks else ["no ticks"]),
        ]


def start_probe(gateway, seconds):
    """Starts a probe, and returns once it is subscribed; the result waits for its figures."""
    ours, theirs = multiprocessing.Pipe()
    began = multiprocessing.Event()
    process = multiprocessing.Process(target=probe, args=(gateway.http, seconds, began, theirs), daemon=True)
    process.start()
    began.wait(PATIENCE_S)

    def result():
        if not ours.poll(seconds + 2 * PATIENCE_S):
            process.kill()
            return Seen((0, 0, 0, 0, {}, 0, "the probe hangs", []))
        seen = Seen(ours.recv())
        process.join()
        return seen

    return result


# Disturbances: each is a process of its own at nice 15, until `stop` is set.


class Peer:
    """A connection of a flood."""

    def __init__(self, sock):
        self.sock, self.out, self.frames = sock.sock, b"", sock.frames
        self.sock.setblocking(False)


def flood(stop, opening, count, make, every_s=0.0, counts=None, reads=True):
    """`count` connections that each send the bytes of `make` every `every_s`, or as fast as possible. Closed
    connections are opened again, pings are answered."""
    counts = Counter() if counts is None else counts
    peers, selector = {}, selectors.DefaultSelector()

    def open_one():
        try:
            sock = opening()
        except OSError as error:
            counts[type(error).__name__] += 1
            return
        if sock.status != 101:
            counts[f"http {sock.status}"] += 1
            sock.close()
            return
        counts["opened"] += 1
        peer = Peer(sock)
        peers[peer.sock.fileno()] = peer
        selector.register(
            peer.sock, selectors.EVENT_READ | selectors.EVENT_WRITE if reads else selectors.EVENT_WRITE, peer
        )

    def drop(peer, why):
        counts[why] += 1
        selector.unregister(peer.sock)
        peers.pop(peer.sock.fileno(), None)
        peer.sock.close()

    due = opened = 0.0
    while not stop.is_set():
        now = time.monotonic()
        if len(peers) < count and now >= opened:
            open_one()
            # At once, but for those that were refused or closed before.
            opened = now + (0.02 if counts.keys() - {"bytes", "opened"} else 0.0)
        if now >= due:
            for peer in peers.values():
                if len(peer.out) < 1 << 20:
                    peer.out += make()
            due = now + every_s
        if not peers:
            time.sleep(0.01)
            continue
        for key, events in selector.select(0.01):
            peer = key.data
            try:
                if events & selectors.EVENT_READ:
                    data = peer.sock.recv(1 << 18)
                    if not data:
                        drop(peer, "eof")
                        continue
                    for opcode, payload in peer.frames.feed(data):
                        if opcode == PING:
                            peer.out += frame(PONG, payload)
                        elif opcode == CLOSE and len(payload) >= 2:
                            counts[int.from_bytes(payload[:2])] += 1
                if events & selectors.EVENT_WRITE and peer.out:
                    sent = peer.sock.send(peer.out)
                    peer.out = peer.out[sent:]
                    counts["bytes"] += sent
            except BlockingIOError:
                pass
            except OSError as error:
                drop(peer, type(error).__name__)
        if every_s:
            time.sleep(min(every_s / 4, 0.005))
    return counts


def connected(gateway, counts, path="/ws", rcvbuf=None):
    """A WebSocket; `None` where the gateway refuses it, which `counts` shows."""
    try:
        sock = Socket(gateway.http, path, timeout=PATIENCE_S, rcvbuf=rcvbuf)
    except OSError as error:
        counts[type(error).__name__] += 1
        return None
    if sock.status != 101:
        counts[f"http {sock.status}"] += 1
        sock.close()
        return None
    return sock


def several(gateway, counts, count, path="/ws", rcvbuf=None):
    """As many as the gateway accepts."""
    socks = [connected(gateway, counts, path, rcvbuf) for _ in range(count)]
    return [sock for sock in socks if sock is not None]


def answered(sock, counts, kind="ack"):
    """Waits for an answer of this kind; counts how the wait ended."""
    try:
        while (message := sock.message(10)) is not None and message.get("type") not in (kind, "error"):
            if "close" in message:
                counts[message["close"]] += 1
                return
        counts["no answer" if message is None else message["type"]] += 1
    except (EOFError, OSError) as error:
        counts[type(error).__name__] += 1


def names(count, venue="binance-futures"):
    """Names that no capture has: they are awaited."""
    return [f"{venue}:{'X' * 20}{n:06}" for n in range(count)]


def awaiting(gateway, count):
    def opening():
        sock = Socket(gateway.http, timeout=PATIENCE_S)
        sock.send(
            {"op": "subscribe", "id": 1, "channel": ["trade", "quote"], "symbols": names(count), "mode": "latest"}
        )
        return sock

    return opening


def set_flood(gateway, stop, size, counts):
    wanted = frame(TEXT, json.dumps({"op": "set", "id": 2, "symbols": names(1000)[::-1], "max_hz": 5}))
    flood(stop, awaiting(gateway, 1000), size, lambda: wanted, 0.02, counts)


def leaving(gateway, stop, size, counts):
    wanted = {"op": "subscribe", "id": 1, "channel": ["trade", "quote"], "symbols": names(1000), "mode": "latest"}
    while not stop.is_set():
        socks = several(gateway, counts, size)
        for sock in socks:
            sock.send(wanted)
        for sock in socks:
            answered(sock, counts)
        for sock in socks:
            sock.close()
        counts["left"] += len(socks)
        stop.wait(0.05)


def json_flood(gateway, stop, size, counts):
    body = frame(TEXT, "{" + ",".join(f'"{n:05x}":{{"k":[1.5e-7]}}' for n in range(2_600)) + "}")
    flood(stop, lambda: Socket(gateway.http, timeout=PATIENCE_S), size, lambda: body, 0.0, counts)


def pong_flood(gateway, stop, size, counts):
    both = iter(range(1 << 30))
    path = lambda: "/publish" if next(both) % 2 else "/ws"
    flood(
        stop, lambda: Socket(gateway.http, path(), timeout=PATIENCE_S), size, lambda: frame(PONG) * 4_000, 0.0, counts
    )


def fragment_flood(gateway, stop, size, counts):
    both = iter(range(1 << 30))

    def opening():
        sock = Socket(gateway.http, "/publish" if next(both) % 2 else "/ws", timeout=PATIENCE_S)
        if sock.status == 101:
            sock.raw(frame(TEXT, fin=False))
        return sock

    flood(stop, opening, size, lambda: frame(CONT, fin=False) * 4_000, 0.0, counts)


def big_flood(gateway, stop, size, counts):
    body = frame(BINARY, b"\0" * 1_000_000)
    flood(stop, lambda: Socket(gateway.http, "/publish", timeout=PATIENCE_S), size, lambda: body, 0.0, counts)


def strangers(gateway, stop, size, counts):
    """Connections to /publish that show no token and stay open, while a publisher with the token tries to connect."""
    held = []
    for _ in range(size):
        held.append(stranger(gateway, counts))
    # Once in any case: on a busy machine it may have taken all the time to connect.
    while True:
        counts["publisher in" if lets_in(gateway) else "publisher OUT"] += 1
        if stop.is_set():
            return
        for at, sock in enumerate(held):
            if sock is None or closed(sock):
                held[at] = stranger(gateway, counts)
        stop.wait(0.1)


def stranger(gateway, counts):
    counts["connections"] += 1
    return connected(gateway, counts, "/publish")


def closed(sock):
    sock.sock.setblocking(False)
    try:
        return not sock.sock.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError:
        return True


def lets_in(gateway):
    try:
        with socket.create_connection(gateway.publish, timeout=3) as sock:
            sock.sendall(json.dumps({"op": "auth", "token": TOKEN}).encode() + b"\n")
            return b'"ack"' in sock.recv(1_000)
    except OSError:
        return False


def resume_storm(gateway, stop, size, counts):
    """Connects `size` clients, then sends all their `resume` requests at once."""
    while not stop.is_set():
        socks = several(gateway, counts, size, rcvbuf=8_192)
        hello = socks[0].message(PATIENCE_S) if socks else None
        if hello is None or hello.get("type") != "hello":
            stop.wait(0.5)
            continue
        seq = {"binance-futures:BTCUSDT": 1, "coinbase:BTC-USD": 1, "kraken:XBT/USD": 1}
        resume = {"epoch": hello["epoch"], "seq": seq}
        wanted = {
            "op": "subscribe",
            "id": 1,
            "channel": "quote",
            "symbols": list(seq),
            "mode": "every",
            "resume": resume,
        }
        began = time.monotonic()
        for sock in socks:
            sock.send(wanted)
        for sock in socks:
            answered(sock, counts)
        counts["slowest ack ms"] = max(counts["slowest ack ms"], int(1e3 * (time.monotonic() - began)))
        for sock in socks:
            sock.close()
        stop.wait(0.5)


def fill(gateway, count, name="Z" * 40, quotes=True):
    """Publishes a trade, and a quote, of `count` instruments; each publisher as many as it may name."""
    for first in range(0, count, 8_000):
        lines = [json.dumps({"op": "auth", "token": TOKEN})]
        for n in range(first, min(count, first + 8_000)):
            symbol = f"demo:{n:06}{name}"
            if quotes:
                quote = '"bid":"1.24","bid_size":"10","ask":"1.26","ask_size":"8"'
                lines.append(f'{{"type":"quote","symbol":"{symbol}",{quote}}}')
            lines.append(f'{{"type":"trade","symbol":"{symbol}","price":"1.25","size":"3"}}')
        answer = b""
        with socket.create_connection(gateway.publish, timeout=2 * PATIENCE_S) as sock:
            sock.sendall(("\n".join(lines) + "\n").encode())
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(1 << 16):
                answer += data
        if b'"error"' in answer:
            raise OSError(f"publishing: {answer[:200].decode()}")


def listing(gateway, stop, size, counts):
    """Publishes trades of instruments that nobody has named yet, while `size` clients subscribe to all quotes: each
    takes every instrument, and is sent nothing of it."""
    path = "/ws?symbols=*&channel=quote&mode=latest&max_hz=0.01&snapshot=false"
    socks = several(gateway, counts, size, path)
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.sock.setblocking(False)
        selector.register(sock.sock, selectors.EVENT_READ, sock)
    done = threading.Event()

    def publish():
        try:
            fill(gateway, 40 * size, "N", quotes=False)
            counts["listed"] += 40 * size
        except OSError as error:
            counts[f"failed: {error}"] += 1
        finally:
            done.set()

    threading.Thread(target=publish, daemon=True).start()
    while not (stop.is_set() and done.is_set()):
        for key, _ in selector.select(0.05):
            try:
                if not key.fileobj.recv(1 << 18):
                    selector.unregister(key.fileobj)
            except BlockingIOError:
                pass


def wild(gateway, stop, size, counts):
    path = "/ws?symbols=*&mode=latest&max_hz=0.01&snapshot=false"
    flood(stop, lambda: Socket(gateway.http, path, timeout=PATIENCE_S), size, bytes, 0.02, counts)


def stalled(gateway, stop, size, counts):
    """Subscribes to everything, and reads nothing: no ping is answered."""
    path = "/ws?symbols=*&mode=every"
    socks = several(gateway, counts, size, path, rcvbuf=8_192)
    stop.wait()
    counts["held"] = len(socks)


def slow_past(gateway, stop, size, counts):
    """Catches up from the beginning of the history at some 10 KB/s."""
    socks = several(gateway, counts, size, rcvbuf=8_192)
    for sock in socks:
        past = {
            "op": "subscribe",
            "id": 1,
            "channel": ["trade", "quote"],
            "symbols": ["*"],
            "mode": "every",
            "from": "-10m",
        }
        sock.send(past)
        sock.sock.setblocking(False)
    while not stop.is_set():
        for sock in socks:
            try:
                counts["bytes"] += len(sock.sock.recv(512))
            except BlockingIOError:
                pass
            except OSError as error:
                counts[type(error).__name__] += 1
        stop.wait(0.05)


def counting(gateway, stop, size, counts):
    """No disturbance of the gateway at all."""
    while not stop.is_set():
        counts["turns"] += sum(range(1_000)) > 0


# name, what it does, how many connections: in full and in short.
CASES = {
    "cpu": (counting, "a process that only counts: the error of the method", 1, 1),
    "set": (set_flood, "await 1,000 names, `set` them 50 times a second", 20, 2),
    "leave": (leaving, "await 1,000 names, and leave all at once", 20, 2),
    "json": (json_flood, "64 KiB of JSON, far over the allowance", 10, 2),
    "pongs": (pong_flood, "pongs to /ws and /publish", 8, 2),
    "fragments": (fragment_flood, "empty fragments to /ws and /publish", 8, 2),
    "big": (big_flood, "1 MB binary messages to /publish", 8, 2),
    "strangers": (strangers, "72 connections to /publish without a token", 72, 72),
    "resume": (resume_storm, "come back at once, from the first number on", 400, 20),
    "stalled": (stalled, "read nothing", 60, 4),
    "from": (slow_past, "catch up from the beginning, slowly", 20, 4),
    "origin": (None, "pages and hosts that are not this machine's", 0, 0),
    "codes": (None, "what is not allowed is closed with its code", 0, 0),
    "pause": (None, "SIGSTOP of the gateway", 50, 3),
    "wild": (wild, "`?symbols=*` of 20,000 instruments", 100, 4),
    "listing": (listing, "a publisher lists 8,000 instruments beside 200 `?symbols=*`", 200, 4),
}

# What an attacker counts, any of it, if it has done what its row says.
SIGNS = {
    "cpu": ["turns"],
    "set": ["bytes"],
    "leave": ["ack"],
    "json": ["bytes"],
    "pongs": ["bytes"],
    "fragments": ["bytes"],
    "big": ["bytes"],
    "strangers": ["publisher in"],
    "resume": ["ack"],
    "stalled": ["held"],
    "from": ["bytes"],
    "wild": ["opened"],
    "listing": ["listed"],
}


def attacker(run, gateway, stop, size, pipe):
    end_with_parent()
    os.nice(ATTACKER_NICE)
    counts = Counter()
    try:
        run(gateway, stop, size, counts)
    except Exception as error:
        counts[f"failed: {type(error).__name__}: {error}"] += 1
    pipe.send(dict(counts))


class Doors:
    """The addresses of a gateway."""

    def __init__(self, gateway):
        self.http, self.admin, self.publish = gateway.http, gateway.admin, gateway.publish


def beside(gateway, run, size, seconds, warm_s):
    """The probe's figures beside a disturbance, the highest memory meanwhile, and the counts of the attacker."""
    stop, (ours, theirs) = multiprocessing.Event(), multiprocessing.Pipe()
    process = multiprocessing.Process(target=attacker, args=(run, Doors(gateway), stop, size, theirs), daemon=True)
    process.start()
    time.sleep(warm_s)
    result, most = start_probe(gateway, seconds), gateway.resident()
    until = time.monotonic() + seconds
    while time.monotonic() < until and gateway.exit_code() is None:
        most = max(most, gateway.resident())
        time.sleep(0.05)
    seen = result()
    print("measured", flush=True)
    stop.set()
    # On a busy machine an attacker at nice 15 takes its time to come to its end.
    counts = ours.recv() if ours.poll(PATIENCE_S) else {"failed: it does not come to its end": 1}
    process.join(1)
    process.kill()
    return seen, most, counts


# Cases with rules of their own.


def pairs(port):
    """Origin, Host, whether the request is to be accepted, and what it is."""
    ours = f"127.0.0.1:{port}"
    return [
        (None, ours, True, "a program"),
        (f"http://{ours}", ours, True, "our own page"),
        ("http://evil.example", ours, False, "a foreign page"),
        ("http://localhost.evil.example", ours, False, "a foreign page whose name begins like ours"),
        ("http://0.0.0.0:1", ours, False, "0.0.0.0"),
        ("file://", ours, False, "a file"),
        ("", ours, False, "an empty origin"),
        (f"http://evil.example:{port}", f"evil.example:{port}", False, "a foreign name that leads here (rebinding)"),
        (None, f"evil.example:{port}", False, "a program that uses a foreign name"),
        ("null", ours, False, "a sandboxed frame of any page"),
    ]


def origins(gateway):
    """Pairs that /ws, POST /api/replay or /metrics answers wrongly."""
    wrong = []
    for origin, host, may, what in pairs(gateway.http[1]):
        headers = [f"Origin: {origin}"] if origin is not None else []
        sock = Socket(gateway.http, headers=headers, host=host)
        sock.close()
        body = '{"do":"speed","speed":1}'
        # As JSON, or that alone would have it refused.
        typed = [*headers, "Content-Type: application/json"]
        post, _ = wire.http(gateway.http, "POST", "/api/replay", typed, body, host=host)
        # A page of the admin listener is of its port.
        there = lambda text: text.replace(str(gateway.http[1]), str(gateway.admin[1]))
        admin, _ = wire.http(gateway.admin, "GET", "/metrics", list(map(there, headers)), host=there(host))
        row = f"{what}: ws {sock.status}, POST {post}, admin {admin}"
        if [sock.status == 101, post == 200, admin == 200] != [may] * 3:
            wrong.append(row)
    return wrong


def codes(gateway):
    """Violations of the protocol whose close code is not the documented one."""
    big = 64 * 1024 * 1024
    cases = [
        ("a binary message", "/ws", frame(BINARY, b"x"), {1003}),
        ("a frame that is not masked", "/ws", frame(TEXT, b"{}", masked=False), {1002}),
        ("a reserved opcode", "/ws", frame(3), {1002}),
        ("text that is not UTF-8", "/ws", frame(TEXT, b"\xff\xfe"), {1007}),
        ("a message that is too big", "/ws", b"\x81\xff" + big.to_bytes(8) + b"\0\0\0\0", {1009}),
        ("65 fragments", "/ws", frame(TEXT, fin=False) + frame(CONT, fin=False) * 65, {4502}),
        ("200 pongs", "/ws", frame(PONG) * 200, {4502}),
        ("a wrong token", "/publish", frame(TEXT, '{"op":"auth","token":"guess"}'), {4500}),
    ]
    wrong = []
    for what, path, data, expected in cases:
        sock = Socket(gateway.http, path)
        sock.raw(data)
        code = sock.close_code(PATIENCE_S)
        sock.close()
        if code not in expected:
            wrong.append(f"{what}: {code}, and not {expected}")
    return wrong


def read_all(socks, seconds, ends):
    """Reads all connections, which answers pings; counts in `ends` those that end, and forgets them."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for sock in list(socks):
            try:
                message = sock.message(min(left, 0.005))
                closed_with = message.get("close") if message else None
            except (EOFError, OSError) as error:
                closed_with = type(error).__name__
            if closed_with is not None:
                ends[closed_with] += 1
                socks.remove(sock)
                sock.close()


def pause(gateway, size, seconds):
    """Stops the gateway for `seconds`. Clients that answer pings must not be closed by it, no number be missing."""
    result = start_probe(gateway, seconds + max(2, seconds / 5))
    socks = [Socket(gateway.http, "/ws?symbols=coinbase:BTC-USD", timeout=PATIENCE_S) for _ in range(size)]
    ends = Counter()
    read_all(socks, 1, ends)
    os.kill(gateway.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(gateway.pid, signal.SIGCONT)
    read_all(socks, 1 if seconds < 10 else 4, ends)
    for sock in socks:
        sock.close()
    wrong = [f"{sum(ends.values())} of {size} closed: {dict(ends)}"] if ends else []
    return [*wrong, *result().broken()]


def calm(gateway):
    """Waits until the backlog of a case is gone, 20 s at most."""
    until = time.monotonic() + 20
    while time.monotonic() < until and (seen := start_probe(gateway, 0.4)()).p99 > P99_MS and not seen.ended:
        time.sleep(0.2)


def serves(gateway):
    """Findings where the gateway does not serve: a new client gets a tick, and both listeners answer."""
    if gateway.exit_code() is not None:
        return [f"the gateway ended with {gateway.exit_code()}"]
    wrong = []
    for address in (gateway.http, gateway.admin):
        status, _ = wire.http(address, "GET", "/healthz", timeout=PATIENCE_S)
        if status != 200:
            wrong.append(f"/healthz: {status}")
    sock = Socket(gateway.http, "/ws?symbols=coinbase:*,kraken:*,binance-futures:*&mode=every", timeout=PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while (message := sock.message(max(0.0, until - time.monotonic()))) is not None:
        if message.get("type") in ("trade", "quote") and "snap" not in message:
            break
    else:
        wrong.append("no ticks for a new client")
    sock.close()
    return wrong


def turns(gateway):
    """How many turns the shards have made, and how many took longer than 1 ms."""
    status, body = wire.http(gateway.admin, "GET", "/metrics", timeout=PATIENCE_S)
    if status != 200:
        raise SystemExit(f"/metrics: {status}")
    counts = Counter()
    for labels, count in re.findall(r"^tickfan_turn_seconds_bucket\{(.+)\} (\d+)$", body.decode(), re.M):
        if 'thread="shard-' in labels:
            counts[float(re.search(r'le="(.+?)"', labels).group(1))] += int(count)
    return counts[float("inf")], counts[float("inf")] - counts[0.001]


# A case, and its row.


def judge(alone, seen):
    """Findings against the limits, times included."""
    wrong = seen.broken()
    if seen.p50 > P50_TIMES * alone.p50:
        wrong.append(f"p50 {seen.p50 / alone.p50:.1f}x")
    if seen.p99 > P99_MS:
        wrong.append(f"p99 {seen.p99:.1f} ms")
    if seen.stall > STALL_MS:
        wrong.append(f"stall {seen.stall:.0f} ms")
    return wrong


def case(gateway, name, args):
    run, what, full, short = CASES[name]
    size, before = (short if args.short else full), gateway.resident()
    row, notes = ["-"] * 6, ""
    made, long = turns(gateway)
    if name == "origin":
        wrong = origins(gateway)
    elif name == "codes":
        wrong = codes(gateway)
    elif name == "pause":
        wrong = pause(gateway, size, 1 if args.short else PAUSE_S)
    else:
        if name == "wild":
            fill(gateway, 500 if args.short else 20_000)
            before = gateway.resident()
        if args.short:
            seen, most, counts = beside(gateway, run, size, args.seconds, 0.3)
            wrong = seen.broken()
        else:
            alone = start_probe(gateway, args.seconds)()
            seen, most, counts = beside(gateway, run, size, args.seconds, 1.0)
            wrong = judge(alone, seen)
            if name == "listing":
                # Each of those clients is told the state of each instrument: that is load, as ticks for them are.
                wrong = [what for what in wrong if not what.startswith("p50")]
            row = [f"{alone.p50:.2f}", f"{seen.p50:.2f}", f"{alone.p99:.1f}", f"{seen.p99:.1f}"]
            row += [f"{alone.stall:.0f}", f"{seen.stall:.0f}"]
        notes = ", ".join(f"{k} {v}" for k, v in sorted(counts.items(), key=str))
        row.append(f"{(most - before) / MIB:+.0f}")
        if name == "strangers":
            out, came = counts.get("publisher OUT", 0), counts.get("publisher in", 0)
            wrong += [f"publishers let in: {came} of {came + out}"] if out else []
        wrong += seen.examples if seen.faults else []
        # Refused connections are an answer. An attacker that fails by itself, or does nothing, is a fault here.
        wrong += (
            [f"the attacker: {what}" for what in counts if str(what).startswith("failed")]
            if any(counts.get(sign) for sign in SIGNS[name])
            else [f"no attack: none of {', '.join(map(str, SIGNS[name]))} in {counts}"]
        )
    row += ["-"] * (7 - len(row))
    made, long = (now - then for now, then in zip(turns(gateway), (made, long)))
    row.append(f"{long} of {made}")
    print("over", flush=True)
    wrong += serves(gateway)
    return [name, *row, "; ".join(map(str, wrong)) or "ok"], bool(wrong), what, notes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--cases", default="")
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    args.seconds = args.seconds or (0.5 if args.short else 5.0)
    chosen = [name for name in args.cases.split(",") if name] or list(CASES)
    unknown = set(chosen) - CASES.keys()
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    multiprocessing.set_start_method("fork")

    rows = [["case", "p50 alone", "beside", "p99 alone", "beside", "stall alone", "beside", "MiB", "turns > 1 ms", "verdict"]]
    bad, explained = 0, []
    with tempfile.TemporaryDirectory(prefix="tickfan-attack-") as folder:
        gateway = Gateway(args.binary, Path(folder))
        try:
            time.sleep(0.5 if args.short else 2)
            for name in chosen:
                print(f"{name} begins", flush=True)
                row, wrong, what, notes = case(gateway, name, args)
                rows.append(row)
                bad += wrong
                explained.append(f"{name}: {what}{'. ' + notes if notes else ''}")
                print(f"{name}: {row[-1]}", flush=True)
                if not args.short:
                    calm(gateway)
            gateway.process.send_signal(signal.SIGTERM)
            code = gateway.process.wait(PATIENCE_S)
            complaints = gateway.complaints()
        finally:
            gateway.kill()
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        print(
            "  ".join(
                cell.ljust(w) if i in (0, len(row) - 1) else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths))
            ).rstrip()
        )
    print(
        "\nms: p50 and p99 of ages and longest stall of the probe, alone and beside; MiB: most memory beside, less before;"
        "\nturns > 1 ms: of the threads that serve clients, over the whole case"
    )
    print(*explained, sep="\n")
    for complaint in complaints[:5]:
        print(f"in the log: {complaint}")
    if code != 0:
        print(f"the gateway ended with {code}")
    print(f"{len(rows) - 1} cases, {bad} bad")
    return 1 if bad or code != 0 else 0


if __name__ == "__main__":
    sys.exit(main())
