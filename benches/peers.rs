//! Compares the fan-out of the gateway with other servers, and with the limit of the machine. Each server
//! runs in turn on core 0, the load on core 1; ticks arrive over TCP and go to WebSocket subscribers. `make
//! bench-fanout` runs it and installs the other servers; environment:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `TICKFAN_BENCH_CASES` | a, b, c, csat, d, zipf, hz (all) |
//! | `TICKFAN_BENCH_PEERS` | limit, limit-batch, limit-fifo, tickfan, uws, ws (all) |
//! | `TICKFAN_BENCH_SECONDS` | seconds of a measurement, at most 2 of a saturation probe (4) |
//! | `TICKFAN_BENCH_REPEAT` | repetitions, alternating all servers; medians are shown (2) |
//! | `TICKFAN_BENCH_SCALE` | factor of connections and rates: 0.1 for a quick functional check (1) |
//! | `TICKFAN_BIN` | the gateway to run, instead of the one built with this bench |
//!
//! `limit`, `limit-batch` and `limit-fifo` are not usable servers: they only send (`peers/limit.rs`), each in
//! another order. Absolute figures of different machines or days are not comparable; the ratios are, roughly.
//!
//! The CPU time is that of the server process, including the kernel's work for it: usually most of the work
//! of TCP over the loopback, the receiving side included. The memory of a connection is that of the server,
//! without the kernel's.
//!
//! Latency is the time from when a tick was due until it arrived, of those that arrived; the column beside it
//! shows their share. In a search for saturation, a rate holds if 99.9 % arrived and the p99 was below 100
//! ms. Only `tickfan` numbers and accounts for its messages, which are longer by that; the others forward the
//! publisher's line.

#[path = "peers/cases.rs"]
mod cases;
#[path = "peers/limit.rs"]
mod limit;
#[path = "peers/load.rs"]
mod load;
#[path = "peers/server.rs"]
mod server;
#[path = "peers/table.rs"]
mod table;
#[path = "peers/wire.rs"]
mod wire;

use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::cases::{Case, Runner};
use crate::server::{LIMIT_ARGUMENT, Peer};
use crate::table::Table;

struct Options {
    cases: Vec<Case>,
    peers: Vec<Peer>,
    window: Duration,
    repeat: usize,
    scale: f64,
}

impl Options {
    fn of_environment() -> anyhow::Result<Self> {
        let chosen = |name: &str, known: &[&'static str]| -> anyhow::Result<Vec<&'static str>> {
            let Some(text) = text(name) else { return Ok(known.to_vec()) };
            let one = |word: &str| known.iter().find(|name| **name == word.trim()).copied();
            let words = text.split(',').map(|word| {
                one(word).with_context(|| format!("{name}: there is no {word}, only {}", known.join(", ")))
            });
            words.collect()
        };
        let cases = chosen("TICKFAN_BENCH_CASES", &Case::ALL.map(Case::name))?;
        let peers = chosen("TICKFAN_BENCH_PEERS", &Peer::ALL.map(Peer::name))?;
        let seconds: f64 = number("TICKFAN_BENCH_SECONDS", 4.0)?;
        let (repeat, scale) = (number("TICKFAN_BENCH_REPEAT", 2)?, number("TICKFAN_BENCH_SCALE", 1.0)?);
        ensure!(
            seconds >= 0.5 && repeat > 0 && scale > 0.0,
            "at least half a second, and once, of something"
        );
        Ok(Self {
            cases: Case::ALL.into_iter().filter(|case| cases.contains(&case.name())).collect(),
            peers: Peer::ALL.into_iter().filter(|peer| peers.contains(&peer.name())).collect(),
            window: Duration::from_secs_f64(seconds),
            repeat,
            scale,
        })
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    let Some(text) = text(name) else { return Ok(default) };
    text.parse().ok().with_context(|| format!("{name}={text} is no number"))
}

/// Pins the load to core 1. Returns false if there is one core or no `taskset`: then nothing is pinned, and
/// the load sleeps between ticks.
fn pin() -> bool {
    let pid = std::process::id().to_string();
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
        && Command::new("taskset")
            .args(["-pc", "1", &pid])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// Most open files of this process.
fn files_max() -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = row.and_then(|row| row.split_whitespace().next()).context("no limit of open files")?;
    Ok(soft.parse().unwrap_or(usize::MAX))
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == LIMIT_ARGUMENT) {
        let kind = arguments.get(at + 1).and_then(|name| limit::Kind::of(name));
        limit::serve(kind.context("no such limit")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Cargo requests a list from each bench.
    if arguments.iter().any(|argument| argument == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options::of_environment()?;
    let mut out = io::stdout();
    let mut peers = Vec::new();
    for peer in options.peers {
        match peer.missing() {
            Some(why) => writeln!(out, "{} is left out: {why}", peer.name())?,
            None => peers.push(peer),
        }
    }
    if peers.is_empty() {
        bail!("nothing is left to run");
    }
    let pinned = pin();
    let files_max = files_max()?;
    writeln!(
        out,
        "{} × {} s each; {}",
        options.repeat,
        options.window.as_secs_f64(),
        if pinned { "the server on core 0, the load on core 1" } else { "nothing is pinned to a core" }
    )?;
    let mut failed = 0;
    for case in options.cases {
        for setup in case.setups(options.scale) {
            // A few dozen files are not connections.
            if setup.conns + 100 > files_max {
                let need = setup.conns + 100;
                writeln!(
                    out,
                    "\n{} is left out: it needs {need} open files, and `ulimit -n` is {files_max}",
                    setup.title()
                )?;
                continue;
            }
            let mut runner = Runner::new(setup, options.window, pinned);
            let mut table = Table::new(runner.setup().title(), runner.columns());
            for round in 1..=options.repeat {
                for peer in peers.iter().filter(|peer| setup.takes(**peer)) {
                    match runner.run(*peer) {
                        Ok(row) => table.add(peer.name(), &row),
                        Err(error) => {
                            failed += 1;
                            table.note(format!("{}, round {round}, failed: {error:#}", peer.name()));
                        }
                    }
                    runner.notes().for_each(|note| table.note(note));
                }
            }
            if !table.is_empty() {
                writeln!(out, "\n{}", table.markdown())?;
                out.flush()?;
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
