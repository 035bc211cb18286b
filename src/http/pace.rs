//! The pace at which connections are accepted.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// What the pace depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Ticks published so far, by feeds and in rooms.
    pub published: u64,
    /// Connections handed over that no shard has taken yet.
    pub waiting: u64,
}

/// A function that returns the current traffic.
#[derive(Clone)]
pub struct TrafficSource(Arc<dyn Fn() -> Traffic + Send + Sync>);

impl TrafficSource {
    /// Wraps the function that counts.
    pub fn new(count: impl Fn() -> Traffic + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }
}

impl fmt::Debug for TrafficSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrafficSource").field(&(self.0)()).finish()
    }
}

/// If more connections wait for the shards, further ones are accepted at the pace only: the inboxes of shards are
/// bounded.
const WAITING_MAX: u64 = 1_024;

/// Bounds the connections accepted per second, in small portions, because on few cores handshakes take CPU time from
/// the shards. The bound applies for a second after each published tick: without ticks, a handshake delays none. A feed
/// whose latency matters publishes more often than that. The second is counted in portions.
pub(super) struct Pace {
    portion: u32,
    /// Connections left in this portion.
    left: u32,
    next: Interval,
    source: TrafficSource,
    /// Ticks published when the last portion began.
    seen: u64,
    portions_per_s: u32,
    /// Portions for which the bound still applies; a tick starts the count again.
    paced: u32,
}

impl Pace {
    pub(super) fn new(per_s: NonZeroU32, source: TrafficSource) -> Self {
        let (portion, period) = portion(per_s);
        let mut next = interval(period);
        // After a quiet time one portion is available, not all unused ones.
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = (source.0)().published;
        Self { portion, left: 0, next, source, seen, portions_per_s: per_s.get().div_ceil(portion), paced: 0 }
    }

    /// Waits until the next connection may be accepted.
    pub(super) async fn go_on(&mut self) {
        if self.left == 0 {
            let Traffic { published, waiting } = (self.source.0)();
            if self.seen != published {
                (self.seen, self.paced) = (published, self.portions_per_s);
            }
            if self.paced > 0 || waiting > WAITING_MAX {
                self.next.tick().await;
                self.paced = self.paced.saturating_sub(1);
            } else {
                // Lets other tasks run, such as those of accepted connections.
                tokio::task::yield_now().await;
            }
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
    fn ticking() -> TrafficSource {
        let count = AtomicU64::new(0);
        TrafficSource::new(move || Traffic { published: count.fetch_add(1, Ordering::Relaxed), waiting: 0 })
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

    /// Asks once for a connection: whether it may be accepted at once.
    fn is_ready(pace: &mut Pace) -> bool {
        let next = pin!(pace.go_on());
        let mut next = next;
        // A portion without a pace yields once.
        let mut poll = || next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        poll() || poll()
    }

    #[tokio::test]
    async fn one_tick_starts_the_pace_for_a_second_of_portions() {
        let count = Arc::new(AtomicU64::new(7));
        let counted = Arc::clone(&count);
        let source =
            TrafficSource::new(move || Traffic { published: counted.load(Ordering::Relaxed), waiting: 0 });
        let mut pace = Pace::new(NonZeroU32::new(200).expect("not 0"), source);
        // A portion is one connection.
        assert!((0..10_000).all(|_| is_ready(&mut pace)), "no tick is on its way");
        count.fetch_add(1, Ordering::Relaxed);
        let begin = tokio::time::Instant::now();
        for _ in 0..20 {
            pace.go_on().await;
        }
        // The first may be due. No tick came since.
        assert!(begin.elapsed() >= Duration::from_millis(19 * 5 - 5), "{:?}", begin.elapsed());
        assert_eq!(pace.paced, 180);
    }

    #[tokio::test]
    async fn what_the_shards_have_not_taken_is_bounded() {
        let waiting = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&waiting);
        let source =
            TrafficSource::new(move || Traffic { published: 0, waiting: counted.load(Ordering::Relaxed) });
        let mut pace = Pace::new(NonZeroU32::new(200).expect("not 0"), source);
        assert!((0..1_000).all(|_| is_ready(&mut pace)));
        waiting.store(WAITING_MAX + 1, Ordering::Relaxed);
        assert!(!(0..2).all(|_| is_ready(&mut pace)), "one may be due, not two");
    }
}
