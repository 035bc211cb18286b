//! The compared servers: how each is started, and its resource usage as reported by the kernel.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::limit::Kind;
use crate::wire::TOKEN;

/// Argument with which this bench runs as a limit server.
pub(crate) const LIMIT_ARGUMENT: &str = "--serve-limit";
/// The kernel reports CPU time in hundredths of a second.
const USER_HZ: u64 = 100;
/// Connections that the gateway must accept, all from one address.
const CONNECTIONS: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tickfan,
    Limit(Kind),
    Ws,
    Uws,
}

impl Peer {
    pub(crate) const ALL: [Self; 6] = [
        Self::Limit(Kind::Each),
        Self::Limit(Kind::Batch),
        Self::Limit(Kind::Fifo),
        Self::Tickfan,
        Self::Uws,
        Self::Ws,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tickfan => "tickfan",
            Self::Limit(kind) => kind.name(),
            Self::Ws => "ws",
            Self::Uws => "uws",
        }
    }

    /// Why the server cannot run here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        let module = match self {
            Self::Tickfan | Self::Limit(_) => return None,
            Self::Ws => "ws",
            Self::Uws => "uwebsockets",
        };
        let folder = folder().join("node_modules").join(module);
        if !folder.is_dir() {
            return Some(format!("there is no {}: see `make bench-fanout`", folder.display()));
        }
        let mut node = Command::new("node");
        node.current_dir(crate::server::folder()).args(["-e", &format!("require({module:?})")]);
        match node.stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(status) if status.success() => None,
            Ok(_) => Some(format!("Node cannot load {module}")),
            Err(error) => Some(format!("node: {error}")),
        }
    }

    fn command(self) -> anyhow::Result<(PathBuf, Vec<String>)> {
        let given = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let script = |name: &str| given(&[&folder().join(name).to_string_lossy()]);
        Ok(match self {
            Self::Limit(kind) => (std::env::current_exe()?, given(&[LIMIT_ARGUMENT, kind.name()])),
            Self::Ws => (PathBuf::from("node"), script("ws.js")),
            Self::Uws => (PathBuf::from("node"), script("uws.js")),
            Self::Tickfan => {
                let binary =
                    std::env::var_os("TICKFAN_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tickfan").into());
                let mut words = given(&["serve", "--config"]);
                words.push(folder().join("tickfan.toml").to_string_lossy().into_owned());
                for setting in [
                    "shard.threads=1".to_owned(),
                    format!("publish.token={TOKEN}"),
                    format!("limits.connections_max={CONNECTIONS}"),
                    format!("limits.connections_per_address={CONNECTIONS}"),
                ] {
                    words.extend(["--set".to_owned(), setting]);
                }
                (binary.into(), words)
            }
        })
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// CPU times at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    at: Instant,
    pub(crate) server: Duration,
    load: Duration,
    /// Of core 0, by any process.
    core: Duration,
}

impl Used {
    /// Share of core 0 that processes other than the server used since `before`, and share of core 1 that
    /// processes other than a never-sleeping load used.
    pub(crate) fn by_others(&self, before: &Self) -> [f64; 2] {
        let wall = (self.at - before.at).as_secs_f64();
        let spent = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / wall;
        let core = spent(self.core, before.core) - spent(self.server, before.server);
        [core, 1.0 - spent(self.load, before.load)]
    }
}

/// CPU time of a process.
fn cpu_of(pid: &str) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain any character.
    let fields = stat.rsplit_once(')').context("no name")?.1;
    Ok(hertz(fields.split_whitespace().skip(11).take(2)))
}

/// Time in which core 0 was not idle: user, nice, system, interrupts, stolen.
fn core_0() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let row = stat.lines().find_map(|line| line.strip_prefix("cpu0 ")).context("no core 0")?;
    let fields: Vec<_> = row.split_whitespace().collect();
    Ok(hertz([0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| fields.get(at).copied())))
}

fn hertz<'a>(ticks: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * (1_000 / USER_HZ))
}

/// A running server, which is killed on drop.
pub(crate) struct Server {
    child: Child,
    pub(crate) ws: SocketAddr,
    pub(crate) publish: SocketAddr,
}

impl Server {
    pub(crate) fn start(peer: Peer, pinned: bool) -> anyhow::Result<Self> {
        let (program, words) = peer.command()?;
        let mut command = Command::new(if pinned { Path::new("taskset") } else { &program });
        if pinned {
            command.args(["-c", "0"]).arg(&program);
        }
        // Without settings from the environment of this machine.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TICKFAN_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", peer.name()))?;
        let stdout = child.stdout.take().context("no pipe")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on it is killed in any case.
        let mut server = Self { child, ws: nowhere, publish: nowhere };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = |key: &str| -> anyhow::Result<SocketAddr> {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            let word = word.map(|word| word.trim_end_matches("/ws"));
            word.and_then(|word| word.parse().ok()).with_context(|| format!("no {key} in {line:?}"))
        };
        (server.ws, server.publish) = (address("ws=ws://")?, address("publish=")?);
        Ok(server)
    }

    /// CPU time of all its threads so far, kernel included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// Resource usage so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Ok(Used { at: Instant::now(), server: self.cpu()?, load: cpu_of("self")?, core: core_0()? })
    }

    /// Its resident memory, bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
