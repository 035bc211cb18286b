//! All rooms: the captures they can replay, the limits for opening one, and the lookup by name.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::room::{self, Place, Room};
use crate::capture::{Catalog, CatalogEntry, Listing};
use crate::config::Config;
use crate::http::RoomError;
use crate::http::metrics::RoomFigures;
use crate::net::share_of;
use crate::protocol::RoomSpec;
use crate::system::counters::{Counter, Ending};
use crate::system::memory::{Memory, MemoryDemand};
use crate::text::printable;
use crate::time::clock::{Clock, SECOND};

/// How long a listing of the captures stays valid.
const LISTED_FOR_NS: u64 = SECOND;

/// The captures, with their newest listing.
struct Kept {
    catalog: Catalog,
    listed: Option<(u64, Arc<Listing>)>,
}

#[derive(Default)]
struct State {
    rooms: Vec<Arc<Room>>,
    /// Number of rooms opened so far.
    numbers: u64,
    closed: bool,
    /// Ended client connections in rooms that are gone.
    clients_ended: [u64; Ending::ALL.len()],
    /// Losses of rooms that are gone.
    lost: [u64; RoomFigures::LOSSES.len()],
}

/// The rooms of a gateway.
pub(super) struct Rooms {
    config: Config,
    memory: Arc<Memory>,
    clock: Clock,
    notices: mpsc::Sender<String>,
    catalog: Arc<tokio::sync::Mutex<Kept>>,
    state: Mutex<State>,
    opened: Counter,
    refused: [Counter; RoomError::REASONS.len()],
    /// Signals that the gateway stops; each room holds a receiver until it has ended.
    stop: watch::Sender<bool>,
}

/// The captures that rooms can replay; `None` if rooms are disabled.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn catalog(config: &Config) -> anyhow::Result<Option<Catalog>> {
    let open = |dir: &Path| {
        let catalog = Catalog::open(dir, config.replay.dir_entries_max.get());
        catalog.with_context(|| format!("replay.dir: {} cannot be read", printable::path(dir)))
    };
    config.replay.dir.as_deref().map(open).transpose()
}

impl Rooms {
    /// Creates the rooms, none of them open; `None` if rooms are disabled.
    pub(super) fn open(
        config: &Config,
        memory: &Arc<Memory>,
        clock: &Clock,
        notices: &mpsc::Sender<String>,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(mut catalog) = catalog(config)? else { return Ok(None) };
        // The first listing reads every file and takes longest, so that it is made before a client needs it.
        catalog.list().context("replay.dir")?;
        let (stop, _) = watch::channel(false);
        Ok(Some(Arc::new(Self {
            config: config.clone(),
            memory: Arc::clone(memory),
            clock: clock.clone(),
            notices: notices.clone(),
            catalog: Arc::new(tokio::sync::Mutex::new(Kept { catalog, listed: None })),
            state: Mutex::default(),
            opened: Counter::default(),
            refused: std::array::from_fn(|_| Counter::default()),
            stop,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- captures -------------------------------------------------------------------------------------

    /// The available captures. Only one listing is made at a time; all clients share it for 1 s.
    async fn listing(&self) -> Result<Arc<Listing>, RoomError> {
        let mut kept = Arc::clone(&self.catalog).lock_owned().await;
        let now_ns = self.clock.now().mono_ns;
        if let Some((at_ns, listing)) = &kept.listed
            && now_ns.saturating_sub(*at_ns) < LISTED_FOR_NS
        {
            return Ok(Arc::clone(listing));
        }
        let clock = self.clock.clone();
        let listing = tokio::task::spawn_blocking(move || {
            let listing = Arc::new(kept.catalog.list()?);
            // Stored under the lock, so that waiting requests do not start another listing.
            kept.listed = Some((clock.now().mono_ns, Arc::clone(&listing)));
            std::io::Result::Ok(listing)
        });
        let unread = || RoomError::Full("the captures cannot be listed at this moment".to_owned());
        listing.await.map_err(|_| unread())?.map_err(|_| unread())
    }

    /// The available captures as JSON, for clients.
    pub(super) async fn captures(&self) -> Result<Value, RoomError> {
        let listing = self.listing().await?;
        let rows = listing.titles.iter().map(|title| json!({"name": title.name, "bytes": title.bytes}));
        let mut listed = json!({"replays": rows.collect::<Vec<_>>()});
        if listing.more {
            listed["more"] = true.into();
        }
        Ok(listed)
    }

    /// The captures with these names.
    async fn titles(&self, names: &[String]) -> Result<Vec<CatalogEntry>, RoomError> {
        let most = self.config.replay.room_captures_max.get();
        if names.len() > most {
            return Err(RoomError::Bad(format!("`replay` names more than {most} captures")));
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let listing = self.listing().await?;
        let find = |name: &String| {
            let unknown = || {
                let shown: String = name.chars().take(40).collect();
                RoomError::Unknown(format!("`replay`: no capture has the name {shown:?}: see /api/replays"))
            };
            listing.find(name).cloned().ok_or_else(unknown)
        };
        names.iter().map(find).collect()
    }

    // ---- clients --------------------------------------------------------------------------------------

    /// Finds or opens the requested room, and reserves a place in it.
    pub(super) async fn enter(
        self: &Arc<Self>,
        wish: RoomSpec,
        peer: SocketAddr,
    ) -> Result<Place, RoomError> {
        let entered = self.place(&wish, peer.ip().to_canonical()).await;
        if let Err(why) = &entered {
            self.refused[why.reason()].add(1);
        }
        entered
    }

    async fn place(self: &Arc<Self>, wish: &RoomSpec, peer: IpAddr) -> Result<Place, RoomError> {
        let titles = self.titles(&wish.captures).await?;
        let place = self.find_or_begin(wish, &titles, peer)?;
        // The other half of the idle timeout remains for the answer.
        place.room.opens(Duration::from_millis(self.config.limits.idle_timeout_ms.get() / 2)).await?;
        Ok(place)
    }

    fn find_or_begin(
        self: &Arc<Self>,
        wish: &RoomSpec,
        titles: &[CatalogEntry],
        peer: IpAddr,
    ) -> Result<Place, RoomError> {
        let replay = &self.config.replay;
        let mut state = self.state();
        if state.closed {
            return Err(RoomError::Full("the gateway stops".to_owned()));
        }
        let named = wish.room.as_deref();
        if let Some(room) = named.and_then(|name| state.rooms.iter().find(|room| room.is_open_as(name))) {
            if let Some(parameter) = wish.differs(&room.terms) {
                let msg = format!("`{parameter}`: the room is there already, with another `{parameter}`");
                return Err(RoomError::Taken(msg));
            }
            return room.keep_place();
        }
        if wish.captures.is_empty() {
            let msg = "`room`: there is no such room; name captures with `replay` to open it";
            return Err(RoomError::Unknown(msg.to_owned()));
        }
        let most = replay.rooms_per_address.get();
        if state.rooms.iter().filter(|room| share_of(room.opener) == share_of(peer)).count() >= most {
            return Err(RoomError::TooMany(format!(
                "your address has opened {most} rooms, which is the limit"
            )));
        }
        if state.rooms.len() >= replay.rooms_max.get() {
            return Err(RoomError::Full("too many rooms are open".to_owned()));
        }
        if self.memory.refuses(MemoryDemand::Room) {
            return Err(RoomError::Memory);
        }
        state.numbers += 1;
        let (terms, clients_max) = (wish.terms(), replay.room_clients_max.get() as u64);
        let config = room::config(&self.config, titles, &terms);
        let room = Room::new(state.numbers, wish.room.clone(), terms, peer, clients_max, self.clock.now());
        let place = room.keep_place()?;
        state.rooms.push(Arc::clone(&room));
        tokio::spawn(Arc::clone(self).watch_over(room, config, self.stop.subscribe()));
        Ok(place)
    }

    /// Runs a room, and removes it once its threads have ended; until then it counts as open.
    async fn watch_over(self: Arc<Self>, room: Arc<Room>, config: Config, stopped: watch::Receiver<bool>) {
        // Dropped last, because `end` waits for all receivers.
        let held = stopped.clone();
        if let Some(engine) = room.open(config, &self.memory, &self.clock, &self.notices).await {
            self.opened.add(1);
            room.live(engine, &self.clock, stopped).await;
        }
        let mut state = self.state();
        state.rooms.retain(|other| !Arc::ptr_eq(other, &room));
        state.clients_ended = plus(state.clients_ended, room.clients_ended());
        state.lost = plus(state.lost, room.lost());
        drop(state);
        drop(held);
    }

    /// Ends all rooms, within a time limit.
    pub(super) async fn end(&self) {
        self.state().closed = true;
        self.stop.send_replace(true);
        let session = &self.config.session;
        // Shards have their own deadlines; this one covers a room that misses them.
        let longest = session.drain_ms + session.close_grace_ms + 5_000;
        let _ = tokio::time::timeout(Duration::from_millis(longest), self.stop.closed()).await;
    }

    /// The current rooms.
    pub(super) fn all(&self) -> Vec<Arc<Room>> {
        self.state().rooms.clone()
    }

    // ---- for the operator -----------------------------------------------------------------------------

    /// Number of clients in all rooms.
    fn clients(&self) -> u64 {
        self.state().rooms.iter().map(|room| room.clients()).sum()
    }

    /// Number of clients in all rooms, reserved places included.
    pub(super) fn load(&self) -> u64 {
        self.state().rooms.iter().map(|room| room.load()).sum()
    }

    /// Ticks that the open rooms have published.
    pub(super) fn published(&self) -> u64 {
        self.state().rooms.iter().map(|room| room.published()).sum()
    }

    /// The metrics of all rooms.
    pub(super) fn figures(&self) -> RoomFigures {
        let state = self.state();
        let open = state.rooms.len() as u64;
        let lost = state.rooms.iter().fold(state.lost, |sum, room| plus(sum, room.lost()));
        let ended = |sum, room: &Arc<Room>| plus(sum, room.clients_ended());
        let clients_ended = state.rooms.iter().fold(state.clients_ended, ended);
        drop(state);
        RoomFigures {
            open,
            lost,
            clients_ended,
            clients: self.clients(),
            opened: self.opened.get(),
            refused: std::array::from_fn(|reason| self.refused[reason].get()),
        }
    }

    /// One row per room.
    pub(super) fn rows(&self) -> Vec<(u64, Value)> {
        self.state().rooms.iter().map(|room| room.row()).collect()
    }
}

fn plus<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    std::array::from_fn(|n| a[n] + b[n])
}
