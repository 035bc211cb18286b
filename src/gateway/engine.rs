//! An engine: the ingest thread, the ring that it writes, and the shards that serve it. The gateway has one,
//! and each room has its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;
use crate::feed::publish::Publish;
use crate::feed::{
    Ingest, IngestParts, IngestView, LineId, LineLimits, PublishingParts, Replay, ReplaySpec, SeekLimits,
    SeekMemory, Sequencer,
};
use crate::history::Access;
use crate::http::{RefusedClient, Upgraded};
use crate::latency::meter::Meter;
use crate::model::instrument::InstrumentTable;
use crate::ops::collector::Collector;
use crate::ops::flight::IncidentReporter;
use crate::protocol::close::Close;
use crate::replay_control::{ControlPolicy, ReplayControl, ReplaySnapshot};
use crate::ring::{TickRing, TickWriter, tick_ring};
use crate::session::Policy;
use crate::shard::{
    self, CatchUps, ClientInfo, ClientLimits, NewClient, SessionOptions, SessionTimes, ShardHandle,
    ShardParts, Tuning,
};
use crate::system::counters::ShardCounters;
use crate::system::memory::Memory;
use crate::system::pulse::{Pulse, Signs};
use crate::time::clock::{Clock, MS};
use crate::venue::{ChecksOff, WireFormat};

/// The parts of an engine before its threads run.
pub(super) struct EngineBase {
    /// Prefix of the thread names.
    name: String,
    pub(super) table: Arc<InstrumentTable>,
    writer: TickWriter,
    pub(super) ring: TickRing,
    pub(super) view: Arc<IngestView>,
    replays: Vec<Replay>,
    /// The replay control, if the engine has exactly one replay.
    pub(super) replay_control: Option<Arc<ReplayControl>>,
    pub(super) ingest: OpenedFeeds,
    options: SessionOptions,
}

impl EngineBase {
    /// Creates the ring and what the threads need. `admission` decides which clients may control the replay.
    pub(super) fn new(
        name: &str,
        config: &Config,
        mut replays: Vec<Replay>,
        admission: ControlPolicy,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let table = Arc::new(InstrumentTable::new(config.limits.instruments_max.get()));
        let (writer, ring) = tick_ring(config.ring.capacity, table.capacity())?;
        let view = Arc::new(IngestView::of_thread(&format!("{name}ingest"), replays.len()));
        let ingest = OpenedFeeds::new()?;
        let replay_control = replay_control(name, config, &mut replays, admission, &ingest.wake, clock)?;
        let options = session_options(config, &replays, replay_control.clone())?;
        Ok(Self {
            name: name.to_owned(),
            table,
            writer,
            ring,
            view,
            replays,
            replay_control,
            ingest,
            options,
        })
    }

    /// Checks that the configured starts are within the captures, waiting at most `patience` until the ends
    /// of the captures are known.
    pub(super) fn begin_where_there_is_something(&self, patience: Duration) -> anyhow::Result<()> {
        Ok(self.replays.iter().try_for_each(|replay| replay.begin_where_there_is_something(patience))?)
    }

    /// The memory use of the checkpoints of its replays.
    pub(super) fn seek_memory(&self) -> Vec<SeekMemory> {
        self.replays.iter().filter_map(Replay::seek_memory).collect()
    }

    /// Starts the shards, which accept clients from then on. `past` is the history for clients that catch up.
    pub(super) fn shards(
        &self,
        config: &Config,
        past: Option<&Access>,
        memory: &Arc<Memory>,
        clock: &Clock,
        collector: &mut Option<Collector>,
    ) -> anyhow::Result<Shards> {
        let cores = super::cores();
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for number in 0..config.shard.threads_on(cores) {
            let counters = Arc::<ShardCounters>::default();
            if let Some(collector) = collector {
                collector.account_for(Arc::clone(&counters));
            }
            let name = format!("{}shard-{number}", self.name);
            let signs = Signs { own: Pulse::new(name.as_str()), feed: Arc::clone(&self.view.pulse) };
            let parts = ShardParts {
                options: self.options.clone(),
                table: Arc::clone(&self.table),
                ring: self.ring.clone(),
                clock: clock.clone(),
                counters,
                wait: config.shard.wait,
                drain_ms: config.session.drain_ms,
                meter: meter(collector),
                reporter: reporter(collector.as_ref()),
                history: past.cloned(),
                memory: Arc::clone(memory),
                signs,
            };
            let (handle, thread) = shard::spawn(name, parts).context("cannot start a shard")?;
            handles.push(handle);
            threads.push(thread);
        }
        Ok(Shards { handles: handles.into(), threads })
    }

    /// The rest to start: the ingest thread and its parts, without publishers.
    pub(super) fn into_parts(
        self,
        config: &Config,
        shards: &Shards,
        wait_subscribers: usize,
        notices: mpsc::Sender<String>,
        clock: &Clock,
        collector: &mut Option<Collector>,
    ) -> (OpenedFeeds, IngestParts) {
        let parts = IngestParts {
            listing_backlog: shards.listing_backlog(&self.table),
            sequencer: Sequencer::new(self.table),
            writer: self.writer,
            bells: shards.handles.iter().map(|shard| Arc::clone(&shard.bell)).collect(),
            rest: Duration::from_micros(config.ingest.rest_us),
            replays: self.replays,
            replay_control: self.replay_control,
            publishing: PublishingParts { input: None, limits: publish_limits(config), tap: None },
            clock: clock.of_thread(),
            stale_after_ns: config.limits.stale_after_ms.get() * MS,
            may_start: shards.start_gate(wait_subscribers),
            view: self.view,
            notices,
            meter: meter(collector),
            reporter: reporter(collector.as_ref()),
        };
        (self.ingest, parts)
    }
}

fn reporter(collector: Option<&Collector>) -> IncidentReporter {
    collector.map_or_else(IncidentReporter::off, Collector::reporter)
}

fn meter(collector: &mut Option<Collector>) -> Meter {
    collector.as_mut().map_or_else(Meter::off, Collector::meter)
}

/// Limits of the feed line of a publisher.
fn publish_limits(config: &Config) -> LineLimits {
    let publish = &config.publish;
    LineLimits {
        venues: Some(publish.venues.clone()),
        instruments_max: publish.instruments_per_publisher_max.get(),
        listed_max: publish.instruments_of(config.limits.instruments_max.get()),
        ..line_limits(config)
    }
}

/// Limits of the feed line of a feed.
fn line_limits(config: &Config) -> LineLimits {
    let limits = &config.limits;
    LineLimits {
        book_levels_max: limits.book_levels_max.get(),
        venues: None,
        instruments_max: usize::MAX,
        listed_max: usize::MAX,
        splice_messages_max: limits.splice_messages_max,
        splice_bytes_max: limits.splice_bytes_max,
        checks_off: ChecksOff::default(),
    }
}

/// Opens the captures of all feeds.
pub(super) fn open_replays(config: &Config) -> anyhow::Result<Vec<Replay>> {
    let limits = line_limits(config);
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
            checks_off: feed.checks_off,
        };
        let replay = Replay::open(spec, &limits, LineId(first)).with_context(|| format!("feed {number}"))?;
        first += replay.lines().count() as u32;
        replays.push(replay);
    }
    Ok(replays)
}

/// Starts the threads that find positions in the captures. Returns the replay control, if there is exactly
/// one replay.
fn replay_control(
    name: &str,
    config: &Config,
    replays: &mut [Replay],
    admission: ControlPolicy,
    wake: &Arc<Notify>,
    clock: &Clock,
) -> anyhow::Result<Option<Arc<ReplayControl>>> {
    let Config { replay, limits, .. } = config;
    let bounds =
        SeekLimits { checkpoints_max: replay.checkpoints_max, bytes_max: replay.checkpoint_bytes_max.get() };
    // Several replays cannot be controlled; of those, only the ones that start elsewhere than at the first
    // record need to find a position.
    let alone = replays.len() == 1;
    for each in replays.iter_mut().filter(|replay| alone || replay.spec().from.is_some()) {
        each.prepare(name, limits.instruments_max.get(), bounds, Arc::clone(wake))
            .context("cannot start a thread for the replay")?;
    }
    let [one] = replays else { return Ok(None) };
    let replay_control = ReplayControl::new(admission, replay.commands_max.get(), Arc::clone(wake));
    // Clients that connect before the first turn of the ingest thread see where the replay will start.
    replay_control.show(ReplaySnapshot {
        playback: one.playback(clock.now()),
        span: one.span(),
        published: 0,
    });
    Ok(Some(Arc::new(replay_control)))
}

/// The shards of an engine.
pub(super) struct Shards {
    pub(super) handles: Arc<[ShardHandle]>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Shards {
    /// A function that tells whether `subscribers` clients have subscribed.
    fn start_gate(&self, subscribers: usize) -> Box<dyn Fn() -> bool + Send> {
        let handles = Arc::clone(&self.handles);
        let subscribed = move || handles.iter().map(|shard| shard.counters.subscribed.get()).sum::<u64>();
        Box::new(move || subscribed() >= subscribers as u64)
    }

    /// A function that returns the largest backlog of a shard in processing new listings, in units of work:
    /// each listing is offered to every session with wildcards.
    fn listing_backlog(&self, table: &Arc<InstrumentTable>) -> Box<dyn Fn() -> usize + Send> {
        let (handles, table) = (Arc::clone(&self.handles), Arc::clone(table));
        Box::new(move || {
            let backlog = |counters: &ShardCounters| {
                let new = table.len().saturating_sub(counters.instruments.get() as usize);
                new * (1 + counters.wild.get() as usize)
            };
            handles.iter().map(|shard| backlog(&shard.counters)).max().unwrap_or(0)
        })
    }

    /// Sends what is queued, ends all sessions with `why`, and waits for the threads.
    pub(super) async fn drain(self, config: &Config, why: Close) {
        for shard in &*self.handles {
            shard.drain(why).await;
        }
        let joined = tokio::task::spawn_blocking(move || {
            self.threads.into_iter().map(JoinHandle::join).for_each(drop);
        });
        // Shards have their own deadlines; this one covers a shard that misses them.
        let longest = config.session.drain_ms + config.session.close_grace_ms + 3_000;
        let _ = tokio::time::timeout(Duration::from_millis(longest), joined).await;
    }
}

fn session_options(
    config: &Config,
    replays: &[Replay],
    replay_control: Option<Arc<ReplayControl>>,
) -> anyhow::Result<SessionOptions> {
    let wires = replays.iter().flat_map(Replay::lines).map(|view| view.line.wire());
    let mut venues: Vec<String> =
        wires.filter(|wire| *wire != WireFormat::Native).map(|wire| wire.name().to_owned()).collect();
    if config.publishes()
        && let Some(both) = config.publish.venues.iter().find(|venue| venues.contains(venue))
    {
        anyhow::bail!(
            "publish.venues: {both:?} is also replayed by a feed: their ticks could not be distinguished"
        );
    }
    venues.extend(config.publish.venues.iter().cloned());
    venues.sort();
    venues.dedup();
    Ok(SessionOptions {
        limits: ClientLimits {
            symbols_max: config.limits.symbols_per_connection.get(),
            frame_bytes_max: config.limits.frame_bytes(),
            fragments_max: config.limits.fragments_per_message.get(),
            controls_per_s: config.limits.control_frames_per_s.get(),
            ops_per_s: config.limits.ops_per_s.get(),
            steps_per_turn_max: config.shard.steps_per_turn_max,
        },
        times: SessionTimes {
            heartbeat_ms: config.session.heartbeat_ms.get(),
            close_grace_ms: config.session.close_grace_ms,
            drain_spread_ms: config.session.drain_spread_ms,
            dead_peer_ms: config.session.dead_peer_ms.get(),
        },

        epoch: random_name()?.into(),
        feed: config.provenance(),
        policy: Policy {
            outbox_bytes_max: config.session.outbox_bytes_max,
            control_bytes_max: config.session.control_bytes_max,
            warn_behind_ns: config.session.warn_behind_ms * MS,
            shed_behind_ns: config.session.shed_behind_ms * MS,
            cut_after_ns: config.session.cut_after_ms.get() * MS,
            pong_timeout_ns: config.session.pong_timeout_ms.get() * MS,
            ahead_ns: config.session.ahead_ms.get() * MS,
            rates_max: config.limits.rates_per_connection.get(),
        },
        tuning: Tuning { unsent_bytes_max: config.session.unsent_bytes_max.get() },
        frame_ring_bytes: config.shard.frame_ring_bytes,
        venues: venues.into(),
        replay_control,
        catch_ups: CatchUps::new(
            config.record.catch_ups_max,
            config.record.catch_ups_per_address,
            config.record.catch_up_patience_ms.get(),
        ),
        reread_per_turn: config.shard.reread_per_turn.get(),
    })
}

/// A unique name: 64 random bits in hexadecimal.
pub(super) fn random_name() -> anyhow::Result<String> {
    let bits = getrandom::u64().map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(format!("{bits:016x}"))
}

/// The runtime of the ingest thread before it runs, because publishers need the runtime that will serve them.
pub(super) struct OpenedFeeds {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) wake: Arc<Notify>,
}

impl OpenedFeeds {
    fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { runtime: runtime.context("cannot start the ingest thread")?, wake: Arc::default() })
    }

    /// Starts the thread under this name.
    pub(super) fn start(
        self,
        name: String,
        parts: IngestParts,
        publishing: Option<Arc<Publish>>,
    ) -> anyhow::Result<IngestThread> {
        let Self { runtime, wake } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let (told, bell) = (Arc::clone(&stop), Arc::clone(&wake));
        let (tell, stopped) = oneshot::channel();
        let entered = runtime.enter();
        let running = Ingest::new(parts).run(told, bell).context("cannot start the ingest thread")?;
        drop(entered);
        let work = async move {
            let ended = running.await;
            // An error means that no receiver is waiting.
            let _ = tell.send(());
            if let Some(publishing) = publishing {
                publishing.gone().await;
            }
            ended
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || runtime.block_on(work))
            .context("cannot start the ingest thread")?;
        Ok(IngestThread { stop, wake, stopped, thread })
    }
}

/// The ingest thread.
pub(super) struct IngestThread {
    stop: Arc<AtomicBool>,
    wake: Arc<Notify>,
    /// Completes when the thread accepts no more input.
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl IngestThread {
    /// Stops the input; then every tick is in the ring. The thread continues until the publishers are
    /// disconnected.
    pub(super) async fn stop(self) -> JoinHandle<std::io::Result<()>> {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
        // An error means that the thread has already ended.
        let _ = self.stopped.await;
        self.thread
    }
}

#[cfg(test)]
impl IngestThread {
    /// A function that makes the thread end unexpectedly, as a bug would.
    pub(super) fn bug(&self) -> impl FnOnce() + use<> {
        let (stop, wake) = (Arc::clone(&self.stop), Arc::clone(&self.wake));
        move || {
            stop.store(true, Ordering::Release);
            wake.notify_one();
        }
    }
}

/// The thread that has ended unexpectedly, if any: its clients would otherwise see an open connection without
/// data.
pub(super) fn died(ingest: &IngestThread, shards: &Shards) -> Option<&'static str> {
    if ingest.thread.is_finished() {
        return Some("the ingest thread has ended: this is a bug");
    }
    let ended = shards.threads.iter().any(JoinHandle::is_finished);
    ended.then_some("a shard has ended: this is a bug")
}

/// Assigns a client to the shard with the fewest clients, among those that make progress.
pub(super) fn hand_over(shards: &[ShardHandle], upgraded: Upgraded) -> Result<(), RefusedClient> {
    let Upgraded { stream, read_buf, subscribe, peer, seat } = upgraded;
    let why = Close::Busy;
    let moving = shards.iter().filter(|shard| !shard.pulse.is_late());
    let Some(shard) = moving.min_by_key(|shard| shard.load()) else {
        return Err(RefusedClient { stream, why });
    };
    let Ok(name) = random_name() else { return Err(RefusedClient { stream, why }) };
    let who = ClientInfo { name: name.into(), peer: Some(peer) };
    let client = NewClient { stream, read_buf, subscribe, who, seat: Some(seat) };
    shard.give(Box::new(client)).map_err(|client| RefusedClient { stream: client.stream, why })
}
