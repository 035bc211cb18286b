//! Ticks from publishers: JSON lines over TCP, or in WebSocket messages, after authentication with a token.
//!
//! Lines are not parsed here. They go to the ingest thread in chunks, one per socket read, through one
//! bounded channel; while it is full the publishers' sockets are not read, so TCP applies back-pressure to
//! the publishers. The ingest thread reports faults, which are sent to the publisher by line number, as long
//! as it reads them.
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
pub use guesses::TokenVerdict;
use lines::{LINE_BYTES_MAX, Lines};
pub use strangers::PARTINGS_MAX;
use strangers::Strangers;
use wire::{Portion, Received, Shaken, Wire};

/// Maximum number of chunks of all publishers that may wait for the ingest thread.
pub const CHUNKS_MAX: usize = 64;
/// Maximum number of chunks of one publisher in the channel or waiting on the ingest thread; its socket is
/// not read while there are that many. A chunk has at most 128 KiB.
pub const CHUNKS_PER_PUBLISHER: usize = 2;
/// The refusal of a TCP publisher when the process has no file descriptor left.
const NO_FILE_LEFT: &[u8] = b"{\"type\":\"error\",\"code\":\"limit\",\
    \"msg\":\"this machine lets the gateway open no more connections\"}\n";
/// Maximum number of faults that may wait for one publisher; further ones are only counted.
const FAULTS_MAX: usize = 256;
/// How long a publisher that has sent everything may take to read its last faults, and one that is
/// disconnected to read the reason.
const FAREWELL: Duration = Duration::from_secs(5);

/// Options of publishing.
#[derive(Clone, Copy, Debug)]
pub struct PublishOptions {
    /// Maximum number of concurrent publishers, over TCP and WebSocket together. Each has a buffer of 128
    /// KiB. Default 64.
    pub publishers_max: usize,
    /// How long a connection may take to show the token, in milliseconds. Default 5000.
    pub auth_timeout_ms: u64,
    /// Maximum number of concurrent connections without the token on each listener: TCP, and WebSocket.
    /// Default 256.
    pub strangers_max: usize,
    /// Maximum number of those from one address. Default 64.
    pub strangers_per_address: usize,
    /// Wrong tokens allowed a minute from one address, and as many at once. Default 10.
    pub wrong_tokens_per_minute: u32,
    /// Maximum number of fragments of a WebSocket message. Default 64.
    pub fragments_max: u32,
    /// Maximum number of WebSocket control frames a second. Default 50.
    pub controls_per_s: u32,
}

impl Default for PublishOptions {
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

/// Counters of publishing, since the start.
#[derive(Debug, Default)]
pub struct PublishStats {
    /// Publishers that showed the token.
    pub opened: AtomicU64,
    /// Publishers connected now.
    pub open: AtomicU64,
    /// Connections without the token now.
    pub waiting: AtomicU64,
    /// Connections that ended without the right token.
    pub auth_refused: AtomicU64,
    /// Wrong tokens, including those in the headers of handshakes.
    pub wrong_tokens: AtomicU64,
    /// Tokens not compared because too many wrong ones came from their address.
    pub tokens_unread: AtomicU64,
    /// Connections without the token that were evicted for a new one.
    pub evicted: AtomicU64,
    /// Publishers refused because `publishers_max` were connected.
    pub limit_refused: AtomicU64,
    /// Failed accepts.
    pub accept_errors: AtomicU64,
    /// Publishers whose connection was reset; lines still in the kernel's buffers are lost. A publisher that
    /// closes its socket without reading the answers causes this itself.
    pub resets: AtomicU64,
    /// Lines passed to the ingest thread, empty ones included.
    pub lines: AtomicU64,
    /// Bytes of those lines.
    pub bytes: AtomicU64,
    /// Faulty lines: too long, or rejected by the ingest thread.
    pub faults: AtomicU64,
    /// Faults that were not sent to their publisher one by one, because it did not read.
    pub faults_untold: AtomicU64,
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Whole lines of one publisher.
#[derive(Debug)]
pub struct Chunk {
    /// The publisher: the number of its [`PublishInput::Opened`].
    pub publisher: u32,
    /// The number of the first line on its connection, from 1; a token sent as a line counts as one.
    pub first_line: u64,
    /// When the lines were received, in nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// The lines, each ended by `\n`. They may be empty and are not validated.
    pub bytes: Vec<u8>,
    /// One of [`CHUNKS_PER_PUBLISHER`] permits, released when the chunk is dropped.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
}

/// Input of the ingest thread. The inputs of one publisher arrive in order: opened, chunks, closed.
#[derive(Debug)]
pub enum PublishInput {
    /// A publisher has connected.
    Opened {
        /// Its number, unique within a run.
        publisher: u32,
        /// The channel for its faults; drop it when the publisher is closed.
        errors: Faults,
    },
    /// It sent lines.
    Chunk(Chunk),
    /// It has disconnected; no more input follows.
    Closed {
        /// Its number.
        publisher: u32,
    },
}

/// A line that is not a valid tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Its number on the connection.
    pub line: u64,
    /// The fault, with the name of the field.
    pub msg: String,
}

/// Faults that did not fit into the channel.
#[derive(Debug, Default)]
struct Untold {
    lines: AtomicU64,
    /// Notified after `lines` has grown, so that the last fault is reported too.
    grown: Notify,
}

/// The channel for faults from the ingest thread to one publisher.
#[derive(Clone, Debug)]
pub struct Faults {
    told: mpsc::Sender<LineFault>,
    untold: Arc<Untold>,
    stats: Arc<PublishStats>,
}

impl Faults {
    /// Sends a fault to the publisher. Never waits: while the channel is full, faults are only counted, and
    /// the publisher is sent their number.
    pub fn tell(&self, fault: LineFault) {
        count(&self.stats.faults, 1);
        if self.told.try_send(fault).is_err() {
            count(&self.untold.lines, 1);
            self.untold.grown.notify_one();
            count(&self.stats.faults_untold, 1);
        }
    }
}

/// The error for an empty publishing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the publishing token is empty: leave it out to turn publishing off")]
pub struct EmptyToken;

/// A WebSocket at `/publish` whose handshake is complete.
#[derive(Debug)]
pub struct Newcomer {
    /// The socket.
    pub stream: std::net::TcpStream,
    /// Bytes read after the handshake.
    pub read_buf: Vec<u8>,
    /// The address of the peer.
    pub address: IpAddr,
    /// Its permit among the connections from this address, held as long as the connection.
    pub seat: ConnectionPermit,
    /// True if the request contained the right token; otherwise the first message must.
    pub authorized: bool,
}

/// Accepts and serves publishers.
pub struct Publish {
    token: Token,
    options: PublishOptions,
    clock: Clock,
    input: mpsc::Sender<PublishInput>,
    wake: Arc<Notify>,
    home: Handle,
    stats: Arc<PublishStats>,
    next: AtomicU32,
    known: Arc<Semaphore>,
    tcp_strangers: Arc<Strangers>,
    ws_strangers: Arc<Strangers>,
    guesses: Guesses,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token must not appear in logs.
        f.debug_struct("Publish").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Publish {
    /// Returns a publisher service that sends to `input`, a channel of [`CHUNKS_MAX`], and notifies `wake`
    /// after each send. Authenticated publishers are served on `home`, the runtime of the ingest thread:
    /// another thread between the socket and the ring would cost two more context switches per packet.
    /// Connections without the token do not run there.
    ///
    /// # Errors
    /// [`EmptyToken`].
    pub fn new(
        token: &str,
        options: PublishOptions,
        clock: Clock,
        input: mpsc::Sender<PublishInput>,
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

    /// Returns the counters.
    pub fn stats(&self) -> Arc<PublishStats> {
        Arc::clone(&self.stats)
    }

    fn is_token(&self, given: &[u8]) -> bool {
        self.token.is(given)
    }

    /// Disconnects all publishers and accepts no more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Accepts publishers from a TCP listener until [`stop`](Self::stop). It must run on a tokio runtime with
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

    /// Serves a publisher's WebSocket after its handshake. It must be called on the runtime of
    /// [`serve_tcp`](Self::serve_tcp).
    ///
    /// # Errors
    /// Returns the socket if there is no room for another publisher.
    pub fn serve_ws(self: &Arc<Self>, newcomer: Newcomer) -> Result<(), std::net::TcpStream> {
        let Newcomer { stream, read_buf, address, seat, authorized } = newcomer;
        let PublishOptions { fragments_max: fragments, controls_per_s, .. } = self.options;
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

    /// Returns a permit for another publisher, if there is room.
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.known).try_acquire_owned().ok();
        count(&self.stats.limit_refused, u64::from(permit.is_none()));
        permit
    }

    /// Serves an authenticated publisher until its connection ends.
    async fn publisher(self: Arc<Self>, mut wire: Wire, lines: Lines, _permit: OwnedSemaphorePermit) {
        count(&self.stats.opened, 1);
        count(&self.stats.open, 1);
        let publisher = self.next.fetch_add(1, Ordering::Relaxed);
        let (told, mut faults) = mpsc::channel(FAULTS_MAX);
        let errors = Faults { told, untold: Arc::default(), stats: Arc::clone(&self.stats) };
        let untold = Arc::clone(&errors.untold);
        let ahead = Arc::new(Semaphore::new(CHUNKS_PER_PUBLISHER));
        let mut why = Close::Shutdown;
        if self.send(PublishInput::Opened { publisher, errors: errors.clone() }).await {
            why = self.pump(&mut wire, lines, (publisher, &ahead), errors, &mut faults).await;
            self.send(PublishInput::Closed { publisher }).await;
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

    /// Sends the remaining faults to a publisher that has sent everything, until its last line is taken.
    /// Returns the reason to close.
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
                // The ingest thread drops its sender once it has read every line.
                told = timeout(FAREWELL, rest) => {
                    if told.is_ok() || ahead.available_permits() == CHUNKS_PER_PUBLISHER {
                        return Close::Normal;
                    }
                }
                () = self.stopped() => return Close::Shutdown,
            }
        }
    }

    /// Waits until all publishers have disconnected, for at most twice `FAREWELL`. Call it after
    /// [`stop`](Self::stop).
    pub async fn gone(&self) {
        let all = self.options.publishers_max.min(u32::MAX as usize) as u32;
        timeout(2 * FAREWELL, self.known.acquire_many(all)).await.ok();
    }

    /// Moves lines in and faults out until one side ends. Returns the reason to close.
    async fn pump(
        &self,
        wire: &mut Wire,
        mut lines: Lines,
        (publisher, ahead): (u32, &Arc<Semaphore>),
        errors: Faults,
        faults: &mut mpsc::Receiver<LineFault>,
    ) -> Close {
        let mut stopped = pin!(self.stopped());
        // The line after the token may be buffered already.
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
                    // A publisher that sends without a pause must not occupy this thread alone.
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
            // Lines may have arrived right before the end.
            if !self.hand_over(&mut lines, (publisher, ahead), &errors).await {
                return Close::Shutdown;
            }
            return received.err().unwrap_or(Close::Normal);
        }
        Close::Shutdown
    }

    /// Sends the whole lines to the ingest thread, waiting for room. Returns false if the ingest thread has
    /// ended, or on [`stop`](Self::stop).
    async fn hand_over(
        &self,
        lines: &mut Lines,
        (publisher, ahead): (u32, &Arc<Semaphore>),
        errors: &Faults,
    ) -> bool {
        // The receive time is now, however long the lines wait for room.
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
        self.send(PublishInput::Chunk(Chunk { publisher, first_line, rx_ns, bytes, _permit: permit })).await
    }

    /// Sends to the ingest thread and wakes it. Returns false if it has ended, or on [`stop`](Self::stop)
    /// while the channel is full.
    async fn send(&self, input: PublishInput) -> bool {
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

    /// Completes once [`stop`](Self::stop) was called.
    async fn stopped(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        self.stop.subscribe().wait_for(|stop| *stop).await.ok();
    }
}

fn tell(wire: &mut Wire, fault: &LineFault) {
    wire.say(&json!({"type": "error", "line": fault.line, "code": "bad_tick", "msg": fault.msg}));
}

/// Reports the number of faults that did not fit since the last report, once those before them are sent.
fn tell_number(wire: &mut Wire, others: &mpsc::Receiver<LineFault>, untold: &Untold) {
    if !others.is_empty() {
        return;
    }
    let more = untold.lines.swap(0, Ordering::Relaxed);
    if more > 0 {
        wire.say(&json!({"type": "error", "code": "bad_tick", "msg": format!("{more} more lines")}));
    }
}

/// Registers the socket with the current runtime and enables keep-alive; `None` if the socket is closed.
fn registered(stream: std::net::TcpStream) -> Option<TcpStream> {
    let stream = TcpStream::from_std(stream).ok()?;
    keep_alive(&stream);
    Some(stream)
}

/// Lets the kernel detect a dead publisher: probes start after 60 s of silence and fail after another 60 s.
fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    // Fails only on a socket that is already closed, which the next read reports.
    SockRef::from(stream).set_tcp_keepalive(&probes).ok();
}
