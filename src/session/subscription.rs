//! A subscription: the newest sequence number that its client is accounted for, and how it becomes current again.

use std::ops::AddAssign;

use crate::model::tick::{Body, GapCause, LastValue, Stream, Tick};
use crate::protocol::{DeliveryPolicy, Mode};

/// A subscription of one session to one stream, as stored in the table of the shard: 16 bytes, since there are many.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The session's number in its shard.
    pub session: u32,
    condition: Condition,
    /// A combination of [`LATEST`], [`DISCONNECTS`], [`RATED`] and [`NAMED`].
    flags: u8,
    /// The rate that holds it back, if [`RATED`] is set.
    rate: u8,
    /// The newest number that a sent tick, its `n` or a gap accounts for.
    accounted_seq: u64,
}

const _: () = assert!(size_of::<Subscription>() == 16, "four on a line of memory");

/// Flag of a [`Subscription`]: its mode is `latest`.
const LATEST: u8 = 1;
/// Flag: the first tick that it loses because the client is slow ends the session.
const DISCONNECTS: u8 = 1 << 1;
/// Flag: it has a rate.
const RATED: u8 = 1 << 2;
/// Flag: the client requested it by name.
const NAMED: u8 = 1 << 3;

/// The id of a rate of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateId(pub(super) u8);

/// The condition of a [`Subscription`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Current,
    /// New: the last value is sent first, marked `snap`.
    Fresh,
    /// Numbers are missing for this reason.
    Behind(GapCause),
    /// A rate holds it back: ticks that arrive meanwhile are merged, whatever its mode becomes.
    Held,
    /// The ticks that it missed while the client was away are being reread.
    Resuming,
    /// Recorded ticks are being reread, and none of them was sent yet.
    Pending,
    /// Recorded ticks are being reread.
    Past,
    /// No tick was sent yet: the count begins with the next one.
    Opening,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// After this number: the next tick is sent.
    After(u64),
    /// With the last value, marked `snap`; the number is the newest published one.
    Snapshot(u64),
    /// After this number: the newest value is sent at once, and represents the ticks between, or a gap names them.
    Newest(u64),
    /// After this number: the ticks since then are reread first.
    Resume(u64),
    /// In the past: recorded ticks are reread first; the number is the newest published one.
    Past(u64),
}

impl Subscription {
    /// Returns a new subscription. If it is [dirty](Self::is_dirty), its session has to [`wait`](super::Session::wait)
    /// for room, or for the reread.
    pub fn new(session: u32, policy: DeliveryPolicy<RateId>, baseline: Baseline) -> Self {
        let (condition, accounted_seq) = match baseline {
            Baseline::After(seq) => (Condition::Current, seq),
            Baseline::Snapshot(seq) => (Condition::Fresh, seq),
            Baseline::Newest(seq) => (Condition::Behind(GapCause::Resume), seq),
            Baseline::Resume(seq) => (Condition::Resuming, seq),
            Baseline::Past(seq) => (Condition::Pending, seq),
        };
        let mut subscription = Self { session, condition, flags: 0, rate: 0, accounted_seq };
        subscription.set_policy(policy);
        subscription
    }

    /// Returns true if its client requested it by name, whether or not a wildcard matches it, too.
    pub fn is_named(&self) -> bool {
        self.flags & NAMED != 0
    }

    /// Marks it as requested by name.
    pub fn name(&mut self) {
        self.flags |= NAMED;
    }

    /// Returns its delivery policy: what happens to ticks that come too fast.
    pub fn policy(&self) -> DeliveryPolicy<RateId> {
        DeliveryPolicy {
            mode: self.mode(),
            rate: self.rate(),
            disconnect_on_loss: self.disconnects_on_loss(),
        }
    }

    fn mode(&self) -> Mode {
        if self.flags & LATEST != 0 { Mode::Latest } else { Mode::Every }
    }

    /// Changes its delivery policy.
    pub fn set_policy(&mut self, policy: DeliveryPolicy<RateId>) {
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        let mode = flag(LATEST, policy.mode == Mode::Latest);
        self.flags = (self.flags & NAMED)
            | mode
            | flag(DISCONNECTS, policy.disconnect_on_loss)
            | flag(RATED, policy.rate.is_some());
        self.rate = policy.rate.map_or(0, |rate| rate.0);
    }

    /// Returns true while missed or recorded ticks are being reread.
    pub fn is_resuming(&self) -> bool {
        matches!(self.condition, Condition::Resuming | Condition::Pending | Condition::Past)
    }

    /// Returns true while recorded ticks are being reread: what is sent is past.
    pub fn is_past(&self) -> bool {
        matches!(self.condition, Condition::Pending | Condition::Past)
    }

    /// Returns true while recorded ticks are being reread and none of them was sent yet.
    pub fn is_pending(&self) -> bool {
        self.condition == Condition::Pending
    }

    /// Returns true if the count begins with the next tick.
    #[inline]
    pub fn is_opening(&self) -> bool {
        self.condition == Condition::Opening
    }

    /// Begins the count of a subscription that is [pending](Self::is_pending) or [opening](Self::is_opening) with a
    /// tick whose first number is `first`. Returns by how much the start of the offered count moves, wrapping.
    pub fn open(&mut self, first: u64) -> u64 {
        let before = std::mem::replace(&mut self.accounted_seq, first.saturating_sub(1));
        self.condition = if self.is_pending() { Condition::Past } else { Condition::Current };
        self.accounted_seq.wrapping_sub(before)
    }

    /// Returns true if the newest value of a channel represents earlier ones that cannot all be sent.
    #[inline]
    pub fn is_latest(&self) -> bool {
        self.flags & LATEST != 0
    }

    /// Returns true if the next tick that it loses because the client is slow ends the session.
    pub fn disconnects_on_loss(&self) -> bool {
        self.flags & DISCONNECTS != 0
    }

    /// Returns the rate that holds it back.
    #[inline]
    pub fn rate(&self) -> Option<RateId> {
        (self.flags & RATED != 0).then_some(RateId(self.rate))
    }

    /// Skips the numbers up to `seq` of a [pending](Self::is_pending) subscription: they predate its start. Returns by
    /// how much the start of the offered count moves.
    pub fn pass(&mut self, seq: u64) -> u64 {
        let before = self.accounted_seq;
        self.accounted_seq = seq.max(before);
        self.accounted_seq - before
    }

    /// Accounts for a reread tick with the numbers `first` to `seq`. Returns the numbers that are missing before it, if
    /// any; `None` if the tick is not to be sent, because it already was or because nothing is being reread.
    pub fn resume(&mut self, first: u64, seq: u64) -> Option<Option<Missing>> {
        if !self.is_resuming() || self.is_pending() || seq <= self.accounted_seq {
            return None;
        }
        let missing = Missing::range(self.accounted_seq + 1, first.saturating_sub(1), GapCause::Resume);
        self.accounted_seq = seq;
        Some(missing)
    }

    /// Ends the reread. If ticks were `missed`, the subscription recovers from the last value. One of which nothing was
    /// sent begins with a snapshot if `fresh`, otherwise with the next tick. Returns true if its session has to
    /// [`wait`](super::Session::wait).
    pub fn resumed(&mut self, missed: bool, fresh: bool) -> bool {
        self.condition = match self.condition {
            Condition::Pending if fresh => Condition::Fresh,
            Condition::Pending => Condition::Opening,
            _ if missed => Condition::Behind(GapCause::Resume),
            _ => Condition::Current,
        };
        self.is_dirty()
    }

    /// Returns the newest number that a sent tick, its `n` or a gap accounts for.
    pub fn accounted_seq(&self) -> u64 {
        self.accounted_seq
    }

    /// Returns true while new ticks are not queued for it: it will recover from the last value, or old ticks are being
    /// reread.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        !matches!(self.condition, Condition::Current | Condition::Opening)
    }

    /// Returns true if the tick with this number is to be queued: it is new, and nothing older is missing.
    #[inline]
    pub fn wants(&self, seq: u64) -> bool {
        self.condition == Condition::Current && seq > self.accounted_seq
    }

    /// Returns true if it has missed ticks up to this number and is not dirty yet.
    pub fn misses(&self, published_seq: u64) -> bool {
        !self.is_dirty() && published_seq > self.accounted_seq
    }

    /// Records that the tick with this number was queued.
    #[inline]
    pub fn queued(&mut self, seq: u64) {
        self.accounted_seq = seq;
    }

    /// Makes it dirty because ticks were not queued, for this reason. Returns true if it was current: then its session
    /// has to [`wait`](super::Session::wait) for room.
    pub fn fell_behind(&mut self, why: GapCause) -> bool {
        let was_current = !self.is_dirty();
        if was_current {
            self.condition = Condition::Behind(why);
        }
        was_current
    }

    /// Takes back what was queued for it from this number on. A [reread](Self::is_resuming) ends, too: the last value
    /// represents the rest. Returns true if its session has to [`wait`](super::Session::wait) for room and does not
    /// yet.
    pub fn taken_back(&mut self, first: u64) -> bool {
        self.accounted_seq = self.accounted_seq.min(first.saturating_sub(1));
        let waits = matches!(self.condition, Condition::Fresh | Condition::Behind(_) | Condition::Held);
        if !waits {
            self.condition = Condition::Behind(GapCause::SlowConsumer);
        }
        !waits
    }

    /// Schedules the last state to be sent again, because it is shown differently now. Returns true if the subscription
    /// was current: then its session has to [`wait`](super::Session::wait). For states only, whose numbers are not
    /// counted.
    pub fn tell_again(&mut self) -> bool {
        let was_current = self.fell_behind(GapCause::Overrun);
        if was_current {
            self.accounted_seq = self.accounted_seq.saturating_sub(1);
        }
        was_current
    }

    /// Holds it back, because a tick came before its rate allows one. Returns true if it was current: then its session
    /// has to [`hold`](super::Session::hold) it.
    pub fn hold(&mut self) -> bool {
        let was_current = !self.is_dirty();
        if was_current {
            self.condition = Condition::Held;
        }
        was_current
    }

    /// Ends the hold because a gap of the feed follows the held value: the subscription recovers as one that is behind.
    pub fn lapse(&mut self) {
        self.condition = Condition::Behind(GapCause::SlowConsumer);
    }

    /// Returns true while a rate holds it back.
    pub fn is_held(&self) -> bool {
        self.condition == Condition::Held
    }

    /// Makes it current, and returns what its client has to be sent for that. A subscription that is
    /// [rereading](Self::is_resuming), or is not [dirty](Self::is_dirty), is left alone.
    pub fn catch_up(&mut self, stream: Stream, last: Option<LastValue>) -> CatchUp {
        if self.is_resuming() || !self.is_dirty() {
            return CatchUp::default();
        }
        let condition = std::mem::replace(&mut self.condition, Condition::Current);
        let Some(last) = last else { return CatchUp::default() };
        let before = self.accounted_seq;
        let mut catch_up = match condition {
            Condition::Fresh => self.snapshot(&last),
            Condition::Behind(why) if last.head > self.accounted_seq => {
                let merges = self.mode() == Mode::Latest || stream == Stream::Status;
                self.recover(&last, why, merges)
            }
            // The shard sends held values before a gap of the feed; if it missed one, the cause is `Overrun`.
            Condition::Held if last.head > self.accounted_seq => self.recover(&last, GapCause::Overrun, true),
            _ => CatchUp::default(),
        };
        self.accounted_seq = self.accounted_seq.max(last.head);
        catch_up.opens = condition == Condition::Fresh;
        if catch_up.opens {
            // The count begins with the snapshot: earlier ticks were never offered.
            catch_up.rebased = catch_up.value.map_or(0, |value| value.tick.seq).wrapping_sub(before);
        }
        catch_up
    }

    /// Returns the last value, and a gap for what the feed lost after it.
    fn snapshot(&self, last: &LastValue) -> CatchUp {
        let mut catch_up = CatchUp::default();
        match last.tick {
            Some(tick) => {
                catch_up.value = Some(Told { tick, n: 1, snap: true });
                catch_up.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
            }
            // Without a value, gaps tell the client where the count begins.
            None => {
                let void = last.void.unwrap_or(0);
                catch_up.before[0] = Missing::range(1, void, GapCause::Seek);
                catch_up.after = Missing::range(void + 1, last.head, GapCause::Feed);
            }
        }
        catch_up
    }

    /// Returns the newest value with the number of ticks that it represents, and gaps for all others.
    fn recover(&self, last: &LastValue, why: GapCause, merges: bool) -> CatchUp {
        let mut catch_up = CatchUp::default();
        let mut next = self.accounted_seq + 1;
        if let Some(void) = last.void.filter(|void| *void >= next) {
            catch_up.before[0] = Missing::range(next, void - 1, why);
            catch_up.before[1] = Missing::range(void, void, GapCause::Seek);
            next = void + 1;
        }
        let Some(tick) = last.tick.filter(|tick| tick.seq >= next) else {
            catch_up.after = Missing::range(next, last.head, GapCause::Feed);
            return catch_up;
        };
        // A loss of the feed is never hidden in a merge, so no value represents the ticks before it.
        if let Some((from, to)) = last.feed_gap.filter(|(_, to)| (next..tick.seq).contains(to)) {
            let from = from.max(next);
            catch_up.before[0] = Missing::range(next, from - 1, why);
            catch_up.before[1] = Missing::range(from, to, GapCause::Feed);
            next = to + 1;
        }
        // A value from before a seek must not be merged into one from after it.
        if !merges || tick.snap {
            catch_up.before[2] = Missing::range(next, tick.seq - 1, why);
            next = tick.seq;
        }
        catch_up.value = Some(Told { tick, n: tick.seq + 1 - next, snap: tick.snap });
        catch_up.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
        catch_up
    }
}

/// What makes a subscription current again, in sending order.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchUp {
    /// Gaps before the value: lost by the client, then by the feed or a seek, then by the client.
    pub before: [Option<Missing>; 3],
    /// The newest value.
    pub value: Option<Told>,
    /// The gap after the value: lost by the feed.
    pub after: Option<Missing>,
    /// The value is the first that the client is sent: the count begins with it.
    pub opens: bool,
    /// By how much the start of the offered count moves, wrapping.
    pub rebased: u64,
}

impl CatchUp {
    /// Returns the first missing numbers whose cause is a slow client or shard.
    pub fn slowness(&self) -> Option<Missing> {
        let slow = |missing: &Missing| matches!(missing.why, GapCause::SlowConsumer | GapCause::Overrun);
        self.before.into_iter().chain([self.after]).flatten().find(slow)
    }

    /// Returns what it adds to the ledger.
    pub fn counts(&self) -> Ledger {
        let mut counts = Ledger::default();
        for missing in self.before.iter().chain([&self.after]).flatten() {
            let numbers = missing.to - missing.from + 1;
            match missing.why {
                GapCause::Feed | GapCause::Seek => counts.lost += numbers,
                GapCause::SlowConsumer | GapCause::Overrun | GapCause::Resume => counts.dropped += numbers,
            }
        }
        if let Some(value) = self.value.filter(|v| !self.opens && !matches!(v.tick.body, Body::Status(_))) {
            counts.sent += 1;
            counts.merged += value.n - 1;
        }
        counts
    }
}

/// Sequence numbers that the client does not receive, both ends included.
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
    /// Returns the numbers `from` to `to`; `None` if there are none.
    fn range(from: u64, to: u64, why: GapCause) -> Option<Self> {
        (from <= to).then_some(Self { from, to, why })
    }
}

/// A tick to send, and the number of ticks that it represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The tick.
    pub tick: Tick,
    /// How many ticks it represents, itself included.
    pub n: u64,
    /// Whether it is marked as a snapshot.
    pub snap: bool,
}

/// The outcomes of the ticks of a session, without states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sent in a message of their own. The snapshot at the start of a subscription repeats a tick and is not counted.
    pub sent: u64,
    /// Represented by a newer one.
    pub merged: u64,
    /// Named by a gap because the client or the shard was slow, or the client was away for too long.
    pub dropped: u64,
    /// Named by a gap because the feed lost them, or because a replay moved to a position without a value.
    pub lost: u64,
}

impl Ledger {
    /// Returns the number of ticks that are accounted for.
    pub fn accounted(&self) -> u64 {
        self.sent + self.merged + self.dropped + self.lost
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.merged += other.merged;
        self.dropped += other.dropped;
        self.lost += other.lost;
    }
}
