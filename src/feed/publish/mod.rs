//! Ticks from publishers: JSON lines over TCP, or in WebSocket messages, behind a token.
//!
//! Lines are not parsed here. They go to the ingest thread in chunks, one per socket read, through one
//! bounded channel; while it is full the publishers' sockets are not read, and TCP makes the publishers
//! wait. What the ingest thread finds wrong comes back by line number and is told to the publisher, as far
//! as it reads.
//!
//! Connections without the token are served on the control thread (`admit`), publishers on the ingest thread.

mod admit;
mod guesses;
mod lines;
mod strangers;
mod wire;

use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::auth::Token;
use crate::net::inbound::Most;
use crate::net::{Acceptor, ConnectionPermit};
use crate::protocol::close::Close;
use crate::time::clock::Clock;
use admit::AUTH_BYTES_MAX;
pub use admit::too_many;
use guesses::Guesses;
pub use guesses::Verdict;
use lines::{LINE_BYTES_MAX, Lines};
pub use strangers::PARTINGS_MAX;
use strangers::Strangers;
use wire::{Portion, Received, Shaken, Wire};

/// How many chunks may wait for the ingest thread, from all publishers together.
pub const CHUNKS_MAX: usize = 64;
/// How many of one publisher may be on their way or waiting on the ingest thread; until they are taken its socket is not
/// read. A chunk is 128 KiB at most.
pub const CHUNKS_PER_PUBLISHER: usize = 2;
/// The refusal of a TCP publisher for which no file is left.
const NO_FILE_LEFT: &[u8] = b"{\"type\":\"error\",\"code\":\"limit\",\
    \"msg\":\"this machine lets the gateway open no more connections\"}\n";
/// How many faults may wait for one publisher; further ones are counted.
const FAULTS_MAX: usize = 256;
/// How long a publisher that has sent everything is told of its last faults, and one that is thrown out
/// of the reason.
const FAREWELL: Duration = Duration::from_secs(5);

/// How publishing behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Publishers at the same time, over TCP and WebSocket together. Each keeps a buffer of 128 KiB.
    /// Default 64.
    pub publishers_max: usize,
    /// How long a connection may take to show the token, in milliseconds. Default 5000.
    pub auth_timeout_ms: u64,
    /// Connections without the token at the same time, on each listener: TCP, and WebSocket. Default 256.
    pub strangers_max: usize,
    /// The same from one address. Default 64.
    pub strangers_per_address: usize,
    /// Wrong tokens a minute from one address, and as many at once. Default 10.
    pub wrong_tokens_per_minute: u32,
    /// Parts that a WebSocket message may come in. Default 64.
    pub fragments_max: u32,
    /// Control frames of a WebSocket a second. Default 50.
    pub controls_per_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            publishers_max: 64,
            auth_timeout_ms: 5_000,
            strangers_max: 256,
            strangers_per_address: 64,
            wrong_tokens_per_minute: 10,
            fragments_max: 64,
            controls_per_s: 50,
        }
    }
}

/// What publishing counts, since it began.
#[derive(Debug, Default)]
pub struct Stats {
    /// Publishers that showed the token.
    pub opened: AtomicU64,
    /// Publishers connected now.
    pub open: AtomicU64,
    /// Connections now that have not shown the token.
    pub waiting: AtomicU64,
    /// Connections that ended without the right token.
    pub auth_refused: AtomicU64,
    /// Wrong tokens, in the heads of handshakes too.
    pub wrong_tokens: AtomicU64,
    /// Tokens that were not compared, because too many wrong ones came from their address.
    pub tokens_unread: AtomicU64,
    /// Connections without the token whose place another one took.
    pub evicted: AtomicU64,
    /// Publishers turned away for room.
    pub limit_refused: AtomicU64,
    /// Accepts that failed.
    pub accept_errors: AtomicU64,
    /// Publishers whose connection broke; what the kernel still held of their lines is lost. A publisher
    /// that closes its socket without reading our answers does that to itself.
    pub resets: AtomicU64,
    /// Lines handed to the ingest thread, empty ones too.
    pub lines: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Lines that were faulty: too long, or refused by the ingest thread.
    pub faults: AtomicU64,
    /// Faults that were not told to their publisher one by one, because it did not read.
    pub faults_untold: AtomicU64,
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Whole lines of one publisher.
#[derive(Debug)]
pub struct Chunk {
    /// Which publisher: the number of its [`Input::Opened`].
    pub publisher: u32,
    /// The number of the first line on its connection, from 1; a token sent as a line counts as one.
    pub first_line: u64,
    /// When they were received, nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// The lines, each ended by `\n`. They may be empty, and may be anything.
    pub bytes: Vec<u8>,
    /// One of the [`CHUNKS_PER_PUBLISHER`], until the chunk is dropped.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// What comes to the ingest thread. One publisher's inputs come in order: opened, chunks, closed.
#[derive(Debug)]
pub enum Input {
    /// A publisher is there.
    Opened {
        /// Its number, unique within a run.
        publisher: u32,
        /// Where its faults go; drop it when it is closed.
        errors: Faults,
    },
    /// It sent lines.
    Chunk(Chunk),
    /// It is gone, and nothing more comes from it.
    Closed {
        /// Its number.
        publisher: u32,
    },
}

/// A line that is no tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Its number on the connection.
    pub line: u64,
    /// What is wrong, naming the field.
    pub msg: String,
}

/// Faults that there was no room for.
#[derive(Debug, Default)]
struct Untold {
    lines: AtomicU64,
    /// Rung after `lines` has grown: the last fault of all must not stay unsaid.
    grown: Notify,
}

/// The way back to one publisher, for the ingest thread.
#[derive(Clone, Debug)]
pub struct Faults {
    told: mpsc::Sender<LineFault>,
    untold: Arc<Untold>,
    stats: Arc<Stats>,
}

impl Faults {
    /// Tells the publisher of a faulty line. It never waits: while too many are on their way, they are only
    /// counted, and the publisher is told how many.
    pub fn tell(&self, fault: LineFault) {
        count(&self.stats.faults, 1);
        if self.told.try_send(fault).is_err() {
            count(&self.untold.lines, 1);
            self.untold.grown.notify_one();
            count(&self.stats.faults_untold, 1);
        }
    }
}

/// Publishing was configured with an empty token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the publishing token is empty: leave it out to turn publishing off")]
pub struct EmptyToken;

/// A WebSocket at `/publish` whose handshake is answered.
#[derive(Debug)]
pub struct Newcomer {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// What was read behind the handshake.
    pub read_buf: Vec<u8>,
    /// Where it comes from.
    pub address: IpAddr,
    /// Its place among the connections from there, kept as long as the connection.
    pub seat: ConnectionPermit,
    /// Whether its token was in the request, and right; else it must be in the first message.
    pub authorized: bool,
}

/// Takes publishers in.
pub struct Publish {
    token: Token,
    options: Options,
    clock: Clock,
    input: mpsc::Sender<Input>,
    wake: Arc<Notify>,
    home: Handle,
    stats: Arc<Stats>,
    next: AtomicU32,
    known: Arc<Semaphore>,
    tcp_strangers: Arc<Strangers>,
    ws_strangers: Arc<Strangers>,
    guesses: Guesses,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Publish").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Publish {
    /// Publishing into `input`, a channel of [`CHUNKS_MAX`]; after each send `wake` is notified. Who has shown the token is
    /// served on `home`, the ingest thread's runtime: a thread between the socket and the ring would cost each packet
    /// two switches more. Strangers are not let so near.
    ///
    /// # Errors
    /// [`EmptyToken`].
    pub fn new(
        token: &str,
        options: Options,
        clock: Clock,
        input: mpsc::Sender<Input>,
        wake: Arc<Notify>,
        home: Handle,
    ) -> Result<Arc<Self>, EmptyToken> {
        let token = Token::new(token).ok_or(EmptyToken)?;
        let permits = options.publishers_max.min(Semaphore::MAX_PERMITS);
        let strangers = || Strangers::new(options.strangers_max, options.strangers_per_address);
        Ok(Arc::new(Self {
            token,
            options,
            clock,
            input,
            wake,
            home,
            stats: Arc::default(),
            next: AtomicU32::new(0),
            known: Arc::new(Semaphore::new(permits)),
            tcp_strangers: strangers(),
            ws_strangers: strangers(),
            guesses: Guesses::new(options.wrong_tokens_per_minute),
            stop: watch::Sender::new(false),
        }))
    }

    /// What publishing counts.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    fn is_token(&self, given: &[u8]) -> bool {
        self.token.is(given)
    }

    /// Sends every publisher away and takes no more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Takes publishers from a TCP listener until [`stop`](Self::stop). It must run on a tokio runtime with
    /// I/O and time.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut stopped = pin!(self.stopped());
        let mut acceptor = Acceptor::new(&listener, NO_FILE_LEFT);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = acceptor.accept(&self.stats.accept_errors) => accepted,
                () = &mut stopped => return,
            };
            keep_alive(&stream);
            let among = Arc::clone(&self.tcp_strangers);
            tokio::spawn(Arc::clone(&self).stranger(Wire::tcp(stream), among, peer.ip()));
        }
    }

    /// Takes a publisher's WebSocket, its handshake answered. It must be called on the runtime of
    /// [`serve_tcp`](Self::serve_tcp).
    ///
    /// # Errors
    /// The socket comes back when there is no room for another publisher.
    pub fn serve_ws(self: &Arc<Self>, newcomer: Newcomer) -> Result<(), std::net::TcpStream> {
        let Newcomer { stream, read_buf, address, seat, authorized } = newcomer;
        let Options { fragments_max: fragments, controls_per_s, .. } = self.options;
        let most = Most { message_bytes: AUTH_BYTES_MAX, fragments, controls_per_s };
        let clock = self.clock.clone();
        if authorized {
            let Some(permit) = self.room() else { return Err(stream) };
            let publish = Arc::clone(self);
            self.home.spawn(async move {
                if let Some(stream) = registered(stream) {
                    let wire = Wire::publisher_ws(Shaken { stream, read_buf, seat }, most, clock);
                    publish.publisher(wire, Lines::new(), permit).await;
                }
            });
        } else if let Some(stream) = registered(stream) {
            let wire = Wire::stranger_ws(Shaken { stream, read_buf, seat }, most, clock);
            tokio::spawn(Arc::clone(self).stranger(wire, Arc::clone(&self.ws_strangers), address));
        }
        Ok(())
    }

    /// Room for another publisher.
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.known).try_acquire_owned().ok();
        count(&self.stats.limit_refused, u64::from(permit.is_none()));
        permit
    }

    /// A publisher's time with us.
    async fn publisher(self: Arc<Self>, mut wire: Wire, lines: Lines, _permit: OwnedSemaphorePermit) {
        count(&self.stats.opened, 1);
        count(&self.stats.open, 1);
        let publisher = self.next.fetch_add(1, Ordering::Relaxed);
        let (told, mut faults) = mpsc::channel(FAULTS_MAX);
        let errors = Faults { told, untold: Arc::default(), stats: Arc::clone(&self.stats) };
        let untold = Arc::clone(&errors.untold);
        let ahead = Arc::new(Semaphore::new(CHUNKS_PER_PUBLISHER));
        let mut why = Close::Shutdown;
        if self.send(Input::Opened { publisher, errors: errors.clone() }).await {
            why = self.pump(&mut wire, lines, (publisher, &ahead), errors, &mut faults).await;
            self.send(Input::Closed { publisher }).await;
        }
        if why == Close::Normal {
            why = self.tell_rest(&mut wire, &mut faults, &untold, &ahead).await;
        }
        if why != Close::Normal {
            wire.say(&json!({"type": "error", "code": why.why(), "msg": "publishing ends here"}));
        }
        timeout(FAREWELL, wire.close(why)).await.ok();
        self.stats.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells a publisher that has sent everything of its faults until the last line is taken. Gives how that ended.
    async fn tell_rest(
        &self,
        wire: &mut Wire,
        faults: &mut mpsc::Receiver<LineFault>,
        untold: &Untold,
        ahead: &Semaphore,
    ) -> Close {
        loop {
            let rest = async {
                while let Some(fault) = faults.recv().await {
                    tell(wire, &fault);
                    if wire.flush().await.is_err() {
                        return;
                    }
                }
                tell_number(wire, faults, untold);
            };
            tokio::select! {
                // The ingest thread drops its end once it has read every line.
                told = timeout(FAREWELL, rest) => {
                    if told.is_ok() || ahead.available_permits() == CHUNKS_PER_PUBLISHER {
                        return Close::Normal;
                    }
                }
                () = self.stopped() => return Close::Shutdown,
            }
        }
    }

    /// Waits until no publisher is left, which after [`stop`](Self::stop) takes a while at most.
    pub async fn gone(&self) {
        let all = self.options.publishers_max.min(u32::MAX as usize) as u32;
        timeout(2 * FAREWELL, self.known.acquire_many(all)).await.ok();
    }

    /// Moves lines in and faults out until one side ends. Gives why.
    async fn pump(
        &self,
        wire: &mut Wire,
        mut lines: Lines,
        (publisher, ahead): (u32, &Arc<Semaphore>),
        errors: Faults,
        faults: &mut mpsc::Receiver<LineFault>,
    ) -> Close {
        let mut stopped = pin!(self.stopped());
        // The line behind the token may be here already.
        while self.hand_over(&mut lines, (publisher, ahead), &errors).await {
            let received = tokio::select! {
                received = wire.receive(&mut lines, Portion::PUBLISHER) => received,
                Some(fault) = faults.recv(), if wire.has_room() => {
                    tell(wire, &fault);
                    tell_number(wire, faults, &errors.untold);
                    continue;
                }
                () = errors.untold.grown.notified(), if wire.has_room() => {
                    tell_number(wire, faults, &errors.untold);
                    continue;
                }
                () = &mut stopped => return Close::Shutdown,
            };
            match received {
                Ok(Received::Bytes) => {
                    // One that sends without a pause would keep this thread from all others.
                    if lines.is_much() || !lines.has_line() {
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Ok(Received::Room) => continue,
                Ok(Received::End) => lines.finish(),
                Ok(Received::Reset) => count(&self.stats.resets, 1),
                Err(_) => {}
            }
            // Lines may have come right before the end.
            if !self.hand_over(&mut lines, (publisher, ahead), &errors).await {
                return Close::Shutdown;
            }
            return received.err().unwrap_or(Close::Normal);
        }
        Close::Shutdown
    }

    /// Hands what is whole to the ingest thread, waiting for room. False when it is gone, or when we are told to stop.
    async fn hand_over(
        &self,
        lines: &mut Lines,
        (publisher, ahead): (u32, &Arc<Semaphore>),
        errors: &Faults,
    ) -> bool {
        // They were received now, however long they wait.
        let rx_ns = self.clock.wall_ns();
        let too_long = |line| {
            let msg = format!("longer than {LINE_BYTES_MAX} bytes: skipped");
            errors.tell(LineFault { line, msg });
        };
        let Some(whole) = lines.chunk(too_long) else { return true };
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(ahead).acquire_owned() => permit.ok(),
            () = self.stopped() => return false,
        };
        count(&self.stats.lines, whole.lines);
        count(&self.stats.bytes, whole.bytes.len() as u64);
        let (first_line, bytes) = (whole.first_line, whole.bytes);
        self.send(Input::Chunk(Chunk { publisher, first_line, rx_ns, bytes, _permit: permit })).await
    }

    /// Sends to the ingest thread and wakes it. False when it is gone, or when we are told to stop while it
    /// has no room.
    async fn send(&self, input: Input) -> bool {
        let sent = match self.input.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(input)) => tokio::select! {
                biased;
                sent = self.input.send(input) => sent.is_ok(),
                () = self.stopped() => false,
            },
        };
        if sent {
            self.wake.notify_one();
        }
        sent
    }

    /// Ready once [`stop`](Self::stop) was called.
    async fn stopped(&self) {
        // The sender lives as long as `self`, so that an error cannot be.
        self.stop.subscribe().wait_for(|stop| *stop).await.ok();
    }
}

fn tell(wire: &mut Wire, fault: &LineFault) {
    wire.say(&json!({"type": "error", "line": fault.line, "code": "bad_tick", "msg": fault.msg}));
}

/// Tells how many faults there was no room for since the last time, once those before them are told.
fn tell_number(wire: &mut Wire, others: &mpsc::Receiver<LineFault>, untold: &Untold) {
    if !others.is_empty() {
        return;
    }
    let more = untold.lines.swap(0, Ordering::Relaxed);
    if more > 0 {
        wire.say(&json!({"type": "error", "code": "bad_tick", "msg": format!("{more} more lines")}));
    }
}

/// The socket on the runtime that asks, its silence watched; `None` if it is gone.
fn registered(stream: std::net::TcpStream) -> Option<TcpStream> {
    let stream = TcpStream::from_std(stream).ok()?;
    keep_alive(&stream);
    Some(stream)
}

/// Lets the kernel find out that a silent publisher is gone: a minute of silence, then a minute of probes.
fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    // It fails only on a socket that is gone already, which the first read will tell.
    SockRef::from(stream).set_tcp_keepalive(&probes).ok();
}
