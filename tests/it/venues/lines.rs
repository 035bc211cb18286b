//! What a feed line does whichever venue it is of.

use super::*;

#[test]
fn a_venue_cannot_make_the_list_of_kinds_grow() {
    let mut feed = Feed::new(WireFormat::Coinbase);
    for n in 0..500 {
        feed.take(&format!(r#"{{"type":"kind {n} {}"}}"#, "x".repeat(100)));
    }
    let kinds = feed.kinds();
    assert_eq!(kinds.len(), tickfan::feed::FrameKinds::MAX + 1);
    assert_eq!(kinds.last().map(String::as_str), Some("(other) false 436"));
    assert!(kinds.iter().all(|kind| kind.len() < 50));
}

#[test]
fn what_a_connection_told_does_not_hold_for_the_next() {
    let mut feed = Feed::new(WireFormat::Coinbase);
    let named = |name: &str| frame(WireFormat::Coinbase, name);
    feed.take(&named("snapshot"));
    feed.take(&named("match"));
    let mut ticks = Vec::new();
    let rx_ns = feed.rx_ns;
    feed.lines[0].disconnected(rx_ns, &mut feed.sequencer, |tick| ticks.push(*tick));
    let ticks: Vec<_> = ticks.iter().map(|tick| feed.text(tick)).collect();
    assert_eq!(ticks, ["coinbase:BTC-USD status down"]);
    assert_eq!(feed.take(&named("l2update")), NOTHING, "a change of a book that is gone");
    let later = feed.take(&named("match").replace("633500001", "633500099"));
    assert_eq!(
        later,
        [
            "coinbase:BTC-USD status stale",
            "coinbase:BTC-USD trade 2 buy 0.02340000 @ 62010.01 id 633500099 ts 1714564800423456",
        ],
        "no hole is known of, but the quotes have not come back"
    );
    let back = feed.take(&named("snapshot"));
    assert_eq!(back[0], "coinbase:BTC-USD status live");
    assert!(back[1].starts_with("coinbase:BTC-USD quote 2"), "{back:?}");
}

/// What a line hands out when its capture ends and another one goes on from it.
fn joined(feed: &mut Feed) -> Vec<String> {
    let mut ticks = Vec::new();
    let rx_ns = feed.rx_ns;
    feed.lines[0].joined(rx_ns, &mut feed.sequencer, |tick| ticks.push(*tick));
    ticks.iter().map(|tick| feed.text(tick)).collect()
}

#[test]
fn a_book_is_stale_behind_a_join_until_its_checksum_proves_it() {
    let named = |name: &str| frame(WireFormat::Kraken, name);
    let mut feed = Feed::new(WireFormat::Kraken);
    feed.take(&named("v1_book_snapshot"));
    assert_eq!(joined(&mut feed), ["kraken:XBT/USD status stale"]);
    assert_eq!(feed.take(&named("v1_heartbeat")), NOTHING, "it says nothing of the symbol");
    assert_eq!(
        feed.take(&named("v1_book_two_parts_of_the_guide")),
        ["kraken:XBT/USD status live"],
        "the checksum is right, and the best prices are those that were told"
    );
    joined(&mut feed);
    let bad = named("v1_book_one_side").replace("3878920805", "3878920806");
    assert_eq!(feed.take(&bad), ["kraken:XBT/USD gap quote 2..2"], "something is missing: it stays stale");
}

#[test]
fn without_proof_a_book_is_a_gap_behind_a_join() {
    let named = |name: &str| frame(WireFormat::Coinbase, name);
    let mut feed = Feed::new(WireFormat::Coinbase);
    feed.take(&named("snapshot"));
    feed.take(&named("match"));
    assert_eq!(joined(&mut feed), ["coinbase:BTC-USD status stale"]);
    let trade = feed.take(&named("match").replace("633500001", "633500003"));
    assert_eq!(trade[0], "coinbase:BTC-USD gap trade 2..2", "trades are numbered");
    assert_eq!(trade.len(), 2, "and the state stays stale for the book: {trade:?}");
    assert_eq!(feed.take(&named("l2update")), ["coinbase:BTC-USD gap quote 2..2"]);
    assert_eq!(feed.take(&named("l2update")), NOTHING);
    let back = feed.take(&named("snapshot"));
    assert_eq!(back[0], "coinbase:BTC-USD status live");
}

#[test]
fn what_is_not_heard_of_again_stays_stale_behind_a_join() {
    let mut feed = Feed::new(WireFormat::Native);
    let trade =
        |symbol: &str| format!(r#"{{"type":"trade","symbol":"demo:{symbol}","price":"1","size":"1"}}"#);
    feed.take(&trade("A"));
    feed.take(&trade("B"));
    let stale = joined(&mut feed);
    assert_eq!(stale.len(), 2, "{stale:?}");
    assert_eq!(feed.take(&trade("A"))[0], "demo:A status live");
    // Silence that ends says nothing of what has not come.
    let (rx_ns, mut told) = (feed.rx_ns, Vec::new());
    feed.lines[0].set_silent(true, rx_ns, &mut feed.sequencer, &mut |tick: &Tick| told.push(*tick));
    let told: Vec<_> = told.iter().map(|tick| feed.text(tick)).collect();
    assert_eq!(told, ["demo:A status stale"], "only one was live");
    assert_eq!(feed.take(&trade("A"))[0], "demo:A status live");
    assert_eq!(feed.take(&trade("B"))[0], "demo:B status live");
}
