//! Random schedules.

use super::*;

/// Schedules in one run of the test; `TICKFAN_SCHEDULES` asks for more.
const SCHEDULES: u64 = 2_000;
const STEPS: usize = 120;

/// One schedule, as far as its steps go.
pub(super) fn stepped(seed: u64) -> Rig {
    let mut rig = Rig::new(seed);
    rig.connect();
    for _ in 0..STEPS {
        if rig.clients.is_empty() {
            rig.connect();
        }
        rig.step();
    }
    rig
}

/// One schedule; all bytes that all clients were sent.
pub(super) fn run(seed: u64) -> Vec<Vec<u8>> {
    let mut rig = stepped(seed);
    rig.settle();
    let rows = rig.rows();
    assert_eq!(rows.len(), rig.clients.len());
    let told_lost = |key: &(String, Channel), n| {
        let instrument = rig.table.find(&Symbol::parse(&key.0).expect("a good symbol")).expect("listed");
        assert!(rig.lost.contains(&(Key::new(instrument, key.1.into()), n)), "{key:?} {n} was not lost");
    };
    for client in &rig.clients {
        let heard = check(&client.wire.borrow().taken, &client.resumes, rig.seeks);
        heard.lost.iter().for_each(|(key, n)| told_lost(key, *n));
        assert_eq!(heard.level, "ok", "everything was read: the client is told so");
        assert!(!heard.catches_up, "it has caught up: the client is told so");
        for ((symbol, channel), last) in &heard.last {
            let wanted = rig.head(symbol, *channel);
            assert_eq!(*last, wanted, "{symbol} {channel:?}: the client was not told everything");
        }
        for (symbol, heard) in
            heard.states.iter().filter_map(|(symbol, heard)| Some((symbol, heard.as_ref()?)))
        {
            let id = rig.table.find(&Symbol::parse(symbol).expect("a good symbol"));
            let state = id.and_then(|id| rig.states.get(&id.0)).copied().unwrap_or_default();
            // Before the first, what a wildcard takes counts as live.
            let is_right = heard == state.name()
                || (heard == "live" && id.is_some_and(|id| !rig.states.contains_key(&id.0)));
            assert!(is_right, "{symbol}: told {heard}, is {state:?}");
        }
        let row = rows.iter().find(|row| *row.session == *client.name).expect("a row for each client");
        let openings = if rig.seeks { heard.openings } else { 0 };
        let told = heard.told..=heard.told + openings;
        assert!(told.contains(&balanced(row)) && row.pending == 0, "{told:?}: {row:?}");
    }
    // The sums of the shard are the sums of its clients, those that have gone included.
    let all: Vec<&ClientRow> = rows.iter().chain(rig.gone.iter().map(|gone| &gone.row)).collect();
    type Figure = fn(&ClientRow) -> u64;
    let figures: [Figure; 4] = [|r| r.sent, |r| r.merged, |r| r.dropped, |r| r.lost];
    let counters = &rig.counters;
    let books = [&counters.sent, &counters.merged, &counters.dropped, &counters.lost].map(Counter::get);
    // What was taken back is counted once more when it is sent or missed.
    let taken_back = counters.taken_back.each_ref().map(Counter::get);
    let books: [u64; 4] = std::array::from_fn(|n| books[n] - taken_back[n]);
    assert_eq!(figures.map(|figure| all.iter().map(|row| figure(row)).sum::<u64>()), books);
    for gone in &rig.gone {
        balanced(&gone.row);
        check(whole_frames(&gone.bytes), &gone.resumes, rig.seeks);
    }
    let sent = rig.clients.iter().map(|c| c.wire.borrow().taken.clone());
    let sent: Vec<_> = sent.chain(rig.gone.iter().map(|gone| gone.bytes.clone())).collect();
    assert_eq!(rig.counters.sessions.get() as usize, rig.clients.len());
    goodbye(rig);
    sent
}

/// How long the frame is that these bytes begin with, as far as they tell.
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, 126, a, b, ..] => Some(4 + usize::from(u16::from_be_bytes([*a, *b]))),
        [_, 127, len @ ..] => Some(10 + u64::from_be_bytes(*len.first_chunk()?) as usize),
        [_, len @ ..=125, ..] => Some(2 + usize::from(*len)),
        _ => None,
    }
}

/// A client that left in the middle of a frame was told what came before it.
pub(super) fn whole_frames(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(len) = frame_len(&bytes[at..]).filter(|len| *len <= bytes.len() - at) {
        at += len;
    }
    &bytes[..at]
}

/// A drain tells everybody goodbye and leaves nothing behind.
pub(super) fn goodbye(mut rig: Rig) {
    let now = rig.clock.now();
    rig.shard.start_drain(Close::Shutdown, 1_000, now);
    for _ in 0..100 {
        (0..rig.clients.len()).for_each(|client| rig.read(client, 1 << 20));
        rig.keep();
        rig.turn();
    }
    for client in &rig.clients {
        let wire = client.wire.borrow();
        let (texts, code) = texts(&wire.taken);
        assert_eq!(code, Some(4001));
        assert!(texts.last().is_some_and(|text| text.contains("\"bye\"")), "bye comes last");
        assert!(rig.sessions.borrow_mut().wants(client.id).end);
        rig.sessions.borrow_mut().remove(client.id);
    }
    rig.clients.clear();
    // What they leave is taken away in portions.
    for _ in 0..100 {
        rig.turn();
    }
    assert!(rig.shard.is_done());
    assert_eq!(rig.counters.subscriptions.get(), 0, "a subscription outlived its session");
    assert_eq!(rig.counters.subscribed.get(), 0);
}

#[test]
fn every_schedule_keeps_the_books() {
    let _undisturbed = undisturbed();
    let asked = std::env::var("TICKFAN_SCHEDULES").ok().and_then(|text| text.parse().ok());
    for seed in 0..asked.unwrap_or(SCHEDULES) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}

#[test]
fn the_same_schedule_gives_the_same_bytes() {
    let _undisturbed = undisturbed();
    for seed in 0..50 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn slow_clients_lose_by_name_and_laps_are_told() {
    let _undisturbed = undisturbed();
    // Over many schedules each way of losing ticks comes up: a test of the schedules themselves.
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..300 {
        for bytes in run(seed) {
            let (texts, _) = texts(whole_frames(&bytes));
            for text in texts {
                for word in [
                    "\"why\":\"slow_consumer\"",
                    "\"why\":\"overrun\"",
                    "\"why\":\"feed\"",
                    "\"why\":\"seek\"",
                    "\"n\":",
                    "\"snap\":true",
                    "\"why\":\"resume\"",
                    "\"resumed\":\"ok\"",
                    "\"resumed\":\"gap\"",
                    "\"resumed\":\"new_epoch\"",
                    "\"max_hz\":20",
                    "\"too_many_rates\"",
                    "\"level\":\"warn\"",
                    "\"level\":\"shed\"",
                    "\"level\":\"cut\"",
                    "\"level\":\"ok\"",
                    "\"code\":4000",
                    "\"code\":4002",
                    "\"past\":\"ok\"",
                    "\"past\":\"gap\"",
                    "\"past\":true",
                    "\"type\":\"joined\"",
                    "\"missed\":",
                    "\"no_history\"",
                    "\"short_of_memory\"",
                ] {
                    if text.contains(word) {
                        *seen.entry(word).or_default() += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 25, "{seen:?}");
}

#[test]
fn queues_are_taken_back_in_many_schedules() {
    let _undisturbed = undisturbed();
    let (mut sheds, mut taken_back) = (0, 0);
    for seed in 0..100 {
        let rig = stepped(seed);
        sheds += rig.counters.memory_sheds.get();
        taken_back += rig.counters.taken_back.iter().map(Counter::get).sum::<u64>();
    }
    assert!(sheds > 3 && taken_back > sheds, "{sheds} {taken_back}");
}
