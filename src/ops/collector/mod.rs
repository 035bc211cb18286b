//! Collects the measurements of the threads, on its own thread, which alone may wait for the disk. It merges
//! them by label, stores them for queries ([`Measured`]), writes the interval log, and writes a flight when a
//! thread reports an incident.
//!
//! A thread hands over its interval when it ends, at a multiple of the interval on the steady clock. The
//! collector runs an eighth of an interval later and takes what is available. Its intervals are therefore
//! contiguous, and late measurements count in the interval in which they arrive.

mod accounts;
mod answer;
mod machine;
mod measured;
mod symbols;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel;
use hdrhistogram::Histogram;

use crate::latency::budget::{BudgetVerdict, Rule};
use crate::latency::hlog::note::{Account, Note};
use crate::latency::meter::{Meter, MeterLine, Set, VENUES_MAX};
use crate::latency::{self, Stage, Tag};
use crate::model::instrument::InstrumentTable;
use crate::model::tick::Channel;
use crate::ops::flight::{Cause, DumpOutcome, Flights, Incident, IncidentReporter};
use crate::ops::journal::{Journal, JournalLimits};
use crate::system::counters::ShardCounters;
use crate::text::printable;
use crate::time::clock::{Clock, Now};

use accounts::Accounts;
use symbols::{Tally, TopSymbols};

pub use answer::SymbolRows;
pub use measured::{BOUNDS_NS, LogHealth, Measured, Total};

/// Options of the collector.
pub struct CollectorOptions {
    /// Length of an interval, nanoseconds; not 0.
    pub interval_ns: u64,
    /// Most symbols that are measured separately.
    pub symbols_max: usize,
    /// The interval log, if enabled.
    pub log: Option<LogOptions>,
    /// The flight recorder, if enabled.
    pub flights: Option<Flights>,
    /// Latency budgets; an interval beyond one is an incident.
    pub budget: Vec<Rule>,
}

/// Location and limits of the interval log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Path of the newest log.
    pub path: PathBuf,
    /// Disk space of the newest and the older logs.
    pub limits: JournalLimits,
}

/// What the values of a histogram have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Stage in the path of a tick.
    pub stage: Stage,
    /// The venue; `None`: the venues that are not measured separately.
    pub venue: Option<Arc<str>>,
    /// The channel.
    pub channel: Channel,
}

impl Label {
    /// The tag in the log.
    pub fn tag(&self) -> Tag<'_> {
        Tag { stage: self.stage, venue: self.venue.as_deref(), channel: Some(self.channel) }
    }
}

/// Measurements of a time span.
#[derive(Debug, Default)]
struct Window {
    /// Steady nanoseconds.
    from_ns: u64,
    to_ns: u64,
    /// Values below zero, which are in no histogram.
    negative: u64,
    /// Values above the longest recordable time, which count as that time.
    clamped: u64,
    cells: BTreeMap<Label, Histogram<u64>>,
    symbols: Tally,
}

impl Window {
    /// Non-empty histograms, by label.
    fn values(&self) -> impl Iterator<Item = (&Label, &Histogram<u64>)> {
        self.cells.iter().filter(|(_, values)| !values.is_empty())
    }

    fn cell(&mut self, label: &Label) -> &mut Histogram<u64> {
        self.cells.entry(label.clone()).or_insert_with(latency::histogram)
    }

    /// Removes all values, and keeps the memory.
    fn clear(&mut self) {
        self.cells.values_mut().for_each(Histogram::reset);
        self.symbols.clear();
        (self.negative, self.clamped) = (0, 0);
    }
}

/// The interval log, and its file if it can be written.
struct Log {
    options: LogOptions,
    head: Note,
    journal: Option<Journal>,
}

impl Log {
    /// The journal; creates it if the last attempt failed.
    fn journal(&mut self, start_ns: u64) -> io::Result<&mut Journal> {
        match &mut self.journal {
            Some(journal) => Ok(journal),
            none => Ok(none.insert({
                let LogOptions { path, limits } = &self.options;
                Journal::create(path, start_ns, Some(self.head.clone()), *limits)?
            })),
        }
    }

    fn write(&mut self, window: &Window, account: Account, start: Now) -> io::Result<()> {
        let journal = self.journal(start.wall_ns)?;
        let since_start = Duration::from_nanos(window.from_ns.saturating_sub(start.mono_ns));
        let duration = Duration::from_nanos(window.to_ns - window.from_ns);
        for (label, values) in window.values() {
            journal.lines().write(&label.tag().to_string(), since_start, duration, values)?;
        }
        journal.lines().note(&Note::Interval(account))?;
        journal.end_interval()
    }
}

/// Reports to the operator. It must not block.
pub type Tell = Box<dyn FnMut(String) + Send>;

/// Collects: see the [module](self). [`turn`](Self::turn) does all the work and can be called directly.
pub struct Collector {
    interval_ns: u64,
    symbols_max: usize,
    start: Now,
    lines: Vec<Arc<MeterLine>>,
    measured: Arc<Measured>,
    /// Venues that are measured separately.
    venues: Vec<Arc<str>>,
    /// Symbols that are measured separately.
    election: TopSymbols,
    /// The interval that is being collected.
    round: Window,
    /// Accounts of the clients, for the log.
    accounts: Accounts,
    log: Option<Log>,
    flights: Option<Flights>,
    budget: Vec<Rule>,
    tell: Tell,
}

impl Collector {
    /// Creates a collector whose intervals begin at `start`, and the log, if enabled. `tell` receives a
    /// message when the log or the flights cannot be written, and when they can be again; measuring continues
    /// without them.
    pub fn new(options: CollectorOptions, table: Arc<InstrumentTable>, start: Now, tell: Tell) -> Self {
        let CollectorOptions { interval_ns, symbols_max, log, flights, budget } = options;
        let stats = flights.as_ref().map(Flights::stats);
        let head = |flights: Option<&Flights>| {
            Note::Log(machine::head(start.wall_ns, interval_ns, flights.map(Flights::dir)))
        };
        let log = log.map(|options| Log { options, head: head(flights.as_ref()), journal: None });
        let mut collector = Self {
            interval_ns,
            symbols_max,
            start,
            lines: Vec::new(),
            measured: Arc::new(Measured::new(interval_ns, start, log.is_some(), table, stats)),
            venues: Vec::new(),
            election: TopSymbols::new(symbols_max),
            round: Window { from_ns: start.mono_ns, ..Window::default() },
            accounts: Accounts::new(start),
            log,
            flights,
            budget,
            tell,
        };
        if let Some(told) = collector.flights.as_ref().and_then(Flights::probe) {
            (collector.tell)(told);
        }
        if let Some(log) = &mut collector.log {
            let begun = log.journal(start.wall_ns).map(drop);
            collector.log_went(begun);
        }
        collector
    }

    /// Creates a meter for a thread.
    pub fn meter(&mut self) -> Meter {
        let line = Arc::<MeterLine>::default();
        self.lines.push(Arc::clone(&line));
        Meter::new(line, self.interval_ns, self.start.mono_ns).with_symbols(self.symbols_max)
    }

    /// Includes the counters of a shard in the accounts of the log.
    pub fn account_for(&mut self, shard: Arc<ShardCounters>) {
        self.accounts.add(shard);
    }

    /// A reporter of incidents for a thread.
    pub fn reporter(&self) -> IncidentReporter {
        self.flights.as_ref().map_or_else(IncidentReporter::off, Flights::reporter)
    }

    /// The stored measurements.
    pub fn measured(&self) -> Arc<Measured> {
        Arc::clone(&self.measured)
    }

    /// Takes what the threads have handed over. Without any, the interval continues.
    pub fn turn(&mut self, now: Now) {
        let mut ended_ns = None;
        for at in 0..self.lines.len() {
            while let Some(set) = self.lines[at].take() {
                ended_ns = ended_ns.max(Some(set.to_ns));
                self.add(&set);
                self.lines[at].give_back(set, self.election.elected());
            }
        }
        let Some(ended_ns) = ended_ns else { return };
        self.round.to_ns = ended_ns.max(self.round.from_ns);
        self.write_log();
        let next_ns = self.round.to_ns;
        let broken = self.over_budget();
        self.election.elect();
        self.measured.take_in(&mut self.round, self.election.elected());
        self.round.clear();
        self.round.from_ns = next_ns;
        if let Some(flights) = self.flights.as_ref().filter(|_| !broken.is_empty()) {
            let (at_ns, cause) = (now.wall_ns, Cause::Budget(broken));
            let incident = || Incident { at_ns, position: flights.published(), cause, client: None };
            flights.reporter().tell(now.mono_ns, incident);
        }
    }

    /// Writes the interval. An account that could not be written is included in the next one.
    fn write_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        let (account, counts) = self.accounts.until(self.round.to_ns);
        let written = log.write(&self.round, account, self.start);
        if written.is_ok() {
            self.accounts.go_on(self.round.to_ns, counts);
        }
        self.log_went(written);
    }

    /// The rules that the interval violates. A rule without measurements is not violated.
    fn over_budget(&self) -> Vec<BudgetVerdict> {
        let judge = |rule: &Rule| {
            let mut sum = None;
            for (_, values) in self.round.values().filter(|(label, _)| rule.selects(&label.tag().to_string()))
            {
                // Cannot fail, because the bounds are the same.
                let _ = sum.get_or_insert_with(latency::histogram).add(values);
            }
            rule.judge(sum.as_ref())
        };
        let measured = |verdict: &BudgetVerdict| verdict.measured_ns.is_some();
        self.budget.iter().map(judge).filter(|verdict| !verdict.held).filter(measured).collect()
    }

    /// Writes the flight of an incident.
    pub fn record(&mut self, incident: &Incident, now: Now) {
        let Some(flights) = &mut self.flights else { return };
        let mut stages = self.measured.last_stages(now);
        stages.longest_turns_us = self.accounts.longest_turns_us(flights.seconds(), now);
        let DumpOutcome { told, written } = flights.write(incident, &stages, now.mono_ns);
        if let Some((file, what)) = written.filter(|_| self.log.is_some()) {
            self.accounts.flew(incident, file, &what);
        }
        if let Some(told) = told {
            (self.tell)(told);
        }
    }

    /// Writes the flights that were written since the last interval.
    fn end(&mut self) {
        if self.accounts.has_flights() {
            self.round.to_ns = self.round.from_ns;
            self.write_log();
        }
    }

    fn add(&mut self, set: &Set) {
        self.round.negative += set.negative;
        self.round.clamped += set.clamped;
        self.round.symbols.take(&set.symbols);
        self.election.count(&set.symbols);
        for (stage, venue, channel, values) in set.values() {
            let venue = venue.and_then(|venue| known(&mut self.venues, venue));
            // Cannot fail, because the bounds are the same.
            let _ = self.round.cell(&Label { stage, venue, channel }).add(values);
        }
    }

    /// Counts intervals missing in the log, and reports when writing starts to fail and when it succeeds
    /// again.
    fn log_went(&mut self, how: io::Result<()>) {
        let path =
            self.log.as_ref().map(|log| printable::path(&log.options.path).to_string()).unwrap_or_default();
        match how {
            Err(error) if self.measured.log_failed() => {
                (self.tell)(format!(
                    "latency.log: {path}: {error}: intervals are missing until it can be written"
                ));
            }
            Ok(()) if self.measured.log_written() => {
                (self.tell)(format!("latency.log: {path}: it is written again"));
            }
            _ => {}
        }
    }

    /// Runs the collector on its own thread.
    ///
    /// # Errors
    /// The error of the operating system if it cannot create the thread.
    pub fn start(mut self, clock: Clock) -> io::Result<Collecting> {
        let (stop, stopped) = channel::bounded::<()>(0);
        let incidents = self.flights.as_ref().map_or_else(channel::never, Flights::incidents);
        let thread = std::thread::Builder::new().name("latency".to_owned()).spawn(move || {
            loop {
                let left = Duration::from_nanos(self.left_ns(clock.now().mono_ns));
                channel::select! {
                    recv(stopped) -> _ => break,
                    recv(incidents) -> incident => {
                        incident.iter().for_each(|incident| self.record(incident, clock.now()));
                    }
                    default(left) => self.turn(clock.now()),
                }
            }
            self.turn(clock.now());
            incidents.try_iter().for_each(|incident| self.record(&incident, clock.now()));
            self.end();
        })?;
        Ok(Collecting { stop, thread })
    }

    /// Nanoseconds until the next turn.
    fn left_ns(&self, now_ns: u64) -> u64 {
        let late_ns = self.interval_ns / 8;
        self.interval_ns - (now_ns + self.interval_ns - late_ns) % self.interval_ns
    }
}

/// The venue if it is measured separately, which the first [`VENUES_MAX`] venues are.
fn known(venues: &mut Vec<Arc<str>>, venue: &str) -> Option<Arc<str>> {
    if let Some(known) = venues.iter().find(|known| ***known == *venue) {
        return Some(Arc::clone(known));
    }
    if venues.len() == VENUES_MAX {
        return None;
    }
    let venue: Arc<str> = venue.into();
    venues.push(Arc::clone(&venue));
    Some(venue)
}

/// A running collector.
pub struct Collecting {
    stop: channel::Sender<()>,
    thread: JoinHandle<()>,
}

impl Collecting {
    /// Collects, stores and writes the rest, and waits for it. The measuring threads should have ended.
    pub fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        // The thread returns no value.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests;
