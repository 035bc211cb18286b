//! One client's session, without its socket: what waits to be written, what it was sent of each stream it
//! subscribed to, and how far behind it is. A pure machine: what happened, and when, are arguments.
//!
//! # States
//!
//! ```text
//!            on a tick                          on room in the socket               on a look at the clock
//! Live       queue it; no room even after a     -                                   waited for too long -> Shedding
//!            write -> dirty, and Shedding
//! Shedding   dirty: the last value is sent      send the newest of each dirty       nothing taken for too long -> cut
//!                                               subscription; none left -> Live
//! Closing    refuse                             what is queued, then bye and        -
//!                                               the close frame go out
//! ```
//!
//! A new subscription starts dirty, so a snapshot goes the same path as a recovery: there is no second copy
//! of the market. Memory is bounded by the budget of the outbox, answers, and some 40 bytes a subscription.
//!
//! # Slow clients
//!
//! A client is slow whose socket takes nothing, or that does not come to what it was sent: pings stand in the stream
//! (`marks`), and with much behind one that is not answered in time, the session counts as blocked until it is.
//! [`judge`](Session::judge) is asked about sessions that were blocked or whose kernel holds bytes that are not acknowledged.
//! What counts is for how long the oldest of what waits has waited: in the outbox, as a dirty subscription, in the kernel
//! without any progress, or behind a ping. The client is sent each [`Level`] in turn.
//!
//! One whose socket stays full has a window (`window`): no more is before the client than it takes in half a second.
//! What a subscription to the newest values is offered beyond that makes it dirty, and is sent when there is room: at
//! once, not only when it sheds.
//!
//! While it sheds, a session is given little at a time, and the next when it has come to that, so that what it is given is
//! new when it reads it: the faster it does, the more, up to the whole budget.
//!
//! # Accounting
//!
//! [`Subscription::accounted_seq`] is the newest number that a tick, an `n` or a gap accounts for. So what is
//! pending is always `published_seq − accounted_seq`, and over a session's subscriptions, states not counted and those that have ended
//! included: `offered = sent + merged + dropped + lost + pending`, where what is offered counts from the snapshot's
//! number.

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

/// Bounds of a session's memory and patience.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Bytes of ticks that may wait in the outbox.
    pub outbox_bytes_max: usize,
    /// Bytes beyond that which only answers may use.
    pub control_bytes_max: usize,
    /// A client is warned when the oldest of what waits for it has waited so long, nanoseconds.
    pub warn_behind_ns: u64,
    /// Its ticks are merged or dropped from then on, nanoseconds.
    pub shed_behind_ns: u64,
    /// It is cut when it has come to nothing that it was sent for so long, nanoseconds.
    pub cut_after_ns: u64,
    /// It is dead when nothing was heard of it for so long, nanoseconds.
    pub pong_timeout_ns: u64,
    /// One that is behind has before it what it takes in so long, nanoseconds.
    pub ahead_ns: u64,
    /// Different rates that it may have at once.
    pub rates_max: usize,
}

/// Room that one recovery message needs at most: gaps and a tick, with the longest symbol and digits.
const TOLD_BYTES_MAX: usize = 2_048;
/// What a shedding session is given at first, and after its socket was full.
const REFILL_BYTES: usize = 4_096;

/// A rate of a session, and the subscriptions that it holds back until their time comes.
#[derive(Debug, Default)]
struct Held {
    /// `None` while it is not in use.
    rate: Option<Rate>,
    /// When they are released, steady time: a moment that the shard waits for, or one that has passed.
    due_ns: u64,
    keys: Vec<Key>,
    /// What has it: subscriptions, wildcards and awaited symbols.
    uses: u32,
}

/// What becomes of a subscription that a rate holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It stays.
    Stays,
    /// It is let go: it waits for room.
    LetGo,
    /// There is no such subscription any more.
    Over,
}

/// A session: its outbox, what waits for room in it or for its time, and its ledger.
///
/// A write meets it in no near cache. So what each write needs comes first, on as few lines of memory as it fits on, and the
/// order here is the order in memory.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    closing: bool,
    shedding: bool,
    /// The socket took nothing last time, or the client has so much before it that it is sent no more.
    blocked: bool,
    /// It is blocked until the client answers a ping.
    awaits_answer: bool,
    /// The socket was full since the outbox was last empty.
    was_full: bool,
    /// What the kernel holds does not get less.
    stalled: bool,
    level: Level,
    policy: Rc<Policy>,
    ledger: Ledger,
    outbox: Outbox,
    /// Bytes the socket took.
    taken: u64,
    /// From this place of the stream on, [marks](Self::look_at_marks) are looked at before more is written.
    marks_at: u64,
    /// How much the client may have before it, where it is behind.
    window: Option<Box<Window>>,
    /// When the socket last took something, or the client came to something; steady time.
    progress_ns: u64,
    /// When there was the last sign of life, steady time.
    alive_ns: u64,
    /// Bytes that the other side has acknowledged, as far as was looked.
    acked: u64,
    /// How much a shedding session is given at once, unless it has a window.
    refill_bytes: usize,
    /// Subscriptions that are dirty, the longest waiting first, with the time since when, in milliseconds of steady
    /// time. Each is in it once.
    waiting: VecDeque<(Key, u32)>,
    /// How many of them are to states.
    states_waiting: u32,
    rates: Vec<Held>,
    marks: Marks,
    /// The numbers that ended subscriptions reached, less those that all subscriptions began behind; wrapping.
    offered: u64,
}

impl Session {
    /// A session that was sent nothing yet. `stagger` spreads the times at which sessions are pinged.
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

    /// Prefetches what a write needs: for several sessions in a row, memory is waited for once. The sum it returns means nothing.
    #[inline]
    pub fn prefetch(&self) -> usize {
        usize::from(self.closing) ^ self.outbox.prefetch() ^ self.waiting.len()
    }

    /// Absorbs its pending frames, which have no room from then on: to be called before anything else is asked of it.
    #[inline]
    pub fn absorb(&mut self, pending_frames: &mut PendingFrames) {
        self.ledger.sent += self.outbox.absorb(pending_frames);
    }

    /// Bytes of ticks that may be pushed on its pending frames, until it is looked at again. None while states wait, which may have to be
    /// told first.
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

    /// Bytes that wait, those of answers not counted.
    fn tick_bytes(&self) -> usize {
        self.outbox.len() - self.outbox.answer_bytes()
    }

    /// Queues a tick's frame if there is room. False: its subscription falls behind. Before the frame ring comes round, the session
    /// has to [own](Self::own) what it was offered, unless it was written to.
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

    /// Whether there is room for so many bytes of ticks.
    #[inline]
    pub fn fits(&self, bytes: usize) -> bool {
        !self.closing && !self.shedding && self.tick_bytes() + bytes <= self.policy.outbox_bytes_max
    }

    /// Copies what stands in the frame ring.
    pub fn own(&mut self) {
        self.outbox.own();
    }

    /// A tick found no room though its socket was asked: ticks are merged or dropped from now on. True if they were
    /// not until now; then the client is to be [judged](Self::judge) at once.
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

    /// Bytes of memory that it holds: its outbox, and what waits for room in it.
    pub fn held_bytes(&self) -> usize {
        let keys = self.rates.iter().map(|held| held.keys.capacity()).sum::<usize>() * size_of::<Key>();
        self.outbox.held_bytes() + self.waiting.capacity() * size_of::<(Key, u32)>() + keys
    }

    /// Bytes of memory that its outbox holds.
    pub fn outbox_held_bytes(&self) -> usize {
        self.outbox.held_bytes()
    }

    /// Whether the client does not come to what it is sent: where memory is short, such clients give it back.
    pub fn is_slow(&self) -> bool {
        self.blocked || self.stalled || self.shedding
    }

    /// A copy of what is queued: whole frames of which nothing was written and that are not urgent.
    pub fn queued(&mut self) -> Vec<u8> {
        self.outbox.queued()
    }

    /// The last so many bytes of what is [queued](Self::queued), whole frames, are not sent after all; `counts` is how they
    /// were counted. Their subscriptions are to be made dirty then, and the session to [shed](Self::shed).
    pub fn take_back(&mut self, bytes: usize, counts: Ledger) {
        self.outbox.drop_last(bytes);
        let Ledger { sent, merged, dropped, lost } = counts;
        self.ledger.sent -= sent.min(self.ledger.sent);
        self.ledger.merged -= merged.min(self.ledger.merged);
        self.ledger.dropped -= dropped.min(self.ledger.dropped);
        self.ledger.lost -= lost.min(self.ledger.lost);
    }

    /// Counts what was sent, or lost.
    #[inline]
    pub fn count(&mut self, counts: Ledger) {
        self.ledger += counts;
    }

    /// What became of the ticks so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// A subscription to a channel begins behind this number.
    pub fn began(&mut self, accounted_seq: u64) {
        self.offered = self.offered.wrapping_sub(accounted_seq);
    }

    /// The number that a subscription began behind moves by so much: see [`CatchUp::rebased`].
    pub fn rebased(&mut self, by: u64) {
        self.offered = self.offered.wrapping_sub(by);
    }

    /// A subscription to a channel ends, accounted for up to this number.
    pub fn ended(&mut self, accounted_seq: u64) {
        self.offered = self.offered.wrapping_add(accounted_seq);
    }

    /// What was offered on all subscriptions to channels, `heads` being the sum of the newest numbers of those that
    /// there are.
    pub fn offered(&self, heads: u64) -> u64 {
        self.offered.wrapping_add(heads)
    }

    // ---- what waits -----------------------------------------------------------------------------------

    /// A dirty subscription waits for room.
    pub fn wait(&mut self, key: Key, now_ns: u64) {
        self.states_waiting += u32::from(key.channel().is_none());
        self.waiting.push_back((key, (now_ns / 1_000_000) as u32));
    }

    /// The dirty subscription that waited longest, if there is room to send what it missed.
    pub fn next_waiting(&mut self) -> Option<Key> {
        let (key, _) = if self.has_room() { self.waiting.pop_front()? } else { return None };
        self.states_waiting -= u32::from(key.channel().is_none());
        Some(key)
    }

    /// Whether states wait: nothing of a symbol is sent before its state.
    #[inline]
    pub fn has_states_waiting(&self) -> bool {
        self.states_waiting > 0
    }

    /// Whether a dirty subscription can be sent what it missed now.
    #[inline]
    pub fn can_recover(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }

    /// Whether there is room to send what one subscription missed. Half of the outbox is left for what comes meanwhile:
    /// no tick is to be lost because an old one was sent. Where there is a window, only what fits in it is
    /// sent: behind it the newest value would get old.
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

    /// As [`has_room`](Self::has_room), for what is kept elsewhere until it can be written: there is none while the socket takes
    /// nothing, or while so many bytes wait.
    pub fn has_room_ahead(&self, bytes: usize) -> bool {
        self.has_room() && !self.blocked && self.outbox.len() < bytes.max(1)
    }

    /// Whether there is room for what is of no consequence while ticks wait.
    pub fn may_hear_news(&self) -> bool {
        self.waiting.is_empty() && !self.shedding && !self.blocked && self.has_room()
    }

    /// Asks of the subscription that waited longest whether there is still one, and has it wait behind the others. To be
    /// called once for [each](Self::waiting) where some have ended.
    pub fn sift_waiting(&mut self, stays: impl FnOnce(Key) -> bool) {
        let Some((key, since_ms)) = self.waiting.pop_front() else { return };
        if stays(key) {
            self.waiting.push_back((key, since_ms));
        } else {
            self.states_waiting -= u32::from(key.channel().is_none());
        }
    }

    /// How many subscriptions are dirty for want of room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    // ---- rates ----------------------------------------------------------------------------------------

    /// The number of a rate, which becomes one of the session's if it was none; `None` if there are too many.
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

    /// The number of a rate, if it is one of the session's.
    pub fn rate_id(&self, rate: Rate) -> Option<RateId> {
        let at = self.rates.iter().position(|held| held.rate == Some(rate))?;
        Some(RateId(at as u8))
    }

    /// One more subscription, wildcard or awaited symbol has a rate: it stays one of the session's.
    pub fn use_rate(&mut self, id: Option<RateId>) {
        if let Some(held) = id.and_then(|id| self.rates.get_mut(usize::from(id.0))) {
            held.uses += 1;
        }
    }

    /// One of those that [use](Self::use_rate) a rate has it no more. Another may take its place when none has.
    pub fn leave_rate(&mut self, id: Option<RateId>) {
        if let Some(held) = id.and_then(|id| self.rates.get_mut(usize::from(id.0))) {
            held.uses = held.uses.saturating_sub(1);
        }
    }

    /// The rate of a number.
    pub fn rate_of(&self, id: RateId) -> Option<Rate> {
        self.rates.get(usize::from(id.0)).and_then(|held| held.rate)
    }

    /// Holds a dirty subscription back until its rate lets it go: at the next point of a grid of its periods, which
    /// begins at `phase_ns`. When that is, if that moment is not waited for yet.
    #[inline]
    pub fn hold(&mut self, key: Key, id: RateId, phase_ns: u64, now_ns: u64) -> Option<u64> {
        let held = self.rates.get_mut(usize::from(id.0))?;
        let period_ns = held.rate?.period_ns();
        held.keys.push(key);
        // What was held until that moment before may be gone: the moment still comes.
        (held.due_ns <= now_ns).then(|| {
            let phase_ns = phase_ns % period_ns;
            held.due_ns = (now_ns + period_ns - phase_ns) / period_ns * period_ns + phase_ns;
            held.due_ns
        })
    }

    /// Lets go what a rate holds back, if its moment is this one: they wait for room. True if there was any.
    pub fn release(&mut self, id: RateId, due_ns: u64, now_ns: u64) -> bool {
        let Some(held) = self.rates.get_mut(usize::from(id.0)) else { return false };
        if held.due_ns != due_ns || held.keys.is_empty() {
            return false;
        }
        let since_ms = (now_ns / 1_000_000) as u32;
        self.waiting.extend(held.keys.drain(..).map(|key| (key, since_ms)));
        true
    }

    /// Lets go what is held back by any rate.
    pub fn release_all(&mut self, now_ns: u64) {
        let since_ms = (now_ns / 1_000_000) as u32;
        for held in &mut self.rates {
            self.waiting.extend(held.keys.drain(..).map(|key| (key, since_ms)));
        }
    }

    /// Whether a rate holds a subscription back at this place of [`sift_held`](Self::sift_held), or behind it.
    pub fn is_held_at(&self, (rate, at): (usize, usize)) -> bool {
        let mut rates = self.rates.iter().skip(rate);
        rates.next().is_some_and(|held| at < held.keys.len()) || rates.any(|held| !held.keys.is_empty())
    }

    /// Looks at one subscription that a rate holds back, where `(rate, place)` is `at`, and moves that on. False if there
    /// are no more.
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

    /// Queues a frame of a recovery, or what comes last.
    pub fn push(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push(frame, now_ns);
    }

    /// As [`push`](Self::push), of a tick that has to be measured.
    pub fn push_tick(&mut self, frame: &[u8], times: Times, now_ns: u64) {
        self.outbox.push_tick(frame, times, now_ns);
    }

    /// Queues an answer. It is never refused: a client that sends too many requests is not read from while
    /// [`is_over_full`](Self::is_over_full).
    pub fn push_answer(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push_answer(frame, now_ns);
    }

    /// Queues a frame that overtakes what is queued.
    pub fn push_urgent(&mut self, frame: &[u8], now_ns: u64) {
        self.outbox.push_urgent(frame, now_ns);
    }

    /// True while an urgent frame waits already.
    pub fn has_urgent(&self) -> bool {
        self.outbox.has_urgent()
    }

    /// True when the room for answers is full: no more requests are read until it drains.
    pub fn is_over_full(&self) -> bool {
        self.outbox.answer_bytes() > self.policy.control_bytes_max
    }

    /// Shows what goes out next, in at least one slice, as much as one write takes.
    #[inline]
    pub fn show<T>(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let most = if self.window.is_some() { self.portion() } else { usize::MAX };
        self.outbox.show(most, write)
    }

    /// What is urgent and the rest of a frame that has begun, or all there is, in one piece.
    pub fn copied(&mut self, all: bool) -> Vec<u8> {
        self.outbox.copied(all)
    }

    /// What waits for the socket.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// How many ticks are out with the first `n` bytes of what waits. To be asked before they are [written](Self::wrote).
    #[inline]
    pub fn ticks_within(&self, n: usize) -> u32 {
        self.outbox.ticks_within(n)
    }

    /// Hands out the times of the ticks that are out with the first `n` bytes of what waits, and how many each stands for, of
    /// these and of all: of very many not each is handed out, and `others` are those of writes that were not asked. To be asked
    /// before they are [written](Self::wrote). False if no tick is out.
    #[inline]
    pub fn going(&self, n: usize, others: u64, tell: impl FnMut(Times, u64, u64)) -> bool {
        self.outbox.going(n, others, tell)
    }

    /// Whether some of what goes out next waited because the socket took nothing.
    #[inline]
    pub fn has_refused(&self) -> bool {
        self.outbox.has_refused()
    }

    /// Where there [is such](Self::has_refused): hands out the times of each tick that is out with the first `n` bytes of what
    /// waits, and whether the socket refused it, or it came later. To be asked before they are [written](Self::wrote).
    pub fn going_refused(&self, n: usize, tell: impl FnMut(Times, bool)) {
        self.outbox.going_refused(n, tell);
    }

    /// The socket took the first `n` bytes of what waits.
    #[inline]
    pub fn wrote(&mut self, n: usize, now_ns: u64) {
        self.outbox.wrote(n);
        self.taken += n as u64;
        if self.was_full || self.shedding {
            self.gave_way(now_ns);
        }
    }

    /// A socket that was full has taken something.
    #[cold]
    fn gave_way(&mut self, now_ns: u64) {
        if self.was_full {
            self.progress_ns = now_ns;
            self.stalled = false;
            // A slow client's pong is stuck behind data: that it takes data is as good.
            self.alive_ns = now_ns;
        }
        if self.outbox.is_empty() {
            self.was_full = false;
            // It was not full for long.
            self.window.take_if(|window| !window.is_limit());
            // A client that answers pings is given more when it has come to this.
            if self.oldest_mark().is_none() {
                self.refill_more();
            }
        }
        self.end_shedding();
    }

    fn refill_more(&mut self) {
        self.refill_bytes = (2 * self.refill_bytes).min(self.policy.outbox_bytes_max);
    }

    /// The kernel took the first `n` bytes though the socket counts as full: that says nothing of the client.
    pub fn forced(&mut self, n: usize) {
        self.outbox.wrote(n);
        self.taken += n as u64;
    }

    /// The socket took nothing.
    pub fn block(&mut self, now_ns: u64) {
        self.own();
        if !self.was_full {
            // Until now it took whatever it was given.
            self.progress_ns = now_ns;
        }
        (self.blocked, self.was_full) = (true, true);
        self.refill_bytes = REFILL_BYTES;
    }

    /// The socket can be written to again, or the client has answered.
    pub fn unblock(&mut self) {
        (self.blocked, self.awaits_answer) = (false, false);
        self.outbox.was_refused();
    }

    /// True while the socket is known to take nothing, or the client to have enough before it.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// True while it is [blocked](Self::is_blocked) though the socket may have room: until the client answers a ping.
    #[inline]
    pub fn awaits_answer(&self) -> bool {
        self.awaits_answer
    }

    /// Everything was sent, and the client comes to it in time: ticks are queued again.
    pub fn end_shedding(&mut self) {
        let half = self.outbox.len() <= self.policy.outbox_bytes_max / 2;
        let idle = self.waiting.is_empty() && half && !self.blocked && !self.stalled;
        if self.shedding && idle && self.marks.is_prompt() {
            self.shedding = false;
        }
    }

    /// True while ticks are merged or dropped.
    pub fn is_shedding(&self) -> bool {
        self.shedding
    }

    // ---- the end --------------------------------------------------------------------------------------

    /// No more ticks: what is queued goes out, and whatever [`push`](Self::push) adds.
    pub fn close(&mut self) {
        self.closing = true;
        self.waiting.clear();
        self.states_waiting = 0;
        self.rates.clear();
    }

    /// As [`close`](Self::close), but what is queued is thrown away, the rest of a frame that has begun and urgent ones
    /// excepted.
    pub fn abandon(&mut self) {
        self.outbox.discard();
        self.close();
    }

    /// True after [`close`](Self::close).
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
