use super::*;

fn id(value: Value) -> Option<Id> {
    Id::of(&Map::from_iter([("id".to_owned(), value)])).expect("an id")
}

fn fault(text: &str) -> (&'static str, String) {
    let fault = parse(text, 10).expect_err(text);
    (fault.code, fault.msg)
}

#[test]
fn a_subscribe_is_read_with_its_defaults() {
    let request =
        parse(r#"{"op":"subscribe","id":2,"channel":"quote","symbols":["coinbase:BTC-USD"],"extra":1}"#, 10);
    let request = request.expect("good");
    assert_eq!(request.id, id(2.into()));
    let expected = Subscribe {
        channels: vec![Channel::Quote],
        symbols: vec![Selector::parse("coinbase:BTC-USD")],
        mode: None,
        rate: None,
        disconnect_on_loss: false,
        snapshot: true,
        resume: None,
        from: None,
    };
    assert_eq!(request.op, Op::Subscribe(expected));
}

#[test]
fn faults_name_the_field() {
    for (text, code, word) in [
        ("{", "bad_request", "not JSON"),
        ("[]", "bad_request", "object"),
        ("{}", "bad_request", "`op`"),
        (r#"{"op":7}"#, "bad_request", "`op`"),
        (r#"{"op":"fly"}"#, "unknown_op", "\"fly\""),
        (r#"{"op":"list","id":1.5}"#, "bad_request", "`id`"),
        (r#"{"op":"subscribe","symbols":["*"]}"#, "bad_request", "`channel`"),
        (r#"{"op":"subscribe","channel":["trade","x"],"symbols":["*"]}"#, "bad_request", "\"x\""),
        (r#"{"op":"subscribe","channel":"trade"}"#, "bad_request", "`symbols`"),
        (r#"{"op":"subscribe","channel":"trade","symbols":["a:b",{}]}"#, "bad_request", "`symbols[1]`"),
        (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"mode":"all"}"#, "bad_request", "`mode`"),
        (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"max_hz":0}"#, "bad_request", "`max_hz`"),
        (r#"{"op":"subscribe","channel":"quote","symbols":["*"],"max_hz":1001}"#, "bad_request", "1000"),
        (r#"{"op":"subscribe","channel":"trade","symbols":["*"],"max_hz":5}"#, "bad_request", "`max_hz`"),
        (r#"{"op":"subscribe","channel":"quote","symbols":["*"],"on_slow":"cut"}"#, "bad_request", "every"),
        (r#"{"op":"subscribe","channel":"quote","symbols":["*"],"on_slow":7}"#, "bad_request", "`on_slow`"),
        (r#"{"op":"subscribe","channel":"quote","symbols":["*"],"resume":{}}"#, "bad_request", "epoch"),
        (
            r#"{"op":"subscribe","channel":"quote","symbols":["*"],"resume":{"epoch":"e","seq":{"a":-1}}}"#,
            "bad_request",
            "\"a\"",
        ),
        (
            r#"{"op":"subscribe","channel":["trade","quote"],"symbols":["*"],"resume":{"epoch":"","seq":{}}}"#,
            "bad_request",
            "one `channel`",
        ),
        (r#"{"op":"subscribe","channel":"quote","symbols":["*"],"from":"-1s"}"#, "bad_request", "every"),
        (
            r#"{"op":"subscribe","channel":"trade","symbols":["*"],"from":1,"resume":{"epoch":"","seq":{}}}"#,
            "bad_request",
            "`resume`",
        ),
        (r#"{"op":"set","symbols":["*"]}"#, "bad_request", "`mode`"),
        (r#"{"op":"set","symbols":["*"],"mode":"every","max_hz":1}"#, "bad_request", "latest"),
        (r#"{"op":"ping","t":{}}"#, "bad_request", "`t`"),
    ] {
        let (found, msg) = fault(text);
        assert_eq!(found, code, "{text}");
        assert!(msg.contains(word), "{text}: {msg}");
    }
    assert_eq!(parse(r#"{"op":"fly","id":"x"}"#, 10).expect_err("no such op").id, id("x".into()));
}

#[test]
fn what_a_ping_brings_goes_back_letter_for_letter() {
    // F25: includes numbers that exceed every numeric type.
    for t in [
        "18446744073709551615",
        "18446744073709551616",
        "-18446744073709551616",
        "1e3",
        "1E+3",
        "1e999",
        "-0",
        "-0.0",
        "1.10",
        "0.1000000000000000055511151231257827",
        "null",
        "\"\"",
        "\"ü\"",
        r#""A\/\"\\n""#,
    ] {
        for text in [format!(r#"{{"op":"ping","t":{t}}}"#), format!("{{ \"t\" :\n{t}\t, \"op\":\"ping\"}}")] {
            let Ok(Request { op: Op::Ping(Some(echo)), .. }) = parse(&text, 10) else { panic!("{text}") };
            assert_eq!(echo.value().get(), t);
        }
    }
    assert_eq!(parse(r#"{"op":"ping"}"#, 10).map(|request| request.op), Ok(Op::Ping(None)));
    // The last of repeated fields counts.
    let twice = parse(r#"{"op":"ping","t":1,"t":2.0}"#, 10).expect("good").op;
    assert!(matches!(twice, Op::Ping(Some(echo)) if echo.value().get() == "2.0"));
    let (short, long) = ("1".repeat(128), "1".repeat(129));
    for (t, good) in [
        (short.clone(), true),
        (long.clone(), false),
        (format!("\"{short}\""), true),
        (format!("\"{long}\""), false),
        (format!("\"{}\"", r"\u0041".repeat(128)), true),
        (format!("\"{}\"", r"\u0041".repeat(129)), false),
        (r#""\ud800""#.to_owned(), false),
        ("true".to_owned(), false),
        ("[]".to_owned(), false),
        ("{\"a\":1}".to_owned(), false),
    ] {
        let text = format!(r#"{{"op":"ping","id":7,"t":{t}}}"#);
        match parse(&text, 10) {
            Ok(request) => assert!(good && matches!(request.op, Op::Ping(Some(_))), "{text}"),
            Err(fault) => {
                assert!(!good && fault.msg.contains("`t`") && fault.id.is_some(), "{text}: {}", fault.msg);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_value_names_its_field() {
    for (text, words) in [
        (r#"{"op":"list","after":1e999}"#, ["`after`", "out of range"]),
        (r#"{"op":"list","after":"\ud800"}"#, ["`after`", "escape"]),
        (r#"{"op":"list" "other":1}"#, ["not JSON", "column 14"]),
        (r#"{"op":"list","other":01}"#, ["not JSON", "column"]),
        ("{\"op\":\"list\"}x", ["not JSON", "column 14"]),
        ("  7", ["a request is a JSON object", ""]),
        ("7 7", ["not JSON", "column 3"]),
    ] {
        let (code, msg) = fault(text);
        assert!(code == "bad_request" && words.iter().all(|word| msg.contains(word)), "{text}: {msg}");
    }
}

#[test]
fn rates_are_exact_and_shown_as_they_were_written() {
    for (text, period_ns, shown) in [
        ("10", 100_000_000, "10"),
        ("0.01", 100_000_000_000, "0.01"),
        ("2.5", 400_000_000, "2.5"),
        ("1000", 1_000_000, "1000"),
    ] {
        let request = format!(r#"{{"op":"set","symbols":["*"],"max_hz":{text}}}"#);
        let Ok(Request { op: Op::Set(_, change), .. }) = parse(&request, 10) else { panic!("{text}") };
        let rate = change.rate.flatten().expect(text);
        assert_eq!((rate.period_ns(), rate.shown().to_string().as_str()), (period_ns, shown));
    }
    let none = parse(r#"{"op":"set","max_hz":null}"#, 10).expect("good").op;
    assert!(matches!(none, Op::Set(_, Change { mode: None, rate: Some(None) })));
}

#[test]
fn symbols_count_once_and_not_too_many() {
    let text = |count: usize| {
        let list: Vec<String> = (0..2 * count).map(|n| format!("\"a:S{}\"", n % count)).collect();
        format!(r#"{{"op":"subscribe","channel":"trade","symbols":[{}]}}"#, list.join(","))
    };
    assert!(
        matches!(parse(&text(10), 10), Ok(Request { op: Op::Subscribe(s), .. }) if s.symbols.len() == 10)
    );
    assert!(fault(&text(11)).1.contains("`symbols` names more than 10 symbols"));
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = format!("{{\"op\":{}", "[".repeat(60_000));
    assert_eq!(fault(&deep).0, "bad_request");
}
