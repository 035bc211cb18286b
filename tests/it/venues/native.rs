//! Lines of publishers.

use super::*;

const WIRE: WireFormat = WireFormat::Native;

fn named(name: &str) -> String {
    frame(WIRE, name)
}

#[test]
fn messages() {
    let mut feed = Feed::new(WIRE);
    assert_eq!(
        feed.take(&named("trade")),
        ["demo:ABC status live", "demo:ABC trade 1 buy 3 @ 1.2500 id x-17 ts 1714564800123456"]
    );
    assert_eq!(
        feed.take(&named("trade_of_numbers")),
        ["demo:ABC trade 2 - 0.03 @ 0.10000000 id 18"],
        "numbers keep their digits"
    );
    assert_eq!(
        feed.take(&named("quote")),
        ["demo:ABC quote 1 10 @ 1.2400 / 7.5 @ 1.2600 ts 1714564800223456"]
    );
    assert_eq!(feed.take(&named("quote_of_one_side")), ["demo:ABC quote 2 - @ - / - @ 1.270"]);
    assert_eq!(feed.kinds(), ["trade true 2", "quote true 2"]);
}

#[test]
fn publishers_share_an_instrument() {
    let mut feed = Feed::of_lines(&[WIRE, WIRE]);
    assert_eq!(feed.take_on(0, &named("trade")).len(), 2);
    assert!(feed.take_on(1, &named("trade"))[0].starts_with("demo:ABC trade 2"));
    assert!(feed.take_on(0, &named("trade"))[0].starts_with("demo:ABC trade 3"));
}

#[test]
fn faults_are_named() {
    let mut feed = Feed::new(WIRE);
    for (bad, what) in [
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        (r#"{"symbol":"demo:ABC"}"#, "field `type`"),
        (r#"{"type":"order","symbol":"demo:ABC"}"#, "`type` is neither trade nor quote"),
        (r#"{"type":"trade","price":"1","size":"1"}"#, "field `symbol`"),
        (r#"{"type":"trade","symbol":"ABC","price":"1","size":"1"}"#, "a symbol is written venue:NAME"),
        (r#"{"type":"trade","symbol":"demo:ABC","size":"1"}"#, "field `price`"),
        (r#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"1","side":"B"}"#, "field `side`"),
        (r#"{"type":"trade","symbol":"demo:ABC","price":"1","size":"1","ts":"now"}"#, "field `ts`"),
        (r#"{"type":"quote","symbol":"demo:ABC"}"#, "field `bid`"),
        (
            r#"{"type":"trade","symbol":"demo:ABC","price":12345678901234567890123456789,"size":1}"#,
            "field `price`: \"12345678901234567890123456789\": decimal overflow: more than 28 digits",
        ),
    ] {
        let error = feed.fault(bad);
        assert!(error.to_string().contains(what), "{error} for {bad}");
    }
    assert_eq!(feed.take(&named("trade")).len(), 2);
}

#[test]
fn only_listed_venues_may_be_published() {
    let mut feed = Feed::new(WIRE);
    let limits = LineLimits { venues: Some(vec!["other".to_owned()]), ..limits() };
    feed.lines[0] = Line::new(LineId(0), Origin::Live, WIRE, limits);
    assert!(feed.fault(&named("trade")).to_string().contains("may not be published"));
    assert_eq!(feed.take(&named("trade").replace("demo:", "other:")).len(), 2);
}
