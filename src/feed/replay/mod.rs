//! Replay of recorded feeds: captures, merged by receive time, become frames again at their recorded pace. A
//! replay can be paused, moved to another position and played at another speed; it does not wait for clients.

mod capture_files;
mod control;
mod digest;
mod figures;
mod joins;
mod merged_capture;
mod output;
mod schedule;
mod seeker;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::capture_files::CaptureFiles;
use self::figures::Figures;
use self::merged_capture::{MergedCapture, Taken};
use self::output::Output;
use self::schedule::ReplaySchedule;
pub use self::schedule::SILENCE_NS_MAX;
use self::seeker::Seeker;
use super::line::{Line, LineLimits};
use super::recorder::Tap;
use super::sequencer::{LineId, Origin, Sequencer};
use crate::capture::CaptureError;
use crate::model::tick::Tick;
use crate::protocol::Moment;
use crate::protocol::replay::{OutOfSpan, PlayState, Playback, Span, Speed};
use crate::text::printable;
use crate::time::clock::{Clock, MS, Now};
use crate::venue::{ChecksOff, WireFormat};

pub use joins::Join;
pub use seeker::{SeekLimits, SeekMemory};

/// Which captures are replayed, and how.
#[derive(Clone, Debug)]
pub struct ReplaySpec {
    /// The captures; they are merged by receive time.
    pub files: Vec<PathBuf>,
    /// The venue format of the messages; `None` detects it from the content.
    pub venue: Option<WireFormat>,
    /// The speed.
    pub speed: Speed,
    /// Restarts at the beginning after the end.
    pub looped: bool,
    /// Ends at the first line or frame that cannot be read.
    pub strict: bool,
    /// The start position; `None` is the first record.
    pub from: Option<Moment>,
    /// Records received at this moment or later are left out.
    pub to: Option<Moment>,
    /// The longest silence that is played, in nanoseconds; the rest of a longer one is skipped.
    pub idle_ns_max: Option<u64>,
    /// Checks of the venue's messages that are skipped.
    pub checks_off: ChecksOff,
}

impl ReplaySpec {
    /// Returns a specification for these captures: at recorded speed, once.
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            venue: None,
            speed: Speed::RECORDED,
            looped: false,
            strict: false,
            from: None,
            to: None,
            idle_ns_max: None,
            checks_off: ChecksOff::default(),
        }
    }
}

/// Why captures cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture cannot be opened, or is not a capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Neither notes nor messages identify the venue.
    #[error(
        "{}: neither its notes nor its messages tell the venue: name it with --venue or `venue`",
        printable::path(.0)
    )]
    NoVenue(PathBuf),
    /// No captures were given.
    #[error("no captures are given")]
    NoFiles,
    /// `to` is not after `from`.
    #[error("`to` is not behind `from`: nothing would be replayed")]
    NoSpan,
    /// `from` is before the first record or after the last.
    #[error("`from`: {0}")]
    BeginOutOfSpan(OutOfSpan),
}

/// A line of a replay and its captures.
pub struct LineView<'a> {
    /// The captures that it reads, in order.
    pub files: Vec<&'a Path>,
    /// The line.
    pub line: &'a Line,
    /// Unreadable records of the captures.
    pub bad_lines: u64,
    /// One of the captures is truncated.
    pub is_truncated: bool,
}

/// The result of [`Replay::step`].
#[derive(Debug)]
pub enum ReplayStep {
    /// A record was taken.
    Took,
    /// The next record is due at this time.
    Due(Now),
    /// Nothing happens before the next command or the completion of a seek.
    Still,
    /// There are no more records.
    Ended,
    /// An unreadable record, as `file:line: fault`.
    Bad(String),
    /// A capture can no longer be opened.
    Lost(String),
}

/// How a replay stamps the receive time of its frames.
#[derive(Clone, Copy)]
pub enum Stamp<'a> {
    /// As recorded, without waiting.
    Recorded,
    /// When they are due, or at unlimited speed, when they are read.
    Live(&'a Clock),
}

/// The state of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Playing,
    Paused,
    /// A seek is in progress; `plays`: whether it plays afterwards.
    Seeking {
        plays: bool,
    },
    Ended,
}

/// A running replay of captures.
pub struct Replay {
    spec: ReplaySpec,
    merged_capture: MergedCapture,
    /// Kept until [`prepare`](Self::prepare) passes them to the seeker.
    capture_files: Option<Arc<CaptureFiles>>,
    seeker: Option<Seeker>,
    schedule: ReplaySchedule,
    mode: Mode,
    output: Output,
    figures: Figures,
    rounds: Rounds,
    extent: Extent,
    /// The published state has changed.
    changed: bool,
}

/// The rounds of a replay that loops.
#[derive(Default)]
struct Rounds {
    /// Completed rounds.
    completed: u64,
    /// The receive time of the newest record, nanoseconds since the Unix epoch.
    last_rx_ns: u64,
    /// Steady times in nanoseconds: when the first record of this round was taken, and the earliest start of
    /// the next round.
    began_ns: Option<u64>,
    resume_at_ns: u64,
}

/// The part of the captures that is replayed.
struct Extent {
    /// Receive times of the captures, in nanoseconds since the Unix epoch: the first record, the start, and
    /// the exclusive end.
    start_ns: u64,
    from_ns: u64,
    to_ns: Option<u64>,
    /// The numbers of the first tick and of the one after the last, if known.
    first_tick: Option<u64>,
    end_tick: Option<u64>,
    /// The receive time of the last record, or `to`, once playback has reached it.
    end_ns: Option<u64>,
    /// The end that the last call of `take_changed` found.
    reported_end_ns: Option<u64>,
}

/// The shortest round of a loop in nanoseconds, so that a capture of one record does not occupy a core.
const ROUND_NS_MIN: u64 = 10 * MS;
/// Maximum number of ranges of ticks that a summary lists.
const SPANS_SHOWN: usize = 8;

impl Replay {
    /// Opens the captures and determines their venues and order. Its lines are numbered from `first` on.
    ///
    /// # Errors
    /// [`ReplayError`] names the capture.
    pub fn open(spec: ReplaySpec, limits: &LineLimits, first: LineId) -> Result<Self, ReplayError> {
        let limits = LineLimits { checks_off: spec.checks_off, ..limits.clone() };
        let (mut merged_capture, capture_files) =
            MergedCapture::open(&spec.files, spec.venue, &limits, first)?;
        let start_ns = merged_capture.next_ns().unwrap_or(0);
        let from_ns = spec.from.map_or(start_ns, |from| from.ns(start_ns).max(start_ns));
        let to_ns = spec.to.map(|to| to.ns(start_ns));
        if to_ns.is_some_and(|to| to <= from_ns) {
            return Err(ReplayError::NoSpan);
        }
        let schedule = ReplaySchedule::new(spec.speed, spec.idle_ns_max);
        Ok(Self {
            merged_capture,
            capture_files: Some(capture_files),
            seeker: None,
            schedule,
            mode: Mode::Playing,
            output: Output::default(),
            figures: Figures::new(),
            rounds: Rounds::default(),
            extent: Extent {
                start_ns,
                from_ns,
                to_ns,
                first_tick: (from_ns <= start_ns).then_some(0),
                end_tick: None,
                end_ns: None,
                reported_end_ns: None,
            },
            changed: true,
            spec,
        })
    }

    /// Starts the seeker: from here on [`Seek`](crate::protocol::replay::ReplayCommand::Seek) works, and the
    /// replay begins at `from`. `wake` is notified when a seek completes. `name` is the prefix of the names
    /// of its threads.
    ///
    /// # Errors
    /// The I/O error if a thread cannot be started.
    pub fn prepare(
        &mut self,
        name: &str,
        instruments_max: usize,
        limits: SeekLimits,
        wake: Arc<Notify>,
    ) -> std::io::Result<()> {
        let Some(capture_files) = self.capture_files.take() else { return Ok(()) };
        let seeker = Seeker::start(name, capture_files, instruments_max, limits, wake)?;
        seeker.rest(self.spec.speed.is_flat_out());
        self.seeker = Some(seeker);
        if self.extent.from_ns > self.extent.start_ns {
            self.go(self.extent.from_ns, true);
        }
        Ok(())
    }

    /// Returns the memory of its checkpoints, once it is [prepared](Self::prepare).
    pub fn seek_memory(&self) -> Option<SeekMemory> {
        self.seeker.as_ref().map(Seeker::memory)
    }

    /// Checks that `from` is between the first record and the last. Waits until the last one is known, at
    /// most for `patience`, since the end may be far away.
    ///
    /// # Errors
    /// [`ReplayError::BeginOutOfSpan`] names both, or the first record alone while the last is unknown.
    pub fn begin_where_there_is_something(&self, patience: Duration) -> Result<(), ReplayError> {
        let Some(from) = self.spec.from else { return Ok(()) };
        let gone = self.seeker.as_ref().filter(|_| self.extent.from_ns > self.extent.start_ns);
        let last_ns =
            gone.and_then(|seeker| seeker.wait_for_end_before(patience)).or_else(|| self.known_end_ns());
        let (from_us, to_us) = (self.extent.start_ns / 1_000, last_ns.map(|last_ns| last_ns / 1_000));
        let span = Span { start_ns: self.extent.start_ns, from_us, to_us };
        span.check(from).map_err(ReplayError::BeginOutOfSpan)
    }

    /// Returns the specification of this replay.
    pub fn spec(&self) -> &ReplaySpec {
        &self.spec
    }

    /// Returns its lines. At the start each capture has one; a capture that continues another moves to that
    /// one's line.
    pub fn lines(&self) -> impl Iterator<Item = LineView<'_>> {
        let MergedCapture { lines, reads, bad_lines, truncated, capture_files, .. } = &self.merged_capture;
        reads.by_line(capture_files).into_iter().map(move |(line, sources)| LineView {
            bad_lines: sources.iter().map(|source| bad_lines[*source]).sum(),
            files: sources.iter().map(|source| capture_files.captures[*source].path()).collect(),
            is_truncated: sources.iter().any(|source| truncated[*source]),
            line: &lines[line],
        })
    }

    /// Returns the joins of captures so far, the first thousand of them.
    pub fn joins(&self) -> Vec<Join> {
        self.merged_capture.reads.joins(&self.merged_capture.capture_files)
    }

    /// Returns the captures that are empty.
    pub fn empty(&self) -> &[PathBuf] {
        &self.merged_capture.capture_files.empty
    }

    /// Returns for each capture, in order, whether it is truncated: at its end or, in a recording, at the end
    /// of one of its files.
    pub fn truncated(&self) -> impl Iterator<Item = bool> {
        self.merged_capture.truncated.iter().copied()
    }

    /// Records the input of its lines; `tap` is called for the tap of each.
    ///
    /// # Errors
    /// Those of `tap`.
    pub fn record<E>(&mut self, mut tap: impl FnMut(&Line) -> Result<Tap, E>) -> Result<(), E> {
        self.merged_capture.lines.iter_mut().try_for_each(|line| {
            let tap = tap(line)?;
            line.record(tap);
            Ok(())
        })
    }

    /// Returns the compressed bytes of its captures read in this round, and their total.
    pub fn progress(&self) -> (u64, u64) {
        self.merged_capture.merged.progress()
    }

    /// Returns how many times the captures have been played to the end.
    pub fn rounds(&self) -> u64 {
        self.rounds.completed
    }

    /// Primes the lines with the first frames of their captures: see [`Line::prime`].
    pub fn prime(&mut self, sequencer: &mut Sequencer) {
        self.merged_capture.prime(sequencer);
        self.output.begin(sequencer.table());
    }

    /// Returns true if the replay has ended.
    pub fn is_over(&self) -> bool {
        self.mode == Mode::Ended
    }

    // ---- records --------------------------------------------------------------------------------------

    /// Takes the next record if it is due, and passes its ticks to `out`.
    pub fn step(
        &mut self,
        now: Now,
        stamp: Stamp<'_>,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) -> ReplayStep {
        match self.mode {
            Mode::Playing => {}
            Mode::Paused if self.output.steps() == 0 => return ReplayStep::Still,
            Mode::Paused if self.output.holds() => return self.let_go(&mut out),
            Mode::Paused => {}
            Mode::Seeking { plays } => return self.arrive(plays, now, sequencer, out),
            Mode::Ended => return ReplayStep::Still,
        }
        if self.rounds.resume_at_ns > now.mono_ns {
            return ReplayStep::Due(Now { mono_ns: self.rounds.resume_at_ns, wall_ns: now.wall_ns });
        }
        let next_ns =
            self.merged_capture.next_ns().filter(|next| self.extent.to_ns.is_none_or(|to| *next < to));
        let Some(next_ns) = next_ns else { return self.end(now, stamp, sequencer, out) };
        let (rx_ns, due, clock) = match stamp {
            Stamp::Recorded => (None, None, None),
            Stamp::Live(clock) if self.mode == Mode::Paused => (Some(clock.wall_ns()), None, None),
            Stamp::Live(clock) => match self.schedule.due(next_ns, now) {
                Some(due) if due.mono_ns > now.mono_ns => return ReplayStep::Due(due),
                Some(due) => (Some(due.wall_ns), Some(due.mono_ns), Some(clock)),
                None => (Some(clock.wall_ns()), None, None),
            },
        };
        self.rounds.began_ns.get_or_insert(now.mono_ns);
        let Taken { rx_ns, bad, stepped_back_ns } = self.take(rx_ns, now.mono_ns, sequencer, out);
        self.figures.stepped(stepped_back_ns, self.schedule.silence_ns(next_ns));
        self.schedule.took(next_ns);
        self.rounds.last_rx_ns = self.rounds.last_rx_ns.max(rx_ns);
        if let Some((due_ns, clock)) = due.zip(clock) {
            self.figures.late(clock.now().mono_ns.saturating_sub(due_ns));
        }
        bad.map_or(ReplayStep::Took, ReplayStep::Bad)
    }

    /// Takes the next record. Ticks beyond the last one of a step are held back.
    fn take(
        &mut self,
        rx_ns: Option<u64>,
        heard_ns: u64,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) -> Taken {
        let (output, is_stepping) = (&mut self.output, self.mode == Mode::Paused);
        let taken = self.merged_capture.take(rx_ns, heard_ns, sequencer, |number, tick| {
            output.take(number, tick, is_stepping, &mut out);
        });
        self.changed |= is_stepping && output.steps() == 0;
        taken
    }

    /// Publishes held ticks as far as the step allows.
    fn let_go(&mut self, out: &mut impl FnMut(&Tick)) -> ReplayStep {
        self.output.release_steps(out);
        self.changed |= self.output.steps() == 0;
        ReplayStep::Took
    }

    /// Handles the end of the captures: ends the replay, or restarts it.
    fn end(
        &mut self,
        now: Now,
        stamp: Stamp<'_>,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) -> ReplayStep {
        let rx_ns = match stamp {
            Stamp::Recorded => self.rounds.last_rx_ns,
            Stamp::Live(_) => now.wall_ns,
        };
        self.extent.end_tick = Some(self.merged_capture.ticks);
        // If a record at `to` or later exists the end is `to`, otherwise the last record.
        let cut_ns = self.extent.to_ns.filter(|_| self.merged_capture.next_ns().is_some());
        self.extent.end_ns = cut_ns.or_else(|| self.schedule.position_ns(None, now));
        if let Some(end_ns) = self.extent.end_ns {
            self.schedule.place(end_ns);
        }
        self.rounds.completed += 1;
        if !self.spec.looped {
            self.stand_at_end(rx_ns, sequencer, &mut out);
            return ReplayStep::Ended;
        }
        // No published value is valid at the beginning.
        for line in &mut self.merged_capture.lines {
            line.disconnected(rx_ns, sequencer, &mut out);
        }
        let resume_at_ns = self.rounds.began_ns.take().unwrap_or(now.mono_ns) + ROUND_NS_MIN;
        self.changed = true;
        if self.extent.from_ns > self.extent.start_ns {
            let steps = self.output.steps();
            self.go(self.extent.from_ns, self.mode == Mode::Playing);
            self.output.set_steps(steps);
            self.rounds.resume_at_ns = resume_at_ns;
            return ReplayStep::Took;
        }
        self.rounds.resume_at_ns = resume_at_ns;
        if let Err(error) = self.merged_capture.rewind() {
            // The file was removed while the loop ran, which ends the replay.
            self.stand_at_end(rx_ns, sequencer, &mut out);
            return ReplayStep::Lost(error.to_string());
        }
        self.schedule.rewind();
        self.prime(sequencer);
        ReplayStep::Took
    }

    /// Ends the replay and the streams of its lines.
    fn stand_at_end(&mut self, rx_ns: u64, sequencer: &mut Sequencer, out: &mut impl FnMut(&Tick)) {
        self.set_origin(Origin::Replay);
        for line in &mut self.merged_capture.lines {
            line.over(rx_ns, sequencer, out);
        }
        self.mode = Mode::Ended;
        self.output.set_steps(0);
        self.changed = true;
    }

    /// Ends the replay early, and the streams of its lines with it.
    pub fn stop(&mut self, now: Now, sequencer: &mut Sequencer, mut out: impl FnMut(&Tick)) {
        self.output.release_all(&mut out);
        self.schedule.stand(self.merged_capture.next_ns(), now);
        self.stand_at_end(now.wall_ns, sequencer, &mut out);
    }

    // ---- state and position ----------------------------------------------------------------------------

    /// Returns its state and position.
    pub fn playback(&mut self, now: Now) -> Playback {
        let next_ns = self.merged_capture.next_ns();
        let state = match self.mode {
            Mode::Playing => PlayState::Playing,
            Mode::Paused => PlayState::Paused,
            Mode::Seeking { .. } => PlayState::Seeking,
            Mode::Ended => PlayState::Ended,
        };
        let position_ns = self.schedule.position_ns(next_ns, now).unwrap_or(self.extent.from_ns);
        let reached_ns = || self.seeker.as_ref().map_or(0, Seeker::reached_ns);
        let to_ns = self.known_end_ns().unwrap_or_else(reached_ns).max(position_ns);
        Playback {
            state,
            position_us: position_ns / 1_000,
            from_us: self.extent.from_ns / 1_000,
            to_us: to_ns / 1_000,
            speed: self.schedule.speed(),
            looped: self.spec.looped,
        }
    }

    /// Returns the range of positions that it can seek to.
    pub fn span(&self) -> Span {
        let to_us = self.known_end_ns().map(|to_ns| to_ns / 1_000);
        Span { start_ns: self.extent.start_ns, from_us: self.extent.from_ns / 1_000, to_us }
    }

    /// Returns the end as far as it is known: the last record, but at most `to`.
    fn known_end_ns(&self) -> Option<u64> {
        let passed = self.seeker.as_ref().and_then(Seeker::end).map(|end| end.last_ns);
        [passed.or(self.extent.end_ns), self.extent.to_ns].into_iter().flatten().min()
    }

    /// Returns true if the state has changed since the last call. The position of a playing replay does not
    /// count.
    pub fn take_changed(&mut self) -> bool {
        let end_ns = self.known_end_ns();
        let end_changed = end_ns != std::mem::replace(&mut self.extent.reported_end_ns, end_ns);
        std::mem::take(&mut self.changed) || end_changed
    }

    /// Returns the digest of the published ticks, each tick of its captures counted once; `None` after too
    /// many seeks.
    pub fn digest(&self) -> Option<String> {
        let digest = self.output.digest()?.value()?;
        Some(format!("{digest:032x}"))
    }

    /// Returns a line about the published ticks and their punctuality.
    pub fn summary(&self) -> String {
        let (ticks, spans) =
            self.output.digest().map_or((0, &[][..]), |digest| (digest.ticks(), digest.spans()));
        let end_tick = match self.extent.to_ns {
            Some(_) => self.extent.end_tick,
            None => self.extent.end_tick.or_else(|| self.seeker.as_ref()?.end().map(|end| end.ticks)),
        };
        let whole = self.extent.first_tick.zip(end_tick).filter(|(first, end)| first <= end);
        let covered = whole.is_some_and(|(first, end)| match spans {
            [] => first == end,
            [one] => *one == (first, end),
            _ => false,
        });
        let of = whole.map_or_else(|| "?".to_owned(), |(first, end)| (end - first).to_string());
        let digest = self.digest().unwrap_or_else(|| "none".to_owned());
        let mut text = format!("ticks={ticks} of={of} digest={digest}");
        if !covered {
            // The summary counts from 1.
            let shown = spans.iter().take(SPANS_SHOWN).map(|(from, to)| format!("{}-{to}", from + 1));
            let more = if spans.len() > SPANS_SHOWN { ",…" } else { "" };
            let _ = write!(text, " part={}{more}", shown.collect::<Vec<_>>().join(","));
        }
        let truncated = self.truncated().filter(|truncated| *truncated).count();
        if truncated > 0 {
            let _ = write!(text, " truncated={truncated}");
        }
        self.figures.write(&mut text);
        text
    }

    /// Returns true if every line is silent: see [`look_for_silence`](Self::look_for_silence).
    pub fn is_silent(&self) -> bool {
        let mut heard =
            self.merged_capture.lines.iter().filter(|line| line.last_rx_ns().is_some()).peekable();
        heard.peek().is_some() && heard.all(Line::is_silent)
    }

    /// Marks lines as silent after `stale_after_ns` nanoseconds without a frame, or proportionally longer at
    /// less than recorded speed. Does nothing while paused.
    pub fn look_for_silence(
        &mut self,
        stale_after_ns: u64,
        now: Now,
        sequencer: &mut Sequencer,
        mut out: impl FnMut(&Tick),
    ) {
        if self.mode != Mode::Playing {
            return;
        }
        let speed = self.schedule.speed();
        let slower = if speed.is_flat_out() { 1.0 } else { speed.factor().min(1.0) };
        let longest_ns = (stale_after_ns as f64 / slower) as u64;
        for line in &mut self.merged_capture.lines {
            if line.silence_ns(now.mono_ns) > longest_ns {
                line.set_silent(true, now.wall_ns, sequencer, &mut out);
            }
        }
    }
}
