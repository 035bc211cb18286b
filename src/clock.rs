//! The only reader of time. Everything else is told what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Steady nanoseconds since the clock was made: for deadlines and durations.
    pub mono_ns: u64,
    /// Nanoseconds since the Unix epoch: for what is shown to others. It may step.
    pub wall_ns: u64,
}

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Two readings that are further apart than this are taken again, so often at most.
const READING_MAX: Duration = Duration::from_micros(10);
const READINGS_MAX: u32 = 4;

/// Where time comes from: the machine, or a test's hand.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clocks.
    Real(Instant),
    /// A clock that only moves when told, shared by its clones.
    Manual(Arc<Hand>),
}

/// The hand of a manual clock.
#[derive(Debug, Default)]
pub struct Hand {
    ns: AtomicU64,
    step_ns: AtomicU64,
}

/// Where the wall clock of a manual [`Clock`] starts: 2026-01-01T00:00:00Z.
pub const MANUAL_EPOCH_NS: u64 = 1_767_225_600 * SECOND;

impl Clock {
    /// The machine's clocks, steady time counted from now.
    pub fn real() -> Self {
        Self::Real(Instant::now())
    }

    /// A manual clock at 0.
    pub fn manual() -> Self {
        Self::Manual(Arc::default())
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        match self {
            Self::Real(start) => {
                let mut before = Instant::now();
                let mut wall_ns = self.wall_ns();
                // Whoever is put aside between the two gets times that do not belong together: what is due by one of them
                // would be early by the other.
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
            Self::Manual(hand) => {
                let mono_ns = hand.ns.load(Ordering::Relaxed);
                Now { mono_ns, wall_ns: MANUAL_EPOCH_NS + mono_ns }
            }
        }
    }

    /// Reads the wall clock alone: nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        match self {
            Self::Real(_) => nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            Self::Manual(hand) => {
                let step_ns = hand.step_ns.load(Ordering::Relaxed);
                MANUAL_EPOCH_NS + hand.ns.fetch_add(step_ns, Ordering::Relaxed)
            }
        }
    }

    /// The machine's instant of a steady time, for timers; `None` for a manual clock, on which
    /// nothing waits.
    pub fn instant(&self, mono_ns: u64) -> Option<Instant> {
        match self {
            Self::Real(start) => start.checked_add(Duration::from_nanos(mono_ns)),
            Self::Manual(_) => None,
        }
    }

    /// Moves a manual clock on; a real one moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(hand) = self {
            hand.ns.fetch_add(nanos(by), Ordering::Relaxed);
        }
    }

    /// From here on a manual clock moves on by so much whenever its wall clock is [read alone](Self::wall_ns), as it is by who
    /// measures: so every stage takes so long.
    pub fn step(&self, by: Duration) {
        if let Self::Manual(hand) = self {
            hand.step_ns.store(nanos(by), Ordering::Relaxed);
        }
    }
}

/// A duration in nanoseconds; 584 years at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// When the frames of a capture are due: `start + (rx − rx0) / speed`, always from the same origin, so
/// that errors never add up.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Now,
    rx0_ns: u64,
    speed: f64,
}

impl Pace {
    /// A pace whose frame received at `rx0_ns` is due at `start`. `speed` 1 is as recorded, 2 twice as
    /// fast, 0 flat out: everything is due at once.
    pub fn new(start: Now, rx0_ns: u64, speed: f64) -> Self {
        Self { start, rx0_ns, speed }
    }

    /// When the frame that was recorded at `rx_ns` is due. Flat out: at once, `None`.
    pub fn due(&self, rx_ns: u64) -> Option<Now> {
        (self.speed > 0.0).then(|| {
            let offset = rx_ns.saturating_sub(self.rx0_ns) as f64 / self.speed;
            let offset_ns = offset as u64;
            Now {
                mono_ns: self.start.mono_ns.saturating_add(offset_ns),
                wall_ns: self.start.wall_ns.saturating_add(offset_ns),
            }
        })
    }

    /// Where the capture is at a steady time; flat out it is where it started.
    pub fn at(&self, mono_ns: u64) -> u64 {
        let elapsed_ns = mono_ns.saturating_sub(self.start.mono_ns) as f64 * self.speed;
        self.rx0_ns.saturating_add(elapsed_ns as u64)
    }

    /// Leaves out so much of the capture: everything from here on is due earlier.
    pub fn skip(&mut self, ns: u64) {
        self.rx0_ns = self.rx0_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_scales_from_one_origin() {
        let start = Now { mono_ns: 5, wall_ns: 1_005 };
        let pace = Pace::new(start, 100, 10.0);
        assert_eq!(pace.due(100), Some(start));
        assert_eq!(pace.due(1_100), Some(Now { mono_ns: 105, wall_ns: 1_105 }));
        assert_eq!(pace.due(50), Some(start), "a frame from before the first is due with it");
        assert_eq!(Pace::new(start, 100, 0.0).due(1_100), None);
    }

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let clock = Clock::manual();
        let other = clock.clone();
        other.advance(Duration::from_millis(2));
        assert_eq!(clock.now(), Now { mono_ns: 2 * MS, wall_ns: MANUAL_EPOCH_NS + 2 * MS });
    }
}
