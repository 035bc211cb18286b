"""soak.py BINARY [--seconds N] [--seed N] [--kinds a,b]: a gateway that replays the shipped captures in a loop, takes a
publisher and records, with 50 clients of all kinds, each with an account of its own. Prints a table at its end.

Checked: every number is delivered, merged or named; replayed symbols are never live; one number has the same
content for all clients; each kind of client did what it is there for (was cut, resumed, caught up, …); no error in
the log; open files and threads return to their counts at the start; memory grows by less than 1 MiB in 10 minutes
(judged if 10 minutes or more follow the first quarter, which is warm-up; by the bytes that are allocated if the
binary counts them, for what the allocator keeps goes up and down by more); SIGTERM sends `bye` 4001 to every client
and ends with exit code 0. Exit code 1 if a check fails.

A run is extended until each kind has done what it is there for: to four times its length, or by two minutes.
"""

import argparse
import asyncio
import json
import logging
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import websockets
import wire
from accounts import Account, Shown, Totals
from gateway import PATIENCE_S, TOKEN, Gateway, replayed
from tickfan_client import check_message

# Added to the configuration of gateway.py. The history is small, so that its files are reused during the run.
CONFIG = """history_bytes_max = 8388608
[session]
warn_behind_ms = 500
shed_behind_ms = 1000
cut_after_ms = {cut_after_ms}
"""
# Checkpoints come and go: at their default bounds, tens of megabytes from one round to the next, which would hide growth.
REPLAY = """checkpoint_bytes_max = 4194304
room_checkpoint_bytes_max = 1048576
"""
# A pause between two visits of a client that goes and comes.
PAUSE_S = (0.2, 1.5)
SAMPLE_S = 1.0
# How long the gateway keeps the last words of a client that it cut (docs/PROTOCOL.md).
LAST_WORDS_S = 60
# The form of one tick in so many is checked: the clients share a core.
FORM_EVERY = 8
MIB = 1024 * 1024
SLOPE_MAX = 1.0
# Memory is judged over this time, by its lowest in each round of the captures: checkpoints of a replay come and go.
JUDGED_S, ROUND_S = 600, 75


class Over(Exception):
    """The run has ended."""


class World:
    """State that all clients share."""

    def __init__(self, args, gateway):
        self.args, self.gateway = args, gateway
        self.shown, self.totals = Shown(), {}
        self.over = asyncio.Event()
        self.random = random.Random(args.seed)
        self.faults = []

    def of(self, kind):
        return self.totals.setdefault(kind, Totals())

    async def pause(self, seconds):
        """Waits `seconds`; raises `Over` if the run ends meanwhile."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            return
        raise Over


class Connection:
    """A WebSocket whose messages are checked and booked. `slow` has small buffers, which do not hide its slowness."""

    @classmethod
    async def open(cls, world, kind, path, slow=False, room=False):
        self = cls()
        self.world, self.totals, self.path = world, world.of(kind), path
        options = {
            "max_size": None,
            "compression": None,
            "open_timeout": PATIENCE_S,
            "ping_interval": None,
            "close_timeout": 2,
        }
        if slow:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, world.gateway.http)
            options |= {"sock": sock, "max_queue": 1}
        self.ws = await websockets.connect(f"ws://127.0.0.1:{world.gateway.http[1]}{path}", **options)
        hello = json.loads(await asyncio.wait_for(self.ws.recv(), PATIENCE_S))
        self.epoch = hello["epoch"]
        recorded = (lambda _: True) if room else replayed
        self.account = Account(self.totals, world.shown, self.epoch, recorded)
        self.totals.counts["connections"] += 1
        self.bye, self.number, self.answers = None, 0, {}
        return self

    async def next(self, timeout=PATIENCE_S):
        """The next message, booked; `None` if there is none in time. ConnectionClosed at the end."""
        try:
            # `wait_for` would make a task of each message.
            async with asyncio.timeout(timeout):
                text = await self.ws.recv()
        except TimeoutError:
            return None
        message, counts = json.loads(text), self.totals.counts
        counts["messages"] += 1
        counts["bytes"] += len(text)
        kind = message["type"]
        if kind not in ("trade", "quote") or counts["messages"] % FORM_EVERY == 0:
            try:
                check_message(message)
            except AssertionError as error:
                self.totals.fault("form", error)
        if self.bye is not None:
            self.totals.fault("form", f"after the bye: {message}")
        if kind == "bye":
            self.bye = message
        elif kind == "error":
            self.totals.counts["error_" + message["code"]] += 1
            if message["code"] != "rate_limited":
                self.totals.fault("error", message)
        elif kind in ("ack", "pong"):
            pass
        else:
            self.account.take(message)
        return message

    async def ask(self, op, begins="start", resume=None, **request):
        """Sends a request, books everything up to its answer, and returns the answer."""
        self.number += 1
        if resume is not None:
            request["resume"] = resume
        await self.ws.send(json.dumps({"op": op, "id": self.number, **request}))
        while (answer := await self.next()) is not None:
            if answer["type"] in ("ack", "pong", "error") and answer.get("id") == self.number:
                break
        else:
            self.totals.fault("error", f"no answer to {op}")
            raise Over
        if answer["type"] == "ack" and op == "subscribe":
            self.account.subscribed(answer, begins, resume["seq"] if resume else None)
        elif answer["type"] == "ack" and op == "unsubscribe":
            self.account.unsubscribed(answer)
        return answer

    async def by_url(self, begins="start"):
        """Books the ack of the subscription in the address."""
        while (answer := await self.next())["type"] != "ack":
            pass
        self.account.subscribed(answer, begins)

    async def read(self, seconds, pace=None, until=None):
        """Reads for `seconds`, at most `pace` bytes a second, or until a message for which `until` holds."""
        end, got, began = time.monotonic() + seconds, 0, time.monotonic()
        while (left := end - time.monotonic()) > 0 and not self.world.over.is_set():
            before = self.totals.counts["bytes"]
            message = await self.next(min(left, 1.0))
            if until and message and until(message):
                return message
            got += self.totals.counts["bytes"] - before
            if pace and got > pace * (time.monotonic() - began):
                await asyncio.sleep(min(got / pace - (time.monotonic() - began), left))
        return None

    async def sync(self):
        """Returns when everything that was queued before has been booked."""
        answer = await self.ask("ping")
        self.totals.counts["synced"] += answer["type"] == "pong"

    async def leave(self):
        """Closes; what is queued meanwhile is read and booked."""
        closing = asyncio.create_task(self.ws.close())
        try:
            while True:
                await self.next(5)
        except websockets.ConnectionClosed:
            await closing


# The kinds of clients. Each function is one visit, repeated until the end.


async def fast(world, kind, n):
    wildcard = ["*", "coinbase:*", "binance-futures:*", "kraken:*"][n % 4]
    visit = await Connection.open(world, kind, f"/ws?symbols={wildcard}&mode=every")
    await visit.by_url()
    while not world.over.is_set():
        await visit.read(5)
        await visit.sync()
    await visit.leave()


async def latest(world, kind, n):
    visit = await Connection.open(world, kind, "/ws")
    hz = [0.5, 2, 5, 20, None][n % 5]
    more = {"max_hz": hz} if hz else {}
    await visit.ask("subscribe", channel=["trade", "quote"], symbols=["*"], mode="latest", **more)
    await visit.read(world.random.uniform(10, 30))
    await visit.sync()
    await visit.leave()


async def slow(world, kind, n, on_slow):
    """Reads less than is sent: it is shed, and with `on_slow` `cut` it is cut and resumes."""
    visit = await Connection.open(world, kind, "/ws", slow=True)
    wanted = {"channel": ["trade", "quote"], "symbols": ["*"], "mode": "every", "on_slow": on_slow}
    await visit.ask("subscribe", **wanted)
    pace = [4_000, 8_000, 16_000, 24_000][n % 4]
    try:
        while not world.over.is_set():
            await visit.read(10, pace)
    except websockets.ConnectionClosed:
        world.of(kind).counts["cut"] += visit.bye is not None and visit.bye["code"] == 4000
        await resume(world, kind, visit, 2)
        return
    await visit.leave()


async def slow_gap(world, kind, n):
    await slow(world, kind, n, "gap")


async def slow_cut(world, kind, n):
    await slow(world, kind, n, "cut")


async def resume(world, kind, before, seconds):
    """Connects again and resumes behind the numbers of the connection `before`."""
    visit = await Connection.open(world, kind, "/ws")
    for channel in ("trade", "quote"):
        seq = {symbol: n for (symbol, c), n in before.account.told.items() if c == channel}
        if seq:
            resumed = {"epoch": before.epoch, "seq": seq}
            await visit.ask("subscribe", resume=resumed, channel=channel, symbols=list(seq), mode="every")
    await visit.read(seconds)
    await visit.sync()
    await visit.leave()


async def resumer(world, kind, n):
    """Aborts its connection, and resumes."""
    visit = await Connection.open(world, kind, "/ws?symbols=*&mode=every")
    await visit.by_url()
    await visit.read(world.random.uniform(1, 4))
    visit.ws.transport.abort()
    await world.pause(world.random.uniform(0.1, 2 + n))
    await resume(world, kind, visit, world.random.uniform(1, 5))


async def stalled(world, kind, n):
    """One visit of a client that stalls. Where its machine lets it read only after the gateway has given its last words up,
    it is not judged."""
    began = time.monotonic()
    try:
        await stall(world, kind, n)
    except (BrokenPipeError, ConnectionResetError):
        if time.monotonic() - began < world.args.cut_after_ms / 1_000 + LAST_WORDS_S:
            raise
        world.of(kind).counts["late"] += 1


async def stall(world, kind, n):
    """Reads nothing, pings included, until it has been cut; then it reads the rest up to the `bye`, and resumes."""
    totals = world.of(kind)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, world.gateway.http)
    reader, writer = await asyncio.open_connection(sock=sock, limit=1_024)
    path = "/ws?symbols=*&mode=every" if n % 2 else "/ws?symbols=*&mode=latest"
    writer.write(wire.request(path, "127.0.0.1"))
    totals.counts["connections"] += 1
    try:
        await world.pause(world.args.stall)
    except Over:
        writer.transport.abort()
        raise
    # What stands in the buffers of both kernels, and the `bye` behind it.
    # It reads like any other client now: with the small window, megabytes would take longer than the gateway keeps them.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_048_576)
    before = Connection()
    before.account = None
    frames, data = wire.Frames(), bytearray()
    while b"\r\n\r\n" not in data:
        data += await asyncio.wait_for(reader.readexactly(1), PATIENCE_S)
    code = None
    async with asyncio.timeout(PATIENCE_S):
        while code is None:
            data = await reader.read(65_536)
            if not data:
                code = "eof"
            for opcode, payload in frames.feed(data):
                if opcode == wire.CLOSE:
                    code = struct.unpack("!H", payload[:2])[0]
                elif opcode == wire.PING and not writer.transport.is_closing():
                    writer.write(wire.frame(wire.PONG, payload))
                elif opcode == wire.TEXT:
                    message = json.loads(payload)
                    totals.counts["messages"] += 1
                    if message["type"] == "hello":
                        before.epoch = message["epoch"]
                        before.account = Account(totals, world.shown, before.epoch, replayed)
                    elif message["type"] == "ack":
                        before.account.subscribed(message, "start")
                    elif message["type"] != "bye":
                        before.account.take(message)
            if code is None and world.over.is_set():
                code = "over"
    writer.close()
    totals.counts["cut"] += code == 4000
    if code not in (4000, "over"):
        totals.fault("close", f"a client that read nothing was closed with {code}")
    if code == 4000:
        await resume(world, kind, before, 2)


async def churn(world, kind, n):
    """Subscribes, changes and unsubscribes, names and a wildcard that do not overlap."""
    visit = await Connection.open(world, kind, "/ws")
    names = [
        "coinbase:BTC-USD",
        "coinbase:ETH-USD",
        "kraken:XBT/USD",
        "kraken:ETH/USD",
        "demo:A",
        "demo:B",
        "demo:NEVER",
    ]
    some = lambda: world.random.sample(names, world.random.randint(1, len(names)))
    channels = lambda: world.random.choice(["trade", "quote", ["trade", "quote"]])
    for _ in range(world.random.randint(20, 60)):
        if world.over.is_set():
            break
        act = world.random.randrange(8)
        if act < 3:
            await visit.ask(
                "subscribe", channel=channels(), symbols=some(), mode=world.random.choice(["every", "latest"])
            )
        elif act == 3:
            await visit.ask(
                "subscribe",
                channel="quote",
                symbols=["binance-futures:*"],
                mode="latest",
                max_hz=world.random.choice([1, 5, 10]),
            )
        elif act == 4:
            await visit.ask("unsubscribe", symbols=[*some(), "binance-futures:*"])
        elif act == 5:
            await visit.ask("set", symbols=some(), mode="latest", max_hz=world.random.choice([1, 5, 20]))
        elif act == 6:
            await visit.ask("list")
        else:
            await visit.sync()
        world.of(kind).counts["requests"] += 1
        await visit.read(world.random.uniform(0.05, 0.6))
    await visit.ask("unsubscribe")
    await visit.leave()


async def catcher(world, kind, n):
    """Begins in the past (`from`), and continues in the present."""
    back = world.random.choice(["-3s", "-10s", "-30s", "-10m"])
    visit = await Connection.open(world, kind, "/ws")
    symbols = world.random.choice([["*"], ["coinbase:*"], ["kraken:XBT/USD", "demo:A"]])
    answer = await visit.ask(
        "subscribe", begins="any", channel=["trade", "quote"], symbols=symbols, mode="every", **{"from": back}
    )
    if answer["type"] == "ack":
        await visit.read(PATIENCE_S, until=lambda message: message["type"] == "joined")
        await visit.read(world.random.uniform(1, 5))
        await visit.sync()
    await visit.leave()
    await world.pause(world.random.uniform(1, 4))


async def roomer(world, kind, n):
    """A private room, or one that two clients share."""
    name = "&room=desk" if n % 2 else ""
    path = f"/ws?replay=coinbase.zst{name}&speed=4&loop=true"
    try:
        visit = await Connection.open(world, kind, path, room=True)
    except websockets.InvalidStatus as refused:
        # The room of that name is at its end, or there are too many.
        world.of(kind).counts[f"http_{refused.response.status_code}"] += 1
        return
    await visit.ask("subscribe", channel=["trade", "quote"], symbols=["*"], mode="every")
    await visit.read(world.random.uniform(2, 6))
    if not name:
        await visit.ask("replay", do="pause")
        await visit.read(0.5)
        await visit.ask("replay", do="resume")
        await visit.read(world.random.uniform(1, 4))
        world.shown.forget(visit.epoch)
    await visit.sync()
    await visit.leave()


async def poller(world, kind, n):
    """Polls the HTTP interfaces; counters must never decrease."""
    totals, before = world.of(kind), {}
    admin = ["/metrics", "/api/clients", "/api/latency", "/api/latency/symbols", "/api/rooms", "/readyz"]
    public = ["/api/symbols", "/api/replays", "/api/replay", "/healthz", "/readyz"]
    while not world.over.is_set():
        for address, paths in ((world.gateway.admin, admin), (world.gateway.http, public)):
            for path in paths:
                status, body = await get(address, path)
                totals.counts["connections"] += 1
                totals.counts[f"http_{status}"] += 1
                # A round of the replay may have ended, its next one not begun.
                if status != 200 and path != "/readyz":
                    totals.fault("http", f"{path}: {status} {body[:200]}")
                elif path.startswith("/api/"):
                    json.loads(body)
                elif path == "/metrics":
                    now = counters(body.decode())
                    for name in before.keys() & now.keys():
                        if now[name] < before[name]:
                            totals.fault("http", f"{name} went from {before[name]} to {now[name]}")
                    before = now
        await world.pause(world.random.uniform(0.3, 1.5))


def counters(text):
    """The counters of /metrics by name and labels."""
    names = set(re.findall(r"^# TYPE (\S+) counter$", text, re.M))
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows if name.partition("{")[0] in names}


async def get(address, path):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    try:
        answer = await asyncio.wait_for(reader.read(-1), PATIENCE_S)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        whole, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    return int(head.split(b" ", 2)[1]), body


async def publisher(world, kind, n):
    """Publishes three symbols for a while, and closes."""
    totals = world.of(kind)
    reader, writer = await asyncio.open_connection(*world.gateway.publish)
    writer.write(json.dumps({"op": "auth", "token": TOKEN}).encode() + b"\n")
    answer = json.loads(await asyncio.wait_for(reader.readline(), PATIENCE_S))
    if answer != {"type": "ack", "op": "auth"}:
        totals.fault("publish", answer)
    totals.counts["connections"] += 1
    end, at = time.monotonic() + world.random.uniform(8, 20), 0
    while time.monotonic() < end and not world.over.is_set():
        at += 1
        symbol = f"demo:{'ABC'[at % 3]}"
        price = f"{100 + at % 17}.{at % 100:02}"
        line = {"type": "trade", "symbol": symbol, "price": price, "size": "1"}
        if at % 2:
            line = {
                "type": "quote",
                "symbol": symbol,
                "bid": price,
                "bid_size": "2",
                "ask": f"{200 + at % 17}.5",
                "ask_size": "3",
            }
        writer.write(json.dumps(line).encode() + b"\n")
        totals.counts["messages"] += 1
        await asyncio.sleep(0.02)
    writer.write_eof()
    rest = await asyncio.wait_for(reader.read(-1), PATIENCE_S)
    if rest:
        totals.fault("publish", rest[:200])
    writer.close()


# The visit of each kind, the number of its clients, and the counts that must not stay 0.
KINDS = {
    "fast": (fast, 8, ("delivered", "synced")),
    "latest": (latest, 8, ("merged", "synced")),
    "slow gap": (slow_gap, 4, ("lag_shed",)),
    "slow cut": (slow_cut, 4, ("cut", "resumed")),
    "stalled": (stalled, 4, ("cut", "resumed")),
    "resume": (resumer, 4, ("resumed_ok",)),
    "churn": (churn, 6, ("requests", "synced")),
    "catch up": (catcher, 4, ("past", "joined")),
    "rooms": (roomer, 4, ("delivered", "synced")),
    "HTTP": (poller, 4, ("http_200",)),
    "publisher": (publisher, 1, ("messages",)),
}


async def again(world, kind, visit, n):
    """Repeats a visit until the end. An end of a connection that the protocol does not name is a fault."""
    while not world.over.is_set():
        try:
            await visit(world, kind, n)
        except Over:
            return
        except websockets.ConnectionClosedError as closed:
            # On a machine that is too slow for these clients any of them may be cut.
            if closed.rcvd is not None and closed.rcvd.code == 4000:
                world.of(kind).counts["cut"] += 1
            else:
                world.of(kind).fault("broken", closed)
        except Exception as error:
            if not world.over.is_set():
                world.of(kind).fault("broken", f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.5)
        try:
            await world.pause(world.random.uniform(*PAUSE_S))
        except Over:
            return


def slope(samples):
    """The median of the slopes of all pairs (Theil-Sen), which a step or outliers do not change much."""
    pairs = ((b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(samples) for b in samples[i + 1 :])
    return statistics.median(pairs)


def lowest(samples, width_s):
    """The lowest sample of each window: bytes queued for clients come and go."""
    windows = {}
    for at, value in samples:
        key = int(at / width_s)
        windows[key] = min(windows.get(key, (at, value)), (at, value), key=lambda pair: pair[1])
    return list(windows.values())


def reached(world):
    """Counts that are still 0."""
    missing = []
    for kind, (_, _, needed) in KINDS.items():
        counts = world.of(kind).counts
        for what in needed:
            have = counts["resumed_ok"] + counts["resumed_gap"] if what == "resumed" else counts[what]
            if not have:
                missing.append(f"{kind}: {what}")
    return missing


async def soak(args, folder):
    gateway = Gateway(args.binary, folder, CONFIG.format(cut_after_ms=args.cut_after_ms), REPLAY)
    try:
        return await soak_it(args, gateway)
    finally:
        gateway.kill()


async def heap(gateway):
    """Bytes allocated, which a build with the feature `heap-count` shows; else resident memory."""
    _, body = await get(gateway.admin, "/metrics")
    found = re.search(r"^tickfan_heap_bytes (\d+)$", body.decode(), re.M)
    return int(found[1]) if found else gateway.resident()


async def sample(gateway):
    """Memory, open files, threads, seconds of CPU."""
    return await heap(gateway), gateway.files(), gateway.threads(), gateway.cpu_s()


async def soak_it(args, gateway):
    world = World(args, gateway)
    began = said = time.monotonic()
    # The recorder opens its files at the first ticks.
    await asyncio.sleep(1)
    before = await sample(gateway)
    tasks = [
        asyncio.create_task(again(world, kind, visit, n))
        for kind, (visit, count, _) in KINDS.items()
        for n in range(count)
    ]
    samples, limit = [], max(4 * args.seconds, args.seconds + 120)
    while True:
        await asyncio.sleep(SAMPLE_S)
        at = time.monotonic() - began
        if gateway.exit_code() is not None:
            break
        try:
            samples.append((at, *await sample(gateway)))
        except (OSError, IndexError) as error:
            # It may just have ended; else its admin listener does not answer.
            if gateway.exit_code() is None:
                world.of("HTTP").fault("http", f"no sample: {error!r}")
        if samples and time.monotonic() - said >= args.say_s:
            said = time.monotonic()
            messages = sum(totals.counts["messages"] for totals in world.totals.values())
            faults = sum(sum(totals.faults.values()) for totals in world.totals.values())
            print(f"{at:.0f} s: {messages} messages, {faults} faults, {samples[-1][1] / MIB:.1f} MiB", flush=True)
        if at >= args.seconds and (not reached(world) or at >= limit):
            break
    print("the clients leave", flush=True)
    world.over.set()
    done, pending = await asyncio.wait(tasks, timeout=PATIENCE_S)
    for task in pending:
        task.cancel()
    checks = [("every client came to its end", not pending, f"{len(pending)} did not" if pending else "")]

    running = gateway.exit_code() is None
    checks.append(("the gateway ran until the end", running, "" if running else f"exit code {gateway.exit_code()}"))
    after = before
    if running:
        print("waiting for the gateway to release files and threads", flush=True)
        # Connections that were cut are kept for a moment, rooms for 2 s.
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            after = await sample(gateway)
            if after[1] <= before[1] + 2 and after[2] <= before[2]:
                break
            await asyncio.sleep(0.5)
        checks.append(await stops(world))
    return report(world, gateway, samples, before, after, checks)


async def stops(world):
    """SIGTERM: each client receives `bye` 4001, and the exit code is 0."""
    print("the gateway is stopped", flush=True)
    what = "SIGTERM: `bye` 4001 to each client, exit code 0"
    visits = []
    for _ in range(3):
        visits.append(await Connection.open(world, "last", "/ws?symbols=*&mode=every"))
        await visits[-1].by_url()

    async def to_the_end(visit):
        try:
            while True:
                await visit.next()
        except websockets.ConnectionClosed:
            return visit.ws.close_code, (visit.bye or {}).get("code")

    reading = [asyncio.create_task(to_the_end(visit)) for visit in visits]
    world.gateway.process.send_signal(signal.SIGTERM)
    try:
        code = await asyncio.to_thread(world.gateway.process.wait, PATIENCE_S)
    except subprocess.TimeoutExpired:
        world.gateway.kill()
        return what, False, f"it did not end within {PATIENCE_S} s"
    ends = await asyncio.gather(*reading)
    return what, code == 0 and set(ends) == {(4001, 4001)}, f"exit code {code}, closes {ends}"


COLUMNS = "clients n connections messages delivered merged named cut resumed caught-up faults".split()


def table(world):
    """Prints a row for each kind of clients."""
    rows = [COLUMNS]
    for kind, totals in world.totals.items():
        c, n = totals.counts, KINDS.get(kind, (None, 3))[1]
        named = ", ".join(f"{count} {why}" for why, count in sorted(totals.gaps.items())) or "0"
        cells = [n, c["connections"], c["messages"], c["delivered"], c["merged"], named, c["cut"]]
        cells += [c["resumed_ok"] + c["resumed_gap"], c["joined"], sum(totals.faults.values())]
        rows.append([kind, *map(str, cells)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))))
    print()


def accounted(world):
    """Checks of what all clients received."""
    total = sum((totals.faults for totals in world.totals.values()), Counter())
    silent = total["silent"] + total["not asked for"]
    others = sum(total.values()) - silent - total["live"] - total["differs"]
    missing = reached(world)
    return [
        ("every number is delivered, merged or named", not silent, f"{silent} faults"),
        ("replayed symbols are never live", not total["live"], f"{total['live']} faults"),
        ("one number has the same content for all clients", not total["differs"], f"{total['differs']} faults"),
        ("each message, answer and close is as the protocol says", not others, f"{others} faults"),
        ("each kind of client did what it is there for", not missing, "; ".join(missing)),
    ]


def resources(gateway, samples, before, after):
    """Checks of what the gateway used."""
    most = [max(column) for column in zip(*samples)]
    files = f"files {before[1]} before, {most[2]} at most, {after[1]} after; "
    files += f"threads {before[2]}, {most[3]}, {after[2]}"
    released = after[1] <= before[1] + 2 and after[2] <= before[2]
    log = gateway.complaints()
    return [
        memory(samples),
        ("open files and threads return to their counts at the start", released, files),
        ("nothing in the log", not log, "; ".join(log[:5])),
    ]


def report(world, gateway, samples, before, after, checks):
    """Prints all; whether every check holds."""
    table(world)
    checks = [*accounted(world), *checks, *resources(gateway, samples, before, after)]
    for what, good, more in checks:
        print(f"{'ok  ' if good else 'FAIL'} {what}{': ' + more if more else ''}")
    seconds, cpu, clients = samples[-1][0], samples[-1][4], sum(n for _, n, _ in KINDS.values())
    print(f"\n{seconds:.0f} s, {clients} clients; the gateway took {100 * cpu / seconds:.0f} % of a core")
    for kind, totals in world.totals.items():
        for example in totals.examples[:5]:
            print(f"{kind}: {example[:600]}")
    return all(good for _, good, _ in checks)


def memory(samples):
    """The growth of memory behind the first quarter of the run."""
    used = [(at, rss / MIB) for at, rss, *_ in samples if at >= samples[-1][0] / 4]
    most = max(rss for _, rss, *_ in samples) / MIB
    shape = f"{samples[0][1] / MIB:.1f} MiB at first, {used[0][1]:.1f} behind the first quarter, "
    shape += f"{used[-1][1]:.1f} at the end, {most:.1f} at most"
    span = used[-1][0] - used[0][0]
    lows = lowest(used, ROUND_S if span >= JUDGED_S else max(SAMPLE_S, span / 40))
    if len(lows) < 3:
        return "memory: too short to be judged", True, shape
    grows = 600 * slope(lows)
    if span < JUDGED_S:
        return (
            f"memory: not judged, {span:.0f} s are less than {JUDGED_S}",
            True,
            f"{shape}, {grows:+.2f} MiB in 10 min",
        )
    return (
        f"memory grows by less than {SLOPE_MAX} MiB in 10 min",
        grows < SLOPE_MAX,
        f"{grows:+.2f} MiB in 10 min; {shape}",
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kinds", default="", help="of clients, with commas between them; all")
    args = parser.parse_args()
    chosen = [kind for kind in args.kinds.split(",") if kind]
    if unknown := set(chosen) - KINDS.keys():
        parser.error(f"no such kind: {unknown}; there are {', '.join(KINDS)}")
    for kind in KINDS.keys() - set(chosen or KINDS):
        del KINDS[kind]
    # asyncio warns of each write to a connection that the other side has ended.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # In a long run `cut_after_ms` has its default; a stalled client reads nothing for longer than that.
    long = args.seconds >= 300
    args.cut_after_ms, args.stall, args.say_s = (20_000, 45, 60) if long else (4_000, 12, 5)
    with tempfile.TemporaryDirectory(prefix="tickfan-soak-") as folder:
        good = asyncio.run(soak(args, Path(folder)))
    print("all holds" if good else "NOT all holds")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
