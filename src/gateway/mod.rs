//! The wiring: what runs where, how it starts, and how it stops in order.

mod doors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use doors::{Around, Doors, publishing};

use crate::clock::{Clock, MS};
use crate::collector::{self, Collecting, Collector, LogOptions};
use crate::config::{Config, Flight, Latency};
use crate::counters::ShardCounters;
use crate::feed::publish::Publish;
use crate::feed::{
    CueLimits, Ingest, IngestParts, IngestView, LineId, LineLimits, LineRecord, Market, RecordOptions,
    Recorder, RecorderThread, Replay, ReplaySpec, Tap,
};
use crate::flight::{self, Flights, Witness};
use crate::front::Origins;
use crate::history::{self, Access, History, HistoryThreads};
use crate::instrument::InstrumentTable;
use crate::journal::JournalLimits;
use crate::latency::meter::Meter;
use crate::protocol::close::Close;
use crate::remote::{Remote, Shown};
use crate::ring::{TickRing, tick_ring};
use crate::session::Policy;
use crate::shard::{self, SessionOptions, ShardHandle, ShardParts, Tuning};
use crate::venue::Wire;

/// What a gateway is to do.
#[derive(Debug)]
pub struct Job {
    /// Everything that can be set.
    pub config: Config,
    /// Stop when the last tick of the last replay is sent.
    pub exit_at_end: bool,
    /// Replays start once so many clients have subscribed.
    pub wait_subscribers: usize,
    /// Say at the end what each replay has published.
    pub summary: bool,
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop, or everything was sent.
    Done,
    /// A strict replay met what it cannot read.
    FeedFailed,
}

/// Serves until it is told to stop: SIGINT, SIGTERM, or the end of the replays where the job says so. `say` is given the
/// line that says where, and at the end the summaries that the job asks for.
///
/// # Errors
/// Whatever keeps it from starting: a bad configuration, a capture that does not open, an address in use.
/// Nothing is bound before the configuration and the captures are good.
pub async fn run(job: Job, clock: Clock, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let Job { config, exit_at_end, wait_subscribers, summary } = job;
    check(&config)?;
    let mut replays = open_replays(&config)?;
    let (notices, log) = mpsc::channel(NOTICES_MAX);
    let recording = Recording::prepare(&config, &mut replays, &clock, &notices)?;
    let doors = Doors::bind(&config).await?;
    let table = Arc::new(InstrumentTable::new(config.limits.instruments_max.get()));
    let (writer, ring) = tick_ring(config.ring.capacity, table.capacity())?;
    let history = history(&config, &ring, &clock, &notices)?;
    let past = history.as_ref().map(History::access);
    let view = Arc::new(IngestView::new(replays.len()));
    // A thread of its own: whoever reads the log slowly holds up nobody else.
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_log(log))?;
    let mut collector = collector(&config, (&table, &ring), &clock, &notices, &view);
    let ingest = IngestThread::prepare()?;
    let remote = remote(&config, &mut replays, &ingest.wake, &clock)?;
    let options = session_options(&config, &replays, remote.clone())?;
    let shards = Shards::start(&config, &options, (&table, &ring, past.as_ref()), &clock, &mut collector)?;

    let (stop_doors, stopped) = watch::channel(false);
    let (publishing, publishers) = publishing(&config, &clock, &ingest)?.map(|p| (p.door, p.inbox)).unzip();
    let ready_line = doors.ready_line()?;
    let around = Around {
        config: &config,
        shards: &shards,
        table: &table,
        ring: &ring,
        view: &view,
        records: &recording.records,
        past: past.as_ref(),
        ingest: ingest.runtime.handle(),
        measured: collector.as_ref().map(Collector::measured),
        remote: remote.as_ref(),
    };
    doors.open(&around, publishing.as_ref(), &stopped)?;
    let history = history.map(History::spawn).transpose().context("cannot start the history")?;
    let recorder = recording
        .recorder
        .map(|recorder| recorder.spawn(&clock))
        .transpose()
        .context("cannot start the recorder")?;
    let parts = IngestParts {
        market: Market::new(Arc::clone(&table)),
        writer,
        bells: shards.handles.iter().map(|shard| Arc::clone(&shard.bell)).collect(),
        rest: Duration::from_micros(config.ingest.rest_us),
        replays,
        remote,
        publishers,
        publish_limits: line_limits(&config, Some(config.publish.venues.clone())),
        publish_tap: recording.publish_tap,
        clock: clock.clone(),
        stale_after_ns: config.limits.stale_after_ms.get() * MS,
        may_start: shards.start_gate(wait_subscribers),
        view: Arc::clone(&view),
        notices,
        meter: meter(&mut collector),
        witness: witness(collector.as_ref()),
    };
    let ingest = ingest.start(parts, publishing.clone())?;
    let collecting = collector.map(|collector| collector.start(clock)).transpose();
    let collecting = collecting.context("cannot start the latency thread")?;
    // Who has read that it is ready may stop it at once.
    let mut signals = Signals::listen()?;
    say(&ready_line);

    tokio::select! {
        () = signals.next() => {}
        () = ended(&view, exit_at_end) => {}
        bug = died(&ingest, &shards) => return Err(bug),
    }
    // A second signal does not wait for anybody.
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
    // No new clients, then no new ticks, then everything that is on its way goes out.
    let _ = stop_doors.send(true);
    if let Some(publishing) = &publishing {
        publishing.stop();
    }
    ingest.stop().await;
    tokio::join!(shards.drain(&config), stop(recorder));
    // Those who were catching up until now have no more use for it.
    stop_history(history).await;
    stop_collecting(collecting).await;
    for line in view.summaries.get().into_iter().flatten().filter(|_| summary) {
        say(&format!("tickfan replayed {line}"));
    }
    Ok(if view.failed.load(Ordering::Acquire) { Outcome::FeedFailed } else { Outcome::Done })
}

/// Waits for the end of the replays, if that is a reason to stop: it was asked for, or one has failed.
async fn ended(view: &IngestView, exit_at_end: bool) {
    view.on_end.notified().await;
    if !exit_at_end && !view.failed.load(Ordering::Acquire) {
        std::future::pending::<()>().await;
    }
}

/// Checks what no key can tell alone, before anything is opened.
///
/// # Errors
/// What is wrong, naming the key.
pub fn check(config: &Config) -> anyhow::Result<()> {
    config.check_together()?;
    Origins::new(&config.server.allowed_origins).context("server.allowed_origins")?;
    Ok(())
}

/// Waits for a thread that ends though nobody told it to: what it served would stand still and look alive.
async fn died(ingest: &IngestThread, shards: &Shards) -> anyhow::Error {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if ingest.thread.is_finished() {
            return anyhow::anyhow!("the ingest thread has ended: this is a bug");
        }
        if shards.threads.iter().any(JoinHandle::is_finished) {
            return anyhow::anyhow!("a shard has ended: this is a bug");
        }
    }
}

/// Notices that wait to be written to the log.
const NOTICES_MAX: usize = 256;

fn write_log(mut log: mpsc::Receiver<String>) {
    use std::io::Write as _;
    while let Some(line) = log.blocking_recv() {
        // There is nowhere to report that the log itself is gone.
        let _ = writeln!(std::io::stderr().lock(), "tickfan: {line}");
    }
}

/// Who collects what is measured; `None`: measuring is off.
fn collector(
    config: &Config,
    (table, ring): (&Arc<InstrumentTable>, &TickRing),
    clock: &Clock,
    notices: &mpsc::Sender<String>,
    view: &Arc<IngestView>,
) -> Option<Collector> {
    let Latency { interval_ms, log, log_bytes_max, log_files_max, symbols } = &config.latency;
    if *interval_ms == 0 {
        return None;
    }
    let limits = JournalLimits { bytes_max: *log_bytes_max, files_max: *log_files_max };
    let log = log.clone().map(|path| LogOptions { path, limits });
    let (notices, view) = (notices.clone(), Arc::clone(view));
    let tell = move |what| {
        if notices.try_send(what).is_err() {
            view.notices_lost.add(1);
        }
    };
    let options = collector::Options {
        interval_ns: interval_ms * MS,
        symbols_max: symbols.get(),
        log,
        flights: flights(&config.flight, table, ring),
        budget: config.flight.budget.clone(),
    };
    Some(Collector::new(options, Arc::clone(table), clock.now(), Box::new(tell)))
}

/// Who writes what came before an incident; `None`: nobody.
fn flights(flight: &Flight, table: &Arc<InstrumentTable>, ring: &TickRing) -> Option<Flights> {
    let options = flight::Options {
        dir: flight.dir.clone()?,
        seconds: flight.seconds.get(),
        files_max: flight.files_max.get(),
        file_bytes_max: flight.file_bytes_max.get(),
        quiet_s: flight.quiet_s.get(),
    };
    Some(Flights::new(options, ring.clone(), Arc::clone(table)))
}

fn witness(collector: Option<&Collector>) -> Witness {
    collector.map_or_else(Witness::off, Collector::witness)
}

fn meter(collector: &mut Option<Collector>) -> Meter {
    collector.as_mut().map_or_else(Meter::off, Collector::meter)
}

/// Waits until the last interval is written, but not for a disk that hangs.
async fn stop_collecting(collecting: Option<Collecting>) {
    if let Some(collecting) = collecting {
        let stopped = tokio::task::spawn_blocking(move || collecting.stop());
        let _ = tokio::time::timeout(Duration::from_secs(3), stopped).await;
    }
}

/// The signals that stop the gateway; they are heard from the moment this is made.
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

    /// Waits for the next one.
    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next one.
    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the system ends us itself.
            std::future::pending().await
        }
    }
}

fn line_limits(config: &Config, venues: Option<Vec<String>>) -> LineLimits {
    LineLimits { book_levels_max: config.limits.book_levels_max.get(), venues }
}

fn open_replays(config: &Config) -> anyhow::Result<Vec<Replay>> {
    let limits = line_limits(config, None);
    let mut first = 0;
    let mut replays = Vec::new();
    for (number, feed) in config.feed.iter().enumerate() {
        let spec = ReplaySpec {
            files: feed.files.clone(),
            venue: feed.venue,
            speed: feed.speed,
            looped: feed.looped,
            strict: feed.strict,
            from: feed.from,
            to: feed.to,
            idle_ns_max: (feed.max_idle_ms > 0).then(|| feed.max_idle_ms.saturating_mul(MS)),
        };
        let replay = Replay::open(spec, &limits, LineId(first)).with_context(|| format!("feed {number}"))?;
        first += replay.lines().count() as u32;
        replays.push(replay);
    }
    Ok(replays)
}

/// Starts what finds places in the captures; the remote control, where there is one replay to control.
fn remote(
    config: &Config,
    replays: &mut [Replay],
    wake: &Arc<Notify>,
    clock: &Clock,
) -> anyhow::Result<Option<Arc<Remote>>> {
    let Config { replay, limits, .. } = config;
    let bounds =
        CueLimits { checkpoints_max: replay.checkpoints_max, bytes_max: replay.checkpoint_bytes_max.get() };
    // Of several none can be controlled, and only some begin elsewhere than at the beginning.
    let alone = replays.len() == 1;
    for each in replays.iter_mut().filter(|replay| alone || replay.spec().from.is_some()) {
        each.prepare(limits.instruments_max.get(), bounds, Arc::clone(wake))
            .context("cannot start a thread for the replay")?;
    }
    let [one] = replays else { return Ok(None) };
    let remote = Remote::new(&replay.control_token, replay.orders_max.get(), Arc::clone(wake));
    // Whoever comes before its first turn sees where it will begin.
    remote.show(Shown { playback: one.playback(clock.now()), published: 0 });
    Ok(Some(Arc::new(remote)))
}

/// The shards of a gateway.
struct Shards {
    handles: Arc<[ShardHandle]>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Shards {
    fn start(
        config: &Config,
        options: &SessionOptions,
        (table, ring, past): (&Arc<InstrumentTable>, &TickRing, Option<&Access>),
        clock: &Clock,
        collector: &mut Option<Collector>,
    ) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for number in 0..config.shard.threads_on(cores) {
            let parts = ShardParts {
                options: options.clone(),
                table: Arc::clone(table),
                ring: ring.clone(),
                clock: clock.clone(),
                counters: Arc::new(ShardCounters::default()),
                wait: config.shard.wait,
                drain_ms: config.session.drain_ms,
                meter: meter(collector),
                witness: witness(collector.as_ref()),
                history: past.cloned(),
            };
            let (handle, thread) = shard::spawn(number, parts).context("cannot start a shard")?;
            handles.push(handle);
            threads.push(thread);
        }
        Ok(Self { handles: handles.into(), threads })
    }

    fn start_gate(&self, subscribers: usize) -> Box<dyn Fn() -> bool + Send> {
        let handles = Arc::clone(&self.handles);
        let subscribed = move || handles.iter().map(|shard| shard.counters.subscribed.get()).sum::<u64>();
        Box::new(move || subscribed() >= subscribers as u64)
    }

    /// Everything out, everybody told, every thread ended.
    async fn drain(self, config: &Config) {
        for shard in &*self.handles {
            shard.drain(Close::Shutdown).await;
        }
        let joined = tokio::task::spawn_blocking(move || {
            self.threads.into_iter().map(JoinHandle::join).for_each(drop);
        });
        // A shard keeps its own deadlines; this one is for a shard that does not.
        let longest = config.session.drain_ms + config.session.close_grace_ms + 3_000;
        let _ = tokio::time::timeout(Duration::from_millis(longest), joined).await;
    }
}

fn session_options(
    config: &Config,
    replays: &[Replay],
    remote: Option<Arc<Remote>>,
) -> anyhow::Result<SessionOptions> {
    let wires = replays.iter().flat_map(Replay::lines).map(|(_, line, _)| line.wire());
    let mut venues: Vec<String> =
        wires.filter(|wire| *wire != Wire::Native).map(|wire| wire.name().to_owned()).collect();
    if config.publishes()
        && let Some(both) = config.publish.venues.iter().find(|venue| venues.contains(venue))
    {
        anyhow::bail!(
            "publish.venues: {both:?} is also replayed by a feed: nobody could tell which is which"
        );
    }
    venues.extend(config.publish.venues.iter().cloned());
    venues.sort();
    venues.dedup();
    Ok(SessionOptions {
        epoch: random_name()?.into(),
        replay: config.is_replay(),
        policy: Policy {
            outbox_bytes_max: config.session.outbox_bytes_max,
            control_bytes_max: config.session.control_bytes_max,
            warn_behind_ns: config.session.warn_behind_ms * MS,
            shed_behind_ns: config.session.shed_behind_ms * MS,
            cut_after_ns: config.session.cut_after_ms.get() * MS,
            pong_timeout_ns: config.session.pong_timeout_ms.get() * MS,
            rates_max: config.limits.rates_per_connection.get(),
        },
        tuning: Tuning {
            unsent_bytes_max: config.session.unsent_bytes_max.get(),
            dead_peer_ms: config.session.dead_peer_ms.get(),
        },
        tape_bytes: config.shard.tape_bytes,
        heartbeat_ms: config.session.heartbeat_ms.get(),
        symbols_max: config.limits.symbols_per_connection.get(),
        frame_bytes_max: config.limits.frame_bytes_max.get(),
        ops_per_s: config.limits.ops_per_s.get(),
        fragments_max: config.limits.fragments_per_message.get(),
        controls_per_s: config.limits.control_frames_per_s.get(),
        close_grace_ms: config.session.close_grace_ms,
        drain_spread_ms: config.session.drain_spread_ms,
        venues: venues.into(),
        remote,
        catch_ups_max: config.record.catch_ups_max,
    })
}

/// A name that nobody else has: 64 random bits.
fn random_name() -> anyhow::Result<String> {
    let bits = getrandom::u64().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(format!("{bits:016x}"))
}

/// The ingest thread before it runs: publishers have to know where they will be served.
struct Prepared {
    runtime: tokio::runtime::Runtime,
    wake: Arc<Notify>,
}

/// The ingest thread.
struct IngestThread {
    stop: Arc<AtomicBool>,
    wake: Arc<Notify>,
    /// Told when it takes nothing in any more.
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl IngestThread {
    fn prepare() -> anyhow::Result<Prepared> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Prepared { runtime: runtime.context("cannot start the ingest thread")?, wake: Arc::default() })
    }

    /// After this every tick is in the ring.
    async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
        // Where it is gone already there is nothing to wait for.
        let _ = self.stopped.await;
    }
}

impl Prepared {
    fn start(self, parts: IngestParts, publishing: Option<Arc<Publish>>) -> anyhow::Result<IngestThread> {
        let Self { runtime, wake } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let (told, bell) = (Arc::clone(&stop), Arc::clone(&wake));
        let (tell, stopped) = oneshot::channel();
        let entered = runtime.enter();
        let running = Ingest::new(parts).run(told, bell).context("cannot start the ingest thread")?;
        drop(entered);
        let work = async move {
            let ended = running.await;
            // Nobody may wait for it.
            let _ = tell.send(());
            if let Some(publishing) = publishing {
                publishing.gone().await;
            }
            ended
        };
        let thread = std::thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || runtime.block_on(work))
            .context("cannot start the ingest thread")?;
        Ok(IngestThread { stop, wake, stopped, thread })
    }
}

/// What is recorded, before its thread runs.
struct Recording {
    recorder: Option<Recorder>,
    publish_tap: Option<Tap>,
    /// A row a line, those of the replays first.
    records: Arc<[Arc<LineRecord>]>,
}

impl Recording {
    /// Makes the folders and the taps, where recording is on.
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
        // In a loop it would grow for ever.
        if let Some(file) = config.feed.iter().flat_map(|feed| &feed.files).find(inside) {
            anyhow::bail!("record.dir: {} is replayed from it: record somewhere else", file.display());
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
        let mut lines: BTreeMap<Wire, u32> = BTreeMap::new();
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
            Some(recorder.tap("publish", Wire::Native, true).context("record.dir")?)
        } else {
            None
        };
        let records = recorder.records();
        Ok(Self { recorder: Some(recorder), publish_tap, records })
    }
}

/// What was published since the start, where that is kept.
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
    let options = history::Options { dir: record.dir.clone(), bytes_max: record.history_bytes_max, run_ns };
    History::begin(&options, ring, notices.clone()).map(Some).context("record.dir: no history")
}

/// Removes the history, but does not wait for a disk that hangs.
async fn stop_history(history: Option<HistoryThreads>) {
    if let Some(history) = history {
        let stopped = tokio::task::spawn_blocking(move || drop(history));
        let _ = tokio::time::timeout(RECORDER_STOP_MAX, stopped).await;
    }
}

/// How long a stopping gateway waits for the disk.
const RECORDER_STOP_MAX: Duration = Duration::from_secs(10);

/// Everything that the taps gave is written, unless the disk takes too long.
async fn stop(recorder: Option<RecorderThread>) {
    let Some(recorder) = recorder else { return };
    let stopped = tokio::task::spawn_blocking(move || recorder.stop());
    let _ = tokio::time::timeout(RECORDER_STOP_MAX, stopped).await;
}
