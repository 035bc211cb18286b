//! A shard: one thread with its own sockets, its own subscription table, and a reader of the ring. It shares with other
//! threads only what [`ShardParts`] and [`ShardHandle`] hold.
//!
//! ```text
//! turn: read at most B ticks from the ring → look up the subscriptions of each → encode once → queue
//!       reread a portion of the ring for returning sessions; release what rates held back
//!       write to at most F sessions from the head of the queue, one write each
//!       send some heartbeats that are due, and check some slow clients
//! ```
//!
//! The session that has waited longest is written to first. B and F bound how far reading can run ahead of writing, and
//! adapt batches to the load: an idle shard writes each tick at once, a busy one several ticks per write.

mod allowance;
mod answers;
mod awaited;
mod backfill;
mod deadlines;
mod directory;
mod driver;
mod egress;
mod ending;
mod frames;
mod holdings;
mod measure;
mod options;
mod pattern;
mod plan;
mod pongs;
mod positions;
mod readers;
mod reading;
mod replay_status;
mod report;
mod resolve;
mod sessions;
mod shortage;
mod socket;
mod spec;
mod start;
mod steps;
mod surroundings;
mod ways;
mod workload;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use driver::DriverContext;
pub use driver::{NewClient, TcpSocket};
pub use ending::Parting;
pub use options::{ClientLimits, SessionOptions, SessionTimes};
pub use reading::CatchUps;
use report::Report;
pub use report::{ClientRow, ReportQuery, SortBy, Standing};
pub use sessions::Sessions;
pub use shortage::Relief;
pub use socket::{ClientInfo, Socket, Wants};
pub use steps::STEPS_MIN;
pub use surroundings::shown;

use crate::history;
use crate::latency::meter::Meter;
use crate::model::instrument::InstrumentTable;
pub use crate::net::{ConnectionPermit, Peer, Tuning};
use crate::ops::flight::IncidentReporter;
use crate::protocol::close::Close;
use crate::ring::{Doorbell, TickReader, TickRing};
use crate::system::counters::ShardCounters;
use crate::system::memory::Memory;
use crate::system::pulse::{Beating, Pulse, Signs};
use crate::time::clock::{Clock, MS, Now};

/// New clients admitted per turn. Further ones wait in the inbox.
const ADMISSIONS_PER_TURN: usize = 16;

/// How a shard waits for ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Sleeps until the doorbell rings: costs a wake-up, and no CPU while idle.
    Park,
    /// Polls the ring for a while, then sleeps.
    SpinThenPark,
    /// Never sleeps: occupies a core, and saves the wake-up.
    Spin,
}

/// The longest sleep, nanoseconds. An idle shard thus does not seem to hang, notices in time if the feed hangs, and
/// [reads its clock](Clock::of_thread) often enough.
const PARK_NS_MAX: u64 = 400 * MS;
/// How long [`Wait::SpinThenPark`] polls before it sleeps, nanoseconds.
const SPIN_NS: u64 = 100_000;

/// What other threads send to a shard.
#[derive(Debug)]
enum Command {
    /// Serve this client.
    Client(Box<NewClient>),
    /// List the worst clients.
    Report { asked: ReportQuery, shard: usize, answer: oneshot::Sender<Vec<ClientRow>> },
    /// Memory is short: free this much.
    Relieve(Relief),
    /// No more ticks come: send what is queued, then `bye` to each client, and end.
    Drain(Close),
}

/// What a shard is made of, which includes all state that it shares with other threads.
pub struct ShardParts {
    /// Options and limits of its sessions.
    pub options: SessionOptions,
    /// The instruments.
    pub table: Arc<InstrumentTable>,
    /// The ring.
    pub ring: TickRing,
    /// The clock.
    pub clock: Clock,
    /// Its counters.
    pub counters: Arc<ShardCounters>,
    /// How it waits for ticks.
    pub wait: Wait,
    /// How long a drain waits for slow clients, milliseconds.
    pub drain_ms: u64,
    /// Its latency meter.
    pub meter: Meter,
    /// Where it reports incidents.
    pub reporter: IncidentReporter,
    /// Access to ticks that the ring no longer holds, if the gateway keeps a history.
    pub history: Option<history::Access>,
    /// The memory bound, and how much is in use.
    pub memory: Arc<Memory>,
    /// Its own pulse, and that of the thread that makes its ticks.
    pub signs: Signs,
}

/// The handle through which other threads use a shard.
#[derive(Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    wake: Arc<Notify>,
    /// Its doorbell, for the ingest thread.
    pub bell: Arc<Doorbell>,
    /// Its counters.
    pub counters: Arc<ShardCounters>,
    /// Its tokio runtime, for metrics.
    pub runtime: tokio::runtime::Handle,
    /// Its pulse, which counts its turns.
    pub pulse: Arc<Pulse>,
}

impl ShardHandle {
    /// Hands a client to the shard.
    ///
    /// # Errors
    /// Returns the client if the inbox is full or the shard has ended.
    pub fn give(&self, client: Box<NewClient>) -> Result<(), Box<NewClient>> {
        self.counters.coming.add(1);
        if let Err(error) = self.commands.try_send(Command::Client(client)) {
            self.counters.coming.sub(1);
            let (mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command)) =
                error;
            let Command::Client(client) = command else { return Ok(()) };
            return Err(client);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Returns how many clients it has, plus those on their way to it. A client that is just arriving may count twice.
    pub fn load(&self) -> u64 {
        self.counters.coming.get() + self.counters.sessions.get()
    }

    /// Returns a row for each client that `asked` selects, the worst first, under shard number `shard`. Returns none if
    /// the shard has ended, its inbox is full, or it does not answer within a second.
    pub async fn report(&self, asked: ReportQuery, shard: usize) -> Vec<ClientRow> {
        let (answer, rows) = oneshot::channel();
        if self.commands.try_send(Command::Report { asked, shard, answer }).is_err() {
            return Vec::new();
        }
        self.wake.notify_one();
        let rows = tokio::time::timeout(REPORT_MAX, rows).await;
        rows.map(Result::unwrap_or_default).unwrap_or_default()
    }

    /// Orders the shard to free memory. If its inbox is full, the order is lost, and another one follows.
    pub fn relieve(&self, relief: Relief) {
        if self.commands.try_send(Command::Relieve(relief)).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Has the shard send what is queued, then `bye` to each client, and end.
    pub async fn drain(&self, why: Close) {
        // A shard that has ended already needs no command.
        let _ = self.commands.send(Command::Drain(why)).await;
        self.wake.notify_one();
    }
}

/// A shard with its ring reader. [`turn`](Self::turn) does all its work and can be called by hand.
pub struct Shard<S> {
    reader: TickReader,
    sessions: Rc<RefCell<Sessions<S>>>,
    counters: Arc<ShardCounters>,
    draining: Option<Draining>,
    beating: Option<Beating>,
}

/// A drain under way.
#[derive(Clone, Copy)]
struct Draining {
    why: Close,
    until_ns: u64,
    said_goodbye: bool,
}

impl<S: Socket> Shard<S> {
    /// A shard that reads from the position of `reader` on.
    pub fn new(reader: TickReader, sessions: Rc<RefCell<Sessions<S>>>, counters: Arc<ShardCounters>) -> Self {
        Self { reader, sessions, counters, draining: None, beating: None }
    }

    /// Counts its turns in a pulse from now on, so that the watcher sees stalls.
    pub fn beat(&mut self, beating: Beating) {
        self.beating = Some(beating);
    }

    /// One turn. True if there may be more to do at once.
    pub fn turn(&mut self, now: Now) -> bool {
        if let Some(beating) = &self.beating {
            beating.beat();
        }
        let turn = self.sessions.borrow_mut().turn(&mut self.reader, now);
        let behind = self.reader.behind();
        self.counters.behind.set(behind);
        self.drain(now, turn.is_idle() && behind == 0);
        turn.goes_on() || self.sessions.borrow().has_work()
    }

    /// Begins a drain: sends what is queued, for at most `grace_ms`, then `bye` to each client.
    pub fn start_drain(&mut self, why: Close, grace_ms: u64, now: Now) {
        let until_ns = now.mono_ns + grace_ms * MS;
        self.draining.get_or_insert(Draining { why, until_ns, said_goodbye: false });
        self.sessions.borrow_mut().hold_nothing(now);
    }

    fn drain(&mut self, now: Now, ring_is_read: bool) {
        let Some(draining) = &mut self.draining else { return };
        // After the first goodbye, clients that connect meanwhile get theirs at once.
        let late = draining.said_goodbye || now.mono_ns >= draining.until_ns;
        draining.said_goodbye =
            self.sessions.borrow_mut().say_goodbye(draining.why, (ring_is_read, late), now);
    }

    /// True once a drain has sent `bye` and every session is removed.
    pub fn is_done(&self) -> bool {
        self.draining.is_some_and(|d| d.said_goodbye) && self.sessions.borrow().is_empty()
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let sessions = self.sessions.borrow().next_deadline_ns();
        let drain = self.draining.filter(|d| !d.said_goodbye).map(|d| d.until_ns);
        [sessions, drain].into_iter().flatten().min()
    }

    fn has_work(&self) -> bool {
        self.reader.behind() > 0 || self.sessions.borrow().has_to_do()
    }
}

/// Starts a shard on a thread of this name.
///
/// # Errors
/// If the operating system starts no thread, or the runtime does not start.
pub fn spawn(
    name: String,
    parts: ShardParts,
) -> std::io::Result<(ShardHandle, std::thread::JoinHandle<std::io::Result<()>>)> {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let work = Arc::new(Notify::new());
    let wake = Arc::clone(&work);
    let bell = Arc::new(Doorbell::new(move || wake.notify_one()));
    let wake = Arc::clone(&work);
    let client = parts.history.as_ref().map(|history| history.client(move || wake.notify_one()));
    let (counters, pulse) = (Arc::clone(&parts.counters), Arc::clone(&parts.signs.own));
    let (shard_bell, shard_work) = (Arc::clone(&bell), Arc::clone(&work));
    let (show, shown) = std::sync::mpsc::sync_channel(1);
    // The reader is made here, so that nothing published after this call is missed.
    let reader = parts.ring.reader();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        // The spawning thread waits for this.
        let _ = show.send(runtime.handle().clone());
        runtime.block_on(run(parts, reader, client, inbox, &shard_bell, &shard_work));
        Ok(())
    })?;
    let runtime = shown.recv().map_err(|_| std::io::Error::other("its runtime does not start"))?;
    Ok((ShardHandle { commands, wake: work, bell, counters, runtime, pulse }, thread))
}

/// How long a shard has to answer a report query.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// Commands that may wait for a shard, nearly all of them clients. With more than 1,024 clients waiting, the listener
/// accepts only at its pace, so there is room for another second at the default pace.
const COMMANDS_MAX: usize = 4_096;

async fn run(
    parts: ShardParts,
    reader: TickReader,
    client: Option<history::HistoryClient>,
    inbox: mpsc::Receiver<Command>,
    bell: &Doorbell,
    rung: &Notify,
) {
    let (wait, drain_ms) = (parts.wait, parts.drain_ms);
    let clock = parts.clock.of_thread();
    let counters = Arc::clone(&parts.counters);
    let beating = parts.signs.own.begin();
    let sessions = Rc::new(RefCell::new(sessions_of(parts, client, clock.clone())));
    let mut shard = Shard::new(reader, Rc::clone(&sessions), counters);
    shard.beat(beating);
    // Each connection task holds this context, so the shard does not end before a client that was just handed over is
    // sent `bye`.
    let drivers = DriverContext::new(sessions, clock.clone());
    let mut runner = Runner { shard, drivers, inbox, reports: VecDeque::new(), drain_ms };
    let mut last_work_ns = 0;
    while runner.goes_on() {
        let now = clock.now();
        runner.take_commands(now);
        runner.write_report(now);
        let more = runner.shard.turn(now);
        let ended_ns = clock.now().mono_ns;
        let turn_ns = ended_ns.saturating_sub(now.mono_ns);
        runner.shard.counters.turn_times.record(turn_ns, ended_ns);
        bell.set_busy(runner.shard.sessions.borrow().has_to_flush());
        if more || runner.has_commands() {
            last_work_ns = now.mono_ns;
            tokio::task::yield_now().await;
            continue;
        }
        let spin = match wait {
            Wait::Park => false,
            Wait::SpinThenPark => now.mono_ns.saturating_sub(last_work_ns) < SPIN_NS,
            Wait::Spin => true,
        };
        if spin {
            tokio::task::yield_now().await;
            continue;
        }
        runner.park(bell, rung, &clock).await;
    }
    runner.shard.sessions.borrow_mut().end_measuring();
}

/// Makes the sessions of a shard from its parts.
fn sessions_of(
    parts: ShardParts,
    client: Option<history::HistoryClient>,
    clock: Clock,
) -> Sessions<TcpSocket> {
    let ShardParts { options, table, ring, counters, meter, reporter, signs, memory, .. } = parts;
    let mut sessions = Sessions::new(options, table, ring, clock, counters);
    sessions.measure_with(meter);
    sessions.report_incidents_to(reporter);
    sessions.bound_by(memory);
    sessions.watch_feed(signs.feed);
    if let Some(client) = client {
        sessions.read_past_at(client);
    }
    sessions
}

/// A shard on its thread, with its inbox and unfinished reports.
struct Runner {
    shard: Shard<TcpSocket>,
    drivers: Rc<DriverContext>,
    inbox: mpsc::Receiver<Command>,
    /// Unfinished reports, each with the channel for its rows.
    reports: VecDeque<(Report, oneshot::Sender<Vec<ClientRow>>)>,
    drain_ms: u64,
}

impl Runner {
    /// Whether the shard continues: until it is drained and the last driver has ended, or a driver has panicked.
    fn goes_on(&self) -> bool {
        !self.drivers.is_broken() && (!self.shard.is_done() || Rc::strong_count(&self.drivers) > 1)
    }

    /// Whether commands or reports wait.
    fn has_commands(&self) -> bool {
        !self.reports.is_empty() || !self.inbox.is_empty()
    }

    /// Carries out commands, with at most [`ADMISSIONS_PER_TURN`] new clients.
    fn take_commands(&mut self, now: Now) {
        let mut admissions = ADMISSIONS_PER_TURN;
        while admissions > 0
            && let Ok(command) = self.inbox.try_recv()
        {
            match command {
                Command::Client(client) => {
                    admissions -= 1;
                    if let Some(driver) = driver::driver(*client, &self.drivers) {
                        tokio::task::spawn_local(driver.run());
                    }
                }
                Command::Report { asked, shard, answer } => {
                    let report = self.shard.sessions.borrow_mut().start_report(asked, shard, now);
                    self.reports.push_back((report, answer));
                }
                Command::Relieve(relief) => self.shard.sessions.borrow_mut().relieve(relief),
                Command::Drain(why) => self.shard.start_drain(why, self.drain_ms, now),
            }
        }
    }

    /// Writes some rows of the first report.
    fn write_report(&mut self, now: Now) {
        let Some((mut report, answer)) = self.reports.pop_front() else { return };
        if self.shard.sessions.borrow_mut().go_on_with(&mut report, now) {
            // The receiver may have been dropped.
            let _ = answer.send(report.into_rows());
        } else {
            self.reports.push_front((report, answer));
        }
    }

    /// Sleeps until a tick, a command, a socket or a deadline wakes the shard.
    async fn park(&self, bell: &Doorbell, rung: &Notify, clock: &Clock) {
        bell.prepare();
        // Looks once more: ticks published before the writer could see this shard asleep ring no bell.
        if !self.shard.has_work() && self.inbox.is_empty() {
            let now_ns = clock.now().mono_ns;
            let deadline = self.shard.next_deadline_ns().map_or(u64::MAX, |at| at.saturating_sub(now_ns));
            // A drain polls, because no event reports what it waits for.
            let longest = if self.shard.draining.is_some() { 10 * MS } else { PARK_NS_MAX };
            tokio::select! {
                () = rung.notified() => {}
                () = self.drivers.work() => {}
                () = tokio::time::sleep(Duration::from_nanos(deadline.min(longest))) => {}
            }
        }
        bell.cancel();
    }
}
