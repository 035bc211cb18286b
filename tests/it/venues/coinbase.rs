//! Messages of Coinbase.

use super::*;

const WIRE: WireFormat = WireFormat::Coinbase;

fn feed() -> Feed {
    Feed::new(WIRE)
}

fn named(name: &str) -> String {
    frame(WIRE, name)
}

fn matched(id: u64) -> String {
    named("match").replace("633500001", &id.to_string())
}

#[test]
fn a_book_becomes_quotes_where_its_top_changes() {
    let mut feed = feed();
    assert_eq!(
        feed.take(&named("snapshot")),
        [
            "coinbase:BTC-USD status live",
            "coinbase:BTC-USD quote 1 0.25000000 @ 62009.99 / 0.30000000 @ 62010.01 ts 1714564800123456",
        ]
    );
    assert_eq!(
        feed.take(&named("l2update")),
        ["coinbase:BTC-USD quote 2 2.00000000 @ 62009.00 / 0.10000000 @ 62010.01 ts 1714564800223456"]
    );
    assert_eq!(feed.take(&named("l2update_away_from_the_top")), NOTHING);
    assert_eq!(feed.take(&named("ticker").replace("ETH-USD", "BTC-USD")), NOTHING, "the book tells quotes");
    assert_eq!((feed.stats().quotes, feed.stats().repeated), (2, 1));
}

#[test]
fn the_side_of_a_match_is_the_makers_and_the_takers_is_told() {
    let mut feed = feed();
    assert_eq!(
        feed.take(&named("match")),
        [
            "coinbase:BTC-USD status live",
            "coinbase:BTC-USD trade 1 buy 0.02340000 @ 62010.01 id 633500001 ts 1714564800423456",
        ]
    );
    let sold = matched(633_500_002).replace(r#""side":"sell""#, r#""side":"buy""#);
    assert_eq!(
        feed.take(&sold),
        ["coinbase:BTC-USD trade 2 sell 0.02340000 @ 62010.01 id 633500002 ts 1714564800423456"]
    );
}

#[test]
fn last_match_is_no_new_trade() {
    let mut feed = feed();
    assert_eq!(feed.take(&named("last_match")), NOTHING);
    assert_eq!(feed.take(&matched(633_500_000)), NOTHING, "the same trade again");
    assert_eq!(feed.take(&named("match")).len(), 2, "the next one follows it without a hole");
    assert_eq!((feed.stats().trades, feed.stats().repeated, feed.stats().gaps), (1, 1, 0));
}

#[test]
fn a_ticker_tells_quotes_where_no_book_does() {
    let mut feed = feed();
    assert_eq!(
        feed.take(&named("ticker")),
        [
            "coinbase:ETH-USD status live",
            "coinbase:ETH-USD quote 1 1.50000000 @ 3010.21 / 0.08000000 @ 3010.22 ts 1714564801000001",
        ]
    );
    assert_eq!(
        feed.take(&named("ticker_of_2021")),
        [
            "coinbase:SKL-USD status live",
            "coinbase:SKL-USD quote 1 - @ 0.6216 / - @ 0.6219 ts 1618677818075687",
        ]
    );
}

#[test]
fn what_is_no_market_data_is_counted_by_kind() {
    let mut feed = feed();
    for name in ["subscriptions", "error", "heartbeat", "status", "status"] {
        assert_eq!(feed.take(&named(name)), NOTHING, "{name}");
    }
    assert_eq!(feed.kinds(), ["subscriptions true 1", "error true 1", "heartbeat true 1", "status false 2"]);
    assert_eq!(feed.stats().bad_frames, 0);
}

/// After a break: stale, silent about the book until the next snapshot, then live and telling again.
fn heals(feed: &mut Feed, next_quote: u64) {
    assert_eq!(feed.take(&named("l2update")), NOTHING, "a book that is not to be trusted");
    let healed = feed.take(&named("snapshot"));
    assert_eq!(healed.len(), 2);
    assert_eq!(healed[0], "coinbase:BTC-USD status live");
    assert!(healed[1].starts_with(&format!("coinbase:BTC-USD quote {next_quote} 0.25")), "{healed:?}");
    let quote = feed.take(&named("l2update"));
    assert!(quote[0].starts_with(&format!("coinbase:BTC-USD quote {} 2.0", next_quote + 1)), "{quote:?}");
}

#[test]
fn a_hole_in_the_trade_ids_is_a_gap_of_that_many() {
    let mut feed = feed();
    feed.take(&named("snapshot"));
    feed.take(&named("match"));
    assert_eq!(
        feed.take(&matched(633_500_005)),
        [
            "coinbase:BTC-USD gap trade 2..4",
            "coinbase:BTC-USD trade 5 buy 0.02340000 @ 62010.01 id 633500005 ts 1714564800423456",
        ],
        "the book goes on: the venue drops matches, not level2"
    );
    assert_eq!((feed.stats().sequence_breaks, feed.stats().gaps), (1, 1));
}

#[test]
fn a_heartbeat_that_knows_of_newer_trades_is_a_gap_of_that_many() {
    let mut feed = feed();
    feed.take(&named("snapshot"));
    feed.take(&named("match"));
    assert_eq!(feed.take(&named("heartbeat")), NOTHING, "it knows what we know");
    let ahead = named("heartbeat").replace("633500001", "633500003");
    assert_eq!(
        feed.take(&ahead),
        [
            "coinbase:BTC-USD gap trade 2..3",
            "coinbase:BTC-USD gap quote 2..2",
            "coinbase:BTC-USD status stale",
        ]
    );
    assert_eq!(feed.take(&ahead), NOTHING, "told once");
    assert_eq!((feed.stats().sequence_breaks, feed.stats().gaps), (1, 2));
    assert_eq!(feed.take(&matched(633_500_003)), NOTHING, "what was given up does not come after its gap");
    heals(&mut feed, 3);
    assert!(feed.take(&matched(633_500_004))[0].starts_with("coinbase:BTC-USD trade 4 buy"));
}

#[test]
fn a_sequence_that_goes_back_breaks_the_quotes() {
    let mut feed = feed();
    feed.take(&named("snapshot"));
    feed.take(&named("heartbeat"));
    assert_eq!(
        feed.take(&named("heartbeat").replace("78536464700", "78536464699")),
        ["coinbase:BTC-USD gap quote 2..2", "coinbase:BTC-USD status stale"]
    );
    assert_eq!(feed.stats().sequence_breaks, 1);
    heals(&mut feed, 3);
}

#[test]
fn a_break_is_not_told_of_what_another_line_tells() {
    let mut feed = Feed::of_lines(&[WIRE, WIRE]);
    feed.take_on(0, &named("snapshot"));
    feed.take_on(0, &named("match"));
    feed.take_on(1, &named("last_match"));
    assert_eq!(feed.take_on(1, &named("heartbeat")), NOTHING, "the trade came on the other line");
    assert_eq!(feed.take_on(0, &named("l2update")).len(), 1);
}

#[test]
fn a_trade_id_out_of_all_reason_does_not_use_up_our_numbers() {
    let mut feed = feed();
    feed.take(&matched(1));
    for id in [u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let ticks = feed.take(&matched(id));
        assert!(ticks.last().is_some_and(|t| t.contains(&format!("id {id} "))), "{ticks:?}");
    }
    let gap = u64::from(u32::MAX);
    assert_eq!(feed.seqs[&(InstrumentId(0), Stream::Trade)], 4 + 2 * gap);
}

#[test]
fn faults_are_named() {
    let mut feed = feed();
    let wrong = |name: &str, from: &str, to: &str| {
        let good = named(name);
        let bad = good.replace(from, to);
        assert_ne!(good, bad);
        bad
    };
    for (bad, what) in [
        (String::from("{"), "not JSON"),
        (String::from("[]"), "field `type`"),
        (wrong("match", r#""price":"62010.01","#, ""), "field `price`"),
        (wrong("match", r#""62010.01""#, "62010.01"), "field `price`"),
        (wrong("match", "62010.01", "6201o.01"), "field `price`: \"6201o.01\": not a decimal number"),
        (wrong("match", r#""side":"sell""#, r#""side":"short""#), "field `side`"),
        (wrong("match", "633500001", "-1"), "field `trade_id`"),
        (wrong("match", "BTC-USD", "BTC USD"), "field `symbol`: \"BTC USD\""),
        (wrong("l2update", "changes", "change"), "field `changes`"),
        (wrong("snapshot", "asks", "offers"), "field `asks`"),
        (wrong("heartbeat", "last_trade_id", "last"), "field `last_trade_id`"),
    ] {
        let error = feed.fault(&bad);
        assert!(error.to_string().contains(what), "{error} for {bad}");
    }
    let huge = wrong("match", "62010.01", "12345678901234567890123456789.5");
    assert!(matches!(
        feed.fault(&huge),
        DecodeError::Decimal { field: "price", cause: DecimalError::Overflow, .. }
    ));
    assert_eq!(feed.take(&named("match")).len(), 2, "and the line goes on");
}

#[test]
fn a_change_that_cannot_be_read_breaks_the_book() {
    let mut feed = feed();
    feed.take(&named("snapshot"));
    let (ticks, result) = feed.try_take(0, named("l2update").replace("62009.99", "62.009.99").as_bytes());
    assert!(result.is_err());
    assert_eq!(ticks, ["coinbase:BTC-USD gap quote 2..2", "coinbase:BTC-USD status stale"]);
    let (ticks, result) = feed.try_take(0, named("snapshot").replace("62009.00", "x").as_bytes());
    assert!(result.is_err());
    assert_eq!(ticks, ["coinbase:BTC-USD gap quote 3..3"], "a bad snapshot heals nothing");
    heals(&mut feed, 4);
}
