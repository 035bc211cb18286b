use proptest::prelude::*;

use super::super::buffers::CHUNK_BYTES;
use super::*;
use crate::latency::meter::Class;
use crate::model::instrument::InstrumentId;
use crate::model::tick::Channel;

fn framed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::text(text.as_bytes(), &mut out);
    out
}

/// The payloads of the frames in `bytes`.
fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let len = frame::len(bytes);
        texts.push(String::from_utf8_lossy(&bytes[if bytes[1] < 126 { 2 } else { 4 }..len]).into_owned());
        bytes = &bytes[len..];
    }
    texts
}

fn times(n: usize) -> Times {
    let class = Class::new(0, Channel::Trade);
    Times { rx_ns: n as u64, tx_ns: 0, class, instrument: InstrumentId(0) }
}

/// Takes `n` bytes out as a socket would. How many ticks are out with them, and the first of them.
fn take(outbox: &mut Outbox, n: usize, into: &mut Vec<u8>) -> (u64, Option<u64>) {
    let n = n.min(outbox.len());
    // A write may be bounded.
    let most = if n.is_multiple_of(2) { usize::MAX } else { n };
    let bytes =
        outbox.show(most, |slices| slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>());
    assert!(bytes.len() <= most);
    let n = n.min(bytes.len());
    into.extend_from_slice(&bytes[..n]);
    let (mut ticks, mut first, mut all) = (0, None, 0);
    let told = outbox.going(n, 5, |times, own, weight| {
        (ticks, all) = (ticks + own, all + weight);
        first = first.or(Some(times.rx_ns));
    });
    assert_eq!(all, if told { ticks + 5 } else { 0 }, "all are stood for");
    outbox.wrote(n);
    (ticks, first)
}

#[test]
fn urgent_frames_overtake_between_frames_and_keep_their_order() {
    for cut in 0..200 {
        let mut outbox = Outbox::default();
        let mut taken = Vec::new();
        for text in ["one", &"x".repeat(130), "three"] {
            outbox.push(&framed(text), 0);
        }
        take(&mut outbox, cut, &mut taken);
        outbox.push_urgent(&framed("lag 1"), 1);
        outbox.push(&framed("four"), 1);
        take(&mut outbox, 3, &mut taken);
        outbox.push_urgent(&framed("lag 2"), 1);
        assert!(outbox.copied(false).ends_with(&framed("lag 2")), "cut {cut}");
        take(&mut outbox, usize::MAX, &mut taken);
        let got = texts(&taken);
        let place = |text: &str| got.iter().position(|t| t == text).expect(text);
        assert_eq!(got.len(), 6, "cut {cut}");
        assert!(place("one") < place("three") && place("three") < place("four"), "cut {cut}");
        assert!(place("lag 1") < place("lag 2"), "cut {cut}: {got:?}");
        assert!(cut > 5 || place("lag 1") <= 1, "cut {cut}: {got:?}");
        assert!(!outbox.has_urgent() && outbox.oldest_ns().is_none());
    }
}

#[test]
fn a_full_one_takes_its_budget_and_little_more() {
    let buffers = Buffers::default();
    let mut outbox = Outbox::new(buffers.clone());
    let text = "x".repeat(230);
    while outbox.len() <= 262_144 {
        outbox.push(&framed(&text), 0);
    }
    outbox.push_urgent(&framed("lag"), 0);
    let capacity = outbox.front.capacity() + outbox.rest.iter().map(Vec::capacity).sum::<usize>();
    assert!(capacity <= 262_144 + 40 * 1_024, "{capacity}");
    let chunks = outbox.rest.len() + 1;
    let mut taken = Vec::new();
    while !outbox.is_empty() {
        take(&mut outbox, 10_000, &mut taken);
    }
    assert_eq!(outbox.front.capacity() + outbox.rest.capacity(), 0, "an empty one keeps nothing");
    assert_eq!(buffers.chunks(), chunks, "they are there for others");
    assert_eq!(texts(&taken).len(), 262_144 / 234 + 2);
}

#[test]
fn very_many_urgent_frames_cost_little_more_than_their_bytes() {
    let mut outbox = Outbox::default();
    (0..100).for_each(|_| outbox.push(&framed(&"x".repeat(230)), 0));
    let mut taken = Vec::new();
    take(&mut outbox, 300, &mut taken);
    (0..1_000).for_each(|_| outbox.push_urgent(&framed("pong"), 0));
    let capacity = outbox.front.capacity() + outbox.rest.iter().map(Vec::capacity).sum::<usize>();
    assert!(capacity <= outbox.len() * 5 / 4 + 2 * CHUNK_BYTES, "{capacity} for {}", outbox.len());
    while !outbox.is_empty() {
        take(&mut outbox, 7_000, &mut taken);
    }
    let got = texts(&taken);
    assert_eq!(got.iter().filter(|text| *text == "pong").count(), 1_000);
    assert!(got[2..1_002].iter().all(|text| text == "pong") && got.len() == 1_100);
}

#[test]
fn frames_longer_than_a_chunk_have_their_own() {
    let mut outbox = Outbox::default();
    let long = "y".repeat(CHUNK_BYTES * 3);
    for text in ["one", &long, "three"] {
        outbox.push(&framed(text), 0);
    }
    let mut taken = Vec::new();
    take(&mut outbox, 100, &mut taken);
    outbox.push_urgent(&framed("lag"), 0);
    while !outbox.is_empty() {
        take(&mut outbox, 5_000, &mut taken);
    }
    assert_eq!(texts(&taken), ["one", &long, "lag", "three"]);
}

#[test]
fn answers_are_counted_until_they_are_out() {
    let mut outbox = Outbox::default();
    outbox.push(&framed("12345678"), 0);
    outbox.push_answer(&framed("answer 1"), 0);
    outbox.push(&framed("12345678"), 0);
    outbox.push_answer(&framed("answer 2"), 0);
    let mut left = Vec::new();
    for n in 0..4 {
        left.push(outbox.answer_bytes());
        outbox.push_urgent(&framed("lag"), 0);
        let urgent = outbox.copied(false).len();
        outbox.wrote(urgent);
        outbox.wrote(if n == 0 { 9 } else { 10 });
    }
    assert_eq!(left, [20, 20, 10, 10]);
    assert_eq!((outbox.answer_bytes(), outbox.len()), (0, 0));
    ["answer 3", "answer 4"].iter().for_each(|text| outbox.push_answer(&framed(text), 0));
    outbox.wrote(1);
    outbox.discard();
    assert_eq!(outbox.answer_bytes(), 9, "the first has begun");
    outbox.wrote(9);
    assert_eq!((outbox.answer_bytes(), outbox.len()), (0, 0));
}

#[test]
fn the_age_is_the_oldest_byte_s() {
    let mut outbox = Outbox::default();
    for n in 0..10_u64 {
        outbox.push(&framed("12345678"), n * GRAIN_NS);
    }
    let mut taken = Vec::new();
    for n in 0..10 {
        assert_eq!(outbox.oldest_ns(), Some(n * GRAIN_NS));
        take(&mut outbox, 10, &mut taken);
    }
    assert_eq!(outbox.oldest_ns(), None);
    // Very many ages are told apart less well, but never as younger than they are.
    for n in 0..1_000_u64 {
        outbox.push(&framed("12345678"), n * GRAIN_NS);
    }
    for n in 0..999_u64 {
        let oldest = outbox.oldest_ns().expect("something waits");
        assert!(oldest <= n * GRAIN_NS);
        take(&mut outbox, 10, &mut taken);
    }
}

#[test]
fn discarding_keeps_what_has_begun_and_what_is_urgent() {
    for cut in 0..15 {
        let mut outbox = Outbox::default();
        let mut taken = Vec::new();
        ["one", "two", "three"].iter().for_each(|text| outbox.push(&framed(text), 0));
        take(&mut outbox, cut, &mut taken);
        outbox.push_urgent(&framed("bye"), 0);
        outbox.discard();
        take(&mut outbox, usize::MAX, &mut taken);
        let got = texts(&taken);
        assert_eq!(got.last().map(String::as_str), Some("bye"), "cut {cut}");
        assert_eq!(got.len(), 1 + cut.div_ceil(5), "cut {cut}: {got:?}");
    }
}

#[test]
fn frames_behind_the_last_kept_one_are_dropped_and_chunks_are_accounted_for() {
    let buffers = Buffers::default();
    let mut outbox = Outbox::new(buffers.clone());
    let long = "x".repeat(CHUNK_BYTES);
    for n in 0..400 {
        outbox.push_tick(&framed(&format!("tick {n}")), times(n), 0);
    }
    outbox.push(&framed(&long), 0);
    outbox.push_answer(&framed("answer"), 0);
    outbox.push_urgent(&framed("lag"), 0);
    outbox.wrote(1);
    assert!(buffers.lent_bytes() >= outbox.len() && outbox.held_bytes() >= buffers.lent_bytes());
    let queued = outbox.queued();
    let behind_ticks = framed(&long).len() + framed("answer").len();
    assert_eq!(texts(&queued).len(), 402, "what is urgent and what has begun are not among them");
    outbox.drop_last(behind_ticks);
    assert_eq!(
        (outbox.answer_bytes(), outbox.len()),
        (0, framed("lag").len() - 1 + queued.len() - behind_ticks)
    );
    outbox.drop_last(queued.len() - behind_ticks);
    assert_eq!(outbox.len(), framed("lag").len() - 1);
    assert_eq!(buffers.lent_bytes(), CHUNK_BYTES, "one chunk for what is left");
    outbox.wrote(outbox.len());
    assert_eq!(buffers.lent_bytes(), 0);
    (0..400).for_each(|_| outbox.push(&framed("again"), 0));
    assert!(buffers.lent_bytes() > CHUNK_BYTES);
    outbox.give_back();
    assert_eq!(buffers.lent_bytes(), 0);
}

#[test]
fn what_was_refused_is_known_whatever_comes_before_and_behind_it() {
    let mut outbox = Outbox::default();
    let (one, urgent) = (framed("12345678"), framed("lag"));
    (0..3).for_each(|n| outbox.push_tick(&one, times(n), 0));
    assert!(!outbox.has_refused());
    outbox.was_refused();
    // It overtakes what was refused; the last tick stands behind it.
    outbox.push_urgent(&urgent, 1);
    outbox.push_tick(&one, times(3), 1);
    let told = |outbox: &Outbox, n: usize| {
        let mut told = Vec::new();
        outbox.going_refused(n, |times, refused| told.push((times.rx_ns, refused)));
        told
    };
    assert!(outbox.has_refused());
    assert_eq!(told(&outbox, urgent.len() + 2 * one.len() - 1), [(0, true)]);
    assert_eq!(told(&outbox, usize::MAX >> 1), [(0, true), (1, true), (2, true), (3, false)]);
    outbox.wrote(urgent.len() + 2 * one.len());
    assert_eq!((outbox.has_refused(), told(&outbox, one.len())), (true, vec![(2, true)]));
    outbox.wrote(one.len());
    assert_eq!((outbox.has_refused(), outbox.len()), (false, one.len()), "the rest came later");
    outbox.was_refused();
    outbox.discard();
    assert!(!outbox.has_refused() && outbox.is_empty());
}

fn both(a: &mut Outbox, b: &mut Outbox, step: impl Fn(&mut Outbox)) {
    step(a);
    step(b);
}

#[derive(Clone, Debug)]
enum Step {
    Shared(usize),
    Own(usize),
    Answer(usize),
    Urgent(usize),
    Take(usize),
    Discard,
    Copy,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Frames in the frame ring go out as their copies would, whatever happens between.
    #[test]
    fn the_frame_ring_makes_no_difference(
        steps in proptest::collection::vec(
            prop_oneof![
                8 => (1..400_usize).prop_map(Step::Shared),
                1 => (1..3_000_usize).prop_map(Step::Own),
                1 => (1..400_usize).prop_map(Step::Answer),
                1 => (1..400_usize).prop_map(Step::Urgent),
                5 => (0..2_000_usize).prop_map(Step::Take),
                1 => Just(Step::Discard),
                1 => Just(Step::Copy),
            ],
            1..120,
        ),
    ) {
        let buffers = Buffers::default();
        let (mut shared, mut copied) = (Outbox::new(buffers.clone()), Outbox::default());
        let (mut from_shared, mut from_copied) = ((Vec::new(), (0, None)), (Vec::new(), (0, None)));
        for (n, step) in steps.into_iter().enumerate() {
            let now_ns = n as u64 * GRAIN_NS / 3;
            let frame = |len| framed(&format!("{n} {}", "x".repeat(len)));
            match step {
                Step::Shared(len) => {
                    let range = buffers.append(&frame(len), times(n)).expect("there is room");
                    // Between some of them stands what others are sent.
                    (n % 3 == 0).then(|| buffers.append(b"other", times(n)));
                    shared.push_range(range, now_ns);
                    copied.push_tick(&frame(len), times(n), now_ns);
                }
                Step::Own(len) => both(&mut shared, &mut copied, |o| o.push(&frame(len), now_ns)),
                Step::Answer(len) => both(&mut shared, &mut copied, |o| o.push_answer(&frame(len), now_ns)),
                Step::Urgent(len) => both(&mut shared, &mut copied, |o| o.push_urgent(&frame(len), now_ns)),
                Step::Take(n) => {
                    let end = shared.len() - n.min(shared.len());
                    for (outbox, into) in
                        [(&mut shared, &mut from_shared), (&mut copied, &mut from_copied)]
                    {
                        let (bytes, told) = into;
                        let mut oldest = None;
                        while outbox.len() > end {
                            let (count, first) = take(outbox, outbox.len() - end, bytes);
                            told.0 += count;
                            oldest = oldest.or(first);
                        }
                        told.1 = oldest;
                    }
                }
                Step::Discard => both(&mut shared, &mut copied, Outbox::discard),
                Step::Copy => shared.own(),
            }
            prop_assert_eq!(shared.len(), copied.len());
            prop_assert_eq!(shared.answer_bytes(), copied.answer_bytes());
            // What stands in the frame ring is taken for as old as the first of it. Either age is a grain too old at most.
            let (ours, theirs) = (shared.oldest_ns(), copied.oldest_ns());
            let latest = theirs.map(|at| at + GRAIN_NS);
            prop_assert!(ours.is_some() == theirs.is_some() && ours <= latest, "{ours:?} {theirs:?}");
            prop_assert_eq!(shared.has_urgent(), copied.has_urgent());
            prop_assert!(from_shared == from_copied);
        }
        prop_assert!(shared.copied(true) == copied.copied(true));
        let all = [from_shared.0, shared.copied(true)].concat();
        prop_assert!(texts(&all).iter().all(|text| text.ends_with('x')), "whole frames");
    }
}
