//! What the operator sees of the clients of a shard.

use std::cmp::Reverse;

use serde::Serialize;

use super::client::Connection;
use super::sessions::{Sessions, Socket};
use crate::clock::{MS, Now};
use crate::latency::CoarseFigures;

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

/// One client. Over its subscriptions to channels, those that have ended included, `offered = sent + merged + dropped +
/// lost + pending`.
#[derive(Clone, Debug, Serialize)]
pub struct ClientRow {
    /// What the rows are sorted by; not shown.
    #[serde(skip)]
    pub sorted_by: u64,
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
pub(super) struct Report {
    shard: usize,
    /// Who is still to be looked at, the worst last.
    worst: Vec<(u64, u32, u64)>,
    rows: Vec<ClientRow>,
}

impl Report {
    /// The finished rows.
    pub(super) fn into_rows(self) -> Vec<ClientRow> {
        self.rows
    }
}

impl<S: Socket> Sessions<S> {
    /// The worst `limit` clients of this shard, at once.
    pub fn report(&mut self, sort: SortBy, limit: usize, shard: usize, now: Now) -> Vec<ClientRow> {
        let mut report = self.start_report(sort, limit, shard, now);
        while !self.go_on_with(&mut report, now) {}
        report.into_rows()
    }

    /// Finds out who are the worst `limit` clients of this shard.
    pub(super) fn start_report(&mut self, sort: SortBy, limit: usize, shard: usize, now: Now) -> Report {
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
        let weighed = self.connections.iter_mut().map(|(id, c)| (weigh(c), id, c.serial));
        let mut worst: Vec<(u64, u32, u64)> = weighed.collect();
        worst.sort_unstable_by_key(|(weight, id, _)| (Reverse(*weight), *id));
        worst.truncate(limit);
        worst.reverse();
        Report { shard, worst, rows: Vec::new() }
    }

    /// Looks at some more of its clients. True if it is finished.
    pub(super) fn go_on_with(&mut self, report: &mut Report, now: Now) -> bool {
        let mut looked_at = 0;
        while looked_at < SUBSCRIPTIONS_PER_TURN {
            let Some((weight, id, serial)) = report.worst.pop() else { return true };
            // Who has gone meanwhile is left out.
            if self.connections.get(id).is_some_and(|c| c.serial == serial)
                && let Some(row) = self.row(id, weight, report.shard, now)
            {
                looked_at += 1 + row.subscriptions;
                report.rows.push(row);
            }
        }
        false
    }

    fn row(&mut self, id: u32, sorted_by: u64, shard: usize, now: Now) -> Option<ClientRow> {
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
            sorted_by,
            shard,
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
