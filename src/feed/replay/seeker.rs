//! Seeking in the captures of a replay: checkpoints, the pass that creates them, and the thread that computes
//! the state at a position.
//!
//! A *checkpoint* is the complete state at one place. A low-priority thread passes once over the captures and
//! creates a checkpoint every so many bytes of their text; when there are too many, every second one is
//! dropped and the interval doubles. Another thread serves seeks: it takes the nearest checkpoint before the
//! target, plays on from there without publishing, and passes on the resulting state. The ingest thread waits
//! for neither.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

use super::capture_files::CaptureFiles;
use super::merged_capture::{Checkpoint, ShadowReplay};
use crate::model::instrument::InstrumentTable;
use crate::system::threads;

/// Limits of the checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct SeekLimits {
    /// Maximum number of checkpoints; 0 disables them, and every seek plays from the beginning.
    pub checkpoints_max: usize,
    /// Maximum memory of all checkpoints, in bytes.
    pub bytes_max: usize,
}

/// Bytes of text between two checkpoints, before the interval is doubled.
const STEP_BYTES: u64 = 1 << 20;
/// Records played between two checks for other requests.
const RECORDS_AT_ONCE: usize = 256;
/// How long the pass pauses while a replay at unlimited speed needs the CPU.
const REST: Duration = Duration::from_millis(50);

/// Checkpoints in the order of their places.
struct Checkpoints {
    limits: SeekLimits,
    list: Vec<Arc<Checkpoint>>,
    bytes: usize,
    step_bytes: u64,
    /// Memory is short, so none are kept.
    given_up: bool,
}

impl Checkpoints {
    fn new(limits: SeekLimits) -> Self {
        Self { limits, list: Vec::new(), bytes: 0, step_bytes: STEP_BYTES, given_up: false }
    }

    /// Returns true if a checkpoint is wanted after this much text.
    fn wants(&self, text_bytes: u64) -> bool {
        let behind = self.list.partition_point(|checkpoint| checkpoint.text_bytes <= text_bytes);
        let before = behind.checked_sub(1).map_or(0, |at| self.list[at].text_bytes);
        let is_far = |other: u64| text_bytes.abs_diff(other) >= self.step_bytes;
        self.limits.checkpoints_max > 0
            && !self.given_up
            && is_far(before)
            && self.list.get(behind).is_none_or(|next| is_far(next.text_bytes))
    }

    /// Drops all checkpoints and creates none while `short`. Returns how many were dropped.
    fn give_up(&mut self, short: bool) -> usize {
        self.given_up = short;
        if !short {
            return 0;
        }
        self.bytes = 0;
        std::mem::take(&mut self.list).len()
    }

    fn add(&mut self, checkpoint: Checkpoint) {
        if self.given_up {
            return;
        }
        let at = self.list.partition_point(|other| other.text_bytes <= checkpoint.text_bytes);
        self.bytes += checkpoint.bytes();
        self.list.insert(at, Arc::new(checkpoint));
        while self.list.len() > 1
            && (self.list.len() > self.limits.checkpoints_max || self.bytes > self.limits.bytes_max)
        {
            self.thin();
        }
    }

    /// Drops every second checkpoint.
    fn thin(&mut self) {
        self.step_bytes *= 2;
        let mut stays = false;
        self.list.retain(|_| {
            stays = !stays;
            stays
        });
        self.bytes = self.list.iter().map(|checkpoint| checkpoint.bytes()).sum();
    }

    /// Returns the last checkpoint before all records received at this time.
    fn before(&self, at_ns: u64) -> Option<Arc<Checkpoint>> {
        let behind = self.list.partition_point(|checkpoint| checkpoint.last_ns < at_ns);
        behind.checked_sub(1).map(|at| Arc::clone(&self.list[at]))
    }
}

/// A handle to the memory of a replay's checkpoints.
#[derive(Clone)]
pub struct SeekMemory(Weak<Shared>);

impl SeekMemory {
    /// Drops all checkpoints and creates none while memory is `short`, which makes seeks slower. Returns how
    /// many were dropped.
    pub fn give_up(&self, short: bool) -> usize {
        let Some(shared) = self.0.upgrade() else { return 0 };
        shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).give_up(short)
    }
}

/// The state at the target of a seek.
pub(super) struct Found {
    pub(super) at_ns: u64,
    /// The time of the last record, if the target is after it.
    pub(super) end_before: Option<u64>,
    pub(super) shadow: ShadowReplay,
}

/// The end of the captures.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The latest receive time, in nanoseconds since the Unix epoch.
    pub(super) last_ns: u64,
    /// The number of trades, quotes and gaps.
    pub(super) ticks: u64,
}

/// The state shared by the threads.
struct Shared {
    capture_files: Arc<CaptureFiles>,
    /// The instrument ids of the shadow replays.
    table: Arc<InstrumentTable>,
    checkpoints: Mutex<Checkpoints>,
    /// The requested seek as (number, target); only the newest counts.
    wanted: ArrayQueue<(u64, u64)>,
    newest: AtomicU64,
    arrived: ArrayQueue<(u64, Result<Found, String>)>,
    /// Set once a seek has completed or was cancelled: the time of the last record, if the target is after
    /// it.
    found: Mutex<Option<Option<u64>>>,
    finding: Condvar,
    wake: Arc<Notify>,
    /// The latest receive time known so far, and the end of the captures.
    reached_ns: AtomicU64,
    end: OnceLock<End>,
    rests: AtomicBool,
    stops: AtomicBool,
}

/// Computes the state at positions in the captures of one replay. Its threads end on drop.
pub(super) struct Seeker {
    shared: Arc<Shared>,
    seeker: Thread,
    threads: Vec<JoinHandle<()>>,
}

impl Seeker {
    /// Starts the threads, with `name` as prefix of their names; `wake` is notified when a seek completes.
    ///
    /// # Errors
    /// The I/O error if a thread cannot be started.
    pub(super) fn start(
        name: &str,
        capture_files: Arc<CaptureFiles>,
        instruments_max: usize,
        limits: SeekLimits,
        wake: Arc<Notify>,
    ) -> std::io::Result<Self> {
        let known_ns = capture_files.captures.iter().filter_map(|capture| capture.last_ns()).max();
        let shared = Arc::new(Shared {
            capture_files,
            table: Arc::new(InstrumentTable::new(instruments_max)),
            checkpoints: Mutex::new(Checkpoints::new(limits)),
            wanted: ArrayQueue::new(1),
            newest: AtomicU64::new(0),
            arrived: ArrayQueue::new(1),
            found: Mutex::new(None),
            finding: Condvar::new(),
            wake,
            reached_ns: AtomicU64::new(known_ns.unwrap_or(0)),
            end: OnceLock::new(),
            rests: AtomicBool::new(false),
            stops: AtomicBool::new(false),
        });
        let (passing, seeking) = (Arc::clone(&shared), Arc::clone(&shared));
        let named = |what: &str| std::thread::Builder::new().name(format!("{name}{what}"));
        let pass = named("replay-pass").spawn(move || passing.pass())?;
        let seek = named("replay-seek").spawn(move || seeking.serve())?;
        Ok(Self { shared, seeker: seek.thread().clone(), threads: vec![pass, seek] })
    }

    /// Seeks to the position at which exactly the records received before `at_ns` have been taken. Cancels an
    /// earlier seek that has not completed.
    pub(super) fn go(&self, at_ns: u64) {
        let jump = self.shared.newest.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.wanted.force_push((jump, at_ns));
        self.seeker.unpark();
    }

    /// Returns the result of the last [`go`](Self::go), once it has completed.
    pub(super) fn arrived(&self) -> Option<Result<Found, String>> {
        let (jump, result) = self.shared.arrived.pop()?;
        (jump == self.shared.newest.load(Ordering::Acquire)).then_some(result)
    }

    /// Waits until a seek has completed, at most for `patience`. Returns the time of the last record, if the
    /// target is after it.
    pub(super) fn wait_for_end_before(&self, patience: Duration) -> Option<u64> {
        let found = self.shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.finding.wait_timeout_while(found, patience, |found| found.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.flatten()
    }

    /// Returns the memory of its checkpoints.
    pub(super) fn memory(&self) -> SeekMemory {
        SeekMemory(Arc::downgrade(&self.shared))
    }

    /// Sets whether the pass pauses to leave the CPU to others.
    pub(super) fn rest(&self, rests: bool) {
        self.shared.rests.store(rests, Ordering::Release);
    }

    /// Returns the latest receive time known so far.
    pub(super) fn reached_ns(&self) -> u64 {
        self.shared.reached_ns.load(Ordering::Acquire)
    }

    /// Returns the end, once the pass has reached it.
    pub(super) fn end(&self) -> Option<End> {
        self.shared.end.get().copied()
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // The panic of a thread was already reported.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.stops.load(Ordering::Acquire)
    }

    /// Creates a checkpoint if one is wanted here.
    fn leave_checkpoint(&self, shadow: &mut ShadowReplay) {
        let text_bytes = shadow.merged_capture.merged.text_bytes();
        let wanted = || self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted().wants(text_bytes) {
            let checkpoint = shadow.checkpoint();
            wanted().add(checkpoint);
        }
    }

    /// Passes once over the captures. A capture that cannot be opened is reported by the replay or seek that
    /// needs it.
    fn pass(&self) {
        threads::lower_priority();
        let mut shadow = ShadowReplay::at_start(&self.capture_files, &self.table);
        while shadow.merged_capture.next_ns().is_some() {
            if self.stops() {
                return;
            }
            if self.rests.load(Ordering::Acquire) {
                std::thread::park_timeout(REST);
                continue;
            }
            for _ in 0..RECORDS_AT_ONCE {
                if shadow.merged_capture.next_ns().is_some() {
                    shadow.step();
                }
            }
            self.reached_ns.fetch_max(shadow.last_ns, Ordering::AcqRel);
            self.leave_checkpoint(&mut shadow);
        }
        let end = End { last_ns: shadow.last_ns, ticks: shadow.merged_capture.ticks };
        // It is set only here, so this cannot fail.
        let _ = self.end.set(end);
        self.wake.notify_one();
    }

    /// Serves seeks.
    fn serve(&self) {
        while !self.stops() {
            let Some((jump, at_ns)) = self.wanted.pop() else {
                std::thread::park();
                continue;
            };
            let found = self.find(jump, at_ns);
            let end_before = found.as_ref().and_then(|found| found.as_ref().ok()?.end_before);
            if let Some(found) = found {
                self.arrived.force_push((jump, found));
                self.wake.notify_one();
            }
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_before);
            self.finding.notify_all();
        }
    }

    /// Computes the state at a position; `None` if a newer seek was requested meanwhile.
    fn find(&self, jump: u64, at_ns: u64) -> Option<Result<Found, String>> {
        let nearest = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).before(at_ns);
        let begun = match nearest {
            Some(checkpoint) => ShadowReplay::at(&checkpoint, &self.capture_files),
            None => Ok(ShadowReplay::at_start(&self.capture_files, &self.table)),
        };
        let mut shadow = match begun {
            Ok(shadow) => shadow,
            Err(error) => return Some(Err(error)),
        };
        let is_before =
            |shadow: &mut ShadowReplay| shadow.merged_capture.next_ns().is_some_and(|next| next < at_ns);
        while is_before(&mut shadow) {
            if self.stops() || self.newest.load(Ordering::Acquire) != jump {
                return None;
            }
            for _ in 0..RECORDS_AT_ONCE {
                if is_before(&mut shadow) {
                    shadow.step();
                }
            }
            self.leave_checkpoint(&mut shadow);
        }
        // A position after the last record is moved to the last record.
        let at_end = shadow.merged_capture.next_ns().is_none();
        let end_before = at_end.then_some(shadow.last_ns).filter(|last_ns| *last_ns < at_ns);
        Some(Ok(Found { at_ns: end_before.unwrap_or(at_ns), end_before, shadow }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{LineId, LineLimits, Replay, ReplaySpec};
    use crate::protocol::replay::Speed;

    #[test]
    fn checkpoints_are_given_up_and_made_again() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("feeds/coinbase.zst");
        let spec = ReplaySpec {
            files: vec![file],
            venue: None,
            speed: Speed::new(1.0).expect("a speed"),
            looped: false,
            strict: false,
            from: None,
            to: None,
            idle_ns_max: None,
            checks_off: Default::default(),
        };
        let mut replay = Replay::open(spec, &LineLimits::default(), LineId(0)).expect("it ships");
        let limits = SeekLimits { checkpoints_max: 64, bytes_max: 64 << 20 };
        replay.prepare("", 1_024, limits, Arc::default()).expect("threads");
        let seeker = replay.seeker.as_ref().expect("prepared");
        while seeker.end().is_none() {
            std::thread::yield_now();
        }
        let memory = seeker.memory();
        assert!(memory.give_up(true) > 0);
        assert_eq!(memory.give_up(true), 0);
        // A seek now creates no checkpoints, and completes nevertheless.
        let arrives = |at_ns| {
            seeker.go(at_ns);
            loop {
                if let Some(arrived) = seeker.arrived() {
                    return arrived.map(|found| found.at_ns);
                }
                std::thread::yield_now();
            }
        };
        let end_ns = seeker.reached_ns();
        assert_eq!(arrives(end_ns), Ok(end_ns));
        assert_eq!((memory.give_up(true), memory.give_up(false)), (0, 0));
        assert_eq!(arrives(end_ns), Ok(end_ns));
        assert!(memory.give_up(true) > 0, "there is memory again");
        drop(replay);
        assert_eq!(memory.give_up(true), 0, "it is gone");
    }
}
