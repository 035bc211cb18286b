//! Do clients that stop reading delay those that read? The real binary runs on one core, its clients on the
//! others:
//!
//! 1. readers of all symbols;
//! 2. the same readers, and clients that subscribe to all symbols and never read.
//!
//! It measures `rx` → arrival. In a replay `rx` is when the frame was due, so that a gateway cannot hide a
//! delay (an open loop). Each reader checks the accounting rule on each message. `make bench-slow` runs it;
//! environment:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `TICKFAN_BENCH_SECONDS` | duration of a phase, seconds (5) |
//! | `TICKFAN_BENCH_ROUNDS` | repetitions of both phases; medians are shown (2) |
//! | `TICKFAN_BENCH_CLIENTS`, `TICKFAN_BENCH_STALLED` | readers (900), and clients that never read (1/9) |
//! | `TICKFAN_BENCH_SPEED` | speed of the replay (2: about 200,000 deliveries per second) |
//! | `TICKFAN_CAPTURE` | the replayed capture (`feeds/coinbase.zst`) |
//! | `STRICT` | 1: the ratio of the p99s also decides the exit code |
//! | `TICKFAN_BENCH_BARE` | 1: no thresholds and no ladder, for gateways that have none |

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use memchr::memmem;
use rustc_hash::FxHashMap;
use tickfan::cli::watch::message::Message;
use tickfan::model::tick::Channel;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::sleep;

/// Most bytes of ticks queued for one client.
const OUTBOX_BYTES: u64 = 262_144;
/// Most memory of a stalled client besides its outbox, bytes.
const BESIDES_BYTES: u64 = 64 * 1024;
/// Highest acceptable ratio of the readers' latency with stalled clients to that without.
const RATIO_MAX: f64 = 1.2;
/// Receive buffer of a stalled client, bytes. It is small, because a client is not stalled while the kernel
/// accepts data for it.
const STALLED_RECV_BYTES: u32 = 4_096;
/// Pause before the first phase, for snapshots, caches and the pages of the allocator.
const SETTLE: Duration = Duration::from_secs(1);
/// Time limit for steps that are not measured.
const PATIENCE: Duration = Duration::from_secs(60);
const SCRATCH_BYTES: usize = 64 * 1024;

// ---- what is asked for --------------------------------------------------------------------------------

struct Options {
    phase: Duration,
    rounds: usize,
    readers: usize,
    stalled: usize,
    speed: String,
    capture: String,
    strict: bool,
    bare: bool,
}

impl Options {
    fn of_environment() -> anyhow::Result<Self> {
        let readers = number("TICKFAN_BENCH_CLIENTS", 900)? as usize;
        let options = Self {
            phase: Duration::from_secs(number("TICKFAN_BENCH_SECONDS", 5)?),
            rounds: number("TICKFAN_BENCH_ROUNDS", 2)? as usize,
            readers,
            stalled: number("TICKFAN_BENCH_STALLED", readers as u64 / 9)? as usize,
            speed: text("TICKFAN_BENCH_SPEED", "2"),
            capture: text("TICKFAN_CAPTURE", "feeds/coinbase.zst"),
            strict: text("STRICT", "0") == "1",
            bare: text("TICKFAN_BENCH_BARE", "0") == "1",
        };
        ensure!(
            options.rounds > 0 && readers > 0 && options.stalled > 0 && !options.phase.is_zero(),
            "at least 1 of each"
        );
        Ok(options)
    }

    /// The thresholds, in proportion to the phase: a stalled client exists for most of it, and is cut before
    /// its end or soon after.
    fn settings(&self) -> Vec<String> {
        let mut settings =
            vec!["shard.threads=1".to_owned(), format!("session.outbox_bytes_max={OUTBOX_BYTES}")];
        if !self.bare {
            let ms = self.phase.as_millis() as u64;
            settings.extend([
                format!("session.warn_behind_ms={}", (ms / 20).clamp(100, 1_000)),
                format!("session.shed_behind_ms={}", (ms / 10).clamp(200, 3_000)),
                format!("session.cut_after_ms={}", ms * 7 / 10),
                format!("limits.connections_per_address={}", self.readers + self.stalled + 100),
            ]);
        }
        settings
    }
}

fn text(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    let text = text(name, &default.to_string());
    text.parse().with_context(|| format!("{name}={text} is no whole number"))
}

// ---- the gateway --------------------------------------------------------------------------------------

struct Gateway {
    child: Child,
    ws: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    fn start(options: &Options, pinned: bool) -> anyhow::Result<Self> {
        let binary = env!("CARGO_BIN_EXE_tickfan");
        let mut command = Command::new(if pinned { "taskset" } else { binary });
        if pinned {
            command.args(["-c", "0", binary]);
        }
        // Without settings from the environment of this machine.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TICKFAN_") {
                command.env_remove(name);
            }
        }
        command.args(["replay", "--loop", "--speed", &options.speed, &options.capture]);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        for setting in options.settings() {
            command.args(["--set", &setting]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("the gateway does not start")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let address = |key: &str| -> anyhow::Result<SocketAddr> {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            word.and_then(|word| word.parse().ok()).with_context(|| format!("no {key} in {line:?}"))
        };
        let (ws, admin) = (address("http=http://"), address("admin=http://"));
        let gateway = Self { child, ws: ws?, admin: admin? };
        Ok(gateway)
    }

    /// Its resident memory, bytes.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1_024)
    }

    /// Its current number of clients.
    async fn sessions(&self) -> anyhow::Result<usize> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let rows = text.lines().filter(|line| line.starts_with("tickfan_sessions{"));
        rows.map(|row| Ok(row.rsplit(' ').next().unwrap_or_default().parse::<usize>()?)).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the load off the gateway's core. Returns false if there is one core or no `taskset`.
fn pin() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (ours, pid) = (format!("1-{}", cores - 1), std::process::id().to_string());
    cores > 1
        && Command::new("taskset")
            .args(["-pc", &ours, &pid])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

// ---- clients ------------------------------------------------------------------------------------------

/// Results of all readers in the current phase.
struct Noted {
    delay_us: Histogram<u64>,
    deliveries: u64,
    merged: u64,
    gaps: u64,
    /// Ticks named by gaps.
    missing: u64,
    /// `lag` messages above level `ok`.
    lags: u64,
    /// Ticks that arrived before their time.
    early: u64,
}

impl Noted {
    fn new() -> Self {
        let delay_us = Histogram::new(3).expect("three digits");
        Self { delay_us, deliveries: 0, merged: 0, gaps: 0, missing: 0, lags: 0, early: 0 }
    }
}

/// Shared state of the readers, which all run on one thread.
struct Load {
    scratch: RefCell<Vec<u8>>,
    symbols: RefCell<FxHashMap<Box<[u8]>, usize>>,
    noted: RefCell<Noted>,
    /// Over all phases, and between them.
    breaks: Cell<u64>,
    first_break: RefCell<Option<String>>,
    over: Cell<bool>,
}

impl Load {
    fn broke(&self, what: impl FnOnce() -> String) {
        self.breaks.set(self.breaks.get() + 1);
        self.first_break.borrow_mut().get_or_insert_with(what);
    }

    fn symbol(&self, name: &[u8]) -> usize {
        let mut symbols = self.symbols.borrow_mut();
        let next = symbols.len();
        if let Some(known) = symbols.get(name) {
            return *known;
        }
        symbols.insert(name.into(), next);
        next
    }
}

/// Opens a connection and subscribes to everything.
async fn open(address: SocketAddr, recv_bytes: Option<u32>) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = recv_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    let mut stream = socket.connect(address).await?;
    let request = "GET /ws?symbols=*&channel=trade,quote HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    // Byte by byte, because what follows belongs to the stream.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("closed in the handshake")?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

const PING: u8 = 9;
const CLOSE: u8 = 8;

/// The first frame, if complete: opcode, payload, and the bytes behind it.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match second & 0x7f {
        126 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        127 => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len) as usize, rest))?,
        len => (usize::from(len), rest),
    };
    (rest.len() >= len).then(|| (first & 0x0f, &rest[..len], &rest[len..]))
}

/// The fields of a tick that are checked.
struct Quick<'a> {
    channel: Channel,
    symbol: &'a [u8],
    seq: u64,
    n: u64,
    snap: bool,
    rx_us: u64,
}

/// The number at the start, and the bytes behind it.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let len = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = bytes[..len]
        .iter()
        .fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    (1..20).contains(&len).then(|| (value, &bytes[len..]))
}

/// Parses a tick in the gateway's own format, in about 50 ns. `None` if it is another message or in another
/// format.
fn quick(text: &[u8]) -> Option<Quick<'_>> {
    let rest = text.strip_prefix(br#"{"type":""#)?;
    let (channel, rest) = match rest.strip_prefix(br#"quote","symbol":""#) {
        Some(rest) => (Channel::Quote, rest),
        None => (Channel::Trade, rest.strip_prefix(br#"trade","symbol":""#)?),
    };
    let (symbol, rest) = rest.split_at_checked(memchr::memchr2(b'"', b'\\', rest)?)?;
    let (seq, rest) = digits(rest.strip_prefix(br#"","seq":"#)?)?;
    let (n, rest) = rest.strip_prefix(br#","n":"#).map_or(Some((1, rest)), digits)?;
    let snap = rest.starts_with(br#","snap":true"#);
    let (rx_us, _) = digits(rest.get(memmem::rfind(rest, br#""rx":"#)? + 5..)?)?;
    Some(Quick { channel, symbol, seq, n, snap, rx_us })
}

/// A client that reads and accounts for its messages.
struct Reader {
    /// Start of an incomplete frame.
    partial: Vec<u8>,
    /// The last sequence number of each symbol and channel; `None` before the first.
    told: Vec<[Option<u64>; 2]>,
    pings: Vec<Vec<u8>>,
    closed: Option<String>,
}

impl Reader {
    fn take(&mut self, bytes: &[u8], load: &Load) {
        let arrival_us = wall_us();
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut noted = load.noted.borrow_mut();
        while let Some((opcode, payload, behind)) = frame(rest) {
            rest = behind;
            match opcode {
                PING => self.pings.push(payload.to_vec()),
                CLOSE => self.closed = Some(String::from_utf8_lossy(payload).into_owned()),
                _ => self.hear(payload, arrival_us, load, &mut noted),
            }
        }
        self.partial.extend_from_slice(rest);
    }

    fn hear(&mut self, text: &[u8], arrival_us: u64, load: &Load, noted: &mut Noted) {
        if let Some(tick) = quick(text) {
            return self.tick(&tick, arrival_us, load, noted);
        }
        let text = String::from_utf8_lossy(text);
        match Message::parse(&text) {
            Ok(Message::Update(channel, update)) => {
                let (symbol, rx_us) = (update.symbol.as_bytes(), update.rx_us.unwrap_or(0));
                let tick = Quick { channel, symbol, seq: update.seq, n: update.n, snap: update.snap, rx_us };
                self.tick(&tick, arrival_us, load, noted);
            }
            Ok(Message::Gap(gap)) => {
                let last = self.last(gap.symbol.as_bytes(), gap.channel, load);
                if gap.from != last.unwrap_or(0) + 1 || gap.to < gap.from {
                    load.broke(|| format!("told {last:?}, then {text}"));
                }
                *last = Some(gap.to);
                noted.gaps += 1;
                noted.missing += (gap.to + 1).saturating_sub(gap.from);
            }
            Ok(Message::Lag(lag)) => noted.lags += u64::from(&*lag.level != "ok"),
            Ok(Message::Bye(_)) => self.closed = Some(text.into_owned()),
            Ok(_) => {}
            Err(error) => load.broke(|| format!("{error}: {text}")),
        }
    }

    fn tick(&mut self, tick: &Quick<'_>, arrival_us: u64, load: &Load, noted: &mut Noted) {
        let last = self.last(tick.symbol, tick.channel, load);
        let opens = tick.snap && last.is_none_or(|last| last == tick.seq);
        if !opens && (tick.n == 0 || tick.seq.checked_sub(tick.n) != Some(last.unwrap_or(0))) {
            let symbol = String::from_utf8_lossy(tick.symbol);
            load.broke(|| format!("{symbol}: told {last:?}, then {} with n {}", tick.seq, tick.n));
        }
        *last = Some(tick.seq);
        if !tick.snap {
            noted.deliveries += 1;
            noted.merged += tick.n.saturating_sub(1);
            // All processes use one clock: early ticks are reported, not hidden as 0.
            match arrival_us.checked_sub(tick.rx_us) {
                // The histogram grows as needed, because clamped values would look good.
                Some(us) => noted.delay_us.record(us).expect("it holds what a clock tells"),
                None => noted.early += 1,
            }
        }
    }

    fn last(&mut self, symbol: &[u8], channel: Channel, load: &Load) -> &mut Option<u64> {
        let at = load.symbol(symbol);
        if self.told.len() <= at {
            self.told.resize(at + 1, [None; 2]);
        }
        &mut self.told[at][channel as usize]
    }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A pong with a mask of zeros.
fn pong(payload: &[u8]) -> Vec<u8> {
    [&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

/// Reads as fast as possible, to the end.
async fn read(mut stream: TcpStream, load: Rc<Load>) {
    let mut reader = Reader { partial: Vec::new(), told: Vec::new(), pings: Vec::new(), closed: None };
    loop {
        let read = poll_fn(|cx| {
            let mut scratch = load.scratch.borrow_mut();
            let mut buf = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut buf))?;
            reader.take(buf.filled(), &load);
            Poll::Ready(Ok::<usize, io::Error>(buf.filled().len()))
        });
        let ended = match read.await {
            Ok(0) => Some("the end".to_owned()),
            Ok(_) => reader.closed.take(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = ended {
            if !load.over.get() {
                load.broke(|| format!("a reader was closed: {why}"));
            }
            return;
        }
        for payload in reader.pings.drain(..) {
            // The next read reports the end.
            let _ = stream.write_all(&pong(&payload)).await;
        }
    }
}

/// Messages that a stalled client finds when it finally reads.
#[derive(Debug, Default)]
struct Found {
    levels: Vec<String>,
    bye: Option<u16>,
    close: Option<u16>,
}

impl Found {
    /// From the last `ok` on: (warn), shed, (cut), then the `bye`.
    fn in_order(&self) -> bool {
        let ok = self.levels.iter().rposition(|level| level == "ok").map_or(0, |at| at + 1);
        let rank = |level: &String| ["warn", "shed", "cut"].iter().position(|known| known == level);
        let ranks: Option<Vec<usize>> = self.levels[ok..].iter().map(rank).collect();
        ranks.is_some_and(|ranks| ranks.contains(&1) && ranks.is_sorted())
            && (self.bye, self.close) == (Some(4_000), Some(4_000))
    }

    fn saw(&self, level: &str) -> bool {
        self.levels.iter().any(|seen| seen == level)
    }
}

async fn find(mut stream: TcpStream) -> Found {
    let (mut bytes, mut found) = (Vec::new(), Found::default());
    // Data received before an error counts.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let mut rest = bytes.as_slice();
    while let Some((opcode, payload, behind)) = frame(rest) {
        rest = behind;
        match Message::parse(&String::from_utf8_lossy(payload)) {
            _ if opcode == CLOSE => found.close = payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
            Ok(Message::Lag(lag)) if found.bye.is_none() => found.levels.push(lag.level.to_string()),
            Ok(Message::Bye(bye)) => found.bye = Some(bye.code),
            _ => {}
        }
    }
    found
}

// ---- the phases ---------------------------------------------------------------------------------------

/// Measures one phase.
async fn measure(
    load: &Load,
    options: &Options,
    mut meanwhile: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Noted, f64)> {
    *load.noted.borrow_mut() = Noted::new();
    let start = Instant::now();
    while start.elapsed() < options.phase {
        sleep(Duration::from_millis(50).min(options.phase)).await;
        meanwhile()?;
    }
    let noted = std::mem::replace(&mut *load.noted.borrow_mut(), Noted::new());
    Ok((noted, start.elapsed().as_secs_f64()))
}

/// Waits until the gateway has cut the stalled clients.
async fn until_cut(gateway: &Gateway, readers: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    while gateway.sessions().await? > readers {
        if start.elapsed() > PATIENCE {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

struct Outcome {
    phases: [Vec<(Noted, f64)>; 2],
    found: Vec<Found>,
    growth: u64,
    /// Memory after the first phase, in which the gateway's ring grows to its final size.
    before: u64,
}

async fn play(gateway: &Gateway, options: &Options, load: &Rc<Load>) -> anyhow::Result<Outcome> {
    for _ in 0..options.readers {
        let stream = open(gateway.ws, None).await.context("a reader")?;
        tokio::task::spawn_local(read(stream, Rc::clone(load)));
    }
    sleep(SETTLE).await;
    let mut outcome = Outcome { phases: [Vec::new(), Vec::new()], found: Vec::new(), growth: 0, before: 0 };
    for _ in 0..options.rounds {
        outcome.phases[0].push(measure(load, options, || Ok(())).await?);
        let before = gateway.resident()?;
        outcome.before = outcome.before.max(before);
        let mut stalled = Vec::new();
        for _ in 0..options.stalled {
            stalled.push(open(gateway.ws, Some(STALLED_RECV_BYTES)).await.context("a stalled client")?);
        }
        let mut highest = before;
        let second = measure(load, options, || {
            highest = highest.max(gateway.resident()?);
            Ok(())
        });
        outcome.phases[1].push(second.await?);
        outcome.growth = outcome.growth.max((highest - before) / options.stalled as u64);
        if !options.bare {
            until_cut(gateway, options.readers).await?;
            let tasks: Vec<_> =
                stalled.drain(..).map(|stream| tokio::task::spawn_local(find(stream))).collect();
            for task in tasks {
                outcome.found.push(task.await?);
            }
        }
        drop(stalled);
        until_cut(gateway, options.readers).await?;
    }
    load.over.set(true);
    Ok(outcome)
}

// ---- what came out ------------------------------------------------------------------------------------

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn verdict(good: bool) -> &'static str {
    if good { "pass" } else { "FAIL" }
}

/// Prints the figures; true if the required conditions hold.
fn report(out: &mut impl Write, options: &Options, load: &Load, outcome: &Outcome) -> anyhow::Result<bool> {
    let of = |phase: usize, figure: &dyn Fn(&(Noted, f64)) -> f64| {
        median(outcome.phases[phase].iter().map(figure).collect())
    };
    let sum = |phase: usize, figure: &dyn Fn(&Noted) -> u64| {
        outcome.phases[phase].iter().map(|(noted, _)| figure(noted)).sum::<u64>()
    };
    let quantile = |quantile: f64| {
        move |(noted, _): &(Noted, f64)| noted.delay_us.value_at_quantile(quantile) as f64 / 1e3
    };
    writeln!(out, "{:<34}{:>14}{:>14}", "", "readers only", "with stalled")?;
    let mut row =
        |name: &str, first: String, second: String| writeln!(out, "{name:<34}{first:>14}{second:>14}");
    let rate = |phase| format!("{:.0}", of(phase, &|(noted, s)| noted.deliveries as f64 / s));
    row("deliveries/s", rate(0), rate(1))?;
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let shown = |phase| format!("{:.3}", of(phase, &quantile(q)));
        row(&format!("rx→arrival {name}, ms"), shown(0), shown(1))?;
    }
    type Figure = (&'static str, fn(&Noted) -> u64);
    let figures: [Figure; 5] = [
        ("gaps", |noted| noted.gaps),
        ("ticks that gaps named", |noted| noted.missing),
        ("ticks merged (n − 1)", |noted| noted.merged),
        ("readers called slow", |noted| noted.lags),
        ("ticks before their time", |noted| noted.early),
    ];
    for (name, figure) in figures {
        row(name, sum(0, &figure).to_string(), sum(1, &figure).to_string())?;
    }
    for (round, (first, second)) in outcome.phases[0].iter().zip(&outcome.phases[1]).enumerate() {
        let p99 = |phase| format!("{:.3}", quantile(0.99)(phase));
        row(&format!("p99 of round {}, ms", round + 1), p99(first), p99(second))?;
    }
    let ratio = of(1, &quantile(0.99)) / of(0, &quantile(0.99)).max(0.001);
    let bound = OUTBOX_BYTES + BESIDES_BYTES;
    writeln!(
        out,
        "ratio of the p99s                 {ratio:.2}, at most {RATIO_MAX}: {}",
        verdict(ratio <= RATIO_MAX)
    )?;
    writeln!(
        out,
        "breaks of the accounting rule     {}: {}",
        load.breaks.get(),
        verdict(load.breaks.get() == 0)
    )?;
    if let Some(first) = &*load.first_break.borrow() {
        writeln!(out, "  {first}")?;
    }
    let within = outcome.growth <= bound;
    writeln!(
        out,
        "memory per stalled client         {} KiB, at most {} KiB: {} (before them {} MiB)",
        outcome.growth / 1_024,
        bound / 1_024,
        verdict(within),
        outcome.before >> 20
    )?;
    let saw = |level: &str| outcome.found.iter().filter(|found| found.saw(level)).count();
    let wrong: Vec<_> = outcome.found.iter().filter(|found| !found.in_order()).collect();
    if !options.bare {
        let (all, byes) =
            (outcome.found.len(), outcome.found.iter().filter(|found| found.bye == Some(4_000)).count());
        writeln!(
            out,
            "ladder of {all} stalled            warn {}, shed {}, cut {}, bye 4000 {byes}; in order {}: {}",
            saw("warn"),
            saw("shed"),
            saw("cut"),
            all - wrong.len(),
            verdict(wrong.is_empty())
        )?;
        if let Some(first) = wrong.first() {
            writeln!(out, "  {first:?}")?;
        }
    }
    let must = load.breaks.get() == 0 && within && wrong.is_empty();
    Ok(must && (ratio <= RATIO_MAX || !options.strict))
}

fn main() -> anyhow::Result<ExitCode> {
    // Cargo requests a list from each bench.
    if std::env::args().any(|arg| arg == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::of_environment()?;
    let pinned = pin();
    let mut out = io::stdout();
    writeln!(
        out,
        "{} readers, {} stalled, {} rounds of 2 × {} s, {} at speed {}, the gateway {}",
        options.readers,
        options.stalled,
        options.rounds,
        options.phase.as_secs(),
        options.capture,
        options.speed,
        if pinned { "on core 0" } else { "not pinned to a core" }
    )?;
    let gateway = Gateway::start(&options, pinned)?;
    let load = Rc::new(Load {
        scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        symbols: RefCell::default(),
        noted: RefCell::new(Noted::new()),
        breaks: Cell::new(0),
        first_break: RefCell::new(None),
        over: Cell::new(false),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, play(&gateway, &options, &load));
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => bail!("{error:#} (many clients need many files: see `ulimit -n`)"),
    };
    let good = report(&mut out, &options, &load, &outcome)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
