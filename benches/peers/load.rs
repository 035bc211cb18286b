//! The load: subscribers and the publisher, in one loop on one thread that never sleeps if it has its own
//! core. No scheduler therefore interferes between the two, and a server's `send` never pays for waking its
//! client, as it would not for a client on another machine. The publisher is served between reads; its delay
//! is a few reads at most, and is measured.
//!
//! The loop is open: tick n is due at start + n / rate regardless of the server, and carries that time as
//! `ts`. Latency is arrival − due, so that a server cannot hide a delay by blocking the publisher.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use memchr::memmem::{self, Finder};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::server::Used;
use crate::wire::{self, Frame};

/// Most concurrent handshakes.
const OPENING_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
const SCRATCH_BYTES: usize = 256 * 1024;
/// Sockets that are read between two turns of the publisher.
const READS: usize = 4;
/// Most bytes of ticks queued for the publisher's socket; no further ones are created meanwhile.
const PENDING_BYTES: usize = 64 * 1024;

/// Wall time without jumps by clock corrections.
#[derive(Clone, Copy)]
struct Clock {
    base_us: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { base_us: base.as_micros() as u64, start: Instant::now() }
    }

    #[inline]
    fn now_us(&self) -> u64 {
        self.base_us + self.start.elapsed().as_micros() as u64
    }
}

/// The subscriptions, and the ticks.
pub(crate) struct Plan {
    /// The symbols of each connection.
    pub(crate) wants: Vec<Vec<u32>>,
    /// The symbols of the ticks, repeated.
    pub(crate) sequence: Vec<u32>,
    /// Fields of the `subscribe` besides `symbols`.
    pub(crate) terms: &'static str,
    pub(crate) quotes: bool,
}

impl Plan {
    /// Number of connections per symbol.
    fn holders(&self) -> Vec<u64> {
        let most = self.wants.iter().flatten().chain(&self.sequence).max().map_or(0, |max| *max as usize + 1);
        let mut holders = vec![0; most];
        self.wants.iter().flatten().for_each(|symbol| holders[*symbol as usize] += 1);
        holders
    }

    /// Average number of deliveries per tick.
    pub(crate) fn deliveries_per_tick(&self) -> f64 {
        let holders = self.holders();
        let sum: u64 = self.sequence.iter().map(|symbol| holders[*symbol as usize]).sum();
        sum as f64 / self.sequence.len() as f64
    }

    fn request(&self, conn: usize) -> Vec<u8> {
        let symbols: Vec<_> = self.wants[conn].iter().map(|symbol| format!(r#""bench:S{symbol}""#)).collect();
        let text = format!(r#"{{"op":"subscribe",{},"symbols":[{}]}}"#, self.terms, symbols.join(","));
        let mut frame = Vec::new();
        wire::put(wire::TEXT, true, text.as_bytes(), &mut frame);
        frame
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Subscribing,
    Ready,
}

struct Conn {
    stream: TcpStream,
    phase: Phase,
    /// Start of an incomplete frame.
    partial: Vec<u8>,
}

/// Result for the ticks that were due in the window.
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// Delay until the publisher's socket accepted the ticks.
    pub(crate) late_us: Histogram<u64>,
    /// Share of time in which the load was busy; near 1, it is the bottleneck.
    pub(crate) busy: f64,
    /// CPU time of the server from the start of the window until the last delivery.
    pub(crate) cpu: Duration,
    /// Share of the cores of server and load that other processes used meanwhile.
    pub(crate) by_others: [f64; 2],
    /// Message of the server to the publisher at the end.
    pub(crate) told: String,
}

/// The publishing rate and its phases.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Ticks per second.
    pub(crate) rate: f64,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// How long to wait for late deliveries.
    pub(crate) drain: Duration,
}

pub(crate) struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    conns: Vec<Conn>,
    clock: Clock,
    scratch: Vec<u8>,
    ready: usize,
    ts: Finder<'static>,
    /// Whether the load has its own core.
    spin: bool,
    /// The window, as due times.
    from_us: u64,
    to_us: u64,
    delivered: u64,
    latency_us: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

impl<'a> Load<'a> {
    /// Opens all connections and subscribes.
    pub(crate) fn open(plan: &'a Plan, address: SocketAddr, spin: bool) -> anyhow::Result<Self> {
        let mut load = Self {
            plan,
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            conns: Vec::with_capacity(plan.wants.len()),
            clock: Clock::new(),
            scratch: vec![0; SCRATCH_BYTES],
            ready: 0,
            ts: Finder::new(br#""ts":"#),
            spin,
            from_us: u64::MAX,
            to_us: u64::MAX,
            delivered: 0,
            latency_us: histogram(),
        };
        let start = Instant::now();
        while load.ready < plan.wants.len() {
            while load.conns.len() < plan.wants.len() && load.conns.len() - load.ready < OPENING_MAX {
                let mut stream = TcpStream::connect(address)?;
                let token = Token(load.conns.len());
                load.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                load.conns.push(Conn { stream, phase: Phase::Connecting, partial: Vec::new() });
            }
            load.turn(Duration::from_millis(100), &mut |_| Ok(()))?;
            ensure!(start.elapsed() < PATIENCE, "{} of {} subscribed in time", load.ready, plan.wants.len());
        }
        Ok(load)
    }

    /// Processes pending events; true if there were any. `between` runs after every few reads.
    fn turn(
        &mut self,
        wait: Duration,
        between: &mut dyn FnMut(u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for (count, event) in events.iter().enumerate() {
            self.hear(event.token().0)?;
            if count % READS == READS - 1 {
                between(self.clock.now_us())?;
            }
        }
        let any = !events.is_empty();
        self.events = events;
        Ok(any)
    }

    fn hear(&mut self, at: usize) -> anyhow::Result<()> {
        if self.conns[at].phase == Phase::Connecting {
            let conn = &mut self.conns[at];
            if let Some(error) = conn.stream.take_error()? {
                bail!("connection {at}: {error}");
            }
            if conn.stream.peer_addr().is_err() {
                return Ok(());
            }
            conn.stream.set_nodelay(true)?;
            conn.phase = Phase::Upgrading;
            say(&mut conn.stream, wire::REQUEST.as_bytes())?;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            match self.conns[at].stream.read(&mut scratch) {
                Ok(0) => bail!("connection {at} was closed"),
                Ok(n) => {
                    let now_us = self.clock.now_us();
                    self.take(at, &scratch[..n], now_us)?;
                    if n < scratch.len() {
                        // Later data is another event.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).with_context(|| format!("connection {at}")),
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    fn take(&mut self, at: usize, bytes: &[u8], now_us: u64) -> anyhow::Result<()> {
        let mut joined = std::mem::take(&mut self.conns[at].partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        if self.conns[at].phase == Phase::Upgrading {
            let Some(len) = wire::head_len(rest) else {
                self.conns[at].partial = rest.to_vec();
                return Ok(());
            };
            let head = String::from_utf8_lossy(&rest[..len]);
            ensure!(head.starts_with("HTTP/1.1 101"), "connection {at}: {head}");
            rest = &rest[len..];
            self.conns[at].phase = Phase::Subscribing;
            say(&mut self.conns[at].stream, &self.plan.request(at))?;
        }
        while let Some(frame) = Frame::first(rest) {
            rest = frame.behind;
            match frame.opcode {
                wire::TEXT => self.text(at, frame.payload, now_us)?,
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::put(wire::PONG, true, frame.payload, &mut pong);
                    say(&mut self.conns[at].stream, &pong)?;
                }
                wire::CLOSE => bail!("connection {at} was told to go: {:?}", frame.payload),
                _ => {}
            }
        }
        self.conns[at].partial.extend_from_slice(rest);
        Ok(())
    }

    #[inline]
    fn text(&mut self, at: usize, text: &[u8], now_us: u64) -> anyhow::Result<()> {
        if let Some(ts_us) = wire::number_after(&self.ts, text) {
            if (self.from_us..self.to_us).contains(&ts_us) {
                self.delivered += 1;
                // The histogram grows as needed, because clamped values would look good.
                self.latency_us.record(now_us.saturating_sub(ts_us))?;
            }
        } else if self.conns[at].phase == Phase::Subscribing
            && memmem::find(text, br#""type":"ack""#).is_some()
        {
            let text = String::from_utf8_lossy(text);
            ensure!(!text.contains(r#""rejected":[{"#), "connection {at}: {text}");
            self.conns[at].phase = Phase::Ready;
            self.ready += 1;
        }
        Ok(())
    }

    /// Publishes at a rate and receives. `used` is called at the start and the end.
    pub(crate) fn run(
        mut self,
        publish: SocketAddr,
        pace: Pace,
        mut used: impl FnMut() -> anyhow::Result<Used>,
    ) -> anyhow::Result<Outcome> {
        let mut publisher = Publisher::open(publish)?;
        let holders = self.plan.holders();
        let start_us = self.clock.now_us() + 20_000;
        self.from_us = start_us + pace.warm_up.as_micros() as u64;
        self.to_us = self.from_us + pace.window.as_micros() as u64;
        let last_us = self.to_us + pace.drain.as_micros() as u64;
        publisher.start(self.plan, &holders, start_us, pace.rate, self.from_us..self.to_us);
        let (mut used_before, mut idle_us, mut idle_since) = (None, 0, None);
        let after = loop {
            let now_us = self.clock.now_us();
            let in_window = (self.from_us..self.to_us).contains(&now_us);
            if let Some(since_us) = idle_since.take()
                && in_window
            {
                idle_us += now_us - since_us;
            }
            if now_us >= self.from_us && used_before.is_none() {
                used_before = Some(used()?);
            }
            let wrote = publisher.turn(now_us)?;
            if publisher.is_done() && now_us >= self.to_us && self.delivered >= publisher.expected
                || now_us >= last_us
            {
                break used()?;
            }
            let wait = if self.spin || wrote { Duration::ZERO } else { publisher.sleep(now_us) };
            let read = self.turn(wait, &mut |now_us| publisher.turn(now_us).map(|_| ()))?;
            idle_since = (!read && !wrote).then_some(now_us);
        };
        let before = used_before.unwrap_or(after);
        let window_us = pace.window.as_micros() as f64;
        Ok(Outcome {
            seconds: pace.window.as_secs_f64(),
            // Ticks that were not sent in time count as well.
            expected: publisher.expected_of_all(),
            delivered: self.delivered,
            latency_us: self.latency_us,
            busy: 1.0 - (idle_us as f64 / window_us).min(1.0),
            cpu: after.server.saturating_sub(before.server),
            by_others: after.by_others(&before),
            told: publisher.close(),
            late_us: publisher.late_us,
        })
    }
}

/// Writes a short message, which fits in a socket that is being read.
fn say(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    let n = stream.write(bytes)?;
    ensure!(n == bytes.len(), "a socket took {n} of {} bytes", bytes.len());
    Ok(())
}

struct Publisher<'a> {
    stream: std::net::TcpStream,
    sequence: &'a [u32],
    quotes: bool,
    holders: &'a [u64],
    start_us: u64,
    rate: f64,
    window: std::ops::Range<u64>,
    /// The next tick, and its due time.
    next: u64,
    due_us: u64,
    /// Lines that the socket has not accepted yet.
    pending: Vec<u8>,
    written: usize,
    /// End offset and due time of each of their ticks.
    ends: VecDeque<(usize, u64)>,
    expected: u64,
    late_us: Histogram<u64>,
}

impl<'a> Publisher<'a> {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = std::net::TcpStream::connect(address).context("the publisher")?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("{{\"op\":\"auth\",\"token\":\"{}\"}}\n", wire::TOKEN).as_bytes())?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            sequence: &[],
            quotes: false,
            holders: &[],
            start_us: 0,
            rate: 0.0,
            window: 0..0,
            next: 0,
            due_us: u64::MAX,
            pending: Vec::with_capacity(2 * PENDING_BYTES),
            written: 0,
            ends: VecDeque::new(),
            expected: 0,
            late_us: histogram(),
        })
    }

    fn start(
        &mut self,
        plan: &'a Plan,
        holders: &'a [u64],
        start_us: u64,
        rate: f64,
        window: std::ops::Range<u64>,
    ) {
        (self.sequence, self.quotes, self.holders) = (&plan.sequence, plan.quotes, holders);
        (self.start_us, self.rate, self.window) = (start_us, rate, window);
        self.due_us = self.due(0);
    }

    fn due(&self, tick: u64) -> u64 {
        self.start_us + (tick as f64 * 1e6 / self.rate) as u64
    }

    fn symbol(&self, tick: u64) -> u32 {
        self.sequence[(tick % self.sequence.len() as u64) as usize]
    }

    /// Sends the ticks that are due; true if there were any.
    fn turn(&mut self, now_us: u64) -> anyhow::Result<bool> {
        while self.due_us <= now_us && self.due_us < self.window.end && self.pending.len() < PENDING_BYTES {
            let (symbol, due_us, cents) = (self.symbol(self.next), self.due_us, self.next % 1_000);
            if self.quotes {
                writeln!(
                    self.pending,
                    r#"{{"type":"quote","symbol":"bench:S{symbol}","bid":"101.{cents:03}","bid_size":"0.5","ask":"102.{cents:03}","ask_size":"0.5","ts":{due_us}}}"#
                )?;
            } else {
                writeln!(
                    self.pending,
                    r#"{{"type":"trade","symbol":"bench:S{symbol}","price":"101.{cents:03}","size":"0.5","ts":{due_us}}}"#
                )?;
            }
            self.ends.push_back((self.pending.len(), due_us));
            if self.window.contains(&due_us) {
                self.expected += self.holders[symbol as usize];
            }
            self.next += 1;
            self.due_us = self.due(self.next);
        }
        if self.pending.is_empty() {
            return Ok(false);
        }
        match self.stream.write(&self.pending[self.written..]) {
            Ok(n) => self.written += n,
            Err(error) if wire::not_now(&error) => return Ok(false),
            Err(error) => return Err(error).context("the publisher"),
        }
        while let Some((_, due_us)) = self.ends.pop_front_if(|(end, _)| *end <= self.written) {
            if self.window.contains(&due_us) {
                self.late_us.record(now_us.saturating_sub(due_us))?;
            }
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        Ok(true)
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.due_us >= self.window.end
    }

    /// Deliveries of all ticks of the window, sent or not.
    fn expected_of_all(&self) -> u64 {
        let unsent = (self.next..).take_while(|tick| self.due(*tick) < self.window.end);
        let unsent = unsent.filter(|tick| self.window.contains(&self.due(*tick)));
        self.expected + unsent.map(|tick| self.holders[self.symbol(tick) as usize]).sum::<u64>()
    }

    /// Time until the next tick, if the load may sleep.
    fn sleep(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.due_us.saturating_sub(now_us).min(1_000))
    }

    /// Shuts down the write side, and reads the last message of the server.
    fn close(&mut self) -> String {
        let mut told = Vec::new();
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(500)));
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        // Data received before an error counts.
        let _ = (&self.stream).take(1 << 20).read_to_end(&mut told);
        String::from_utf8_lossy(&told).into_owned()
    }
}
