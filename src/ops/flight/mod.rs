//! The flight recorder: after an incident, writes the ticks and client states before it to one file.
//!
//! Nothing is written in advance. The ticks are in the ring anyway, and some states of clients above level
//! `ok` are kept ([`ClientHistory`]). A thread that detects an [`Incident`] reports it ([`IncidentReporter`]) and
//! continues; the thread of the collector reads the ring backwards as far as possible and writes the file
//! ([`Flights`]). `docs/LATENCY.md` describes the file.

mod files;
mod form;
mod history;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::Sender;

pub use files::{DumpOutcome, FlightOptions, Flights};
pub use form::{Flight, FlightBound, FlightError, Header, Reason, Stages};
pub use history::{ClientHistory, ClientSnapshot};

use crate::latency::budget::BudgetVerdict;
use crate::model::tick::{GapCause, Key};
use crate::system::counters::{Counter, Ending};

/// An incident.
#[derive(Debug)]
pub struct Incident {
    /// Time, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// Number of ticks published at that time; later ticks are not part of the incident.
    pub position: u64,
    /// Cause of the incident.
    pub cause: Cause,
    /// The client concerned, if any.
    pub client: Option<Client>,
}

/// Cause of an incident.
#[derive(Debug)]
pub enum Cause {
    /// A client was cut, because it was slow, silent or dead.
    Cut {
        /// Cause of the end.
        why: Ending,
        /// Code of the close frame; 1006 if none could be sent.
        code: u16,
    },
    /// Sequence numbers of a stream are lost: the feed lost them, or a client was sent a `gap`.
    Gap {
        /// The stream.
        key: Key,
        /// First lost sequence number.
        from: u64,
        /// Last lost sequence number.
        to: u64,
        /// Cause of the loss.
        why: GapCause,
    },
    /// An interval was over budget; the violated rules.
    Budget(Vec<BudgetVerdict>),
}

/// A client and its states.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Client {
    /// Identifier of the session.
    pub session: Box<str>,
    /// Address of the client.
    pub peer: Option<String>,
    /// Start of the session, microseconds since the Unix epoch.
    pub since_us: u64,
    /// Number of subscribed symbols and channels.
    pub subscriptions: usize,
    /// States since its level was last `ok`, the newest last.
    #[serde(skip)]
    pub states: Vec<ClientSnapshot>,
}

/// Counters of the recorder.
#[derive(Debug, Default)]
pub struct FlightStats {
    /// Files written.
    pub written: Counter,
    /// Incidents without a file, because one was written shortly before.
    pub dropped: Counter,
    /// Files that could not be written.
    pub failed: Counter,
    failing: AtomicBool,
}

impl FlightStats {
    /// Whether the last file could not be written.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// Shared between the reporting threads and the writing thread.
#[derive(Debug, Default)]
struct Shared {
    stats: Arc<FlightStats>,
    /// Earliest time of the next file, steady nanoseconds; [`ON_ITS_WAY`] while an incident is waiting to be
    /// written.
    open_at_ns: AtomicU64,
}

/// See [`Shared::open_at_ns`].
const ON_ITS_WAY: u64 = u64::MAX;

/// Reports incidents of a thread, without blocking.
#[derive(Clone, Debug, Default)]
pub struct IncidentReporter(Option<Line>);

#[derive(Clone, Debug)]
struct Line {
    incidents: Sender<Box<Incident>>,
    shared: Arc<Shared>,
    seconds: u64,
}

impl IncidentReporter {
    /// A reporter that discards incidents.
    pub fn off() -> Self {
        Self(None)
    }

    /// Time span for which states of a client are needed, microseconds; `None` if incidents are not recorded.
    #[inline]
    pub fn span_us(&self) -> Option<u64> {
        self.0.as_ref().map(|line| line.seconds * 1_000_000)
    }

    /// Reports an incident at a steady time. `incident` is only called if a file may be written; otherwise
    /// the incident is counted.
    pub fn tell(&self, now_ns: u64, incident: impl FnOnce() -> Incident) {
        let Some(line) = &self.0 else { return };
        let Shared { stats, open_at_ns } = &*line.shared;
        let open = |at_ns| (now_ns >= at_ns).then_some(ON_ITS_WAY);
        // Relaxed, because the number publishes no other data: the incident goes through the channel.
        let first = open_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, open).is_ok();
        // The channel has room for the one incident; an error means that the writing thread has ended.
        if !first || line.incidents.try_send(Box::new(incident())).is_err() {
            stats.dropped.add(1);
        }
    }
}
