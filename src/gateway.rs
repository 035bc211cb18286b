//! The wiring: what runs where, how it starts, and how it stops in order.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::{Clock, MS};
use crate::config::{Config, Feed};
use crate::counters::ShardCounters;
use crate::feed::publish::{self, CHUNKS_MAX, Input, Publish};
use crate::feed::{
    Flow, Ingest, IngestParts, IngestView, LineId, LineLimits, LineRecord, Market, RecordOptions, Recorder,
    RecorderThread, Replay, ReplaySpec, Tap,
};
use crate::front::metrics::{self, Sources};
use crate::front::{
    Admin, AdminHooks, FeedHealth, Front, Hooks, Options, Origins, PublishRoute, Refused, SymbolRow, Upgraded,
};
use crate::instrument::{InstrumentTable, Symbol};
use crate::latency::meter::Meter;
use crate::protocol::close::Close;
use crate::ring::{TickRing, tick_ring};
use crate::session::Policy;
use crate::shard::{
    self, ClientRow, NewClient, SessionOptions, ShardHandle, ShardParts, SortBy, Tuning, Who,
};
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
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop, or everything was sent.
    Done,
    /// A strict replay met what it cannot read.
    FeedFailed,
}

/// Serves until it is told to stop: SIGINT, SIGTERM, or the end of the replays where the job says so. `ready`
/// is given the line that says where.
///
/// # Errors
/// Whatever keeps it from starting: a bad configuration, a capture that does not open, an address in use.
/// Nothing is bound before the configuration and the captures are good.
pub async fn run(job: Job, clock: Clock, ready: impl FnOnce(&str)) -> anyhow::Result<Outcome> {
    let Job { config, exit_at_end, wait_subscribers } = job;
    check(&config)?;
    let mut replays = open_replays(&config)?;
    let (notices, log) = mpsc::channel(NOTICES_MAX);
    let recording = Recording::prepare(&config, &mut replays, &clock, &notices)?;
    let doors = Doors::bind(&config).await?;
    let table = Arc::new(InstrumentTable::new(config.limits.instruments_max.get()));
    let (writer, ring) = tick_ring(config.ring.capacity, table.capacity())?;
    let shards = Shards::start(&config, &replays, &table, &ring, &clock)?;
    let view = Arc::new(IngestView::new(replays.len()));
    // A thread of its own: whoever reads the log slowly holds up nobody else.
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_log(log))?;

    let (stop_doors, stopped) = watch::channel(false);
    let ingest = IngestThread::prepare()?;
    let (publishing, publishers) = publishing(&config, &clock, &ingest)?.map(|p| (p.door, p.inbox)).unzip();
    let ready_line = doors.ready_line()?;
    let around = Around {
        config: &config,
        shards: &shards,
        table: &table,
        ring: &ring,
        view: &view,
        records: &recording.records,
    };
    doors.open(&around, publishing.as_ref(), &stopped)?;
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
        publishers,
        publish_limits: line_limits(&config, Some(config.publish.venues.clone())),
        publish_tap: recording.publish_tap,
        clock: clock.clone(),
        stale_after_ns: config.limits.stale_after_ms.get() * MS,
        may_start: shards.start_gate(wait_subscribers),
        view: Arc::clone(&view),
        notices,
        meter: Meter::off(),
    };
    let ingest = ingest.start(parts, publishing.clone())?;
    // Who has read that it is ready may stop it at once.
    let mut signals = Signals::listen()?;
    ready(&ready_line);

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
    for (number, Feed { files, venue, speed, looped, strict, .. }) in config.feed.iter().enumerate() {
        let spec = ReplaySpec {
            files: files.clone(),
            venue: *venue,
            speed: *speed,
            looped: *looped,
            strict: *strict,
        };
        let replay = Replay::open(spec, &limits, LineId(first)).with_context(|| format!("feed {number}"))?;
        first += replay.lines().count() as u32;
        replays.push(replay);
    }
    Ok(replays)
}

/// The shards of a gateway.
struct Shards {
    handles: Arc<[ShardHandle]>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Shards {
    fn start(
        config: &Config,
        replays: &[Replay],
        table: &Arc<InstrumentTable>,
        ring: &TickRing,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let options = session_options(config, replays)?;
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
                meter: Meter::off(),
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

fn session_options(config: &Config, replays: &[Replay]) -> anyhow::Result<SessionOptions> {
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

/// How long a stopping gateway waits for the disk.
const RECORDER_STOP_MAX: Duration = Duration::from_secs(10);

/// Everything that the taps gave is written, unless the disk takes too long.
async fn stop(recorder: Option<RecorderThread>) {
    let Some(recorder) = recorder else { return };
    let stopped = tokio::task::spawn_blocking(move || recorder.stop());
    let _ = tokio::time::timeout(RECORDER_STOP_MAX, stopped).await;
}

/// What the gateway listens on.
struct Doors {
    public: TcpListener,
    admin: TcpListener,
    publish: Option<TcpListener>,
}

/// What the doors lead to.
struct Around<'a> {
    config: &'a Config,
    shards: &'a Shards,
    table: &'a Arc<InstrumentTable>,
    ring: &'a TickRing,
    view: &'a Arc<IngestView>,
    records: &'a Arc<[Arc<LineRecord>]>,
}

/// Publishing, where it is on.
struct Publishing {
    door: Arc<Publish>,
    /// The ingest thread's end.
    inbox: mpsc::Receiver<Input>,
}

fn publishing(config: &Config, clock: &Clock, ingest: &Prepared) -> anyhow::Result<Option<Publishing>> {
    if !config.publishes() {
        return Ok(None);
    }
    let (chunks, inbox) = mpsc::channel(CHUNKS_MAX);
    let options = publish::Options {
        publishers_max: config.limits.publishers_max.get(),
        auth_timeout_ms: config.limits.head_timeout_ms.get(),
    };
    let (wake, home) = (Arc::clone(&ingest.wake), ingest.runtime.handle().clone());
    let door = Publish::new(&config.publish.token, options, clock.clone(), chunks, wake, home)
        .context("publish.token")?;
    Ok(Some(Publishing { door, inbox }))
}

impl Doors {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let publish = match config.publish.listen {
            Some(address) => Some(bind("publish.listen", address).await?),
            None => None,
        };
        Ok(Self {
            public: bind("server.listen", config.server.listen).await?,
            admin: bind("admin.listen", config.admin.listen).await?,
            publish,
        })
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: cannot listen on {address}"))
}

impl Doors {
    /// Says where everything listens.
    fn ready_line(&self) -> anyhow::Result<String> {
        let (http, admin) = (self.public.local_addr()?, self.admin.local_addr()?);
        let publish = match &self.publish {
            Some(publish) => format!(" publish={}", publish.local_addr()?),
            None => String::new(),
        };
        Ok(format!("tickfan ready http=http://{http} ws=ws://{http}/ws admin=http://{admin}{publish}"))
    }

    /// Opens all doors; they close when `stopped` turns true.
    fn open(
        self,
        around: &Around<'_>,
        publishing: Option<&Arc<Publish>>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let config = around.config;
        let limits = front_limits(config);
        let options = Options {
            limits,
            allowed_origins: config.server.allowed_origins.clone(),
            replay: config.is_replay(),
        };
        let front = Front::new(&options, hooks(around, publishing)).context("server.allowed_origins")?;
        let shards = around.shards.handles.iter();
        let table = Arc::clone(around.table);
        let sources = Arc::new(Sources {
            ingest: Arc::clone(around.view),
            shards: shards.map(|shard| (Arc::clone(&shard.counters), Arc::clone(&shard.bell))).collect(),
            doors: vec![("public", front.stats())],
            publish: publishing.map(|publishing| publishing.stats()),
            records: Arc::clone(around.records),
            instruments: Box::new(move || table.len() as u64),
        });
        let handles = Arc::clone(&around.shards.handles);
        let admin = Admin::new(
            limits,
            AdminHooks {
                metrics: Arc::new(move || metrics::render(Arc::clone(&sources))),
                clients: Arc::new(move |sort, limit| Box::pin(clients(Arc::clone(&handles), sort, limit))),
            },
        );
        tokio::spawn(front.serve(self.public, until(stopped.clone())));
        tokio::spawn(admin.serve(self.admin, until(stopped.clone())));
        if let (Some(publishing), Some(listener)) = (publishing, self.publish) {
            tokio::spawn(Arc::clone(publishing).serve_tcp(listener));
        }
        Ok(())
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the gateway itself is gone.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn front_limits(config: &Config) -> crate::front::Limits {
    crate::front::Limits {
        connections_max: config.limits.connections_max.get(),
        per_address_max: config.limits.connections_per_address.get(),
        head_timeout_ms: config.limits.head_timeout_ms.get(),
        idle_timeout_ms: config.limits.idle_timeout_ms.get(),
    }
}

/// What the public door asks the rest.
fn hooks(around: &Around<'_>, publishing: Option<&Arc<Publish>>) -> Hooks {
    let Around { config, shards, table, ring, view, records } = around;
    let (most, handles) = (config.limits.connections_max.get() as u64, Arc::clone(&shards.handles));
    let can_accept = move || handles.iter().map(ShardHandle::load).sum::<u64>() < most;
    let handles = Arc::clone(&shards.handles);
    let (table, ring) = (Arc::clone(table), TickRing::clone(ring));
    let symbols = move || {
        let row = |(id, symbol): (_, &Symbol)| SymbolRow { symbol: symbol.clone(), state: ring.state(id) };
        table.iter().map(row).collect()
    };
    let (view, feeds, records) = (Arc::clone(view), config.feed.clone(), Arc::clone(records));
    let publishers = publishing.map(|publishing| publishing.stats());
    Hooks {
        can_accept: Arc::new(can_accept),
        hand_over: Arc::new(move |upgraded| hand_over(&handles, upgraded)),
        publish: publishing.map(publish_route),
        symbols: Arc::new(symbols),
        feeds: Arc::new(move || {
            let publishers = publishers.as_ref().map(|stats| stats.open.load(Ordering::Relaxed));
            feed_health(&feeds, publishers, &view, &records)
        }),
    }
}

/// Where the sockets of publishers go.
fn publish_route(publishing: &Arc<Publish>) -> PublishRoute {
    let (asked, taken) = (Arc::clone(publishing), Arc::clone(publishing));
    let serve = move |upgraded: Upgraded, authorized| {
        let Upgraded { stream, read_buf, .. } = upgraded;
        taken.serve_ws(stream, read_buf, authorized).map_err(|stream| Refused { stream, why: Close::Limit })
    };
    PublishRoute { accepts: Arc::new(move |token| asked.accepts(token)), hand_over: Arc::new(serve) }
}

fn feed_health(
    feeds: &[Feed],
    publishers: Option<u64>,
    view: &IngestView,
    records: &[Arc<LineRecord>],
) -> Vec<FeedHealth> {
    let row = |(number, (feed, flow)): (usize, (&Feed, Flow))| FeedHealth {
        name: format!("feed {number}"),
        flowing: flow == Flow::Flowing,
        detail: match flow {
            Flow::Waiting => "the replay has not begun".to_owned(),
            Flow::Flowing => format!("replays {} captures at speed {}", feed.files.len(), feed.speed),
            Flow::Silent => "nothing has come in for too long".to_owned(),
            Flow::Ended => "the replay has ended".to_owned(),
            Flow::Failed => "the replay met what it cannot read".to_owned(),
        },
    };
    let mut rows: Vec<FeedHealth> = feeds.iter().zip(view.flows()).enumerate().map(row).collect();
    if let Some(publishers) = publishers {
        // Beside replays, publishers may come and go; alone, they are the feed.
        let flowing = publishers > 0 || !feeds.is_empty();
        rows.push(FeedHealth {
            name: "publish".to_owned(),
            flowing,
            detail: format!("{publishers} publishers"),
        });
    }
    // What is missing in a recording is no reason not to serve, but to be told.
    let lines = feeds.iter().map(|feed| feed.files.len()).chain(publishers.map(|_| 1));
    let mut rest = records;
    for (row, lines) in rows.iter_mut().zip(lines) {
        let (own, others) = rest.split_at(lines.min(rest.len()));
        rest = others;
        for alarm in own.iter().filter_map(|record| record.alarm()) {
            row.detail = format!("{}; {alarm}", row.detail);
        }
    }
    rows
}

/// The worst clients of all shards.
async fn clients(shards: Arc<[ShardHandle]>, sort: String, limit: usize) -> Result<Value, String> {
    let Some((_, by)) = SortBy::ALL.into_iter().find(|(word, _)| *word == sort) else {
        let words: Vec<&str> = SortBy::ALL.iter().map(|(word, _)| *word).collect();
        return Err(format!("`sort` must be one of {}", words.join(", ")));
    };
    let mut rows: Vec<ClientRow> = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        rows.extend(shard.report(by, limit, number).await);
    }
    rows.sort_by_key(|row| Reverse(row.sorted_by));
    rows.truncate(limit);
    let total: u64 = shards.iter().map(|shard| shard.counters.sessions.get()).sum();
    Ok(json!({"total": total, "clients": rows}))
}

/// Gives a client to the shard with the fewest.
fn hand_over(shards: &[ShardHandle], upgraded: Upgraded) -> Result<(), Refused> {
    let Upgraded { stream, read_buf, subscribe, peer, seat } = upgraded;
    let why = Close::Busy;
    let Some(shard) = shards.iter().min_by_key(|shard| shard.load()) else {
        return Err(Refused { stream, why });
    };
    let Ok(name) = random_name() else { return Err(Refused { stream, why }) };
    let who = Who { name: name.into(), peer: Some(peer) };
    let client = NewClient { stream, read_buf, subscribe, who, seat: Some(seat) };
    shard.give(Box::new(client)).map_err(|client| Refused { stream: client.stream, why })
}
