//! What the operator sees of the clients of a shard.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::latency::CoarseFigures;
use crate::shard::sessions::connection::Connection;
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::{MS, Now};

/// What clients are sorted by, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// How long the oldest of what waits has waited.
    Behind,
    /// Bytes that wait.
    Queued,
    /// Ticks merged.
    Merged,
    /// Ticks dropped.
    Dropped,
    /// Ticks sent.
    Sent,
    /// What the whole way of its ticks took: the 99th percentile, then the mean.
    Latency,
    /// Who came last.
    Since,
}

impl SortBy {
    /// Each with its word.
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

/// Where a client stands among all of a gateway, the worst first. What clients are sorted by may move between two reports,
/// but for [`SortBy::Since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// What they are sorted by, the greatest first.
    weight: Reverse<u64>,
    shard: usize,
    /// Its serial in that shard.
    serial: u64,
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

/// Which clients a report is of.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What they are sorted by.
    pub sort: SortBy,
    /// So many at most, of each shard.
    pub limit: usize,
    /// Those that stand behind this, if it is given.
    pub after: Option<Standing>,
}

/// One client. Over its subscriptions to channels, those that have ended included, `offered = sent + merged + dropped +
/// lost + pending`.
#[derive(Clone, Debug, Serialize)]
pub struct ClientRow {
    /// Where it stands among the rows; not shown.
    #[serde(skip)]
    pub standing: Standing,
    /// The shard that serves it.
    pub shard: usize,
    /// Its name.
    pub session: Box<str>,
    /// Where it connected from.
    pub peer: Option<String>,
    /// When it came, microseconds since the Unix epoch.
    pub since: u64,
    /// `live`, `shedding` or `closing`.
    pub state: &'static str,
    /// The level it was told last.
    pub level: &'static str,
    /// For how long the oldest of what waits has waited.
    pub behind_ms: u64,
    /// Bytes that wait in the gateway.
    pub queued_bytes: usize,
    /// Bytes that the kernel holds and the client's has not acknowledged.
    pub kernel_unsent_bytes: u64,
    /// Symbols and channels it is subscribed to.
    pub subscriptions: usize,
    /// Numbers that there were on its subscriptions.
    pub offered: u64,
    /// Told by a message of their own.
    pub sent: u64,
    /// Stood for by a newer one.
    pub merged: u64,
    /// Named by a gap because it was slow or away, or the gateway slow.
    pub dropped: u64,
    /// Named by a gap because the feed lost them.
    pub lost: u64,
    /// Not told yet.
    pub pending: u64,
    /// What it felt: what the way of its ticks took, from `rx` until the kernel had the frame, what its own socket kept waiting
    /// counted, since it came; none before the first that was measured.
    pub total: Option<CoarseFigures>,
}

/// A number that is the greater the slower the figures are: the 99th percentile counts, then the mean, in microseconds of which
/// there are fewer than 2^32.
fn slowness(figures: &CoarseFigures) -> u64 {
    ((figures.p99_ns / 1_000) << 32) | (figures.mean_ns / 1_000)
}

/// Subscriptions that are looked at for reports in one turn: ticks wait meanwhile.
const SUBSCRIPTIONS_PER_TURN: usize = 10_000;

/// A report in the making.
pub(in crate::shard) struct Report {
    /// Who is still to be looked at, the worst last.
    worst: Vec<(Standing, u32)>,
    rows: Vec<ClientRow>,
}

impl Report {
    /// The finished rows.
    pub(in crate::shard) fn into_rows(self) -> Vec<ClientRow> {
        self.rows
    }
}

impl<S: Socket> Sessions<S> {
    /// The worst `limit` clients of this shard, at once.
    pub fn report(&mut self, sort: SortBy, limit: usize, shard: usize, now: Now) -> Vec<ClientRow> {
        let mut report = self.start_report(Asked { sort, limit, after: None }, shard, now);
        while !self.go_on_with(&mut report, now) {}
        report.into_rows()
    }

    /// Finds out which clients of this shard, number `shard`, are asked for.
    pub(in crate::shard) fn start_report(&mut self, asked: Asked, shard: usize, now: Now) -> Report {
        let Asked { sort, limit, after } = asked;
        let weigh = |connection: &Connection<S>| {
            let (session, ledger) = (&connection.session, connection.session.ledger());
            match sort {
                SortBy::Behind => session.behind_ns(now.mono_ns),
                SortBy::Queued => session.outbox().len() as u64,
                SortBy::Merged => ledger.merged,
                SortBy::Dropped => ledger.dropped,
                SortBy::Sent => ledger.sent,
                SortBy::Latency => connection.way.as_ref().map_or(0, |way| slowness(&way.figures())),
                SortBy::Since => connection.serial,
            }
        };
        let stand = |(id, c): (u32, &mut Connection<S>)| {
            (Standing { weight: Reverse(weigh(c)), shard, serial: c.serial }, id)
        };
        let standings = self.connections.iter_mut().map(stand);
        let mut worst: Vec<(Standing, u32)> =
            standings.filter(|(standing, _)| after.is_none_or(|after| *standing > after)).collect();
        // Most of very many need not be put in order.
        if worst.len() > limit {
            worst.select_nth_unstable(limit);
            worst.truncate(limit);
        }
        worst.sort_unstable_by(|a, b| b.cmp(a));
        Report { worst, rows: Vec::new() }
    }

    /// Looks at some more of its clients. True if it is finished.
    pub(in crate::shard) fn go_on_with(&mut self, report: &mut Report, now: Now) -> bool {
        let mut looked_at = 0;
        while looked_at < SUBSCRIPTIONS_PER_TURN {
            let Some((standing, id)) = report.worst.pop() else { return true };
            // Who has gone meanwhile is left out.
            if self.connections.get(id).is_some_and(|c| c.serial == standing.serial)
                && let Some(row) = self.row(id, standing, now)
            {
                looked_at += 1 + row.subscriptions;
                report.rows.push(row);
            }
        }
        false
    }

    fn row(&mut self, id: u32, standing: Standing, now: Now) -> Option<ClientRow> {
        let connection = self.connections.get_mut(id)?;
        let (mut subscriptions, mut heads, mut pending) = (0, 0_u64, 0);
        for (key, place) in connection.places.iter().filter(|(key, _)| key.channel().is_some()) {
            let subscription = self.subscriptions.at(*key, *place)?;
            // What the shard has not read yet was offered to nobody: only who is dirty is behind the last value.
            let head = match subscription.is_dirty() {
                true => self.ring.last_value(*key).map_or(0, |last| last.head),
                false => 0,
            };
            subscriptions += 1;
            pending += head.saturating_sub(subscription.told());
            heads = heads.wrapping_add(head.max(subscription.told()));
        }
        let (session, ledger) = (&connection.session, connection.session.ledger());
        Some(ClientRow {
            standing,
            shard: standing.shard,
            session: connection.who.name.clone(),
            peer: connection.who.peer.map(|peer| peer.to_string()),
            since: connection.since_us,
            state: match (session.is_closing(), session.is_shedding()) {
                (true, _) => "closing",
                (false, true) => "shedding",
                (false, false) => "live",
            },
            level: session.level().name(),
            behind_ms: session.behind_ns(now.mono_ns) / MS,
            queued_bytes: session.outbox().len(),
            kernel_unsent_bytes: connection.socket.unacked(),
            subscriptions,
            offered: session.offered(heads),
            sent: ledger.sent,
            merged: ledger.merged,
            dropped: ledger.dropped,
            lost: ledger.lost,
            pending,
            total: connection.way.as_ref().map(|way| way.figures()),
        })
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
