"""conversation.py URL PUBLISH: every request in its forms. Nothing but what this script publishes moves, so
each answer is known. The gateway takes the venues `demo` and `other`."""

import sys

import websockets
from publisher import Tcp, quote, trade
from tickfan_client import Client, Ledger, check, is_time, run


def rows(ack, *fields):
    return [tuple(row.get(field) for field in fields) for row in ack["ok"]]


def rejected(ack):
    return {row["symbol"]: row["code"] for row in ack["rejected"]}


def kinds(data):
    return [(m["type"], m["symbol"], m.get("seq"), m.get("snap", False)) for m in data]


class Stage:
    """The market, and somebody who sees all of it: what it has seen, every shard was sent."""

    async def open(self, url, address):
        self.url = url
        self.publisher = await Tcp.connect(address)
        check(self.publisher.answer == {"type": "ack", "op": "auth"}, self.publisher.answer)
        self.watcher = await Client.connect(url + "?symbols=*&mode=every")

    async def publish(self, *lines):
        updates = self.watcher.ledger.updates
        self.publisher.send(*lines)
        await self.publisher.writer.drain()
        goal = sum(updates.values()) + len(lines)
        await self.watcher.until(lambda _: sum(updates.values()) == goal)

    async def client(self, **options):
        return await Client.connect(self.url, **options)


async def ids(stage):
    client = await stage.client()
    for name in ("a", "", "7", 7, 0, -1, 2**53, "ü" * 64):
        ack = await client.ask(op="list", id=name)
        check(ack["id"] == name and type(ack["id"]) is type(name), ack)
    for without in ({}, {"id": None}):
        ack = await client.ask(op="list", **without)
        check(ack == {"type": "ack", "op": "list", "subscriptions": []}, ack)
    error = await client.ask(op="nope", id="x")
    check((error["type"], error["id"], error["code"]) == ("error", "x", "unknown_op"), error)


async def subscribing(stage):
    """Answer, snapshot, updates; bare names; what is refused undoes nothing."""
    client = await stage.client()
    await client.send(op="subscribe", id=1, channel="quote", symbols=["demo:ABC"])
    ack, snap = await client.recv(), await client.recv()
    check(ack["type"] == "ack" and ack["id"] == 1 and ack["channel"] == "quote", ack)
    check(rows(ack, "symbol", "mode", "state") == [("demo:ABC", "latest", "live")], ack)
    check(kinds([snap]) == [("quote", "demo:ABC", 1, True)], snap)
    check((snap["bid"], snap["ask_size"], snap["ts"]) == ("1.00", "7", 1_700_000_000_000_001), snap)

    ack = await client.ask(op="subscribe", id="two", channel=["trade", "quote"], symbols=["ONLY"])
    check(sorted(ack["channel"]) == ["quote", "trade"] and ack["rejected"] == [], ack)
    both = {("demo:ONLY", "trade", "every"), ("demo:ONLY", "quote", "latest")}
    check(set(rows(ack, "symbol", "channel", "mode")) == both, ack)
    await client.sync()
    snaps = {("trade", "demo:ONLY", 1, True), ("quote", "demo:ONLY", 1, True)}
    check(set(kinds(client.take_data())) == snaps, "snapshots of both channels")

    names = ["ABC", "nowhere:X", "NONE", "demo:a b", "demo:", "nowhere:*", ":X", "demo:a,b", "other:ABC", ""]
    ack = await client.ask(op="subscribe", channel="trade", symbols=names)
    check(rows(ack, "symbol") == [("other:ABC",)], ack)
    expected = {name: "unknown_symbol" for name in names if name != "other:ABC"}
    check(rejected(ack) == expected | {"ABC": "ambiguous_symbol"}, ack)
    await stage.publish(trade("other:ABC"), quote("demo:ABC"))
    await client.until(lambda m: m["type"] == "quote")
    data = [m for m in client.take_data() if m["type"] != "status"]
    check(kinds(data) == [("trade", "other:ABC", 1, False), ("quote", "demo:ABC", 2, False)], data)

    # One more time changes nothing, and tells nothing twice.
    ack = await client.ask(op="subscribe", channel="quote", symbols=["demo:ABC", "demo:ABC"])
    check(set(rows(ack, "symbol", "mode")) == {("demo:ABC", "latest")}, ack)
    await stage.publish(quote("demo:ABC"))
    await client.sync()
    check(kinds(client.take_data()) == [("quote", "demo:ABC", 3, False)], "told once")
    ack = await client.ask(op="subscribe", channel="quote", symbols=["demo:ABC"], mode="every")
    check(rows(ack, "mode") == [("every",)], ack)
    listed = (await client.ask(op="list"))["subscriptions"]
    modes = {(row["symbol"], row["channel"]): row["mode"] for row in listed}
    check(modes[("demo:ABC", "quote")] == "every" and len(listed) == 4, listed)


async def waiting(stage):
    """Symbols that nobody has seen yet, and those that ask for no snapshot."""
    client = await stage.client()
    ack = await client.ask(op="subscribe", channel=["trade", "quote"], symbols=["demo:LATER", "demo:NEVER"])
    check(set(rows(ack, "state")) == {("waiting",)} and ack["rejected"] == [], ack)
    listed = (await client.ask(op="list"))["subscriptions"]
    check({row["state"] for row in listed} == {"waiting"} and len(listed) == 4, listed)
    await stage.publish(trade("demo:LATER"), trade("demo:LATER"), quote("demo:LATER"))
    await client.sync()
    data = client.take_data()
    check([m["state"] for m in data if m["type"] == "status"] == ["live"], data)
    expected = [("trade", "demo:LATER", 1, False), ("trade", "demo:LATER", 2, False)]
    expected.append(("quote", "demo:LATER", 1, False))
    check(kinds(m for m in data if m["type"] != "status") == expected, data)
    listed = (await client.ask(op="list"))["subscriptions"]
    states = {(row["symbol"], row["channel"]): row["state"] for row in listed}
    check(states[("demo:LATER", "trade")] == "live" and states[("demo:NEVER", "quote")] == "waiting", listed)
    ack = await client.ask(op="unsubscribe", symbols=["demo:NEVER"])
    check(rows(ack, "symbol") == [("demo:NEVER",)], ack)
    listed = (await client.ask(op="list"))["subscriptions"]
    check({row["symbol"] for row in listed} == {"demo:LATER"}, listed)

    late = await stage.client(ledger=Ledger(from_the_start=False))
    ack = await late.ask(op="subscribe", channel="trade", symbols=["demo:LATER"], snapshot=False)
    check(rows(ack, "symbol", "state") == [("demo:LATER", "live")], ack)
    await late.sync()
    check(late.take_data() == [], "no snapshot was asked for")
    await stage.publish(trade("demo:LATER"))
    await late.sync()
    check(kinds(late.take_data()) == [("trade", "demo:LATER", 3, False)], "the next one")


async def wildcards(stage):
    client = await stage.client()
    ack = await client.ask(op="subscribe", channel="quote", symbols=["demo:*"])
    check(rows(ack, "symbol", "channel", "mode") == [("demo:*", "quote", "latest")], ack)
    await client.sync()
    snapped = client.take_data()
    check(all(m["snap"] and m["type"] == "quote" for m in snapped), snapped)
    check({m["symbol"] for m in snapped} == {"demo:ABC", "demo:ONLY", "demo:LATER"}, snapped)
    await stage.publish(quote("other:NEW1"), trade("demo:NEW1"), quote("demo:NEW1"), quote("demo:NEW1"))
    await client.sync()
    data = [m for m in client.take_data() if m["type"] != "status"]
    check(kinds(data) == [("quote", "demo:NEW1", 1, False), ("quote", "demo:NEW1", 2, False)], data)
    ack = await client.ask(op="subscribe", channel=["quote", "trade"], symbols=["*"])
    check({row[0] for row in rows(ack, "symbol")} == {"*"}, ack)
    await client.sync()
    snapped = {(m["type"], m["symbol"]) for m in client.take_data() if m.get("snap")}
    check(("quote", "other:NEW1") in snapped and ("trade", "demo:NEW1") in snapped, snapped)
    check(("quote", "demo:NEW1") not in snapped, "what it had already is not told again")
    await stage.publish(trade("other:NEW2"), quote("other:NEW2"))
    await client.sync()
    data = [m for m in client.take_data() if m["type"] != "status"]
    check(kinds(data) == [("trade", "other:NEW2", 1, False), ("quote", "other:NEW2", 1, False)], data)
    # One symbol out of a wildcard, then the wildcard itself.
    await client.ask(op="unsubscribe", symbols=["other:NEW2"])
    await stage.publish(trade("other:NEW2"), trade("demo:NEW1"))
    await client.sync()
    check({m["symbol"] for m in client.take_data()} == {"demo:NEW1"}, "one less")
    await client.ask(op="unsubscribe", symbols=["*"])
    await stage.publish(trade("other:NEW3"), trade("demo:NEW1"))
    await client.sync()
    check(client.take_data() == [], "nothing is left")


async def changing(stage):
    client = await stage.client()
    await client.ask(op="subscribe", channel=["trade", "quote"], symbols=["demo:ABC", "demo:ONLY", "demo:W"])
    ack = await client.ask(op="set", id=5, channel="quote", symbols=["demo:ABC", "demo:W"], mode="every")
    check(ack["id"] == 5 and ack["op"] == "set" and ack["rejected"] == [], ack)
    check(set(rows(ack, "symbol", "mode")) == {("demo:ABC", "every"), ("demo:W", "every")}, ack)
    ack = await client.ask(op="set", channel="quote", symbols=["other:ABC", "demo:ONLY"], mode="every")
    check(rows(ack, "symbol") == [("demo:ONLY",)] and rejected(ack) == {"other:ABC": "not_subscribed"}, ack)
    ack = await client.ask(op="set", mode="latest")
    check(rows(ack, "symbol", "channel", "mode") == [("*", "trade", "latest"), ("*", "quote", "latest")], ack)
    listed = (await client.ask(op="list"))["subscriptions"]
    check(len(listed) == 6 and {row["mode"] for row in listed} == {"latest"}, listed)
    await client.sync()
    client.take_data()

    for _ in range(2):
        ack = await client.ask(op="unsubscribe", id=4, channel="quote", symbols=["demo:ABC"])
        check((ack["id"], ack["op"], ack["rejected"]) == (4, "unsubscribe", []), ack)
        check(rows(ack, "symbol") == [("demo:ABC",)], ack)
    await stage.publish(quote("demo:ABC"), trade("demo:ABC"), quote("demo:ONLY"))
    await client.sync()
    data = [(m["type"], m["symbol"]) for m in client.take_data() if m["type"] != "status"]
    check(data == [("trade", "demo:ABC"), ("quote", "demo:ONLY")], data)
    ack = await client.ask(op="unsubscribe")
    check(sorted(ack["channel"]) == ["quote", "trade"] and ack["rejected"] == [], ack)
    check((await client.ask(op="list"))["subscriptions"] == [], "all gone")
    await stage.publish(quote("demo:ABC"), trade("demo:ONLY"))
    await client.sync()
    check(client.take_data() == [], "nothing comes any more")
    # And back again: the snapshot is the newest value.
    client.ledger.told.clear()
    await client.ask(op="subscribe", channel="quote", symbols=["demo:ABC"])
    await client.sync()
    (snap,) = client.take_data()
    newest = stage.watcher.ledger.told[("demo:ABC", "quote")]
    check(snap["snap"] and snap["seq"] == newest, (snap, newest))


async def asking(stage):
    client = await stage.client()
    for match in ({}, {"match": "*"}):
        symbols = (await client.ask(op="symbols", id="s", **match))["symbols"]
        names = {row["symbol"] for row in symbols}
        check({"demo:ABC", "other:ABC", "demo:LATER", "other:NEW3"} <= names, names)
        check("demo:NEVER" not in names and {row["state"] for row in symbols} == {"live"}, symbols)
    demo = (await client.ask(op="symbols", match="demo:*"))["symbols"]
    check(len(demo) > 3 and all(row["symbol"].startswith("demo:") for row in demo), demo)
    for match, found in [
        ("demo:ABC", ["demo:ABC"]),
        ("ONLY", ["demo:ONLY"]),
        ("demo:NONE", []),
        ("nowhere:*", []),
        ("NONE", []),
    ]:
        symbols = (await client.ask(op="symbols", match=match))["symbols"]
        check([row["symbol"] for row in symbols] == found, (match, symbols))
    for t in (1, 1.5, -3, "mine", 1_700_000_000_000_000):
        pong = await client.ask(op="ping", id=9, t=t)
        check(pong["type"] == "pong" and pong["id"] == 9 and pong["t"] == t, pong)
        check(is_time(pong["in"]) and is_time(pong["out"]) and pong["in"] <= pong["out"], pong)
    pong = await client.ask(op="ping")
    check("t" not in pong and "id" not in pong, pong)


async def refusing(stage):
    """What is wrong is said by naming the field, and costs nothing else."""
    client = await stage.client()
    await client.ask(op="subscribe", channel="trade", symbols=["demo:ABC"])
    for text, code, word in [
        ("", "bad_request", "JSON"),
        ("{", "bad_request", "JSON"),
        ("[]", "bad_request", "object"),
        ("null", "bad_request", "object"),
        ("{}", "bad_request", "`op`"),
        ('{"op":1}', "bad_request", "`op`"),
        ('{"op":"Subscribe"}', "unknown_op", "Subscribe"),
        ('{"op":"list","id":{}}', "bad_request", "`id`"),
        ('{"op":"list","id":1.5}', "bad_request", "`id`"),
        ('{"op":"subscribe","symbols":["*"]}', "bad_request", "`channel`"),
        ('{"op":"subscribe","channel":"book","symbols":["*"]}', "bad_request", "`channel`"),
        ('{"op":"subscribe","channel":[],"symbols":["*"]}', "bad_request", "`channel`"),
        ('{"op":"subscribe","channel":"trade"}', "bad_request", "`symbols`"),
        ('{"op":"subscribe","channel":"trade","symbols":[]}', "bad_request", "`symbols`"),
        ('{"op":"subscribe","channel":"trade","symbols":[1]}', "bad_request", "`symbols[0]`"),
        ('{"op":"subscribe","channel":"trade","symbols":["*"],"mode":"some"}', "bad_request", "`mode`"),
        ('{"op":"subscribe","channel":"trade","symbols":["*"],"snapshot":1}', "bad_request", "`snapshot`"),
        ('{"op":"subscribe","channel":"trade","symbols":["*"],"max_hz":0}', "bad_request", "`max_hz`"),
        ('{"op":"set","symbols":["*"]}', "bad_request", "`mode`"),
        ('{"op":"unsubscribe","channel":7}', "bad_request", "`channel`"),
        ('{"op":"symbols","match":7}', "bad_request", "`match`"),
        ('{"op":"ping","t":[]}', "bad_request", "`t`"),
    ]:
        await client.ws.send(text)
        error = await client.answer()
        check((error["type"], error["code"], error["retry"]) == ("error", code, False), (text, error))
        check(word in error["msg"], (text, error))
    error = await client.ask(op="symbols", match="ABC", id=3)
    check(error["code"] == "ambiguous_symbol" and error["id"] == 3, error)
    listed = (await client.ask(op="list"))["subscriptions"]
    check([row["symbol"] for row in listed] == ["demo:ABC"], listed)
    # What nobody knows of is ignored.
    ack = await client.ask(op="list", id=1, future={"a": [1]})
    check(ack["id"] == 1, ack)


async def in_the_url(stage):
    only = await Client.connect(stage.url + "?symbols=demo:ABC,nowhere:X&symbols=ONLY&channel=trade&mode=latest")
    ack = await only.recv()
    check(ack["channel"] == "trade" and rejected(ack) == {"nowhere:X": "unknown_symbol"}, ack)
    modes = [("demo:ABC", "latest"), ("demo:ONLY", "latest")]
    check(rows(ack, "symbol", "mode") == modes and "id" not in ack, ack)
    await only.sync()
    check({m["symbol"] for m in only.take_data()} == {"demo:ABC", "demo:ONLY"}, "snapshots")
    bare = await Client.connect(stage.url + "?symbols=demo%3AABC&snapshot=false", ledger=Ledger(False))
    check({row[0] for row in rows(await bare.recv(), "channel")} == {"trade", "quote"}, "every channel")
    await bare.sync()
    check(bare.take_data() == [], "no snapshot")
    for query, word in [("channel=book", "`channel`"), ("mode=x", "`mode`"), ("snapshot=x", "`snapshot`")]:
        try:
            await Client.connect(f"{stage.url}?symbols=*&{query}")
        except websockets.InvalidStatus as refused:
            check(refused.response.status_code == 400, refused)
            check(word in refused.response.body.decode(), refused.response.body)
        else:
            raise AssertionError(query)


async def main(url, address):
    stage = Stage()
    await stage.open(url, address)
    ts = 1_700_000_000_000_001
    first = [quote("demo:ABC", ts=ts), quote("other:ABC"), trade("demo:ONLY"), quote("demo:ONLY")]
    await stage.publish(*first)
    for scene in (ids, subscribing, waiting, wildcards, changing, asking, refusing, in_the_url):
        await scene(stage)
        print(scene.__name__, flush=True)


run(main(*sys.argv[1:]))
