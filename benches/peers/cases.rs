//! The cases, and how each figure is measured.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::load::{Load, Outcome, Pace, Plan};
use crate::server::{Peer, Server};
use crate::table::Column;

/// Criteria for a rate that a server sustains.
const DELIVERED_MIN: f64 = 0.999;
const P99_MAX_US: u64 = 100_000;
/// Ratio of the lowest failed to the highest sustained rate at which a search ends.
const PRECISION: f64 = 1.1;
const PROBES_MAX: usize = 24;
const PROBE: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(1);
/// Share of busy time beyond which the load itself limits the figure.
const BUSY_MAX: f64 = 0.95;
/// CPU share of other processes beyond which they distort the figure. The kernel samples it, so that less is
/// noise.
const OTHERS_MAX: f64 = 0.1;
/// Delay beyond which the publisher measures itself.
const LATE_MAX_US: u64 = 5_000;
/// Exponent of the zipf cases: the n-th symbol has the weight n^-ZIPF.
const ZIPF: f64 = 1.1;
const SYMBOLS: u32 = 1_000;
const EACH: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    A,
    B,
    C,
    Csat,
    D,
    Zipf,
    Hz,
}

impl Case {
    pub(crate) const ALL: [Self; 7] = [Self::A, Self::B, Self::C, Self::Csat, Self::D, Self::Zipf, Self::Hz];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::Csat => "csat",
            Self::D => "d",
            Self::Zipf => "zipf",
            Self::Hz => "hz",
        }
    }

    /// `scale` is the factor of the connections and of the rates.
    pub(crate) fn setups(self, scale: f64) -> Vec<Setup> {
        let conns: &[usize] = match self {
            Self::A | Self::B => &[1_000],
            Self::C | Self::Csat | Self::Hz => &[5_000],
            Self::D => &[10_000],
            Self::Zipf => &[1_000, 5_000, 15_000],
        };
        let scaled = |conns: &usize| ((*conns as f64 * scale) as usize).max(1);
        conns.iter().map(|conns| Setup { case: self, conns: scaled(conns), scale }).collect()
    }
}

/// A case with a number of connections.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    case: Case,
    pub(crate) conns: usize,
    scale: f64,
}

impl Setup {
    pub(crate) fn title(self) -> String {
        let (name, conns, rate) = (self.case.name(), self.conns, self.rate());
        let what = match self.case {
            Case::A => format!("{conns} connections, 1 symbol, {rate:.0} ticks/s"),
            Case::B => format!("{conns} connections, 1 symbol: saturation"),
            Case::C => format!("{conns} connections × {EACH} of {SYMBOLS} symbols, {rate:.0} ticks/s"),
            Case::Csat => format!("{conns} connections × {EACH} of {SYMBOLS} symbols: saturation"),
            Case::D => format!("{conns} idle connections, 1 subscription each"),
            Case::Zipf => format!(
                "{conns} connections × {EACH} of {SYMBOLS} symbols, both they and the ticks by Zipf {ZIPF}, \
                 {rate:.0} deliveries/s"
            ),
            Case::Hz => format!(
                "{conns} connections × {EACH} of {SYMBOLS} symbols, {rate:.0} quotes/s in, `latest` at 10 Hz out"
            ),
        };
        format!("{name}: {what}")
    }

    /// Ticks per second; deliveries per second in cases with a fixed number of deliveries, and at the start
    /// of a search.
    fn rate(self) -> f64 {
        match self.case {
            Case::A | Case::D => 100.0,
            Case::C => 5_000.0 * self.scale,
            Case::B | Case::Csat | Case::Zipf => 100_000.0 * self.scale,
            Case::Hz => 50_000.0 * self.scale,
        }
    }

    pub(crate) fn takes(self, peer: Peer) -> bool {
        // Only tickfan supports rates.
        self.case != Case::Hz || peer == Peer::Tickfan
    }

    fn plan(self) -> Plan {
        // The symbols of a connection are far apart in the sequence of ticks, so that consecutive ticks go to
        // different connections.
        let apart = SYMBOLS as usize / EACH;
        let spread = |conn: usize| (0..EACH).map(|at| ((conn + at * apart) as u32) % SYMBOLS).collect();
        let trades = r#""channel":"trade""#;
        match self.case {
            Case::A | Case::B | Case::D => {
                Plan { wants: vec![vec![0]; self.conns], sequence: vec![0], terms: trades, quotes: false }
            }
            Case::C | Case::Csat => Plan {
                wants: (0..self.conns).map(spread).collect(),
                sequence: (0..SYMBOLS).collect(),
                terms: trades,
                quotes: false,
            },
            Case::Hz => Plan {
                wants: (0..self.conns).map(spread).collect(),
                sequence: (0..SYMBOLS).collect(),
                terms: r#""channel":"quote","mode":"latest","max_hz":10"#,
                quotes: true,
            },
            Case::Zipf => {
                let mut zipf = Zipf::new();
                let wants = (0..self.conns).map(|_| {
                    let mut symbols = Vec::with_capacity(EACH);
                    while symbols.len() < EACH {
                        let symbol = zipf.draw();
                        if !symbols.contains(&symbol) {
                            symbols.push(symbol);
                        }
                    }
                    symbols
                });
                let wants = wants.collect();
                let sequence = (0..65_536).map(|_| zipf.draw()).collect();
                Plan { wants, sequence, terms: trades, quotes: false }
            }
        }
    }
}

/// Draws symbols pseudorandomly, with a fixed seed.
struct Zipf {
    /// Cumulative weights of the symbols.
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new() -> Self {
        let weights = (1..=SYMBOLS).map(|rank| f64::from(rank).powf(-ZIPF));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { sums: sums.collect(), state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn draw(&mut self) -> u32 {
        // Xorshift64*.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let point = bits as f64 / (1u64 << 53) as f64 * self.sums[self.sums.len() - 1];
        self.sums.partition_point(|sum| *sum < point) as u32
    }
}

const fn column(name: &'static str, decimals: usize, compared: bool) -> Column {
    Column { name, decimals, compared }
}

const STEADY: &[Column] = &[
    column("delivered %", 2, false),
    column("p50 ms", 2, false),
    column("p99 ms", 2, true),
    column("CPU µs/delivery", 2, true),
    column("KiB/connection", 1, false),
    column("load busy %", 0, false),
];
const SATURATION: &[Column] = &[
    column("deliveries/s", 0, true),
    column("ticks/s", 0, false),
    column("p99 ms", 1, false),
    column("CPU µs/delivery", 2, true),
    column("load busy %", 0, false),
];
const IDLE: &[Column] =
    &[column("KiB/connection", 1, true), column("CPU µs to connect and subscribe", 1, true)];
const RATES: &[Column] = &[
    column("updates/s per client and symbol", 2, false),
    column("p50 age ms", 1, false),
    column("p99 age ms", 1, false),
    column("CPU µs/update", 2, false),
    column("CPU µs/tick in", 2, false),
    column("KiB/connection", 1, false),
    column("load busy %", 0, false),
];

/// Runs a case, one server after the other.
pub(crate) struct Runner {
    setup: Setup,
    plan: Plan,
    window: Duration,
    pinned: bool,
    /// Result of a server's last search.
    found: HashMap<&'static str, f64>,
    notes: Vec<String>,
}

/// Result of one run of one server.
struct Measured {
    outcome: Outcome,
    /// Bytes of memory per connection.
    per_conn: f64,
}

impl Measured {
    fn share(&self) -> f64 {
        self.outcome.delivered as f64 / self.outcome.expected as f64
    }

    /// NaN if nothing arrived.
    fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.outcome.delivered == 0 {
            return f64::NAN;
        }
        self.outcome.latency_us.value_at_quantile(quantile) as f64 / 1e3
    }

    fn cpu_us_per(&self, count: f64) -> f64 {
        self.outcome.cpu.as_secs_f64() * 1e6 / count
    }

    fn holds(&self) -> bool {
        self.share() >= DELIVERED_MIN && self.outcome.latency_us.value_at_quantile(0.99) < P99_MAX_US
    }
}

impl Runner {
    pub(crate) fn new(setup: Setup, window: Duration, pinned: bool) -> Self {
        Self { plan: setup.plan(), setup, window, pinned, found: HashMap::new(), notes: Vec::new() }
    }

    pub(crate) fn setup(&self) -> Setup {
        self.setup
    }

    pub(crate) fn columns(&self) -> &'static [Column] {
        match self.setup.case {
            Case::A | Case::C | Case::Zipf => STEADY,
            Case::B | Case::Csat => SATURATION,
            Case::D => IDLE,
            Case::Hz => RATES,
        }
    }

    /// Remarks about the runs since the last call.
    pub(crate) fn notes(&mut self) -> impl Iterator<Item = String> {
        self.notes.drain(..)
    }

    /// The figures of one run, a row of the table.
    pub(crate) fn run(&mut self, peer: Peer) -> anyhow::Result<Vec<f64>> {
        let rate = self.setup.rate();
        match self.setup.case {
            Case::A | Case::C => self.steady(peer, rate),
            Case::Zipf => self.steady(peer, rate / self.plan.deliveries_per_tick()),
            Case::B | Case::Csat => self.saturate(peer, rate / self.plan.deliveries_per_tick()),
            Case::D => self.idle(peer),
            Case::Hz => self.rates(peer, rate),
        }
    }

    fn measure(&mut self, peer: Peer, rate: f64, window: Duration) -> anyhow::Result<Measured> {
        let server = Server::start(peer, self.pinned)?;
        let before = server.resident()?;
        let load = Load::open(&self.plan, server.ws, self.pinned)?;
        let per_conn = server.resident()?.saturating_sub(before) as f64 / self.setup.conns as f64;
        // Merged values never arrive, so that the wait is limited to a period.
        let (warm_up, drain) = match self.setup.case {
            Case::Hz => (Duration::from_secs(1), Duration::from_millis(150)),
            _ => (Duration::from_millis(500), DRAIN),
        };
        let pace = Pace { rate, warm_up, window, drain };
        let outcome = load.run(server.publish, pace, || server.used())?;
        ensure!(outcome.expected > 0, "no tick was due");
        if let Some(line) = outcome.told.lines().find(|line| line.contains(r#""error""#)) {
            self.notes.push(format!("{} to its publisher: {line}", peer.name()));
        }
        Ok(Measured { outcome, per_conn })
    }

    /// Adds a remark if the load itself limits a figure.
    fn doubt(&mut self, peer: Peer, measured: &Measured) {
        let outcome = &measured.outcome;
        let late_us = outcome.late_us.value_at_quantile(0.99);
        if outcome.busy > BUSY_MAX {
            let busy = outcome.busy * 100.0;
            self.notes.push(format!(
                "{}: the load was busy for {busy:.0} % of the time: the server may be faster",
                peer.name()
            ));
        }
        if late_us > LATE_MAX_US {
            let late_ms = late_us as f64 / 1e3;
            self.notes.push(format!(
                "{}: the publisher was held up, p99 {late_ms:.1} ms: it is part of the latency",
                peer.name()
            ));
        }
        let [server, load] = outcome.by_others.map(|share| share * 100.0);
        if self.pinned && server.max(load) > OTHERS_MAX * 100.0 {
            self.notes.push(format!(
                "{}: others took {server:.0} % of the server's core and {load:.0} % of the load's: do it again",
                peer.name()
            ));
        }
        if let Some(dropped) = outcome.told.lines().find(|line| line.contains(r#""dropped":"#))
            && measured.share() < 1.0
        {
            self.notes.push(format!("{} said {dropped}", peer.name()));
        }
    }

    fn steady(&mut self, peer: Peer, rate: f64) -> anyhow::Result<Vec<f64>> {
        let measured = self.measure(peer, rate, self.window)?;
        self.doubt(peer, &measured);
        Ok(vec![
            measured.share() * 100.0,
            measured.quantile_ms(0.5),
            measured.quantile_ms(0.99),
            measured.cpu_us_per(measured.outcome.delivered as f64),
            measured.per_conn / 1_024.0,
            measured.outcome.busy * 100.0,
        ])
    }

    /// The highest rate that holds; each probe uses a new server. The second search of a server starts below
    /// the result of the first.
    fn saturate(&mut self, peer: Peer, first: f64) -> anyhow::Result<Vec<f64>> {
        let window = self.window.min(PROBE);
        let (first, step) = match self.found.get(peer.name()) {
            Some(found) => (found * 0.75, 1.4),
            None => (first, 2.0),
        };
        let mut best = None;
        let rate = highest(first, step, |rate| {
            let measured = match self.measure(peer, rate, window) {
                Ok(measured) => measured,
                // A server that disconnects clients under load does not sustain this rate.
                Err(error) if best.is_some() => {
                    self.notes.push(format!("{} at {rate:.0} ticks/s: {error:#}", peer.name()));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            let holds = measured.holds();
            if holds {
                best = Some(measured);
            }
            Ok(holds)
        })?;
        let measured = best.context("no rate held")?;
        self.found.insert(peer.name(), rate);
        self.doubt(peer, &measured);
        Ok(vec![
            measured.outcome.delivered as f64 / measured.outcome.seconds,
            rate,
            measured.quantile_ms(0.99),
            measured.cpu_us_per(measured.outcome.delivered as f64),
            measured.outcome.busy * 100.0,
        ])
    }

    fn idle(&self, peer: Peer) -> anyhow::Result<Vec<f64>> {
        let server = Server::start(peer, self.pinned)?;
        let (resident, cpu) = (server.resident()?, server.cpu()?);
        let load = Load::open(&self.plan, server.ws, self.pinned)?;
        let cpu = server.cpu()?.saturating_sub(cpu);
        let resident = server.resident()?.saturating_sub(resident);
        drop(load);
        let conns = self.setup.conns as f64;
        Ok(vec![resident as f64 / 1_024.0 / conns, cpu.as_secs_f64() * 1e6 / conns])
    }

    fn rates(&mut self, peer: Peer, rate: f64) -> anyhow::Result<Vec<f64>> {
        let measured = self.measure(peer, rate, self.window)?;
        self.doubt(peer, &measured);
        let outcome = &measured.outcome;
        let subscriptions = (self.setup.conns * EACH) as f64;
        Ok(vec![
            outcome.delivered as f64 / subscriptions / outcome.seconds,
            measured.quantile_ms(0.5),
            measured.quantile_ms(0.99),
            measured.cpu_us_per(outcome.delivered as f64),
            measured.cpu_us_per(rate * outcome.seconds),
            measured.per_conn / 1_024.0,
            outcome.busy * 100.0,
        ])
    }
}

/// The highest rate that holds: multiplies until one fails, or divides until one holds, and then bisects the
/// interval.
fn highest(first: f64, step: f64, mut holds: impl FnMut(f64) -> anyhow::Result<bool>) -> anyhow::Result<f64> {
    let (mut rate, mut held, mut failed) = (first, None, None);
    for _ in 0..PROBES_MAX {
        if holds(rate)? {
            held = Some(rate);
        } else {
            failed = Some(rate);
        }
        rate = match (held, failed) {
            (Some(held), Some(failed)) if failed / held <= PRECISION => return Ok(held),
            (Some(held), Some(failed)) => f64::sqrt(held * failed),
            (Some(held), None) => held * step,
            (None, _) => rate / 2.0,
        };
    }
    bail!("no highest rate was found in {PROBES_MAX} probes: {held:?} held, {failed:?} did not")
}
