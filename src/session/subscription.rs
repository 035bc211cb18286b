//! One subscription: what its client was sent of one stream, and what it has to be sent to be current again.

use std::ops::AddAssign;

use crate::model::tick::{Body, GapCause, LastValue, Stream, Tick};
use crate::protocol::{DeliveryPolicy, Mode};

/// A subscription of one session to one stream, as it stands in the shard's table: there are very many of them.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The session's number in its shard.
    pub session: u32,
    condition: Condition,
    /// See [`LATEST`] and those beside it.
    flags: u8,
    /// The rate that holds it back, where the flag is set.
    rate: u8,
    /// The newest number that the client was sent, or that a gap or an `n` accounts for.
    accounted_seq: u64,
}

const _: () = assert!(size_of::<Subscription>() == 16, "four on a line of memory");

/// Flag of a [`Subscription`]: its mode is `latest`.
const LATEST: u8 = 1;
/// The first tick that it loses to slowness ends the session.
const DISCONNECTS: u8 = 1 << 1;
/// It has a rate.
const RATED: u8 = 1 << 2;
/// The client asked for it by its name.
const NAMED: u8 = 1 << 3;

/// One of the rates of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateId(pub(super) u8);

/// How a [`Subscription`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Current,
    /// New: the last value comes first, marked `snap`.
    Fresh,
    /// Numbers are missing for this reason.
    Behind(GapCause),
    /// A rate holds it back: what came meanwhile is merged, whatever its mode becomes.
    Held,
    /// What it missed while the client was away is being read from the ring.
    Resuming,
    /// What was recorded is being read, and nothing of it was sent yet.
    Pending,
    /// What was recorded is being read.
    Past,
    /// Nothing of it was sent: whatever comes next begins the count.
    Opening,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Behind this number: what comes next is sent.
    After(u64),
    /// With the last value, marked `snap`; this is the newest number there is.
    Snapshot(u64),
    /// Behind this number, and the newest value is sent at once with what it stands for, or what is missing.
    Newest(u64),
    /// Behind this number, and what followed is read from the ring first.
    Resume(u64),
    /// Where what was recorded begins, which has to be read first; this is the newest number there is.
    Past(u64),
}

impl Subscription {
    /// A new subscription. Unless it is [current](Self::is_dirty), its session has to
    /// [`wait`](super::Session::wait) for room, or for the ring to be read.
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

    /// True if its client asked for it by its name, be there a wildcard that brings it or not.
    pub fn is_named(&self) -> bool {
        self.flags & NAMED != 0
    }

    /// Its client asks for it by its name.
    pub fn name(&mut self) {
        self.flags |= NAMED;
    }

    /// How it treats ticks that come too fast.
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

    /// Changes how it treats ticks that come too fast.
    pub fn set_policy(&mut self, policy: DeliveryPolicy<RateId>) {
        let flag = |flag, is_set| if is_set { flag } else { 0 };
        let mode = flag(LATEST, policy.mode == Mode::Latest);
        self.flags = (self.flags & NAMED)
            | mode
            | flag(DISCONNECTS, policy.disconnect_on_loss)
            | flag(RATED, policy.rate.is_some());
        self.rate = policy.rate.map_or(0, |rate| rate.0);
    }

    /// True while what it missed, or what was recorded, is being read.
    pub fn is_resuming(&self) -> bool {
        matches!(self.condition, Condition::Resuming | Condition::Pending | Condition::Past)
    }

    /// True while what was recorded is being read: what is sent is past.
    pub fn is_past(&self) -> bool {
        matches!(self.condition, Condition::Pending | Condition::Past)
    }

    /// True while what was recorded is being read, and nothing of it was sent yet.
    pub fn is_pending(&self) -> bool {
        self.condition == Condition::Pending
    }

    /// True if whatever comes next begins the count.
    #[inline]
    pub fn is_opening(&self) -> bool {
        self.condition == Condition::Opening
    }

    /// The count of one that is [pending](Self::is_pending) or [opening](Self::is_opening) begins with a tick, whose first
    /// number this is. By how much the number moves from which the books count, wrapping.
    pub fn open(&mut self, first: u64) -> u64 {
        let before = std::mem::replace(&mut self.accounted_seq, first.saturating_sub(1));
        self.condition = if self.is_pending() { Condition::Past } else { Condition::Current };
        self.accounted_seq.wrapping_sub(before)
    }

    /// True if the newest value of a channel stands for those before it, where they cannot all be sent.
    #[inline]
    pub fn is_latest(&self) -> bool {
        self.flags & LATEST != 0
    }

    /// True if the next tick it loses because its client is slow ends the session.
    pub fn disconnects_on_loss(&self) -> bool {
        self.flags & DISCONNECTS != 0
    }

    /// The rate that holds it back.
    #[inline]
    pub fn rate(&self) -> Option<RateId> {
        (self.flags & RATED != 0).then_some(RateId(self.rate))
    }

    /// One that is [pending](Self::is_pending) skips numbers up to this one: they predate it. Returns by how much
    /// the number moves from which the books count.
    pub fn pass(&mut self, seq: u64) -> u64 {
        let before = self.accounted_seq;
        self.accounted_seq = seq.max(before);
        self.accounted_seq - before
    }

    /// A tick that is read again; `first` is the first number that it takes. What the client is sent before it, if
    /// numbers are missing; `None` if it was sent already, or nothing is to be read.
    pub fn resume(&mut self, first: u64, seq: u64) -> Option<Option<Missing>> {
        if !self.is_resuming() || self.is_pending() || seq <= self.accounted_seq {
            return None;
        }
        let missing = Missing::range(self.accounted_seq + 1, first.saturating_sub(1), GapCause::Resume);
        self.accounted_seq = seq;
        Some(missing)
    }

    /// All there is was read. Where some of it was `missed`, the last value stands for the rest. One of which nothing was sent
    /// begins with a snapshot, if it is to be `fresh`, else with whatever comes next. True if its session has to
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

    /// The newest number that the client was sent, or that a gap or an `n` accounts for.
    pub fn accounted_seq(&self) -> u64 {
        self.accounted_seq
    }

    /// True while ticks pass it by: it will recover from the last value.
    #[inline]
    pub fn is_dirty(&self) -> bool {
        !matches!(self.condition, Condition::Current | Condition::Opening)
    }

    /// Whether the tick of this number is to be queued: it is new, and nothing older is missing.
    #[inline]
    pub fn wants(&self, seq: u64) -> bool {
        self.condition == Condition::Current && seq > self.accounted_seq
    }

    /// Whether numbers up to this one went past it unseen.
    pub fn misses(&self, published_seq: u64) -> bool {
        !self.is_dirty() && published_seq > self.accounted_seq
    }

    /// The tick of this number was queued.
    #[inline]
    pub fn queued(&mut self, seq: u64) {
        self.accounted_seq = seq;
    }

    /// Numbers went past it, for this reason. True if it was current until now: then its session has to
    /// [`wait`](super::Session::wait) for room.
    pub fn fell_behind(&mut self, why: GapCause) -> bool {
        let was_current = !self.is_dirty();
        if was_current {
            self.condition = Condition::Behind(why);
        }
        was_current
    }

    /// What was queued for it from this number on is not sent after all. Where it [resumes](Self::is_resuming), the rest is
    /// not read either: the last value stands for it. True if its session has to [`wait`](super::Session::wait) for room,
    /// and does not yet.
    pub fn taken_back(&mut self, first: u64) -> bool {
        self.accounted_seq = self.accounted_seq.min(first.saturating_sub(1));
        let waits = matches!(self.condition, Condition::Fresh | Condition::Behind(_) | Condition::Held);
        if !waits {
            self.condition = Condition::Behind(GapCause::SlowConsumer);
        }
        !waits
    }

    /// What the client was sent last is sent once more, for it means something else by now. True if it was current until now:
    /// then its session has to [`wait`](super::Session::wait). For states, whose numbers are not counted.
    pub fn tell_again(&mut self) -> bool {
        let was_current = self.fell_behind(GapCause::Overrun);
        if was_current {
            self.accounted_seq = self.accounted_seq.saturating_sub(1);
        }
        was_current
    }

    /// A tick came before its rate lets it go. True if it was current until now: then its session has to
    /// [`hold`](super::Session::hold) it.
    pub fn hold(&mut self) -> bool {
        let was_current = !self.is_dirty();
        if was_current {
            self.condition = Condition::Held;
        }
        was_current
    }

    /// A gap of the feed has come while it was held and could not be sent: it recovers as one that is behind.
    pub fn lapse(&mut self) {
        self.condition = Condition::Behind(GapCause::SlowConsumer);
    }

    /// True while a rate holds it back.
    pub fn is_held(&self) -> bool {
        self.condition == Condition::Held
    }

    /// What the client has to be sent to be current again, in this order: a gap, a tick, a gap. A subscription that
    /// [resumes](Self::is_resuming), or that is not [dirty](Self::is_dirty), is left alone.
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
            // What was held back and lost its value to a gap of the feed, the shard came too late for.
            Condition::Held if last.head > self.accounted_seq => self.recover(&last, GapCause::Overrun, true),
            _ => CatchUp::default(),
        };
        self.accounted_seq = self.accounted_seq.max(last.head);
        catch_up.opens = condition == Condition::Fresh;
        if catch_up.opens {
            // The count begins with the snapshot: what came before it was never offered.
            catch_up.rebased = catch_up.value.map_or(0, |value| value.tick.seq).wrapping_sub(before);
        }
        catch_up
    }

    /// The last value, and after it what the feed lost.
    fn snapshot(&self, last: &LastValue) -> CatchUp {
        let mut catch_up = CatchUp::default();
        match last.tick {
            Some(tick) => {
                catch_up.value = Some(Told { tick, n: 1, snap: true });
                catch_up.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
            }
            // Where there is no value any more, the count still begins at a number that a gap accounts for.
            None => {
                let void = last.void.unwrap_or(0);
                catch_up.before[0] = Missing::range(1, void, GapCause::Seek);
                catch_up.after = Missing::range(void + 1, last.head, GapCause::Feed);
            }
        }
        catch_up
    }

    /// The newest value with what it stands for, and gaps for what nothing stands for.
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
        // A loss of the feed is never hidden in a merge. What came before it has nothing to stand for it.
        if let Some((from, to)) = last.feed_gap.filter(|(_, to)| (next..tick.seq).contains(to)) {
            let from = from.max(next);
            catch_up.before[0] = Missing::range(next, from - 1, why);
            catch_up.before[1] = Missing::range(from, to, GapCause::Feed);
            next = to + 1;
        }
        // After a seek the previous value must not merge with the next one.
        if !merges || tick.snap {
            catch_up.before[2] = Missing::range(next, tick.seq - 1, why);
            next = tick.seq;
        }
        catch_up.value = Some(Told { tick, n: tick.seq + 1 - next, snap: tick.snap });
        catch_up.after = Missing::range(tick.seq + 1, last.head, GapCause::Feed);
        catch_up
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
    /// The value is the first that the client is sent: the count begins with it.
    pub opens: bool,
    /// By how much the number moves from which the books count, wrapping.
    pub rebased: u64,
}

impl CatchUp {
    /// The first numbers that it names because the client or the shard was slow.
    pub fn slowness(&self) -> Option<Missing> {
        let slow = |missing: &Missing| matches!(missing.why, GapCause::SlowConsumer | GapCause::Overrun);
        self.before.into_iter().chain([self.after]).flatten().find(slow)
    }

    /// How the books stand after it.
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

/// A tick to send, and what it stands for.
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
    /// Sent by a message of their own. A snapshot at the start of a subscription repeats a tick and is not counted.
    pub sent: u64,
    /// Stood for by a newer one.
    pub merged: u64,
    /// Named by a gap because the client or the shard was slow, or the client was away for too long.
    pub dropped: u64,
    /// Named by a gap because the feed lost them, or because a replay went to where there is no value.
    pub lost: u64,
}

impl Ledger {
    /// All that is accounted for, by whatever message.
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
