//! Publishers over real sockets: the token, the numbering of lines, the way back for faults, and what
//! happens when the ingest thread takes nothing. Here the test is the ingest thread.

mod admission;
mod instruments;
mod lines;
mod websockets;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tickfan::feed::publish::{
    CHUNKS_MAX, Chunk, Faults, LineFault, Newcomer, Publish, PublishInput, PublishOptions,
};
use tickfan::feed::{Ingest, IngestParts, IngestView, LineLimits, PublishingParts, Sequencer};
use tickfan::http::{
    self, Front, Health, Hooks, PublishRoute, RefusedClient, Traffic, TrafficSource, Upgraded,
};
use tickfan::latency::meter::Meter;
use tickfan::model::instrument::{InstrumentTable, Symbol};
use tickfan::model::tick::State;
use tickfan::ops::flight::IncidentReporter;
use tickfan::protocol::close::Close;
use tickfan::ring::tick_ring;
use tickfan::time::clock::Clock;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client::client_with_config};

use crate::support::client::Client;
use crate::support::{FIN, Gateway, PONG, RawSocket, TEXT, TOKEN, connect, header, run};

/// Longer than anything takes; only a broken gateway makes a test wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
const AUTH: &str = "{\"op\":\"auth\",\"token\":\"token-of-the-tests\"}\n";
const BEARER: &str = "Bearer token-of-the-tests";
const ACK: &str = r#"{"type":"ack","op":"auth"}"#;

struct Door {
    publish: Arc<Publish>,
    tcp: SocketAddr,
    http: SocketAddr,
    input: mpsc::Receiver<PublishInput>,
    wake: Arc<Notify>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn hooks(publish: &Arc<Publish>) -> Hooks {
    let (asked, taken) = (Arc::clone(publish), Arc::clone(publish));
    Hooks {
        memory: Arc::default(),
        traffic: TrafficSource::new(Traffic::default),
        can_accept: Arc::new(|| true),
        hand_over: Arc::new(|upgraded| Err(RefusedClient { stream: upgraded.stream, why: Close::Limit })),
        publish: Some(PublishRoute {
            accepts: Arc::new(move |token, address| asked.judge(token, address)),
            hand_over: Arc::new(move |upgraded, authorized| {
                let Upgraded { stream, read_buf, peer, seat, .. } = upgraded;
                let newcomer = Newcomer { stream, read_buf, address: peer.ip(), seat, authorized };
                taken.serve_ws(newcomer).map_err(|stream| RefusedClient { stream, why: Close::Limit })
            }),
        }),
        instruments: Arc::new(InstrumentTable::new(1)),
        state: Arc::new(|_| State::Waiting),
        health: Health { feeds: Arc::new(Vec::new), alarms: Arc::new(Vec::new), pulses: Arc::default() },
        replay_control: None,
        rooms: None,
    }
}

fn door(options: PublishOptions, chunks_max: usize) -> Door {
    door_at(Clock::real(), options, chunks_max)
}

fn door_at(clock: Clock, options: PublishOptions, chunks_max: usize) -> Door {
    let (sender, input) = mpsc::channel(chunks_max);
    let wake = Arc::new(Notify::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let (rung, home) = (Arc::clone(&wake), runtime.handle().clone());
    let publish = Publish::new(TOKEN, options, clock, sender, rung, home).expect("a token");
    let bind = || runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind");
    let (lines, web) = (bind(), bind());
    let (tcp, http) = (lines.local_addr().expect("bound"), web.local_addr().expect("bound"));
    runtime.spawn(Arc::clone(&publish).serve_tcp(lines));
    let front = Front::new(&http::HttpOptions::default(), hooks(&publish)).expect("good origins");
    runtime.spawn(front.serve(web, std::future::pending()));
    Door { publish, tcp, http, input, wake, runtime: Some(runtime) }
}

fn usual() -> Door {
    door(PublishOptions::default(), CHUNKS_MAX)
}

impl Door {
    fn next(&mut self) -> PublishInput {
        let runtime = self.runtime.as_ref().expect("running");
        let next = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.input.recv()).await });
        next.expect("an input in time").expect("publishing runs")
    }

    fn opened(&mut self) -> (u32, Faults) {
        match self.next() {
            PublishInput::Opened { publisher, errors } => (publisher, errors),
            other => panic!("not opened: {other:?}"),
        }
    }

    fn chunk(&mut self) -> Chunk {
        match self.next() {
            PublishInput::Chunk(chunk) => chunk,
            other => panic!("no chunk: {other:?}"),
        }
    }

    /// Everything until the publisher is closed, with each line's number.
    fn lines_to_the_end(&mut self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        loop {
            match self.next() {
                PublishInput::Chunk(chunk) => {
                    let text = String::from_utf8(chunk.bytes).expect("utf-8");
                    assert!(text.ends_with('\n'));
                    lines.extend((chunk.first_line..).zip(text.lines().map(str::to_owned)));
                }
                PublishInput::Closed { .. } => return lines,
                PublishInput::Opened { .. } => panic!("opened twice"),
            }
        }
    }

    fn tcp(&self, first: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.tcp).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(first.as_bytes()).expect("sent");
        BufReader::new(stream)
    }

    fn ws(&self, authorization: Option<&str>) -> Result<WebSocket<TcpStream>, Error> {
        let stream = TcpStream::connect(self.http).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut request = format!("ws://{}/publish", self.http).into_client_request()?;
        if let Some(value) = authorization {
            request.headers_mut().insert("authorization", value.parse().expect("a header"));
        }
        let config = WebSocketConfig::default();
        match client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line in time");
    line.trim_end().to_owned()
}

fn message(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

fn numbered(lines: &[(u64, String)]) -> Vec<(u64, &str)> {
    lines.iter().map(|(n, text)| (*n, text.as_str())).collect()
}

/// The message and the code that a WebSocket is closed with; what it was sent before.
fn closed(socket: &mut WebSocket<TcpStream>) -> (String, u16) {
    let told = socket.read().expect("told why");
    let told = message(told.to_text().expect("text"));
    match socket.read().expect("closed") {
        Message::Close(Some(frame)) => (told["code"].as_str().expect("a word").to_owned(), frame.code.into()),
        other => panic!("not closed: {other:?}"),
    }
}

/// A publisher of the real gateway.
fn publisher(gateway: &Gateway) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(connect(gateway.publish.expect("it listens")));
    stream.get_mut().write_all(AUTH.as_bytes()).expect("sent");
    assert_eq!(line(&mut stream), ACK);
    stream
}

fn trade(symbol: &str) -> String {
    json!({"type": "trade", "symbol": symbol, "price": "1.25", "size": "3"}).to_string() + "\n"
}

/// What is wrong with which lines; the publisher sends no more.
fn faults(stream: &mut BufReader<TcpStream>) -> Vec<(u64, String)> {
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    let lines = stream.by_ref().lines().map(|line| message(&line.expect("a line")));
    lines
        .map(|fault| {
            assert_eq!(fault["code"], "bad_tick", "{fault}");
            (fault["line"].as_u64().expect("a number"), fault["msg"].as_str().expect("text").to_owned())
        })
        .collect()
}
