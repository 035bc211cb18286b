//! Messages of Kraken, of both versions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const WIRE: WireFormat = WireFormat::Kraken;

fn feed() -> Feed {
    Feed::new(WIRE)
}

fn named(name: &str) -> String {
    frame(WIRE, name)
}

/// CRC-32 of ISO 3309, a bit at a time: nothing in common with the code under test.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// A book kept as the texts that came.
#[derive(Clone, Default)]
struct TextBook {
    asks: BTreeMap<u64, (String, String)>,
    bids: BTreeMap<u64, (String, String)>,
}

impl TextBook {
    /// All prices of one test have the same number of decimals.
    fn set(side: &mut BTreeMap<u64, (String, String)>, price: &str, size: &str) {
        let key = price.replace('.', "").parse().expect("digits");
        if size.bytes().all(|b| matches!(b, b'0' | b'.')) {
            side.remove(&key);
        } else {
            side.insert(key, (price.to_owned(), size.to_owned()));
        }
    }

    fn checksum(&self) -> u32 {
        let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
        let level = |(price, size): &(String, String)| digits(price) + &digits(size);
        let asks = self.asks.values().take(10).map(level);
        let bids = self.bids.values().rev().take(10).map(level);
        crc32(asks.chain(bids).collect::<String>().as_bytes())
    }
}

#[test]
fn the_checksum_here_is_the_documented_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    let mut book = TextBook::default();
    for n in 0..10 {
        TextBook::set(&mut book.asks, &format!("0.{:05}", 5005 + 5 * n), "0.00000500");
    }
    for price in [5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950] {
        TextBook::set(&mut book.bids, &format!("0.{price:05}"), "0.00000500");
    }
    assert_eq!(book.checksum(), 974_947_235, "the example of the v1 guide");
}

#[test]
fn v1_messages() {
    let mut feed = feed();
    assert_eq!(
        feed.take(&named("v1_trade")),
        [
            "kraken:XBT/USD status live",
            "kraken:XBT/USD trade 1 buy 0.01000000 @ 62010.10000 ts 1714564800123456",
            "kraken:XBT/USD trade 2 sell 1.50000000 @ 62010.00000 ts 1714564800123999",
        ]
    );
    assert_eq!(
        feed.take(&named("v1_ticker")),
        ["kraken:XBT/USD quote 1 3.10000000 @ 62010.00000 / 0.25000000 @ 62010.10000"]
    );
    assert_eq!(
        feed.take(&named("v1_spread")),
        ["kraken:XBT/USD quote 2 3.10000000 @ 62010.00000 / 0.25000000 @ 62010.10000 ts 1714564800223344"]
    );
    assert_eq!(feed.take(&named("v1_ticker")), NOTHING, "the spread is told more often");
    for name in ["v1_systemStatus", "v1_subscriptionStatus", "v1_heartbeat", "v1_ohlc"] {
        assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
    }
    assert_eq!(
        feed.kinds(),
        [
            "trade true 1",
            "ticker true 2",
            "spread true 1",
            "systemStatus true 1",
            "subscriptionStatus true 1",
            "heartbeat true 1",
            "ohlc false 1",
        ]
    );
}

#[test]
fn v1_books_with_the_guides_example() {
    let mut feed = feed();
    assert_eq!(
        feed.take(&named("v1_book_snapshot")),
        [
            "kraken:XBT/USD status live",
            "kraken:XBT/USD quote 1 0.00000500 @ 0.05000 / 0.00000500 @ 0.05005 ts 1582905480000001",
        ]
    );
    assert_eq!(feed.take(&named("v1_book_two_parts_of_the_guide")), NOTHING, "away from the top");
    assert_eq!(feed.stats().checksums_good, 1, "the checksum in the last part is that of both");
    assert_eq!(
        feed.take(&named("v1_book_one_side")),
        ["kraken:XBT/USD quote 2 0.00000500 @ 0.05000 / 0.00000304 @ 0.05005 ts 1582905487439814"]
    );
    assert_eq!(
        feed.take(&named("v1_book_republished")),
        ["kraken:XBT/USD quote 3 0.00000500 @ 0.04995 / 0.00000304 @ 0.05005 ts 1582905487539814"]
    );
    assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0));
    assert_eq!(feed.take(&named("v1_ticker")), NOTHING, "the book tells quotes");
    assert_eq!(feed.take(&named("v1_spread")), NOTHING);
}

#[test]
fn a_v1_checksum_that_is_wrong_needs_a_snapshot() {
    let mut feed = feed();
    feed.take(&named("v1_book_snapshot"));
    let bad = named("v1_book_two_parts_of_the_guide").replace("974947235", "974947236");
    assert_eq!(feed.take(&bad), ["kraken:XBT/USD gap quote 2..2", "kraken:XBT/USD status stale"]);
    assert_eq!(feed.take(&named("v1_book_one_side")), NOTHING, "no book to change");
    assert_eq!((feed.stats().checksums_bad, feed.stats().gaps), (1, 1));
    assert_eq!(
        feed.take(&named("v1_book_snapshot")),
        [
            "kraken:XBT/USD status live",
            "kraken:XBT/USD quote 3 0.00000500 @ 0.05000 / 0.00000500 @ 0.05005 ts 1582905480000001",
        ]
    );
    assert_eq!(feed.take(&named("v1_book_two_parts_of_the_guide")), NOTHING);
    assert!(feed.take(&named("v1_book_one_side"))[0].starts_with("kraken:XBT/USD quote 4"));
    assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (2, 1));
}

#[test]
fn v2_messages() {
    let mut feed = feed();
    assert_eq!(feed.take(&named("v2_trade_snapshot")), NOTHING, "trades of before");
    assert_eq!(
        feed.take(&named("v2_trade_update")),
        [
            "kraken:BTC/USD status live",
            "kraken:BTC/USD trade 1 sell 0.10000000 @ 62010.0 id 70600003 ts 1714564800123456",
            "kraken:BTC/USD trade 2 buy 0.00000015 @ 62010.1 id 70600004 ts 1714564800123999",
        ]
    );
    assert_eq!(
        feed.take(&named("v2_ticker")),
        [
            "kraken:ALGO/USD status live",
            "kraken:ALGO/USD quote 1 740.00000000 @ 0.10025 / 1361.44813783 @ 0.10036 ts 1714564800334411",
        ]
    );
    for name in ["v2_subscribe_book", "v2_status", "v2_heartbeat", "v2_instrument"] {
        assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
    }
    assert_eq!(
        feed.kinds(),
        [
            "trade true 2",
            "ticker true 1",
            "subscribe true 1",
            "status true 1",
            "heartbeat true 1",
            "instrument false 1",
        ]
    );
}

#[test]
fn v2_books_with_the_guides_example() {
    for told in [true, false] {
        let mut feed = feed();
        if told {
            feed.take(&named("v2_subscribe_book"));
        }
        assert_eq!(
            feed.take(&named("v2_book_snapshot_of_the_guide")),
            [
                "kraken:BTC/USD status live",
                "kraken:BTC/USD quote 1 0.10000000 @ 45283.5 / 0.00100000 @ 45285.2",
            ]
        );
        assert_eq!(
            feed.take(&named("v2_book_update")),
            ["kraken:BTC/USD quote 2 0.50000000 @ 45284.0 / 0.00100000 @ 45285.2 ts 1696613755440295"]
        );
        assert_eq!(
            feed.take(&named("v2_book_update_of_both_sides")),
            ["kraken:BTC/USD quote 3 0.10000000 @ 45283.5 / 0.00200000 @ 45285.2 ts 1696613756440295"],
            "what fell out of the ten does not come back"
        );
        assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0));
    }
}

#[test]
fn a_v2_checksum_that_is_wrong_needs_a_snapshot() {
    let mut feed = feed();
    let snapshot = named("v2_book_snapshot_of_the_guide");
    feed.take(&snapshot);
    let shortened = snapshot.replace("0.10000000", "0.10000001");
    assert_eq!(feed.take(&shortened), ["kraken:BTC/USD gap quote 2..2", "kraken:BTC/USD status stale"]);
    assert_eq!(feed.take(&named("v2_book_update")), NOTHING, "no book to change");
    assert_eq!(feed.take(&shortened), ["kraken:BTC/USD gap quote 3..3"], "a bad snapshot heals nothing");
    assert_eq!(feed.stats().checksums_bad, 2);
    assert_eq!(
        feed.take(&snapshot),
        ["kraken:BTC/USD status live", "kraken:BTC/USD quote 4 0.10000000 @ 45283.5 / 0.00100000 @ 45285.2",],
        "told again, though it is what was told last"
    );
    assert!(feed.take(&named("v2_book_update"))[0].starts_with("kraken:BTC/USD quote 5"));
}

#[test]
fn the_depth_that_was_subscribed_is_kept_to() {
    // Four levels a side would be taken for a book of ten: the answer to the subscription says 25.
    let level = |price: u64| format!(r#"{{"price":{price}.0,"qty":1.00}}"#);
    let bids = |from: u64, to: u64| (from..to).rev().map(level).collect::<Vec<_>>().join(",");
    let book = |kind: &str, levels: &str, checksum: u32| {
        format!(
            r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{levels}],"asks":[],"checksum":{checksum}}}]}}"#
        )
    };
    let mut text = TextBook::default();
    let mut add = |from: u64, to: u64, size: &str| {
        (from..to).for_each(|p| TextBook::set(&mut text.bids, &format!("{p}.0"), size));
        text.checksum()
    };
    let (first, more, less) = (add(100, 104, "1.00"), add(104, 114, "1.00"), add(108, 114, "0"));
    let frames = [
        named("v2_subscribe_book").replace("\"depth\":10", "\"depth\":25"),
        book("snapshot", &bids(100, 104), first),
        book("update", &bids(104, 114), more),
        book("update", &bids(108, 114).replace("1.00", "0"), less),
    ];
    for late in [false, true] {
        let mut feed = feed();
        let mut frames: Vec<_> = frames.iter().collect();
        if late {
            frames.swap(0, 1);
        }
        for frame in frames {
            feed.take(frame);
        }
        assert_eq!((feed.stats().checksums_good, feed.stats().checksums_bad), (3, 0), "late: {late}");
    }
}

#[test]
fn random_books_keep_their_checksums() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let level = (10_000u32..10_040, prop_oneof![Just(0u32), 1u32..300_000]);
    let update = proptest::collection::vec((any::<bool>(), level), 1..12);
    runner
        .run(&proptest::collection::vec(update, 1..20), |updates| {
            let (mut feed, mut book) = (feed(), TextBook::default());
            feed.take(r#"[0,{"as":[],"bs":[]},"book-1000","XBT/USD"]"#);
            for update in &updates {
                let mut sides = [Vec::new(), Vec::new()];
                for (bid, (price, size)) in update {
                    let price = format!("{}.{}", price / 10, price % 10);
                    let size = format!("{}.{:05}", size / 100_000, size % 100_000);
                    let side = if *bid { &mut book.bids } else { &mut book.asks };
                    TextBook::set(side, &price, &size);
                    sides[usize::from(*bid)].push(format!(r#"["{price}","{size}","1582905487.4"]"#));
                }
                let checksum = book.checksum();
                let [asks, bids] = sides.map(|side| side.join(","));
                feed.take(&format!(
                    r#"[0,{{"a":[{asks}]}},{{"b":[{bids}],"c":"{checksum}"}},"book-1000","XBT/USD"]"#
                ));
            }
            prop_assert_eq!(feed.stats().checksums_good, updates.len() as u64);
            Ok(())
        })
        .expect("every checksum is good");
}

#[test]
fn faults_are_named() {
    let mut feed = feed();
    let wrong = |name: &str, from: &str, to: &str| {
        let bad = named(name).replacen(from, to, 1);
        assert_ne!(named(name), bad);
        bad
    };
    for (bad, what) in [
        (String::from("["), "not JSON"),
        (String::from("17"), "neither array nor object"),
        (String::from("[1,2]"), "neither 4 nor 5 parts"),
        (String::from("{}"), "without channel, event or method"),
        (String::from(r#"[0,{},"book-10","XBT/USD"]"#), "a book message without levels"),
        (wrong("v1_trade", r#""b""#, r#""x""#), "field `side`"),
        (wrong("v1_trade", r#""XBT/USD""#, "12"), "field `pair`"),
        (wrong("v1_ticker", r#""a""#, r#""z""#), "field `a`"),
        (wrong("v1_spread", r#""62010.00000""#, r#""+1""#), "field `bid`: \"+1\": not a decimal number"),
        (wrong("v1_book_one_side", r#""c":""#, r#""c":"-"#), "field `c`"),
        (wrong("v2_trade_update", r#""qty":0.10000000,"#, ""), "field `qty`"),
        (wrong("v2_trade_update", r#""data""#, r#""dat""#), "field `data`"),
        (wrong("v2_book_update", "\"checksum\":", "\"checksum\":99"), "field `checksum`"),
    ] {
        let error = feed.fault(&bad);
        assert!(error.to_string().contains(what), "{error} for {bad}");
    }
    assert!(matches!(
        feed.fault(&wrong("v2_trade_update", "0.10000000", "1e29")),
        DecodeError::Decimal { field: "qty", cause: DecimalError::Overflow, .. }
    ));
    assert!(matches!(
        feed.fault(&wrong("v2_ticker", "0.10025", "123456789012345678901234567890")),
        DecodeError::Decimal { field: "bid", cause: DecimalError::Overflow, .. }
    ));
}
