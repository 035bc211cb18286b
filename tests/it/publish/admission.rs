//! Who may publish: the token, places, and strangers.

use super::*;

#[test]
fn without_the_token_nothing_is_taken() {
    let mut door = usual();
    let long = format!("{}\n", "x".repeat(10_000));
    for first in [
        "{\"op\":\"auth\",\"token\":\"Token-of-the-tests\"}\n",
        "{\"op\":\"auth\",\"token\":\"token-of-the-tests2\"}\n",
        "{\"op\":\"auth\",\"token\":\"\"}\n",
        "{\"op\":\"ping\",\"token\":\"token-of-the-tests\"}\n",
        "{\"type\":\"trade\"}\n",
        "GET / HTTP/1.1\r\n\r\n",
        &long,
    ] {
        let mut stream = door.tcp(first);
        let told = message(&line(&mut stream));
        assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("auth")), "{first:.40}");
        assert!(!told.to_string().contains(TOKEN), "{told}");
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    }
    assert!(door.input.try_recv().is_err());
    let stats = door.publish.stats();
    assert_eq!(stats.auth_refused.load(Ordering::SeqCst), 7);
    assert_eq!(stats.wrong_tokens.load(Ordering::SeqCst), 3);
}

#[test]
fn the_token_must_come_in_time() {
    let door = door(PublishOptions { auth_timeout_ms: 200, ..PublishOptions::default() }, CHUNKS_MAX);
    let mut stream = door.tcp(&AUTH[..10]);
    let told = message(&line(&mut stream));
    assert_eq!(told["code"], "auth");
    assert!(told["msg"].as_str().is_some_and(|msg| msg.contains("200 ms")), "{told}");
    let mut socket = door.ws(None).expect("upgraded");
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "auth");
    let close = socket.read().expect("closed");
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 4500), "{close:?}");
}

#[test]
fn an_empty_token_is_refused() {
    let (sender, _input) = mpsc::channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let (wake, home) = (Arc::default(), runtime.handle().clone());
    assert!(Publish::new("", PublishOptions::default(), Clock::real(), sender, wake, home).is_err());
}

#[test]
fn publishers_are_bounded() {
    let mut door = door(PublishOptions { publishers_max: 1, ..PublishOptions::default() }, CHUNKS_MAX);
    let mut first = door.tcp(AUTH);
    assert_eq!(line(&mut first), ACK);
    let (_, errors) = door.opened();
    let mut second = door.tcp(AUTH);
    assert_eq!(message(&line(&mut second))["code"], "limit");
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4502));
    assert_eq!(door.publish.stats().limit_refused.load(Ordering::SeqCst), 2);

    // The first one goes, and leaves its place to another.
    drop(errors);
    drop(first);
    assert_eq!(door.lines_to_the_end(), []);
    let admitted = (0..10_000).any(|_| line(&mut door.tcp(AUTH)) == ACK);
    assert!(admitted, "there is room again");
}

#[test]
fn strangers_keep_no_publisher_out() {
    const PUBLISHERS: u64 = 60;
    let mut door = door(PublishOptions { publishers_max: 100, ..PublishOptions::default() }, CHUNKS_MAX);
    // More than have places, on both listeners, and they stay as long as they may.
    let silent: Vec<_> = (0..70).map(|_| door.tcp("")).collect();
    let mute: Vec<_> = (0..70).map(|_| door.ws(None).expect("upgraded")).collect();
    let mut lines: Vec<_> = (0..PUBLISHERS / 3).map(|_| door.tcp(AUTH)).collect();
    for stream in &mut lines {
        assert_eq!(line(stream), ACK);
    }
    let mut sockets = Vec::new();
    for n in 0..PUBLISHERS * 2 / 3 {
        let in_head = n % 2 == 0;
        let mut socket = door.ws(in_head.then_some(BEARER)).expect("upgraded");
        if !in_head {
            socket.send(Message::text(AUTH.trim_end())).expect("sent");
            assert_eq!(socket.read().expect("an answer").to_text().expect("text"), ACK);
        }
        sockets.push(socket);
    }
    let admitted: Vec<_> = (0..PUBLISHERS).map(|_| door.opened()).collect();
    assert_eq!(admitted.len() as u64, PUBLISHERS);
    let stats = door.publish.stats();
    assert_eq!(stats.opened.load(Ordering::SeqCst), PUBLISHERS);
    assert_eq!(stats.limit_refused.load(Ordering::SeqCst), 0);
    crate::support::eventually("6 of each listener are evicted by others without a token", || {
        stats.evicted.load(Ordering::SeqCst) >= 12
    });
    drop((silent, mute));
}

#[test]
fn each_listener_has_places_of_its_own_for_strangers() {
    let options = PublishOptions {
        strangers_max: 3,
        strangers_per_address: 2,
        auth_timeout_ms: 600_000,
        ..PublishOptions::default()
    };
    let mut door = door(options, CHUNKS_MAX);
    // Each is there before the next comes.
    let waiting = |door: &Door, count| {
        let stats = door.publish.stats();
        crate::support::eventually("it waits", || stats.waiting.load(Ordering::SeqCst) == count);
    };
    let mut lines = [door.tcp(&AUTH[..9]), door.tcp(&AUTH[..9])];
    waiting(&door, 2);
    let mut first = door.ws(None).expect("upgraded");
    waiting(&door, 3);
    let _second = door.ws(None).expect("upgraded");
    waiting(&door, 4);
    let _third = door.ws(None).expect("upgraded");
    assert_eq!(closed(&mut first), ("limit".to_owned(), 4502), "the longest waiting is evicted");
    // Those of the other listener are still there.
    for stream in &mut lines {
        stream.get_mut().write_all(&AUTH.as_bytes()[9..]).expect("sent");
        assert_eq!(line(stream), ACK);
        drop(door.opened());
    }
    waiting(&door, 2);
    let mut longest = door.tcp("");
    waiting(&door, 3);
    let _second = door.tcp("");
    waiting(&door, 4);
    let _third = door.tcp("");
    assert_eq!(message(&line(&mut longest))["code"], "limit");
    assert_eq!(door.publish.stats().evicted.load(Ordering::SeqCst), 2);
}

#[test]
fn guesses_are_slowed_by_address() {
    let clock = Clock::manual();
    let options =
        PublishOptions { wrong_tokens_per_minute: 3, auth_timeout_ms: 600_000, ..PublishOptions::default() };
    let mut door = door_at(clock.clone(), options, CHUNKS_MAX);
    let mut before = door.tcp(AUTH);
    assert_eq!(line(&mut before), ACK);
    let _errors = door.opened();
    let wrong = "{\"op\":\"auth\",\"token\":\"another-of-16-letters\"}\n";
    let code = |first: &str| message(&line(&mut door.tcp(first)))["code"].as_str().map(str::to_owned);
    assert_eq!(code(wrong).as_deref(), Some("auth"));
    assert!(matches!(door.ws(Some("Bearer wrong")), Err(Error::Http(answer)) if answer.status() == 401));
    assert_eq!(code(wrong).as_deref(), Some("auth"));
    // The right one could be a guess as well.
    assert_eq!(code(AUTH).as_deref(), Some("try_again_later"));
    assert_eq!(code(wrong).as_deref(), Some("try_again_later"));
    let Err(Error::Http(answer)) = door.ws(Some(BEARER)) else { panic!("it is not compared") };
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"20".parse().expect("a value"))
    );
    let mut socket = door.ws(None).expect("upgraded");
    socket.send(Message::text(AUTH.trim_end())).expect("sent");
    assert_eq!(closed(&mut socket), ("try_again_later".to_owned(), 1013));
    let stats = door.publish.stats();
    assert_eq!(stats.wrong_tokens.load(Ordering::SeqCst), 3);
    assert_eq!(stats.tokens_unread.load(Ordering::SeqCst), 4);

    // Publishers that are connected are not affected, and wrong tokens are forgotten.
    before.get_mut().write_all(b"tick\n").expect("sent");
    assert_eq!(door.chunk().bytes, b"tick\n");
    clock.advance(Duration::from_secs(20));
    assert_eq!(line(&mut door.tcp(AUTH)), ACK);
}

#[test]
fn a_short_token_is_refused_at_the_start() {
    let setting = "publish.token=fifteen-letters";
    for args in [&["serve", "--set", setting][..], &["check", "--set", setting]] {
        let ended = run(args);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(
            ended.stderr.contains("publish.token: a token has at least 16 characters: this has 15"),
            "{ended:?}"
        );
    }
}
