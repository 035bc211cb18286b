//! Recorded feeds: captures, merged by receive time, become frames again at their pace.

use std::path::PathBuf;

use super::line::{Line, LineLimits};
use super::market::{LineId, Market};
use super::recorder::Tap;
use crate::capture::{CaptureError, Kind, Merged, Reader};
use crate::clock::{Clock, Now, Pace};
use crate::tick::Tick;
use crate::venue::Wire;

/// Which captures are replayed, and how.
#[derive(Clone, Debug)]
pub struct ReplaySpec {
    /// The captures; they are merged by receive time.
    pub files: Vec<PathBuf>,
    /// Whose messages they hold; `None`: told by looking.
    pub venue: Option<Wire>,
    /// 1: as recorded; 0: flat out.
    pub speed: f64,
    /// From the end to the beginning again.
    pub looped: bool,
    /// Ends at the first line or frame that cannot be read.
    pub strict: bool,
}

/// Why captures cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// One does not open, or is no capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Nothing in it tells whose messages it holds.
    #[error("{0}: neither its notes nor its messages tell the venue: name it with --venue or `venue`")]
    NoVenue(PathBuf),
    /// No files.
    #[error("no captures are named")]
    NoFiles,
}

/// What a replay did when it was asked for a record.
#[derive(Debug)]
pub enum Step {
    /// It took in a record.
    Took,
    /// The next one is due at this time.
    Due(Now),
    /// There are no more.
    Ended,
    /// A record that cannot be read, `file:line: what was wrong`.
    Bad(String),
    /// The captures do not open any more: there is no next round.
    Lost(String),
}

/// How a replay stamps the frames it makes.
#[derive(Clone, Copy)]
pub enum Stamp<'a> {
    /// As they were recorded, without waiting.
    Recorded,
    /// As they come: when they are due, or, flat out, when they are read.
    Live(&'a Clock),
}

/// Captures being replayed.
pub struct Replay {
    spec: ReplaySpec,
    merged: Merged,
    lines: Vec<Line>,
    pace: Option<Pace>,
    /// Records of a source that could not be read, by source; the same in every round.
    bad_lines: Vec<u64>,
    rounds: u64,
    last_rx_ns: u64,
    /// Steady times: when this round began, and before when the next one may not.
    round_began_ns: u64,
    resume_at_ns: u64,
}

/// The shortest round of a loop, nanoseconds: a capture of one record does not take a core.
const ROUND_NS_MIN: u64 = 10 * crate::clock::MS;

impl Replay {
    /// Opens the captures and finds out what they hold. Its lines are numbered from `first` on.
    ///
    /// # Errors
    /// [`ReplayError`] names the capture.
    pub fn open(spec: ReplaySpec, limits: &LineLimits, first: LineId) -> Result<Self, ReplayError> {
        if spec.files.is_empty() {
            return Err(ReplayError::NoFiles);
        }
        let readers = open_all(&spec.files)?;
        let mut lines = Vec::with_capacity(readers.len());
        for (number, reader) in (first.0..).zip(&readers) {
            let wire = spec.venue.or_else(|| reader.venue());
            let wire = wire.ok_or_else(|| ReplayError::NoVenue(reader.path().to_path_buf()))?;
            lines.push(Line::new(LineId(number), wire, limits.clone()));
        }
        let bad_lines = vec![0; lines.len()];
        let merged = Merged::new(readers);
        Ok(Self {
            spec,
            merged,
            lines,
            pace: None,
            bad_lines,
            rounds: 0,
            last_rx_ns: 0,
            round_began_ns: 0,
            resume_at_ns: 0,
        })
    }

    /// How it was asked to replay.
    pub fn spec(&self) -> &ReplaySpec {
        &self.spec
    }

    /// Its captures, their lines, and how many records of each could not be read.
    pub fn lines(&self) -> impl Iterator<Item = (&PathBuf, &Line, u64)> {
        self.spec.files.iter().zip(&self.lines).zip(&self.bad_lines).map(|((f, l), b)| (f, l, *b))
    }

    /// Has what its lines take in recorded; `tap` is asked for the tap of each.
    ///
    /// # Errors
    /// Those of `tap`.
    pub fn record<E>(&mut self, mut tap: impl FnMut(&Line) -> Result<Tap, E>) -> Result<(), E> {
        self.lines.iter_mut().try_for_each(|line| {
            let tap = tap(line)?;
            line.record(tap);
            Ok(())
        })
    }

    /// Bytes of its captures that were read in this round, as they are packed, and how many they have.
    pub fn progress(&self) -> (u64, u64) {
        self.merged.readers().map(Reader::progress).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Whether everything from the first line on has been read once.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Lets the lines look at the first frames of their captures: see [`Line::prime`].
    pub fn prime(&mut self, market: &mut Market) {
        for (reader, line) in self.merged.readers().zip(&mut self.lines) {
            for record in reader.sample() {
                if let Kind::Frame(frame) = record.kind {
                    line.prime(frame, market);
                }
            }
        }
    }

    /// Takes in the next record if it is due, and hands out its ticks.
    pub fn step(&mut self, now: Now, stamp: Stamp<'_>, market: &mut Market, out: impl FnMut(&Tick)) -> Step {
        if self.resume_at_ns > now.mono_ns {
            return Step::Due(Now { mono_ns: self.resume_at_ns, wall_ns: now.wall_ns });
        }
        let Some(recorded_ns) = self.merged.peek_ns() else { return self.end(now, stamp, market, out) };
        let rx_ns = match stamp {
            Stamp::Recorded => None,
            Stamp::Live(clock) => {
                let speed = self.spec.speed;
                let pace = self.pace.get_or_insert_with(|| {
                    self.round_began_ns = now.mono_ns;
                    Pace::new(now, recorded_ns, speed)
                });
                match pace.due(recorded_ns) {
                    Some(due) if due.mono_ns > now.mono_ns => return Step::Due(due),
                    Some(due) => Some(due.wall_ns),
                    None => Some(clock.wall_ns()),
                }
            }
        };
        self.take(rx_ns, market, out)
    }

    fn take(&mut self, rx_ns: Option<u64>, market: &mut Market, mut out: impl FnMut(&Tick)) -> Step {
        let Some((source, record)) = self.merged.next_record() else { return Step::Took };
        let (line, bad) = (&mut self.lines[source], &mut self.bad_lines[source]);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                *bad += 1;
                return Step::Bad(error.to_string());
            }
        };
        let rx_ns = rx_ns.unwrap_or(record.rx_ns);
        self.last_rx_ns = self.last_rx_ns.max(rx_ns);
        match record.kind {
            Kind::Frame(frame) => {
                if let Err(error) = line.frame(rx_ns, frame, market, out) {
                    *bad += 1;
                    return Step::Bad(format!(
                        "{}:{}: {error}",
                        self.spec.files[source].display(),
                        record.line
                    ));
                }
            }
            Kind::Connected(to) => line.connected(rx_ns, to, market, out),
            // Nobody can tell what is missing: books and sequences begin anew.
            Kind::Disconnected | Kind::Dropped { .. } => line.disconnected(rx_ns, market, &mut out),
            Kind::Segment(segment) if !segment.continues => line.disconnected(rx_ns, market, &mut out),
            Kind::Segment(_) | Kind::Sent(_) | Kind::Note(_) => {}
        }
        Step::Took
    }

    /// The captures are read: their lines are down, or begin again.
    fn end(&mut self, now: Now, stamp: Stamp<'_>, market: &mut Market, mut out: impl FnMut(&Tick)) -> Step {
        let rx_ns = match stamp {
            Stamp::Recorded => self.last_rx_ns,
            Stamp::Live(_) => now.wall_ns,
        };
        for line in &mut self.lines {
            line.disconnected(rx_ns, market, &mut out);
        }
        self.rounds += 1;
        if !self.spec.looped {
            return Step::Ended;
        }
        match open_all(&self.spec.files) {
            Ok(readers) => self.merged = Merged::new(readers),
            // It was there a moment ago: whoever took it away ends the loop.
            Err(error) => return Step::Lost(error.to_string()),
        }
        self.pace = None;
        self.resume_at_ns = self.round_began_ns.saturating_add(ROUND_NS_MIN);
        self.prime(market);
        Step::Took
    }

    /// Ends it before its time: what its lines spoke for is down.
    pub fn stop(&mut self, now: Now, market: &mut Market, mut out: impl FnMut(&Tick)) {
        for line in &mut self.lines {
            line.disconnected(now.wall_ns, market, &mut out);
        }
    }

    /// Whether every line is silent: see [`set_silent`](Self::set_silent).
    pub fn is_silent(&self) -> bool {
        self.lines.iter().all(Line::is_silent)
    }

    /// Says of every line whether it has been silent for too long.
    pub fn set_silent(&mut self, since_ns: u64, now: Now, market: &mut Market, mut out: impl FnMut(&Tick)) {
        for line in &mut self.lines {
            if line.last_rx_ns().is_some_and(|last| last < since_ns) {
                line.set_silent(true, now.wall_ns, market, &mut out);
            }
        }
    }
}

fn open_all(files: &[PathBuf]) -> Result<Vec<Reader>, CaptureError> {
    files.iter().map(Reader::open).collect()
}
