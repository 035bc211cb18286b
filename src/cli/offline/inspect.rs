//! `tickfan inspect`: the content of a capture, i.e. its venue, times and counts, and what is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::{Captures, Doubts, Progress};
use crate::capture::{
    BadLine, CaptureReader, Form, Record, RecordFault, RecordKind, SegmentIndex, Unit, segments,
};
use crate::config::LimitsConfig;
use crate::feed::{Join, Line, LineId, LineStats, Origin, SILENCE_NS_MAX, Sequencer};
use crate::model::instrument::InstrumentTable;
use crate::model::tick::Body;
use crate::text::printable;
use crate::time::clock::{MS, SECOND};
use crate::time::rfc3339::{self, FractionDigits};
use crate::venue::{ChecksOff, WireFormat};

/// Most holes and unreadable lines that are reported individually; all are counted.
const TOLD_MAX: usize = 1_000;
/// Most of them in the text for people.
const SHOWN_MAX: usize = 20;

/// Cause of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The connection was lost.
    Disconnect,
    /// The recorder was restarted.
    Restart,
    /// The recorder could not keep up.
    Recorder,
    /// The recorder was killed while it wrote a block.
    Torn,
    /// The capture is truncated, or could not be read any further.
    Truncated,
    /// The venue's own sequence numbers or checksum failed.
    Venue,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Restart => "restart",
            Self::Recorder => "recorder",
            Self::Torn => "torn",
            Self::Truncated => "truncated",
            Self::Venue => "venue",
        }
    }
}

/// Data missing between two frames.
#[derive(Clone, Debug)]
struct Hole {
    cause: Cause,
    /// Receive time of the frame before the hole, or of the one after it if there is none before; and of the
    /// frame after it, if any.
    from_ns: Option<u64>,
    to_ns: Option<u64>,
    /// Number of frames, bytes or sequence numbers, depending on the cause.
    detail: String,
}

/// Counts of one symbol.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    trades: u64,
    quotes: u64,
    gaps: u64,
    /// Sequence numbers covered by the gaps.
    missing: u64,
}

/// Statistics of the receive times.
#[derive(Clone, Debug, Default)]
struct Times {
    first_ns: Option<u64>,
    last_ns: u64,
    /// Receive time of the previous frame.
    previous_ns: u64,
    steps_back: u64,
    /// Pauses that a replay treats as clock steps.
    steps_forward: u64,
    longest_step_back_ns: u64,
    longest_silence_ns: u64,
    silence_from_ns: Option<u64>,
    /// The current second, and its number of frames so far.
    second: u64,
    in_second: u64,
    most_in_second: u64,
}

impl Times {
    fn see(&mut self, rx_ns: u64) {
        if self.first_ns.is_some() {
            self.steps_forward += u64::from(rx_ns.saturating_sub(self.previous_ns) > SILENCE_NS_MAX);
            if rx_ns < self.previous_ns {
                self.steps_back += 1;
                self.longest_step_back_ns = self.longest_step_back_ns.max(self.previous_ns - rx_ns);
            } else if rx_ns - self.previous_ns > self.longest_silence_ns {
                (self.longest_silence_ns, self.silence_from_ns) =
                    (rx_ns - self.previous_ns, Some(self.previous_ns));
            }
        }
        self.previous_ns = rx_ns;
        self.first_ns = Some(self.first_ns.map_or(rx_ns, |first| first.min(rx_ns)));
        self.last_ns = self.last_ns.max(rx_ns);
        if self.second != rx_ns / SECOND {
            (self.second, self.in_second) = (rx_ns / SECOND, 0);
        }
        self.in_second += 1;
        self.most_in_second = self.most_in_second.max(self.in_second);
    }

    /// Receive time of the previous frame, if any.
    fn previous_ns(&self) -> Option<u64> {
        self.first_ns.map(|_| self.previous_ns)
    }

    fn span_ns(&self) -> u64 {
        self.first_ns.map_or(0, |first| self.last_ns - first)
    }
}

/// Content of a capture. Displays as text for people; [`to_json`](Self::to_json) is for programs.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    form: Form,
    /// Unit of the times, if they are numbers.
    unit: Option<Unit>,
    wire: WireFormat,
    bytes: u64,
    /// Segments and blocks of a recording.
    segments: u64,
    blocks: u64,
    times: Times,
    stats: LineStats,
    checks_off: ChecksOff,
    sent: u64,
    bad_lines: u64,
    bad: Vec<String>,
    symbols: BTreeMap<String, Counts>,
    holes: Holes,
}

/// What is missing from a capture.
#[derive(Debug, Default)]
struct Holes {
    /// The first of them, in order.
    listed: Vec<Hole>,
    by_cause: BTreeMap<Cause, u64>,
    /// Bytes discarded from torn blocks.
    torn_bytes: u64,
}

/// Reads a capture, or the folder of a recording, to its end. Its memory is bounded: symbols by
/// `limits.instruments_max`, individual reports by 1,000.
///
/// # Errors
/// A capture that does not open, or whose venue cannot be detected.
pub fn inspect(
    path: &Path,
    venue: Option<WireFormat>,
    checks_off: ChecksOff,
    limits: &LimitsConfig,
    progress: &mut Progress,
) -> anyhow::Result<Report> {
    let mut reader = CaptureReader::open(path)?;
    let wire = venue.or_else(|| reader.venue());
    let wire = wire.with_context(|| {
        format!("{}: the venue cannot be detected: name it with --venue", printable::path(path))
    })?;
    let mut inspection = Inspection::new(Report::new(path, &reader, wire, checks_off)?, limits);
    inspection.prime(&reader);
    loop {
        progress.step(|| reader.progress());
        match reader.next_record() {
            None => break,
            Some(Ok(record)) => inspection.take(&record),
            Some(Err(bad)) => inspection.bad(&bad),
        }
    }
    progress.end();
    Ok(inspection.finish())
}

/// How captures continue one another when they are replayed or normalised together. Displays as text for
/// people; [`to_json`](Self::to_json) is for programs.
#[derive(Debug)]
pub struct Joins(Vec<Join>);

/// Reads captures together to their end, to determine which continue which.
///
/// # Errors
/// A capture that does not open, or whose venue cannot be detected.
pub fn joins(captures: &Captures, limits: &LimitsConfig, progress: &mut Progress) -> anyhow::Result<Joins> {
    // Unreadable lines were already reported for each capture.
    let replay = super::read(super::open(captures, limits)?, &mut std::io::sink(), progress, |_, _| Ok(()))?;
    progress.end();
    Ok(Joins(replay.joins()))
}

impl Joins {
    /// The joins as JSON, with times in nanoseconds.
    pub fn to_json(&self) -> Value {
        let row = |Join { from, to, pause_ns, is_seamless }: &Join| {
            json!({
                "from": from.to_string_lossy(),
                "to": to.to_string_lossy(),
                "pause_ns": pause_ns,
                "seamless": is_seamless,
            })
        };
        json!({"joins": self.0.iter().map(row).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Joins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "none of these captures goes on from another");
        }
        for Join { from, to, pause_ns, is_seamless } in &self.0 {
            let how = if *is_seamless { "without a hole" } else { "books as far as the venue proves them" };
            let pause = Seconds(*pause_ns);
            writeln!(
                f,
                "{} goes on from {}, {pause} s later, {how}",
                printable::path(to),
                printable::path(from)
            )?;
        }
        Ok(())
    }
}

/// A capture that is being inspected.
struct Inspection {
    report: Report,
    line: Line,
    sequencer: Sequencer,
    table: Arc<InstrumentTable>,
    /// Indexed by instrument.
    symbols: Vec<Counts>,
    /// The hole before the next frame.
    open: Option<(Cause, String)>,
}

impl Inspection {
    fn new(report: Report, limits: &LimitsConfig) -> Self {
        let checks_off = report.checks_off;
        let table = Arc::new(InstrumentTable::new(limits.instruments_max.get()));
        let line_limits = super::line_limits(limits, checks_off);
        let line = Line::new(LineId(0), Origin::Replay, report.wire, line_limits);
        Self {
            report,
            line,
            sequencer: Sequencer::new(Arc::clone(&table)),
            table,
            symbols: Vec::new(),
            open: None,
        }
    }

    /// Primes the feed line like a replay, so that the ticks are the same.
    fn prime(&mut self, reader: &CaptureReader) {
        for record in reader.sample() {
            if let RecordKind::Frame(frame) = record.kind {
                self.line.prime(frame, &mut self.sequencer);
            }
        }
    }

    fn take(&mut self, record: &Record<'_>) {
        match record.kind {
            RecordKind::Frame(frame) => return self.frame(record, frame),
            RecordKind::Sent(_) => {
                self.report.sent += 1;
                return;
            }
            RecordKind::Note(_) => return,
            RecordKind::Joined => return self.line.joined(record.rx_ns, &mut self.sequencer, |_| {}),
            RecordKind::Segment(segment) if segment.continues => return,
            // The first connection of a capture interrupts nothing.
            RecordKind::Connected(_) if self.line.last_rx_ns().is_none() => return,
            RecordKind::Dropped { frames } => self.open = Some((Cause::Recorder, format!("{frames} frames"))),
            RecordKind::Segment(_) => {
                self.open.get_or_insert_with(|| (Cause::Restart, String::new()));
            }
            RecordKind::Connected(_) | RecordKind::Disconnected => {
                self.open.get_or_insert_with(|| (Cause::Disconnect, String::new()));
            }
        }
        self.line.disconnected(record.rx_ns, &mut self.sequencer, |_| {});
    }

    fn frame(&mut self, record: &Record<'_>, frame: &[u8]) {
        let Self { report, line, sequencer, table, symbols, open } = self;
        let rx_ns = record.rx_ns;
        let before_ns = report.times.previous_ns().or(Some(rx_ns));
        report.times.see(rx_ns);
        if let Some((cause, detail)) = open.take() {
            report.hole(cause, before_ns, Some(rx_ns), detail);
        }
        let taken = line.frame(rx_ns, frame, sequencer, |tick| {
            let at = tick.instrument.index();
            if symbols.len() <= at {
                symbols.resize(at + 1, Counts::default());
            }
            match tick.body {
                Body::Trade(_) => symbols[at].trades += 1,
                Body::Quote(_) => symbols[at].quotes += 1,
                Body::Gap { channel, from, .. } => {
                    let missing = tick.seq - from + 1;
                    symbols[at].gaps += 1;
                    symbols[at].missing += missing;
                    let symbol = table.get(tick.instrument).map_or("", |symbol| symbol.as_str());
                    let what = format!("{} of {symbol}, {missing} numbers", channel.name());
                    report.hole(Cause::Venue, before_ns, Some(rx_ns), what);
                }
                Body::Status(_) => {}
            }
        });
        if let Err(error) = taken {
            report.bad(format!("{}:{}: {error}", printable::path(&report.path), record.line));
        }
    }

    fn bad(&mut self, bad: &BadLine) {
        match &bad.fault {
            RecordFault::Torn { bytes, .. } => {
                self.report.holes.torn_bytes += bytes;
                self.open = Some((Cause::Torn, format!("{bytes} bytes")));
                return;
            }
            RecordFault::Io(error) => self.open = Some((Cause::Truncated, error.to_string())),
            _ => {}
        }
        self.report.bad(bad.to_string());
    }

    fn finish(self) -> Report {
        let Self { mut report, line, table, mut symbols, open, .. } = self;
        // A disconnect at the end of a capture loses nothing.
        if let Some((cause, detail)) = open.filter(|(cause, _)| *cause != Cause::Disconnect) {
            report.hole(cause, report.times.previous_ns(), None, detail);
        }
        // Some symbols are listed and have no tick.
        symbols.resize(table.len(), Counts::default());
        let counted = table.iter().zip(symbols);
        report.symbols = counted.map(|((_, symbol), counts)| (symbol.as_str().to_owned(), counts)).collect();
        report.stats = line.stats().clone();
        report
    }
}

impl Report {
    fn new(
        path: &Path,
        reader: &CaptureReader,
        wire: WireFormat,
        checks_off: ChecksOff,
    ) -> anyhow::Result<Self> {
        let files = if path.is_dir() { segments(path)? } else { vec![path.to_owned()] };
        let (mut parts, mut blocks) = (0, 0);
        for file in files {
            if let Some(index) = SegmentIndex::read(&file)? {
                parts += 1;
                blocks += index.blocks.len() as u64;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            form: reader.form(),
            unit: reader.unit(),
            wire,
            bytes: reader.progress().1,
            segments: parts,
            blocks,
            times: Times::default(),
            stats: LineStats::default(),
            checks_off,
            sent: 0,
            bad_lines: 0,
            bad: Vec::new(),
            symbols: BTreeMap::new(),
            holes: Holes::default(),
        })
    }

    fn bad(&mut self, what: String) {
        self.bad_lines += 1;
        if self.bad.len() < TOLD_MAX {
            self.bad.push(what);
        }
    }

    fn hole(&mut self, cause: Cause, from_ns: Option<u64>, to_ns: Option<u64>, detail: String) {
        *self.holes.by_cause.entry(cause).or_default() += 1;
        if self.holes.listed.len() < TOLD_MAX {
            self.holes.listed.push(Hole { cause, from_ns, to_ns, detail });
        }
    }

    /// Average frames per second, in thousandths.
    fn milli_frames_per_s(&self) -> u64 {
        let span_ms = (self.times.span_ns() / MS).max(1);
        self.stats.frames.saturating_mul(1_000_000) / span_ms
    }

    /// Whether it is truncated: data is missing at its end or, in a recording, at the end of one of its
    /// files.
    pub fn is_truncated(&self) -> bool {
        let has = |cause| self.holes.by_cause.contains_key(&cause);
        has(Cause::Torn) || has(Cause::Truncated)
    }

    /// The report as JSON, with times in nanoseconds since the Unix epoch.
    pub fn to_json(&self) -> Value {
        let (times, stats) = (&self.times, &self.stats);
        json!({
            "file": self.path.to_string_lossy(),
            "venue": self.wire.name(),
            "form": self.form.name(),
            "time_unit": self.unit.map(Unit::name),
            "bytes": self.bytes,
            "segments": self.segments,
            "blocks": self.blocks,
            "first_rx_ns": times.first_ns,
            "last_rx_ns": times.first_ns.map(|_| times.last_ns),
            "frames": stats.frames,
            "trades": stats.trades,
            "quotes": stats.quotes,
            "gaps": stats.gaps,
            "repeated": stats.repeated,
            "kinds": self.kinds_json(),
            "frames_per_s_milli": self.milli_frames_per_s(),
            "frames_per_s_most": times.most_in_second,
            "longest_silence_ns": times.longest_silence_ns,
            "longest_silence_from_ns": times.silence_from_ns,
            "clock_steps_back": times.steps_back,
            "clock_steps_forward": times.steps_forward,
            "clock_longest_step_back_ns": times.longest_step_back_ns,
            "sequence_breaks": stats.sequence_breaks,
            "checksums_good": stats.checksums_good,
            "checksums_bad": stats.checksums_bad,
            "crossed": stats.crossed,
            "refused": stats.refused.rows().into_iter().map(|(what, n)| (what.to_owned(), json!(n))).collect::<Map<_, _>>(),
            "checks_off": self.checks_off.names().collect::<Vec<_>>(),
            "sent": self.sent,
            "bad_lines": self.bad_lines,
            "bad": self.bad,
            "truncated": self.is_truncated(),
            "torn_bytes": self.holes.torn_bytes,
            "holes_by_cause": self.causes_json(),
            "holes": self.holes_json(),
            "symbols": self.symbols_json(),
        })
    }

    fn kinds_json(&self) -> Vec<Value> {
        let kinds = self.stats.kinds.iter();
        kinds.map(|kind| json!({"name": kind.name, "frames": kind.frames, "known": kind.known})).collect()
    }

    fn causes_json(&self) -> Map<String, Value> {
        self.holes.by_cause.iter().map(|(cause, n)| (cause.name().to_owned(), json!(n))).collect()
    }

    fn holes_json(&self) -> Vec<Value> {
        let row = |Hole { cause, from_ns, to_ns, detail }: &Hole| json!({"cause": cause.name(), "from_ns": from_ns, "to_ns": to_ns, "detail": detail});
        self.holes.listed.iter().map(row).collect()
    }

    fn symbols_json(&self) -> Vec<Value> {
        let row = |(symbol, counts): (&String, &Counts)| {
            let Counts { trades, quotes, gaps, missing } = counts;
            json!({"symbol": symbol, "trades": trades, "quotes": quotes, "gaps": gaps, "missing": missing})
        };
        self.symbols.iter().map(row).collect()
    }

    fn fmt_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LineStats {
            frames,
            trades,
            quotes,
            gaps,
            repeated,
            sequence_breaks,
            checksums_good,
            checksums_bad,
            ..
        } = &self.stats;
        let milli = self.milli_frames_per_s();
        writeln!(
            f,
            "  frames {frames}, {}.{:03} a second, {} in the busiest second",
            milli / 1_000,
            milli % 1_000,
            self.times.most_in_second
        )?;
        writeln!(f, "  trades {trades}, quotes {quotes}, gaps {gaps}, repeated {repeated}")?;
        writeln!(f, "  bad lines {}, sequence breaks {sequence_breaks}, sent {}", self.bad_lines, self.sent)?;
        if checksums_good + checksums_bad > 0 {
            writeln!(f, "  checksums good {checksums_good}, bad {checksums_bad}")?;
        }
        write!(f, "{}", Doubts { stats: &self.stats, checks_off: self.checks_off })?;
        for kind in self.stats.kinds.iter() {
            let unknown = if kind.known { "" } else { " (unknown)" };
            writeln!(f, "  {:>9} {}{unknown}", kind.frames, kind.name)?;
        }
        Ok(())
    }

    fn fmt_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = &self.times;
        let Some(first_ns) = times.first_ns else { return writeln!(f, "  no frames") };
        writeln!(f, "  from {} to {}, {} s", time(first_ns), time(times.last_ns), Seconds(times.span_ns()))?;
        let silence = Seconds(times.longest_silence_ns);
        write!(f, "  longest silence {silence} s")?;
        match times.silence_from_ns {
            Some(from_ns) => writeln!(f, ", from {}", time(from_ns))?,
            None => writeln!(f)?,
        }
        if times.steps_back > 0 {
            let longest = Seconds(times.longest_step_back_ns);
            writeln!(f, "  the clock stepped back {} times, at most {longest} s", times.steps_back)?;
        }
        if times.steps_forward > 0 {
            let times = times.steps_forward;
            writeln!(f, "  the clock stepped forward, or nothing came for over an hour, {times} times")?;
        }
        Ok(())
    }

    fn fmt_missing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holes.torn_bytes > 0 {
            writeln!(f, "  torn: {} bytes are cut off", self.holes.torn_bytes)?;
        }
        if self.is_truncated() {
            writeln!(f, "  truncated: not all of it could be read")?;
        }
        let all: u64 = self.holes.by_cause.values().sum();
        if all == 0 {
            return writeln!(f, "  no holes");
        }
        let causes: Vec<String> =
            self.holes.by_cause.iter().map(|(cause, n)| format!("{n} {}", cause.name())).collect();
        writeln!(f, "  holes {all}: {}", causes.join(", "))?;
        for Hole { cause, from_ns, to_ns, detail } in self.holes.listed.iter().take(SHOWN_MAX) {
            let to = to_ns.map_or_else(|| "the end".to_owned(), time);
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            let from = from_ns.map_or_else(|| "the beginning".to_owned(), time);
            writeln!(f, "    {} from {from} to {to}{detail}", cause.name())?;
        }
        more(f, all)
    }
}

/// Writes how many further rows are not shown.
fn more(f: &mut fmt::Formatter<'_>, all: u64) -> fmt::Result {
    match all.saturating_sub(SHOWN_MAX as u64) {
        0 => Ok(()),
        more => writeln!(f, "    and {more} more (--json has up to {TOLD_MAX})"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}, {} bytes in the form of {}",
            printable::path(&self.path),
            self.wire,
            self.bytes,
            self.form
        )?;
        if let Some(unit) = self.unit {
            write!(f, ", times in {unit}")?;
        }
        match self.segments {
            0 => writeln!(f)?,
            segments => writeln!(f, ", segments {segments}, blocks {}", self.blocks)?,
        }
        self.fmt_times(f)?;
        self.fmt_counts(f)?;
        for bad in self.bad.iter().take(SHOWN_MAX) {
            writeln!(f, "    {bad}")?;
        }
        more(f, self.bad_lines)?;
        self.fmt_missing(f)?;
        writeln!(f, "  symbols {}", self.symbols.len())?;
        for (symbol, Counts { trades, quotes, gaps, .. }) in self.symbols.iter().take(SHOWN_MAX) {
            writeln!(f, "    {symbol}: trades {trades}, quotes {quotes}, gaps {gaps}")?;
        }
        more(f, self.symbols.len() as u64)
    }
}

fn time(ns: impl std::borrow::Borrow<u64>) -> String {
    let mut text = Vec::new();
    rfc3339::write(*ns.borrow(), FractionDigits::Six, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Nanoseconds, displayed as seconds with three decimals.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / SECOND, self.0 % SECOND / MS)
    }
}
