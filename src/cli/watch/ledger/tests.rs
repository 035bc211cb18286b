use proptest::prelude::*;

use super::*;

const SYMBOL: &str = "coinbase:BTC-USD";

/// Passes messages to the ledger as received.
fn hear(ledger: &mut SequenceLedger, texts: &[String]) {
    for text in texts {
        ledger.hear(&Message::parse(text).expect(text));
    }
}

fn heard(texts: &[String]) -> SequenceLedger {
    let mut ledger = SequenceLedger::new(true);
    hear(&mut ledger, texts);
    ledger
}

fn snap(seq: u64) -> String {
    format!(r#"{{"type":"trade","symbol":"{SYMBOL}","seq":{seq},"snap":true,"price":"1.0","size":"2"}}"#)
}

fn update(seq: u64, n: u64) -> String {
    let n = if n == 1 { String::new() } else { format!(r#""n":{n},"#) };
    format!(r#"{{"type":"trade","symbol":"{SYMBOL}","seq":{seq},{n}"price":"1.0","size":"2"}}"#)
}

fn gap(from: u64, to: u64, why: &str) -> String {
    format!(r#"{{"type":"gap","symbol":"{SYMBOL}","channel":"trade","from":{from},"to":{to},"why":"{why}"}}"#)
}

fn ack(op: &str, channel: &str, ok: &str) -> String {
    format!(r#"{{"type":"ack","id":1,"op":"{op}","channel":{channel},"ok":[{ok}]}}"#)
}

/// An accepted symbol, with additional fields.
fn ok(more: &str) -> String {
    format!(r#"{{"symbol":"{SYMBOL}","mode":"every","state":"live"{more}}}"#)
}

fn faults(ledger: &SequenceLedger) -> Vec<LedgerFault> {
    assert_eq!(ledger.held(), ledger.break_count() == 0);
    ledger.breaks().iter().map(|broken| broken.fault.clone()).collect()
}

#[test]
fn a_good_stream_holds_and_its_books_close() {
    let ledger = heard(&[
        snap(550),
        update(551, 1),
        gap(552, 580, "slow_consumer"),
        update(584, 4),
        snap(584),
        update(585, 1),
        gap(586, 586, "feed"),
        gap(587, 590, "feed"),
    ]);
    assert_eq!(faults(&ledger), []);
    assert_eq!(ledger.heard(Channel::Trade), Heard { updates: 3, ticks: 6, merged: 3, snapshots: 2 });
    assert_eq!(ledger.heard(Channel::Quote), Heard::default());
    let slow = GapTotals { count: 1, ticks: 29 };
    let feed = GapTotals { count: 2, ticks: 5 };
    assert_eq!(ledger.gaps().collect::<Vec<_>>(), [("slow_consumer", slow), ("feed", feed)]);
    assert_eq!(ledger.heard_all().ticks + ledger.gaps_all().ticks, 590 - 550);
}

#[test]
fn a_lost_update_is_found_and_told() {
    let ledger = heard(&[snap(550), update(551, 1), update(554, 1), update(555, 1)]);
    assert_eq!(faults(&ledger), [LedgerFault::Update { last: 551, seq: 554, n: 1 }]);
    assert_eq!(
        ledger.breaks()[0].to_string(),
        "coinbase:BTC-USD trade: expected seq - n = 551, got 553 (seq 554, n 1): 2 ticks unaccounted for"
    );
}

#[test]
fn an_update_told_twice_breaks_once() {
    let ledger = heard(&[snap(5), update(6, 1), update(7, 1), update(6, 1), update(8, 1)]);
    assert_eq!(faults(&ledger), [LedgerFault::Update { last: 7, seq: 6, n: 1 }]);
    assert!(ledger.breaks()[0].to_string().ends_with("2 ticks told twice"));
}

#[test]
fn n_is_part_of_the_rule() {
    assert_eq!(faults(&heard(&[snap(5), update(8, 2)])), [LedgerFault::Update { last: 5, seq: 8, n: 2 }]);
    assert_eq!(faults(&heard(&[snap(5), update(8, 4)])), [LedgerFault::Update { last: 5, seq: 8, n: 4 }]);
    assert_eq!(faults(&heard(&[snap(5), update(5, 0)])), [LedgerFault::Count { seq: 5, n: 0 }]);
    assert_eq!(faults(&heard(&[update(5, 6)])), [LedgerFault::Count { seq: 5, n: 6 }]);
}

#[test]
fn a_gap_is_exact_or_broken() {
    let after_gap = |from, to| faults(&heard(&[snap(551), gap(from, to, "overrun"), update(581, 1)]));
    assert_eq!(after_gap(552, 580), []);
    assert_eq!(after_gap(553, 580), [LedgerFault::Gap { last: 551, from: 553, to: 580 }]);
    assert_eq!(after_gap(551, 580), [LedgerFault::Gap { last: 551, from: 551, to: 580 }]);
    assert_eq!(after_gap(552, 579), [LedgerFault::Update { last: 579, seq: 581, n: 1 }]);
    assert_eq!(after_gap(552, 581), [LedgerFault::Update { last: 581, seq: 581, n: 1 }]);
    assert_eq!(faults(&heard(&[snap(5), gap(6, 5, "x")])), [LedgerFault::EmptyGap { from: 6, to: 5 }]);
    assert_eq!(faults(&heard(&[gap(0, 3, "x")])), [LedgerFault::Gap { last: 0, from: 0, to: 3 }]);
    assert_eq!(faults(&heard(&[gap(0, u64::MAX, "x")])).len(), 1, "the largest numbers do no harm");
}

#[test]
fn without_a_snapshot_numbers_start_at_one() {
    assert_eq!(faults(&heard(&[update(1, 1), update(2, 1)])), []);
    assert_eq!(faults(&heard(&[update(3, 3)])), []);
    assert_eq!(faults(&heard(&[gap(1, 3, "feed"), update(4, 1)])), []);
    assert_eq!(faults(&heard(&[update(2, 1)])), [LedgerFault::Update { last: 0, seq: 2, n: 1 }]);
    assert_eq!(faults(&heard(&[gap(2, 3, "feed")])), [LedgerFault::Gap { last: 0, from: 2, to: 3 }]);
}

#[test]
fn who_asked_for_no_snapshot_may_start_anywhere() {
    for first in [update(77, 3), gap(70, 77, "feed"), snap(77)] {
        let mut ledger = SequenceLedger::new(false);
        hear(&mut ledger, &[ack("subscribe", r#""trade""#, &ok("")), first, update(78, 1)]);
        assert_eq!(faults(&ledger), []);
        hear(&mut ledger, &[update(80, 1)]);
        assert_eq!(ledger.break_count(), 1, "but not go on anywhere");
    }
}

#[test]
fn an_ack_may_name_the_number_before_the_stream() {
    let base = ack("subscribe", r#""trade""#, &ok(r#","seq":540"#));
    for snapshot in [true, false] {
        let after = |first: String| {
            let mut ledger = SequenceLedger::new(snapshot);
            hear(&mut ledger, &[base.clone(), first]);
            ledger.held()
        };
        assert!(after(update(541, 1)));
        assert!(after(gap(541, 550, "resume")));
        assert!(after(snap(540)));
        assert!(!after(update(542, 1)));
        assert!(!after(update(540, 1)));
        assert!(!after(snap(539)));
        assert_eq!(after(snap(545)), snapshot, "the first snapshot may be newer than the ack");
    }
}

#[test]
fn a_later_snapshot_is_no_licence_to_skip() {
    assert_eq!(faults(&heard(&[snap(5), update(6, 1), snap(6), update(7, 1)])), []);
    assert_eq!(faults(&heard(&[snap(5), gap(6, 8, "overrun"), snap(8), update(9, 1)])), []);
    assert_eq!(faults(&heard(&[snap(5), gap(6, 8, "overrun"), snap(9), update(10, 1)])), []);
    assert_eq!(
        faults(&heard(&[snap(5), snap(7), update(8, 1)])),
        [LedgerFault::Snapshot { last: 5, seq: 7 }]
    );
    assert_eq!(
        faults(&heard(&[snap(5), update(6, 1), snap(4)])),
        [LedgerFault::Snapshot { last: 6, seq: 4 }],
        "nor to go back"
    );
}

#[test]
fn channels_and_symbols_count_apart() {
    let ledger = heard(&[
        snap(5),
        snap(9).replace("trade", "quote"),
        snap(70).replace("coinbase", "kraken"),
        update(6, 1),
        update(10, 1).replace("trade", "quote"),
        update(71, 1).replace("coinbase", "kraken"),
    ]);
    assert_eq!(faults(&ledger), []);
    assert_eq!((ledger.heard(Channel::Trade).ticks, ledger.heard(Channel::Quote).ticks), (2, 1));
}

#[test]
fn who_unsubscribes_and_subscribes_starts_over() {
    for what in [ok(""), r#"{"symbol":"*"}"#.to_owned(), r#"{"symbol":"coinbase:*"}"#.to_owned()] {
        let texts = [
            snap(5),
            ack("unsubscribe", r#"["trade","quote"]"#, &what),
            ack("subscribe", r#""trade""#, &ok("")),
            snap(900),
            update(901, 1),
        ];
        assert_eq!(faults(&heard(&texts)), [], "{what}");
    }
    // F24: streams of a narrower subscription continue.
    let (all, venue) = (r#"{"symbol":"*"}"#, r#"{"symbol":"coinbase:*"}"#);
    let goes_on = |held: &str, gone: &str, channel: &str| {
        let texts =
            [ack("subscribe", channel, held), snap(5), ack("unsubscribe", channel, gone), update(7, 1)];
        faults(&heard(&texts)) == [LedgerFault::Update { last: 5, seq: 7, n: 1 }]
    };
    for (held, gone, stays) in [
        (ok(""), all, true),
        (ok(""), venue, true),
        (venue.to_owned(), all, true),
        (all.to_owned(), all, false),
        (venue.to_owned(), venue, false),
        (all.to_owned(), venue, false),
        (r#"{"symbol":"kraken:*"}"#.to_owned(), all, false),
        (format!("{venue},{all}"), venue, false),
        (format!("{},{venue}", ok("")), &format!("{venue},{all}"), true),
        (format!("{},{all}", ok("")), &ok(""), false),
    ] {
        assert_eq!(goes_on(&held, gone, r#""trade""#), stays, "{held}, without {gone}");
    }
    // After the removal of everything, marked as such, the stream restarts.
    let marked = r#"{"type":"ack","id":1,"op":"unsubscribe","channel":["trade","quote"],"all":true,"ok":[{"symbol":"*"}],"rejected":[]}"#;
    let texts = [ack("subscribe", r#""trade""#, &ok("")), snap(5), marked.to_owned(), snap(900)];
    assert_eq!(faults(&heard(&texts)), []);
    let of_another = [snap(5), ack("unsubscribe", r#""quote""#, &ok("")), snap(900)];
    assert_eq!(faults(&heard(&of_another)), [LedgerFault::Snapshot { last: 5, seq: 900 }]);
    let of_all = r#"{"type":"ack","id":1,"op":"unsubscribe"}"#.to_owned();
    assert_eq!(faults(&heard(&[snap(5), of_all, snap(900)])), []);
}

#[test]
fn who_subscribes_again_may_be_given_a_snapshot_or_just_the_next() {
    let again = ack("subscribe", r#""trade""#, &ok(""));
    assert_eq!(faults(&heard(&[snap(5), again.clone(), snap(9), update(10, 1)])), []);
    assert_eq!(faults(&heard(&[snap(5), again.clone(), update(6, 1)])), []);
    assert_eq!(
        faults(&heard(&[snap(5), again, update(7, 1)])),
        [LedgerFault::Update { last: 5, seq: 7, n: 1 }]
    );
}

#[test]
fn a_new_connection_starts_over_and_keeps_the_counts() {
    let hello = |epoch: &str| format!(r#"{{"type":"hello","v":1,"epoch":"{epoch}","feed":"live"}}"#);
    let ledger = heard(&[hello("a"), snap(50), update(51, 1), hello("b"), update(1, 1), update(2, 1)]);
    assert_eq!(faults(&ledger), []);
    assert_eq!(ledger.heard(Channel::Trade).ticks, 3);
    assert_eq!(faults(&heard(&[hello("a"), snap(50), hello("b"), update(51, 1)])).len(), 1);
}

#[test]
fn all_breaks_are_counted_and_the_first_are_kept() {
    let mut ledger = heard(&[snap(5)]);
    for seq in 0..100 {
        hear(&mut ledger, &[update(10 + 2 * seq, 1)]);
    }
    ledger.unreadable("not JSON");
    assert_eq!((ledger.break_count(), ledger.breaks().len()), (101, BREAKS_KEPT));
}

#[test]
fn reasons_are_bounded() {
    let mut ledger = heard(&[snap(5)]);
    for seq in 6..106 {
        hear(&mut ledger, &[gap(seq, seq, &format!("why{seq}"))]);
    }
    assert_eq!(ledger.gaps().count(), WHYS_MAX + 1);
    assert_eq!(ledger.gaps().last(), Some(("other", GapTotals { count: 84, ticks: 84 })));
    assert_eq!(ledger.gaps_all(), GapTotals { count: 100, ticks: 100 });
    assert!(ledger.held());
}

/// One step of a valid stream.
#[derive(Clone, Copy, Debug)]
enum Step {
    Update(u64),
    Gap(u64),
    Repeat,
}

#[derive(Clone, Debug)]
struct Said {
    stream: usize,
    step: Step,
    message: Message<'static>,
}

const STREAMS: [(&str, Channel); 4] = [
    (SYMBOL, Channel::Trade),
    (SYMBOL, Channel::Quote),
    ("kraken:XBT/USD", Channel::Trade),
    ("kraken:XBT/USD", Channel::Quote),
];

/// The messages of a correct server: the first number of each stream (0: no snapshot), and then steps.
fn say(firsts: [u64; 4], steps: &[(usize, Step)]) -> Vec<Said> {
    let mut last = firsts;
    let mut said = Vec::new();
    for (stream, first) in firsts.into_iter().enumerate().filter(|(_, first)| *first > 0) {
        said.push(Said { stream, step: Step::Repeat, message: tick(stream, first, 1, true) });
    }
    for &(stream, step) in steps {
        let (symbol, channel) = STREAMS[stream];
        let before = last[stream];
        let message = match step {
            Step::Update(n) => {
                last[stream] += n;
                tick(stream, before + n, n, false)
            }
            Step::Gap(ticks) => {
                last[stream] += ticks;
                let (from, to) = (before + 1, before + ticks);
                Message::Gap(Gap { symbol: symbol.into(), channel, from, to, why: "feed".into() })
            }
            // There is nothing to repeat yet.
            Step::Repeat if before == 0 => continue,
            Step::Repeat => tick(stream, before, 1, true),
        };
        said.push(Said { stream, step, message });
    }
    said
}

fn tick(stream: usize, seq: u64, n: u64, snap: bool) -> Message<'static> {
    let (symbol, channel) = STREAMS[stream];
    Message::Update(channel, Update { symbol: symbol.into(), seq, n, snap, ..Update::default() })
}

fn hear_said<'a>(said: impl IntoIterator<Item = &'a Said>) -> SequenceLedger {
    let mut ledger = SequenceLedger::new(true);
    said.into_iter().for_each(|said| ledger.hear(&said.message));
    ledger
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        6 => Just(Step::Update(1)),
        3 => (2u64..6).prop_map(Step::Update),
        2 => (1u64..40).prop_map(Step::Gap),
        1 => Just(Step::Repeat),
    ];
    proptest::collection::vec((0..STREAMS.len(), step), 1..120)
}

fn firsts() -> impl Strategy<Value = [u64; 4]> {
    prop::array::uniform4(prop_oneof![Just(0), 1u64..1_000_000])
}

proptest! {
    #[test]
    fn the_truth_never_breaks(firsts in firsts(), steps in steps()) {
        let said = say(firsts, &steps);
        let ledger = hear_said(&said);
        prop_assert!(ledger.held(), "{:?}", ledger.breaks());
        let told: u64 = steps.iter().map(|(_, step)| match step {
            Step::Update(ticks) | Step::Gap(ticks) => *ticks,
            Step::Repeat => 0,
        }).sum();
        prop_assert_eq!(ledger.heard_all().ticks + ledger.gaps_all().ticks, told);
    }

    /// A lost update or gap is detected with the next message of its stream.
    #[test]
    fn one_message_lost_is_found(firsts in firsts(), steps in steps(), pick: prop::sample::Index) {
        let said = say(firsts, &steps);
        let moves = |said: &Said| !matches!(said.step, Step::Repeat);
        let next_moves = |at: usize| {
            let next = said[at + 1..].iter().find(|later| later.stream == said[at].stream);
            next.is_some_and(moves)
        };
        let losable: Vec<usize> = (0..said.len()).filter(|&at| moves(&said[at]) && next_moves(at)).collect();
        prop_assume!(!losable.is_empty());
        let lost = losable[pick.index(losable.len())];
        let rest = said.iter().enumerate().filter(|(at, _)| *at != lost).map(|(_, said)| said);
        prop_assert_eq!(hear_said(rest).break_count(), 1);
    }

    /// A duplicated update or gap is detected, at once or later.
    #[test]
    fn one_message_doubled_is_found(
        firsts in firsts(), steps in steps(), pick: prop::sample::Index, later: prop::sample::Index,
    ) {
        let said = say(firsts, &steps);
        let doublable: Vec<usize> =
            (0..said.len()).filter(|&at| !matches!(said[at].step, Step::Repeat)).collect();
        prop_assume!(!doublable.is_empty());
        let at = doublable[pick.index(doublable.len())];
        let mut doubled = said.clone();
        doubled.insert(at + 1 + later.index(said.len() - at), said[at].clone());
        prop_assert_eq!(hear_said(&doubled).break_count(), 1);
    }

    /// Without its first snapshot, a stream starts in the middle.
    #[test]
    fn a_first_snapshot_lost_is_found(first in 1u64..1_000_000, n in 1u64..5) {
        let said = say([first, 0, 0, 0], &[(0, Step::Update(n))]);
        prop_assert_eq!(hear_said(&said[1..]).break_count(), 1);
    }
}
