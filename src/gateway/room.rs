//! A room: a replay beside the feed with its own engine, for one client or for several that share its clock.
//! It opens, waits for clients, and ends when it is empty, when it is stopped, or when its lifetime is over.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::engine::{EngineBase, IngestThread, Shards, died, hand_over, open_replays};
use crate::capture::CatalogEntry;
use crate::config::{Config, FeedConfig, FeedKind, PublishConfig, RecordConfig, RingConfig, ShardConfig};
use crate::feed::{IngestView, ReplayError, SeekMemory};
use crate::http::metrics::RoomFigures;
use crate::http::{RefusedClient, RoomError, Upgraded};
use crate::protocol::RoomTerms;
use crate::protocol::close::Close;
use crate::replay_control::{ControlPolicy, ReplayControl};
use crate::shard::{ShardHandle, Wait};
use crate::system::counters::Ending;
use crate::system::memory::Memory;
use crate::system::threads;
use crate::time::clock::{Clock, Now, SECOND};
use crate::venue::ChecksOff;

/// Interval at which a room checks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a room that starts elsewhere than at the first record waits for the ends of its captures before
/// it opens anyway.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);
/// Largest frame ring of a room, which has few clients, bytes.
const ROOM_FRAME_RING_BYTES_MAX: usize = 1 << 20;
/// How long a private room stays empty, nanoseconds: its client may still be on its way to the shard.
const PRIVATE_IDLE_NS: u64 = SECOND;

/// Stage in the life of a room, published to waiting clients.
#[derive(Clone)]
enum Stage {
    Opening,
    Open(Inside),
    Refused(RoomError),
}

/// The shared parts of a room's engine.
#[derive(Clone)]
struct Inside {
    shards: Arc<[ShardHandle]>,
    view: Arc<IngestView>,
    replay_control: Option<Arc<ReplayControl>>,
    seek_memory: Arc<[SeekMemory]>,
}

/// Clients in a room, and on their way to it.
#[derive(Default)]
struct Admission {
    /// Places reserved for clients whose handshake is not complete.
    kept: usize,
    /// Since when the room is empty, steady time.
    empty_since_ns: Option<u64>,
    /// If set, no client is admitted any more, for this reason.
    closed: Option<Close>,
}

/// A room.
pub(super) struct Room {
    number: u64,
    name: Option<Box<str>>,
    pub(super) terms: RoomTerms,
    /// Address of the client that opened it.
    pub(super) opener: IpAddr,
    opened: Now,
    clients_max: u64,
    stage: watch::Sender<Stage>,
    admission: Mutex<Admission>,
}

impl Room {
    /// Creates a room that is not open yet.
    pub(super) fn new(
        number: u64,
        name: Option<Box<str>>,
        terms: RoomTerms,
        opener: IpAddr,
        clients_max: u64,
        opened: Now,
    ) -> Arc<Self> {
        let (stage, _) = watch::channel(Stage::Opening);
        Arc::new(Self {
            number,
            name,
            terms,
            opener,
            opened,
            clients_max,
            stage,
            admission: Mutex::default(),
        })
    }

    /// Whether the room has this name and admits clients.
    pub(super) fn is_open_as(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) && self.admission().closed.is_none()
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self) -> Option<Inside> {
        match &*self.stage.borrow() {
            Stage::Open(inside) => Some(inside.clone()),
            Stage::Opening | Stage::Refused(_) => None,
        }
    }

    /// Number of clients in the room.
    pub(super) fn clients(&self) -> u64 {
        self.inside().map_or(0, |inside| inside.shards.iter().map(ShardHandle::load).sum())
    }

    /// Ticks that the room has published.
    pub(super) fn published(&self) -> u64 {
        self.inside().map_or(0, |inside| inside.view.published.get())
    }

    /// Number of clients in the room, reserved places included.
    pub(super) fn load(&self) -> u64 {
        let kept = self.admission().kept as u64;
        self.clients() + kept
    }

    /// Reserves a place.
    pub(super) fn keep_place(self: &Arc<Self>) -> Result<Place, RoomError> {
        let mut admission = self.admission();
        if self.clients() + admission.kept as u64 >= self.clients_max {
            let msg = format!("`room`: {} clients are in it, which is the maximum", self.clients_max);
            return Err(RoomError::Full(msg));
        }
        admission.kept += 1;
        admission.empty_since_ns = None;
        Ok(Place { room: Arc::clone(self) })
    }

    /// Waits until the room is open, for at most `patience`.
    pub(super) async fn opens(&self, patience: Duration) -> Result<(), RoomError> {
        let mut stage = self.stage.subscribe();
        let opened = stage.wait_for(|stage| !matches!(stage, Stage::Opening));
        match tokio::time::timeout(patience, opened).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::Refused(why) => Err(why.clone()),
                Stage::Opening | Stage::Open(_) => Ok(()),
            },
            // Cannot happen: `self` holds the sender.
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                let msg = "the captures take long to open: name a `room`, and retry";
                Err(RoomError::Full(msg.to_owned()))
            }
        }
    }

    /// Opens the captures and starts the threads. On failure the result is `None`, and waiting clients
    /// receive the reason.
    pub(super) async fn open(
        &self,
        config: Config,
        memory: &Arc<Memory>,
        clock: &Clock,
        notices: &mpsc::Sender<String>,
    ) -> Option<Engine> {
        match Engine::start(self.number, config, memory, clock).await {
            Ok(engine) => Some(engine),
            Err(error) => {
                self.stage.send_replace(Stage::Refused(refusal(&error, notices)));
                None
            }
        }
    }

    /// Serves until the room is over and its threads have ended.
    pub(super) async fn live(&self, engine: Engine, clock: &Clock, stopped: watch::Receiver<bool>) {
        self.stage.send_replace(Stage::Open(engine.inside.clone()));
        let why = self.until_over(&engine, clock, stopped).await;
        engine.end(why).await;
    }

    /// Waits until the room is over; then no client is admitted any more.
    async fn until_over(&self, engine: &Engine, clock: &Clock, mut stopped: watch::Receiver<bool>) -> Close {
        loop {
            let why = tokio::select! {
                // An error means that the gateway itself is gone.
                _ = stopped.wait_for(|stopped| *stopped) => Some(Close::Shutdown),
                () = tokio::time::sleep(LOOK_EVERY) => self.is_over(engine, clock.now()),
            };
            if let Some(why) = why {
                return *self.admission().closed.get_or_insert(why);
            }
        }
    }

    fn is_over(&self, engine: &Engine, now: Now) -> Option<Close> {
        let replay = &engine.config.replay;
        if died(&engine.ingest, &engine.shards).is_some() {
            return Some(Close::Busy);
        }
        let lifetime_ns = replay.room_lifetime_s.get() * SECOND;
        let is_old = now.mono_ns.saturating_sub(self.opened.mono_ns) >= lifetime_ns;
        if is_old || engine.inside.view.stopped.load(Ordering::Acquire) {
            return Some(Close::RoomEnded);
        }
        let idle_ns = match self.name {
            Some(_) => replay.room_idle_s.get() * SECOND,
            None => PRIVATE_IDLE_NS,
        };
        // An arriving client keeps its reserved place until the shard counts it.
        let mut admission = self.admission();
        if admission.kept > 0 || self.clients() > 0 {
            admission.empty_since_ns = None;
            return None;
        }
        let since_ns = *admission.empty_since_ns.get_or_insert(now.mono_ns);
        if now.mono_ns - since_ns < idle_ns {
            return None;
        }
        // Closed while the lock is held, so that no client is admitted in between.
        admission.closed = Some(Close::RoomEnded);
        admission.closed
    }

    /// The shards; none before the room is open.
    pub(super) fn shards(&self) -> Arc<[ShardHandle]> {
        self.inside().map_or_else(Arc::default, |inside| inside.shards)
    }

    /// The memory use of its checkpoints; none before the room is open.
    pub(super) fn seek_memory(&self) -> Arc<[SeekMemory]> {
        self.inside().map_or_else(Arc::default, |inside| inside.seek_memory)
    }

    /// Client connections that have ended so far, by [`Ending::ALL`].
    pub(super) fn clients_ended(&self) -> [u64; Ending::ALL.len()] {
        let Some(Inside { shards, .. }) = self.inside() else { return Default::default() };
        let sum = |n: usize| shards.iter().map(|shard| shard.counters.ended[n].get()).sum();
        std::array::from_fn(sum)
    }

    /// Losses so far, by [`RoomFigures::LOSSES`].
    pub(super) fn lost(&self) -> [u64; RoomFigures::LOSSES.len()] {
        let Some(Inside { shards, view, .. }) = self.inside() else { return Default::default() };
        let sum = |figure: fn(&ShardHandle) -> u64| shards.iter().map(figure).sum::<u64>();
        let lines = view.lines.lock().map(|lines| lines.iter().map(|line| line.bad_lines).sum::<u64>());
        [
            sum(|shard| shard.counters.lapped.get()),
            sum(|shard| shard.counters.merged.get()),
            sum(|shard| shard.counters.dropped.get()),
            sum(|shard| shard.counters.lost.get()),
            view.unplaced.get(),
            lines.unwrap_or(0),
        ]
    }

    /// The number of the room, and its row for the operator.
    pub(super) fn row(&self) -> (u64, Value) {
        let stage = self.stage.borrow().clone();
        let is_closed = self.admission().closed.is_some();
        let state = match &stage {
            _ if is_closed => "ending",
            Stage::Opening => "opening",
            Stage::Open(_) => "open",
            Stage::Refused(_) => "refused",
        };
        let mut row = json!({
            "number": self.number, "room": self.name, "captures": self.terms.captures, "state": state,
            "opened_by": self.opener.to_string(), "since": self.opened.wall_ns / 1_000,
            "clients": self.clients(),
        });
        if let Stage::Open(Inside { shards, view, replay_control, .. }) = &stage {
            row["published"] = view.published.get().into();
            row["sent"] = shards.iter().map(|shard| shard.counters.sent.get()).sum::<u64>().into();
            for (what, lost) in RoomFigures::LOSSES.into_iter().zip(self.lost()) {
                row[what] = lost.into();
            }
            let shown = replay_control.as_ref().and_then(|replay_control| replay_control.shown());
            row["replay"] = shown.map_or(Value::Null, |shown| shown.playback.message());
        }
        (self.number, row)
    }
}

/// A reserved place in a room; dropping it releases the place.
pub(super) struct Place {
    pub(super) room: Arc<Room>,
}

impl Place {
    /// Hands the client over to a shard of the room.
    pub(super) fn hand_over(self, upgraded: Upgraded) -> Result<(), RefusedClient> {
        let inside = self.room.inside();
        // Held until the shard has the client, so that the end of the room includes it.
        let admission = self.room.admission();
        match (inside, admission.closed) {
            (Some(inside), None) => hand_over(&inside.shards, upgraded),
            (_, closed) => Err(RefusedClient { stream: upgraded.stream, why: closed.unwrap_or(Close::Busy) }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.admission().kept -= 1;
    }
}

/// The threads of a room.
pub(super) struct Engine {
    config: Config,
    ingest: IngestThread,
    shards: Shards,
    inside: Inside,
}

impl Engine {
    /// Opens the captures and starts the threads. This runs on its own thread with low priority, which the
    /// started threads inherit, because it reads files and must not delay those of the feed.
    async fn start(number: u64, config: Config, memory: &Arc<Memory>, clock: &Clock) -> anyhow::Result<Self> {
        let (tell, told) = oneshot::channel();
        let (memory, clock, control) = (Arc::clone(memory), clock.clone(), Handle::current());
        let name = format!("room{number}-");
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            threads::lower_priority();
            // The receiver is gone only if the gateway itself is shutting down.
            let _ = tell.send(Self::start_here(&name, config, &memory, &clock, &control));
        })?;
        told.await?
    }

    fn start_here(
        name: &str,
        config: Config,
        memory: &Arc<Memory>,
        clock: &Clock,
        control: &Handle,
    ) -> anyhow::Result<Self> {
        let base = EngineBase::new(name, &config, open_replays(&config)?, ControlPolicy::Anybody, clock)?;
        base.begin_where_there_is_something(BEGIN_PATIENCE)?;
        let (view, replay_control) = (Arc::clone(&base.view), base.replay_control.clone());
        let seek_memory = base.seek_memory().into();
        let shards = base.shards(&config, None, memory, clock, &mut None)?;
        // Lines that cannot be parsed are counted but not logged, because clients could fill the log with
        // them.
        let (notices, _) = mpsc::channel(1);
        // The replay starts with the first subscription, so that no tick is missed.
        let (ingest, parts) = base.into_parts(&config, &shards, 1, notices, clock, &mut None);
        match ingest.start(format!("{name}ingest"), parts, None) {
            Ok(ingest) => {
                let inside =
                    Inside { shards: Arc::clone(&shards.handles), view, replay_control, seek_memory };
                Ok(Self { config, ingest, shards, inside })
            }
            Err(error) => {
                control.block_on(shards.drain(&config, Close::Busy));
                Err(error)
            }
        }
    }

    /// Sends what is queued, ends all sessions with `why`, and waits for the threads.
    async fn end(self, why: Close) {
        // Concurrently: the ingest thread may be decompressing its way to a position, and the sessions must
        // not wait for that.
        let (ingest, ()) = tokio::join!(self.ingest.stop(), self.shards.drain(&self.config, why));
        // The thread ended by itself, or its panic is already logged.
        let _ = tokio::task::spawn_blocking(move || ingest.join()).await;
    }
}

/// The reason that a client receives for an error. Without paths, because any client may request a room.
fn refusal(error: &anyhow::Error, notices: &mpsc::Sender<String>) -> RoomError {
    if let Some(wrong @ (ReplayError::NoSpan | ReplayError::BeginOutOfSpan(_))) = error.downcast_ref() {
        return RoomError::Bad(wrong.to_string());
    }
    // Logged only if the queue has room.
    let _ = notices.try_send(format!("a room does not open: {error:#}"));
    match error.is::<ReplayError>() {
        true => RoomError::Unknown("`replay`: a listed capture no longer opens".to_owned()),
        false => RoomError::Full("this machine has no capacity for another replay".to_owned()),
    }
}

/// The configuration of a gateway that serves only this room.
pub(super) fn config(gateway: &Config, titles: &[CatalogEntry], terms: &RoomTerms) -> Config {
    let feed = FeedConfig {
        kind: FeedKind::Replay,
        files: titles.iter().map(|title| title.path.clone()).collect(),
        venue: None,
        speed: terms.speed,
        looped: terms.looped,
        strict: false,
        from: terms.from,
        to: terms.to,
        max_idle_ms: terms.max_idle_ms,
        checks_off: ChecksOff::default(),
    };
    let mut config = Config {
        feed: vec![feed],
        publish: PublishConfig { venues: Vec::new(), ..PublishConfig::default() },
        record: RecordConfig { enabled: false, ..gateway.record.clone() },
        ring: RingConfig { capacity: gateway.replay.room_ring_capacity },
        // One thread for all clients of the room, which never spins while it is idle.
        shard: ShardConfig {
            threads: 1,
            wait: Wait::Park,
            frame_ring_bytes: gateway.shard.frame_ring_bytes.min(ROOM_FRAME_RING_BYTES_MAX),
            ..gateway.shard.clone()
        },
        ..gateway.clone()
    };
    config.replay.checkpoint_bytes_max = gateway.replay.room_checkpoint_bytes_max;
    config
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::Addresses;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A room that replays a shipped capture.
    fn opened() -> (Arc<Room>, Config) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("feeds/kraken.zst");
        let terms = crate::protocol::RoomSpec { captures: vec!["a".into()], ..Default::default() }.terms();
        let config = config(&Config::bare(), &[CatalogEntry { name: "a".into(), path, bytes: 0 }], &terms);
        (Room::new(1, None, terms, HOST, 1, Clock::real().now()), config)
    }

    async fn socket() -> (TcpStream, Upgraded) {
        let listener = TcpListener::bind(SocketAddr::new(HOST, 0)).await.expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (stream, peer) = listener.accept().await.expect("accepted");
        let stream = stream.into_std().expect("a socket");
        let seat = Arc::new(Addresses::default()).take(HOST, 1).expect("a seat");
        (client, Upgraded { stream, read_buf: Vec::new(), peer, subscribe: None, seat })
    }

    #[tokio::test]
    async fn a_room_whose_ingest_thread_breaks_says_goodbye() {
        let (clock, (notices, _log)) = (Clock::real(), mpsc::channel(1));
        let (_stop, stopped) = watch::channel(false);
        let (room, config) = opened();
        let place = room.keep_place().expect("room");
        assert!(matches!(room.keep_place(), Err(RoomError::Full(_))), "there is one place");
        let engine = room.open(config, &Arc::default(), &clock, &notices).await.expect("it opens");
        let bug = engine.ingest.bug();
        let heard = async {
            room.opens(Duration::from_secs(60)).await.expect("it is open");
            let (mut client, upgraded) = socket().await;
            assert!(place.hand_over(upgraded).is_ok(), "it takes its client");
            bug();
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.expect("an end");
            String::from_utf8_lossy(&heard).into_owned()
        };
        let ((), heard) = tokio::join!(room.live(engine, &clock, stopped), heard);
        assert!(heard.contains(r#""type":"bye","code":1013"#), "{heard}");
        assert_eq!((room.clients(), room.row().1["state"].as_str()), (0, Some("ending")));
        // A late client receives the same code.
        let late = Place { room: Arc::clone(&room) };
        room.admission().kept += 1;
        let (_client, upgraded) = socket().await;
        assert!(late.hand_over(upgraded).is_err_and(|refused| refused.why == Close::Busy));
    }

    #[tokio::test]
    async fn what_does_not_open_is_told_without_a_path() {
        let (clock, (notices, mut log)) = (Clock::real(), mpsc::channel(1));
        let (room, mut config) = opened();
        config.feed[0].files = vec!["/no/such/capture.zst".into()];
        assert!(room.open(config, &Arc::default(), &clock, &notices).await.is_none());
        let told = room.opens(Duration::from_secs(60)).await.expect_err("it is not there");
        assert!(matches!(&told, RoomError::Unknown(msg) if !msg.contains("/no/such")), "{told:?}");
        assert!(log.try_recv().is_ok_and(|notice| notice.contains("/no/such/capture.zst")));
    }
}
