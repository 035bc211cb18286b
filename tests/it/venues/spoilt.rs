//! Frames that are spoilt at random: whatever they are, the next good one is read.

use proptest::prelude::*;

use super::*;

/// What is done to a good frame to spoil it.
#[derive(Clone, Debug)]
enum Spoil {
    Byte(usize, u8),
    Cut(usize),
    Remove(usize, usize),
    Repeat(usize, usize),
    Insert(usize, &'static str),
    /// Puts this in the place of a number.
    Number(usize, &'static str),
}

impl Spoil {
    fn apply(&self, frame: &mut Vec<u8>) {
        let len = frame.len();
        if len == 0 {
            return;
        }
        let range = |at: usize, count: usize| at % len..(at % len + count % 16).min(len);
        match *self {
            Self::Byte(at, byte) => frame[at % len] = byte,
            Self::Cut(at) => frame.truncate(at % len),
            Self::Remove(at, count) => drop(frame.drain(range(at, count))),
            Self::Repeat(at, count) => {
                let part = frame[range(at, count)].to_vec();
                frame.splice(at % len..at % len, part);
            }
            Self::Insert(at, text) => drop(frame.splice(at % len..at % len, text.bytes())),
            Self::Number(nth, text) => {
                let inside = |b: &u8| b.is_ascii_digit() || *b == b'.';
                let starts: Vec<_> =
                    (0..len).filter(|&i| inside(&frame[i]) && (i == 0 || !inside(&frame[i - 1]))).collect();
                if let Some(&from) = starts.get(nth % starts.len().max(1)) {
                    let to = (from..len).find(|&i| !inside(&frame[i])).unwrap_or(len);
                    frame.splice(from..to, text.bytes());
                }
            }
        }
    }
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let text = proptest::sample::select(vec![
        "null", "[]", "{}", "\"\"", "\\", "\"", "[[", ",", ":", "\u{0}", "é", "true", "-1", "\\u0000",
    ]);
    let number = proptest::sample::select(vec![
        "0",
        "1",
        "-1",
        "0.0",
        "1e5",
        "1e999",
        "1e-999",
        "9223372036854775807",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "0.000000000000000000000000000001",
        "4294967296",
    ]);
    prop_oneof![
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Byte(at, byte)),
        1 => any::<usize>().prop_map(Spoil::Cut),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Spoil::Remove(at, count)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(at, count)| Spoil::Repeat(at, count)),
        1 => (any::<usize>(), text).prop_map(|(at, text)| Spoil::Insert(at, text)),
        4 => (any::<usize>(), number).prop_map(|(nth, text)| Spoil::Number(nth, text)),
    ]
}

/// A trade of a symbol that no other frame names, and what it becomes.
fn probe(wire: WireFormat) -> (String, &'static str) {
    match wire {
        WireFormat::Coinbase => (
            frame(wire, "match").replace("BTC-USD", "PROBE").replace("633500001", "7"),
            "coinbase:PROBE trade 1 buy 0.02340000 @ 62010.01 id 7 ts 1714564800423456",
        ),
        WireFormat::Binance => (
            frame(wire, "trade").replace("BTCUSDT", "PROBE"),
            "binance:PROBE trade 1 sell 0.00200000 @ 62010.01000000 id 3561000001 ts 1714564800121000",
        ),
        WireFormat::BinanceFutures => (
            frame(wire, "trade").replace("BTCUSDT", "PROBE"),
            "binance-futures:PROBE trade 1 buy 0.015 @ 62005.10 id 4930000001 ts 1714564800128000",
        ),
        WireFormat::Kraken => (
            r#"[9,[["1.50","2","1714564800.5","s","m",""]],"trade","PROBE"]"#.to_owned(),
            "kraken:PROBE trade 1 sell 2 @ 1.50 ts 1714564800500000",
        ),
        WireFormat::Native => (
            frame(wire, "trade").replace("demo:ABC", "demo:PROBE"),
            "demo:PROBE trade 1 buy 3 @ 1.2500 id x-17 ts 1714564800123456",
        ),
    }
}

/// Takes in frames of which any may be bad, and then one that is good.
fn survives(wire: WireFormat, frames: &[Vec<u8>]) {
    let mut feed = Feed::new(wire);
    let mut bad = 0;
    for frame in frames {
        feed.prime(frame);
        let (_, result) = feed.try_take(0, frame);
        bad += u64::from(result.is_err());
    }
    assert_eq!((feed.stats().frames, feed.stats().bad_frames), (frames.len() as u64, bad));
    let (good, trade) = probe(wire);
    assert_eq!(feed.take(&good).last().map(String::as_str), Some(trade));
}

#[test]
fn good_frames_are_all_read() {
    for wire in WireFormat::ALL {
        let frames: Vec<_> = frames(wire).into_iter().map(String::into_bytes).collect();
        assert!(frames.len() >= 4, "{wire}");
        let mut feed = Feed::new(wire);
        for frame in &frames {
            let (_, result) = feed.try_take(0, frame);
            assert_eq!(result, Ok(()), "{}", String::from_utf8_lossy(frame));
        }
        survives(wire, &frames);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6)) {
        for wire in WireFormat::ALL {
            survives(wire, &frames);
        }
    }

    #[test]
    fn spoilt_frames_are_survived(
        picks in proptest::collection::vec((any::<usize>(), proptest::collection::vec(spoil(), 0..4)), 1..24)
    ) {
        for wire in WireFormat::ALL {
            let good = [frames(wire), cases()].concat();
            let spoilt: Vec<_> = picks
                .iter()
                .map(|(pick, spoils)| {
                    let mut frame = good[pick % good.len()].clone().into_bytes();
                    spoils.iter().for_each(|spoil| spoil.apply(&mut frame));
                    frame
                })
                .collect();
            survives(wire, &spoilt);
        }
    }
}
