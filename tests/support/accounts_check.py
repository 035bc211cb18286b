"""accounts_check.py: each rule of accounts.py accepts right sequences and finds faults in wrong ones, and the
slope of soak.py finds growth. Prints the number of cases.
"""

from accounts import Account, Shown, Totals
from gateway import replayed
from soak import lowest, slope

S, D = "coinbase:BTC-USD", "demo:A"
ACK = {
    "channel": "trade",
    "ok": [{"symbol": S, "channel": "trade", "mode": "every", "state": "replay"}],
    "rejected": [],
}


def tick(seq, symbol=S, **more):
    return {"type": "trade", "symbol": symbol, "seq": seq, "price": "1", "size": "2", **more}


def gap(first, last):
    return {"type": "gap", "symbol": S, "channel": "trade", "from": first, "to": last, "why": "slow_consumer"}


def account(begins="start", ack=ACK, resume=None):
    one = Account(Totals(), Shown(), "e", replayed)
    one.subscribed(ack, begins, resume)
    return one


def faults(one, *messages):
    for message in messages:
        one.take(message)
    return set(one.totals.faults)


resumed = {**ACK, "ok": [{**ACK["ok"][0], "resumed": "ok"}]}
wildcard = {**ACK, "ok": [{"symbol": "*", "channel": "trade", "mode": "every"}]}
live = {"type": "status", "symbol": S, "state": "live", "since": 1}
replay = {**live, "state": "replay"}
other = Account(Totals(), Shown(), "e", replayed)
shown = account()
elsewhere = Account(Totals(), shown.shown, "e", replayed)
elsewhere.subscribed(ACK, "start")
faults(shown, tick(7, snap=True))

CASES = [
    (set(), faults(account(), tick(7, snap=True), tick(8), tick(11, n=3), gap(12, 20), tick(21))),
    (set(), faults(account(), tick(1), tick(2))),
    (set(), faults(account("any"), tick(50), tick(51))),
    (set(), faults(account(resume={S: 4}, ack=resumed), tick(5), tick(6))),
    (set(), faults(account(ack=wildcard), replay, tick(3, snap=True))),
    (set(), faults(account(ack=wildcard), tick(3, D, snap=True))),
    ({"silent"}, faults(account(), tick(7, snap=True), tick(9))),
    ({"silent"}, faults(account(), tick(7, snap=True), tick(7))),
    ({"silent"}, faults(account(), tick(7, snap=True), tick(10, n=2))),
    ({"silent"}, faults(account(), tick(7, snap=True), gap(9, 12), tick(13))),
    ({"silent"}, faults(account(), tick(7, snap=True), gap(8, 12), tick(14))),
    ({"silent"}, faults(account(), tick(2))),
    ({"silent"}, faults(account(resume={S: 4}, ack=resumed), tick(6))),
    ({"not asked for"}, faults(account(), tick(1, D))),
    ({"live"}, faults(account(), live)),
    ({"live"}, faults(account(ack={**ACK, "ok": [{**ACK["ok"][0], "state": "live"}]}))),
    ({"live"}, faults(account(ack=wildcard), tick(3, snap=True))),
    ({"past"}, faults(account("any"), tick(3, past=True), {"type": "joined"}, tick(4, past=True))),
    ({"live"}, faults(account("any", ack=wildcard), tick(3, past=True), {"type": "joined"})),
    ({"differs"}, faults(elsewhere, tick(6, snap=True), tick(7, price="3"))),
]
for number, (expected, found) in enumerate(CASES):
    assert found == expected, f"case {number}: {found}, and not {expected}"

# A mebibyte in 10 minutes is seen through noise; noise and a single step are not taken for growth.
noise = [(at, 100 + at % 7) for at in range(600)]
assert abs(600 * slope(lowest(noise, 15))) < 0.1, "noise"
grows = [(at, value + at / 600) for at, value in noise]
assert 0.8 < 600 * slope(lowest(grows, 15)) < 1.2, "growth"
step = [(at, value + (at > 500)) for at, value in noise]
assert 600 * slope(lowest(step, 15)) < 0.5, "a step"
print(f"{len(CASES) + 3} cases")
