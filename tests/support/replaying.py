"""replaying.py SCENE WS …: a replay and its remote control, seen by clients.

seeks WS TICKS SEED COUNT   after each of so many random jumps, who comes then and who was there before both see what the
                            ticks (what `normalize` prints of the captures) say: the last of each channel before that
steps WS                    a step of n publishes n trades and quotes
"""

import asyncio
import json
import random
import sys
from itertools import count

from tickfan_client import Client, check, run

VALUE = {"trade": ("price", "size", "side", "trade_id", "ts"), "quote": ("bid", "bid_size", "ask", "ask_size", "ts")}
IDS = count()


def value(m):
    return tuple(m.get(field) for field in VALUE[m["type"]])


def at(url, query):
    """The address with more parameters."""
    return url + ("&" if "?" in url else "?") + query


async def order(client, **what):
    ack = await client.ask(op="replay", id=next(IDS), **what)
    check(ack["type"] == "ack" and ack["op"] == "replay", ack)


async def playback(client, wanted):
    """Waits until the replay shows what is wanted."""
    while not (client.playbacks and wanted(client.playbacks[-1])):
        message = await client.recv_any()
        (client.playbacks if message["type"] == "replay" else client.data).append(message)
    return client.playbacks[-1]


class Eyes:
    """What a client believes to see."""

    def __init__(self):
        self.values, self.states = {}, {}

    def look(self, data):
        for m in data:
            if m["type"] in VALUE:
                self.values[(m["symbol"], m["type"])] = value(m)
            elif m["type"] == "gap" and m["why"] == "seek":
                self.values.pop((m["symbol"], m["channel"]), None)
            elif m["type"] == "status":
                self.states[m["symbol"]] = m["state"]

    def shown(self):
        """Values that the recording has at its place: where nothing has come yet, what was shown does not hold any more."""
        return {key: v for key, v in self.values.items() if self.states.get(key[0], "live") != "waiting"}


async def seeks(url, ticks, seed, jumps):
    with open(ticks, encoding="utf-8") as lines:
        told = [json.loads(line) for line in lines]
    told = [(m["rx"], (m["symbol"], m["type"]), value(m)) for m in told if m["type"] in VALUE]
    dice = random.Random(int(seed))
    client, eyes = await Client.connect(at(url, "symbols=*&mode=every")), Eyes()
    ack = await client.recv()
    check(ack["op"] == "subscribe", ack)
    await order(client, do="pause")
    start = await playback(client, lambda p: p["state"] == "paused")
    # The ends first.
    moments = [start["from"], told[-1][0]]
    moments += [dice.randint(told[0][0], told[-1][0]) for _ in range(int(jumps))]
    for moment in moments:
        expected = {}
        for rx, key, v in told:
            if rx >= moment:
                break
            expected[key] = v
        # Where it stood before may be the end, as far as that is known.
        client.playbacks.clear()
        await order(client, do="seek", to=moment)
        await playback(client, lambda p: p["state"] == "paused" and p["position"] == min(moment, p["to"]))
        await client.sync()
        eyes.look(client.take_data())
        late = await Client.connect(at(url, "symbols=*"))
        await late.answer()
        await late.sync()
        newcomer = Eyes()
        newcomer.look(late.take_data())
        for who, seen in (("who was there", eyes), ("who comes", newcomer)):
            shown = seen.shown()
            odd = {key: (expected.get(key), shown.get(key)) for key in expected.keys() | shown.keys()}
            odd = {key: pair for key, pair in odd.items() if pair[0] != pair[1]}
            check(not odd, f"at {moment}, {who}: expected and seen: {dict(list(odd.items())[:3])}")
            states = {symbol: seen.states.get(symbol, "live") for symbol, _ in shown}
            check(set(states.values()) <= {"paused", "stale", "down"}, f"at {moment}, {who}: {states}")
        await late.close()
    await client.close()
    print(json.dumps({"jumps": len(moments), "snaps": client.ledger.snaps, "gaps": client.ledger.gaps}))


async def steps(url):
    client = await Client.connect(at(url, "symbols=*&mode=every"))
    await client.answer()
    await order(client, do="pause")
    await playback(client, lambda p: p["state"] == "paused")
    await client.sync()
    client.take_data()
    updates = client.ledger.updates
    for n in (1, 1, 2, 3, 50, 1, 400):
        before, shown = sum(updates.values()), len(client.playbacks)
        await order(client, do="step", ticks=n)
        while sum(updates.values()) - before < n:
            client.data.append(await client.recv())
        # What comes without a reason would come soon.
        await asyncio.sleep(0.05)
        await client.sync()
        check(sum(updates.values()) - before == n, f"{sum(updates.values()) - before} ticks of {n}")
        while len(client.playbacks) == shown:
            client.playbacks.append(await client.recv_any())
        check(client.playbacks[-1]["state"] == "paused", client.playbacks[-1])
    await order(client, do="resume")
    await playback(client, lambda p: p["state"] == "playing")
    await client.until(lambda m: m["type"] in VALUE)
    await client.close()


run({"seeks": seeks, "steps": steps}[sys.argv[1]](*sys.argv[2:]))
