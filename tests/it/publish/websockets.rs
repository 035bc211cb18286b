//! Publishing over WebSockets.

use super::*;

#[test]
fn a_websocket_publishes_with_the_token_in_its_head() {
    let mut door = usual();
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    let (_, errors) = door.opened();
    socket.send(Message::text("a\nb")).expect("sent");
    socket.send(Message::text("")).expect("sent");
    socket.send(Message::text("c\n")).expect("sent");
    let big: String = (4..20_004).map(|n| format!("line {n}\n")).collect();
    socket.send(Message::text(big + &"x".repeat(70_000) + "\nlast")).expect("sent");
    // It is not read beyond what is on its way.
    let mut lines = Vec::new();
    while lines.len() < 20_003 {
        let chunk = door.chunk();
        let text = String::from_utf8(chunk.bytes).expect("utf-8");
        lines.extend((chunk.first_line..).zip(text.lines().map(str::to_owned)));
    }
    let told = message(socket.read().expect("told").to_text().expect("text"));
    assert_eq!((&told["line"], &told["code"]), (&json!(20_004), &json!("bad_tick")));
    errors.tell(LineFault { line: 2, msg: "no".into() });
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["line"], 2);
    drop(errors);
    socket.close(None).expect("closing");
    lines.extend(door.lines_to_the_end());
    assert_eq!(numbered(&lines[..3]), [(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(numbered(&lines[3..4]), [(4, "line 4")]);
    assert_eq!(numbered(&lines[20_002..]), [(20_003, "line 20003"), (20_005, "last")]);
    // The gateway answers the close.
    while socket.read().is_ok() {}
}

#[test]
fn a_websocket_publishes_with_the_token_as_its_first_message() {
    let mut door = usual();
    let mut socket = door.ws(None).expect("upgraded");
    socket.send(Message::text(AUTH.trim_end())).expect("sent");
    socket.send(Message::text("tick")).expect("sent");
    assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
    let (publisher, _errors) = door.opened();
    let chunk = door.chunk();
    assert_eq!((chunk.publisher, chunk.first_line, &chunk.bytes[..]), (publisher, 2, &b"tick\n"[..]));

    let mut wrong = door.ws(None).expect("upgraded");
    wrong.send(Message::text(r#"{"op":"auth","token":"x"}"#)).expect("sent");
    assert_eq!(message(wrong.read().expect("told").to_text().expect("text"))["code"], "auth");
    assert!(matches!(wrong.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4500));
    assert!(matches!(door.ws(Some("Bearer x")), Err(Error::Http(answer)) if answer.status() == 401));
}

#[test]
fn a_binary_message_ends_a_websocket_but_keeps_what_came_before() {
    let mut door = usual();
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    socket.write(Message::text("a")).expect("queued");
    socket.write(Message::binary(vec![1])).expect("queued");
    socket.flush().expect("sent");
    drop(door.opened());
    assert_eq!(numbered(&door.lines_to_the_end()), [(1, "a")]);
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "text_only");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 1003));
}

/// Frames whose mask is 0, many times over.
fn frames(first: u8, len: usize, times: usize) -> Vec<u8> {
    let frame = [header(first, len, true), vec![0; 4], vec![b' '; len]].concat();
    frame.repeat(times)
}

#[test]
fn what_a_websocket_sends_is_bounded_with_the_token_and_without() {
    let mut door = usual();
    // A message of many parts; its first.
    let parts = [frames(TEXT, 1, 1), frames(0, 1, 200)].concat();
    let pings = frames(FIN | 9, 0, 200);
    let pongs = frames(FIN | PONG, 0, 8_000);
    for (bytes, word, code) in [
        (&pongs, "limit", 4502),
        (&pings, "limit", 4502),
        (&parts, "limit", 4502),
        (&frames(FIN | TEXT, 1_025, 1), "message_too_big", 1009),
        (&frames(TEXT, 600, 2), "protocol_error", 1002),
        (&[frames(TEXT, 600, 1), frames(0, 600, 1)].concat(), "message_too_big", 1009),
        (&frames(FIN | 2, 1, 1), "text_only", 1003),
        (&frames(FIN | TEXT, 0, 1), "auth", 4500),
        // Unmasked.
        (&vec![FIN | TEXT, 1, b'x'], "protocol_error", 1002),
    ] {
        let mut socket = door.ws(None).expect("upgraded");
        socket.get_mut().write_all(bytes).expect("sent");
        assert_eq!(closed(&mut socket), (word.to_owned(), code), "{:?}", &bytes[..20.min(bytes.len())]);
    }
    assert!(door.input.try_recv().is_err(), "nothing of it comes to the ingest thread");
    assert_eq!(door.publish.stats().auth_refused.load(Ordering::SeqCst), 9);

    for (bytes, word, code) in [
        (&pongs, "limit", 4502),
        (&parts, "limit", 4502),
        // The head of a message that is a byte too long.
        (&header(FIN | TEXT, 1_048_577, true), "message_too_big", 1009),
    ] {
        for in_head in [true, false] {
            let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
            if !in_head {
                socket.send(Message::text(AUTH.trim_end())).expect("sent");
                assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
            }
            let _errors = door.opened();
            socket.get_mut().write_all(&frames(FIN | TEXT, 60_000, 2)).expect("sent");
            assert_eq!(door.chunk().bytes.len(), 60_001, "as long as a publisher may");
            assert_eq!(door.chunk().bytes.len(), 60_001);
            // Behind the head comes the mask that it announces.
            socket.get_mut().write_all(&[&bytes[..], &[0; 4]].concat()).expect("sent");
            assert_eq!(closed(&mut socket), (word.to_owned(), code));
            assert!(matches!(door.next(), PublishInput::Closed { .. }));
        }
    }
}

#[test]
fn pings_of_publishers_are_answered_and_a_close_is_too() {
    let mut door = usual();
    for in_head in [true, false] {
        let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
        socket.send(Message::Ping(vec![7; 9].into())).expect("sent");
        assert_eq!(socket.read().expect("answered"), Message::Pong(vec![7; 9].into()));
        if !in_head {
            socket.send(Message::text(AUTH.trim_end())).expect("sent");
            assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
        }
        drop(door.opened());
        socket.close(None).expect("closing");
        assert!(matches!(socket.read(), Ok(Message::Close(None))), "the close is answered, and nothing else");
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)));
        assert_eq!(door.lines_to_the_end(), []);
    }
}
