"""What the tests know of the protocol, written from docs/PROTOCOL.md and docs/asyncapi.yaml alone: nothing in here
is shared with the gateway. A message that breaks them raises AssertionError."""

import asyncio
import json
import re
import socket
from collections import Counter
from urllib.parse import urlparse

import websockets
from asyncapi import document, name, read

# Longer than anything takes; only a broken gateway makes a test wait for it.
PATIENCE = 120

DECIMAL = re.compile(r"-?\d+(\.\d+)?")
VENUE = re.compile(r"[a-z0-9_-]{1,32}")
STATES = {"live", "stale", "down", "waiting", "replay", "paused", "ended"}
GAPS = {"slow_consumer", "overrun", "feed", "resume", "seek"}
PLAY_STATES = {"playing", "paused", "seeking", "ended"}
LEVELS = {"ok", "warn", "shed", "cut"}
RESUMED = {"ok", "gap", "new_epoch"}
PASTS = {"ok", "gap"}
# Of each type so many are held against docs/asyncapi.yaml too, a client: ticks are many and alike.
COMPARED = 200
# Read before anybody connects: who reads a file meanwhile is slow.
DOCUMENT = document()


def check(condition, message):
    assert condition, f"not as the protocol says: {message}"


def is_count(value):
    return type(value) is int and value >= 0


def is_time(value):
    """Microseconds since the Unix epoch, of this century, and exact in a JavaScript number."""
    return type(value) is int and 946_684_800_000_000 < value < 2**53


def check_fields(message, needed, optional=()):
    missing, odd = set(needed) - message.keys(), message.keys() - {"type", *needed, *optional}
    check(not missing and not odd, f"{message}: missing {missing}, unknown {odd}")


def check_symbol(text):
    venue, colon, name = text.partition(":")
    check(VENUE.fullmatch(venue) and colon and name and name != "*", f"symbol {text!r}")


def check_update(m):
    """A trade or a quote."""
    decimals = ("price", "size") if m["type"] == "trade" else ("bid", "bid_size", "ask", "ask_size")
    if m["type"] == "trade":
        check_fields(m, {"symbol", "seq", "rx", "tx", *decimals}, {"snap", "past", "n", "side", "trade_id", "ts"})
        check(m.get("side", "buy") in ("buy", "sell"), m)
        check(type(m.get("trade_id", "x")) is str and m.get("trade_id", "x"), m)
    else:
        check_fields(m, {"symbol", "seq", "rx", "tx"}, {"snap", "past", "n", "ts", *decimals})
        check("bid" in m or "ask" in m, m)
    check_symbol(m["symbol"])
    for field in decimals:
        if field in m:
            check(type(m[field]) is str and DECIMAL.fullmatch(m[field]), m)
    check(is_count(m["seq"]) and m["seq"] > 0, m)
    check(m.get("snap", True) is True and m.get("past", True) is True, m)
    check("n" not in m or (is_count(m["n"]) and m["n"] > 1 and "snap" not in m), m)
    check(all(is_time(m[field]) for field in ("ts", "rx", "tx") if field in m), m)
    check(m["rx"] <= m["tx"] + 1_000_000, m)


def check_subscription(row, more=()):
    """A row of an answer that shows what is subscribed."""
    check_fields(row, {"symbol", "channel", "mode"}, {"state", "max_hz", "on_slow", *more})
    if not row["symbol"].endswith("*"):
        check_symbol(row["symbol"])
    check(row["channel"] in ("trade", "quote") and row["mode"] in ("every", "latest"), row)
    check(row.get("state", "live") in STATES, row)
    if "max_hz" in row:
        hz = row["max_hz"]
        check(type(hz) in (int, float) and 0.01 <= hz <= 1000 and row["mode"] == "latest", row)
    check(row.get("on_slow", "gap") == "gap" or (row["on_slow"] == "cut" and row["mode"] == "every"), row)
    check(row.get("resumed", "ok") in RESUMED, row)
    if "past" in row:
        check(row["past"] in PASTS and ("begins" in row) is (row["past"] == "gap"), row)
        check(row.get("state", "waiting") == "waiting" and row["mode"] == "every", row)
    check(is_time(row["begins"]) if "begins" in row else True, row)


def check_ack(m):
    """The answer to a request that was understood."""
    if m["op"] == "list":
        check_fields(m, {"op", "subscriptions"}, {"id", "more"})
        for row in m["subscriptions"]:
            check_subscription(row)
    elif m["op"] == "symbols":
        check_fields(m, {"op", "symbols"}, {"id", "more"})
        for row in m["symbols"]:
            check_fields(row, {"symbol", "state"})
            check_symbol(row["symbol"])
            check(row["state"] in STATES, row)
    elif m["op"] == "replay":
        check_fields(m, {"op"}, {"id"})
    else:
        check(m["op"] in ("subscribe", "unsubscribe", "set"), m)
        check_fields(m, {"op", "channel", "ok", "rejected"}, {"id", "more"} | ({"all"} if m["op"] == "unsubscribe" else set()))
        check(m.get("all", True) is True, m)
        channels = m["channel"] if type(m["channel"]) is list else [m["channel"]]
        check(channels and set(channels) <= {"trade", "quote"}, m)
        for row in m["ok"]:
            if m["op"] == "unsubscribe":
                check_fields(row, {"symbol"})
            else:
                check_subscription(row, {"resumed", "past", "begins"} if m["op"] == "subscribe" else ())
                check(row["channel"] in channels, m)
        for row in m["rejected"]:
            check_fields(row, {"symbol", "code", "msg"})
            check(all(type(text) is str for text in row.values()), m)
    check(m.get("more", True) is True, m)


def check_lag(m):
    """How far behind we are. What may yet cut us off is told while our socket takes nothing."""
    check_fields(m, {"level", "behind_ms", "queued_bytes", "merged", "dropped"}, {"cut_in_ms"})
    check(m["level"] in LEVELS, m)
    check(all(is_count(value) for field, value in m.items() if field not in ("type", "level")), m)
    check("cut_in_ms" in m or m["level"] != "cut", m)
    check("cut_in_ms" not in m or m["level"] in ("shed", "cut"), m)


def check_playback(m):
    """Where the replay is."""
    check_fields(m, {"state", "position", "from", "to", "speed", "loop"})
    check(m["state"] in PLAY_STATES and type(m["loop"]) is bool, m)
    check(all(is_time(m[field]) for field in ("position", "from", "to")), m)
    check(m["from"] <= m["position"] <= m["to"], m)
    check(m["speed"] == 0 or 0.01 <= m["speed"] <= 1000, m)


def check_message(m):
    """Any message of the gateway."""
    kind = m.get("type")
    if kind in ("trade", "quote"):
        check_update(m)
    elif kind == "gap":
        check_fields(m, {"symbol", "channel", "from", "to", "why"})
        check_symbol(m["symbol"])
        check(m["channel"] in ("trade", "quote") and m["why"] in GAPS, m)
        check(is_count(m["from"]) and is_count(m["to"]) and 0 < m["from"] <= m["to"], m)
    elif kind == "status":
        check_fields(m, {"symbol", "state", "since"})
        check_symbol(m["symbol"])
        check(m["state"] in STATES and is_time(m["since"]), m)
    elif kind == "joined":
        check_fields(m, {"time"}, {"missed"})
        check(is_time(m["time"]) and is_count(m.get("missed", 1)) and m.get("missed", 1) > 0, m)
    elif kind == "hb":
        check_fields(m, {"time", "sent", "behind_ms"})
        check(is_time(m["time"]) and is_count(m["sent"]) and is_count(m["behind_ms"]), m)
    elif kind == "clock_step":
        check_fields(m, {"time", "by"})
        check(is_time(m["time"]) and type(m["by"]) is int and m["by"] != 0, m)
    elif kind == "hello":
        check_fields(m, {"v", "session", "epoch", "feed", "time", "heartbeat_ms", "limits"})
        check(m["v"] == 1 and m["feed"] in ("live", "replay", "mixed") and is_time(m["time"]), m)
        check(m["session"] and m["epoch"] and m["session"] != m["epoch"], m)
        limits = m["limits"]
        check(limits.keys() == {"symbols", "frame_bytes", "ops_per_s"}, m)
        check(all(is_count(v) and v > 0 for v in (m["heartbeat_ms"], *limits.values())), m)
    elif kind == "ack":
        check_ack(m)
    elif kind == "lag":
        check_lag(m)
    elif kind == "replay":
        check_playback(m)
    elif kind == "error":
        check_fields(m, {"code", "msg", "retry"}, {"id", "retry_after_ms"})
        check(type(m["code"]) is str and type(m["msg"]) is str, m)
        check(m["retry"] is (m["code"] in ("rate_limited", "short_of_memory")), m)
        check(("retry_after_ms" in m) is (m["code"] == "short_of_memory"), m)
        check(is_count(m.get("retry_after_ms", 0)), m)
    elif kind == "bye":
        check_fields(m, {"code", "why", "reconnect"}, {"after_ms", "msg"})
        check(type(m.get("msg", "")) is str, m)
        check(type(m["code"]) is int and type(m["why"]) is str and m["why"], m)
        comes_back = m["code"] == 1013 or 4000 <= m["code"] < 4500
        check(m["reconnect"] is comes_back and ("after_ms" in m) is comes_back, m)
        check(is_count(m.get("after_ms", 0)), m)
    else:
        check(kind == "pong", m)
        check_fields(m, {"in", "out"}, {"id", "t"})
        check(is_time(m["in"]) and is_time(m["out"]), m)


class Ledger:
    """The accounting rule: `seq - n` is the `seq` before, or a gap covers exactly the difference."""

    def __init__(self, from_the_start=True):
        # A client that asked for no snapshot learns where it begins from its first update.
        self.from_the_start = from_the_start
        self.told = {}
        self.updates, self.stands_for, self.merged, self.gaps = Counter(), Counter(), 0, Counter()
        self.snaps, self.states = 0, []

    def take(self, m):
        kind = m["type"]
        if kind == "status":
            self.states.append([m["symbol"], m["state"]])
        elif kind == "gap":
            key = (m["symbol"], m["channel"])
            before = self.told.get(key, 0 if self.from_the_start else m["from"] - 1)
            check(m["from"] == before + 1, f"told {before} of {key}, then {m}")
            self.told[key] = m["to"]
            self.gaps[m["why"]] += m["to"] - m["from"] + 1
        elif kind in ("trade", "quote"):
            key = (m["symbol"], kind)
            if m.get("snap"):
                # Where a replay goes elsewhere, each channel gets one more, in its place.
                check(self.told.get(key, m["seq"] - 1) == m["seq"] - 1, f"told {self.told.get(key)} of {key}, then {m}")
                self.snaps += 1
            else:
                n = m.get("n", 1)
                before = self.told.get(key, 0 if self.from_the_start else m["seq"] - n)
                check(m["seq"] - n == before, f"told {before} of {key}, then {m}")
                self.updates[kind] += 1
                self.stands_for[kind] += n
                self.merged += n - 1
            self.told[key] = m["seq"]

    def summary(self):
        return {
            "trades": self.updates["trade"],
            "quotes": self.updates["quote"],
            "stands_for": sum(self.stands_for.values()),
            "merged": self.merged,
            "gaps": self.gaps,
            "snaps": self.snaps,
            "states": self.states,
            "told": {f"{symbol} {channel}": seq for (symbol, channel), seq in self.told.items()},
        }


class Client:
    """A connection that checks whatever comes. `data` holds what came beside the answers."""

    def __init__(self, ws, ledger=None):
        self.ws, self.ledger, self.data = ws, ledger or Ledger(), []
        # What was told of the replay, the newest last.
        self.playbacks = []
        self.compared = Counter()

    @classmethod
    async def connect(cls, url, small_buffers=False, ledger=None):
        options = {"max_size": None, "compression": None, "open_timeout": PATIENCE, "ping_interval": None}
        if small_buffers:
            # What the kernel and the library hold for us would hide how slow we are.
            host = urlparse(url)
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            sock.connect((host.hostname, host.port))
            options |= {"sock": sock, "max_queue": 1}
        client = cls(await websockets.connect(url, **options), ledger)
        client.hello = await client.recv()
        check(client.hello["type"] == "hello", client.hello)
        return client

    async def recv(self):
        """The next message that is not about the replay: those are kept apart."""
        while (message := await self.recv_any())["type"] == "replay":
            self.playbacks.append(message)
        return message

    async def recv_any(self):
        text = await asyncio.wait_for(self.ws.recv(), PATIENCE)
        assert type(text) is str, "only text is sent"
        message = read(text)
        check_message(message)
        kind = name(message)
        if self.compared[kind] < COMPARED:
            self.compared[kind] += 1
            fault = DOCUMENT.fault("ws", message)
            check(fault is None, f"{fault}: {message}")
        self.ledger.take(message)
        return message

    async def send(self, **request):
        await self.ws.send(json.dumps(request))

    async def answer(self):
        """The next answer; what comes before it goes to `data`."""
        while True:
            message = await self.recv()
            if message["type"] in ("ack", "error", "pong"):
                return message
            self.data.append(message)

    async def ask(self, **request):
        await self.send(**request)
        return await self.answer()

    async def until(self, wanted):
        """The next message that is wanted; it and what comes before it go to `data`."""
        while True:
            message = await self.recv()
            self.data.append(message)
            if wanted(message):
                return message

    async def sync(self):
        """Everything that was queued before this has come when it returns."""
        mark = f"sync-{id(self.data)}-{len(self.data)}"
        pong = await self.ask(op="ping", id=mark)
        check(pong["type"] == "pong" and pong["id"] == mark, pong)

    async def close(self):
        """Closes, and reads on meanwhile: while the library's queue is full, it does not see the answer. Gives
        the code of the answer."""
        closing = asyncio.create_task(self.ws.close())
        try:
            while True:
                await self.recv()
        except websockets.ConnectionClosed:
            await closing
        return self.ws.close_code

    def take_data(self):
        data, self.data = self.data, []
        return data


def run(main):
    """Runs a script and ends: nothing here may wait for ever."""

    async def bounded():
        async with asyncio.timeout(4 * PATIENCE):
            await main

    asyncio.run(bounded())
