"""bystander.py URL: a client of everything that has done nothing wrong. For each line on stdin it reads on
until more updates came, and says so; when stdin ends it prints its summary. A gap is an error."""

import asyncio
import json
import sys

from tickfan_client import Client, check, run


async def main(url):
    client = await Client.connect(url + "?symbols=*&mode=every")
    updates = client.ledger.updates
    await client.until(lambda _: sum(updates.values()) > 0)
    print("subscribed", flush=True)
    asked = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    while True:
        await client.recv()
        client.take_data()
        check(not client.ledger.gaps, client.ledger.gaps)
        if not asked.done():
            continue
        if not asked.result():
            break
        # Beyond what may have been on its way already.
        await client.sync()
        more = sum(updates.values()) + 10
        await client.until(lambda _: sum(updates.values()) >= more)
        print("flows", flush=True)
        asked = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await client.ws.close()
    print(json.dumps(client.ledger.summary()))


run(main(sys.argv[1]))
