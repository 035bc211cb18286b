"""shipped.py URL UPDATES: a bare `new WebSocket(url)` on the shipped feeds. Reads at least so many updates,
and goes on until every venue has told trades and quotes; prints a summary."""

import json
import sys

from tickfan_client import Client, check, run


async def main(url, updates):
    client = await Client.connect(url + "?symbols=*")
    check(client.hello["feed"] == "replay", client.hello)
    ack = await client.recv()
    check(ack["type"] == "ack" and ack["op"] == "subscribe" and "id" not in ack, ack)
    check(sorted(ack["channel"]) == ["quote", "trade"] and ack["rejected"] == [], ack)
    modes = {(row["symbol"], row["channel"], row["mode"]) for row in ack["ok"]}
    check(modes == {("*", "quote", "latest"), ("*", "trade", "every")}, ack)
    venues = {"coinbase", "binance-futures", "kraken"}
    wanted = {(venue, kind) for venue in venues for kind in ("trade", "quote")}
    sides, seen, digits = set(), set(), 0
    ledger = client.ledger
    while seen < wanted or sum(ledger.updates.values()) < updates:
        m = await client.recv()
        if m["type"] not in ("trade", "quote"):
            continue
        venue = m["symbol"].partition(":")[0]
        seen.add((venue, m["type"]))
        check(venue in venues and "ts" in m, m)
        if m["type"] == "trade":
            # The venue's own digits: Binance and Kraken pad with zeros, which a number would lose.
            digits += m["price"].endswith("0") or m["size"].endswith("0")
            check("side" in m, m)
            sides.add(m["side"])
    check(sides == {"buy", "sell"} or updates < 100, sides)
    check(digits > 0 or updates < 100, "no padded number came")
    code = await client.close()
    check(code == 1000, code)
    print(json.dumps(ledger.summary()))


run(main(sys.argv[1], int(sys.argv[2])))
