"""Publishers of the tests: lines over TCP, or over a WebSocket."""

import asyncio
import json

import websockets
from tickfan_client import PATIENCE, check

TOKEN = "token-of-the-tests"


class Tcp:
    """One connection that sends lines."""

    @classmethod
    async def connect(cls, address, token=TOKEN):
        host, port = address.rsplit(":", 1)
        self = cls()
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        self.send({"op": "auth", "token": token})
        self.answer = await self.told()
        return self

    def send(self, *lines):
        """Objects become JSON; text goes out as it is."""
        for line in lines:
            self.writer.write((line if type(line) is str else json.dumps(line)).encode() + b"\n")

    async def told(self):
        """The next line that the gateway says; `None` at the end."""
        line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
        return json.loads(line) if line else None

    async def close(self):
        self.writer.write_eof()
        check(await self.told() is None, "nothing more to say")
        self.writer.close()


async def websocket(url, token=TOKEN, in_head=True):
    """A WebSocket publisher whose token is in the head, or its first message."""
    headers = {"Authorization": f"Bearer {token}"} if in_head else None
    ws = await websockets.connect(url, additional_headers=headers, open_timeout=PATIENCE)
    if not in_head:
        await ws.send(json.dumps({"op": "auth", "token": token}))
    return ws


def trade(symbol, price="1.25", size="3", **more):
    return {"type": "trade", "symbol": symbol, "price": price, "size": size, **more}


def quote(symbol, bid="1.00", ask="1.10", **more):
    return {"type": "quote", "symbol": symbol, "bid": bid, "bid_size": "5", "ask": ask, "ask_size": "7", **more}
