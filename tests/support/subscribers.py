"""subscribers.py URL COUNT [--mode M] [--slow]: so many clients of every trade and quote, until the gateway
closes. Says `subscribed` when all have their ack; `--slow` clients then read nothing until a line comes on
stdin, and slowly after it. Prints the summary of each."""

import argparse
import asyncio
import json
import sys

import websockets
from tickfan_client import Client, check, run


async def follow(client, slow):
    """Reads to the end."""
    bye, read = None, 0
    try:
        while True:
            message = await client.recv()
            check(bye is None, f"after the bye: {message}")
            if message["type"] == "bye":
                bye = message
            read += 1
            if slow and read % 64 == 0:
                await asyncio.sleep(0.001)
    except websockets.ConnectionClosed:
        pass
    return client.ledger.summary() | {"bye": bye, "close_code": client.ws.close_code}


async def main(args):
    query = "?symbols=*" + (f"&mode={args.mode}" if args.mode else "")
    clients = [await Client.connect(args.url + query, small_buffers=args.slow) for _ in range(args.count)]
    for client in clients:
        ack = await client.answer()
        check(ack["op"] == "subscribe" and ack["rejected"] == [], ack)
    print("subscribed", flush=True)
    if args.slow:
        await asyncio.to_thread(sys.stdin.readline)
    for summary in await asyncio.gather(*(follow(client, args.slow) for client in clients)):
        print(json.dumps(summary))


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("count", type=int)
parser.add_argument("--mode")
parser.add_argument("--slow", action="store_true")
run(main(parser.parse_args()))
