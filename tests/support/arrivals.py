"""arrivals.py URL CLIENTS SECONDS: for how long ticks were under way when they arrived here, from `rx` on, by the clock
of this machine, which is the gateway's. Nothing is read of them but that. Prints count and percentiles, nanoseconds."""

import asyncio
import json
import sys
import time

import websockets
from hdrh.histogram import HdrHistogram
from tickfan_client import run

PERCENTILES = {"p50_ns": 50, "p90_ns": 90, "p99_ns": 99, "p99.9_ns": 99.9, "max_ns": 100}


async def listen(url, until, took):
    async with websockets.connect(url + "?symbols=*&mode=every", compression=None) as ws:
        while (left := until - time.monotonic()) > 0:
            try:
                text = await asyncio.wait_for(ws.recv(), left)
            except TimeoutError:
                break
            now_ns = time.time_ns()
            message = json.loads(text)
            # A snapshot is of another time.
            if message["type"] in ("trade", "quote") and "snap" not in message:
                took.record_value(now_ns - 1_000 * message["rx"])


async def main(url, clients, seconds):
    took, until = HdrHistogram(1, 60_000_000_000, 3), time.monotonic() + seconds
    await asyncio.gather(*(listen(url, until, took) for _ in range(clients)))
    print(json.dumps({"count": took.total_count} | {k: took.get_value_at_percentile(p) for k, p in PERCENTILES.items()}))


run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
