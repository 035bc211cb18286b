//! Ticks from publishers: JSON lines over TCP, or in WebSocket messages, behind a token.
//!
//! Lines are not parsed here. They go to the ingest thread in chunks, one per socket read, through one
//! bounded channel; while it is full the publishers' sockets are not read, and TCP makes the publishers
//! wait. What the ingest thread finds wrong comes back by line number and is told to the publisher, as far
//! as it reads.

mod lines;
mod wire;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::clock::{Clock, within};
use crate::protocol::close::Close;
use crate::remote::same;
use crate::socket::Acceptor;
use lines::{LINE_BYTES_MAX, Lines};
use wire::{Received, Wire};

/// How many chunks may wait for the ingest thread, from all publishers together. A chunk is 128 KiB at
/// most, so they hold 8 MiB at worst.
pub const CHUNKS_MAX: usize = 64;
/// What a publisher over TCP is told that there is no file for.
const NO_FILE_LEFT: &[u8] = b"{\"type\":\"error\",\"code\":\"limit\",\
    \"msg\":\"this machine lets the gateway open no more connections\"}\n";
/// How many faults may wait for one publisher; further ones are counted.
const FAULTS_MAX: usize = 256;
/// How many connections may be without a token at the same time.
const UNKNOWN_MAX: usize = 64;
/// The longest first line, in bytes: nobody has shown a token yet.
const AUTH_BYTES_MAX: usize = 4096;
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
}

impl Default for Options {
    fn default() -> Self {
        Self { publishers_max: 64, auth_timeout_ms: 5_000 }
    }
}

/// What publishing counts, since it began.
#[derive(Debug, Default)]
pub struct Stats {
    /// Publishers that showed the token.
    pub opened: AtomicU64,
    /// Publishers connected now.
    pub open: AtomicU64,
    /// Connections without the right token in time.
    pub auth_refused: AtomicU64,
    /// Connections turned away for room.
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
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which publisher: the number of its [`Input::Opened`].
    pub publisher: u32,
    /// The number of the first line on its connection, from 1; a token sent as a line counts as one.
    pub first_line: u64,
    /// When they were received, nanoseconds since the Unix epoch.
    pub rx_ns: u64,
    /// The lines, each ended by `\n`. They may be empty, and may be anything.
    pub bytes: Vec<u8>,
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

/// Takes publishers in.
pub struct Publish {
    token: Box<[u8]>,
    options: Options,
    clock: Clock,
    input: mpsc::Sender<Input>,
    wake: Arc<Notify>,
    home: Handle,
    stats: Arc<Stats>,
    next: AtomicU32,
    known: Arc<Semaphore>,
    unknown: Arc<Semaphore>,
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
        if token.is_empty() {
            return Err(EmptyToken);
        }
        let permits = options.publishers_max.min(Semaphore::MAX_PERMITS);
        Ok(Arc::new(Self {
            token: token.as_bytes().into(),
            options,
            clock,
            input,
            wake,
            home,
            stats: Arc::default(),
            next: AtomicU32::new(0),
            known: Arc::new(Semaphore::new(permits)),
            unknown: Arc::new(Semaphore::new(UNKNOWN_MAX)),
            stop: watch::Sender::new(false),
        }))
    }

    /// What publishing counts.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Whether this is the token. The time it takes depends on the length of `given` alone.
    pub fn accepts(&self, given: &[u8]) -> bool {
        same(given, &self.token)
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
            let (stream, _) = tokio::select! {
                accepted = acceptor.accept(&self.stats.accept_errors) => accepted,
                () = &mut stopped => return,
            };
            // Further ones are closed without a word: whoever they are, there are too many of them.
            if let Some(permit) = self.room(&self.unknown) {
                keep_alive(&stream);
                tokio::spawn(Arc::clone(&self).stranger(stream, permit));
            }
        }
    }

    /// Takes a publisher's WebSocket, its handshake answered: `read_buf` is what was read behind it, and
    /// `authorized` says that the token was in the request; else it must be the first message.
    ///
    /// # Errors
    /// The socket comes back when there is no room for another publisher.
    ///
    pub fn serve_ws(
        self: &Arc<Self>,
        stream: std::net::TcpStream,
        read_buf: Vec<u8>,
        authorized: bool,
    ) -> Result<(), std::net::TcpStream> {
        let room = self.room(if authorized { &self.known } else { &self.unknown });
        let permit = match room {
            Some(permit) if authorized => Permit::Known(permit),
            Some(permit) => Permit::Unknown(permit),
            None => return Err(stream),
        };
        let publish = Arc::clone(self);
        self.home.spawn(async move {
            // It fails only for a socket that is gone.
            if let Ok(stream) = TcpStream::from_std(stream) {
                keep_alive(&stream);
                let mut wire = Wire::ws(stream, read_buf).await;
                let mut lines = Lines::new();
                match publish.admit(permit, &mut wire, &mut lines).await {
                    Ok(permit) => publish.publisher(wire, lines, permit).await,
                    Err((why, msg)) => send_away(wire, why, &msg).await,
                }
            }
        });
        Ok(())
    }

    fn room(&self, of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(of).try_acquire_owned().ok();
        count(&self.stats.limit_refused, u64::from(permit.is_none()));
        permit
    }

    /// One connection over TCP, until it has shown the token.
    async fn stranger(self: Arc<Self>, stream: TcpStream, waiting: OwnedSemaphorePermit) {
        let mut wire = Wire::tcp(stream);
        let mut lines = Lines::new();
        let moved = match self.admit(Permit::Unknown(waiting), &mut wire, &mut lines).await {
            Ok(permit) => wire.move_to(&self.home).map(|wire| (wire, permit)),
            Err((why, msg)) => return send_away(wire, why, &msg).await,
        };
        // It fails only for a socket that is gone.
        if let Ok((wire, permit)) = moved {
            let publish = Arc::clone(&self);
            self.home.spawn(async move { publish.publisher(wire, lines, permit).await });
        }
    }

    /// Waits for the token in the first line, and acknowledges it.
    async fn admit(
        &self,
        permit: Permit,
        wire: &mut Wire,
        lines: &mut Lines,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let _waiting = match permit {
            Permit::Known(permit) => return Ok(permit),
            Permit::Unknown(waiting) => waiting,
        };
        let limit_ms = self.options.auth_timeout_ms;
        let checked = match within(Duration::from_millis(limit_ms), first_line(wire, lines)).await {
            Some(line) => line.and_then(|line| self.check(&line)),
            None => Err(format!("no token within {limit_ms} ms")),
        };
        if let Err(msg) = checked {
            count(&self.stats.auth_refused, 1);
            return Err((Close::Auth, msg));
        }
        let Some(permit) = self.room(&self.known) else {
            return Err((Close::Limit, format!("{} publishers are connected", self.options.publishers_max)));
        };
        wire.say(&json!({"type": "ack", "op": "auth"}));
        Ok(permit)
    }

    fn check(&self, line: &[u8]) -> Result<(), String> {
        let auth: Auth = serde_json::from_slice(line)
            .map_err(|_| "the first line must be {\"op\":\"auth\",\"token\":\"…\"}".to_owned())?;
        if auth.op != "auth" {
            return Err("the first `op` must be auth".to_owned());
        }
        if !self.accepts(auth.token.as_bytes()) {
            return Err("`token` is not the right one".to_owned());
        }
        Ok(())
    }

    /// A publisher's time with us.
    async fn publisher(&self, mut wire: Wire, lines: Lines, _permit: OwnedSemaphorePermit) {
        count(&self.stats.opened, 1);
        count(&self.stats.open, 1);
        let publisher = self.next.fetch_add(1, Ordering::Relaxed);
        let (told, mut faults) = mpsc::channel(FAULTS_MAX);
        let errors = Faults { told, untold: Arc::default(), stats: Arc::clone(&self.stats) };
        let untold = Arc::clone(&errors.untold);
        let mut why = Close::Shutdown;
        if self.send(Input::Opened { publisher, errors: errors.clone() }).await {
            why = self.pump(&mut wire, lines, publisher, errors, &mut faults).await;
            self.send(Input::Closed { publisher }).await;
        }
        if why == Close::Normal {
            // The ingest thread drops its end once it has read every line.
            let rest = async {
                while let Some(fault) = faults.recv().await {
                    tell(&mut wire, &fault);
                    if wire.flush().await.is_err() {
                        return;
                    }
                }
                tell_number(&mut wire, &faults, &untold);
            };
            timeout(FAREWELL, rest).await.ok();
        } else {
            wire.say(&json!({"type": "error", "code": why.why(), "msg": "publishing ends here"}));
        }
        timeout(FAREWELL, wire.close(why)).await.ok();
        self.stats.open.fetch_sub(1, Ordering::Relaxed);
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
        publisher: u32,
        errors: Faults,
        faults: &mut mpsc::Receiver<LineFault>,
    ) -> Close {
        let mut stopped = pin!(self.stopped());
        // The line behind the token may be here already.
        while self.hand_over(&mut lines, publisher, &errors).await {
            let received = tokio::select! {
                received = wire.receive(&mut lines) => received,
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
                Ok(Received::Bytes) => continue,
                Ok(Received::End) => lines.finish(),
                Ok(Received::Reset) => count(&self.stats.resets, 1),
                Err(_) => {}
            }
            // Lines may have come right before the end.
            self.hand_over(&mut lines, publisher, &errors).await;
            return received.err().unwrap_or(Close::Normal);
        }
        Close::Shutdown
    }

    /// Hands what is whole to the ingest thread, waiting for room. False when it is gone.
    async fn hand_over(&self, lines: &mut Lines, publisher: u32, errors: &Faults) -> bool {
        let rx_ns = self.clock.wall_ns();
        let too_long = |line| {
            let msg = format!("longer than {LINE_BYTES_MAX} bytes: skipped");
            errors.tell(LineFault { line, msg });
        };
        let Some(whole) = lines.chunk(too_long) else { return true };
        count(&self.stats.lines, whole.lines);
        count(&self.stats.bytes, whole.bytes.len() as u64);
        let (first_line, bytes) = (whole.first_line, whole.bytes);
        self.send(Input::Chunk(Chunk { publisher, first_line, rx_ns, bytes })).await
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

/// The place that a connection holds.
enum Permit {
    /// Among publishers.
    Known(OwnedSemaphorePermit),
    /// Among those that have shown no token.
    Unknown(OwnedSemaphorePermit),
}

/// Why a connection is not let in, for programs and for people.
type Refusal = (Close, String);

/// The first line that a connection over TCP sends.
#[derive(Deserialize)]
struct Auth {
    op: String,
    token: String,
}

async fn first_line(wire: &mut Wire, lines: &mut Lines) -> Result<Vec<u8>, String> {
    loop {
        if let Some(line) = lines.line() {
            return Ok(line);
        }
        if lines.buffer.len() > AUTH_BYTES_MAX {
            return Err(format!("the first line is longer than {AUTH_BYTES_MAX} bytes"));
        }
        match wire.receive(lines).await {
            Ok(Received::Bytes) => {}
            Ok(_) | Err(_) => return Err("closed before a token came".to_owned()),
        }
    }
}

async fn send_away(mut wire: Wire, why: Close, msg: &str) {
    wire.say(&json!({"type": "error", "code": why.why(), "msg": msg}));
    timeout(FAREWELL, wire.close(why)).await.ok();
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

/// Lets the kernel find out that a silent publisher is gone: a minute of silence, then a minute of probes.
fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    // It fails only on a socket that is gone already, which the first read will tell.
    SockRef::from(stream).set_tcp_keepalive(&probes).ok();
}
