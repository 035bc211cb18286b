//! Reports of the clients of a shard.

use super::{Connection, Sessions};
use crate::latency::CoarseFigures;
use crate::shard::report::{ClientRow, Report, ReportQuery, SortBy, Standing};
use crate::shard::socket::Socket;
use crate::time::clock::{MS, Now};

/// Subscriptions that are examined for reports in one turn, because ticks wait meanwhile.
const SUBSCRIPTIONS_PER_TURN: usize = 10_000;

/// Ranks figures, slower ones higher: by the 99th percentile, then by the mean, both in microseconds and below 2^32.
fn slowness(figures: &CoarseFigures) -> u64 {
    ((figures.p99_ns / 1_000) << 32) | (figures.mean_ns / 1_000)
}

impl<S: Socket> Sessions<S> {
    /// Lists the worst `limit` clients of this shard in one call.
    pub fn report(&mut self, sort: SortBy, limit: usize, shard: usize, now: Now) -> Vec<ClientRow> {
        let mut report = self.start_report(ReportQuery { sort, limit, after: None }, shard, now);
        while !self.go_on_with(&mut report, now) {}
        report.into_rows()
    }

    /// Begins a report: selects the clients of this shard, number `shard`, that are `asked` for.
    pub(in crate::shard) fn start_report(&mut self, asked: ReportQuery, shard: usize, now: Now) -> Report {
        let ReportQuery { sort, limit, after } = asked;
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
        let stand = |(id, c): (u32, &mut Connection<S>)| (Standing::new(weigh(c), shard, c.serial), id);
        let standings = self.connections.iter_mut().map(stand);
        let behind = |standing: &Standing| after.is_none_or(|after| *standing > after);
        Report::of(standings.filter(|(standing, _)| behind(standing)).collect(), limit)
    }

    /// Adds rows of some more clients to a report. True if it is finished.
    pub(in crate::shard) fn go_on_with(&mut self, report: &mut Report, now: Now) -> bool {
        let mut looked_at = 0;
        while looked_at < SUBSCRIPTIONS_PER_TURN {
            let Some((standing, id)) = report.next() else { return true };
            // A client that has left meanwhile is left out.
            if self.connections.is_same(id, standing.serial())
                && let Some(row) = self.row(id, standing, now)
            {
                looked_at += 1 + row.subscriptions;
                report.push(row);
            }
        }
        false
    }

    fn row(&mut self, id: u32, standing: Standing, now: Now) -> Option<ClientRow> {
        let connection = self.connections.get_mut(id)?;
        let (mut subscriptions, mut heads, mut pending) = (0, 0_u64, 0);
        for (key, place) in connection.holdings.on_channels() {
            let subscription = self.directory.at(key, place)?;
            // Ticks that the shard has not read yet are not offered: only a dirty subscription is behind the last
            // value.
            let head = match subscription.is_dirty() {
                true => self.env.ring.last_value(key).map_or(0, |last| last.head),
                false => 0,
            };
            subscriptions += 1;
            pending += head.saturating_sub(subscription.accounted_seq());
            heads = heads.wrapping_add(head.max(subscription.accounted_seq()));
        }
        let (session, ledger) = (&connection.session, connection.session.ledger());
        Some(ClientRow {
            standing,
            shard: standing.shard(),
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
