//! What opens a WebSocket, and what does not.

use super::*;

#[test]
fn only_get_opens_a_websocket_whichever_method_is_asked_with() {
    // F27: what one is told, all are.
    let door = door(|_| {}, true);
    for path in ["/ws", "/publish"] {
        for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            for headers in [handshake(), String::new()] {
                let mut stream = door.connect();
                let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
                stream.write_all(head.as_bytes()).expect("sent");
                let answer = Answer::read_of(&mut stream, method == "HEAD");
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.has("allow: get"), "{method} {path}: {}", answer.head);
                assert!(method == "HEAD" || answer.error().contains("opens with GET"), "{}", answer.body);
            }
        }
    }
    // Where HEAD works, it is among those that do.
    for path in ["/", "/healthz", "/api/symbols", "/api/replay"] {
        let answer = door.request(&format!("DELETE {path}"), "");
        assert!(answer.status == 405 && answer.head.contains("allow: get,head"), "{path}: {}", answer.head);
    }
}

#[test]
fn a_handshake_carries_the_first_frame_along() {
    let door = plain();
    let mut stream = door.connect();
    let frame = b"\x81\x85abcd\x09\x07\x0f\x08\x0e";
    let path = "/ws?symbols=coinbase:BTC-USD,v:A%2BB&symbols=v:C+D&channel=trade";
    let offer =
        "Sec-WebSocket-Protocol: other, tickfan.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake_but("", offer));
    stream.write_all(&[head.as_bytes(), frame].concat()).expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 101);
    assert!(answer.has("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{}", answer.head);
    assert!(answer.has("connection: upgrade") && answer.has("upgrade: websocket"));
    assert!(answer.has("sec-websocket-protocol: tickfan.v1"));
    assert!(!answer.head.contains("extensions"));

    let mut upgraded = door.sessions.recv_timeout(PATIENCE).expect("handed over");
    assert_eq!(upgraded.read_buf, frame);
    assert_eq!(upgraded.peer, stream.local_addr().expect("bound"));
    let subscribe = upgraded.subscribe.expect("a subscription");
    assert_eq!(subscribe.symbols, ["coinbase:BTC-USD", "v:A+B", "v:C D"].map(Selector::parse));
    assert_eq!(subscribe.channels, [Channel::Trade]);

    // The socket itself came too, and works both ways.
    upgraded.stream.set_nonblocking(false).expect("blocking");
    stream.write_all(b"more").expect("sent");
    let mut more = [0; 4];
    upgraded.stream.read_exact(&mut more).expect("received");
    upgraded.stream.write_all(&more).expect("sent");
    stream.read_exact(&mut more).expect("received");
    assert_eq!(&more, b"more");
}

#[test]
fn a_handshake_without_extras_is_answered_without_them() {
    let door = plain();
    let answer = door.request("GET /ws", &handshake());
    assert_eq!(answer.status, 101);
    assert!(!answer.head.contains("sec-websocket-protocol"));
    let upgraded = door.sessions.recv_timeout(PATIENCE).expect("handed over");
    assert_eq!((upgraded.read_buf.len(), upgraded.subscribe), (0, None));
}

#[test]
fn a_time_with_an_offset_may_stand_in_the_address_as_it_is() {
    // F12: as Python's `isoformat()` writes it, with its `+` escaped or not.
    let door = plain();
    for from in ["2026-05-28T20:26:40+00:00", "2026-05-28T20:26:40%2B00:00", "2026-05-28T13:26:40-07:00"] {
        let answer = door.request(&format!("GET /ws?symbols=*&mode=every&from={from}"), &handshake());
        assert_eq!(answer.status, 101, "{from}");
        let subscribe = door.sessions.recv_timeout(PATIENCE).expect("handed over").subscribe;
        let expected = Since::At(1_780_000_000_000_000_000);
        assert_eq!(subscribe.expect("a subscription").from, Some(expected), "{from}");
    }
    let answer = door.request("GET /ws?symbols=*&mode=every&from=2026-05-28T20:26:40+24:00", &handshake());
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("`from`: \"2026-05-28T20:26:40 24:00\": not a time"), "{}", answer.body);
}

#[test]
fn a_subprotocol_is_answered_only_as_it_was_offered() {
    let door = door(|_| {}, true);
    for (lines, is_answered) in [
        (&[][..], false),
        (&["tickfan.v1"], true),
        (&["other, tickfan.v1"], true),
        (&["tickfan.v1,other,third"], true),
        (&["other ,\t tickfan.v1 "], true),
        (&["other", "tickfan.v1"], true),
        (&["other, third", "fourth,tickfan.v1"], true),
        (&["Tickfan.V1, tickfan.v1"], true),
        (&["tickfan.v1, tickfan.v1"], true),
        // Whoever compares the answer with its offer, as browsers do, would give up.
        (&["TICKFAN.V1"], false),
        (&["Tickfan.v1"], false),
        (&["tickfan.v2"], false),
        (&["tickfan.v1.1", "atickfan.v1", "tickfan.v1 other"], false),
        (&["\"tickfan.v1\""], false),
        (&["", ","], false),
        (&["graphql-ws", "mqtt"], false),
        (&["\u{fc}"], false),
    ] {
        for path in ["/ws", "/publish"] {
            let lines: String =
                lines.iter().map(|line| format!("Sec-WebSocket-Protocol: {line}\r\n")).collect();
            let answer = door.request(&format!("GET {path}"), &handshake_but("", &lines));
            assert_eq!(answer.status, 101, "{path} {lines}");
            let answered: Vec<&str> =
                answer.head.lines().filter(|line| line.starts_with("sec-websocket-protocol")).collect();
            let expected: &[&str] = if is_answered { &["sec-websocket-protocol: tickfan.v1"] } else { &[] };
            assert_eq!(answered, expected, "{path} {lines}");
        }
    }
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let door = plain();
    for (path, name) in [
        ("/ws?symbols=*&mode=every&mode=latest", "`mode` is given twice"),
        ("/ws?symbols=*&mode=every&m%6Fde=every", "`mode` is given twice"),
        ("/ws?room=a&room=a", "`room` is given twice"),
        ("/ws?symbol=*", "\"symbol\" is no parameter"),
        ("/ws?symbols=*&depth=20", "\"depth\" is no parameter"),
        ("/ws?symbols=*&=", "\"\" is no parameter"),
        ("/ws?SYMBOLS=*", "\"SYMBOLS\" is no parameter"),
        ("/api/symbols?match=*&match=coinbase:*", "`match` is given twice"),
        ("/api/replays?after=a&after=b", "`after` is given twice"),
    ] {
        let answer = door.request(&format!("GET {path}"), &handshake());
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.error().contains(name), "{path}: {}", answer.body);
    }
    let answer = door.request("GET /ws?channel=quote&symbols=a:B&&channel=trade&symbols=c:D&", &handshake());
    assert_eq!(answer.status, 101, "{}", answer.body);
    let subscribe = door.sessions.recv_timeout(PATIENCE).expect("handed over").subscribe.expect("symbols");
    assert_eq!(
        (subscribe.symbols, subscribe.channels),
        (["a:B", "c:D"].map(Selector::parse).to_vec(), Channel::ALL.to_vec())
    );
    // Elsewhere a parameter more does no harm: it says nothing of what is asked for.
    assert_eq!(door.request("GET /api/symbols?_=1", "").status, 200);
}

#[test]
fn a_handshake_works_on_a_connection_that_asked_before() {
    let door = plain();
    let mut stream = door.connect();
    let first = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(first.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    let both = format!("{first}GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\nxyz", handshake());
    stream.write_all(both.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    assert_eq!(Answer::read(&mut stream).status, 101);
    assert_eq!(door.sessions.recv_timeout(PATIENCE).expect("handed over").read_buf, b"xyz");
}

#[test]
fn bad_handshakes_are_told_what_is_wrong() {
    let door = plain();
    for headers in [String::new(), handshake_but("Connection", ""), handshake_but("Upgrade", "")] {
        let answer = door.request("GET /ws", &headers);
        assert_eq!(answer.status, 426, "{headers}");
        assert!(answer.has("upgrade: websocket") && answer.has("connection: upgrade"), "{}", answer.head);
        assert!(answer.error().contains("Upgrade"));
    }
    for version in ["", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 8, 13\r\n"] {
        let answer = door.request("GET /ws", &handshake_but("Sec-WebSocket-Version", version));
        assert_eq!(answer.status, 426, "{version}");
        assert!(answer.has("sec-websocket-version: 13"));
    }
    let twice = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for (without, with) in [
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: short\r\n"),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("-", twice.as_str()),
    ] {
        let answer = door.request("GET /ws", &handshake_but(without, with));
        assert_eq!(answer.status, 400, "{with}");
        assert!(answer.error().contains("`Sec-WebSocket-Key`"));
    }
    let old = format!("GET /ws HTTP/1.0\r\nHost: localhost\r\n{}\r\n", handshake());
    assert_eq!(door.raw(old.as_bytes()).status, 426);
    let answer = door.request("GET /ws?channel=book", &handshake());
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("`channel`"));
    assert!(door.sessions.try_recv().is_err(), "nothing was handed over");
}

#[test]
fn no_room_for_a_session_is_said_before_or_after_the_101() {
    let door = plain();
    door.switches.refuse_after.store(true, Ordering::SeqCst);
    let mut stream = door.connect();
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake());
    stream.write_all(head.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 101);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("closed");
    assert_eq!(rest, b"\x88\x0a\x0f\xa1shutdown");

    door.switches.full.store(true, Ordering::SeqCst);
    let answer = door.request("GET /ws", &handshake());
    assert_eq!(answer.status, 503);
    assert!(answer.has("retry-after: 1"));
}

#[test]
fn publishing_needs_its_token() {
    let off = plain().request("GET /publish", &handshake());
    assert_eq!(off.status, 404);
    assert!(off.error().contains("publishing is off"));

    let door = door(|_| {}, true);
    let with = |header: &str| door.request("GET /publish", &handshake_but("", header));
    for wrong in ["Bearer wrong", "Bearer", "Basic secret", "secret"] {
        let answer = with(&format!("Authorization: {wrong}\r\n"));
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(answer.has("www-authenticate: bearer"));
    }
    assert_eq!(with("Authorization: bearer secret\r\n").status, 101);
    assert_eq!(with("").status, 101, "the token may come as the first message");
}
