//! The ingest thread: the only producer of ticks, so that the ring has one writer.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::alarm::Alarm;
use super::line::{LineLimits, LineStats};
use super::publish::PublishInput;
use super::recorder::Tap;
use super::replay::{LineView, Replay, ReplayStep, Stamp};
use super::sequencer::Sequencer;
use crate::latency::Stage;
use crate::latency::meter::{Class, Meter};
use crate::model::instrument::{InstrumentTable, Symbol};
use crate::model::tick::{Body, Channel, GapCause, Tick};
use crate::ops::flight::{Cause, Incident, IncidentReporter};
use crate::protocol::replay::ReplayCommand;
use crate::replay_control::{ReplayControl, ReplaySnapshot};
use crate::ring::{Doorbell, Seen, TickWriter, ring_all};
use crate::system::counters::{Counter, TurnTimes};
use crate::system::pulse::{Beating, Pulse};
use crate::text::printable;
use crate::time::clock::{Clock, MS, Now, SECOND};
use crate::venue::WireFormat;

mod published;
mod waiting;

use published::Publisher;
use waiting::{Rest, Waiting};

/// Records taken from one replay before the shards are woken and other inputs are served.
const RECORDS_PER_TURN: usize = 64;
/// How often the counters are published and silent lines are detected.
const REPORT_EVERY_NS: u64 = 250 * MS;
/// How often a playing replay publishes its position.
const SHOW_EVERY_NS: u64 = SECOND;
/// The longest sleep, after which the thread checks flags that do not wake it.
const SLEEP_NS_MAX: u64 = 20 * MS;

/// The state of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flow {
    /// The replay has not started.
    Waiting = 0,
    /// Ticks arrive.
    Flowing = 1,
    /// Nothing has arrived for longer than the limit.
    Silent = 2,
    /// The replay has ended.
    Ended = 3,
    /// A strict replay found an unreadable record, or its captures are truncated or were removed.
    Failed = 4,
}

/// The state that the ingest thread publishes to other threads.
pub struct IngestView {
    flows: Box<[AtomicU8]>,
    /// True once every replay has ended.
    pub ended: AtomicBool,
    /// Notified when `ended` becomes true.
    pub on_end: Notify,
    /// True once a strict replay has found an unreadable record.
    pub failed: AtomicBool,
    /// True once a replay whose captures are truncated has ended.
    pub truncated: AtomicBool,
    /// True once a command has stopped a replay.
    pub stopped: AtomicBool,
    /// Turns of the thread, idle ones included.
    pub turns: Counter,
    /// Durations of the turns.
    pub turn_times: TurnTimes,
    /// The turn counter that the watcher checks for liveness.
    pub pulse: Arc<Pulse>,
    /// Ticks published to the ring.
    pub published: Counter,
    /// Ticks dropped because the ring has no key for their instrument.
    pub unplaced: Counter,
    /// Publishers whose lines currently wait until subscriptions have taken up the instruments they listed.
    pub publishers_held: Counter,
    /// Notices dropped because the channel to the log was full.
    pub notices_lost: Counter,
    /// The counters of each line, at most one report interval old.
    pub lines: Mutex<Vec<LineReport>>,
    /// The summary of each replay, set when the thread has ended.
    pub summaries: OnceLock<Vec<String>>,
}

impl IngestView {
    /// Returns a view of `replays` replays, none of which has started.
    pub fn new(replays: usize) -> Self {
        Self::of_thread("ingest", replays)
    }

    /// As [`new`](Self::new), for a thread named `thread`.
    pub fn of_thread(thread: &str, replays: usize) -> Self {
        Self {
            pulse: Pulse::new(thread),
            flows: (0..replays).map(|_| AtomicU8::new(Flow::Waiting as u8)).collect(),
            ended: AtomicBool::new(false),
            on_end: Notify::new(),
            failed: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            turns: Counter::default(),
            turn_times: TurnTimes::default(),
            published: Counter::default(),
            unplaced: Counter::default(),
            publishers_held: Counter::default(),
            notices_lost: Counter::default(),
            lines: Mutex::default(),
            summaries: OnceLock::new(),
        }
    }

    /// Returns the state of each replay.
    pub fn flows(&self) -> impl Iterator<Item = Flow> {
        self.flows.iter().map(|flow| match flow.load(Ordering::Acquire) {
            0 => Flow::Waiting,
            1 => Flow::Flowing,
            2 => Flow::Silent,
            3 => Flow::Ended,
            _ => Flow::Failed,
        })
    }

    fn set(&self, replay: usize, flow: Flow) {
        self.flows[replay].store(flow as u8, Ordering::Release);
    }
}

/// The counters of one feed line.
#[derive(Clone, Debug)]
pub struct LineReport {
    /// The name of its capture, or `publish`.
    pub name: String,
    /// The venue format that it reads.
    pub wire: WireFormat,
    /// The counters.
    pub stats: LineStats,
    /// Unreadable records, bad frames included.
    pub bad_lines: u64,
}

/// What the ingest thread is built from.
pub struct IngestParts {
    /// Numbers the ticks of all instruments.
    pub sequencer: Sequencer,
    /// The ring's writer.
    pub writer: TickWriter,
    /// The doorbells of the shards.
    pub bells: Vec<Arc<Doorbell>>,
    /// How long the thread pauses between packets while every shard is busy: see [`Ingest::run`].
    pub rest: Duration,
    /// The replays.
    pub replays: Vec<Replay>,
    /// The replay control, if any.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// The publishers.
    pub publishing: PublishingParts,
    /// The clock of the ingest thread.
    pub clock: Clock,
    /// The time without a frame after which the prices of a line are stale, in nanoseconds.
    pub stale_after_ns: u64,
    /// Returns the backlog of the shard that is furthest behind with newly listed instruments, as an upper
    /// bound of subscriptions to create.
    pub listing_backlog: Box<dyn Fn() -> usize + Send>,
    /// Replays wait until this returns true.
    pub may_start: Box<dyn Fn() -> bool + Send>,
    /// The view to publish to.
    pub view: Arc<IngestView>,
    /// The channel for notices to the operator.
    pub notices: mpsc::Sender<String>,
    /// The latency meter.
    pub meter: Meter,
    /// Receives incidents for the flight recorder.
    pub reporter: IncidentReporter,
}

/// What publishers need on the ingest thread.
pub struct PublishingParts {
    /// Their input, if publishing is enabled.
    pub input: Option<mpsc::Receiver<PublishInput>>,
    /// The limits of each publisher's line.
    pub limits: LineLimits,
    /// The recorder's tap for what they send.
    pub tap: Option<Tap>,
}

/// The work of the ingest thread: [`turn`](Self::turn) does all of it and can be called by hand.
pub struct Ingest {
    parts: IngestParts,
    stages: Stages,
    started: bool,
    ended: Vec<bool>,
    publishers: HashMap<u32, Publisher>,
    /// The rest of the chunk that was taken last.
    rest: Option<Rest>,
    /// Publishers that have listed more instruments than the shards have taken up.
    waiting: Waiting,
    /// Chunks taken from publishers since the start.
    chunks: u64,
    /// The counters of publishers that have disconnected.
    gone: LineStats,
    next_line: u32,
    report_at_ns: u64,
    show_at_ns: u64,
    beating: Beating,
}

/// When the next turn of the ingest thread is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there may be more to do.
    Now,
    /// At this steady time, in nanoseconds, unless a publisher sends something before.
    At(u64),
}

/// Returns a sink that publishes ticks, counts those without a key in the ring and reports gaps.
fn publish<'a>(
    writer: &'a mut TickWriter,
    view: &'a IngestView,
    stages: &'a mut Stages,
) -> impl FnMut(&Tick) + 'a {
    |tick| {
        if writer.publish(tick, stages.numbered(tick)).is_err() {
            view.unplaced.add(1);
        } else if let Body::Gap { from, .. } = tick.body {
            stages.saw_gap(tick, from, writer.published());
        }
    }
}

/// The number of records at the start of a turn that are all measured. After them every `MEASURED`th one is,
/// and represents those before it.
const MEASURED: u64 = 8;

/// Measures the time that ticks take on this thread, and reports feed gaps as incidents.
struct Stages {
    reporter: IncidentReporter,
    meter: Meter,
    clock: Clock,
    table: Arc<InstrumentTable>,
    /// Records in this turn.
    records: u64,
    /// Whether the current record is measured.
    measured: bool,
    /// Ticks that the next measured one represents.
    skipped: u64,
    /// When the feed line started the current record, or the last measured one before it; nanoseconds since
    /// the Unix epoch.
    begun_ns: u64,
    /// The measured ticks of this turn: class, time of numbering in nanoseconds since the Unix epoch, weight.
    numbered: Vec<(Class, u64, u64)>,
}

impl Stages {
    /// Marks that a feed line starts a record.
    #[inline]
    fn begin(&mut self) {
        if !self.meter.is_on() {
            return;
        }
        self.measured = self.records < MEASURED || self.records.is_multiple_of(MEASURED);
        self.records += 1;
        if self.measured {
            self.begun_ns = self.clock.wall_ns();
        }
    }

    /// Marks that a tick of the current record is numbered and about to be published.
    #[inline]
    fn numbered(&mut self, tick: &Tick) -> Seen {
        let channel = match tick.body {
            Body::Trade(_) => Channel::Trade,
            Body::Quote(_) => Channel::Quote,
            Body::Gap { .. } | Body::Status(_) => return Seen::UNMEASURED,
        };
        // A tick that restores state after a seek was received long ago, so its latency means nothing.
        if tick.snap {
            return Seen::UNMEASURED;
        }
        if !self.meter.is_on() {
            return Seen::UNMEASURED;
        }
        let Self { meter, table, begun_ns, .. } = self;
        let venue = || table.get(tick.instrument).map_or("", Symbol::venue);
        let class = meter.class(tick.instrument, channel, venue);
        meter.record(Stage::Recv, class, tick.rx_ns, *begun_ns, 1);
        self.skipped += 1;
        if !self.measured {
            return Seen::UNMEASURED;
        }
        let weight = self.skipped.min(Seen::WEIGHT_MAX);
        self.skipped -= weight;
        let now_ns = self.clock.wall_ns();
        meter.record(Stage::Normalise, class, *begun_ns, now_ns, weight);
        self.numbered.push((class, now_ns, weight));
        Seen::new(now_ns.saturating_sub(tick.rx_ns), weight)
    }

    /// Reports a published gap; `position` is the number of ticks published so far, the gap being the last.
    #[cold]
    fn saw_gap(&self, gap: &Tick, from: u64, position: u64) {
        let now = self.clock.now();
        self.reporter.tell(now.mono_ns, || Incident {
            at_ns: now.wall_ns,
            position,
            cause: Cause::Gap { key: gap.key(), from, to: gap.seq, why: GapCause::Feed },
            client: None,
        });
    }

    /// Marks that the ticks so far are in the ring and the doorbells were rung.
    fn published(&mut self) {
        self.records = 0;
        if self.numbered.is_empty() {
            return;
        }
        let now_ns = self.clock.wall_ns();
        for (class, numbered_ns, weight) in self.numbered.drain(..) {
            self.meter.record(Stage::Publish, class, numbered_ns, now_ns, weight);
        }
    }
}

impl Ingest {
    /// Returns an ingest thread ready for its first turn. The lines of the replays are numbered from 0.
    pub fn new(mut parts: IngestParts) -> Self {
        for replay in &mut parts.replays {
            replay.prime(&mut parts.sequencer);
        }
        let next_line = parts.replays.iter().map(|replay| replay.lines().count() as u32).sum();
        let ended = vec![false; parts.replays.len()];
        let stages = Stages {
            reporter: std::mem::take(&mut parts.reporter),
            meter: std::mem::replace(&mut parts.meter, Meter::off()),
            clock: parts.clock.clone(),
            table: Arc::clone(parts.sequencer.table()),
            records: 0,
            measured: false,
            skipped: 0,
            begun_ns: 0,
            numbered: Vec::new(),
        };
        Self {
            beating: parts.view.pulse.begin(),
            parts,
            stages,
            started: false,
            ended,
            publishers: HashMap::new(),
            rest: None,
            waiting: Waiting::default(),
            chunks: 0,
            gone: LineStats::default(),
            next_line,
            report_at_ns: 0,
            show_at_ns: 0,
        }
    }

    /// Takes a bounded share of the input that is due, and wakes the shards.
    pub fn turn(&mut self, now: Now) -> Next {
        self.beating.beat();
        let machine_ns = self.parts.clock.machine_ns(now.mono_ns);
        self.stages.meter.look_at_clocks(machine_ns, now.wall_ns);
        self.stages.meter.turn(machine_ns);
        let before = self.parts.writer.published();
        self.parts.view.turns.add(1);
        if !self.started && (self.parts.may_start)() {
            self.started = true;
            (0..self.parts.replays.len()).for_each(|at| self.parts.view.set(at, Flow::Flowing));
        }
        let mut next = Next::At(now.mono_ns + SLEEP_NS_MAX);
        self.obey(now);
        if self.started {
            for at in 0..self.parts.replays.len() {
                next = earlier(next, self.replay(at, now));
            }
        }
        next = earlier(next, self.take_published(now));
        if self.report_at_ns <= now.mono_ns {
            self.report_at_ns = now.mono_ns + REPORT_EVERY_NS;
            self.look_for_silence(now);
            self.report();
        }
        let shown = self.show(now);
        let published = self.parts.writer.published() - before;
        if published > 0 || shown {
            self.parts.view.published.add(published);
            ring_all(self.parts.bells.iter().map(|bell| &**bell));
        }
        self.stages.published();
        next
    }

    fn replay(&mut self, at: usize, now: Now) -> Next {
        let (IngestParts { replays, sequencer, writer, clock, view, notices, .. }, stages) =
            (&mut self.parts, &mut self.stages);
        let replay = &mut replays[at];
        if self.ended[at] {
            return Next::At(u64::MAX);
        }
        if replay.is_over() {
            self.end(at, Flow::Ended);
            return Next::Now;
        }
        for _ in 0..RECORDS_PER_TURN {
            stages.begin();
            match replay.step(now, Stamp::Live(clock), sequencer, publish(writer, view, stages)) {
                ReplayStep::Took => {}
                ReplayStep::Due(due) => return Next::At(due.mono_ns),
                ReplayStep::Still => return Next::At(u64::MAX),
                ReplayStep::Ended => {
                    self.end(at, Flow::Ended);
                    return Next::Now;
                }
                ReplayStep::Lost(what) => {
                    notice(notices, view, what);
                    self.end(at, Flow::Failed);
                    return Next::Now;
                }
                ReplayStep::Bad(what) => {
                    let (strict, first_round) = (replay.spec().strict, replay.rounds() == 0);
                    if first_round || strict {
                        notice(notices, view, what);
                    }
                    if strict {
                        replay.stop(now, sequencer, publish(writer, view, stages));
                        view.failed.store(true, Ordering::Release);
                        self.end(at, Flow::Failed);
                        return Next::Now;
                    }
                }
            }
        }
        Next::Now
    }

    /// Executes replay commands. A replay that has ended may continue from another
    /// position.
    fn obey(&mut self, now: Now) {
        let (IngestParts { replays, sequencer, writer, view, replay_control, .. }, stages) =
            (&mut self.parts, &mut self.stages);
        let (Some(replay_control), [replay]) = (replay_control, replays.as_mut_slice()) else { return };
        while let Some(order) = replay_control.take() {
            replay.obey(order, now, sequencer, publish(writer, view, stages));
            if order == ReplayCommand::Stop {
                view.stopped.store(true, Ordering::Release);
            }
        }
        if self.ended[0] && !replay.is_over() {
            self.ended[0] = false;
            view.ended.store(false, Ordering::Release);
            view.set(0, Flow::Flowing);
        }
    }

    /// Publishes the position of the replay, if its state has changed or the interval has passed. Returns
    /// true if the position was published.
    fn show(&mut self, now: Now) -> bool {
        let IngestParts { replays, writer, replay_control, .. } = &mut self.parts;
        let (Some(replay_control), [replay]) = (replay_control, replays.as_mut_slice()) else { return false };
        let plays = self.started && !self.ended[0];
        let is_time = plays && now.mono_ns >= self.show_at_ns;
        if !(replay.take_changed() || is_time) {
            return false;
        }
        self.show_at_ns = now.mono_ns + SHOW_EVERY_NS;
        replay_control.show(ReplaySnapshot {
            playback: replay.playback(now),
            span: replay.span(),
            published: writer.published(),
        });
        true
    }

    fn end(&mut self, at: usize, how: Flow) {
        self.ended[at] = true;
        let truncated = self.parts.replays[at].truncated().any(|truncated| truncated);
        self.parts.view.truncated.fetch_or(truncated, Ordering::AcqRel);
        self.parts.view.set(at, if truncated { Flow::Failed } else { how });
        if self.ended.iter().all(|ended| *ended) {
            self.report();
            self.parts.view.ended.store(true, Ordering::Release);
            self.parts.view.on_end.notify_one();
        }
    }

    /// Marks the prices of lines without recent frames as stale.
    fn look_for_silence(&mut self, now: Now) {
        let (IngestParts { replays, sequencer, writer, view, stale_after_ns, .. }, stages) =
            (&mut self.parts, &mut self.stages);
        if !self.started {
            return;
        }
        for (at, replay) in replays.iter_mut().enumerate().filter(|(at, _)| !self.ended[*at]) {
            replay.look_for_silence(*stale_after_ns, now, sequencer, publish(writer, view, stages));
            view.set(at, if replay.is_silent() { Flow::Silent } else { Flow::Flowing });
        }
    }

    /// Publishes the counters. Never waits: if a reader holds the lock, the next report publishes them.
    fn report(&mut self) {
        let IngestParts { replays, publishing, view, .. } = &self.parts;
        let Ok(mut lines) = view.lines.try_lock() else { return };
        lines.clear();
        for replay in replays {
            lines.extend(replay.lines().map(|LineView { files, line, bad_lines, .. }| LineReport {
                name: files.first().map(|file| printable::path(file).to_string()).unwrap_or_default(),
                wire: line.wire(),
                stats: line.stats().clone(),
                bad_lines,
            }));
        }
        if publishing.input.is_some() {
            let mut stats = self.gone.clone();
            self.publishers.values().for_each(|publisher| stats.add(publisher.line.stats()));
            let bad_lines = stats.bad_frames;
            lines.push(LineReport { name: "publish".to_owned(), wire: WireFormat::Native, stats, bad_lines });
        }
    }

    /// Returns a future that takes turns until `stop` is set. `wake` signals that publishers have sent
    /// something. Call it on a runtime of its own, with I/O, that runs only the publishers' tasks besides.
    ///
    /// Where threads share a core, each packet of a publisher would pre-empt a shard in the middle of its
    /// writes, and cost two context switches for a tick that the shard reads only later. So while every shard
    /// has clients waiting to be written to, the thread sleeps after each turn that took a packet, and the
    /// publishers' tasks with it.
    ///
    /// # Errors
    /// The I/O error if the system cannot create a timer. The future returns the error of a timer that fails.
    pub fn run(
        mut self,
        stop: Arc<AtomicBool>,
        wake: Arc<Notify>,
    ) -> io::Result<impl Future<Output = io::Result<()>>> {
        let clock = self.parts.clock.clone();
        let alarm = Alarm::new()?;
        Ok(async move {
            while !stop.load(Ordering::Acquire) {
                let before = self.chunks;
                let now = clock.now();
                let next = self.turn(now);
                let ended_ns = clock.now().mono_ns;
                self.parts.view.turn_times.record(ended_ns.saturating_sub(now.mono_ns), ended_ns);
                let Next::At(at_ns) = next else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let left =
                    || Duration::from_nanos(at_ns.saturating_sub(clock.now().mono_ns).min(SLEEP_NS_MAX));
                // Only after a packet: if packets are rare, they wake this thread less often than the pause
                // would.
                if self.chunks > before && self.parts.bells.iter().all(|bell| bell.is_busy()) {
                    std::thread::sleep(self.parts.rest.min(left()));
                    // The runtime polls the sockets first, then runs the tasks that are ready.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                } else if !left().is_zero() {
                    tokio::select! {
                        () = wake.notified() => {}
                        rung = alarm.wait(left()) => rung?,
                    }
                }
            }
            self.stages.meter.end(clock.machine_ns(clock.now().mono_ns));
            // It is set only here, so this cannot fail.
            let _ = self.parts.view.summaries.set(self.parts.replays.iter().map(Replay::summary).collect());
            Ok(())
        })
    }
}

fn earlier(a: Next, b: Next) -> Next {
    match (a, b) {
        (Next::At(a), Next::At(b)) => Next::At(a.min(b)),
        _ => Next::Now,
    }
}

/// Sends a notice to the operator; counts it if the channel is full, since the feed must not wait for the
/// log.
fn notice(notices: &mpsc::Sender<String>, view: &IngestView, what: String) {
    if notices.try_send(what).is_err() {
        view.notices_lost.add(1);
    }
}
