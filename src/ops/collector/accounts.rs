//! Accounts of the clients per interval, for the log: sums of the shards' counters, and the flights that were
//! written.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::latency::hlog::note::{
    Account, FLIGHTS_MAX, FlightNote, NotedClients, NotedGaps, NotedMoment, bounded,
};
use crate::model::tick::GapCause;
use crate::ops::flight::Incident;
use crate::system::counters::{Counter, Ending, GAP_CAUSES, ShardCounters};
use crate::time::clock::Now;

/// Sums over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Current clients, and those above level `ok`.
    clients: u64,
    slow: u64,
    /// Clients so far, and those that were ever above level `ok`.
    came: u64,
    slowed: u64,
    sent: u64,
    merged: u64,
    dropped: u64,
    lost: u64,
    /// Messages, and the sequence numbers they named, by [`GapCause::ALL`].
    gaps: [(u64, u64); GAP_CAUSES],
    /// By [`Ending::ALL`].
    ended: [u64; Ending::ALL.len()],
}

impl Counts {
    fn of(shards: &[Arc<ShardCounters>]) -> Self {
        let sum =
            |figure: fn(&ShardCounters) -> &Counter| shards.iter().map(|shard| figure(shard).get()).sum();
        let each = |at: usize| {
            let gaps = shards.iter().map(|shard| &shard.gaps[at]);
            gaps.fold((0, 0), |(told, ticks), gaps| (told + gaps.told.get(), ticks + gaps.ticks.get()))
        };
        let above_ok = |shard: &Arc<ShardCounters>| {
            [&shard.warned, &shard.shedding, &shard.nearly_cut].map(Counter::get).iter().sum::<u64>()
        };
        Self {
            clients: sum(|shard| &shard.sessions),
            slow: shards.iter().map(above_ok).sum(),
            came: sum(|shard| &shard.came),
            slowed: sum(|shard| &shard.slowed),
            sent: sum(|shard| &shard.sent),
            merged: sum(|shard| &shard.merged),
            dropped: sum(|shard| &shard.dropped),
            lost: sum(|shard| &shard.lost),
            gaps: std::array::from_fn(each),
            ended: std::array::from_fn(|at| shards.iter().map(|shard| shard.ended[at].get()).sum()),
        }
    }
}

/// Produces the accounts in the notes of the log.
pub(super) struct Accounts {
    start: Now,
    shards: Vec<Arc<ShardCounters>>,
    /// End of the last account in the log, steady nanoseconds, and the counts at that time.
    told_ns: u64,
    told: Counts,
    /// Flights since then.
    flights: Vec<FlightNote>,
    flights_left_out: u64,
}

impl Accounts {
    /// Creates an empty account that begins at `start`.
    pub(super) fn new(start: Now) -> Self {
        let (shards, told, flights) = (Vec::new(), Counts::default(), Vec::new());
        Self { start, shards, told_ns: start.mono_ns, told, flights, flights_left_out: 0 }
    }

    /// Includes the counters of a shard.
    pub(super) fn add(&mut self, shard: Arc<ShardCounters>) {
        self.shards.push(shard);
    }

    /// Adds a flight that was written.
    pub(super) fn flew(&mut self, incident: &Incident, file: String, what: &str) {
        if self.flights.len() >= FLIGHTS_MAX {
            self.flights_left_out += 1;
            return;
        }
        let client = incident.client.as_ref();
        self.flights.push(FlightNote {
            file,
            at: NotedMoment(incident.at_ns),
            what: bounded(what),
            session: client.map(|client| client.session.to_string()),
            peer: client.and_then(|client| client.peer.clone()),
        });
    }

    /// The longest turn of each shard in the last `seconds` seconds, microseconds.
    pub(super) fn longest_turns_us(&self, seconds: u64, now: Now) -> Vec<u64> {
        let turns = self.shards.iter().map(|shard| &shard.turn_times);
        turns.map(|turns| turns.longest_ns(seconds, now.mono_ns) / 1_000).collect()
    }

    /// Whether there are flights that the log does not name yet.
    pub(super) fn has_flights(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The account from the end of the last one until `to_ns`, steady time, and the current counts.
    pub(super) fn until(&self, to_ns: u64) -> (Account, Counts) {
        let (old, new) = (&self.told, Counts::of(&self.shards));
        let wall = |ns: u64| NotedMoment(self.start.wall_ns + ns.saturating_sub(self.start.mono_ns));
        let since = |old: u64, new: u64| new.saturating_sub(old);
        let gaps = GapCause::ALL.into_iter().enumerate().map(|(at, cause)| {
            let ((old_told, old_ticks), (told, ticks)) = (old.gaps[at], new.gaps[at]);
            let gaps = NotedGaps { told: since(old_told, told), ticks: since(old_ticks, ticks) };
            (cause.name().to_owned(), gaps)
        });
        let ended = Ending::ALL.into_iter().enumerate();
        let ended = ended.map(|(at, cause)| (cause.name().to_owned(), since(old.ended[at], new.ended[at])));
        let account = Account {
            from: wall(self.told_ns),
            to: wall(to_ns),
            clients: NotedClients {
                at_start: old.clients,
                new: since(old.came, new.came),
                at_end: new.clients,
            },
            slow: NotedClients { at_start: old.slow, new: since(old.slowed, new.slowed), at_end: new.slow },
            sent: since(old.sent, new.sent),
            merged: since(old.merged, new.merged),
            dropped: since(old.dropped, new.dropped),
            lost: since(old.lost, new.lost),
            gaps: gaps.filter(|(_, gaps)| gaps.told > 0).collect(),
            ended: ended.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(),
            flights: self.flights.clone(),
            flights_left_out: self.flights_left_out,
        };
        (account, new)
    }

    /// Marks an account as written; the next one starts at its end.
    pub(super) fn go_on(&mut self, to_ns: u64, counts: Counts) {
        (self.told_ns, self.told) = (to_ns, counts);
        self.flights.clear();
        self.flights_left_out = 0;
    }
}
