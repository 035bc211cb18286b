//! Wiring of the gateway: its threads, and their order at start and shutdown.

mod engine;
mod files;
mod guard;
mod listeners;
mod memory_watch;
mod room;
mod rooms;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use engine::{EngineBase, IngestThread, Shards, died, open_replays};
use listeners::{GatewayParts, Listeners, publishing};
use memory_watch::MemoryWatch;
use rooms::Rooms;

use crate::config::{Config, FlightConfig, LatencyConfig};
use crate::feed::publish::Publish;
use crate::feed::{
    IngestParts, IngestView, LineRecord, PublishingParts, RecordOptions, Recorder, RecorderThread, Replay,
    Tap,
};
use crate::history::{self, History, HistoryThreads};
use crate::http::{Hosts, Origins};
use crate::model::instrument::InstrumentTable;
use crate::ops::collector::{self, Collecting, Collector, LogOptions};
use crate::ops::flight::{self, Flights};
use crate::ops::journal::JournalLimits;
use crate::protocol::close::Close;
use crate::replay_control::ControlPolicy;
use crate::ring::TickRing;
use crate::text::printable;
use crate::time::clock::{Clock, MS};
use crate::venue::WireFormat;

/// The configuration and options of a gateway.
#[derive(Debug)]
pub struct Job {
    /// The configuration.
    pub config: Config,
    /// Stop when the last tick of the last replay is sent.
    pub exit_at_end: bool,
    /// Number of clients that must have subscribed before replays start.
    pub wait_subscribers: usize,
    /// Print at the end what each replay has published.
    pub summary: bool,
}

/// Result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Stopped by a signal, or all ticks are sent.
    Done,
    /// A strict replay found a line that it cannot parse.
    FeedFailed,
    /// All ticks are sent, but the captures are truncated.
    Truncated,
}

/// Runs until SIGINT, SIGTERM, or, if requested, the end of the replays. `say` receives the line that names
/// the addresses, and at the end the requested summaries.
///
/// # Errors
/// Any failure to start: an invalid configuration, a capture that does not open, an address in use. No
/// address is bound before the configuration and the captures are validated.
pub async fn run(job: Job, clock: Clock, mut say: impl FnMut(&str)) -> anyhow::Result<RunOutcome> {
    let (exit_at_end, summary) = (job.exit_at_end, job.summary);
    guard::end_on_panic();
    let running = Running::start(job, &clock)?;
    // Before the ready line, because a signal may arrive as soon as it is read.
    let mut signals = Signals::listen()?;
    say(&running.ready_line);
    tokio::select! {
        () = signals.next() => {}
        () = ended(&running.view, exit_at_end) => {}
        bug = bug(&running.ingest, &running.shards) => return Err(bug),
    }
    // A second signal ends the process at once.
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
    let view = running.stop().await;
    for line in view.summaries.get().into_iter().flatten().filter(|_| summary) {
        say(&format!("tickfan replayed {line}"));
    }
    // After an earlier stop, a partial result is expected.
    let ended = exit_at_end && view.ended.load(Ordering::Acquire);
    Ok(match () {
        () if view.failed.load(Ordering::Acquire) => RunOutcome::FeedFailed,
        () if ended && view.truncated.load(Ordering::Acquire) => RunOutcome::Truncated,
        () => RunOutcome::Done,
    })
}

/// A gateway whose threads run.
struct Running {
    config: Config,
    /// Names the addresses.
    ready_line: String,
    view: Arc<IngestView>,
    ingest: IngestThread,
    shards: Shards,
    rooms: Option<Arc<Rooms>>,
    publishing: Option<Arc<Publish>>,
    writers: Writers,
    /// Stops the listeners.
    stop_listeners: watch::Sender<bool>,
}

impl Running {
    /// Validates the configuration, opens the captures, binds the addresses and starts all threads, in this order.
    fn start(job: Job, clock: &Clock) -> anyhow::Result<Self> {
        let Job { mut config, wait_subscribers, .. } = job;
        check(&config)?;
        let (files_max, files_notice) = fit_files(&mut config);
        let (notices, log) = log_of(first_notices(&config, files_notice));
        let (gauge, memory) = memory_watch::bound(&config, &notices)?;
        let mut replays = open_replays(&config)?;
        let recording = Recording::prepare(&config, &mut replays, clock, &notices)?;
        let listeners = Listeners::bind(&config)?;
        let policy = ControlPolicy::of_token(&config.replay.control_token);
        let base = EngineBase::new("", &config, replays, policy, clock)?;
        let history = history(&config, &base.ring, clock, &notices)?;
        let past = history.as_ref().map(History::access);
        // Own thread: a blocked stderr must not stall the control thread.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_log(log))?;
        let mut collector = collector(&config, &base, clock, &notices);
        let shards = base.shards(&config, past.as_ref(), &memory, clock, &mut collector)?;
        let rooms = Rooms::open(&config, &memory, clock, &notices)?;
        let (stop_listeners, stopped) = watch::channel(false);
        let (publishing, input) =
            publishing(&config, clock, &base.ingest)?.map(|p| (p.endpoint, p.inbox)).unzip();
        let ready_line = listeners.ready_line()?;
        let guarded = guard::pulses(&base.view, &shards);
        let parts = GatewayParts {
            config: &config,
            files_max,
            base: &base,
            shards: &shards,
            records: &recording.records,
            past: past.as_ref(),
            measured: collector.as_ref().map(Collector::measured),
            rooms: rooms.as_ref(),
            memory: &memory,
            clock,
            pulses: &guarded.all,
        };
        listeners.open(&parts, publishing.as_ref(), &stopped)?;
        let Recording { recorder, publish_tap: tap, .. } = recording;
        let memory_watch = MemoryWatch::new(gauge, &memory, &base, &shards, rooms.as_ref(), &notices);
        memory_watch.start(stopped).context("cannot start the thread that watches over memory")?;
        let view = Arc::clone(&base.view);
        let (ingest, parts) =
            base.into_parts(&config, &shards, wait_subscribers, notices.clone(), clock, &mut collector);
        let writers = Writers::spawn(history, recorder, collector, clock)?;
        let parts = IngestParts { publishing: PublishingParts { input, tap, ..parts.publishing }, ..parts };
        let ingest = ingest.start("ingest".to_owned(), parts, publishing.clone())?;
        guarded
            .watch(config.server.hang_after_ms, clock, notices)
            .context("cannot watch over the threads")?;
        Ok(Self { config, ready_line, view, ingest, shards, rooms, publishing, writers, stop_listeners })
    }

    /// Stops in this order: no new clients, no new ticks, then what is queued is sent.
    async fn stop(self) -> Arc<IngestView> {
        let _ = self.stop_listeners.send(true);
        if let Some(publishing) = &self.publishing {
            publishing.stop();
        }
        // With a time limit, because the ingest thread may hang.
        let longest = Duration::from_millis(self.config.session.drain_ms) + INGEST_STOP_MAX;
        let _ = tokio::time::timeout(longest, self.ingest.stop()).await;
        tokio::join!(
            self.shards.drain(&self.config, Close::Shutdown),
            end(self.rooms),
            stop(self.writers.recorder)
        );
        // After the shards, because clients catch up from the history until then.
        stop_history(self.writers.history).await;
        stop_collecting(self.writers.collecting).await;
        self.view
    }
}

/// Raises the limit of open files, and lowers the maximum number of connections to what fits. Returns the limit, and a
/// notice if it was lowered.
fn fit_files(config: &mut Config) -> (Option<u64>, Option<String>) {
    let files_max = files::raise();
    let fit = files::fit(config, cores(), files_max);
    config.limits.connections_max = NonZeroUsize::new(fit.connections_max).unwrap_or(NonZeroUsize::MIN);
    (files_max, fit.notice)
}

/// The threads that write files.
struct Writers {
    history: Option<HistoryThreads>,
    recorder: Option<RecorderThread>,
    collecting: Option<Collecting>,
}

impl Writers {
    fn spawn(
        history: Option<History>,
        recorder: Option<Recorder>,
        collector: Option<Collector>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let history = history.map(History::spawn).transpose().context("cannot start the history")?;
        let recorder = recorder.map(|recorder| recorder.spawn(clock)).transpose();
        let recorder = recorder.context("cannot start the recorder")?;
        let collecting = collector.map(|collector| collector.start(clock.clone())).transpose();
        let collecting = collecting.context("cannot start the latency thread")?;
        Ok(Self { history, recorder, collecting })
    }
}

/// Returns both ends of the log, with these notices in it.
fn log_of(first: impl Iterator<Item = String>) -> (mpsc::Sender<String>, mpsc::Receiver<String>) {
    let (notices, log) = mpsc::channel(NOTICES_MAX);
    // The queue has room: these are the first.
    first.for_each(|notice| drop(notices.try_send(notice)));
    (notices, log)
}

/// What the log says first: about open files, and about checks that are off.
fn first_notices(config: &Config, files: Option<String>) -> impl Iterator<Item = String> {
    let feeds = config.feed.iter().enumerate();
    let off = feeds.filter_map(|(number, feed)| {
        let names: Vec<&str> = feed.checks_off.names().collect();
        (!names.is_empty()).then(|| format!("feed {number}: checks off: {}", names.join(", ")))
    });
    files.into_iter().chain(off)
}

/// Number of CPU cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Waits for the end of the replays, if that stops the gateway: the end was requested, or a replay has
/// failed.
async fn ended(view: &IngestView, exit_at_end: bool) {
    view.on_end.notified().await;
    if !exit_at_end && !view.failed.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

/// Validates constraints between keys, before anything is opened.
///
/// # Errors
/// The message names the key.
pub fn check(config: &Config) -> anyhow::Result<()> {
    config.check_together()?;
    Origins::new(&config.server.allowed_origins).context("server.allowed_origins")?;
    Hosts::new(&config.server.hosts).context("server.hosts")?;
    rooms::catalog(config)?;
    Ok(())
}

/// Waits for a thread that ends unexpectedly.
async fn bug(ingest: &IngestThread, shards: &Shards) -> anyhow::Error {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if let Some(what) = died(ingest, shards) {
            return anyhow::anyhow!(what);
        }
    }
}

/// Ends all rooms, and waits for them.
async fn end(rooms: Option<Arc<Rooms>>) {
    if let Some(rooms) = rooms {
        rooms.end().await;
    }
}

/// Most notices queued for the log.
const NOTICES_MAX: usize = 256;

fn write_log(mut log: mpsc::Receiver<String>) {
    use std::io::Write as _;
    while let Some(line) = log.blocking_recv() {
        // There is no other place to report that the log is gone.
        let _ = writeln!(std::io::stderr().lock(), "tickfan: {}", printable::line(&line));
    }
}

/// The collector of measurements; `None` if measuring is disabled.
fn collector(
    config: &Config,
    base: &EngineBase,
    clock: &Clock,
    notices: &mpsc::Sender<String>,
) -> Option<Collector> {
    let LatencyConfig { interval_ms, log, log_bytes_max, log_files_max, symbols } = &config.latency;
    if *interval_ms == 0 {
        return None;
    }
    let limits = JournalLimits { bytes_max: *log_bytes_max, files_max: *log_files_max };
    let log = log.clone().map(|path| LogOptions { path, limits });
    let (notices, view) = (notices.clone(), Arc::clone(&base.view));
    let tell = move |what| {
        if notices.try_send(what).is_err() {
            view.notices_lost.add(1);
        }
    };
    let options = collector::CollectorOptions {
        interval_ns: interval_ms * MS,
        symbols_max: symbols.get(),
        log,
        flights: flights(&config.flight, &base.table, &base.ring),
        budget: config.flight.budget.clone(),
    };
    Some(Collector::new(options, Arc::clone(&base.table), clock.now(), Box::new(tell)))
}

/// The flight recorder; `None` if it is disabled.
fn flights(flight: &FlightConfig, table: &Arc<InstrumentTable>, ring: &TickRing) -> Option<Flights> {
    let options = flight::FlightOptions {
        dir: flight.dir.clone()?,
        seconds: flight.seconds.get(),
        files_max: flight.files_max.get(),
        file_bytes_max: flight.file_bytes_max.get(),
        quiet_s: flight.quiet_s.get(),
    };
    Some(Flights::new(options, ring.clone(), Arc::clone(table)))
}

/// Waits until the last interval is written, for at most 3 s, because the disk may hang.
async fn stop_collecting(collecting: Option<Collecting>) {
    if let Some(collecting) = collecting {
        let stopped = tokio::task::spawn_blocking(move || collecting.stop());
        let _ = tokio::time::timeout(Duration::from_secs(3), stopped).await;
    }
}

/// The signals that stop the gateway. Their handlers are installed when this value is created.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    #[cfg(not(unix))]
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next signal.
    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next signal.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler, the system ends the process itself.
            std::future::pending().await
        }
    }
}

/// The recording, before its thread runs.
struct Recording {
    recorder: Option<Recorder>,
    publish_tap: Option<Tap>,
    /// One row per feed line, those of replays first.
    records: Arc<[Arc<LineRecord>]>,
}

impl Recording {
    /// Creates the folders and the taps, if recording is enabled.
    fn prepare(
        config: &Config,
        replays: &mut [Replay],
        clock: &Clock,
        notices: &mpsc::Sender<String>,
    ) -> anyhow::Result<Self> {
        let record = &config.record;
        if !record.enabled {
            return Ok(Self { recorder: None, publish_tap: None, records: Arc::default() });
        }
        let inside = |file: &&PathBuf| {
            let paths = file.canonicalize().ok().zip(record.dir.canonicalize().ok());
            paths.is_some_and(|(file, dir)| file.starts_with(dir))
        };
        // A recording that replays itself would grow without bound.
        if let Some(file) = config.feed.iter().flat_map(|feed| &feed.files).find(inside) {
            anyhow::bail!("record.dir: {} is replayed from it: record somewhere else", printable::path(file));
        }
        let options = RecordOptions {
            dir: record.dir.clone(),
            queue_bytes_max: record.queue_bytes_max.get(),
            queue_frames_max: record.queue_frames_max.get(),
            segment_s: record.segment_s.get(),
            flush_ms: record.flush_ms.get(),
            level: record.level,
        };
        let mut recorder = Recorder::new(options, clock.now(), notices.clone());
        let mut lines: BTreeMap<WireFormat, u32> = BTreeMap::new();
        for replay in replays {
            replay
                .record(|line| {
                    let number = lines.entry(line.wire()).or_default();
                    *number += 1;
                    recorder.tap(&format!("{}.{number}", line.wire()), line.wire(), false)
                })
                .context("record.dir")?;
        }
        let publish_tap = if config.publishes() {
            Some(recorder.tap("publish", WireFormat::Native, true).context("record.dir")?)
        } else {
            None
        };
        let records = recorder.records();
        Ok(Self { recorder: Some(recorder), publish_tap, records })
    }
}

/// Starts the history of published ticks, if enabled.
fn history(
    config: &Config,
    ring: &TickRing,
    clock: &Clock,
    notices: &mpsc::Sender<String>,
) -> anyhow::Result<Option<History>> {
    let record = &config.record;
    if !record.enabled || record.history_bytes_max == 0 {
        return Ok(None);
    }
    let run_ns = clock.now().wall_ns;
    let options =
        history::HistoryOptions { dir: record.dir.clone(), bytes_max: record.history_bytes_max, run_ns };
    History::begin(&options, ring, notices.clone()).map(Some).context("record.dir: no history")
}

/// Removes the history, with a time limit, because the disk may hang.
async fn stop_history(history: Option<HistoryThreads>) {
    if let Some(history) = history {
        let stopped = tokio::task::spawn_blocking(move || drop(history));
        let _ = tokio::time::timeout(RECORDER_STOP_MAX, stopped).await;
    }
}

/// How long a stopping gateway waits for the ingest thread, in addition to `session.drain_ms`.
const INGEST_STOP_MAX: Duration = Duration::from_secs(3);
/// How long a stopping gateway waits for the disk.
const RECORDER_STOP_MAX: Duration = Duration::from_secs(10);

/// Waits until all recorded frames are written, for at most [`RECORDER_STOP_MAX`].
async fn stop(recorder: Option<RecorderThread>) {
    let Some(recorder) = recorder else { return };
    let stopped = tokio::task::spawn_blocking(move || recorder.stop());
    let _ = tokio::time::timeout(RECORDER_STOP_MAX, stopped).await;
}
