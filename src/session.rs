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
//! pending is always `head − told`, and what was told adds up over a session's subscriptions, states not
//! counted: `told − base = sent + merged + dropped + lost`, where `base` is the snapshot's number.

use std::collections::VecDeque;
use std::ops::AddAssign;

use crate::protocol::Mode;
use crate::tick::{Body, GapCause, Key, LastValue, Stream, Tick};

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
        let mut told = CatchUp::default();
        match last.tick {
            Some(tick) => {
                told.value = Some(Told { tick, n: 1, snap: true });
                told.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
            }
            // Where the feed lost all there was, the count still begins at a number that was told.
            None => told.after = Missing::range(1, last.head, GapCause::Feed),
        }
        told
    }

    /// The newest value with what it stands for, and gaps for what nothing stands for.
    fn recover(&self, stream: Stream, last: &LastValue, why: GapCause) -> CatchUp {
        let mut told = CatchUp::default();
        let mut next = self.told + 1;
        let Some(tick) = last.tick.filter(|tick| tick.seq >= next) else {
            told.after = Missing::range(next, last.head, GapCause::Feed);
            return told;
        };
        // A loss of the feed is never hidden in a merge. What came before it has nothing to stand for it.
        if let Some((from, to)) = last.feed_gap.filter(|(_, to)| (next..tick.seq).contains(to)) {
            let from = from.max(next);
            told.before[0] = Missing::range(next, from - 1, why);
            told.before[1] = Missing::range(from, to, GapCause::Feed);
            next = to + 1;
        }
        if self.mode == Mode::Every && stream != Stream::Status {
            told.before[2] = Missing::range(next, tick.seq - 1, why);
            next = tick.seq;
        }
        told.value = Some(Told { tick, n: tick.seq + 1 - next, snap: false });
        told.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
        told
    }
}

/// What makes a subscription current again, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchUp {
    /// What is missing before the value: what the client lost, what the feed lost, what the client lost.
    pub before: [Option<Missing>; 3],
    /// The newest value.
    pub value: Option<Told>,
    /// What the feed lost after it.
    pub after: Option<Missing>,
}

impl CatchUp {
    /// How the books stand after it.
    pub fn counts(&self) -> Ledger {
        let mut counts = Ledger::default();
        for missing in self.before.iter().chain([&self.after]).flatten() {
            let numbers = missing.to - missing.from + 1;
            match missing.why {
                GapCause::Feed => counts.lost += numbers,
                GapCause::SlowConsumer | GapCause::Overrun => counts.dropped += numbers,
            }
        }
        if let Some(value) = self.value.filter(|v| !v.snap && !matches!(v.tick.body, Body::Status(_))) {
            counts.sent += 1;
            counts.merged += value.n - 1;
        }
        counts
    }
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

impl Missing {
    /// The numbers `from` to `to`; none if there are none between.
    fn range(from: u64, to: u64, why: GapCause) -> Option<Self> {
        (from <= to).then_some(Self { from, to, why })
    }
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
    /// Named by a gap because the client or the shard was slow.
    pub dropped: u64,
    /// Named by a gap because the feed lost them.
    pub lost: u64,
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.merged += other.merged;
        self.dropped += other.dropped;
        self.lost += other.lost;
    }
}

/// The bytes that wait for the socket, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

/// An empty outbox with more room than this gives it back…
const OUTBOX_KEPT_BYTES_MAX: usize = 16_384;
/// …down to this much.
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
            if self.bytes.capacity() > OUTBOX_KEPT_BYTES_MAX {
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

    /// Counts what was told.
    #[inline]
    pub fn count(&mut self, counts: Ledger) {
        self.ledger += counts;
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

    /// Some subscriptions are no more: they wait for nothing. `gone` is asked once for each that waits.
    pub fn forget(&mut self, gone: impl Fn(Key) -> bool) {
        self.waiting.retain(|key| !gone(*key));
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
