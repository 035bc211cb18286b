//! The binary as its users run it, and clients that are not ours: Python's `websockets`, and sockets whose
//! every byte is chosen by the test. Nothing waits for ever, and what a test started ends with it.

pub(crate) mod answer;
pub(crate) mod client;
#[cfg(target_os = "linux")]
pub(crate) mod network;
pub(crate) mod recorded;
pub(crate) mod skipped;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes; only a broken gateway makes a test wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The token of every gateway that takes publishers.
pub(crate) const TOKEN: &str = "token-of-the-tests";

/// The head of a POST that is the last request on its connection, without its length.
pub(crate) const POST: &str = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";

/// A file of the repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program that a test runs; it is killed with it.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// How a [`Process`] ended, and what it said since it was last asked.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
    /// Without the bound of memory, which every gateway logs at its start.
    pub(crate) stderr: String,
    /// The bound of memory, as it was logged.
    pub(crate) bound: Option<String>,
}

/// The line that logs the bound of memory begins so.
const BOUND: &str = "tickfan: memory: ";

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it logged, but for threads that had no core for a while, which is the doing of the machine.
    pub(crate) fn complaints(&self) -> String {
        let waited = |line: &&str| {
            line.starts_with("tickfan: the thread ")
                && (line.contains(" has not moved for ") || line.contains(" continues after "))
        };
        self.stderr.split_inclusive('\n').filter(|line| !waited(line)).collect()
    }

    /// It succeeded, and these are its lines of JSON.
    pub(crate) fn values(&self) -> Vec<Value> {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self.lines.iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("a pipe can be read");
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { name, stdin: child.stdin.take(), child, lines, stderr: Some(stderr) }
    }

    /// The next line on its standard output.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => panic!("{} says nothing more", self.name),
        }
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it listens");
    }

    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until it ends by itself. Its standard input is closed.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        // The end of its output is the event to wait for.
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("{} does not end", self.name),
            }
        }
        let status = self.child.wait().expect("it was ours");
        let said = self.said();
        let (bound, stderr): (Vec<&str>, Vec<&str>) =
            said.split_inclusive('\n').partition(|line| line.starts_with(BOUND));
        let bound = bound.first().map(|line| line[BOUND.len()..].trim_end().to_owned());
        Ended { status, lines, stderr: stderr.concat(), bound }
    }

    /// What it said on standard error; it has ended.
    fn said(&mut self) -> String {
        self.stderr.take().map_or_else(String::new, |thread| thread.join().expect("a reader"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.said();
            let _ = writeln!(std::io::stderr(), "{} said:\n{said}", self.name);
        }
    }
}

/// The binary with these arguments, in the repository.
pub(crate) fn tickfan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickfan"));
    // Nothing of the machine's own configuration.
    let own = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("TICKFAN_"));
    own.for_each(|name| {
        command.env_remove(name);
    });
    command.args(args).current_dir(in_repository(""));
    command
}

/// Runs the binary to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Process::start(&mut tickfan(args)).end()
}

/// A gateway on free ports.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) ws: String,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) publish: Option<SocketAddr>,
}

impl Gateway {
    /// Starts the binary with these arguments and waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::listening("127.0.0.1:0", args)
    }

    /// The same, with its clients' door here.
    pub(crate) fn listening(listen: &str, args: &[&str]) -> Self {
        Self::run(tickfan(args), listen)
    }

    /// Runs a command that becomes the gateway, with its clients' door here.
    pub(crate) fn run(mut command: Command, listen: &str) -> Self {
        command.current_dir(in_repository(""));
        command.args(["--listen", listen, "--admin", "127.0.0.1:0"]);
        // However slow the machine is, no client is cut off in its goodbye.
        command.args(["--set", "session.close_grace_ms=30000", "--set", "session.drain_ms=30000"]);
        let mut process = Process::start(&mut command);
        let ready = process.line();
        let mut words = ready.split(' ');
        assert_eq!((words.next(), words.next()), (Some("tickfan"), Some("ready")), "{ready}");
        let value = |key: &str| {
            let word = ready.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            word.map(str::to_owned)
        };
        let address = |text: String| text.trim_start_matches("http://").parse().expect("an address");
        Self {
            ws: value("ws").expect("ws"),
            http: value("http").map(address).expect("http"),
            admin: value("admin").map(address).expect("admin"),
            publish: value("publish").map(address),
            process,
        }
    }

    /// A gateway without feeds that takes what is published for these venues.
    pub(crate) fn publishing(venues: &str, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("publish.toml");
        let text = format!("[publish]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\nvenues = {venues}\n");
        std::fs::write(&config, text).expect("written");
        let mut args = vec!["serve", "--config", config.to_str().expect("utf-8")];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        Self::start(&args)
    }

    /// The arguments that set these keys.
    pub(crate) fn settings<'a>(settings: &[&'a str]) -> Vec<&'a str> {
        settings.iter().flat_map(|setting| ["--set", setting]).collect()
    }

    /// Clients now.
    pub(crate) fn sessions(&self) -> u64 {
        self.metric_sum("tickfan_sessions")
    }

    /// How much of a core it has used, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.child.id()));
        let stat = stat.expect("it runs");
        // Behind the name, which may have spaces: utime and stime are the 12th and 13th (proc_pid_stat(5)).
        let fields = stat.rsplit_once(')').expect("a name").1.split_ascii_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().expect("a number")).sum()
    }

    /// Lowers its limit of open files to so many more than it has open now.
    pub(crate) fn leave_files(&self, more: usize) {
        let pid = self.process.child.id();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        let limit = format!("--nofile={}", open + more);
        let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
        assert!(status.expect("prlimit is of util-linux").success());
    }

    /// What it has in memory now, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id()));
        let status = status.expect("it runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("a size") * 1_024
    }

    /// The answer to a GET: its status, and its body.
    pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
        Self::ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// The answer to a request, which is the last on its connection: its status, and its body.
    pub(crate) fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer in time");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    /// The rows of a list that is given a page at a time, and how many pages they took; each page within its bounds.
    pub(crate) fn list(address: SocketAddr, path: &str, name: &str) -> (Vec<Value>, usize) {
        let (mut rows, mut pages, mut after) = (Vec::new(), 0, String::new());
        loop {
            let (status, body) = Self::get(address, &format!("{path}{after}"));
            assert!(status == 200 && body.len() < 300_000, "{path}{after}: {status}, {} bytes", body.len());
            let mut body: Value = serde_json::from_str(&body).expect("JSON");
            let Value::Array(page) = body[name].take() else { panic!("no {name}: {body}") };
            assert!(page.len() <= 1_000, "{path}{after}: {} rows", page.len());
            rows.extend(page);
            pages += 1;
            let Some(next) = body["next"].as_str() else { return (rows, pages) };
            let and = if path.contains('?') { '&' } else { '?' };
            after = format!("{and}after={next}");
        }
    }

    pub(crate) fn readyz(&self) -> u16 {
        Self::get(self.http, "/readyz").0
    }

    /// Waits until the last tick of the replay is published.
    pub(crate) fn replay_has_ended(&self) {
        let ended = || Self::get(self.http, "/readyz").1.contains("the replay has ended");
        eventually("the replay has ended", ended);
    }

    /// The values of a metric, by what stands behind its name.
    pub(crate) fn metric(&self, name: &str) -> Vec<(String, u64)> {
        let (status, text) = Self::get(self.admin, "/metrics");
        assert_eq!(status, 200);
        let rows = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        rows.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'))
            .map(|(labels, value)| (labels.to_owned(), value.parse().expect("a count")))
            .collect()
    }

    /// A metric over all its labels.
    pub(crate) fn metric_sum(&self, name: &str) -> u64 {
        self.metric(name).iter().map(|(_, value)| value).sum()
    }

    /// Stops it, which has to go well.
    pub(crate) fn stop(self) -> Ended {
        self.process.signal("TERM");
        let ended = self.process.end();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        ended
    }
}

/// Held by a test that uses most of the machine, or judges how long something takes: of those, one runs at a time.
pub(crate) fn undisturbed() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // One that failed spoilt nothing.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for what no event tells from outside.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the scripts of this folder import.
const NEEDED: &str = "import hdrh, jsonschema, websockets, yaml";

/// A Python script of this folder. The interpreter of the repository's `.venv` runs it where there is one.
pub(crate) fn python(script: &str, args: &[&str]) -> Process {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    let interpreter = INTERPRETER.get_or_init(|| {
        let own = in_repository(".venv/bin/python");
        let interpreter = if own.exists() { own } else { PathBuf::from("python3") };
        let ended = Process::start(Command::new(&interpreter).args(["-c", NEEDED])).end();
        assert!(
            ended.status.success(),
            "{} lacks something that these tests need: `make test` installs it \
             (tests/support/requirements.txt)\n{}",
            interpreter.display(),
            ended.stderr
        );
        interpreter
    });
    let script = in_repository("tests/support").join(script);
    Process::start(Command::new(interpreter).arg("-B").arg(script).args(args))
}

/// A capture made for one test.
pub(crate) struct Capture {
    folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Capture {
    /// A plain capture of `seconds × rate` messages or so.
    pub(crate) fn generate(venue: &str, symbols: &str, seconds: u32, rate: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(format!("{venue}.txt"));
        let capture = Self { folder, path };
        capture.write_generated(venue, symbols, (seconds, rate), &[]);
        capture
    }

    fn write_generated(&self, venue: &str, symbols: &str, (seconds, rate): (u32, u32), more: &[&str]) {
        let (seconds, rate) = (seconds.to_string(), rate.to_string());
        let out = self.path();
        let spec = ["--venue", venue, "--symbols", symbols, "--seconds", &seconds, "--rate", &rate];
        let args = [&["generate", "--seed", "7", "--out", out][..], &spec, more].concat();
        let ended = run(&args);
        assert!(ended.status.success(), "{ended:?}");
    }

    /// Another capture of the same kind that begins later, as text.
    pub(crate) fn later(&self, venue: &str, symbols: &str, size: (u32, u32), start_s: u64) -> String {
        let other = Self {
            folder: tempfile::tempdir_in(self.folder.path()).expect("a folder"),
            path: self.folder.path().join("later.txt"),
        };
        other.write_generated(venue, symbols, size, &["--start-ns", &format!("{start_s}000000000")]);
        other.text()
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("utf-8")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.path).expect("it was written")
    }

    /// Changes its lines.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
        change(&mut lines);
        std::fs::write(&self.path, lines.join("\n") + "\n").expect("written");
    }

    /// How many ticks `tickfan normalize` makes of it: trades, quotes.
    pub(crate) fn normalized(&self) -> (u64, u64) {
        normalized(self.path())
    }
}

/// How many ticks `tickfan normalize` makes of a capture: trades, quotes.
pub(crate) fn normalized(path: &str) -> (u64, u64) {
    let ended = run(&["normalize", path]);
    let count = |kind: &str| {
        let start = format!("{{\"type\":\"{kind}\"");
        ended.lines.iter().filter(|line| line.starts_with(&start)).count() as u64
    };
    assert!(ended.status.success(), "{ended:?}");
    (count("trade"), count("quote"))
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A connection that is read slowly where that is wanted.
struct Paced {
    stream: TcpStream,
    bytes_per_s: Option<u64>,
}

impl Read for Paced {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let Some(bytes_per_s) = self.bytes_per_s else {
            return self.stream.read(buf);
        };
        let portion = (bytes_per_s as usize / 10).clamp(1, buf.len().max(1)).min(buf.len());
        let read = self.stream.read(&mut buf[..portion])?;
        std::thread::sleep(Duration::from_nanos(read as u64 * 1_000_000_000 / bytes_per_s));
        Ok(read)
    }
}

/// A WebSocket whose every byte is the test's.
pub(crate) struct RawSocket {
    stream: BufReader<Paced>,
    /// What it was greeted with.
    pub(crate) hello: Value,
}

/// Opcodes of RFC 6455.
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The bit of a message's last frame.
pub(crate) const FIN: u8 = 0x80;

impl RawSocket {
    /// Shakes hands at `/ws` with this query, and takes the hello.
    pub(crate) fn open(gateway: &Gateway, query: &str) -> Self {
        Self::over(connect(gateway.http), query)
    }

    /// The same, by the address of the clients' door.
    pub(crate) fn at(http: SocketAddr, query: &str) -> Self {
        Self::over(connect(http), query)
    }

    /// The same over a small receive buffer: what the kernel holds for us would hide how slow we are.
    pub(crate) fn open_small(gateway: &Gateway, query: &str) -> Self {
        Self::open_sized(gateway, query, 4_096)
    }

    /// The same from another of this machine's own addresses, over a small receive buffer.
    pub(crate) fn open_from(address: Ipv4Addr, gateway: &Gateway, query: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("an option");
        socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of the loopback");
        socket.connect(&gateway.http.into()).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self::over(socket.into(), query)
    }

    /// The same over a receive buffer of so many bytes, or as many as the system allows.
    pub(crate) fn open_sized(gateway: &Gateway, query: &str, bytes: usize) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("an option");
        socket.connect(&gateway.http.into()).expect("connected");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self::over(stream, query)
    }

    /// The same over a connection that is there.
    pub(crate) fn over(stream: TcpStream, query: &str) -> Self {
        let mut socket = Self::of(stream);
        let answer = socket.shake_hands(query);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        socket.hello = socket.message();
        assert_eq!(socket.hello["type"], "hello");
        // Behind it the first ping, which says that we answer them.
        let (opcode, payload) = socket.frame();
        assert_eq!(opcode, PING, "{}", String::from_utf8_lossy(&payload));
        socket.send(FIN | PONG, &payload);
        socket
    }

    fn of(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(Paced { stream, bytes_per_s: None }), hello: Value::Null }
    }

    /// Asks for the WebSocket and gives the head of the answer.
    fn shake_hands(&mut self, query: &str) -> String {
        let head =
            "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        self.bytes(format!("GET /ws{query} HTTP/1.1\r\n{head}\r\n{key}\r\n\r\n").as_bytes());
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut answer).expect("an answer in time"), 0, "{answer}");
        }
        answer
    }

    /// The status that a handshake is answered with.
    pub(crate) fn status_of_handshake(gateway: &Gateway) -> u16 {
        let answer = Self::of(connect(gateway.http)).shake_hands("");
        answer[9..12].parse().expect("a status")
    }

    /// From now on reads so many bytes a second, or again what there is.
    pub(crate) fn read_at_most(&mut self, bytes_per_s: Option<u64>) {
        self.stream.get_mut().bytes_per_s = bytes_per_s;
    }

    /// Sends one frame, masked as a client has to.
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = header(first, payload.len(), true);
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.bytes(&frame);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(FIN | TEXT, text.as_bytes());
    }

    /// Sends bytes as they are. The gateway may have closed already.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().stream.write_all(bytes);
    }

    /// Another handle that can send.
    pub(crate) fn sender(&self) -> Self {
        Self::of(self.stream.get_ref().stream.try_clone().expect("a handle"))
    }

    /// Goes away as a machine does that loses its power and comes back: no close, no goodbye.
    pub(crate) fn vanish(self) {
        let socket = socket2::SockRef::from(&self.stream.get_ref().stream);
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// The next frame: its opcode and payload. Where a replay is, which may come at any time, is left out.
    pub(crate) fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            let (opcode, payload) = self.any_frame();
            if !payload.starts_with(br#"{"type":"replay","#) {
                return (opcode, payload);
            }
        }
    }

    /// The next frame. What the gateway sends is whole and unmasked.
    fn any_frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame in time");
        assert_eq!(head[0] & 0x70, 0, "no extension was agreed on");
        assert_eq!((head[0] & FIN, head[1] & 0x80), (FIN, 0), "whole and unmasked");
        let mut wide = [0; 8];
        let len = match head[1] {
            126 => {
                self.stream.read_exact(&mut wide[6..]).expect("a length");
                u64::from_be_bytes(wide)
            }
            127 => {
                self.stream.read_exact(&mut wide).expect("a length");
                u64::from_be_bytes(wide)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(len).expect("it fits")];
        self.stream.read_exact(&mut payload).expect("a payload");
        (head[0] & 0x0f, payload)
    }

    /// The next message that is no heartbeat.
    pub(crate) fn word(&mut self) -> Value {
        loop {
            let message = self.message();
            if message["type"] != "hb" {
                return message;
            }
        }
    }

    /// The next message that is an answer: not where a replay is either.
    pub(crate) fn answer(&mut self) -> Value {
        loop {
            let word = self.word();
            if word["type"] != "replay" {
                return word;
            }
        }
    }

    /// The next message, which has to be text. Pings are answered.
    pub(crate) fn message(&mut self) -> Value {
        loop {
            let (opcode, payload) = self.frame();
            if opcode == PING {
                self.send(FIN | PONG, &payload);
                continue;
            }
            assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(&payload));
            return serde_json::from_slice(&payload).expect("JSON");
        }
    }

    /// The goodbye, and that nothing comes after it: its code in `bye` and in the close frame.
    pub(crate) fn goodbye(&mut self) -> (u64, u16) {
        let bye = self.message();
        assert_eq!(bye["type"], "bye", "{bye}");
        let code = self.close_frame();
        (bye["code"].as_u64().expect("a code"), code)
    }

    /// The close frame, and that nothing comes after it.
    pub(crate) fn close_frame(&mut self) -> u16 {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, CLOSE, "{}", String::from_utf8_lossy(&payload));
        assert_eq!(self.stream.read(&mut [0]).expect("closed in time"), 0, "nothing after the close");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

/// The header of a frame.
pub(crate) fn header(first: u8, len: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    match len {
        ..126 => vec![first, mask | len as u8],
        126..=0xffff => [&[first, mask | 126][..], &(len as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(len as u64).to_be_bytes()].concat(),
    }
}
