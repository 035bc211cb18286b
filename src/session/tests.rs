use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::latency::meter::Class;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Body, GapCause, LastValue, Quote, Stream, Tick};
use crate::protocol::{Change, DeliveryPolicy, Mode, Op, Request, frame, parse};

const MS: u64 = 1_000_000;
const KEYS: u32 = 4;

fn policy() -> Policy {
    Policy {
        outbox_bytes_max: 4_096,
        control_bytes_max: 1_024,
        warn_behind_ns: 100 * MS,
        shed_behind_ns: 300 * MS,
        cut_after_ns: 1_000 * MS,
        pong_timeout_ns: 2_000 * MS,
        ahead_ns: 50 * MS,
        rates_max: 2,
    }
}

fn rate(hz: &str) -> Rate {
    let text = format!(r#"{{"op":"set","max_hz":{hz}}}"#);
    match parse(&text, 1) {
        Ok(Request { op: Op::Set(_, Change { rate: Some(Some(rate)), .. }), .. }) => rate,
        other => panic!("{other:?}"),
    }
}

fn key(n: u32) -> Key {
    Key::new(InstrumentId(n), Stream::Quote)
}

/// What happens to a session.
#[derive(Clone, Debug)]
enum Step {
    /// A tick of a stream, of so many bytes; `None`: the feed lost some.
    Tick(u32, Option<usize>),
    /// The socket takes so many bytes; 0: it takes none.
    Drain(usize),
    /// The kernel has so much unacknowledged when it is looked at.
    Judge(u64),
    Clock(u64),
    Subscribe(u32, DeliveryPolicy<RateId>, u8),
    Set(u32, Mode, Option<u8>),
    Unsubscribe(u32),
    Answer(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![Just(Mode::Every), Just(Mode::Latest)];
    let id = prop_oneof![3 => Just(None), 1 => (0..2_u8).prop_map(Some)];
    let claimed = (mode.clone(), id.clone()).prop_map(|(mode, rate)| DeliveryPolicy {
        mode,
        rate: rate.filter(|_| mode == Mode::Latest).map(RateId),
        disconnect_on_loss: false,
    });
    let step = prop_oneof![
        12 => (0..KEYS, prop_oneof![9 => (100..400_usize).prop_map(Some), 1 => Just(None)])
            .prop_map(|(n, bytes)| Step::Tick(n, bytes)),
        4 => (0..3_000_usize).prop_map(Step::Drain),
        2 => Just(Step::Drain(0)),
        2 => (0..3_000_u64).prop_map(Step::Judge),
        3 => (1..200_u64).prop_map(Step::Clock),
        2 => (0..KEYS, claimed, 0..5_u8).prop_map(|(n, claimed, begin)| Step::Subscribe(n, claimed, begin)),
        1 => (0..KEYS, mode, id).prop_map(|(n, mode, rate)| Step::Set(n, mode, rate)),
        1 => (0..KEYS).prop_map(Step::Unsubscribe),
        1 => (1..600_usize).prop_map(Step::Answer),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A session, its subscriptions and a market, driven as a shard drives them.
struct Rig {
    buffers: Buffers,
    session: Session,
    subscriptions: BTreeMap<Key, Subscription>,
    last: BTreeMap<Key, LastValue>,
    due: Vec<(u64, RateId)>,
    now_ns: u64,
    levels: Vec<Level>,
    cut: bool,
}

impl Rig {
    fn new() -> Self {
        let buffers = Buffers::default();
        let mut session = Session::new(Rc::new(policy()), buffers.clone(), 0, 0);
        for (hz, id) in [("20", RateId(0)), ("5", RateId(1))] {
            assert_eq!(session.rate(rate(hz)), Some(id));
            session.use_rate(Some(id));
        }
        let (subscriptions, last) = (BTreeMap::new(), BTreeMap::new());
        let levels = vec![Level::Ok];
        Self { buffers, session, subscriptions, last, due: Vec::new(), now_ns: 0, levels, cut: false }
    }

    fn head(&self, key: Key) -> u64 {
        self.last.get(&key).map_or(0, |last| last.head)
    }

    fn tick(&mut self, n: u32, bytes: Option<usize>) {
        let key = key(n);
        let seq = self.head(key) + 1;
        let last =
            self.last.entry(key).or_insert(LastValue { tick: None, void: None, head: 0, feed_gap: None });
        last.head = seq;
        match bytes {
            Some(_) => last.tick = Some(Tick { seq, ..quote(n) }),
            None => last.feed_gap = Some((seq, seq)),
        }
        let wants = |s: &&mut Subscription| s.wants(seq) || s.is_opening();
        let Some(subscription) = self.subscriptions.get_mut(&key).filter(wants) else { return };
        if subscription.is_opening() {
            self.session.rebased(subscription.open(seq));
        }
        if let Some(rate) = subscription.rate() {
            subscription.hold();
            if let Some(due_ns) = self.session.hold(key, rate, 7 * MS, self.now_ns) {
                assert!(due_ns > self.now_ns && due_ns <= self.now_ns + 200 * MS, "within one period");
                self.due.push((due_ns, rate));
            }
            return;
        }
        let counts = match bytes {
            Some(_) => Ledger { sent: 1, ..Ledger::default() },
            None => Ledger { lost: 1, ..Ledger::default() },
        };
        let times = Times { rx_ns: 0, tx_ns: 0, class: Class::NONE, instrument: InstrumentId(0) };
        let range =
            self.buffers.append(&text(bytes.unwrap_or(100)), times).expect("so much is never printed here");
        if self.session.offer(range, self.now_ns) {
            subscription.queued(seq);
            self.session.count(counts);
        } else if subscription.fell_behind(GapCause::SlowConsumer) {
            self.session.wait(key, self.now_ns);
            self.session.shed();
        }
    }

    fn recover(&mut self) {
        while let Some(key) = self.session.next_waiting() {
            let subscription = self.subscriptions.get_mut(&key).expect("who ends waits for nothing");
            let told = subscription.catch_up(key.stream(), self.last.get(&key).copied());
            assert!(!subscription.is_dirty());
            self.session.count(told.counts());
            self.session.rebased(told.rebased);
            self.session.push(&text(300), self.now_ns);
        }
    }

    fn judge(&mut self, unacked: u64) {
        let verdict = self.session.judge(Kernel { unacked }, self.now_ns);
        if let Some((first, last)) = verdict.tell {
            let told = Level::ALL.into_iter().filter(|level| (first..=last).contains(level));
            self.levels.extend(told);
        }
        assert!(!verdict.cut || *self.levels.last().expect("one") == Level::Cut, "nobody is cut untold");
        self.cut |= verdict.cut;
    }

    fn release(&mut self) {
        let now_ns = self.now_ns;
        for (due_ns, rate) in self.due.extract_if(.., |(due_ns, _)| *due_ns <= now_ns) {
            self.session.release(rate, due_ns, now_ns);
        }
        self.recover();
    }

    fn drain(&mut self, n: usize) {
        if n == 0 {
            return self.session.block(self.now_ns);
        }
        self.session.unblock();
        self.session.wrote(n.min(self.session.outbox().len()), self.now_ns);
        self.recover();
    }

    fn subscribe(&mut self, n: u32, claimed: DeliveryPolicy<RateId>, begin: u8) {
        let key = key(n);
        if self.subscriptions.contains_key(&key) {
            return;
        }
        let head = self.head(key);
        let begin = match begin {
            0 => Baseline::Snapshot(head),
            1 => Baseline::After(head),
            2 => Baseline::Newest(head.saturating_sub(3)),
            3 => Baseline::Resume(head.saturating_sub(5)),
            _ => Baseline::Past(head),
        };
        let mut subscription = Subscription::new(0, claimed, begin);
        self.session.began(subscription.accounted_seq());
        if subscription.is_pending() {
            // What was recorded begins at some number, or has nothing of it; sometimes something is missing in it.
            let (first, missed) = (head.saturating_sub(head % 7), head.is_multiple_of(3));
            for seq in first.max(1)..=head {
                if subscription.is_pending() {
                    if head.is_multiple_of(5) {
                        assert_eq!(subscription.resume(seq, seq), None, "before its time");
                        continue;
                    }
                    self.session.rebased(subscription.open(seq));
                } else if missed && seq + 1 == head {
                    continue;
                }
                let missing = subscription.resume(seq, seq).expect("it is new");
                let dropped = missing.map_or(0, |missing| missing.to - missing.from + 1);
                self.session.count(Ledger { sent: 1, dropped, ..Ledger::default() });
                assert!(subscription.is_past());
            }
            let fresh = head.is_multiple_of(2);
            let begun = !subscription.is_pending();
            subscription.resumed(missed, fresh);
            assert!(!subscription.is_past());
            assert_eq!(subscription.is_opening(), !begun && !fresh);
        } else if subscription.is_resuming() {
            // The ring still holds all but the first of what it missed.
            for seq in subscription.accounted_seq() + 2..=head {
                let missing = subscription.resume(seq, seq).expect("it is new");
                let dropped = missing.map_or(0, |missing| missing.to - missing.from + 1);
                self.session.count(Ledger { sent: 1, dropped, ..Ledger::default() });
            }
            subscription.resumed(subscription.accounted_seq() < head, false);
        }
        if subscription.is_dirty() {
            self.session.wait(key, self.now_ns);
        }
        self.subscriptions.insert(key, subscription);
        self.recover();
    }

    fn set(&mut self, n: u32, mode: Mode, rate: Option<u8>) {
        let Some(subscription) = self.subscriptions.get_mut(&key(n)) else { return };
        let rate = rate.filter(|_| mode == Mode::Latest).map(RateId);
        subscription.set_policy(DeliveryPolicy { mode, rate, disconnect_on_loss: false });
        let (table, mut at) = (&self.subscriptions, (0, 0));
        let judge = |key, rate| match table.get(&key).and_then(Subscription::rate) {
            now if now == Some(rate) => Hold::Stays,
            _ => Hold::LetGo,
        };
        while self.session.sift_held(&mut at, judge, self.now_ns) {}
        assert!(!self.session.is_held_at(at));
        self.recover();
    }

    fn unsubscribe(&mut self, n: u32) {
        if let Some(gone) = self.subscriptions.remove(&key(n)) {
            self.session.ended(gone.accounted_seq());
            (0..self.session.waiting()).for_each(|_| self.session.sift_waiting(|waiting| waiting != key(n)));
            let mut at = (0, 0);
            let judge = |held, _| if held == key(n) { Hold::Over } else { Hold::Stays };
            while self.session.sift_held(&mut at, judge, self.now_ns) {}
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Tick(n, bytes) => self.tick(n, bytes),
            Step::Drain(n) => self.drain(n),
            Step::Judge(unacked) => self.judge(unacked),
            Step::Clock(ms) => self.now_ns += ms * MS,
            Step::Subscribe(n, claimed, begin) => self.subscribe(n, claimed, begin),
            Step::Set(n, mode, rate) => self.set(n, mode, rate),
            Step::Unsubscribe(n) => self.unsubscribe(n),
            Step::Answer(bytes) => self.session.push(&text(bytes), self.now_ns),
        }
        self.release();
        self.check();
    }

    fn check(&self) {
        let heads: u64 = self.subscriptions.keys().map(|key| self.head(*key)).sum();
        let pending: u64 =
            self.subscriptions.iter().map(|(key, s)| self.head(*key) - s.accounted_seq()).sum();
        assert_eq!(self.session.offered(heads), self.session.ledger().accounted() + pending);
        // Whoever is dirty waits for something, once.
        let held = self.session.rates.iter().flat_map(|held| held.keys.iter().copied());
        let mut dirty: Vec<Key> = self.session.waiting.iter().map(|(key, _)| *key).chain(held).collect();
        dirty.sort_unstable();
        let behind = self.subscriptions.iter().filter(|(_, s)| s.is_dirty()).map(|(key, _)| *key);
        assert_eq!(dirty, behind.collect::<Vec<_>>());
        // A rung is never left out on the way down.
        for pair in self.levels.windows(2) {
            assert!(pair[1] < pair[0] || pair[1] as u8 == pair[0] as u8 + 1, "{:?}", self.levels);
        }
    }

    /// The client reads everything, and time passes.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.now_ns += 100 * MS;
            self.release();
            self.drain(usize::MAX);
            self.drain(usize::MAX);
            self.judge(0);
            self.check();
        }
    }
}

fn quote(n: u32) -> Tick {
    let body = Body::Quote(Quote::default());
    Tick { instrument: InstrumentId(n), seq: 0, rx_ns: 0, ts_us: None, snap: false, body }
}

fn text(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    frame::text(&vec![b'x'; bytes], &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_books_balance_and_who_reads_is_whole_again(steps in steps()) {
        let mut rig = Rig::new();
        for step in &steps {
            rig.step(step);
            let answers: usize = steps.iter().map(|s| if let Step::Answer(n) = s { n + 4 } else { 0 }).sum();
            prop_assert!(rig.session.outbox().len() <= policy().outbox_bytes_max + answers);
        }
        rig.settle();
        prop_assert!(rig.subscriptions.iter().all(|(key, s)| s.accounted_seq() == rig.head(*key)));
        prop_assert_eq!(rig.session.level(), Level::Ok);
        prop_assert!(!rig.session.is_shedding());
        prop_assert_eq!(rig.session.behind_ns(rig.now_ns), 0);
    }
}

#[test]
fn a_burst_to_a_client_that_reads_does_not_cut_it() {
    let mut rig = Rig::new();
    rig.subscribe(0, Mode::Every.into(), 0);
    for _ in 0..25_000 {
        rig.tick(0, Some(250));
    }
    // Its outbox was full, and is written as fast as the socket takes it.
    assert!(rig.session.is_shedding());
    rig.judge(0);
    for _ in 0..1_000 {
        rig.now_ns += MS;
        rig.drain(1_000);
        rig.judge(0);
    }
    assert!(!rig.cut && !rig.session.is_shedding());
    assert_eq!(*rig.levels.last().expect("one"), Level::Ok);
    assert_eq!(rig.session.ledger().accounted(), 25_000);
}

#[test]
fn who_reads_slowly_is_never_cut_and_who_reads_nothing_is_in_time() {
    for reads in [true, false] {
        let mut rig = Rig::new();
        rig.subscribe(0, Mode::Every.into(), 0);
        let mut cut_at_ms = None;
        for ms in 0..60_000_u64 {
            rig.now_ns = ms * MS;
            (0..2).for_each(|_| rig.tick(0, Some(250)));
            if ms == 50 {
                let now_ns = rig.now_ns;
                rig.session.block(now_ns);
            }
            if reads && ms > 50 && ms % 900 == 0 {
                rig.drain(500);
                let now_ns = rig.now_ns;
                rig.session.block(now_ns);
            }
            if ms % 100 == 0 {
                rig.judge(5_000);
            }
            if rig.cut {
                cut_at_ms = Some(ms);
                break;
            }
        }
        assert_eq!(cut_at_ms.is_some(), !reads, "{:?}", rig.levels);
        if let Some(ms) = cut_at_ms {
            assert_eq!(rig.levels, [Level::Ok, Level::Warn, Level::Shed, Level::Cut]);
            assert!((1_000..1_300).contains(&ms), "cut after {ms} ms");
        }
    }
}

#[test]
fn a_kernel_that_stands_still_is_noticed_though_the_socket_takes_more() {
    let mut rig = Rig::new();
    rig.subscribe(0, Mode::Latest.into(), 0);
    // The socket takes every tick, and nothing is ever acknowledged.
    let mut taken = 0;
    for ms in (0..3_000_u64).step_by(50) {
        rig.now_ns = ms * MS;
        rig.tick(0, Some(100));
        taken += rig.session.outbox().len() as u64;
        rig.drain(usize::MAX);
        rig.judge(taken);
        if rig.cut {
            break;
        }
    }
    assert_eq!(rig.levels, [Level::Ok, Level::Warn, Level::Shed, Level::Cut]);
    assert!(rig.cut);
}

#[test]
fn a_client_is_dead_only_when_nothing_moves() {
    let mut session = Session::new(Rc::new(policy()), Buffers::default(), 0, 0);
    assert!(!session.is_dead(1_999 * MS) && session.is_dead(2_000 * MS));
    session.heard(1_000 * MS);
    assert!(!session.is_dead(2_999 * MS));
    // It was full and takes something: its pong may be stuck behind that.
    session.push(&text(100), 2_000 * MS);
    session.block(2_000 * MS);
    session.unblock();
    session.wrote(10, 2_900 * MS);
    assert!(!session.is_dead(4_899 * MS) && session.is_dead(4_900 * MS));
}

/// The socket takes all there is.
fn take_all(session: &mut Session, now_ns: u64) {
    session.wrote(session.outbox().len(), now_ns);
}

#[test]
fn what_a_kernel_takes_behind_a_ping_that_it_has_says_nothing_of_its_client() {
    let mut session = Session::new(Rc::new(policy()), Buffers::default(), 0, 0);
    session.mark(0);
    take_all(&mut session, 0);
    assert!(session.answered(b"0", 1));
    // It sheds, is given a portion with a ping in it, and stops reading. Its kernel takes heartbeats all the same.
    session.shed();
    session.wait(key(0), MS);
    session.push(&text(300), MS);
    assert!(session.is_at_mark() && session.look_at_marks(MS));
    let mut cut_at_ms = None;
    for ms in (1..5_000).step_by(100) {
        if ms % 500 == 1 {
            session.push_urgent(&text(50), ms * MS);
        }
        let unacked = session.outbox().len() as u64;
        take_all(&mut session, ms * MS);
        if session.judge(Kernel { unacked }, ms * MS).cut {
            cut_at_ms = Some(ms);
            break;
        }
        assert_eq!(session.next_waiting(), None, "it gets no more until it answers");
    }
    assert!(cut_at_ms.is_some_and(|ms| (1_000..1_500).contains(&ms)), "{cut_at_ms:?}");
}

#[test]
fn a_client_that_is_not_read_from_needs_not_answer() {
    let mut session = Session::new(Rc::new(policy()), Buffers::default(), 0, 0);
    session.mark(0);
    take_all(&mut session, 0);
    assert!(session.answered(b"0", 1));
    for n in 0..100 {
        session.push(&text(20_000), n * MS);
        assert!(!session.is_at_mark() || session.look_at_marks(n * MS) || n >= 60);
        take_all(&mut session, n * MS);
    }
    assert!(session.is_ahead(1_000 * MS) && session.is_blocked() && session.awaits_answer());
    // Its answers fill their room: its requests are left unread, its pongs among them.
    session.push_answer(&text(2_000), 1_000 * MS);
    session.judge(Kernel::default(), 1_000 * MS);
    assert!(session.is_over_full() && !session.is_ahead(1_000 * MS));
    session.unblock();
    take_all(&mut session, 1_100 * MS);
    assert!(session.is_ahead(1_100 * MS));
}

#[test]
fn rates_are_bounded_and_those_nobody_uses_make_room() {
    let mut session = Session::new(Rc::new(policy()), Buffers::default(), 0, 0);
    let [a, b] = ["1", "2"].map(|hz| {
        let id = session.rate(rate(hz));
        session.use_rate(id);
        id.expect("room")
    });
    assert_eq!(session.rate(rate("1")), Some(a), "the same again");
    assert_eq!(session.rate(rate("3")), None);
    session.leave_rate(Some(a));
    assert_eq!(session.rate(rate("3")), Some(a));
    assert_eq!((session.rate_of(a), session.rate_of(b)), (Some(rate("3")), Some(rate("2"))));
}
