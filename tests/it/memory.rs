//! The bound of memory: clients that stop reading give it back, and the gateway lives; where nothing can be given back, new
//! subscriptions are refused by name; and a configuration that cannot fit is refused at the start.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{
    Gateway, PATIENCE, RawSocket, TOKEN, connect, eventually, run, skipped, tickfan, undisturbed,
};

const FEED: &str = "feeds/coinbase.zst";
const EVERYTHING: &str = "?symbols=*&channel=trade,quote&mode=every";
const MIB: u64 = 1 << 20;
/// What takes little, so that a small bound leaves some room for clients.
const SMALL: [&str; 4] = [
    "ring.capacity=4096",
    "limits.instruments_max=1024",
    "shard.frame_ring_bytes=1048576",
    "replay.checkpoint_bytes_max=1048576",
];

/// A cgroup of its own with a limit of memory. It is removed with it.
struct Cgroup {
    dir: PathBuf,
    peak: &'static str,
}

impl Cgroup {
    /// `None` where none can be made; then the test is left out.
    fn new(bytes: u64) -> Option<Self> {
        let made = Self::version_2(bytes).or_else(|| Self::version_1(bytes));
        if made.is_none() {
            skipped::left_out("a cgroup with a limit of memory", "none can be made here");
        }
        made
    }

    fn make(parent: &Path, limit: &str, bytes: u64, peak: &'static str) -> Option<Self> {
        // No test makes two of the same limit.
        let dir = parent.join(format!("tickfan-test-{}-{bytes}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        let cgroup = Self { dir, peak };
        std::fs::write(cgroup.dir.join(limit), bytes.to_string()).ok()?;
        Some(cgroup)
    }

    fn version_2(bytes: u64) -> Option<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let handed_down = std::fs::read_to_string(top.join("cgroup.subtree_control")).ok()?;
        let counts = handed_down.split_whitespace().any(|controller| controller == "memory");
        counts.then(|| Self::make(top, "memory.max", bytes, "memory.peak"))?
    }

    fn version_1(bytes: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = own.lines().find_map(|line| line.split_once(":memory:/"))?.1;
        let parent = Path::new("/sys/fs/cgroup/memory").join(path);
        Self::make(&parent, "memory.limit_in_bytes", bytes, "memory.max_usage_in_bytes")
    }

    /// The binary with these arguments, in it.
    fn tickfan(&self, args: &[&str]) -> Command {
        let plain = tickfan(args);
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.dir.join("cgroup.procs"));
        command.arg(plain.get_program()).args(plain.get_args());
        command
    }

    /// The most that it was charged.
    fn peak_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(self.dir.join(self.peak)).expect("it is told");
        text.trim().parse().expect("a number")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What was in it may take a moment to go.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A capture that goes round and round, so many times as fast as it was, and these settings.
fn looped<'a>(speed: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    [&["replay", "--loop", "--speed", speed][..], &Gateway::settings(settings), &[FEED]].concat()
}

/// Connects, subscribes to everything, and never reads again.
fn stalled(gateway: &Gateway) -> RawSocket {
    RawSocket::open_small(gateway, EVERYTHING)
}

/// As [`stalled`], of which all that is read is the status. While memory is critical it is refused, and tries again.
fn stalled_in_the_end(gateway: &Gateway) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = connect(gateway.http);
        let head =
            "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let request = format!("GET /ws{EVERYTHING} HTTP/1.1\r\n{head}\r\n{key}\r\n\r\n");
        socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).expect("an option");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a status");
        if status.ends_with(b"101") {
            return stream;
        }
        assert!(
            status.ends_with(b"503") && Instant::now() < deadline,
            "{}",
            String::from_utf8_lossy(&status)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A client that reads until it is stopped.
struct Healthy {
    stop: Arc<AtomicBool>,
    reader: std::thread::JoinHandle<Client>,
}

impl Healthy {
    fn beside(gateway: &Gateway) -> Self {
        let mut client = Client::open(gateway, EVERYTHING);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                assert!(client.step(), "closed: {:?}", client.bye);
            }
            client
        });
        Self { stop, reader }
    }

    /// Every number that it missed was named, and it was not cut.
    fn ends_well(self) {
        self.stop.store(true, Ordering::Relaxed);
        let client = self.reader.join().expect("it was served throughout");
        assert!(client.ledger.held(), "{:?}", client.ledger.breaks());
        assert!(client.ledger.heard_all().ticks > 100, "{:?}", client.ledger.heard_all());
        assert_eq!(client.bye, None, "{:?}", client.steps);
    }
}

/// How many connections ended for this cause.
fn ended(gateway: &Gateway, cause: &str) -> u64 {
    let label = format!("cause=\"{cause}\"");
    let rows = gateway.metric("tickfan_sessions_ended_total");
    rows.iter().filter(|(labels, _)| labels.contains(&label)).map(|(_, count)| count).sum()
}

/// Waits until so many were cut; a slow machine takes its time.
fn are_cut(gateway: &Gateway, count: u64) {
    let deadline = Instant::now() + 5 * PATIENCE;
    while ended(gateway, "memory") + ended(gateway, "slow_consumer") < count {
        assert!(Instant::now() < deadline, "{:?}", gateway.metric("tickfan_sessions_ended_total"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn readers_that_stop_are_cut_and_the_gateway_lives() {
    let _undisturbed = undisturbed();
    const LIMIT: u64 = 100 * MIB;
    let Some(cgroup) = Cgroup::new(LIMIT) else { return };
    let args = looped("4", &["session.cut_after_ms=5000"]);
    let gateway = Gateway::run(cgroup.tickfan(&args), "127.0.0.1:0");
    assert_eq!(gateway.metric_sum("tickfan_memory_bound_bytes"), LIMIT / 100 * 90);
    let healthy = Healthy::beside(&gateway);
    let readers: Vec<TcpStream> = (0..500).map(|_| stalled_in_the_end(&gateway)).collect();
    are_cut(&gateway, 500);
    assert_eq!(gateway.sessions(), 1, "only those that stopped");
    assert!(gateway.metric_sum("tickfan_memory_sheds_total") + ended(&gateway, "memory") > 0);
    healthy.ends_well();
    // Without the bound they take 125 MiB of outboxes.
    assert!(cgroup.peak_bytes() < LIMIT, "{}", cgroup.peak_bytes());
    drop(readers);
    let ended = gateway.stop();
    let bound = ended.bound.expect("it is told");
    assert_eq!(bound, format!("at most {} bytes: of the cgroup's {LIMIT}", LIMIT / 100 * 90));
    assert!(ended.stderr.contains("tickfan: memory is short ("), "{}", ended.stderr);
}

#[test]
fn what_slow_clients_hold_is_given_back_first() {
    let _undisturbed = undisturbed();
    const BOUND: u64 = 48 * MIB;
    let bound = format!("limits.memory_bytes_max={BOUND}");
    let settings = [&SMALL[..], &["session.cut_after_ms=600000", &bound]].concat();
    // Slow enough that all are there before their outboxes are full.
    let gateway = Gateway::start(&looped("2", &settings));
    let healthy = Healthy::beside(&gateway);
    let mut readers: Vec<RawSocket> = (0..150).map(|_| stalled(&gateway)).collect();
    eventually("queues are taken back, or clients cut", || {
        gateway.metric_sum("tickfan_memory_sheds_total") + ended(&gateway, "memory") > 0
    });
    // As much as all of their outboxes could hold: 1,700 ticks each.
    let encoded = gateway.metric_sum("tickfan_encoded_total");
    eventually("more has come", || gateway.metric_sum("tickfan_encoded_total") > encoded + 1_700);
    assert!(gateway.metric_sum("tickfan_memory_used_bytes") < BOUND);
    healthy.ends_well();
    // The ledger of each is right: what was taken back is named by gaps.
    let kept = gateway.sessions();
    let (mut cut, mut told) = (0, 0);
    gateway.process.signal("TERM");
    for reader in readers.drain(..) {
        let client = Client::over(reader).read_to_end();
        match client.codes() {
            (Some(4_000), Some(4_000)) => cut += 1,
            (Some(4_001), Some(4_001)) => told += 1,
            codes => panic!("{codes:?}: {:?}", client.steps),
        }
    }
    assert!(cut + told == 150 && told <= kept, "{cut} {told} {kept}");
    let ended = gateway.process.end();
    assert_eq!(ended.bound, Some(format!("at most {BOUND} bytes: limits.memory_bytes_max")));
}

/// A long name: what is listed takes the more memory.
fn symbol(n: u64) -> String {
    format!("SYMBOL-{n:040}")
}

/// The answer to a request, past whatever else comes.
fn answer_to(socket: &mut RawSocket, id: u64) -> Value {
    loop {
        let word = socket.word();
        if word["id"] == id {
            return word;
        }
    }
}

/// Publishes a quote of each of so many symbols, and waits for the end.
fn publish(gateway: &Gateway, symbols: u64) {
    let mut stream = connect(gateway.publish.expect("publishers may come"));
    writeln!(stream, r#"{{"op":"auth","token":"{TOKEN}"}}"#).expect("sent");
    let mut text = String::new();
    for n in 0..symbols {
        let line = r#"","bid":"1","bid_size":"2","ask":"3","ask_size":"4"}"#;
        text.push_str(&format!("{{\"type\":\"quote\",\"symbol\":\"demo:{}{line}\n", symbol(n)));
        if text.len() > 60_000 || n + 1 == symbols {
            stream.write_all(text.as_bytes()).expect("sent");
            text.clear();
        }
    }
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    stream.read_to_string(&mut text).expect("its answers");
}

#[test]
fn what_is_new_is_refused_by_name_where_nothing_can_be_given_back() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().expect("a folder");
    let dir = format!("record.dir={}", folder.path().display());
    // Instruments stay listed: their table cannot be given back.
    let settings = [
        "limits.instruments_max=40000",
        "limits.memory_bytes_max=54525952",
        "ring.capacity=4096",
        "shard.frame_ring_bytes=1048576",
        "record.enabled=true",
        "record.queue_frames_max=1024",
        "publish.instruments_per_publisher_max=40000",
        "publish.instruments_percent_max=100",
        // It reads nothing while instruments are published.
        "session.pong_timeout_ms=600000",
        "session.cut_after_ms=600000",
        &dir,
    ];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut early = RawSocket::open(&gateway, &format!("?symbols=demo:{}", symbol(1)));
    assert_eq!(early.answer()["type"], "ack");
    publish(&gateway, 40_000);
    eventually("memory is critical", || gateway.metric_sum("tickfan_memory_level") >= 2);
    // New connections are refused, before anything that they ask for is looked at.
    let request = "GET /ws?symbols=* HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (status, body) = Gateway::ask(gateway.http, request);
    let msg = "the gateway is short of memory (limits.memory_bytes_max): try again later";
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 503);
    assert_eq!(body, json!({"error": msg, "code": "short_of_memory", "retry_after_ms": 1_000}));
    // A client that was there before is served on, but for what would take much.
    let wide = r#""symbols":["*"]"#.to_owned();
    let past = format!(r#""symbols":["demo:{}"],"mode":"every","from":"-5m""#, symbol(2));
    for (id, wanted) in [(1, wide), (2, past)] {
        early.text(&format!(r#"{{"op":"subscribe","id":{id},"channel":["trade","quote"],{wanted}}}"#));
        let error = json!({
            "type": "error", "id": id, "code": "short_of_memory", "retry": true, "retry_after_ms": 1_000,
            "msg": msg,
        });
        assert_eq!(answer_to(&mut early, id), error);
    }
    let refused = gateway.metric("tickfan_memory_refused_total");
    for what in ["connection", "subscription", "catch_up"] {
        let label = format!("{{what=\"{what}\"}}");
        assert!(refused.iter().any(|(labels, count)| *labels == label && *count == 1), "{what}: {refused:?}");
    }
    early.text(r#"{"op":"ping","id":3}"#);
    assert_eq!(answer_to(&mut early, 3)["type"], "pong");
    gateway.stop();
}

#[test]
fn what_cannot_fit_is_no_configuration() {
    let small = run(&looped("1", &["limits.memory_bytes_max=20000000"]));
    assert_eq!(small.code(), Some(2), "{small:?}");
    for named in ["limits.memory_bytes_max: ", "ring.capacity takes 8388608", "limits.instruments_max takes "]
    {
        assert!(small.stderr.contains(named), "{}", small.stderr);
    }
}
