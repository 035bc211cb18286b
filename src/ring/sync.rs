//! The atomics of the ring, and the memory orderings that its proof depends on.
//!
//! Under `cfg(tickfan_loom)` the atomics are loom's, so that `model` can run every interleaving and every
//! stale read the memory model allows. Each ordering stronger than Relaxed is a named [`Site`]; `model`
//! weakens them one at a time and expects each such ring to break. All accesses that name no site are
//! Relaxed.

use std::sync::atomic::Ordering;

#[cfg(not(tickfan_loom))]
pub(super) use crossbeam::utils::Backoff;
#[cfg(tickfan_loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64};
#[cfg(not(tickfan_loom))]
pub(super) use std::sync::OnceLock;
#[cfg(not(tickfan_loom))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64};

#[cfg(tickfan_loom)]
use loom::sync::atomic::fence;
#[cfg(not(tickfan_loom))]
use std::sync::atomic::fence;

/// A place in the code whose memory ordering is needed, with the site it pairs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// Release fence of the writer, between a slot's odd stamp and its words. Pairs with
    /// [`SlotRecheck`](Self::SlotRecheck): a reader that copied one new word finds the odd stamp (or a later
    /// one) when it loads the stamp again. Pairs with [`TailLook`](Self::TailLook) too: the tail is stored
    /// Relaxed after this fence, and the last value before it.
    SlotIntent,
    /// Release store of a slot's even stamp. Pairs with [`SlotLook`](Self::SlotLook): a reader that loads the
    /// stamp sees the words of that version, and every last value stored before.
    SlotPublish,
    /// Acquire load of a slot's stamp before its words are copied. Pairs with
    /// [`SlotPublish`](Self::SlotPublish).
    SlotLook,
    /// Acquire fence of the reader, between the copy of the words and the second load of the stamp. Pairs
    /// with [`SlotIntent`](Self::SlotIntent).
    SlotRecheck,
    /// Acquire load of the tail, by a reader that starts or was lapped. Pairs with the fence
    /// [`SlotIntent`](Self::SlotIntent) that precedes the store of the tail: a reader that starts at a
    /// position sees every last value stored for the ticks before it. (A key that already had a value is safe
    /// by [`SlotRecheck`](Self::SlotRecheck); the first value of a key depends on this site alone.)
    TailLook,
    /// SeqCst fence of the writer, between publishing and checking for sleepers. Pairs with
    /// [`BellPrepare`](Self::BellPrepare): of two threads that each store and then load what the other
    /// stored, at least one sees the other's store.
    BellRing,
    /// SeqCst fence of the shard, between announcing its sleep and its last check of the ring. Pairs with
    /// [`BellRing`](Self::BellRing).
    BellPrepare,
}

impl Site {
    /// Every site.
    #[cfg(all(test, tickfan_loom))]
    pub(super) const ALL: [Self; 7] = [
        Self::SlotIntent,
        Self::SlotPublish,
        Self::SlotLook,
        Self::SlotRecheck,
        Self::TailLook,
        Self::BellRing,
        Self::BellPrepare,
    ];

    /// Returns the ordering that the model proves sufficient.
    const fn proven(self) -> Ordering {
        match self {
            Self::SlotIntent | Self::SlotPublish => Ordering::Release,
            Self::SlotLook | Self::SlotRecheck | Self::TailLook => Ordering::Acquire,
            Self::BellRing | Self::BellPrepare => Ordering::SeqCst,
        }
    }

    /// Returns the ordering to use here: a constant, except in a model that weakens the site.
    #[cfg(not(all(test, tickfan_loom)))]
    #[inline(always)]
    pub(super) const fn order(self) -> Ordering {
        self.proven()
    }

    /// Returns the ordering to use here: Relaxed if a model weakens this site.
    #[cfg(all(test, tickfan_loom))]
    pub(super) fn order(self) -> Ordering {
        if weakened() == Some(self) { Ordering::Relaxed } else { self.proven() }
    }

    /// Issues the fence of this site. A weakened one is no fence at all.
    #[inline(always)]
    pub(super) fn fence(self) {
        match self.order() {
            Ordering::Relaxed => {}
            order => fence(order),
        }
    }
}

#[cfg(all(test, tickfan_loom))]
std::thread_local! {
    // loom runs all threads of a model on the thread that started it, so this applies to one model and not to
    // others that run in parallel.
    static WEAKENED: std::cell::Cell<Option<Site>> = const { std::cell::Cell::new(None) };
}

/// Weakens one site, or none, for the models that this thread runs from now on.
#[cfg(all(test, tickfan_loom))]
pub(super) fn weaken(site: Option<Site>) {
    WEAKENED.set(site);
}

/// Returns the weakened site, if any.
#[cfg(all(test, tickfan_loom))]
pub(super) fn weakened() -> Option<Site> {
    WEAKENED.get()
}

/// A replacement for std's `OnceLock`, which loom lacks. A thread that finds it filled sees everything done
/// before the fill, as std guarantees, and nothing more. Only one thread fills it.
#[cfg(tickfan_loom)]
pub(super) struct OnceLock<T> {
    filled: AtomicBool,
    cell: std::sync::OnceLock<T>,
}

#[cfg(tickfan_loom)]
impl<T> OnceLock<T> {
    pub(super) fn new() -> Self {
        Self { filled: AtomicBool::new(false), cell: std::sync::OnceLock::new() }
    }

    pub(super) fn get(&self) -> Option<&T> {
        if self.filled.load(Ordering::Acquire) { self.cell.get() } else { None }
    }

    pub(super) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let empty = self.cell.get().is_none();
        let value = self.cell.get_or_init(make);
        if empty {
            self.filled.store(true, Ordering::Release);
        }
        value
    }
}

/// A replacement for crossbeam's `Backoff`: loom requires a yield in a loop that waits for another thread.
#[cfg(tickfan_loom)]
pub(super) struct Backoff;

#[cfg(tickfan_loom)]
impl Backoff {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn snooze(&self) {
        loom::thread::yield_now();
    }
}
