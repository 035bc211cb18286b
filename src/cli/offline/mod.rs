//! Commands on captures without serving: normalise, convert, inspect, check, generate.

mod convert;
mod inspect;
mod progress;
mod sheet;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::capture::{CaptureError, CaptureWriter, Compression};
use crate::config::LimitsConfig;
use crate::feed::{
    LineId, LineLimits, LineStats, LineView, Replay, ReplaySpec, ReplayStep, Sequencer, Stamp,
};
use crate::model::instrument::InstrumentTable;
use crate::model::tick::{Body, Tick};
use crate::protocol::json::{self, EncodeFlags};
use crate::protocol::replay::Speed;
use crate::synth::{self, Spec};
use crate::system::atomic_file::AtomicFile;
use crate::text::printable;
use crate::time::clock::{Now, SECOND};
use crate::venue::{ChecksOff, WireFormat};

pub use convert::{OutputFormat, convert};
pub use inspect::{Joins, Report, inspect, joins};
pub use progress::Progress;

/// The captures to read.
#[derive(Clone, Debug)]
pub struct Captures {
    /// The files, merged by receive time.
    pub files: Vec<PathBuf>,
    /// Venue whose messages they contain; `None`: detected.
    pub venue: Option<WireFormat>,
    /// Stop at the first record that cannot be parsed.
    pub strict: bool,
    /// Disabled checks of the venue's messages.
    pub checks_off: ChecksOff,
}

/// Whether captures were read to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum InputEnd {
    /// All of them were complete.
    Whole,
    /// A capture, or a file of a recording, is truncated. This was reported, and everything else was read.
    Truncated,
}

impl InputEnd {
    fn of(replay: &Replay) -> Self {
        if replay.truncated().any(|truncated| truncated) { Self::Truncated } else { Self::Whole }
    }
}

/// The first record that cannot be parsed, with `strict`: `file:line: error`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadRecord(String);

/// Limits of the feed line of a capture.
fn line_limits(limits: &LimitsConfig, checks_off: ChecksOff) -> LineLimits {
    LineLimits {
        book_levels_max: limits.book_levels_max.get(),
        venues: None,
        instruments_max: usize::MAX,
        listed_max: usize::MAX,
        splice_messages_max: limits.splice_messages_max,
        splice_bytes_max: limits.splice_bytes_max,
        checks_off,
    }
}

/// Size of the output buffer, bytes.
const WRITE_BYTES: usize = 1 << 18;

/// Opened captures.
struct Opened {
    replay: Replay,
    sequencer: Sequencer,
}

/// Opens captures and detects their venues.
fn open(captures: &Captures, limits: &LimitsConfig) -> anyhow::Result<Opened> {
    let spec = ReplaySpec {
        venue: captures.venue,
        speed: Speed::FLAT_OUT,
        strict: captures.strict,
        checks_off: captures.checks_off,
        ..ReplaySpec::new(captures.files.clone())
    };
    let table = Arc::new(InstrumentTable::new(limits.instruments_max.get()));
    let mut sequencer = Sequencer::new(table);
    let line_limits = line_limits(limits, captures.checks_off);
    let mut replay = Replay::open(spec, &line_limits, LineId(0))?;
    replay.prime(&mut sequencer);
    Ok(Opened { replay, sequencer })
}

/// Reads captures to their end and passes each tick to `take`, with its recorded times. Bad records go to
/// `log`.
fn read(
    Opened { mut replay, mut sequencer }: Opened,
    log: &mut impl Write,
    progress: &mut Progress,
    mut take: impl FnMut(&Tick, &InstrumentTable) -> io::Result<()>,
) -> anyhow::Result<Replay> {
    let table = Arc::clone(sequencer.table());
    let mut failed = Ok(());
    loop {
        let step = replay.step(Now::default(), Stamp::Recorded, &mut sequencer, |tick| {
            if failed.is_ok() {
                failed = take(tick, &table);
            }
        });
        std::mem::replace(&mut failed, Ok(())).context("cannot write")?;
        progress.step(|| replay.progress());
        match step {
            ReplayStep::Took => {}
            ReplayStep::Bad(what) if replay.spec().strict => bail!(BadRecord(what)),
            ReplayStep::Bad(what) => writeln!(log, "{what}")?,
            ReplayStep::Ended | ReplayStep::Due(_) | ReplayStep::Still | ReplayStep::Lost(_) => {
                return Ok(replay);
            }
        }
    }
}

/// Prints each trade, quote and gap as one JSON line in the wire format, and the counts by kind to `log`.
///
/// # Errors
/// A capture that does not open, with `strict` the first bad record, or output that cannot be written.
pub fn normalize(
    captures: &Captures,
    limits: &LimitsConfig,
    out: impl Write,
    mut log: impl Write,
    progress: &mut Progress,
) -> anyhow::Result<InputEnd> {
    let mut out = BufWriter::with_capacity(WRITE_BYTES, out);
    let mut line = Vec::with_capacity(512);
    let opened = open(captures, limits)?;
    let replay = read(opened, &mut log, progress, |tick, table| {
        let Some(symbol) = table.get(tick.instrument) else { return Ok(()) };
        if matches!(tick.body, Body::Status(_)) {
            return Ok(());
        }
        line.clear();
        json::tick(tick, symbol, EncodeFlags::default(), &mut line);
        line.push(b'\n');
        out.write_all(&line)
    });
    let replay = match replay {
        // The reader has closed the output.
        Err(error) if is_broken_pipe(&error) => return Ok(InputEnd::Whole),
        other => other?,
    };
    match out.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(InputEnd::of(&replay)),
        other => other.context("cannot write")?,
    }
    progress.end();
    summary(&replay, &mut log)?;
    if let Some(digest) = replay.digest() {
        writeln!(log, "digest {digest}")?;
    }
    Ok(InputEnd::of(&replay))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The names of the captures of one feed line.
fn names(files: &[&Path]) -> String {
    match files {
        [] => String::new(),
        [one] => printable::path(one).to_string(),
        [first, .., last] => {
            format!("{} to {}, {} files", printable::path(first), printable::path(last), files.len())
        }
    }
}

/// Writes the counts of each capture.
fn summary(replay: &Replay, log: &mut impl Write) -> io::Result<()> {
    for path in replay.empty() {
        writeln!(log, "{}: nothing in it", printable::path(path))?;
    }
    for LineView { files, line, bad_lines, is_truncated } in replay.lines() {
        let LineStats {
            trades, quotes, gaps, repeated, sequence_breaks, checksums_good, checksums_bad, ..
        } = line.stats();
        writeln!(log, "{}: {}", names(&files), line.wire())?;
        writeln!(log, "  trades {trades}, quotes {quotes}, gaps {gaps}, repeated {repeated}")?;
        writeln!(log, "  bad lines {bad_lines}, sequence breaks {sequence_breaks}")?;
        if is_truncated {
            writeln!(log, "  truncated: not all of it could be read")?;
        }
        if checksums_good + checksums_bad > 0 {
            writeln!(log, "  checksums good {checksums_good}, bad {checksums_bad}")?;
        }
        write!(log, "{}", Doubts { stats: line.stats(), checks_off: replay.spec().checks_off })?;
        for kind in line.stats().kinds.iter() {
            let unknown = if kind.known { "" } else { " (unknown)" };
            writeln!(log, "  {:>9} {}{unknown}", kind.frames, kind.name)?;
        }
    }
    Ok(())
}

/// Messages of a capture that were discarded as invalid, and disabled checks; displays nothing if there are
/// none.
struct Doubts<'a> {
    stats: &'a LineStats,
    checks_off: ChecksOff,
}

impl fmt::Display for Doubts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stats.crossed > 0 {
            writeln!(f, "  crossed {}", self.stats.crossed)?;
        }
        let refused = self.stats.refused.rows().into_iter().filter(|(_, count)| *count > 0);
        let refused: Vec<String> = refused.map(|(what, count)| format!("{what} {count}")).collect();
        if !refused.is_empty() {
            writeln!(f, "  refused {}", refused.join(", "))?;
        }
        if self.checks_off != ChecksOff::default() {
            let names: Vec<&str> = self.checks_off.names().collect();
            writeln!(f, "  checks off: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Reads captures as [`normalize`] does, reports only errors, and returns whether there are none.
///
/// # Errors
/// A capture that does not open, or output that cannot be written.
pub fn check_captures(
    captures: &Captures,
    limits: &LimitsConfig,
    mut out: impl Write,
) -> anyhow::Result<bool> {
    let replay = read(open(captures, limits)?, &mut out, &mut Progress::hidden(), |_, _| Ok(()))?;
    let mut good = true;
    for LineView { files, line, bad_lines, is_truncated } in replay.lines() {
        let stats = line.stats();
        good &= bad_lines == 0 && !is_truncated;
        writeln!(
            out,
            "{}: {}, {} frames, {} trades, {} quotes, {bad_lines} bad lines, {} gaps{}",
            names(&files),
            line.wire(),
            stats.frames,
            stats.trades,
            stats.quotes,
            stats.gaps,
            if is_truncated { ", truncated" } else { "" },
        )?;
    }
    Ok(good)
}

/// Writes a synthetic capture to a file, compressed according to its extension, or to `out`. The file appears
/// once it is complete.
///
/// # Errors
/// An invalid specification, or output that cannot be written.
pub fn generate(
    spec: &Spec,
    file: Option<&Path>,
    out: impl Write,
    mut log: impl Write,
) -> anyhow::Result<()> {
    let summary = match file {
        None => {
            let mut writer = CaptureWriter::new(out, Compression::Plain)?;
            let summary = synth::generate(spec, &mut writer)?;
            writer.finish()?;
            summary
        }
        Some(path) => {
            let compression = match Compression::of_path(path) {
                // High compression: the file is written once and read often.
                Compression::Zstd(_) => Compression::SMALL,
                other => other,
            };
            let file = AtomicFile::create(path)
                .map_err(|source| CaptureError::Create { path: path.to_owned(), source })?;
            let mut writer = CaptureWriter::new(file, compression)?;
            let summary = synth::generate(spec, &mut writer)?;
            let written = writer.finish().and_then(AtomicFile::commit);
            written.with_context(|| format!("{}", printable::path(path)))?;
            summary
        }
    };
    writeln!(log, "{} messages", summary.messages)?;
    for (kind, count) in &summary.kinds {
        writeln!(log, "  {count:>9} {kind}")?;
    }
    Ok(())
}

/// Default start of a synthetic capture: fixed, so that the same command produces the same bytes.
pub const GENERATE_START_NS: u64 = 1_714_564_800 * SECOND;
