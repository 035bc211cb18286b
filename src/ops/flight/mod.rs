//! The flight recorder: when something goes wrong, what came just before it goes to one file.
//!
//! Nothing is written in advance. The ticks stand in the ring anyway, and of clients that are not well some states are
//! kept ([`History`]). A thread that sees an [`Incident`] tells it ([`IncidentReporter`]) and goes on; the collector's thread reads
//! the ring back as far as it still goes and writes ([`Flights`]). `docs/LATENCY.md` describes the file.

mod files;
mod form;
mod history;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::Sender;

pub use files::{Flights, Options, Outcome};
pub use form::{Bound, Flight, FlightError, Header, Reason, Stages};
pub use history::{History, State};

use crate::latency::budget::Verdict;
use crate::model::tick::{GapCause, Key};
use crate::system::counters::{Counter, Ending};

/// Something that went wrong.
#[derive(Debug)]
pub struct Incident {
    /// When, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Ticks that had been published by then: those behind it are no part of it.
    pub position: u64,
    /// What it was.
    pub cause: Cause,
    /// Whose client it is about.
    pub client: Option<Client>,
}

/// What went wrong.
#[derive(Debug)]
pub enum Cause {
    /// A client was cut, for being slow, silent or dead.
    Cut {
        /// Why.
        why: Ending,
        /// The code of the close frame; 1006 where there was nobody to send one to.
        code: u16,
    },
    /// Numbers of a stream are not coming, both ends included: the feed lost them, or a client was told that it did not get
    /// them.
    Gap {
        /// The stream.
        key: Key,
        /// The first number.
        from: u64,
        /// The last number.
        to: u64,
        /// Why.
        why: GapCause,
    },
    /// An interval was over budget: the rules that it broke.
    Budget(Vec<Verdict>),
}

/// A client, and how it did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Client {
    /// Its name.
    pub session: Box<str>,
    /// Where it connected from.
    pub peer: Option<String>,
    /// When it came, microseconds since the Unix epoch.
    pub since_us: u64,
    /// Symbols and channels it is subscribed to.
    pub subscriptions: usize,
    /// How it did since it was last well, the newest last.
    #[serde(skip)]
    pub states: Vec<State>,
}

/// What the recorder counts.
#[derive(Debug, Default)]
pub struct Stats {
    /// Files written.
    pub written: Counter,
    /// Incidents of which there is no file, because one had just been written.
    pub dropped: Counter,
    /// Files that could not be written.
    pub failed: Counter,
    failing: AtomicBool,
}

impl Stats {
    /// Whether the last file could not be written.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// What threads that see incidents share with the one that writes.
#[derive(Debug, Default)]
struct Shared {
    stats: Arc<Stats>,
    /// From when on another file may be written, steady nanoseconds; [`ON_ITS_WAY`] while an incident waits to be.
    open_at_ns: AtomicU64,
}

/// See [`Shared::open_at_ns`].
const ON_ITS_WAY: u64 = u64::MAX;

/// A thread's way to tell incidents. It waits for nobody.
#[derive(Clone, Debug, Default)]
pub struct IncidentReporter(Option<Line>);

#[derive(Clone, Debug)]
struct Line {
    incidents: Sender<Box<Incident>>,
    shared: Arc<Shared>,
    seconds: u64,
}

impl IncidentReporter {
    /// One that nobody listens to.
    pub fn off() -> Self {
        Self(None)
    }

    /// For how long the past of a client is of interest, microseconds; `None`: incidents are not recorded.
    #[inline]
    pub fn span_us(&self) -> Option<u64> {
        self.0.as_ref().map(|line| line.seconds * 1_000_000)
    }

    /// Tells an incident at a steady time. It is put together only if a file may be written again; else it is counted.
    pub fn tell(&self, now_ns: u64, incident: impl FnOnce() -> Incident) {
        let Some(line) = &self.0 else { return };
        let Shared { stats, open_at_ns } = &*line.shared;
        let open = |at_ns| (now_ns >= at_ns).then_some(ON_ITS_WAY);
        // Nothing else is told by this number: the incident itself goes through the channel.
        let first = open_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, open).is_ok();
        // There is room for the one that is on its way; who writes may have ended.
        if !first || line.incidents.try_send(Box::new(incident())).is_err() {
            stats.dropped.add(1);
        }
    }
}
