//! Replays of captures whose clock steps.

use super::*;

/// The ticks of a replay on a clock that is set by hand: how many milliseconds after the first each came, and what it says of
/// itself at the end.
fn paced(file: &Path, max_idle_ms: Option<u64>) -> (Vec<u64>, String) {
    use std::sync::Arc;
    use std::time::Duration;
    use tickfan::feed::{LineId, LineLimits, Replay, ReplaySpec, ReplayStep, Sequencer, Stamp};
    use tickfan::model::instrument::InstrumentTable;
    use tickfan::model::tick::Body;
    use tickfan::time::clock::Clock;

    let clock = Clock::manual();
    let mut spec = ReplaySpec::new(vec![file.to_owned()]);
    spec.idle_ns_max = max_idle_ms.map(|ms| ms * 1_000_000);
    let mut replay = Replay::open(spec, &LineLimits::default(), LineId(0)).expect("a capture");
    let mut sequencer = Sequencer::new(Arc::new(InstrumentTable::new(16)));
    replay.prime(&mut sequencer);
    let mut times = Vec::new();
    loop {
        let now = clock.now();
        let step = replay.step(now, Stamp::Live(&clock), &mut sequencer, |tick| {
            if matches!(tick.body, Body::Trade(_)) {
                times.push(now.mono_ns / 1_000_000);
            }
        });
        match step {
            ReplayStep::Took => {}
            ReplayStep::Due(due) => clock.advance(Duration::from_nanos(due.mono_ns - now.mono_ns)),
            ReplayStep::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    let first = times[0];
    (times.iter().map(|time| time - first).collect(), replay.summary())
}

/// Trades with these offsets of their receive times, milliseconds.
fn stepping(folder: &Path, offsets_ms: &[i64]) -> PathBuf {
    let line = |(id, offset_ms): (usize, &i64)| {
        let rx_ns = (1_780_000_000_000 + offset_ms) * 1_000_000;
        format!(
            r#"{rx_ns} {{"type":"match","trade_id":{id},"side":"buy","size":"1","price":"1","product_id":"BTC-USD","sequence":{id}}}"#
        ) + "\n"
    };
    let path = folder.join("stepping");
    std::fs::write(&path, offsets_ms.iter().enumerate().map(line).collect::<String>()).expect("a file");
    path
}

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_clock_that_steps_back_does_not_make_a_replay_rush() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = stepping(folder.path(), &[0, 1_000, 1_000 - HOUR_MS, 2_000 - HOUR_MS, 3_500 - HOUR_MS]);
    let (times, summary) = paced(&file, None);
    assert_eq!(times, [0, 1_000, 1_000, 2_000, 3_500], "it goes on from the step");
    assert!(summary.ends_with("clock_steps back=1 forward=0 longest_s=3600"), "{summary}");
    // Back, and put right again.
    let file = stepping(folder.path(), &[0, 1_000, -HOUR_MS, 500 - HOUR_MS, 2_000, 3_000]);
    assert_eq!(paced(&file, None).0, [0, 1_000, 1_000, 1_500, 2_000, 3_000]);
    // A little is no step: the record waits for nobody.
    let (times, summary) = paced(&stepping(folder.path(), &[0, 1_000, 400, 900, 1_500]), None);
    assert_eq!(times, [0, 1_000, 1_000, 1_000, 1_500]);
    assert!(!summary.contains("clock_steps"), "{summary}");
}

#[test]
fn a_clock_that_steps_forward_does_not_make_a_replay_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = stepping(folder.path(), &[0, 1_000, 24 * HOUR_MS, 24 * HOUR_MS + 1_000]);
    let (times, summary) = paced(&file, None);
    assert_eq!(times, [0, 1_000, 1_000, 2_000], "it goes on from the step");
    assert!(summary.contains("clock_steps back=0 forward=1 longest_s=86399"), "{summary}");
    assert_eq!(paced(&file, Some(5_000)).0, [0, 1_000, 6_000, 7_000], "what is asked for goes first");
    assert_eq!(
        paced(&file, Some(48 * HOUR_MS as u64)).0[2],
        24 * HOUR_MS as u64,
        "all of it, if it is asked for"
    );
    let report = tickfan(&["inspect"], std::slice::from_ref(&file));
    let report = stdout(&report);
    assert!(
        report.contains("the clock stepped forward, or nothing came for over an hour, 1 times"),
        "{report}"
    );
}
