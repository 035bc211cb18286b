"""hgrm.py STAGE LOG TEXT: whether a percentile text of the gateway says of a stage what HdrHistogram's own Python library
knows of all that its log has of it. Prints how many rows and values that are."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

MS = 1_000_000


def check(holds, what):
    if not holds:
        raise SystemExit(f"hgrm.py: {what}")


stage, log, text = sys.argv[1:]
total = HdrHistogram(1, 60_000_000_000, 3)
reader = HistogramLogReader(log, HdrHistogram(1, 60_000_000_000, 3))
while (interval := reader.get_next_interval_histogram()) is not None:
    if interval.get_tag().split("/")[0] == stage:
        total.add(interval)
reader.close()

with open(text) as file:
    ours = file.read().splitlines()
check(ours[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"] and ours[1] == "", ours[:2])
# By value in nanoseconds: how many values there are up to it, and without it.
known = {}
for item in total.get_recorded_iterator():
    count = item.total_count_to_this_value
    known[total.get_highest_equivalent_value(item.value_iterated_to)] = (count, count - item.count_at_value_iterated_to)
count = total.get_total_count()
rows = [line.split() for line in ours[2:-3]]
levels = []
for value, level, up_to, *inverse in rows:
    level = float(level)
    check(round(float(value) * MS) in known, f"{value} was not measured")
    upper, lower = known[round(float(value) * MS)]
    check(int(up_to) == upper, f"{up_to} up to {value}, not {upper}")
    # The level stands at this value, but for what a float cannot tell.
    check(lower <= level * count + 1e-6 and level * count <= upper + 1e-6, f"{level} is not at {value}")
    check(len(inverse) == (level < 1), f"{inverse} at {level}")
    check(level == 1 or abs(float(inverse[0]) - 1 / (1 - level)) <= 0.01, f"{inverse} at {level}")
    levels.append(level)
check(levels == sorted(set(levels)) and levels[0] == 0 and levels[-1] == 1, levels)
footer = " ".join(ours[-3:])
check(f"Total count    = {count:12}]" in footer, footer)
check(f"#[Max     = {total.get_max_value() / MS:12.6f}," in footer, footer)
mean = float(ours[-3].split("=")[1].split(",")[0])
check(abs(mean - total.get_mean_value() / MS) <= mean / 1000 + 1e-6, footer)
print(json.dumps({"rows": len(rows), "count": count}))
