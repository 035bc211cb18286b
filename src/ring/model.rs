//! The proof by model checking: loom runs the ring through every interleaving of a few threads (up to a bound
//! of pre-emptions) and every stale read that the memory model allows. Three guarantees are checked; then
//! each [`Site`] is weakened alone, and the guarantee that depends on it must break.
//!
//! The ring holds 2 ticks of 2 words here, so that wrap-around is reached.

use std::any::Any;
use std::panic;
use std::sync::{Arc, Once};

use loom::sync::Notify;
use loom::thread;

use super::sync::{Site, weaken, weakened};
use super::*;

/// The prefix of every broken guarantee, to distinguish it from loom's own panics.
const BROKEN: &str = "promise broken";

const KEY: usize = 0;

/// Returns the words of a position. The second is the complement of the first, which reveals a torn copy, and
/// the zeros of a slot that was never written match no position.
fn words_of(position: u64) -> [u64; 2] {
    [position + 1, !(position + 1)]
}

/// Runs a model with a bound on pre-emptions. Stale reads are not bounded.
fn explore(preemptions: usize, threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(threads);
}

/// A reader that counts taken and lost ticks.
struct Ledger {
    reader: Reader<2>,
    start: u64,
    taken: u64,
    lapped: u64,
}

impl Ledger {
    fn new(reader: Reader<2>) -> Self {
        Self { start: reader.cursor(), reader, taken: 0, lapped: 0 }
    }

    /// Polls for one tick and checks order, wholeness and the count.
    fn poll(&mut self) {
        let position = self.reader.cursor();
        let batch = self.reader.poll(1, |words| {
            assert_eq!(*words, words_of(position), "{BROKEN}: torn or out of order");
        });
        self.taken += batch.taken as u64;
        self.lapped += batch.lapped;
        let accounted = self.start + self.taken + self.lapped;
        assert_eq!(accounted, self.reader.cursor(), "{BROKEN}: the books do not add up");
    }

    /// Checks that the last value is whole and at least as new as everything before the cursor. The ticks
    /// before `first` have no last value.
    fn check_last_value(&self, first: u64) {
        let newest = self.reader.last_values().load(KEY).unwrap_or_default();
        let seen = self.reader.cursor();
        assert!(newest[0] >= seen || seen <= first, "{BROKEN}: last value older than what was seen");
        assert!(newest == [0, 0] || newest[1] == !newest[0], "{BROKEN}: last value torn");
    }

    /// Takes the remaining ticks after all threads have ended; then no tick may be missing.
    fn close(mut self, published: u64) {
        while self.reader.behind() > 0 {
            self.poll();
        }
        assert_eq!(self.start + self.taken + self.lapped, published, "{BROKEN}: a tick is missing");
    }
}

fn ring_of_two() -> (Writer<2>, Ring<2>) {
    ring(2, 1).expect("2 is a power of two")
}

/// One writer that wraps around the ring, and `readers` that follow: each takes every tick in order and
/// whole, or counts it as lost.
fn ledger(readers: usize, ticks: u64, preemptions: usize) {
    explore(preemptions, move || {
        let (mut writer, ring) = ring_of_two();
        let ledgers: Vec<Ledger> = (0..readers).map(|_| Ledger::new(ring.reader())).collect();
        let follow = |mut ledger: Ledger| {
            thread::spawn(move || {
                (0..3).for_each(|_| ledger.poll());
                ledger
            })
        };
        let runs: Vec<_> = ledgers.into_iter().map(follow).collect();
        (0..ticks).for_each(|n| writer.publish(&words_of(n)));
        for run in runs {
            run.join().expect("the reader ends").close(ticks);
        }
    });
}

/// One reader of a full ring, lapped or not: after each poll the last value is not older than the cursor. The
/// ticks before `first` have no last value.
fn last_value_while_following(first: u64, polls: usize, preemptions: usize) {
    explore(preemptions, move || {
        let (mut writer, ring) = ring_of_two();
        let mut ledger = Ledger::new(ring.reader());
        let mut publish = |n| {
            if n < first {
                writer.publish(&words_of(n));
            } else {
                writer.publish_value(KEY, &words_of(n)).expect("there is such a key");
            }
        };
        (0..2).for_each(&mut publish);
        let run = thread::spawn(move || {
            for _ in 0..polls {
                ledger.poll();
                ledger.check_last_value(first);
            }
            ledger
        });
        (2..4).for_each(&mut publish);
        run.join().expect("the reader ends").close(4);
    });
}

/// A reader that starts while the writer publishes: the last value is not older than its start.
fn last_value_at_the_start(preemptions: usize) {
    explore(preemptions, || {
        let (mut writer, ring) = ring_of_two();
        let run = thread::spawn(move || {
            let mut ledger = Ledger::new(ring.reader());
            ledger.check_last_value(0);
            ledger.poll();
            ledger.check_last_value(0);
            ledger
        });
        for n in 0..3 {
            writer.publish_value(KEY, &words_of(n)).expect("there is such a key");
        }
        run.join().expect("the reader ends").close(3);
    });
}

/// Shards that go to sleep while the writer publishes and rings: none sleeps with a tick waiting.
fn doorbell(shards: usize, preemptions: usize) {
    explore(preemptions, move || {
        let (mut writer, ring) = ring_of_two();
        let bells: Vec<_> = (0..shards).map(|_| Arc::new(Doorbell::new(|| {}))).collect();
        let turn = |bell: &Arc<Doorbell>| {
            let (mut ledger, bell) = (Ledger::new(ring.reader()), Arc::clone(bell));
            thread::spawn(move || {
                ledger.poll();
                bell.prepare();
                let sleeps = ledger.reader.behind() == 0;
                if !sleeps {
                    bell.cancel();
                }
                (ledger, sleeps)
            })
        };
        let runs: Vec<_> = bells.iter().map(turn).collect();
        writer.publish(&words_of(0));
        ring_all(bells.iter().map(Arc::as_ref));
        for (run, bell) in runs.into_iter().zip(&bells) {
            let (ledger, sleeps) = run.join().expect("the shard ends");
            let unseen = ledger.reader.behind() > 0;
            assert!(!(sleeps && unseen && bell.wakes() == 0), "{BROKEN}: a wake-up was lost");
            ledger.close(1);
        }
    });
}

/// A shard that waits at its doorbell whenever it runs out of ticks, until it has taken all. A lost wake-up
/// is a deadlock, which loom detects.
fn doorbell_to_the_end(ticks: u64, preemptions: usize) {
    explore(preemptions, move || {
        let (mut writer, ring) = ring_of_two();
        let notify = Arc::new(Notify::new());
        let waker = Arc::clone(&notify);
        let bell = Arc::new(Doorbell::new(move || waker.notify()));
        let (mut ledger, shard_bell) = (Ledger::new(ring.reader()), Arc::clone(&bell));
        let run = thread::spawn(move || {
            while ledger.reader.cursor() < ticks {
                let before = ledger.reader.cursor();
                ledger.poll();
                if ledger.reader.cursor() == before {
                    shard_bell.prepare();
                    if ledger.reader.behind() == 0 {
                        notify.wait();
                    }
                    shard_bell.cancel();
                }
            }
            ledger
        });
        for n in 0..ticks {
            writer.publish(&words_of(n));
            bell.ring();
        }
        run.join().expect("the shard ends").close(ticks);
        assert!(bell.wakes() <= ticks, "{BROKEN}: more wake-ups than batches");
    });
}

#[test]
fn one_reader_gets_ticks_whole_in_order_and_accounted_for() {
    ledger(1, 4, 2);
    ledger(1, 3, 3);
}

#[test]
fn two_readers_get_ticks_whole_in_order_and_accounted_for() {
    ledger(2, 3, 1);
}

#[test]
fn the_last_value_is_never_older_than_what_was_seen() {
    last_value_while_following(0, 2, 2);
    last_value_while_following(3, 2, 2);
}

#[test]
fn the_last_value_is_never_older_than_the_start() {
    last_value_at_the_start(1);
}

#[test]
fn no_wake_up_is_lost() {
    doorbell(1, 3);
    doorbell(2, 2);
    doorbell_to_the_end(2, 2);
}

/// Runs a model with one site weakened; returns the text of the panic it ends with, if any.
fn broken_by(site: Site, model: impl Fn() + panic::UnwindSafe) -> Option<String> {
    silence_weakened_models();
    weaken(Some(site));
    let end = panic::catch_unwind(model);
    weaken(None);
    end.err().map(|panic| text_of(panic.as_ref()))
}

/// Suppresses the output of panics in weakened models: they are expected.
fn silence_weakened_models() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if weakened().is_none() {
                loud(info);
            }
        }));
    });
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// Asserts that weakening `site` breaks the guarantee that `model` checks, and nothing else.
fn assert_needed(site: Site, model: fn()) {
    let Some(text) = broken_by(site, model) else {
        panic!("{site:?} is not needed: weakened, the model still holds");
    };
    assert!(text.contains(BROKEN), "{site:?}: the model failed for another reason: {text}");
}

#[test]
fn each_ordering_is_needed() {
    for site in Site::ALL {
        match site {
            Site::SlotIntent | Site::SlotRecheck | Site::SlotPublish | Site::SlotLook => {
                assert_needed(site, || ledger(1, 3, 2));
            }
            Site::TailLook => {
                assert_needed(site, || last_value_at_the_start(1));
                // A key that already has a value is safe without this site: the fence in the copy of its slot
                // suffices. The first value of a key depends on this site alone.
                assert_needed(site, || last_value_while_following(3, 1, 2));
            }
            Site::BellRing | Site::BellPrepare => assert_needed(site, || doorbell(1, 2)),
        }
    }
}

#[test]
fn the_last_values_need_the_orderings_of_the_slot_too() {
    for site in [Site::SlotIntent, Site::SlotPublish, Site::SlotLook, Site::SlotRecheck] {
        assert_needed(site, || last_value_of_one_key(2));
    }
}

/// Stores one value repeatedly and checks that it is read whole: the slot alone, without the ring.
fn last_value_of_one_key(preemptions: usize) {
    explore(preemptions, || {
        let (mut writer, ring) = ring_of_two();
        let run = thread::spawn(move || {
            let newest = ring.last_values().load(KEY).unwrap_or(words_of(0));
            assert_eq!(newest[1], !newest[0], "{BROKEN}: last value torn");
        });
        for n in 0..2 {
            writer.store(KEY, &words_of(n)).expect("there is such a key");
        }
        run.join().expect("the reader ends");
    });
}
