"""road.py NEAR FAR [--delay MS] [--loss PERCENT] [--kbit RATE] [--queue BYTES]: a road between two interfaces, in both
directions: carries frames from one to the other late, not at all, or one after the other. A line "open" on stdin takes all
bounds away. It needs no module of the kernel but packet sockets, and the same seed loses the same frames."""

import argparse
import heapq
import random
import select
import socket
import struct
import sys
import time

OUTGOING = 4
ETH_P_ALL = 3


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def whole(frame):
    """The frame with its TCP checksum: the kernel leaves that to the card, and here is none."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return frame
    start = 14 + (frame[14] & 0x0F) * 4
    end = 14 + struct.unpack_from("!H", frame, 16)[0]
    segment = frame[start : start + 16] + b"\0\0" + frame[start + 18 : end]
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 6, len(segment))
    return frame[: start + 16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


class Lane:
    """One direction."""

    def __init__(self, come, go, options):
        self.come, self.go, self.options = come, go, options
        self.free_at, self.waiting, self.count = 0.0, [], 0
        self.random = random.Random(7)

    def take(self, now):
        frame, address = self.come.recvfrom(65_535)
        if address[2] == OUTGOING:
            return
        options = self.options
        if self.random.random() * 100 < options.loss:
            return
        at = now
        if options.kbit:
            if (self.free_at - now) * options.kbit * 125 > options.queue:
                return
            self.free_at = at = max(now, self.free_at) + len(frame) / (options.kbit * 125)
        self.count += 1
        heapq.heappush(self.waiting, (at + options.delay / 1_000, self.count, whole(frame)))

    def give(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            try:
                self.go.send(heapq.heappop(self.waiting)[2])
            except OSError as error:
                # An interface that is down takes nothing; neither does a road.
                print(error, file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ends", nargs=2)
    for name in ("delay", "loss", "kbit", "queue"):
        parser.add_argument(f"--{name}", type=float, default=0)
    options = parser.parse_args()
    ends = []
    for name in options.ends:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind((name, ETH_P_ALL))
        ends.append(end)
    lanes = {ends[0]: Lane(*ends, options), ends[1]: Lane(*reversed(ends), options)}
    watched = [*ends, sys.stdin]
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = min((lane.waiting[0][0] for lane in lanes.values() if lane.waiting), default=now + 1)
        readable, _, _ = select.select(watched, [], [], max(0, due - now))
        now = time.monotonic()
        for end in readable:
            if end in lanes:
                lanes[end].take(now)
            elif sys.stdin.readline():
                options.delay = options.loss = options.kbit = 0
            else:
                watched.remove(sys.stdin)
        for lane in lanes.values():
            lane.give(time.monotonic())


main()
