//! The doorbell: wakes a sleeping shard when the ring holds new ticks.

use std::sync::atomic::{self, AtomicBool as Flag, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use super::sync::{AtomicBool, Site};

/// Wakes one sleeping shard, at most once per sleep.
///
/// The shard goes to sleep in three steps; the writer rings after each published batch:
///
/// ```text
/// shard:   prepare();                                     writer:  publish(..); publish(..);
///          if reader.behind() > 0 { cancel(); work again }          ring();
///          else { wait for the waker, or anything else; cancel() }
/// ```
///
/// Either the shard's last check of the ring finds the published ticks, or the writer finds the shard
/// asleep, so no wake-up is lost. A spurious wake-up is possible when the shard cancels while the writer
/// rings, so the shard must check the ring after each wake-up.
pub struct Doorbell {
    sleeping: CachePadded<AtomicBool>,
    // A hint: no proof depends on it, so it needs no loom type.
    busy: CachePadded<Flag>,
    // For reports only: no proof depends on it, so it needs no loom type.
    wakes: atomic::AtomicU64,
    waker: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// Returns a doorbell that calls `waker` to wake its shard.
    ///
    /// `waker` runs on the writer's thread: it must not block and not panic. It must remember a call made
    /// before the shard waits, and everything done before the call must be visible to the woken thread;
    /// `tokio::sync::Notify::notify_one` satisfies all of this.
    pub fn new(waker: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            sleeping: CachePadded::new(AtomicBool::new(false)),
            busy: CachePadded::default(),
            wakes: atomic::AtomicU64::new(0),
            waker: Box::new(waker),
        }
    }

    /// Shard: announces that it is about to sleep. It must check the ring once more after this call and only
    /// then wait.
    pub fn prepare(&self) {
        self.sleeping.store(true, Relaxed);
        Site::BellPrepare.fence();
    }

    /// Shard: announces that it is awake, whatever the reason.
    pub fn cancel(&self) {
        // Only the shard stores true, so this cannot clear a later sleep.
        self.sleeping.store(false, Relaxed);
    }

    /// Writer: wakes the shard if it sleeps; returns true if it did. Call once per published batch: it
    /// contains a full fence.
    pub fn ring(&self) -> bool {
        ring_all([self]) == 1
    }

    /// Shard: sets whether it has clients to write to before it reads the next tick.
    pub fn set_busy(&self, busy: bool) {
        // The value rarely changes, and a load keeps the cache line shared with the writer.
        if self.busy.load(Relaxed) != busy {
            self.busy.store(busy, Relaxed);
        }
    }

    /// Returns true while the shard would not read a new tick at once even if woken.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    /// Returns how many times the shard was woken.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    /// Wakes the shard if it sleeps. The caller has issued the fence.
    fn wake(&self) -> bool {
        // The plain load comes first: while the shard is awake, the cache line of `sleeping` stays shared and
        // nothing is written. The swap ensures that each sleep is ended once; it is Relaxed, since the waker
        // brings its own ordering.
        if !self.sleeping.load(Relaxed) || !self.sleeping.swap(false, Relaxed) {
            return false;
        }
        self.wakes.fetch_add(1, Relaxed);
        (self.waker)();
        true
    }
}

/// Writer: rings several doorbells with one fence. Returns how many shards it woke.
pub fn ring_all<'a>(bells: impl IntoIterator<Item = &'a Doorbell>) -> usize {
    Site::BellRing.fence();
    bells.into_iter().filter(|bell| bell.wake()).count()
}

#[cfg(all(test, not(tickfan_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::super::ring;
    use super::*;

    fn counted() -> (Doorbell, Arc<atomic::AtomicU64>) {
        let calls = Arc::new(atomic::AtomicU64::new(0));
        let counter = Arc::clone(&calls);
        let bell = Doorbell::new(move || {
            counter.fetch_add(1, Relaxed);
        });
        (bell, calls)
    }

    #[test]
    fn one_sleep_is_ended_once() {
        let (bell, calls) = counted();
        assert!(!bell.ring(), "nobody sleeps");
        bell.prepare();
        assert!(bell.ring());
        assert!(!bell.ring(), "already awake");
        bell.prepare();
        bell.cancel();
        assert!(!bell.ring(), "thought better of it");
        assert_eq!((bell.wakes(), calls.load(Relaxed)), (1, 1));
    }

    #[test]
    fn all_who_sleep_are_woken() {
        let bells = [counted().0, counted().0, counted().0];
        bells[0].prepare();
        bells[2].prepare();
        assert_eq!(ring_all(&bells), 2);
        assert_eq!(bells.each_ref().map(Doorbell::wakes), [1, 0, 1]);
    }

    #[test]
    fn a_sleeper_on_a_thread_gets_every_tick() {
        const TICKS: u64 = 20_000;
        let (mut writer, ring) = ring::<1>(64, 0).expect("64 is a power of two");
        let mut reader = ring.reader();
        let (wake, woken) = mpsc::sync_channel(1);
        let bell = Doorbell::new(move || {
            // A full channel already holds a wake-up, so a refused one changes nothing.
            wake.try_send(()).ok();
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..TICKS {
                    writer.publish(&[n]);
                    bell.ring();
                }
            });
            let mut seen = 0;
            while seen < TICKS {
                let batch = reader.poll(16, |_| {});
                seen += batch.taken as u64 + batch.lapped;
                if batch.is_empty() {
                    bell.prepare();
                    if reader.behind() == 0 && seen < TICKS {
                        woken.recv().expect("the bell holds the sender");
                    }
                    bell.cancel();
                }
            }
            assert_eq!(seen, TICKS);
        });
    }
}
