"""digest.py TICKS: the digest of what `tickfan normalize` printed, as docs/CAPTURES.md describes it."""

import json
import sys

MASK = (1 << 64) - 1
SEEDS = 0x243F6A8885A308D3, 0x13198A2E03707344
FACTORS = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


def fold(a, b):
    product = a * b
    return product >> 64 ^ product & MASK


def absorb(words, seed, factor):
    for word in words:
        seed = fold(seed ^ word, factor)
    return seed


def words_of(number, tick):
    words = [0] * 12
    kind, detail, present, trade_id = ["trade", "quote", "gap"].index(tick["type"]), 0, 0, b""
    if tick["type"] == "trade":
        decimals = [tick["price"], tick["size"]]
        detail = {None: 0, "buy": 1, "sell": 2}[tick.get("side")]
        trade_id = tick.get("trade_id", "").encode()
        padded = trade_id.ljust(40, b"\0")
        words[7:] = [int.from_bytes(padded[at : at + 8], "little") for at in range(0, 40, 8)]
    elif tick["type"] == "quote":
        decimals = [tick.get(field) for field in ("bid", "bid_size", "ask", "ask_size")]
    else:
        decimals = []
        detail = ["trade", "quote"].index(tick["channel"])
        words[5] = tick["to"] - tick["from"] + 1
    for at, text in enumerate(decimals):
        if text is not None:
            whole, _, part = text.partition(".")
            words[5 + at] = int(whole + part) & MASK
            words[4] |= len(part) << 8 * at
            present |= 1 << at
    if "ts" in tick:
        present |= 1 << 7
        words[3] = tick["ts"]
    words[0] = kind | detail << 8 | present << 16 | len(trade_id) << 24
    words[1], words[2] = number, absorb(tick["symbol"].encode(), SEEDS[0], FACTORS[0])
    return words


def main(path):
    total = 0
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            words = words_of(number, json.loads(line))
            high, low = (absorb(words, seed, factor) for seed, factor in zip(SEEDS, FACTORS))
            total = total + (high << 64 | low) & (1 << 128) - 1
    print(f"{total:032x}")


main(sys.argv[1])
