//! The public HTTP door, over raw sockets: every request gets its answer, whatever it
//! looks like, and a handshake loses no byte.

mod connections;
mod handshake;
mod origins;
mod routes;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use tickfan::feed::publish::TokenVerdict;
use tickfan::http::{
    FeedHealth, Front, HandOverOnce, Health, Hooks, Hosts, HttpLimits, HttpOptions, HttpStats, PublishRoute,
    RefusedClient, RoomError, RoomRoute, Traffic, TrafficSource, Upgraded,
};
use tickfan::model::instrument::{InstrumentTable, Symbol};
use tickfan::model::tick::{Channel, State};
use tickfan::protocol::close::Close;
use tickfan::protocol::{RoomSpec, Selector, Since};

use crate::support::answer::Answer;

/// Longer than any answer takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Default)]
struct Switches {
    full: AtomicBool,
    many_captures: AtomicBool,
    stopped_feed: AtomicBool,
    refuse_after: AtomicBool,
}

struct Door {
    addr: SocketAddr,
    switches: Arc<Switches>,
    sessions: mpsc::Receiver<Upgraded>,
    stats: Arc<HttpStats>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: mpsc::Receiver<()>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// These instruments, of which the first is live.
fn table(names: impl IntoIterator<Item = String>) -> Arc<InstrumentTable> {
    let table = InstrumentTable::new(INSTRUMENTS_MAX);
    for name in names {
        table.intern(&Symbol::parse(&name).expect("good")).expect("room");
    }
    Arc::new(table)
}

/// As many as a gateway has as configured.
const INSTRUMENTS_MAX: usize = 65_536;

fn hooks(switches: &Arc<Switches>, sessions: mpsc::Sender<Upgraded>, publish: bool) -> Hooks {
    let [a, b, c, d] = std::array::from_fn(|_| Arc::clone(switches));
    let publishers = sessions.clone();
    Hooks {
        memory: Arc::default(),
        traffic: TrafficSource::new(Traffic::default),
        can_accept: Arc::new(move || !a.full.load(Ordering::SeqCst)),
        hand_over: Arc::new(move |upgraded| {
            if b.refuse_after.load(Ordering::SeqCst) {
                return Err(RefusedClient { stream: upgraded.stream, why: Close::Shutdown });
            }
            sessions.send(upgraded).expect("the test listens");
            Ok(())
        }),
        publish: publish.then(|| PublishRoute {
            accepts: Arc::new(
                |token, _| if token == b"secret" { TokenVerdict::Right } else { TokenVerdict::Wrong },
            ),
            hand_over: Arc::new(move |upgraded, _| {
                publishers.send(upgraded).expect("the test listens");
                Ok(())
            }),
        }),
        instruments: table(["coinbase:BTC-USD", "kraken:XBT/USD"].map(str::to_owned)),
        state: Arc::new(|id| if id.0 == 0 { State::Live } else { State::Waiting }),
        health: Health {
            feeds: Arc::new(move || {
                let flowing = !c.stopped_feed.load(Ordering::SeqCst);
                vec![FeedHealth { name: "a<b".into(), flowing, detail: "10 frames a second".into() }]
            }),
            alarms: Arc::new(|| vec!["no room".to_owned()]),
            pulses: Arc::default(),
        },
        replay_control: None,
        rooms: Some(RoomRoute {
            enter: Arc::new(|wish, _| Box::pin(enter(wish))),
            captures: Arc::new(move || {
                let many = d.many_captures.load(Ordering::SeqCst);
                let names = (0..if many { CAPTURES } else { 0 }).map(capture);
                let rows: Vec<Value> = names.map(|name| json!({"name": name, "bytes": 7})).collect();
                let listed =
                    if many { json!({"replays": rows, "more": true}) } else { json!({"replays": rows}) };
                Box::pin(async move { Ok(listed) })
            }),
        }),
    }
}

/// How many captures there may be to replay.
const CAPTURES: usize = 8_000;

fn capture(n: usize) -> String {
    format!("{n:0>200}.zst")
}

/// How long a room takes to open.
const OPENS_IN: Duration = Duration::from_millis(400);

/// Opens a room that takes whoever comes, unless its captures are called otherwise.
async fn enter(wish: RoomSpec) -> Result<HandOverOnce, RoomError> {
    tokio::time::sleep(OPENS_IN).await;
    if wish.captures != ["there"] {
        return Err(RoomError::Taken("another room".to_owned()));
    }
    Ok(Box::new(|upgraded| Err(RefusedClient { stream: upgraded.stream, why: Close::RoomEnded })))
}

fn door(change: impl FnOnce(&mut HttpOptions), publish: bool) -> Door {
    door_on((Ipv4Addr::LOCALHOST, 0).into(), change, |hooks| {
        hooks.publish = hooks.publish.take().filter(|_| publish);
    })
}

/// A door that listens here, with what leads on from it changed.
fn door_on(listen: SocketAddr, change: impl FnOnce(&mut HttpOptions), lead: impl FnOnce(&mut Hooks)) -> Door {
    let mut options = HttpOptions::default();
    change(&mut options);
    let switches = Arc::new(Switches::default());
    let (sender, sessions) = mpsc::channel();
    let mut hooks = hooks(&switches, sender, true);
    lead(&mut hooks);
    let front = Front::new(&options, hooks).expect("good origins");
    let stats = front.stats();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind(listen)).expect("bind");
    let addr = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (done, served) = mpsc::channel();
    runtime.spawn(async move {
        front.serve(listener, async move { drop(stopped.await) }).await;
        done.send(()).ok();
    });
    Door { addr, switches, sessions, stats, stop: Some(stop), served, runtime: Some(runtime) }
}

fn plain() -> Door {
    door(|_| {}, false)
}

impl Door {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    /// Sends these bytes on a fresh connection and reads one answer.
    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A peer that answers early may have closed already.
        drop(stream.write_all(bytes));
        Answer::read(&mut stream)
    }

    fn request(&self, line: &str, headers: &str) -> Answer {
        self.raw(format!("{line} HTTP/1.1\r\nHost: localhost:1\r\n{headers}\r\n").as_bytes())
    }
}

fn handshake() -> String {
    handshake_but("", "")
}

/// The headers of a good handshake with one line left out and others put in.
fn handshake_but(without: &str, with: &str) -> String {
    let lines = [
        "Connection: keep-alive, Upgrade".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        format!("Sec-WebSocket-Key: {KEY}"),
    ];
    let mut out = String::new();
    for line in lines.iter().filter(|line| without.is_empty() || !line.starts_with(without)) {
        out.push_str(line);
        out.push_str("\r\n");
    }
    out + with
}
