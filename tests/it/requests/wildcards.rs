//! Names and wildcards: what takes a symbol, and what ends it.

use super::*;

#[test]
fn a_name_stays_when_a_wildcard_goes() {
    // F24, in both orders.
    for wishes in [["demo:A", "*"], ["*", "demo:A"]] {
        let mut sequencer = Sequencer::open(&[]);
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        let mut client = sequencer.client("");
        for symbol in wishes {
            assert_eq!(client.subscribe(&json!("trade"), &[symbol], &json!({})), [format!("{symbol} trade")]);
        }
        let mut snaps = client.ticks();
        snaps.sort();
        let expected = ["demo:A", "demo:B", "other:A"].map(|symbol| format!("trade {symbol} 1 snap"));
        assert_eq!(snaps, expected, "one snapshot each");
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        assert_eq!(client.ticks().len(), 3);
        assert_eq!(client.unsubscribe(&["*"]), ["*"]);
        sequencer.moves(&["demo:B", "other:A", "demo:A"]);
        assert_eq!(client.ticks(), ["trade demo:A 3"], "no hole, no second snapshot");
        assert_eq!(client.list(), ["demo:A trade every"]);
        // What is listed from now on is nobody's.
        sequencer.moves(&["demo:NEW"]);
        assert_eq!(client.ticks(), [""; 0]);
        assert_eq!(client.unsubscribe(&["demo:A"]), ["demo:A"]);
        assert_eq!(client.list(), [""; 0]);
    }
}

#[test]
fn the_wildcard_of_a_venue_stays_when_the_one_of_all_goes() {
    for wishes in [["demo:*", "*", "demo:A"], ["*", "demo:A", "demo:*"]] {
        let mut sequencer = Sequencer::open(&[]);
        sequencer.moves(&["demo:A", "demo:B", "other:A"]);
        let mut client = sequencer.client("");
        for symbol in wishes {
            client.subscribe(&json!("trade"), &[symbol], &json!({"snapshot": false}));
        }
        client.unsubscribe(&["*"]);
        assert_eq!(client.list(), ["demo:* trade every", "demo:A trade every", "demo:B trade every"]);
        // Of what is listed later, it takes its own.
        sequencer.moves(&["demo:A", "other:A", "demo:B", "other:NEW", "demo:NEW"]);
        assert_eq!(client.ticks(), ["trade demo:A 2", "trade demo:B 2", "trade demo:NEW 1"]);
        client.unsubscribe(&["demo:*"]);
        assert_eq!(client.list(), ["demo:A trade every"]);
        sequencer.moves(&["demo:A", "demo:B"]);
        assert_eq!(client.ticks(), ["trade demo:A 3"]);
    }
}

#[test]
fn each_channel_counts_for_itself() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "quote demo:A", "quote demo:B"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A"], &json!({"snapshot": false}));
    client.subscribe(&json!(["trade", "quote"]), &["*"], &json!({"snapshot": false, "mode": "every"}));
    client.rows(&json!({"op": "unsubscribe", "channel": "trade", "symbols": ["*"]}));
    sequencer.moves(&["demo:A", "demo:B", "quote demo:A", "quote demo:B"]);
    assert_eq!(client.ticks(), ["trade demo:A 2", "quote demo:A 2", "quote demo:B 2"]);
    client.unsubscribe(&["*"]);
    sequencer.moves(&["demo:A", "quote demo:A", "quote demo:B"]);
    assert_eq!(client.ticks(), ["trade demo:A 3"]);
    assert_eq!(client.list(), ["demo:A trade every"]);
}

#[test]
fn unsubscribing_from_nothing_by_name_ends_everything() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "demo:B"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A", "demo:LATER", "demo:*", "*"], &json!({"snapshot": false}));
    let answer = client.ask(&json!({"op": "unsubscribe"}));
    assert_eq!(answer["ok"], json!([{"symbol": "*"}]), "{answer}");
    assert_eq!(answer["all"], true, "it can be told from `*`: {answer}");
    assert_eq!(client.list(), [""; 0]);
    sequencer.moves(&["demo:A", "demo:LATER", "demo:B"]);
    assert_eq!(client.ticks(), [""; 0]);
    client.subscribe(&json!("trade"), &["*"], &json!({"snapshot": false}));
    assert_eq!(client.ask(&json!({"op": "unsubscribe", "symbols": ["*"]}))["all"], Value::Null);
}

#[test]
fn a_name_that_is_unsubscribed_from_ends_whatever_takes_it() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    let mut client = sequencer.client("");
    client.subscribe(&json!("trade"), &["demo:A", "*", "demo:*"], &json!({"snapshot": false}));
    // Twice is as good as once.
    for _ in 0..2 {
        assert_eq!(client.unsubscribe(&["demo:A"]), ["demo:A"]);
        sequencer.moves(&["demo:A", "demo:B"]);
        assert_eq!(client.ticks().len(), 1, "demo:B alone");
    }
    // The wildcard of a venue is to the one of all what a name is to it.
    client.unsubscribe(&["demo:*"]);
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    assert_eq!(client.ticks(), ["trade other:A 2"]);
    // Who subscribes to a wildcard again has all of it.
    client.subscribe(&json!("trade"), &["*"], &json!({"snapshot": false}));
    sequencer.moves(&["demo:A", "demo:B", "other:A"]);
    assert_eq!(client.ticks().len(), 3);
}

#[test]
fn what_was_awaited_by_name_stays_too() {
    let mut sequencer = Sequencer::open(&[]);
    let mut client = sequencer.client("");
    client.subscribe(
        &json!("trade"),
        &["demo:LATER", "demo:NEVER"],
        &json!({"mode": "latest", "max_hz": 1000}),
    );
    client.subscribe(&json!("trade"), &["*"], &json!({}));
    let mut held = client.list();
    held.sort();
    let awaited = ["demo:LATER trade latest 1000", "demo:NEVER trade latest 1000"];
    assert_eq!(held, [&["* trade every"], &awaited[..]].concat());
    sequencer.moves(&["demo:LATER", "demo:OTHER"]);
    let mut held = client.list();
    held.sort();
    let all = ["* trade every", awaited[0], awaited[1], "demo:OTHER trade every"];
    assert_eq!(held, all, "with terms of its own");
    client.unsubscribe(&["*"]);
    let mut held = client.list();
    held.sort();
    assert_eq!(held, awaited);
}

#[test]
fn what_is_subscribed_by_itself_keeps_terms_of_its_own() {
    let mut sequencer = Sequencer::open(&[]);
    sequencer.moves(&["quote demo:A", "quote demo:B", "quote other:A"]);
    for order in [["demo:A", "demo:*", "*"], ["*", "demo:*", "demo:A"], ["demo:*", "demo:A", "*"]] {
        let mut client = sequencer.client("");
        let terms = |symbol: &str| match symbol {
            "*" => json!({"max_hz": 1}),
            "demo:*" => json!({"max_hz": 2}),
            _ => json!({"mode": "every"}),
        };
        for symbol in order {
            client.subscribe(&json!("quote"), &[symbol], &terms(symbol));
        }
        let held = |client: &mut Client| {
            let mut held = client.list();
            held.sort();
            held
        };
        let expected = [
            "* quote latest 1",
            "demo:* quote latest 2",
            "demo:A quote every",
            "demo:B quote latest 2",
            "other:A quote latest 1",
        ];
        assert_eq!(held(&mut client), expected, "{order:?}");
        // To change a wildcard is to change it, and what it alone brings.
        let set = |symbols: &[&str], hz: u64| json!({"op": "set", "symbols": symbols, "max_hz": hz});
        assert_eq!(client.rows(&set(&["*"], 5)), ["* quote"]);
        assert_eq!(client.rows(&set(&["demo:*"], 6)), ["demo:* quote"]);
        let expected = [
            "* quote latest 5",
            "demo:* quote latest 6",
            "demo:A quote every",
            "demo:B quote latest 6",
            "other:A quote latest 5",
        ];
        assert_eq!(held(&mut client), expected, "{order:?}");
        // So it is with one that is subscribed to again.
        client.subscribe(&json!("quote"), &["*"], &json!({"max_hz": 7}));
        assert_eq!(held(&mut client)[4], "other:A quote latest 7");
        assert_eq!(held(&mut client)[2..4], expected[2..4]);
        // A name may be set, whoever brings it; without symbols, all are.
        assert_eq!(client.rows(&set(&["demo:B"], 8)), ["demo:B quote"]);
        assert_eq!(held(&mut client)[3], "demo:B quote latest 8");
        client.rows(&json!({"op": "set", "mode": "latest", "max_hz": 9}));
        assert!(held(&mut client).iter().all(|row| row.ends_with("quote latest 9")), "{:?}", client.list());
        client.unsubscribe(&["demo:*", "*"]);
        assert_eq!(held(&mut client), ["demo:A quote latest 9"]);
        let answer = client.ask(&set(&["demo:*"], 3));
        assert_eq!(answer["rejected"][0]["code"], "not_subscribed", "{answer}");
        // What is gone left no terms behind.
        sequencer.moves(&["quote demo:B"]);
        client.subscribe(&json!("quote"), &["demo:B"], &json!({"snapshot": false}));
        assert_eq!(held(&mut client), ["demo:A quote latest 9", "demo:B quote latest"]);
    }
}

#[test]
fn names_count_under_a_wildcard_too() {
    let mut sequencer = Sequencer::open(&["limits.symbols_per_connection=2"]);
    sequencer.moves(&["demo:A", "demo:B", "demo:C", "demo:D"]);
    for wild_first in [true, false] {
        let mut client = sequencer.client("");
        if wild_first {
            client.subscribe(&json!("trade"), &["*"], &json!({}));
        }
        client.subscribe(&json!("trade"), &["demo:A", "demo:B"], &json!({}));
        if !wild_first {
            client.subscribe(&json!("trade"), &["*"], &json!({}));
        }
        let more = |client: &mut Client, symbol: &str| {
            client.ask(&json!({"op": "subscribe", "channel": "trade", "symbols": [symbol]}))["rejected"][0]["code"].clone()
        };
        assert_eq!(more(&mut client, "demo:C"), "limit");
        assert_eq!(more(&mut client, "demo:B"), Value::Null, "it has this one");
        // The other channel of a name is no other name.
        client.subscribe(&json!("quote"), &["demo:A"], &json!({}));
        client.unsubscribe(&["demo:B"]);
        assert_eq!(more(&mut client, "demo:C"), Value::Null);
        client.unsubscribe(&["*"]);
        assert_eq!(more(&mut client, "demo:D"), "limit");
        client.ask(&json!({"op": "unsubscribe"}));
        client.subscribe(&json!("trade"), &["demo:D", "demo:A"], &json!({}));
    }
}
