//! The clocks. No other module reads the time; callers pass it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Steady nanoseconds since the clock was created: for deadlines and durations.
    pub mono_ns: u64,
    /// Nanoseconds since the Unix epoch: for times shown outside. It may step.
    pub wall_ns: u64,
}

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Two readings further apart than this are repeated, at most `READINGS_MAX` times.
const READING_MAX: Duration = Duration::from_micros(10);
const READINGS_MAX: u32 = 4;

/// A thread that has not read its clock for longer than this, in nanoseconds, did not run: see
/// [`Clock::of_thread`]. Threads with such a clock read it at least twice as often, whatever they wait for.
pub const STOOD_NS_MIN: u64 = SECOND;
/// How much such a time counts, in nanoseconds: less than any deadline.
const STOOD_COUNTS_NS: u64 = 100 * MS;

/// A source of time: the machine's clocks, or one set by a test.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    own: Option<Arc<Own>>,
    steps: Arc<Steps>,
}

#[derive(Clone, Debug)]
enum Source {
    Real(Instant),
    /// A clock that is advanced by hand, shared by its clones.
    Manual(Arc<Hand>),
}

/// The state of a manual clock.
#[derive(Debug, Default)]
struct Hand {
    ns: AtomicU64,
    step_ns: AtomicU64,
    /// How far the wall clock was set, wrapping.
    set_ns: AtomicU64,
}

/// The offset of one thread's steady time. One thread writes it.
#[derive(Debug, Default)]
struct Own {
    /// The machine's steady time at the thread's last reading; 0 before the first.
    read_ns: AtomicU64,
    stood_ns: AtomicU64,
}

impl Own {
    /// Returns the steady time of the thread at this steady time of the machine.
    fn steady_ns(&self, machine_ns: u64) -> u64 {
        let before = self.read_ns.load(Ordering::Relaxed);
        self.read_ns.store(machine_ns, Ordering::Relaxed);
        let passed = machine_ns.saturating_sub(before);
        if before > 0 && passed > STOOD_NS_MIN {
            self.stood_ns.fetch_add(passed - STOOD_COUNTS_NS, Ordering::Relaxed);
        }
        machine_ns.saturating_sub(self.stood_ns.load(Ordering::Relaxed))
    }
}

/// The steps of the machine's clocks so far.
#[derive(Debug, Default)]
pub struct Steps {
    count: AtomicU64,
    forward: AtomicU64,
    back: AtomicU64,
    by_us: AtomicI64,
    stood: AtomicU64,
    stood_ms: AtomicU64,
}

impl Steps {
    /// Returns how often the wall clock was set.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Returns how often it was set forward, and how often back.
    pub fn both(&self) -> (u64, u64) {
        (self.forward.load(Ordering::Relaxed), self.back.load(Ordering::Relaxed))
    }

    /// Returns how far it was set last, in microseconds.
    pub fn by_us(&self) -> i64 {
        self.by_us.load(Ordering::Relaxed)
    }

    /// Returns how often the process did not run, and for how long in total, in milliseconds.
    pub fn stood(&self) -> (u64, u64) {
        (self.stood.load(Ordering::Relaxed), self.stood_ms.load(Ordering::Relaxed))
    }

    /// Records that the process did not run for `ms` milliseconds.
    pub fn process_stood(&self, ms: u64) {
        self.stood.fetch_add(1, Ordering::Relaxed);
        self.stood_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Records that the wall clock was set by `by_us` microseconds.
    pub fn stepped(&self, by_us: i64) {
        if by_us >= 0 { &self.forward } else { &self.back }.fetch_add(1, Ordering::Relaxed);
        self.by_us.store(by_us, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// The start of the wall clock of a manual [`Clock`]: 2026-01-01T00:00:00Z.
pub const MANUAL_EPOCH_NS: u64 = 1_767_225_600 * SECOND;

impl Clock {
    /// Returns the machine's clocks, with steady time counted from now.
    pub fn real() -> Self {
        Self { source: Source::Real(Instant::now()), own: None, steps: Arc::default() }
    }

    /// Returns a manual clock at 0.
    pub fn manual() -> Self {
        Self { source: Source::Manual(Arc::default()), own: None, steps: Arc::default() }
    }

    /// Returns this clock for one thread. Its steady time stands still while the thread cannot run: while the
    /// process is stopped, the machine is overloaded, or the thread is blocked. So events that were due from
    /// others in that time are not late.
    ///
    /// The thread has to [read](Self::now) it at least once in half of [`STOOD_NS_MIN`]; a longer time counts
    /// as next to nothing. Clones belong to the same thread.
    #[must_use]
    pub fn of_thread(&self) -> Self {
        Self { own: Some(Arc::default()), ..self.clone() }
    }

    /// Returns the recorded steps of the clocks, shared by all clones.
    #[inline]
    pub fn steps(&self) -> &Arc<Steps> {
        &self.steps
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        let Now { mono_ns, wall_ns } = self.machine_now();
        let mono_ns = self.own.as_ref().map_or(mono_ns, |own| own.steady_ns(mono_ns));
        Now { mono_ns, wall_ns }
    }

    fn machine_now(&self) -> Now {
        match &self.source {
            Source::Real(start) => {
                let mut before = Instant::now();
                let mut wall_ns = self.wall_ns();
                // A thread pre-empted between the two readings would get times that do not belong together:
                // what is due by one would be early by the other.
                for _ in 0..READINGS_MAX {
                    let after = Instant::now();
                    let took = after.saturating_duration_since(before);
                    before = after;
                    if took < READING_MAX {
                        break;
                    }
                    wall_ns = self.wall_ns();
                }
                Now { mono_ns: nanos(before.saturating_duration_since(*start)), wall_ns }
            }
            Source::Manual(hand) => {
                let mono_ns = hand.ns.load(Ordering::Relaxed);
                Now { mono_ns, wall_ns: hand.wall_ns(mono_ns) }
            }
        }
    }

    /// Reads only the wall clock: nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        match &self.source {
            Source::Real(_) => nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Source::Manual(hand) => {
                let step_ns = hand.step_ns.load(Ordering::Relaxed);
                hand.wall_ns(hand.ns.fetch_add(step_ns, Ordering::Relaxed))
            }
        }
    }

    /// Returns how long the machine has slept since its start, in nanoseconds; 0 if the system does not
    /// report it. Steady time stands still meanwhile, the wall clock does not.
    pub fn slept_ns(&self) -> u64 {
        #[cfg(target_os = "linux")]
        if let Source::Real(_) = self.source {
            use rustix::time::{ClockId, clock_gettime};
            let ns = |id| {
                let time = clock_gettime(id);
                (time.tv_sec as u64).wrapping_mul(SECOND).wrapping_add(time.tv_nsec as u64)
            };
            let steady_ns = ns(ClockId::Monotonic);
            return ns(ClockId::Boottime).saturating_sub(steady_ns);
        }
        0
    }

    /// Returns how long the thread of this clock did not run so far, in nanoseconds; 0 if the clock belongs
    /// to no thread.
    pub fn stood_ns(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.stood_ns.load(Ordering::Relaxed))
    }

    /// Converts a time of this clock to the machine's steady time, which is common to all threads.
    pub fn machine_ns(&self, mono_ns: u64) -> u64 {
        mono_ns.saturating_add(self.stood_ns())
    }

    /// Converts a steady time to the machine's instant, for timers; `None` for a manual clock, on which
    /// nothing waits.
    pub fn instant(&self, mono_ns: u64) -> Option<Instant> {
        match &self.source {
            Source::Real(start) => start.checked_add(Duration::from_nanos(self.machine_ns(mono_ns))),
            Source::Manual(_) => None,
        }
    }

    /// Advances a manual clock; no effect on a real one.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hand) = &self.source {
            hand.ns.fetch_add(nanos(by), Ordering::Relaxed);
        }
    }

    /// Makes a manual clock advance by this much whenever only its wall clock is [read](Self::wall_ns), as
    /// measurements do: so every stage takes this long.
    pub fn step(&self, by: Duration) {
        if let Source::Manual(hand) = &self.source {
            hand.step_ns.store(nanos(by), Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of a manual clock forward or back by `by_ns` nanoseconds. Steady time is not
    /// affected.
    pub fn set_wall(&self, by_ns: i64) {
        if let Source::Manual(hand) = &self.source {
            hand.set_ns.fetch_add(by_ns as u64, Ordering::Relaxed);
        }
    }
}

impl Hand {
    fn wall_ns(&self, mono_ns: u64) -> u64 {
        (MANUAL_EPOCH_NS + mono_ns).wrapping_add(self.set_ns.load(Ordering::Relaxed))
    }
}

impl Now {
    /// Returns how far the wall clock is ahead of steady time, wrapping: constant until the wall clock is
    /// set.
    pub fn ahead_ns(self) -> u64 {
        self.wall_ns.wrapping_sub(self.mono_ns)
    }
}

/// How much later than planned a wait may end: beyond that, the process did not run.
const WAIT_LATE_MAX: Duration = Duration::from_millis(250);
/// The longest single wait.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Waits for `longest` of time in which this process runs. Time in which it did not run does not count: peers
/// could not be heard then, and their deadline has to wait.
pub async fn patience(longest: Duration) {
    let mut left = longest;
    while !left.is_zero() {
        let (part, before) = (left.min(WAIT_MAX), Instant::now());
        tokio::time::sleep(part).await;
        let late = before.elapsed().saturating_sub(part) > WAIT_LATE_MAX;
        // It ends even if every wait is late.
        left = left.saturating_sub(if late { part.div_f64(4.0).max(Duration::from_millis(1)) } else { part });
    }
}

/// Converts a duration to nanoseconds; at most 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The times at which frames of a capture are due: `start + (rx − rx0) / speed`, always from the same origin,
/// so that errors do not accumulate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start_ns: u64,
    rx0_ns: u64,
    speed: f64,
}

impl Pace {
    /// Returns a pace at which the frame received at `rx0_ns` is due at the steady time `start_ns`. `speed` 1
    /// is as recorded, 2 twice as fast, 0 unlimited: everything is due at once.
    pub fn new(start_ns: u64, rx0_ns: u64, speed: f64) -> Self {
        Self { start_ns, rx0_ns, speed }
    }

    /// Returns the steady time at which the frame recorded at `rx_ns` is due; `None` at unlimited speed: at
    /// once.
    pub fn due(&self, rx_ns: u64) -> Option<u64> {
        (self.speed > 0.0).then(|| {
            let offset = rx_ns.saturating_sub(self.rx0_ns) as f64 / self.speed;
            self.start_ns.saturating_add(offset as u64)
        })
    }

    /// Returns the position in the capture at a steady time; at unlimited speed, the start.
    pub fn at(&self, mono_ns: u64) -> u64 {
        let elapsed_ns = mono_ns.saturating_sub(self.start_ns) as f64 * self.speed;
        self.rx0_ns.saturating_add(elapsed_ns as u64)
    }

    /// Skips `ns` nanoseconds of the capture: everything from here on is due earlier.
    pub fn skip(&mut self, ns: u64) {
        self.rx0_ns = self.rx0_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_scales_from_one_origin() {
        let pace = Pace::new(5, 100, 10.0);
        assert_eq!(pace.due(100), Some(5));
        assert_eq!(pace.due(1_100), Some(105));
        assert_eq!(pace.due(50), Some(5), "a frame from before the first is due with it");
        assert_eq!(Pace::new(5, 100, 0.0).due(1_100), None);
    }

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let clock = Clock::manual();
        let other = clock.clone();
        other.advance(Duration::from_millis(2));
        assert_eq!(clock.now(), Now { mono_ns: 2 * MS, wall_ns: MANUAL_EPOCH_NS + 2 * MS });
    }

    #[test]
    fn the_wall_clock_is_set_and_steady_time_goes_on() {
        let clock = Clock::manual();
        let ahead_ns = clock.now().ahead_ns();
        clock.set_wall(-3_600 * SECOND as i64);
        clock.advance(Duration::from_secs(1));
        let now = clock.now();
        assert_eq!(now.mono_ns, SECOND);
        assert_eq!(now.ahead_ns().wrapping_sub(ahead_ns) as i64, -3_600 * SECOND as i64);
        assert_eq!(now.wall_ns, clock.wall_ns());
    }

    #[test]
    fn the_time_of_a_thread_stands_still_while_it_does_not_run() {
        let (machine, thread) = {
            let clock = Clock::manual();
            clock.advance(Duration::from_secs(5));
            (clock.clone(), clock.of_thread())
        };
        // The first reading may come at any time.
        assert_eq!(thread.now().mono_ns, 5 * SECOND);
        for ms in [1, 500, 1_000] {
            let before = thread.now().mono_ns;
            machine.advance(Duration::from_millis(ms));
            assert_eq!(thread.now().mono_ns - before, ms * MS);
        }
        let (before, other) = (thread.now(), machine.of_thread());
        assert_eq!((thread.stood_ns(), other.stood_ns()), (0, 0));
        machine.advance(Duration::from_secs(25));
        let after = thread.clone().now();
        assert_eq!(after.mono_ns - before.mono_ns, STOOD_COUNTS_NS);
        assert_eq!(after.wall_ns - before.wall_ns, 25 * SECOND);
        assert_eq!(thread.stood_ns(), 25 * SECOND - STOOD_COUNTS_NS);
        assert_eq!(thread.machine_ns(after.mono_ns), machine.now().mono_ns);
        // Only once: what follows counts again.
        machine.advance(Duration::from_millis(10));
        assert_eq!(thread.now().mono_ns - after.mono_ns, 10 * MS);
        assert_eq!(other.stood_ns(), 0, "each thread has its own");
    }

    #[tokio::test]
    async fn patience_ends_and_not_before_its_time() {
        let begun = Instant::now();
        let short = Duration::from_millis(30);
        patience(short).await;
        assert!(begun.elapsed() >= short);
        patience(Duration::ZERO).await;
    }
}
