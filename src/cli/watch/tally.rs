//! Output of a watcher: delays, the line of counts, and the summary. Pure.

use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;

use super::ledger::SequenceLedger;
use super::message::Lag;
use super::states::States;
use crate::model::tick::Channel;
use crate::time::clock::SECOND;

/// Delays of updates, from the gateway's `rx` to this process.
#[derive(Debug)]
pub struct Delays {
    us: Histogram<u64>,
    negative: u64,
    lost: u64,
}

impl Delays {
    /// Creates an empty histogram.
    ///
    /// # Panics
    /// Never: three significant digits are valid for a histogram.
    pub fn new() -> Self {
        // It grows as needed, so that no value is clamped.
        Self { us: Histogram::new(3).expect("three digits"), negative: 0, lost: 0 }
    }

    /// Records an update that the gateway received at `rx_us` and this process at `arrival_us`, both
    /// microseconds since the Unix epoch.
    pub fn record(&mut self, rx_us: u64, arrival_us: u64) {
        match arrival_us.checked_sub(rx_us) {
            // The histogram cannot hold values from 2^63 on.
            Some(us) => self.lost += u64::from(self.us.record(us).is_err()),
            None => self.negative += 1,
        }
    }

    /// Number of updates with a negative delay: the two clocks differ.
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

/// Microseconds, displayed as whole µs, or as ms or s with two decimals.
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

/// A whole number with separators: 3,120.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A `lag` message as text.
pub fn lag(lag: &Lag<'_>) -> String {
    let mut text = format!("lag: {}, {} ms behind", &*lag.level, Grouped(lag.behind_ms));
    // Writing to a string cannot fail.
    if let Some(cut_in_ms) = lag.cut_in_ms {
        let _ = write!(text, ", cut in {} ms", Grouped(cut_in_ms));
    }
    if lag.queued_bytes > 0 {
        let _ = write!(text, ", {} bytes queued", Grouped(lag.queued_bytes));
    }
    if lag.merged > 0 || lag.dropped > 0 {
        let _ = write!(text, "; so far merged {}, dropped {}", Grouped(lag.merged), Grouped(lag.dropped));
    }
    text
}

/// The levels of the ladder in order; the last stands for levels of other versions.
const LEVELS: [&str; 5] = ["ok", "warn", "shed", "cut", "other"];

/// History of the client's levels on the ladder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    level: usize,
    times: [u64; LEVELS.len()],
    behind_ms_max: u64,
    merged: u64,
    dropped: u64,
}

impl Ladder {
    /// Processes the next `lag`; true if the level has changed.
    pub fn hear(&mut self, lag: &Lag<'_>) -> bool {
        let level = LEVELS.iter().position(|level| **level == *lag.level).unwrap_or(LEVELS.len() - 1);
        let moved = level != self.level;
        self.times[level] += u64::from(moved);
        self.level = level;
        self.behind_ms_max = self.behind_ms_max.max(lag.behind_ms);
        // The counts only grow, and a repeated level may be older.
        self.merged = self.merged.max(lag.merged);
        self.dropped = self.dropped.max(lag.dropped);
        moved
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.times.iter().all(|times| *times == 0) {
            return f.write_str("never");
        }
        let told = LEVELS.iter().zip(self.times).filter(|(_, times)| *times > 0);
        for (at, (level, times)) in told.enumerate() {
            write!(f, "{}{level} {times}", if at == 0 { "" } else { ", " })?;
        }
        write!(
            f,
            "   at most {} ms behind   told: merged {}, dropped {}   {} at the end",
            Grouped(self.behind_ms_max),
            self.merged,
            self.dropped,
            LEVELS[self.level]
        )
    }
}

/// Events per second, rounded; 0 when no time has passed.
pub fn per_second(events: u64, elapsed_ns: u64) -> u64 {
    let per_second = u128::from(events) * u128::from(SECOND) / u128::from(elapsed_ns.max(1));
    if elapsed_ns == 0 { 0 } else { u64::try_from(per_second).unwrap_or(u64::MAX) }
}

/// The counts so far, on one line. Possible problems come first, because a narrow terminal truncates the end.
pub fn counts(ledger: &SequenceLedger, elapsed_ns: u64, updates_per_s: u64) -> String {
    let gaps = ledger.gaps_all();
    format!(
        "{:.1} s  breaks {}  gaps {} ({} ticks)  {updates_per_s} updates/s  trade {}  quote {}  merged {}",
        seconds(elapsed_ns),
        ledger.break_count(),
        gaps.count,
        gaps.ticks,
        ledger.heard(Channel::Trade).ticks,
        ledger.heard(Channel::Quote).ticks,
        ledger.heard_all().merged,
    )
}

/// The summary at the end.
pub fn summary(
    ledger: &SequenceLedger,
    delays: &Delays,
    ladder: &Ladder,
    elapsed_ns: u64,
    states: &States,
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_summary(&mut text, ledger, delays, ladder, elapsed_ns, states);
    text
}

fn write_summary(
    out: &mut String,
    ledger: &SequenceLedger,
    delays: &Delays,
    ladder: &Ladder,
    elapsed_ns: u64,
    states: &States,
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
    writeln!(out, "states      {states}")?;
    writeln!(out, "lag         {ladder}")?;
    writeln!(out, "rx→arrival  {delays}")?;
    if states.any_recorded() {
        writeln!(out, "            (of what is replayed, rx is when the frame was due)")?;
    }
    write_verdict(out, ledger)
}

fn write_gaps(out: &mut String, ledger: &SequenceLedger) -> fmt::Result {
    let gaps = ledger.gaps_all();
    write!(out, "gaps        {} naming {} ticks", gaps.count, gaps.ticks)?;
    for (at, (why, gaps)) in ledger.gaps().enumerate() {
        let (open, why) = (if at == 0 { ": " } else { ", " }, if why.is_empty() { "no reason" } else { why });
        write!(out, "{open}{why} {} ticks in {}", gaps.ticks, gaps.count)?;
    }
    writeln!(out)
}

fn write_verdict(out: &mut String, ledger: &SequenceLedger) -> fmt::Result {
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

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::watch::message::Message;

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
    fn what_is_wrong_stands_first_in_the_counts() {
        let mut ledger = SequenceLedger::new(true);
        ledger.unreadable("x");
        let counts = counts(&ledger, 3_600 * SECOND, 9_999);
        assert!(
            counts.starts_with("3600.0 s  breaks 1  gaps 0 (0 ticks)  9999 updates/s  trade 0"),
            "{counts}"
        );
        assert!(counts.len() <= 80, "{counts}");
    }

    fn step(level: &str, behind_ms: u64, cut_in_ms: Option<u64>, dropped: u64) -> Lag<'_> {
        Lag { level: level.into(), behind_ms, queued_bytes: 0, cut_in_ms, merged: 0, dropped }
    }

    #[test]
    fn a_lag_is_told_in_words() {
        assert_eq!(lag(&step("warn", 1_040, None, 0)), "lag: warn, 1,040 ms behind");
        let shed = Lag { queued_bytes: 262_144, merged: 9, ..step("shed", 3_120, Some(19_000), 1_000_000) };
        assert_eq!(
            lag(&shed),
            "lag: shed, 3,120 ms behind, cut in 19,000 ms, 262,144 bytes queued; so far merged 9, dropped 1,000,000"
        );
    }

    #[test]
    fn the_ladder_is_summed_up() {
        let mut ladder = Ladder::default();
        let moved = [
            step("ok", 0, None, 0),
            step("warn", 1_000, None, 0),
            step("shed", 3_120, Some(5), 7),
            step("shed", 4_000, Some(4), 7),
            step("new", 1, None, 8),
            step("warn", 600, None, 8),
        ];
        assert_eq!(moved.map(|lag| ladder.hear(&lag)), [false, true, true, false, true, true]);
        assert_eq!(
            ladder.to_string(),
            "warn 2, shed 1, other 1   at most 4,000 ms behind   told: merged 0, dropped 8   warn at the end"
        );
    }

    #[test]
    fn a_summary_names_the_breaks() {
        let mut ledger = SequenceLedger::new(true);
        let mut states = States::default();
        let none = summary(&ledger, &Delays::new(), &Ladder::default(), SECOND, &states);
        assert!(none.contains("states      none was told\n") && !none.contains("replayed"), "{none}");
        for text in [
            r#"{"type":"ack","op":"subscribe","ok":[{"symbol":"*"},{"symbol":"c:A","state":"live"},{"symbol":"c:B","state":"live"}]}"#,
            r#"{"type":"status","symbol":"c:C","state":"replay"}"#,
            r#"{"type":"status","symbol":"c:B","state":"down"}"#,
        ] {
            states.hear(&Message::parse(text).expect("reads"));
        }
        let held = summary(&ledger, &Delays::new(), &Ladder::default(), SECOND, &states);
        assert!(held.contains("states      1 down, 1 live, 1 replay\n"), "{held}");
        assert!(held.contains("(of what is replayed, rx is when the frame was due)\n"), "{held}");
        assert!(held.contains("lag         never\n"), "{held}");
        assert!(held.contains("gaps        0 naming 0 ticks\n"), "{held}");
        assert!(held.ends_with("breaks      0\nthe accounting rule held\n"), "{held}");
        (0..12).for_each(|at| ledger.unreadable(&at.to_string()));
        let broke = summary(&ledger, &Delays::new(), &Ladder::default(), SECOND, &states);
        assert!(broke.contains("  a message could not be read: 9\n  and 2 more\n"), "{broke}");
        assert!(broke.ends_with("BROKE\n"), "{broke}");
    }
}
