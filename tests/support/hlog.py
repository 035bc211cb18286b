"""Reads interval logs with HdrHistogram's own Python library and prints what each tag measured, as JSON."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

sums = {}
spans = {}
for name in sys.argv[1:]:
    reader = HistogramLogReader(name, HdrHistogram(1, 60_000_000_000, 3))
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        spans.setdefault(tag, []).append(interval.get_start_time_stamp())
        if tag not in sums:
            sums[tag] = HdrHistogram(1, 60_000_000_000, 3)
        sums[tag].add(interval)
    reader.close()
for tag, total in sorted(sums.items()):
    told = {"tag": tag, "count": total.get_total_count(), "max_ns": total.get_max_value()}
    for percentile in (50, 90, 99, 99.9, 99.99):
        told[f"p{percentile:g}_ns"] = total.get_value_at_percentile(percentile)
    told["mean_ns"] = total.get_mean_value()
    told["first_ms"] = min(spans[tag])
    print(json.dumps(told))
