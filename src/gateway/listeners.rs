//! The listeners, and the functions of the gateway behind them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::engine::{EngineBase, OpenedFeeds, Shards, hand_over};
use super::files::{ADMIN_MAX, HTTP_MAX};
use super::rooms::Rooms;
use crate::config::{Config, FeedConfig};
use crate::feed::publish::{self, CHUNKS_MAX, Newcomer, Publish, PublishInput};
use crate::feed::{Flow, IngestView, LineRecord};
use crate::history::Access;
use crate::http::metrics::{self, Sources};
use crate::http::{
    Admin, AdminHooks, AskedClients, FeedHealth, Front, HandOverOnce, Health, Hooks, Hosts, HttpOptions,
    ListedClients, PublishRoute, RefusedClient, RoomError, RoomRoute, Runtimes, Traffic, TrafficSource,
    Upgraded,
};
use crate::ops::collector::Measured;
use crate::protocol::close::Close;
use crate::shard::{self, ClientRow, ReportQuery, ShardHandle, SortBy, Standing};
use crate::system::memory::{Memory, MemoryLevel};
use crate::system::pulse::Pulse;
use crate::time::clock::Clock;

/// The sockets that the gateway listens on.
pub(super) struct Listeners {
    public: TcpListener,
    admin: TcpListener,
    publish: Option<TcpListener>,
}

/// The parts of the gateway that the listeners use.
pub(super) struct GatewayParts<'a> {
    pub(super) config: &'a Config,
    /// Most open files of the process.
    pub(super) files_max: Option<u64>,
    pub(super) base: &'a EngineBase,
    pub(super) shards: &'a Shards,
    pub(super) records: &'a Arc<[Arc<LineRecord>]>,
    pub(super) past: Option<&'a Access>,
    pub(super) measured: Option<Arc<Measured>>,
    pub(super) rooms: Option<&'a Arc<Rooms>>,
    pub(super) memory: &'a Arc<Memory>,
    pub(super) clock: &'a Clock,
    pub(super) pulses: &'a Arc<[Arc<Pulse>]>,
}

/// Publishing, if enabled.
pub(super) struct Publishing {
    pub(super) endpoint: Arc<Publish>,
    /// The receiver of the ingest thread.
    pub(super) inbox: mpsc::Receiver<PublishInput>,
}

pub(super) fn publishing(
    config: &Config,
    clock: &Clock,
    ingest: &OpenedFeeds,
) -> anyhow::Result<Option<Publishing>> {
    if !config.publishes() {
        return Ok(None);
    }
    let (chunks, inbox) = mpsc::channel(CHUNKS_MAX);
    let options = publish::PublishOptions {
        publishers_max: config.limits.publishers_max.get(),
        auth_timeout_ms: config.limits.head_timeout_ms.get(),
        strangers_max: config.publish.strangers_max.get(),
        strangers_per_address: config.publish.strangers_per_address.get(),
        wrong_tokens_per_minute: config.publish.wrong_tokens_per_minute.get(),
        fragments_max: config.limits.fragments_per_message.get(),
        controls_per_s: config.limits.control_frames_per_s.get(),
    };
    let (wake, home) = (Arc::clone(&ingest.wake), ingest.runtime.handle().clone());
    let endpoint = Publish::new(&config.publish.token, options, clock.clone(), chunks, wake, home)
        .context("publish.token")?;
    Ok(Some(Publishing { endpoint, inbox }))
}

impl Listeners {
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let publish = config.publish.listen.map(|address| bind("publish.listen", address)).transpose()?;
        Ok(Self {
            public: bind("server.listen", config.server.listen)?,
            admin: bind("admin.listen", config.admin.listen)?,
            publish,
        })
    }
}

/// Backlog of a listener; the kernel limits it further with `net.core.somaxconn`.
const BACKLOG: u32 = 1 << 16;

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("{key}: cannot listen on {address}"))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // On other systems this option lets another program bind the same address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listeners {
    /// The line that names the addresses of all listeners.
    pub(super) fn ready_line(&self) -> anyhow::Result<String> {
        let (http, admin) = (self.public.local_addr()?, self.admin.local_addr()?);
        let publish = match &self.publish {
            Some(publish) => format!(" publish={}", publish.local_addr()?),
            None => String::new(),
        };
        Ok(format!("tickfan ready http=http://{http} ws=ws://{http}/ws admin=http://{admin}{publish}"))
    }

    /// Opens all listeners; they close when `stopped` becomes true.
    pub(super) fn open(
        self,
        parts: &GatewayParts<'_>,
        publishing: Option<&Arc<Publish>>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let config = parts.config;
        let limits = front_limits(config);
        let hosts = Hosts::new(&config.server.hosts).context("server.hosts")?;
        let options = HttpOptions {
            limits,
            allowed_origins: config.server.allowed_origins.clone(),
            hosts: hosts.clone(),
            feed: config.provenance(),
        };
        let hooks = hooks(parts, publishing);
        let health = hooks.health.clone();
        let front = Front::new(&options, hooks).context("server.allowed_origins")?;
        let shards = parts.shards.handles.iter();
        let table = Arc::clone(&parts.base.table);
        let rooms = parts.rooms.cloned();
        let sources = Arc::new(Sources {
            ingest: Arc::clone(&parts.base.view),
            shards: shards.map(|shard| (Arc::clone(&shard.counters), Arc::clone(&shard.bell))).collect(),
            listeners: vec![("public", front.stats())],
            publish: publishing.map(|publishing| publishing.stats()),
            records: Arc::clone(parts.records),
            history: parts.past.cloned(),
            latency: parts.measured.clone(),
            runtimes: runtimes(parts),
            pulses: Arc::clone(parts.pulses),
            steps: Arc::clone(parts.clock.steps()),
            connections_max: config.limits.connections_max.get() as u64,
            files_max: parts.files_max,
            instruments: Box::new(move || table.len() as u64),
            memory: Arc::clone(parts.memory),
            rooms: Box::new(move || rooms.as_ref().map(|rooms| rooms.figures())),
        });
        let handles = Arc::clone(&parts.shards.handles);
        let rooms = parts.rooms.cloned();
        let admin = Admin::new(
            crate::http::HttpLimits { connections_max: ADMIN_MAX, ..limits },
            hosts,
            AdminHooks {
                metrics: Arc::new(move || metrics::render(Arc::clone(&sources))),
                clients: Arc::new(move |asked| Box::pin(clients(Arc::clone(&handles), asked))),
                latency: parts.measured.clone(),
                rooms: Arc::new(move || rooms.as_ref().map_or_else(Vec::new, |rooms| rooms.rows())),
                health,
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

/// All tokio runtimes, with their names.
fn runtimes(parts: &GatewayParts<'_>) -> Runtimes {
    let control = [
        ("control".to_owned(), Handle::current()),
        ("ingest".to_owned(), parts.base.ingest.runtime.handle().clone()),
    ];
    let shards = parts.shards.handles.iter().enumerate();
    Runtimes::new(
        control.into_iter().chain(shards.map(|(n, shard)| (format!("shard-{n}"), shard.runtime.clone()))),
    )
}

fn front_limits(config: &Config) -> crate::http::HttpLimits {
    crate::http::HttpLimits {
        connections_max: config.limits.connections_max.get(),
        open_max: config.limits.connections_max.get().saturating_add(HTTP_MAX),
        per_address_max: config.limits.connections_per_address.get(),
        admissions_per_s: config.limits.admissions_per_s,
        head_timeout_ms: config.limits.head_timeout_ms.get(),
        idle_timeout_ms: config.limits.idle_timeout_ms.get(),
    }
}

/// The hooks of the public listener.
fn hooks(parts: &GatewayParts<'_>, publishing: Option<&Arc<Publish>>) -> Hooks {
    let GatewayParts { config, base, shards, measured, records, past, rooms, memory, .. } = parts;
    let (most, handles) = (config.limits.connections_max.get() as u64, Arc::clone(&shards.handles));
    let in_rooms = rooms.cloned();
    let can_accept = move || {
        let in_rooms = in_rooms.as_ref().map_or(0, |rooms| rooms.load());
        handles.iter().map(ShardHandle::load).sum::<u64>() + in_rooms < most
    };
    let (in_rooms, of_feeds) = (rooms.cloned(), Arc::clone(&base.view));
    let to_shards = Arc::clone(&shards.handles);
    let traffic = move || Traffic {
        published: of_feeds.published.get() + in_rooms.as_ref().map_or(0, |rooms| rooms.published()),
        waiting: to_shards.iter().map(|shard| shard.counters.coming.get()).sum(),
    };
    let handles = Arc::clone(&shards.handles);
    let (ring, pulse) = (base.ring.clone(), Arc::clone(&base.view.pulse));
    let (view, feeds, records) = (Arc::clone(&base.view), config.feed.clone(), Arc::clone(records));
    let publishers = publishing.map(|publishing| publishing.stats());
    let (measured, past, watched) = (measured.clone(), past.cloned(), Arc::clone(memory));
    Hooks {
        can_accept: Arc::new(can_accept),
        traffic: TrafficSource::new(traffic),
        memory: Arc::clone(memory),
        hand_over: Arc::new(move |upgraded| hand_over(&handles, upgraded)),
        publish: publishing.map(publish_route),
        instruments: Arc::clone(&base.table),
        state: Arc::new(move |id| shard::shown(ring.state(id), pulse.is_late())),
        health: Health {
            feeds: Arc::new(move || {
                let publishers = publishers.as_ref().map(|stats| stats.open.load(Ordering::Relaxed));
                feed_health(&feeds, publishers, &view, &records)
            }),
            alarms: Arc::new(move || alarms(measured.as_deref(), past.as_ref(), &watched)),
            pulses: Arc::clone(parts.pulses),
        },
        replay_control: base.replay_control.clone(),
        rooms: rooms.map(room_route),
    }
}

/// The route that accepts the sockets of publishers.
fn publish_route(publishing: &Arc<Publish>) -> PublishRoute {
    let (asked, taken) = (Arc::clone(publishing), Arc::clone(publishing));
    let serve = move |upgraded: Upgraded, authorized| {
        let Upgraded { stream, read_buf, peer, seat, .. } = upgraded;
        let newcomer = Newcomer { stream, read_buf, address: peer.ip(), seat, authorized };
        taken.serve_ws(newcomer).map_err(|stream| RefusedClient { stream, why: Close::Limit })
    };
    let accepts = move |token: &[u8], address| asked.judge(token, address);
    PublishRoute { accepts: Arc::new(accepts), hand_over: Arc::new(serve) }
}

/// The route into rooms.
fn room_route(rooms: &Arc<Rooms>) -> RoomRoute {
    let (asked, named) = (Arc::clone(rooms), Arc::clone(rooms));
    let enter = move |wish, peer: SocketAddr| -> BoxFuture<'static, Result<HandOverOnce, RoomError>> {
        let rooms = Arc::clone(&asked);
        Box::pin(async move {
            let place = rooms.enter(wish, peer).await?;
            Ok(Box::new(move |upgraded| place.hand_over(upgraded)) as HandOverOnce)
        })
    };
    let captures = move || -> BoxFuture<'static, Result<Value, RoomError>> {
        let rooms = Arc::clone(&named);
        Box::pin(async move { rooms.captures().await })
    };
    RoomRoute { enter: Arc::new(enter), captures: Arc::new(captures) }
}

fn feed_health(
    feeds: &[FeedConfig],
    publishers: Option<u64>,
    view: &IngestView,
    records: &[Arc<LineRecord>],
) -> Vec<FeedHealth> {
    let row = |(number, (feed, flow)): (usize, (&FeedConfig, Flow))| FeedHealth {
        name: format!("feed {number}"),
        flowing: flow == Flow::Flowing,
        detail: match flow {
            Flow::Waiting => "the replay has not begun".to_owned(),
            Flow::Flowing => {
                format!("replays {} captures at speed {}", feed.files.len(), feed.speed.factor())
            }
            Flow::Silent => "no data was received for too long".to_owned(),
            Flow::Ended => "the replay has ended".to_owned(),
            Flow::Failed => "the replay has ended: it met what it cannot read".to_owned(),
        },
    };
    let mut rows: Vec<FeedHealth> = feeds.iter().zip(view.flows()).enumerate().map(row).collect();
    if let Some(publishers) = publishers {
        // Publishers beside replays are optional; without replays they are the only feed.
        let flowing = publishers > 0 || !feeds.is_empty();
        rows.push(FeedHealth {
            name: "publish".to_owned(),
            flowing,
            detail: format!("{publishers} publishers"),
        });
    }
    // An incomplete recording does not stop the service, but is reported.
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

/// Problems that do not stop the flow of ticks. Without paths, because any client may read them.
fn alarms(measured: Option<&Measured>, past: Option<&Access>, memory: &Memory) -> Vec<String> {
    let log = measured.and_then(Measured::log).filter(|log| log.failing);
    let log = log.map(|log| format!("latency.log cannot be written: {} intervals are missing", log.missing));
    let flights = measured.and_then(Measured::flights).filter(|stats| stats.is_failing());
    let flights = flights.map(|_| "flight.dir cannot be written: flights are missing".to_owned());
    let past = past.and_then(Access::failure).map(|why| format!("no history is kept any more: {why}"));
    let level = memory.level();
    let short = (level > MemoryLevel::Ample).then(|| format!("memory is short: {}", level.name()));
    log.into_iter().chain(flights).chain(past).chain(short).collect()
}

/// The worst clients over all shards.
async fn clients(shards: Arc<[ShardHandle]>, asked: AskedClients) -> Result<ListedClients, String> {
    let AskedClients { sort, limit, after } = asked;
    let Some((_, sort)) = SortBy::ALL.into_iter().find(|(word, _)| *word == sort) else {
        let words: Vec<&str> = SortBy::ALL.iter().map(|(word, _)| *word).collect();
        return Err(format!("`sort` must be one of {}", words.join(", ")));
    };
    let after = after.map(|text| text.parse::<Standing>()).transpose();
    let after = after.map_err(|()| "`after` must be what such an answer gave as `next`".to_owned())?;
    let asked = ReportQuery { sort, limit, after };
    let mut rows: Vec<ClientRow> = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        rows.extend(shard.report(asked, number).await);
    }
    rows.sort_by_key(|row| row.standing);
    rows.truncate(limit);
    let total = shards.iter().map(|shard| shard.counters.sessions.get()).sum();
    // Encoding a row of text and numbers cannot fail.
    let row = |row: ClientRow| (row.standing.to_string(), serde_json::to_value(row).unwrap_or_default());
    Ok(ListedClients { total, rows: rows.into_iter().map(row).collect() })
}
