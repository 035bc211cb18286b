"""publishing.py URL PUBLISH: what one client sends, three get at once. The venue `demo` may be published."""

import json
import sys

import websockets
from publisher import Tcp, quote, trade, websocket
from tickfan_client import Client, check, run


async def heard(subscribers):
    """The next trade or quote, the same for everybody."""
    got = []
    for client in subscribers:
        await client.until(lambda m: m["type"] in ("trade", "quote"))
        m = client.take_data()[-1]
        got.append({key: value for key, value in m.items() if key != "tx"})
    check(all(m == got[0] for m in got), got)
    return got[0]


async def over_tcp(address, subscribers):
    publisher = await Tcp.connect(address)
    publisher.send('{"type":"trade","symbol":"demo:ABC","price":"1.2500","size":0.030,"odd":[1,{"x":2}]}')
    got = await heard(subscribers)
    check((got["symbol"], got["seq"], got["price"], got["size"]) == ("demo:ABC", 1, "1.2500", "0.030"), got)
    check("side" not in got and "ts" not in got and "trade_id" not in got, got)
    publisher.send(trade("demo:ABC", "-0.00000001", "9223372036854775807", side="sell", ts=1_700_000_000_000_000, trade_id="t7"))
    got = await heard(subscribers)
    check((got["price"], got["size"], got["side"]) == ("-0.00000001", "9223372036854775807", "sell"), got)
    check((got["ts"], got["trade_id"], got["seq"]) == (1_700_000_000_000_000, "t7", 2), got)
    publisher.send(quote("demo:ABC", "1.10", "1.20"))
    got = await heard(subscribers)
    check((got["type"], got["bid"], got["ask"], got["seq"]) == ("quote", "1.10", "1.20", 1), got)
    publisher.send('{"type":"quote","symbol":"demo:ABC","bid":"1.0"}')
    got = await heard(subscribers)
    check(got["bid"] == "1.0" and "ask" not in got, got)

    # The token was line 1, the ticks were lines 2 to 5.
    bad = [
        ("{", "JSON"),
        ("{}", "type"),
        (trade("nowhere:X"), "nowhere"),
        (trade("ABC"), "symbol"),
        (trade("demo:A B"), "symbol"),
        (trade("demo:ABC", price="1e400"), "price"),
        (trade("demo:ABC", price="1,5"), "price"),
        (trade("demo:ABC", size="12345678901234567890123456789"), "28 digits"),
        (trade("demo:ABC", size="-1"), "size"),
        (trade("demo:ABC", ts=17_000), "between 2000 and 2199"),
        (trade("demo:ABC", side="maker"), "side"),
        (trade("demo:ABC", ts="soon"), "ts"),
        ({"type": "quote", "symbol": "demo:ABC"}, "bid"),
    ]
    for number, (line, word) in enumerate(bad):
        publisher.send(line, trade("demo:ABC", size=f"{number + 1}"))
        told = await publisher.told()
        check((told["type"], told["line"]) == ("error", 6 + 2 * number), (line, told))
        check(word in told["msg"], (line, told))
        got = await heard(subscribers)
        check((got["size"], got["seq"]) == (f"{number + 1}", 3 + number), got)
    await publisher.close()


async def over_websocket(url, subscribers):
    for in_head in (True, False):
        ws = await websocket(url, in_head=in_head)
        if not in_head:
            check(json.loads(await ws.recv()) == {"type": "ack", "op": "auth"}, "let in")
        lines = [trade("demo:WS", size="1"), "no tick", trade("demo:WS", size="2")]
        await ws.send("\n".join(line if type(line) is str else json.dumps(line) for line in lines))
        check([(await heard(subscribers))["size"] for _ in range(2)] == ["1", "2"], "both came")
        told = json.loads(await ws.recv())
        # Without the header the token was line 1.
        check((told["type"], told["line"]) == ("error", 2 if in_head else 3), told)
        await ws.close()


async def without_the_token(url, address):
    publisher = await Tcp.connect(address, token="Secret")
    check((publisher.answer["type"], publisher.answer["code"]) == ("error", "auth"), publisher.answer)
    check(await publisher.told() is None, "shown out")
    try:
        await websocket(url, token="wrong")
    except websockets.InvalidStatus as refused:
        check(refused.response.status_code == 401, refused)
    else:
        raise AssertionError("let in")
    ws = await websocket(url, token="wrong", in_head=False)
    check(json.loads(await ws.recv())["code"] == "auth", "refused")
    try:
        await ws.recv()
    except websockets.ConnectionClosed:
        check(ws.close_code == 4500, ws.close_code)


async def main(url, address):
    subscribers = [await Client.connect(url + "?symbols=demo:*&mode=every") for _ in range(3)]
    for client in subscribers:
        check((await client.answer())["rejected"] == [], "accepted")
    publish = url.removesuffix("/ws") + "/publish"
    await over_tcp(address, subscribers)
    await over_websocket(publish, subscribers)
    await without_the_token(publish, address)
    for client in subscribers:
        await client.sync()
        check(not client.ledger.gaps and client.ledger.snaps == 0, client.ledger.summary())
        check(client.ledger.states[-1][1] == "down", client.ledger.states)


run(main(*sys.argv[1:]))
