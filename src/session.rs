//! One client's session, without its socket: what waits to be written, and what it has been told of each
//! stream it subscribed to.
//!
//! # What a session does with a tick
//!
//! Each subscription is in one of two conditions, and its session in one of three states:
//!
//! ```text
//! subscription   on a tick                                on room in the outbox
//! current        queue it; no room -> dirty               -
//! dirty          nothing: the last value will tell        told the last value, what it stands for or what
//!                                                         is missing before it; then current
//! session
//! Live           no subscription is dirty for want of room
//! Shedding       at least one is
//! Closing        refuses ticks; what is queued, then bye and the close frame, go out
//! ```
//!
//! A new subscription starts dirty, so a snapshot goes the same road as a recovery: there is no second copy
//! of the market. Memory is bounded by the budget of the outbox and 20 bytes a subscription.
//!
//! # Accounting
//!
//! [`Subscription::told`] is the newest number the client was told of, by a tick, an `n` or a gap. So what is
//! pending is always `head − told`, and what was told adds up: `told − base = sent + merged + dropped`.

use std::collections::VecDeque;

use crate::protocol::Mode;
use crate::ring::LastValue;
use crate::tick::{Body, GapCause, Key, Stream, Tick};

/// Bounds of a session's memory.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes of ticks that may wait in the outbox.
    pub outbox_bytes_max: usize,
    /// Bytes beyond that which only answers and other control messages may use.
    pub control_bytes_max: usize,
}

/// Room that one recovery message needs at most: a gap and a tick, with the longest symbol and digits.
const TOLD_BYTES_MAX: usize = 2_048;

/// A subscription of one session to one stream, as it stands in the shard's table.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The session's number in its shard.
    pub session: u32,
    mode: Mode,
    condition: Condition,
    /// The newest number the client was told of.
    told: u64,
}

/// How a [`Subscription`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Current,
    /// New: the last value comes first, marked `snap`.
    Fresh,
    /// Numbers are missing for this reason.
    Behind(GapCause),
}

impl Subscription {
    /// A subscription that starts behind `told`, the newest number there is. With `snapshot`, the last value
    /// is told first: the session has to [`wait`](Session::wait) for room.
    pub fn new(session: u32, mode: Mode, snapshot: bool, told: u64) -> Self {
        let condition = if snapshot { Condition::Fresh } else { Condition::Current };
        Self { session, mode, condition, told }
    }

    /// How it treats ticks that come too fast.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes how it treats ticks that come too fast.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The newest number the client was told of.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// True while ticks pass it by: the last value will tell.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        self.condition != Condition::Current
    }

    /// Whether the tick of this number is to be queued: it is new, and nothing older is missing.
    #[inline]
    pub fn wants(&self, seq: u64) -> bool {
        !self.is_dirty() && seq > self.told
    }

    /// The tick of this number was queued.
    #[inline]
    pub fn queued(&mut self, seq: u64) {
        self.told = seq;
    }

    /// Numbers went past it, for this reason. True if it was current until now: then its session has to
    /// [`wait`](Session::wait) for room.
    pub fn fell_behind(&mut self, why: GapCause) -> bool {
        let was_current = !self.is_dirty();
        if was_current {
            self.condition = Condition::Behind(why);
        }
        was_current
    }

    /// What the client has to be told to be current again, in this order: a gap, a tick, a gap.
    pub fn catch_up(&mut self, stream: Stream, last: Option<LastValue>) -> CatchUp {
        let condition = std::mem::replace(&mut self.condition, Condition::Current);
        let Some(last) = last else { return CatchUp::default() };
        let told = match condition {
            Condition::Fresh => self.snapshot(&last),
            Condition::Behind(why) if last.head > self.told => self.recover(stream, &last, why),
            Condition::Behind(_) | Condition::Current => CatchUp::default(),
        };
        self.told = self.told.max(last.head);
        told
    }

    /// The last value, and after it what the feed lost.
    fn snapshot(&self, last: &LastValue) -> CatchUp {
        let value = last.tick.map(|tick| Told { tick, n: 1, snap: true });
        // Where the feed lost all there was, the count still begins at a number that was told.
        let lost = Missing { from: 1, to: last.head, why: GapCause::Feed };
        let before = last.tick.is_none().then_some(lost);
        let after = last.tick.filter(|tick| tick.seq < last.head);
        CatchUp {
            before,
            value,
            after: after.map(|tick| Missing { from: tick.seq + 1, to: last.head, why: GapCause::Feed }),
        }
    }

    /// The newest value with what it stands for, or with a gap before it.
    fn recover(&self, stream: Stream, last: &LastValue, why: GapCause) -> CatchUp {
        let Some(tick) = last.tick.filter(|tick| tick.seq > self.told) else {
            let missing = Missing { from: self.told + 1, to: last.head, why: GapCause::Feed };
            return CatchUp { before: Some(missing), ..CatchUp::default() };
        };
        let merges = self.mode == Mode::Latest || stream == Stream::Status;
        // A loss of the feed is never hidden in a merge.
        let feed_gap = Some(last.feed_gap).filter(|gap| (self.told + 1..tick.seq).contains(gap));
        let before = match (merges, feed_gap) {
            (true, Some(gap)) => Some(Missing { from: self.told + 1, to: gap, why: GapCause::Feed }),
            (true, None) => None,
            (false, _) if tick.seq > self.told + 1 => {
                Some(Missing { from: self.told + 1, to: tick.seq - 1, why })
            }
            (false, _) => None,
        };
        let start = before.map_or(self.told, |gap| gap.to);
        let after = (tick.seq < last.head).then(|| Missing {
            from: tick.seq + 1,
            to: last.head,
            why: GapCause::Feed,
        });
        CatchUp { before, value: Some(Told { tick, n: tick.seq - start, snap: false }), after }
    }
}

/// What makes a subscription current again.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchUp {
    /// What is missing before the value.
    pub before: Option<Missing>,
    /// The newest value.
    pub value: Option<Told>,
    /// What the feed lost after it.
    pub after: Option<Missing>,
}

/// Numbers that are not coming, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why.
    pub why: GapCause,
}

/// A tick to tell, and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The tick.
    pub tick: Tick,
    /// How many it stands for.
    pub n: u64,
    /// It is a snapshot.
    pub snap: bool,
}

/// What became of the ticks of a session's subscriptions, states not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Told by a message of their own. Snapshots repeat ticks and are not counted.
    pub sent: u64,
    /// Stood for by a newer one.
    pub merged: u64,
    /// Named by a gap because the client or the shard was slow. Losses of the feed are not the session's.
    pub dropped: u64,
}

impl Ledger {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.merged += other.merged;
        self.dropped += other.dropped;
    }
}

/// The bytes that wait for the socket, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

/// An empty outbox keeps at most this much room for the next turn.
const OUTBOX_KEPT_BYTES: usize = 4_096;

impl Outbox {
    /// Bytes not yet taken by the socket.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// How many bytes wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
    }

    /// The socket took the first `n` bytes.
    pub fn wrote(&mut self, n: usize) {
        self.written = (self.written + n).min(self.bytes.len());
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            if self.bytes.capacity() > OUTBOX_KEPT_BYTES {
                self.bytes.shrink_to(OUTBOX_KEPT_BYTES);
            }
        } else if self.written > self.bytes.len() / 2 {
            // What is moved was paid for by what was written since the last move.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// A session: its outbox, what waits for room in it, and its ledger.
#[derive(Debug)]
pub struct Session {
    budget: Budget,
    outbox: Outbox,
    /// Subscriptions that are dirty, the longest waiting first. Each is in it once.
    waiting: VecDeque<Key>,
    closing: bool,
    ledger: Ledger,
}

impl Session {
    /// A session that was told nothing yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            outbox: Outbox::default(),
            waiting: VecDeque::new(),
            closing: false,
            ledger: Ledger::default(),
        }
    }

    /// Queues a tick's frame if there is room. False: its subscription falls behind.
    #[inline]
    pub fn offer(&mut self, frame: &[u8]) -> bool {
        let fits = !self.closing && self.outbox.len() + frame.len() <= self.budget.outbox_bytes_max;
        if fits {
            self.outbox.push(frame);
        }
        fits
    }

    /// A tick that was offered, and queued, was a trade or a quote.
    #[inline]
    pub fn count_sent(&mut self) {
        self.ledger.sent += 1;
    }

    /// A dirty subscription waits for room.
    pub fn wait(&mut self, key: Key) {
        self.waiting.push_back(key);
    }

    /// The dirty subscription that waited longest, if there is room to tell what it missed.
    pub fn next_waiting(&mut self) -> Option<Key> {
        let room = self.outbox.len() + TOLD_BYTES_MAX <= self.budget.outbox_bytes_max;
        if room && !self.closing { self.waiting.pop_front() } else { None }
    }

    /// A subscription is no more: it waits for nothing.
    pub fn forget(&mut self, key: Key) {
        self.waiting.retain(|waiting| *waiting != key);
    }

    /// How many subscriptions are dirty.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a frame of a recovery or of the reserved lane: answers, heartbeats, bye. It is never refused: who
    /// sends too many requests is not read from while [`is_over_full`](Self::is_over_full).
    pub fn push(&mut self, frame: &[u8]) {
        self.outbox.push(frame);
    }

    /// Counts what a recovery told, and gives it.
    pub fn count(&mut self, told: &CatchUp) -> Ledger {
        let mut counted = Ledger::default();
        if let Some(value) = told.value.filter(|v| !v.snap && !matches!(v.tick.body, Body::Status(_))) {
            counted.sent += 1;
            counted.merged += value.n - 1;
        }
        if let Some(missing) = told.before.filter(|missing| missing.why != GapCause::Feed) {
            counted.dropped += missing.to - missing.from + 1;
        }
        self.ledger.add(counted);
        counted
    }

    /// True when even the reserved lane is full: no more requests are read until it drains.
    pub fn is_over_full(&self) -> bool {
        self.outbox.len() > self.budget.outbox_bytes_max + self.budget.control_bytes_max
    }

    /// What waits for the socket.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// No more ticks: what is queued goes out, and whatever [`push`](Self::push) adds.
    pub fn close(&mut self) {
        self.closing = true;
        self.waiting.clear();
    }

    /// True after [`close`](Self::close).
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// What became of the ticks so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }
}
