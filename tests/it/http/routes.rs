//! The routes, and what they answer.

use super::*;

#[test]
fn the_plain_routes_answer() {
    let door = plain();
    // Whether or not the trading page is built into this binary.
    let first = door.request("GET /", "");
    assert_eq!(first.status, 200);
    assert!(first.head.contains("content-security-policy: default-src 'none'"));
    assert!(
        !first.head.contains("unsafe") && !first.body.contains("<style") && !first.body.contains(" style=")
    );
    // The page has scripts only from files, and each of its files is there.
    let inline = first.body.split("<script").skip(1).filter(|script| !script.contains(" src=\"/"));
    assert_eq!(inline.count(), 0);
    let files = first.body.split(['"']).filter(|text| text.starts_with("/assets/") || text.ends_with(".svg"));
    for file in files {
        let answer = door.request(&format!("GET {file}"), "");
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.has("x-content-type-options: nosniff"), "{file}: {}", answer.head);
        // A worker is under the policy that it came with.
        assert!(
            answer.head.contains("content-security-policy: default-src 'none'"),
            "{file}: {}",
            answer.head
        );
    }
    assert_eq!(door.request("GET /assets/..%2Findex.html", "").status, 404);
    let page = door.request("GET /about", "");
    assert_eq!(page.status, 200);
    assert!(page.has("content-type: text/html; charset=utf-8"), "{}", page.head);
    assert!(page.head.contains("content-security-policy: default-src 'none'"));
    assert!(page.body.contains("new WebSocket(") && page.body.contains("Instruments: <b>2</b>"));
    assert!(page.body.contains("a&lt;b") && !page.body.contains("<script"));
    assert_eq!(door.request("GET /style.css", "").status, 200);
    assert_eq!(door.request("GET /healthz", "").status, 200);

    let all = door.request("GET /api/symbols", "");
    assert_eq!(
        all.body,
        r#"{"symbols":[{"symbol":"coinbase:BTC-USD","venue":"coinbase","state":"live"},{"symbol":"kraken:XBT/USD","venue":"kraken","state":"waiting"}]}"#
    );
    let one = door.request("GET /api/symbols?match=coinbase%3A*", "");
    assert!(one.body.contains("coinbase:BTC-USD") && !one.body.contains("kraken"));
    let bad = door.request("GET /api/symbols?match=BTC*", "");
    assert_eq!(bad.status, 400);
    assert!(bad.error().contains("`match`"));
}

#[test]
fn ready_only_while_the_feeds_flow() {
    let door = plain();
    let ready = door.request("GET /readyz", "");
    // An alarm is not a reason to send clients elsewhere.
    assert_eq!(ready.status, 200);
    assert!(ready.body.ends_with(r#","alarms":["no room"]}"#), "{}", ready.body);
    door.switches.stopped_feed.store(true, Ordering::SeqCst);
    let answer = door.request("GET /readyz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(r#""name":"a<b","flowing":false"#), "{}", answer.body);
}

#[test]
fn head_works_where_get_does() {
    let door = plain();
    for path in ["/", "/healthz", "/readyz", "/api/symbols", "/style.css"] {
        let mut stream = door.connect();
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let answer = Answer::read_of(&mut stream, true);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.head.contains("content-length: "), "{path}: {}", answer.head);
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0, "{path}: HEAD has no body");
    }
}

#[test]
fn wrong_methods_and_paths_are_named() {
    let door = plain();
    for path in ["/", "/ws", "/publish", "/api/symbols", "/healthz", "/readyz"] {
        let answer = door.request(&format!("POST {path}"), "");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.head.contains("allow: get"), "{path}: {}", answer.head);
        assert!(answer.error().contains("GET"));
    }
    let answer = door.request("GET /nothing", "");
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("/nothing"));
    assert_eq!(door.request("OPTIONS *", "").status, 404);
    assert_eq!(door.request("CONNECT localhost:1", "").status, 404);
}

#[test]
fn a_long_list_of_symbols_comes_in_pages_each_as_long_as_it_may_be() {
    // As long as they may be, one in three of another venue.
    let name = |n: usize| {
        let venue = if n.is_multiple_of(3) { "b".repeat(32) } else { "a".repeat(32) };
        format!("{venue}:{n:0>64}")
    };
    let names: Vec<String> = (0..INSTRUMENTS_MAX).map(name).collect();
    let table = table(names.iter().cloned());
    let door = door_on((Ipv4Addr::LOCALHOST, 0).into(), |_| {}, |hooks| hooks.instruments = table);
    let page = |query: &str| {
        let answer = door.request(&format!("GET /api/symbols{query}"), "");
        assert!(answer.status == 200 && answer.body.len() < 300_000, "{query}: {}", answer.body.len());
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let rows = body["symbols"].as_array().expect("rows");
        let rows: Vec<String> =
            rows.iter().map(|row| row["symbol"].as_str().expect("a name").to_owned()).collect();
        let next = body["next"].as_str().map(str::to_owned);
        assert_eq!(
            (body["more"] == true, answer.head.contains("rel=\"next\"")),
            (next.is_some(), next.is_some())
        );
        (rows, next)
    };
    let all = |query: &str, most: usize| {
        let and = if query.is_empty() { '?' } else { '&' };
        let (mut found, mut next, mut pages) = (Vec::new(), Some(String::new()), 0);
        while let Some(after) = next {
            let (rows, behind) = page(&format!("{query}{after}"));
            assert!(rows.len() == most || behind.is_none(), "{query}{after}: {} rows", rows.len());
            found.extend(rows);
            next = behind.map(|last| format!("{and}after={last}"));
            pages += 1;
        }
        (found, pages)
    };
    assert_eq!(all("", 1_000), (names.clone(), 66));
    let of_b: Vec<String> = names.iter().filter(|name| name.starts_with('b')).cloned().collect();
    let pages = of_b.len().div_ceil(999);
    assert_eq!(all(&format!("?limit=999&match={}:*", "b".repeat(32)), 999), (of_b, pages));
    let last = names.last().expect("some");
    assert_eq!(page(&format!("?match={last}")), (vec![last.clone()], None));
    assert_eq!(page(&format!("?match={last}&after={last}")), (vec![], None));
    assert_eq!(
        page(&format!("?limit=1&after={}", names[7])),
        (vec![names[8].clone()], Some(names[8].clone()))
    );
    for (query, word) in [
        ("?limit=0", "`limit`"),
        ("?limit=1001", "1000"),
        ("?limit=x", "`limit`"),
        ("?after=a:NONE", "`after`"),
        ("?after=x", "`after`"),
    ] {
        let answer = door.request(&format!("GET /api/symbols{query}"), "");
        assert!(answer.status == 400 && answer.error().contains(word), "{query}: {}", answer.body);
    }
}

#[test]
fn a_room_that_opens_slowly_is_no_slow_head() {
    let limits = HttpLimits { head_timeout_ms: OPENS_IN.as_millis() as u64 / 4, ..HttpLimits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut stream = door.connect();
    let ask =
        |name: &str| format!("GET /ws?replay={name} HTTP/1.1\r\nHost: localhost:1\r\n{}\r\n", handshake());
    stream.write_all(ask("gone").as_bytes()).expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, answer.error().as_str()), (409, "another room"));
    // The same connection may try again.
    stream.write_all(ask("there").as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 101);
    let mut close = Vec::new();
    stream.read_to_end(&mut close).expect("closed");
    assert_eq!(close.get(2..4), Some(&4503_u16.to_be_bytes()[..]), "{close:?}");
    assert_eq!(door.stats.timeouts.load(Ordering::SeqCst), 0);
    let listed = door.request("GET /api/replays", "");
    assert_eq!((listed.status, listed.body.as_str()), (200, r#"{"replays":[]}"#));
    assert_eq!(door.request("GET /api/replays", "Origin: https://evil.example\r\n").status, 403);
}

#[test]
fn a_long_list_of_captures_comes_in_parts() {
    let door = plain();
    door.switches.many_captures.store(true, Ordering::SeqCst);
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let answer = door.request(&format!("GET /api/replays{after}"), "");
        assert!(answer.status == 200 && answer.body.len() < 300_000, "{} bytes", answer.body.len());
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["more"], true, "the folder itself has more");
        let page = body["replays"].as_array().expect("rows");
        assert!(page.len() <= 1_000, "{} rows", page.len());
        found.extend(page.iter().map(|row| row["name"].as_str().expect("a name").to_owned()));
        let Some(next) = body["next"].as_str() else { break };
        assert_eq!(found.last().map(String::as_str), Some(next));
        after = format!("?after={next}");
    }
    assert!(found.iter().eq((0..CAPTURES).map(capture).collect::<Vec<_>>().iter()), "{}", found.len());
}
