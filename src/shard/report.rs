//! Reports on the clients of a shard, for the operator.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::latency::CoarseFigures;

/// What clients are sorted by, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// How long the oldest waiting data has waited.
    Behind,
    /// Bytes that wait.
    Queued,
    /// Ticks merged.
    Merged,
    /// Ticks dropped.
    Dropped,
    /// Ticks sent.
    Sent,
    /// Total latency of its ticks: the 99th percentile, then the mean.
    Latency,
    /// When it connected, the latest first.
    Since,
}

impl SortBy {
    /// Each with its name in a query.
    pub const ALL: [(&'static str, Self); 7] = [
        ("behind", Self::Behind),
        ("queued", Self::Queued),
        ("merged", Self::Merged),
        ("dropped", Self::Dropped),
        ("sent", Self::Sent),
        ("latency", Self::Latency),
        ("since", Self::Since),
    ];
}

/// The rank of a client among all of a gateway, the worst first. It may change between two reports, except by
/// [`SortBy::Since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// The value that clients are sorted by, the greatest first.
    weight: Reverse<u64>,
    shard: usize,
    /// Its serial in that shard.
    serial: u64,
}

impl Standing {
    /// The rank of a client of a shard: the greater its weight, the worse.
    pub(super) fn new(weight: u64, shard: usize, serial: u64) -> Self {
        Self { weight: Reverse(weight), shard, serial }
    }

    /// The shard of the client.
    pub(super) fn shard(&self) -> usize {
        self.shard
    }

    /// The client's serial in its shard.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.weight.0, self.shard, self.serial)
    }
}

impl FromStr for Standing {
    type Err = ();

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(());
        let (weight, shard, serial) = (part()?, part()?, part()?);
        Ok(Self { weight: Reverse(weight), shard: usize::try_from(shard).map_err(drop)?, serial })
    }
}

/// Which clients a report lists.
#[derive(Clone, Copy, Debug)]
pub struct ReportQuery {
    /// What they are sorted by.
    pub sort: SortBy,
    /// How many to list at most, of each shard.
    pub limit: usize,
    /// Only those that rank after this, if given.
    pub after: Option<Standing>,
}

/// The row of one client. Over its subscriptions to channels, ended ones included, `offered = sent + merged + dropped +
/// lost + pending`.
#[derive(Clone, Debug, Serialize)]
pub struct ClientRow {
    /// Its rank among the rows; not shown.
    #[serde(skip)]
    pub standing: Standing,
    /// The shard that serves it.
    pub shard: usize,
    /// Its name.
    pub session: Box<str>,
    /// Where it connected from.
    pub peer: Option<String>,
    /// When it connected, microseconds since the Unix epoch.
    pub since: u64,
    /// `live`, `shedding` or `closing`.
    pub state: &'static str,
    /// The back-pressure level that it was sent last.
    pub level: &'static str,
    /// How long the oldest waiting data has waited, milliseconds.
    pub behind_ms: u64,
    /// Bytes that wait in the gateway.
    pub queued_bytes: usize,
    /// Bytes that the kernel holds and the client's host has not acknowledged.
    pub kernel_unsent_bytes: u64,
    /// Its subscriptions, one per symbol and channel.
    pub subscriptions: usize,
    /// Sequence numbers offered on its subscriptions.
    pub offered: u64,
    /// Sent by a message of their own.
    pub sent: u64,
    /// Merged into a newer one.
    pub merged: u64,
    /// Named by a gap because the client was slow or away, or the gateway was slow.
    pub dropped: u64,
    /// Named by a gap because the feed lost them.
    pub lost: u64,
    /// Not accounted for yet.
    pub pending: u64,
    /// Total latency of its ticks since it connected, from `rx` until the kernel had the frame, waits for its own
    /// socket included; `None` before the first measurement.
    pub total: Option<CoarseFigures>,
}

/// A report that is being written.
pub(super) struct Report {
    /// The clients whose rows are still to be written, the worst last.
    worst: Vec<(Standing, u32)>,
    rows: Vec<ClientRow>,
}

impl Report {
    /// A report on the worst of these clients, at most `limit`, the worst first.
    pub(super) fn of(mut clients: Vec<(Standing, u32)>, limit: usize) -> Self {
        // Only those that are listed need to be sorted.
        if clients.len() > limit {
            clients.select_nth_unstable(limit);
            clients.truncate(limit);
        }
        clients.sort_unstable_by(|a, b| b.cmp(a));
        Self { worst: clients, rows: Vec::new() }
    }

    /// The client whose row is written next.
    pub(super) fn next(&mut self) -> Option<(Standing, u32)> {
        self.worst.pop()
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: ClientRow) {
        self.rows.push(row);
    }

    /// The finished rows.
    pub(super) fn into_rows(self) -> Vec<ClientRow> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_stands_first_and_reads_back_as_it_is_written() {
        let at = |weight, shard, serial| Standing { weight: Reverse(weight), shard, serial };
        let sorted = [
            at(u64::MAX, 7, 1),
            at(2, 0, 9),
            at(2, 1, 3),
            at(2, 1, 4),
            at(1, 0, 1),
            at(0, usize::MAX, u64::MAX),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
        for standing in sorted {
            assert_eq!(standing.to_string().parse(), Ok(standing));
        }
        assert_eq!(sorted[1].to_string(), "2.0.9");
        for bad in ["", "1", "1.2", "1.2.", "1.2.3.4", "1.-2.3", "a.2.3", "18446744073709551616.0.0"] {
            assert_eq!(bad.parse::<Standing>(), Err(()), "{bad}");
        }
    }
}
