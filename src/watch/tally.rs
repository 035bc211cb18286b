//! What a watcher says about what it heard: delays, the line of counts, the summary. Pure.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;

use super::ledger::Ledger;
use crate::clock::SECOND;
use crate::tick::Channel;

/// How long updates took from the gateway's `rx` to here.
#[derive(Debug)]
pub struct Delays {
    us: Histogram<u64>,
    negative: u64,
    lost: u64,
}

impl Delays {
    /// No delays yet.
    ///
    /// # Panics
    /// Never: three digits are what a histogram can do.
    pub fn new() -> Self {
        // It grows as needed, so that nothing is ever clamped.
        Self { us: Histogram::new(3).expect("three digits"), negative: 0, lost: 0 }
    }

    /// Notes an update that was received at `rx_us` there and at `arrival_us` here, both microseconds
    /// since the Unix epoch.
    pub fn record(&mut self, rx_us: u64, arrival_us: u64) {
        match arrival_us.checked_sub(rx_us) {
            // The histogram cannot hold 2^63 and more.
            Some(us) => self.lost += u64::from(self.us.record(us).is_err()),
            None => self.negative += 1,
        }
    }

    /// How many updates arrived before they were received: the two clocks disagree.
    pub fn negative(&self) -> u64 {
        self.negative
    }
}

impl Default for Delays {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.us.is_empty() {
            f.write_str("nothing to measure")?;
        } else {
            for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
                write!(f, "{name} {}   ", Micros(self.us.value_at_quantile(quantile)))?;
            }
            write!(f, "max {}   of {}", Micros(self.us.max()), self.us.len())?;
        }
        write!(f, "   negative (clock skew) {}", self.negative)?;
        if self.lost > 0 {
            write!(f, "   too long to hold {}", self.lost)?;
        }
        Ok(())
    }
}

/// Microseconds, shown as µs, ms or s with three digits or more.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{us} µs"),
            1_000..1_000_000 => write!(f, "{:.2} ms", us / 1e3),
            _ => write!(f, "{:.2} s", us / 1e6),
        }
    }
}

/// Events per second, rounded; 0 when no time has passed.
pub fn per_second(events: u64, elapsed_ns: u64) -> u64 {
    let per_second = u128::from(events) * u128::from(SECOND) / u128::from(elapsed_ns.max(1));
    if elapsed_ns == 0 { 0 } else { u64::try_from(per_second).unwrap_or(u64::MAX) }
}

/// The counts so far, on one line.
pub fn counts(ledger: &Ledger, elapsed_ns: u64, updates_per_s: u64) -> String {
    let gaps = ledger.gaps_all();
    format!(
        "{:.1} s   trade {}   quote {}   {updates_per_s} updates/s   merged {}   gaps {} ({} ticks)   breaks {}",
        seconds(elapsed_ns),
        ledger.heard(Channel::Trade).ticks,
        ledger.heard(Channel::Quote).ticks,
        ledger.heard_all().merged,
        gaps.count,
        gaps.ticks,
        ledger.break_count(),
    )
}

/// What is said at the end.
pub fn summary(ledger: &Ledger, delays: &Delays, elapsed_ns: u64, replay: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, ledger, delays, elapsed_ns, replay);
    text
}

fn write_summary(
    out: &mut String,
    ledger: &Ledger,
    delays: &Delays,
    elapsed_ns: u64,
    replay: bool,
) -> fmt::Result {
    let all = ledger.heard_all();
    writeln!(out, "seconds     {:.3}", seconds(elapsed_ns))?;
    for channel in Channel::ALL {
        let heard = ledger.heard(channel);
        writeln!(
            out,
            "{:<12}{} ticks in {} updates, {} merged, {} snapshots",
            channel.name(),
            heard.ticks,
            heard.updates,
            heard.merged,
            heard.snapshots
        )?;
    }
    writeln!(out, "updates/s   {}", per_second(all.updates, elapsed_ns))?;
    writeln!(out, "merged      {}", all.merged)?;
    write_gaps(out, ledger)?;
    writeln!(out, "rx→arrival  {delays}")?;
    if replay {
        writeln!(out, "            (a replay: rx is when the frame was scheduled)")?;
    }
    write_verdict(out, ledger)
}

fn write_gaps(out: &mut String, ledger: &Ledger) -> fmt::Result {
    let gaps = ledger.gaps_all();
    write!(out, "gaps        {} naming {} ticks", gaps.count, gaps.ticks)?;
    for (at, (why, gaps)) in ledger.gaps().enumerate() {
        let (open, why) = (if at == 0 { ": " } else { ", " }, if why.is_empty() { "no reason" } else { why });
        write!(out, "{open}{why} {} ticks in {}", gaps.ticks, gaps.count)?;
    }
    writeln!(out)
}

fn write_verdict(out: &mut String, ledger: &Ledger) -> fmt::Result {
    let (count, kept) = (ledger.break_count(), ledger.breaks());
    writeln!(out, "breaks      {count}")?;
    if ledger.held() {
        return writeln!(out, "the accounting rule held");
    }
    for broken in kept {
        writeln!(out, "  {broken}")?;
    }
    if let Some(more) = count.checked_sub(kept.len() as u64).filter(|more| *more > 0) {
        writeln!(out, "  and {more} more")?;
    }
    writeln!(out, "the accounting rule BROKE")
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_delays_are_counted_apart() {
        let mut delays = Delays::new();
        assert_eq!(delays.to_string(), "nothing to measure   negative (clock skew) 0");
        delays.record(100, 99);
        delays.record(100, 100);
        delays.record(100, 250);
        delays.record(100, 2_500_100);
        delays.record(0, u64::MAX);
        assert_eq!(delays.negative(), 1);
        let text = delays.to_string();
        assert!(text.starts_with("p50 150 µs"), "{text}");
        assert!(text.contains("of 4   negative (clock skew) 1"), "{text}");
    }

    #[test]
    fn durations_have_their_unit() {
        let shown = [999, 1_000, 1_500_000].map(|us| Micros(us).to_string());
        assert_eq!(shown, ["999 µs", "1.00 ms", "1.50 s"]);
    }

    #[test]
    fn rates_know_no_time() {
        assert_eq!(
            (per_second(10, 0), per_second(10, SECOND / 2), per_second(u64::MAX, 1)),
            (0, 20, u64::MAX)
        );
    }

    #[test]
    fn a_summary_names_the_breaks() {
        let mut ledger = Ledger::new(true);
        let held = summary(&ledger, &Delays::new(), SECOND, true);
        assert!(held.contains("gaps        0 naming 0 ticks\n"), "{held}");
        assert!(held.ends_with("breaks      0\nthe accounting rule held\n"), "{held}");
        (0..12).for_each(|at| ledger.unreadable(&at.to_string()));
        let broke = summary(&ledger, &Delays::new(), SECOND, false);
        assert!(broke.contains("  a message could not be read: 9\n  and 2 more\n"), "{broke}");
        assert!(broke.ends_with("BROKE\n"), "{broke}");
    }
}
