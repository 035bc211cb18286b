//! How a sleeping shard hears that there is something in the ring.

use std::sync::atomic::{self, AtomicBool as Flag, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use super::sync::{AtomicBool, Site};

/// Wakes one sleeper, at most once for each time it went to sleep.
///
/// The shard goes to sleep in three steps, the writer rings after each batch it has published:
///
/// ```text
/// shard:   prepare();                                     writer:  publish(..); publish(..);
///          if reader.behind() > 0 { cancel(); work again }          ring();
///          else { wait for the waker, or anything else; cancel() }
/// ```
///
/// Either the shard's look at the ring finds what was published, or the writer finds the shard asleep:
/// no wake-up is lost. One that nobody needs any more may come, when the shard cancels while the writer
/// rings; so after each wake-up the shard must look for itself.
pub struct Doorbell {
    sleeping: CachePadded<AtomicBool>,
    // Advice: no proof rests on it either.
    busy: CachePadded<Flag>,
    // A figure for reports: no proof rests on it, and loom need not know of it.
    wakes: atomic::AtomicU64,
    waker: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// A bell that calls `waker` to wake its sleeper.
    ///
    /// `waker` runs on the writer's thread: it must not block, and not panic. It must remember a call
    /// that comes before the sleeper waits, and what was done before the call must be visible to who is
    /// woken by it; `tokio::sync::Notify::notify_one` does all of this.
    pub fn new(waker: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            sleeping: CachePadded::new(AtomicBool::new(false)),
            busy: CachePadded::default(),
            wakes: atomic::AtomicU64::new(0),
            waker: Box::new(waker),
        }
    }

    /// Shard: says that it is about to sleep. It must look at the ring once more after this, and only
    /// then wait.
    pub fn prepare(&self) {
        self.sleeping.store(true, Relaxed);
        Site::BellPrepare.fence();
    }

    /// Shard: says that it is awake, be it that it did not go to sleep or that something else woke it.
    pub fn cancel(&self) {
        // Only the shard ever stores true, so this cannot wipe out a later sleep.
        self.sleeping.store(false, Relaxed);
    }

    /// Writer: wakes the shard if it sleeps. To be called after publishing, once for a whole batch: it
    /// has a full fence in it. True if it woke the shard.
    pub fn ring(&self) -> bool {
        ring_all([self]) == 1
    }

    /// Shard: says whether it has clients to write to before it comes to the next tick.
    pub fn set_busy(&self, busy: bool) {
        // Mostly it is what it was, and the writer's copy of the line stays good.
        if self.busy.load(Relaxed) != busy {
            self.busy.store(busy, Relaxed);
        }
    }

    /// True while the shard would not come to a new tick at once anyhow.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    /// How many times the shard was woken.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }

    /// Wakes the shard if it sleeps; the fence has been made.
    fn wake(&self) -> bool {
        // The plain look first: while the shard is awake its line stays shared, and nothing is written.
        // The swap is Relaxed, for the waker brings its own ordering; it makes that one sleep is ended
        // once.
        if !self.sleeping.load(Relaxed) || !self.sleeping.swap(false, Relaxed) {
            return false;
        }
        self.wakes.fetch_add(1, Relaxed);
        (self.waker)();
        true
    }
}

/// Writer: rings several bells for the price of one fence. How many shards it woke.
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
            // A full channel holds a wake-up already: the one that is refused would change nothing.
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
