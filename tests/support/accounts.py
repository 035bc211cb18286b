"""Accounts of what a connection received: whether every number is accounted for (docs/PROTOCOL.md, *The accounting
rule*), through changing subscriptions, `resume` and `from`. Faults are collected, not raised: a soak continues,
and prints them at its end.
"""

from collections import Counter, OrderedDict

# The content of so many numbers of each stream is kept, to compare what clients received.
KEPT = 4_096
FAULTS_KEPT = 20


class Shown:
    """The content of each number, which must be the same for all clients."""

    def __init__(self):
        self.streams = {}

    def differs(self, epoch, m):
        what = (m.get("price"), m.get("size"), m.get("bid"), m.get("bid_size"), m.get("ask"), m.get("ask_size"))
        stream = self.streams.setdefault((epoch, m["symbol"], m["type"]), OrderedDict())
        before = stream.setdefault(m["seq"], what)
        if len(stream) > KEPT:
            stream.popitem(last=False)
        return before != what

    def forget(self, epoch):
        self.streams = {key: value for key, value in self.streams.items() if key[0] != epoch}


class Totals:
    """Sums of all connections of a kind."""

    def __init__(self):
        self.counts, self.gaps, self.faults = Counter(), Counter(), Counter()
        self.examples = []

    def fault(self, kind, what):
        self.faults[kind] += 1
        if len(self.examples) < FAULTS_KEPT:
            self.examples.append(f"{kind}: {what}")


class Account:
    """One connection. `recorded` holds for symbols that are replayed, which must never be live."""

    def __init__(self, totals, shown, epoch, recorded):
        self.totals, self.shown, self.epoch, self.recorded = totals, shown, epoch, recorded
        # The newest number of each stream, and for each subscription what the first number of its streams may be.
        self.told, self.states = {}, {}
        self.wanted = {}
        # Whether `joined` has come: nothing is past behind it.
        self.present = False

    def subscribed(self, ack, begins, resume=None):
        """An `ack` of a subscribe. Streams begin with a snapshot or number 1 (`begins`: `start`) or anywhere (`any`)."""
        for row in ack["ok"]:
            key = (row["symbol"], row["channel"])
            self.wanted[key] = begins
            self.state(row)
            if resume is not None and row.get("resumed") in ("ok", "gap"):
                self.totals.counts["resumed_" + row["resumed"]] += 1
                for symbol, seq in resume.items():
                    if covers(row["symbol"], symbol):
                        self.told.setdefault((symbol, row["channel"]), seq)

    def unsubscribed(self, ack):
        channels = ack["channel"] if isinstance(ack["channel"], list) else [ack["channel"]]
        for row in ack["ok"]:
            for channel in channels:
                self.wanted.pop((row["symbol"], channel), None)
                for key in [key for key in self.told if key[1] == channel and covers(row["symbol"], key[0])]:
                    del self.told[key]

    def state(self, m):
        if "state" in m and not m["symbol"].endswith("*"):
            self.states[m["symbol"]] = m["state"]
            if m["state"] == "live" and self.recorded(m["symbol"]):
                self.totals.fault("live", m)

    def take(self, m):
        """A message that is no answer."""
        kind, counts = m["type"], self.totals.counts
        if kind in ("trade", "quote"):
            self.update(m)
        elif kind == "gap":
            self.gap(m)
        elif kind == "status":
            self.state(m)
        elif kind == "lag":
            counts["lag_" + m["level"]] += 1
        elif kind == "joined":
            counts["joined"] += 1
            self.present = True
            for symbol in {symbol for symbol, _ in self.told}:
                if self.recorded(symbol) and symbol not in self.states:
                    self.totals.fault("live", f"{symbol} has no state, {m}")

    def first(self, key, m, before):
        """A stream begins with this message, behind the number `before`."""
        begins = next(
            (b for (pattern, channel), b in self.wanted.items() if channel == key[1] and covers(pattern, key[0])), None
        )
        if begins is None:
            self.totals.fault("not asked for", m)
        elif begins == "start" and before != 0 and not m.get("snap"):
            self.totals.fault("silent", f"begins with {m}")

    def update(self, m):
        totals, counts = self.totals, self.totals.counts
        key, n, snap = (m["symbol"], m["type"]), m.get("n", 1), m.get("snap", False)
        counts["updates"] += 1
        last = self.told.get(key)
        if last is None:
            self.first(key, m, m["seq"] - n)
        elif m["seq"] - n != last:
            totals.fault("silent", f"{last} was told, then {m}")
        if not snap:
            counts["delivered"] += 1
            counts["merged"] += n - 1
        if "past" in m:
            counts["past"] += 1
            if self.present:
                totals.fault("past", f"behind `joined`: {m}")
        if "past" not in m and self.recorded(m["symbol"]) and m["symbol"] not in self.states:
            totals.fault("live", f"no state before {m}")
        if self.shown is not None and self.shown.differs(self.epoch, m) and not snap:
            totals.fault("differs", m)
        self.told[key] = m["seq"]

    def gap(self, m):
        key, count = (m["symbol"], m["channel"]), m["to"] - m["from"] + 1
        if count < 1:
            self.totals.fault("silent", f"a gap of nothing: {m}")
        last = self.told.get(key)
        if last is None:
            self.first(key, m, m["from"] - 1)
        elif m["from"] != last + 1:
            self.totals.fault("silent", f"{last} was told, then {m}")
        self.totals.gaps[m["why"]] += count
        self.told[key] = m["to"]


def covers(pattern, symbol):
    """Whether a name or a wildcard takes a symbol."""
    return pattern == "*" or pattern == symbol or (pattern.endswith(":*") and symbol.startswith(pattern[:-1]))
