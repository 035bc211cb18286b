//! The pace at which connections are accepted.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Returns the number of ticks published so far.
#[derive(Clone)]
pub struct Published(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Published {
    /// Wraps the function that counts.
    pub fn new(count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    fn get(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.get()).finish()
    }
}

/// Accepts a number of connections per second in small portions, because on few cores handshakes take the CPU time
/// of the shards. It does so while ticks are published: with none on their way, a handshake delays none.
pub(super) struct Pace {
    portion: u32,
    /// Connections left in this portion.
    left: u32,
    next: Interval,
    published: Published,
    /// Ticks published when this portion began.
    seen: u64,
}

impl Pace {
    pub(super) fn new(per_s: NonZeroU32, published: Published) -> Self {
        let (portion, period) = portion(per_s);
        let mut next = interval(period);
        // After a quiet time one portion is available, not all unused ones.
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { portion, left: 0, next, seen: published.get(), published }
    }

    /// Waits until the next connection may be accepted.
    pub(super) async fn go_on(&mut self) {
        if self.left == 0 {
            let published = self.published.get();
            if self.seen != published {
                self.next.tick().await;
            }
            self.seen = published;
            self.left = self.portion;
        }
        self.left -= 1;
    }
}

/// The size of a portion and its period: one portion per 5 ms, or one connection per longer period.
fn portion(per_s: NonZeroU32) -> (u32, Duration) {
    const PORTIONS_PER_S: u32 = 200;
    match per_s.get() / PORTIONS_PER_S {
        0 => (1, Duration::from_secs(1) / per_s.get()),
        portion => (portion, Duration::from_secs(1) * portion / per_s.get()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Waker};

    use super::*;

    /// Ticks are published all the time.
    fn ticking() -> Published {
        let count = AtomicU64::new(0);
        Published::new(move || count.fetch_add(1, Ordering::Relaxed))
    }

    #[test]
    fn a_portion_is_small_and_the_portions_of_a_second_are_as_many_as_asked_for() {
        for (per_s, expected, period_us) in
            [(1, 1, 1_000_000), (150, 1, 6_666), (200, 1, 5_000), (2_000, 10, 5_000), (2_199, 10, 4_547)]
        {
            let (portion, period) = portion(NonZeroU32::new(per_s).expect("not 0"));
            assert_eq!((portion, period.as_micros()), (expected, period_us), "{per_s}");
        }
    }

    #[tokio::test]
    async fn a_storm_is_paced_after_a_quiet_time_too() {
        let mut pace = Pace::new(NonZeroU32::new(2_000).expect("not 0"), ticking());
        pace.go_on().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begin = tokio::time::Instant::now();
        // The rest of the first portion, one portion that is due, and two that need a wait.
        for _ in 0..9 + 10 + 20 {
            pace.go_on().await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(9), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn without_ticks_nothing_is_paced_until_the_next_one() {
        let count = Arc::new(AtomicU64::new(7));
        let counted = Arc::clone(&count);
        let published = Published::new(move || counted.load(Ordering::Relaxed));
        let mut pace = Pace::new(NonZeroU32::new(200).expect("not 0"), published);
        let mut is_ready = || {
            let next = pin!(pace.go_on());
            next.poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        // A portion is one connection.
        assert!((0..10_000).all(|_| is_ready()));
        let mut is_ready_with_a_tick = || {
            count.fetch_add(1, Ordering::Relaxed);
            is_ready()
        };
        // One portion may be due, a second is not.
        assert!(!(0..2).all(|_| is_ready_with_a_tick()));
    }
}
