//! The session of one client, without its socket: the queue to be written, what the client was sent of each stream, and
//! how far it is behind. A pure state machine: events and times are arguments.
//!
//! # States
//!
//! ```text
//!            on a tick                          when there is room                 on a check of the time
//! Live       queued; without room even after    -                                  waited too long -> Shedding
//!            a write: dirty, and Shedding
//! Shedding   dirty: the last value is sent      the newest value of each dirty     no progress for too long -> cut
//!            later                              subscription; none left -> Live
//! Closing    refused                            the queue, then `bye` and the      -
//!                                               close frame
//! ```
//!
//! A new subscription starts dirty, so a snapshot takes the same path as a recovery, and there is no second copy of the
//! market. Memory is bounded by the outbox budget, the answers, and some 40 bytes per subscription.
//!
//! # Slow clients
//!
//! A client is slow if its socket takes nothing, or if it does not read what it was sent. Pings in the stream (`marks`)
//! show what it has read: if much is unread and a ping is not answered in time, the session is blocked until the answer
//! arrives. The shard calls [`judge`](Session::judge) for sessions that were blocked, or whose kernel holds
//! unacknowledged bytes. What counts is how long the oldest item has waited: in the outbox, as a dirty subscription, in
//! the kernel without progress, or behind a ping. The client is sent each [`Level`] in turn.
//!
//! A client whose socket stays full has a window (`window`): at most what it reads in half a second (by default) is in
//! flight. A tick of a `latest` subscription beyond that makes the subscription dirty. Its newest value is sent as soon
//! as there is room, whether the session sheds or not.
//!
//! A session that sheds is written to in small portions, each when the client has read the one before, so that what it
//! reads is new. The portions double while it answers in time, up to half of the outbox budget.
//!
//! # Accounting
//!
//! [`Subscription::accounted_seq`] is the newest number that a tick, its `n` or a gap accounts for, so
//! `published_seq − accounted_seq` ticks are pending. Over all subscriptions of a session to channels, ended ones
//! included, `offered = sent + merged + dropped + lost + pending`. The offered count starts with the tick after the
//! snapshot.

mod buffers;
mod judging;
mod marks;
mod outbox;
mod pending_frames;
mod subscription;
mod window;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

pub use buffers::{Buffers, FRAME_RING_BYTES, FRAME_RING_BYTES_MIN, FrameRange, Times};
pub use judging::{Kernel, Level, Verdict};
use marks::Marks;
pub use outbox::Outbox;
pub use pending_frames::PendingFrames;
pub use subscription::{Baseline, CatchUp, Ledger, Missing, RateId, Subscription, Told};
use window::Window;

use crate::model::tick::Key;
use crate::protocol::Rate;

/// The limits of a session's memory and waiting times.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Maximum bytes of ticks in the outbox.
    pub outbox_bytes_max: usize,
    /// Bytes of queued answers above which no more requests are read.
    pub control_bytes_max: usize,
    /// How long the oldest item waits before the client is at level `warn`, in nanoseconds.
    pub warn_behind_ns: u64,
    /// How long it waits before ticks are merged or dropped (level `shed`), in nanoseconds.
    pub shed_behind_ns: u64,
    /// How long a client that sheds may make no progress before it is cut, in nanoseconds.
    pub cut_after_ns: u64,
    /// How long a client may give no sign of life before it is dead, in nanoseconds.
    pub pong_timeout_ns: u64,
    /// The window of a client that is behind is what it reads in this time, in nanoseconds.
    pub ahead_ns: u64,
    /// Maximum number of different rates at the same time.
    pub rates_max: usize,
}

/// Maximum bytes of one recovery message: gaps and a tick, with the longest symbol and digits.
const TOLD_BYTES_MAX: usize = 2_048;
/// First portion of a session that sheds, and the portion after its socket was full; bytes.
const REFILL_BYTES: usize = 4_096;

/// A rate of a session, and the dirty subscriptions that it holds back until they are due.
#[derive(Debug, Default)]
struct Held {
    /// `None` before a rate is assigned.
    rate: Option<Rate>,
    /// When they are due, in nanoseconds of steady time; in the past if the shard waits for no such time.
    due_ns: u64,
    keys: Vec<Key>,
    /// The number of subscriptions, wildcards and awaited symbols that have this rate.
    uses: u32,
}

/// What happens to a subscription that a rate holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It stays held.
    Stays,
    /// It is released, and waits for room.
    LetGo,
    /// It is not held any more, or has ended.
    Over,
}

/// A session: its outbox, the subscriptions that wait for room or for their rate, and its ledger.
///
/// A session is rarely cached when it is written to. So the fields that each write needs come first, on as few cache
/// lines as possible, and `repr(C)` keeps this order in memory.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    closing: bool,
    shedding: bool,
    /// The socket took nothing last time, or the client has so much unread that nothing more is written.
    blocked: bool,
    /// It is blocked until the client answers a ping.
    awaits_answer: bool,
    /// It was blocked since the outbox was last empty.
    was_full: bool,
    /// The bytes that the kernel holds do not decrease.
    stalled: bool,
    level: Level,
    policy: Rc<Policy>,
    ledger: Ledger,
    outbox: Outbox,
    /// Bytes that the socket has taken.
    taken: u64,
    /// Before a write that reaches this stream position, [marks](Self::look_at_marks) are checked.
    marks_at: u64,
    /// Limits the bytes in flight to a client that is behind.
    window: Option<Box<Window>>,
    /// When the socket last took data that had waited, or the client answered a ping; steady time.
    progress_ns: u64,
    /// When the client last gave a sign of life; steady time.
    alive_ns: u64,
    /// Bytes that the peer had acknowledged at the last check.
    acked: u64,
    /// The portion of a session that sheds without a window, in bytes.
    refill_bytes: usize,
    /// Dirty subscriptions, each once, the longest waiting first, with the steady time since when, in milliseconds.
    waiting: VecDeque<(Key, u32)>,
    /// How many of them are of states.
    states_waiting: u32,
    rates: Vec<Held>,
    marks: Marks,
    /// Sum of the numbers that ended subscriptions reached, minus those after which all subscriptions began; wrapping.
    offered: u64,
}

impl Session {
    /// Returns a session that was sent nothing. `stagger` spreads the times at which sessions are pinged.
    pub fn new(policy: Rc<Policy>, buffers: Buffers, stagger: u8, now_ns: u64) -> Self {
        Self {
            policy,
            outbox: Outbox::new(buffers),
            waiting: VecDeque::new(),
            states_waiting: 0,
            rates: Vec::new(),
            closing: false,
            shedding: false,
            blocked: false,
            awaits_answer: false,
            was_full: false,
            stalled: false,
            level: Level::Ok,
            refill_bytes: REFILL_BYTES,
            window: None,
            taken: 0,
            marks_at: marks::WIDE_BYTES,
            marks: Marks::new(stagger),
            acked: 0,
            progress_ns: now_ns,
            alive_ns: now_ns,
            ledger: Ledger::default(),
            offered: 0,
        }
    }

    // ---- ticks ----------------------------------------------------------------------------------------

    /// Prefetches what a write needs, so that several sessions wait for memory once. The returned sum has no meaning.
    #[inline]
    pub fn prefetch(&self) -> usize {
        usize::from(self.closing) ^ self.outbox.prefetch() ^ self.waiting.len()
    }

    /// Moves its pending frames to the outbox and leaves no room in their row. Call it before any other access.
    #[inline]
    pub fn absorb(&mut self, pending_frames: &mut PendingFrames) {
        self.ledger.sent += self.outbox.absorb(pending_frames);
    }

    /// Returns how many bytes of ticks may be pushed to its pending frames until it is accessed again. 0 while states
    /// wait, since they may have to be sent first.
    pub fn room(&self) -> usize {
        let open = !self.closing && !self.shedding && !self.blocked && self.states_waiting == 0;
        if !open {
            return 0;
        }
        let room = self.policy.outbox_bytes_max.saturating_sub(self.tick_bytes());
        match self.window_room() {
            Some(left) => room.min(usize::try_from(left).unwrap_or(room).saturating_sub(self.outbox.len())),
            None => room,
        }
    }

    /// Returns how many bytes wait, without those of answers.
    fn tick_bytes(&self) -> usize {
        self.outbox.len() - self.outbox.answer_bytes()
    }

    /// Queues the frame of a tick; returns false if there is no room, so that its subscription falls behind. Before the
    /// frame ring wraps, the session has to [copy](Self::own) queued frames that were not written.
    #[inline]
    pub fn offer(&mut self, frame: FrameRange, now_ns: u64) -> bool {
        let fits = self.fits(frame.len);
        if fits && !self.blocked {
            self.outbox.push_range(frame, now_ns);
            return true;
        }
        let fits = fits && self.outbox.len() + frame.len <= self.outbox.own_bytes_max();
        if fits {
            self.outbox.push_copy(frame, now_ns);
        }
        fits
    }

    /// Returns true if there is room for this many bytes of ticks.
    #[inline]
    pub fn fits(&self, bytes: usize) -> bool {
        !self.closing && !self.shedding && self.tick_bytes() + bytes <= self.policy.outbox_bytes_max
    }

    /// Copies its queued frames out of the frame ring, which may then wrap.
    pub fn own(&mut self) {
        self.outbox.own();
    }

    /// Starts shedding: ticks are merged or dropped from now on. Returns true if the session did not shed before; the
    /// caller then [judges](Self::judge) it at once.
    pub fn shed(&mut self) -> bool {
        let begins = !self.shedding && !self.closing;
        if begins {
            self.shedding = true;
            self.refill_bytes = REFILL_BYTES;
            self.marks.doubt();
            self.marks_at = 0;
        }
        begins
    }

    /// Returns the memory of its outbox and of the lists of what waits, in bytes.
    pub fn held_bytes(&self) -> usize {
        let keys = self.rates.iter().map(|held| held.keys.capacity()).sum::<usize>() * size_of::<Key>();
        self.outbox.held_bytes() + self.waiting.capacity() * size_of::<(Key, u32)>() + keys
    }

    /// Returns the memory of its outbox, in bytes.
    pub fn outbox_held_bytes(&self) -> usize {
        self.outbox.held_bytes()
    }

    /// Returns true if the client does not read what it is sent. When memory is short, the shard reclaims the queues of
    /// such clients.
    pub fn is_slow(&self) -> bool {
        self.blocked || self.stalled || self.shedding
    }

    /// Returns a copy of the queued whole frames of which nothing was written and that are not urgent.
    pub fn queued(&mut self) -> Vec<u8> {
        self.outbox.queued()
    }

    /// Discards the last `bytes` bytes of what is [queued](Self::queued), which must be whole frames, and subtracts
    /// their `counts` from the ledger. The caller then makes their subscriptions dirty and calls [`shed`](Self::shed).
    pub fn take_back(&mut self, bytes: usize, counts: Ledger) {
        self.outbox.drop_last(bytes);
        let Ledger { sent, merged, dropped, lost } = counts;
        self.ledger.sent -= sent.min(self.ledger.sent);
        self.ledger.merged -= merged.min(self.ledger.merged);
        self.ledger.dropped -= dropped.min(self.ledger.dropped);
        self.ledger.lost -= lost.min(self.ledger.lost);
    }

    /// Adds to the ledger.
    #[inline]
    pub fn count(&mut self, counts: Ledger) {
        self.ledger += counts;
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Records that a subscription to a channel begins after this number.
    pub fn began(&mut self, accounted_seq: u64) {
        self.offered = self.offered.wrapping_sub(accounted_seq);
    }

    /// Moves the start of the offered count of a subscription: see [`CatchUp::rebased`].
    pub fn rebased(&mut self, by: u64) {
        self.offered = self.offered.wrapping_sub(by);
    }

    /// Records that a subscription to a channel ends, accounted for up to this number.
    pub fn ended(&mut self, accounted_seq: u64) {
        self.offered = self.offered.wrapping_add(accounted_seq);
    }

    /// Returns how many ticks were offered on all subscriptions to channels; `heads` is the sum of the newest sequence
    /// numbers of the current ones.
    pub fn offered(&self, heads: u64) -> u64 {
        self.offered.wrapping_add(heads)
    }

    // ---- waiting subscriptions -------------------------------------------------------------------------

    /// Queues a dirty subscription until there is room.
    pub fn wait(&mut self, key: Key, now_ns: u64) {
        self.states_waiting += u32::from(key.channel().is_none());
        self.waiting.push_back((key, (now_ns / 1_000_000) as u32));
    }

    /// Removes and returns the dirty subscription that has waited longest, if there is room to send what it missed.
    pub fn next_waiting(&mut self) -> Option<Key> {
        let (key, _) = if self.has_room() { self.waiting.pop_front()? } else { return None };
        self.states_waiting -= u32::from(key.channel().is_none());
        Some(key)
    }

    /// Returns true if states wait for room: no value of an instrument is sent before its state.
    #[inline]
    pub fn has_states_waiting(&self) -> bool {
        self.states_waiting > 0
    }

    /// Returns true if a dirty subscription waits and can be sent what it missed.
    #[inline]
    pub fn can_recover(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }

    /// Returns true if there is room to send what one subscription missed. Half of the outbox is kept free, so that no
    /// new tick is lost because an old one was sent. With a window, only what fits in it is sent: the newest value
    /// would grow old waiting for it.
    pub fn has_room(&self) -> bool {
        let half = (self.policy.outbox_bytes_max / 2).min(self.outbox.own_bytes_max());
        if let Some(left) = self.window_room() {
            let fits = self.tick_bytes() + TOLD_BYTES_MAX <= half.max(TOLD_BYTES_MAX);
            return left > self.outbox.len() as u64 && fits && !self.closing && !self.blocked;
        }
        let most = if self.shedding { self.refill_bytes.min(half) } else { half };
        let late = self.shedding && (self.stalled || self.blocked || self.oldest_mark().is_some());
        !self.closing && !late && self.tick_bytes() + TOLD_BYTES_MAX <= most.max(TOLD_BYTES_MAX)
    }

    /// As [`has_room`](Self::has_room), for data that is kept elsewhere until it can be written: returns false while
    /// the session is blocked, or at least `bytes` bytes wait.
    pub fn has_room_ahead(&self, bytes: usize) -> bool {
        self.has_room() && !self.blocked && self.outbox.len() < bytes.max(1)
    }

    /// Returns true if a message of low priority may be sent: nothing waits, and there is room.
    pub fn may_hear_news(&self) -> bool {
        self.waiting.is_empty() && !self.shedding && !self.blocked && self.has_room()
    }

    /// Removes the subscription that has waited longest, or moves it behind the others if `stays` returns true. To
    /// remove those that have ended, call it once for [each](Self::waiting).
    pub fn sift_waiting(&mut self, stays: impl FnOnce(Key) -> bool) {
        let Some((key, since_ms)) = self.waiting.pop_front() else { return };
        if stays(key) {
            self.waiting.push_back((key, since_ms));
        } else {
            self.states_waiting -= u32::from(key.channel().is_none());
        }
    }

    /// Returns the number of dirty subscriptions that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    // ---- rates ----------------------------------------------------------------------------------------

    /// Returns the id of a rate, which is added if it is new; `None` if there are too many.
    pub fn rate(&mut self, rate: Rate) -> Option<RateId> {
        if let Some(known) = self.rate_id(rate) {
            return Some(known);
        }
        let is_free = |held: &Held| held.uses == 0 && held.keys.is_empty();
        let at = self.rates.iter().position(is_free).or_else(|| {
            let room = self.rates.len() < self.policy.rates_max.min(256);
            room.then(|| self.rates.push(Held::default()))?;
            Some(self.rates.len() - 1)
        })?;
        self.rates[at] = Held { rate: Some(rate), ..Held::default() };
        Some(RateId(at as u8))
    }

    /// Returns the id of a rate, if the session has it.
    pub fn rate_id(&self, rate: Rate) -> Option<RateId> {
        let at = self.rates.iter().position(|held| held.rate == Some(rate))?;
        Some(RateId(at as u8))
    }

    /// Counts one more subscription, wildcard or awaited symbol with a rate: a rate in use is kept.
    pub fn use_rate(&mut self, id: Option<RateId>) {
        if let Some(held) = id.and_then(|id| self.rates.get_mut(usize::from(id.0))) {
            held.uses += 1;
        }
    }

    /// Counts one [user](Self::use_rate) of a rate less. A rate without users may be replaced by a new one.
    pub fn leave_rate(&mut self, id: Option<RateId>) {
        if let Some(held) = id.and_then(|id| self.rates.get_mut(usize::from(id.0))) {
            held.uses = held.uses.saturating_sub(1);
        }
    }

    /// Returns the rate with this id.
    pub fn rate_of(&self, id: RateId) -> Option<Rate> {
        self.rates.get(usize::from(id.0)).and_then(|held| held.rate)
    }

    /// Holds a dirty subscription back until the next multiple of the period of its rate, counted from `phase_ns`.
    /// Returns that steady time, unless the shard already waits for it.
    #[inline]
    pub fn hold(&mut self, key: Key, id: RateId, phase_ns: u64, now_ns: u64) -> Option<u64> {
        let held = self.rates.get_mut(usize::from(id.0))?;
        let period_ns = held.rate?.period_ns();
        held.keys.push(key);
        // The shard waits for an earlier due time even if nothing is held any more.
        (held.due_ns <= now_ns).then(|| {
            let phase_ns = phase_ns % period_ns;
            held.due_ns = (now_ns + period_ns - phase_ns) / period_ns * period_ns + phase_ns;
            held.due_ns
        })
    }

    /// Releases what a rate holds back, if that is due at `due_ns`, to wait for room. Returns true if there was
    /// anything.
    pub fn release(&mut self, id: RateId, due_ns: u64, now_ns: u64) -> bool {
        let Some(held) = self.rates.get_mut(usize::from(id.0)) else { return false };
        if held.due_ns != due_ns || held.keys.is_empty() {
            return false;
        }
        let since_ms = (now_ns / 1_000_000) as u32;
        self.waiting.extend(held.keys.drain(..).map(|key| (key, since_ms)));
        true
    }

    /// Releases what all rates hold back.
    pub fn release_all(&mut self, now_ns: u64) {
        let since_ms = (now_ns / 1_000_000) as u32;
        for held in &mut self.rates {
            self.waiting.extend(held.keys.drain(..).map(|key| (key, since_ms)));
        }
    }

    /// Returns true if a rate holds a subscription at this place of [`sift_held`](Self::sift_held) or a later one.
    pub fn is_held_at(&self, (rate, at): (usize, usize)) -> bool {
        let mut rates = self.rates.iter().skip(rate);
        rates.next().is_some_and(|held| at < held.keys.len()) || rates.any(|held| !held.keys.is_empty())
    }

    /// Lets `judge` decide about the held subscription at `at`, a rate and an index, and advances `at`. Returns false
    /// if there are no more.
    pub fn sift_held(
        &mut self,
        at: &mut (usize, usize),
        judge: impl FnOnce(Key, RateId) -> Hold,
        now_ns: u64,
    ) -> bool {
        while let Some(held) = self.rates.get_mut(at.0) {
            let Some(key) = held.keys.get(at.1).copied() else {
                *at = (at.0 + 1, 0);
                continue;
            };
            match judge(key, RateId(at.0 as u8)) {
                Hold::Stays => at.1 += 1,
                Hold::LetGo => {
                    held.keys.swap_remove(at.1);
                    self.waiting.push_back((key, (now_ns / 1_000_000) as u32));
                }
                Hold::Over => {
                    held.keys.swap_remove(at.1);
                }
            }
            return true;
        }
        false
    }

    // ---- bytes ----------------------------------------------------------------------------------------

    /// Queues a frame behind all others, without a check for room.
    pub fn push(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push(frame, now_ns);
    }

    /// As [`push`](Self::push), for a tick that has to be measured.
    pub fn push_tick(&mut self, frame: &[u8], times: Times, now_ns: u64) {
        self.outbox.push_tick(frame, times, now_ns);
    }

    /// Queues an answer. It is never refused: while the session [is over full](Self::is_over_full), the shard does not
    /// read from the client.
    pub fn push_answer(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push_answer(frame, now_ns);
    }

    /// Queues a frame ahead of those that are not urgent.
    pub fn push_urgent(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push_urgent(frame, now_ns);
    }

    /// Returns true if an urgent frame waits.
    pub fn has_urgent(&self) -> bool {
        self.outbox.has_urgent()
    }

    /// Returns true if queued answers exceed their bound: no more requests are read until they drain.
    pub fn is_over_full(&self) -> bool {
        self.outbox.answer_bytes() > self.policy.control_bytes_max
    }

    /// Passes the next bytes to `write`: at least one slice, and at most as much as one write takes.
    #[inline]
    pub fn show<T>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let most = if self.window.is_some() { self.portion() } else { usize::MAX };
        self.outbox.show(most, write)
    }

    /// Returns a copy of the urgent frames, if any, and of the rest of a partly written frame before them; with `all`,
    /// of everything.
    pub fn copied(&mut self, all: bool) -> Vec<u8> {
        self.outbox.copied(all)
    }

    /// Returns the outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Returns how many ticks end within the first `n` waiting bytes. Call it before [`wrote`](Self::wrote).
    #[inline]
    pub fn ticks_within(&self, n: usize) -> u32 {
        self.outbox.ticks_within(n)
    }

    /// Samples the ticks that end within the first `n` waiting bytes. Passes the times of each to `tell`, with the
    /// number of these ticks that it represents, and with that number plus its share of `others`, the ticks of
    /// unmeasured writes. Returns false if no tick ends there. Call it before [`wrote`](Self::wrote).
    #[inline]
    pub fn going(&self, n: usize, others: u64, tell: impl FnMut(Times, u64, u64)) -> bool {
        self.outbox.going(n, others, tell)
    }

    /// Returns true if some of the next bytes waited because the socket took nothing.
    #[inline]
    pub fn has_refused(&self) -> bool {
        self.outbox.has_refused()
    }

    /// As [`going`](Self::going), but for every tick, if some bytes [were refused](Self::has_refused). Also passes true
    /// if the socket refused the tick, and false if it was queued later.
    pub fn going_refused(&self, n: usize, tell: impl FnMut(Times, bool)) {
        self.outbox.going_refused(n, tell);
    }

    /// Records that the socket took the first `n` waiting bytes.
    #[inline]
    pub fn wrote(&mut self, n: usize, now_ns: u64) {
        self.outbox.wrote(n);
        self.taken += n as u64;
        if self.was_full || self.shedding {
            self.gave_way(now_ns);
        }
    }

    /// Handles a write of a session that was blocked or sheds.
    #[cold]
    fn gave_way(&mut self, now_ns: u64) {
        if self.was_full {
            self.progress_ns = now_ns;
            self.stalled = false;
            // A slow client answers pings late, so taking data counts as a sign of life.
            self.alive_ns = now_ns;
        }
        if self.outbox.is_empty() {
            self.was_full = false;
            // The socket was full only briefly: no limit is needed.
            self.window.take_if(|window| !window.is_limit());
            // With an unanswered ping, the portion grows when the client answers.
            if self.oldest_mark().is_none() {
                self.refill_more();
            }
        }
        self.end_shedding();
    }

    fn refill_more(&mut self) {
        self.refill_bytes = (2 * self.refill_bytes).min(self.policy.outbox_bytes_max);
    }

    /// Records that the kernel took the first `n` bytes beyond its limit of unsent bytes, which says nothing of the
    /// client.
    pub fn forced(&mut self, n: usize) {
        self.outbox.wrote(n);
        self.taken += n as u64;
    }

    /// Blocks the session: the socket took nothing, or the client has too much unread.
    pub fn block(&mut self, now_ns: u64) {
        self.own();
        if !self.was_full {
            // It was not behind until now, so its progress is timed from here.
            self.progress_ns = now_ns;
        }
        (self.blocked, self.was_full) = (true, true);
        self.refill_bytes = REFILL_BYTES;
    }

    /// Ends the block: the socket is writable again, or the client has answered.
    pub fn unblock(&mut self) {
        (self.blocked, self.awaits_answer) = (false, false);
        self.outbox.was_refused();
    }

    /// Returns true while the socket is known to take nothing, or the client has too much unread.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns true while it is [blocked](Self::is_blocked) until the client answers a ping; the socket may have room.
    #[inline]
    pub fn awaits_answer(&self) -> bool {
        self.awaits_answer
    }

    /// Ends shedding, once no subscription waits, the outbox is at most half full and the client reads in time.
    pub fn end_shedding(&mut self) {
        let half = self.outbox.len() <= self.policy.outbox_bytes_max / 2;
        let idle = self.waiting.is_empty() && half && !self.blocked && !self.stalled;
        if self.shedding && idle && self.marks.is_prompt() {
            self.shedding = false;
        }
    }

    /// Returns true while ticks are merged or dropped.
    pub fn is_shedding(&self) -> bool {
        self.shedding
    }

    // ---- closing ---------------------------------------------------------------------------------------

    /// Takes no more ticks: only the queue is written, and what [`push`](Self::push) adds.
    pub fn close(&mut self) {
        self.closing = true;
        self.waiting.clear();
        self.states_waiting = 0;
        self.rates.clear();
    }

    /// As [`close`](Self::close), but discards the queue, except urgent frames and the rest of a frame that is partly
    /// written.
    pub fn abandon(&mut self) {
        self.outbox.discard();
        self.close();
    }

    /// Returns true after [`close`](Self::close).
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.outbox.give_back();
    }
}

#[cfg(test)]
mod tests;
