//! HTTP: the public listener (page, API, WebSocket handshakes) and the admin listener (metrics).
//!
//! After a handshake the socket leaves HTTP and is handed over, with every byte that was read after the request;
//! WebSocket frames are not handled here. Both listeners share the serving code, which answers malformed requests that
//! hyper would drop without an answer, and bounds the number, bytes and time of connections.

mod accept;
mod answer;
mod api;
mod exposition;
mod hosts;
pub mod metrics;
mod origin;
mod pace;
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

use crate::feed::publish::TokenVerdict;
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
pub use pace::{Traffic, TrafficSource};
pub use rooms::{Enter, HandOverOnce, RoomError, RoomRoute};
pub use runtimes::Runtimes;
use serve::Site;
pub use serve::{HttpLimits, HttpStats};

/// Options of the public listener.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Limits of the listener and of each connection.
    pub limits: HttpLimits,
    /// Web pages that may connect, for requests with an `Origin`: `"*"` any, `"self"` pages of the host and
    /// port that the request names, `"loopback"` pages of this machine (localhost, 127.0.0.0/8 and `[::1]`,
    /// any port), `"null"` files and sandboxes, otherwise one exact origin such as `https://desk.example`.
    /// Requests without `Origin` do not come from a web page and are allowed. Default `self` and `loopback`.
    pub allowed_origins: Vec<String>,
    /// Host names of the listener, besides loopback names and its own addresses. Default none.
    pub hosts: Hosts,
    /// Whether the served data is live; the page shows it. Default live.
    pub feed: Provenance,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            limits: HttpLimits::default(),
            allowed_origins: vec!["self".to_owned(), "loopback".to_owned()],
            hosts: Hosts::default(),
            feed: Provenance::Live,
        }
    }
}

/// A socket that has left HTTP for WebSocket: the 101 is written, and no frame is read yet.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket, non-blocking, with `TCP_NODELAY`.
    pub stream: std::net::TcpStream,
    /// Bytes that were read after the request: the start of the first frames. The socket does not return them again.
    pub read_buf: Vec<u8>,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// The subscription in the query of the URL.
    pub subscribe: Option<Subscribe>,
    /// The permit of the connection for its address, held until the connection ends.
    pub seat: ConnectionPermit,
}

/// An upgraded socket that was refused. It is returned so that the reason can be sent.
#[derive(Debug)]
pub struct RefusedClient {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// Code and reason of its close frame.
    pub why: Close,
}

/// Accepts an upgraded socket, or returns it.
pub type HandOver = Arc<dyn Fn(Upgraded) -> Result<(), RefusedClient> + Send + Sync>;

/// State of one feed, for the page and `/readyz`.
#[derive(Clone, Debug)]
pub struct FeedHealth {
    /// Name in the configuration.
    pub name: String,
    /// Whether data is arriving.
    pub flowing: bool,
    /// Description for the operator, one sentence.
    pub detail: String,
}

/// Compares a token received from an address. It must take the same time for every wrong token of the right length.
pub type TokenCheck = Arc<dyn Fn(&[u8], IpAddr) -> TokenVerdict + Send + Sync>;

/// The route `/publish`, if publishing is enabled.
#[derive(Clone)]
pub struct PublishRoute {
    /// Checks the token of a request, if it has one.
    pub accepts: TokenCheck,
    /// Accepts the socket of a publisher. The flag tells whether the request carried a valid token; if it is
    /// false, the first message must be the token.
    pub hand_over: Arc<dyn Fn(Upgraded, bool) -> Result<(), RefusedClient> + Send + Sync>,
}

/// Health of the gateway, for `/readyz` on both listeners.
#[derive(Clone)]
pub struct Health {
    /// State of all feeds.
    pub feeds: Arc<dyn Fn() -> Vec<FeedHealth> + Send + Sync>,
    /// Problems that do not stop the flow of ticks, one sentence each.
    pub alarms: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Progress of the watched threads.
    pub pulses: Arc<[Arc<Pulse>]>,
}

/// The functions of the gateway that the public listener uses. They are called on the threads of the
/// listener, never per tick.
#[derive(Clone)]
pub struct Hooks {
    /// Whether there is room for a further session; called before the 101.
    pub can_accept: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Ticks published, and connections that wait for a shard: see [`HttpLimits::admissions_per_s`].
    pub traffic: TrafficSource,
    /// Limit and use of memory.
    pub memory: Arc<Memory>,
    /// Accepts the socket of a session.
    pub hand_over: HandOver,
    /// `None` if publishing is disabled.
    pub publish: Option<PublishRoute>,
    /// All instruments.
    pub instruments: Arc<InstrumentTable>,
    /// State of an instrument.
    pub state: Arc<dyn Fn(InstrumentId) -> State + Send + Sync>,
    /// Health of the gateway.
    pub health: Health,
    /// The replay control; `None` if there is no replay to control.
    pub replay_control: Option<Arc<ReplayControl>>,
    /// The rooms; `None` if they are disabled.
    pub rooms: Option<RoomRoute>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("publish", &self.publish.is_some()).finish_non_exhaustive()
    }
}

/// Shared state of the handlers of the public listener.
struct App {
    origins: Origins,
    feed: Provenance,
    hooks: Hooks,
}

/// The public listener.
#[derive(Debug)]
pub struct Front(Site);

impl Front {
    /// Creates the listener; it does not accept connections yet.
    ///
    /// # Errors
    /// [`BadOrigin`] names the invalid entry of [`HttpOptions::allowed_origins`].
    pub fn new(options: &HttpOptions, hooks: Hooks) -> Result<Self, BadOrigin> {
        let origins = Origins::new(&options.allowed_origins)?;
        let traffic = hooks.traffic.clone();
        let app = Arc::new(App { origins, feed: options.feed, hooks });
        // Each route checks the origin itself, because some are open to every page: the page itself, and what
        // monitors read.
        let gate = Gate { hosts: options.hosts.clone(), origins: None };
        Ok(Self(Site {
            router: api::public(app),
            gate,
            limits: options.limits,
            traffic,
            stats: Arc::default(),
        }))
    }

    /// The counters of the listener.
    pub fn stats(&self) -> Arc<HttpStats> {
        Arc::clone(&self.0.stats)
    }

    /// Serves until `shutdown` is ready, then gives open requests about 1 s to complete. It must run on a
    /// tokio runtime with I/O and time.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        serve::serve(listener, self.0, shutdown).await;
    }
}

/// A request for the list of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedClients {
    /// Sort key; the worst client is first.
    pub sort: String,
    /// Most rows.
    pub limit: usize,
    /// Cursor of the row after which the list continues.
    pub after: Option<String>,
}

/// A list of clients.
#[derive(Clone, Debug)]
pub struct ListedClients {
    /// Number of all clients.
    pub total: u64,
    /// Rows, each with its cursor.
    pub rows: Vec<(String, Value)>,
}

/// Lists clients, or returns what is wrong with the request.
pub type ClientsHook =
    Arc<dyn Fn(AskedClients) -> BoxFuture<'static, Result<ListedClients, String>> + Send + Sync>;

/// The functions of the gateway that the admin listener uses.
#[derive(Clone)]
pub struct AdminHooks {
    /// All metrics, as OpenMetrics text. Called once per request.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Lists the worst clients.
    pub clients: ClientsHook,
    /// Latency measurements; `None` if they are disabled.
    pub latency: Option<Arc<Measured>>,
    /// One row per room with its number, in ascending order.
    pub rooms: Arc<dyn Fn() -> Vec<(u64, Value)> + Send + Sync>,
    /// Health of the gateway.
    pub health: Health,
}

/// The admin listener; `/` lists its paths. It requires no authentication: bind it to a private address.
#[derive(Debug)]
pub struct Admin(Site);

impl Admin {
    /// Creates the listener, with its host names besides loopback names and its own addresses. Requests of
    /// web pages from other origins are refused on all paths.
    pub fn new(limits: HttpLimits, hosts: Hosts, hooks: AdminHooks) -> Self {
        let gate = Gate { hosts, origins: Some(Origins::own()) };
        // Its few connections need no pace.
        let traffic = TrafficSource::new(Traffic::default);
        Self(Site { router: api::admin(hooks), gate, limits, traffic, stats: Arc::default() })
    }

    /// The counters of the listener.
    pub fn stats(&self) -> Arc<HttpStats> {
        Arc::clone(&self.0.stats)
    }

    /// As [`Front::serve`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        serve::serve(listener, self.0, shutdown).await;
    }
}
