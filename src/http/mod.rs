//! What listens for HTTP: the public listener (page, API, WebSocket handshakes) and the admin listener (metrics).
//!
//! A handshake ends with its socket taken out of HTTP and handed over, together with every byte that was
//! read behind the request; nothing of the WebSocket itself is done here. Both listeners run on the same
//! serving code, which answers what hyper would only drop, and bounds every connection in number, bytes
//! and time.

mod accept;
mod answer;
mod api;
mod exposition;
mod hosts;
pub mod metrics;
mod origin;
mod pages;
mod query;
mod rooms;
mod runtimes;
mod serve;
mod ui;
mod upgrade;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::feed::publish::Verdict;
use crate::model::instrument::{InstrumentId, InstrumentTable};
use crate::model::tick::State;
use crate::net::ConnectionPermit;
use crate::ops::collector::Measured;
use crate::protocol::Subscribe;
use crate::protocol::close::Close;
use crate::protocol::json::Provenance;
use crate::replay_control::ReplayControl;
use crate::system::memory::Memory;
use crate::system::pulse::Pulse;

use hosts::Gate;
pub use hosts::{BadHost, Hosts};
pub use origin::{BadOrigin, Origins};
pub use rooms::{Enter, HandOverOnce, RoomError, RoomRoute};
pub use runtimes::Runtimes;
use serve::Site;
pub use serve::{Limits, Stats};

/// How the public door behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bounds of each connection.
    pub limits: Limits,
    /// Which web pages may connect, for requests that carry an `Origin`: `"*"` any, `"self"` those served
    /// from the host and port that the request names, `"loopback"` those of this machine (localhost,
    /// 127.0.0.0/8 and `[::1]`, any port), `"null"` files and sandboxes, else one exact origin like
    /// `https://desk.example`. What sends no `Origin` is no browser and is let in. Default `self` and
    /// `loopback`.
    pub allowed_origins: Vec<String>,
    /// Names by which it is reached, besides loopback names and its own addresses. Default none.
    pub hosts: Hosts,
    /// What there is to see; the page says so. Default live.
    pub feed: Provenance,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            allowed_origins: vec!["self".to_owned(), "loopback".to_owned()],
            hosts: Hosts::default(),
            feed: Provenance::Live,
        }
    }
}

/// A socket that has left HTTP for WebSocket: the 101 is written, no frame has been read.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, non-blocking, with `TCP_NODELAY`.
    pub stream: std::net::TcpStream,
    /// Bytes that came behind the request: the first frames. They are gone from the socket.
    pub read_buf: Vec<u8>,
    /// Who connected.
    pub peer: SocketAddr,
    /// What the address of the request subscribed to.
    pub subscribe: Option<Subscribe>,
    /// Its place among the connections from its address, to be kept as long as the connection.
    pub seat: ConnectionPermit,
}

/// An upgraded socket that nobody took. It comes back so that it can be told why.
#[derive(Debug)]
pub struct Refused {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// What its close frame says.
    pub why: Close,
}

/// Takes an upgraded socket, or gives it back.
pub type HandOver = Arc<dyn Fn(Upgraded) -> Result<(), Refused> + Send + Sync>;

/// One feed, as the page and `/readyz` show it.
#[derive(Clone, Debug)]
pub struct FeedHealth {
    /// Its name in the configuration.
    pub name: String,
    /// Whether data comes in.
    pub flowing: bool,
    /// One sentence for the operator.
    pub detail: String,
}

/// Compares a token that came from this address. It must take the same time for every wrong one.
pub type TokenCheck = Arc<dyn Fn(&[u8], IpAddr) -> Verdict + Send + Sync>;

/// `/publish`, where publishing is on.
#[derive(Clone)]
pub struct PublishRoute {
    /// Asked where a request carries a token.
    pub accepts: TokenCheck,
    /// Takes the socket of a publisher; the flag says that its token was in the request and is good. If it
    /// is false, the token must come as the first message.
    pub hand_over: Arc<dyn Fn(Upgraded, bool) -> Result<(), Refused> + Send + Sync>,
}

/// How the gateway does: what `/readyz` tells at both listeners.
#[derive(Clone)]
pub struct Health {
    /// Every feed.
    pub feeds: Arc<dyn Fn() -> Vec<FeedHealth> + Send + Sync>,
    /// What is wrong though ticks flow, one sentence each.
    pub alarms: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Threads that do not move.
    pub pulses: Arc<[Arc<Pulse>]>,
}

/// What the door asks the rest of the gateway. All are called on the door's own threads, none per tick.
#[derive(Clone)]
pub struct Hooks {
    /// Whether there is room for another session; asked before the 101.
    pub can_accept: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The bound of memory, and how much is in use.
    pub memory: Arc<Memory>,
    /// Takes a session's socket.
    pub hand_over: HandOver,
    /// `None`: publishing is off.
    pub publish: Option<PublishRoute>,
    /// Every instrument.
    pub instruments: Arc<InstrumentTable>,
    /// How its feed does.
    pub state: Arc<dyn Fn(InstrumentId) -> State + Send + Sync>,
    /// How the gateway does.
    pub health: Health,
    /// What controls the replay; `None`: there is none.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// Replays beside the feed; `None`: there are none.
    pub rooms: Option<RoomRoute>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("publish", &self.publish.is_some()).finish_non_exhaustive()
    }
}

/// What the handlers of the public door share.
struct App {
    origins: Origins,
    feed: Provenance,
    hooks: Hooks,
}

/// The public door.
#[derive(Debug)]
pub struct Front(Site);

impl Front {
    /// Puts the door together; nothing listens yet.
    ///
    /// # Errors
    /// [`BadOrigin`] names the entry of [`Options::allowed_origins`] that means nothing.
    pub fn new(options: &Options, hooks: Hooks) -> Result<Self, BadOrigin> {
        let origins = Origins::new(&options.allowed_origins)?;
        let app = Arc::new(App { origins, feed: options.feed, hooks });
        // Some paths are for every page: the page itself, and what monitors ask.
        let gate = Gate { hosts: options.hosts.clone(), origins: None };
        Ok(Self(Site { router: api::public(app), gate, limits: options.limits, stats: Arc::default() }))
    }

    /// What the door counts.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.0.stats)
    }

    /// Serves until `shutdown` is ready, then lets what is under way end, for about a second. It must run
    /// on a tokio runtime with I/O and time.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        serve::serve(listener, self.0, shutdown).await;
    }
}

/// Which clients are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedClients {
    /// The word of what they are sorted by, the worst first.
    pub sort: String,
    /// So many at most.
    pub limit: usize,
    /// Those behind the one with this cursor.
    pub after: Option<String>,
}

/// Clients that were asked for.
#[derive(Clone, Debug)]
pub struct ListedClients {
    /// How many there are.
    pub total: u64,
    /// Each with its cursor.
    pub rows: Vec<(String, Value)>,
}

/// Lists clients, or reports what is wrong with the request.
pub type Clients =
    Arc<dyn Fn(AskedClients) -> BoxFuture<'static, Result<ListedClients, String>> + Send + Sync>;

/// What the admin listener asks the rest of the gateway.
#[derive(Clone)]
pub struct AdminHooks {
    /// Everything that is counted, as OpenMetrics text. Called once per request.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The worst clients.
    pub clients: Clients,
    /// What was measured; `None`: measuring is off.
    pub latency: Option<Arc<Measured>>,
    /// A row for each room of a replay, with its number, the lowest first.
    pub rooms: Arc<dyn Fn() -> Vec<(u64, Value)> + Send + Sync>,
    /// How the gateway does.
    pub health: Health,
}

/// The admin listener; `/` lists what there is. It asks nobody who they are: bind it to a private address.
#[derive(Debug)]
pub struct Admin(Site);

impl Admin {
    /// Puts the door together, with the names by which it is reached besides loopback names and its own addresses. Web
    /// pages of others are refused whatever they ask for.
    pub fn new(limits: Limits, hosts: Hosts, hooks: AdminHooks) -> Self {
        let gate = Gate { hosts, origins: Some(Origins::own()) };
        Self(Site { router: api::admin(hooks), gate, limits, stats: Arc::default() })
    }

    /// What the door counts.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.0.stats)
    }

    /// As [`Front::serve`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        serve::serve(listener, self.0, shutdown).await;
    }
}
