"""limits.py URL: a gateway that allows 1 client with 2 requests a second and 3 symbols, and takes the venue
`demo`."""

import asyncio
import sys

import websockets
from tickfan_client import Client, check, run


async def ask(client, **request):
    """Asks until it is allowed."""
    while True:
        answer = await client.ask(**request)
        if answer.get("code") != "rate_limited":
            return answer
        check(answer["id"] == request["id"] and answer["retry"] is True, answer)
        await asyncio.sleep(0.2)


async def main(url):
    client = await Client.connect(url)
    limits = client.hello["limits"]
    check(limits == {"symbols": 3, "frame_bytes": 65_536, "ops_per_s": 2}, limits)
    asked = 100
    for n in range(asked):
        await client.send(op="ping", id=n)
    answers = [await client.answer() for _ in range(asked)]
    check([answer["id"] for answer in answers] == list(range(asked)), "each is answered, in order")
    kinds = [answer["type"] for answer in answers]
    check(kinds[:2] == ["pong", "pong"] and "error" in kinds, kinds)
    check({a["code"] for a in answers if a["type"] == "error"} == {"rate_limited"}, answers)

    four = [f"demo:S{n}" for n in range(4)]
    for _ in range(2):
        ack = await ask(client, op="subscribe", id="s", channel=["trade", "quote"], symbols=four)
        check({row["symbol"] for row in ack["ok"]} == set(four[:3]), ack)
        check([(row["symbol"], row["code"]) for row in ack["rejected"]] == [("demo:S3", "limit")], ack)
    await ask(client, op="unsubscribe", id="u", symbols=four[:1])
    ack = await ask(client, op="subscribe", id="s", channel="trade", symbols=[four[3]])
    check(ack["rejected"] == [], ack)
    # Wildcards bring any number.
    ack = await ask(client, op="subscribe", id="w", channel="trade", symbols=["*"])
    check(ack["rejected"] == [], ack)

    try:
        await Client.connect(url)
    except websockets.InvalidStatus as refused:
        check(refused.response.status_code == 503, refused)
    else:
        raise AssertionError("one more than there may be")
    await client.ws.close()
    while True:
        try:
            await Client.connect(url)
            break
        except websockets.InvalidStatus:
            # The other is not quite gone yet.
            await asyncio.sleep(0.05)


run(main(sys.argv[1]))
