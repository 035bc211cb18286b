//! The captures and the parameters that a room is asked for with.

use super::*;

#[cfg(unix)]
#[test]
fn a_name_is_looked_up_and_never_a_path() {
    let (outside, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let capture = in_repository("feeds").join(CAPTURE);
    let outside_file = outside.path().join("secret.zst");
    std::fs::copy(&capture, &outside_file).expect("copied");
    std::fs::copy(&capture, folder.path().join(CAPTURE)).expect("copied");
    std::fs::write(folder.path().join("notes.txt"), "no capture\n").expect("written");
    for (to, name) in [(outside_file.as_path(), "link.zst"), (outside.path(), "folder")] {
        std::os::unix::fs::symlink(to, folder.path().join(name)).expect("linked");
    }
    let gateway = gateway_of(folder.path().to_str().expect("UTF-8"), &[]);
    let (status, listed) = Gateway::get(gateway.http, "/api/replays");
    let bytes = std::fs::metadata(&capture).expect("there").len();
    assert_eq!((status, listed), (200, format!(r#"{{"replays":[{{"name":"{CAPTURE}","bytes":{bytes}}}]}}"#)));
    let long = "a".repeat(10_000);
    let absolute = outside_file.to_str().expect("UTF-8").to_owned();
    let escaped = absolute.replace('/', "%2f");
    let up = format!("../{}/secret.zst", outside.path().file_name().expect("a name").to_string_lossy());
    let names = [
        "../x",
        "..%2fx",
        "%2e%2e%2fx",
        "..%5cx",
        &up,
        &absolute,
        &escaped,
        "%00",
        "coinbase.zst%00",
        "coinbase.zst%00.txt",
        "coinbase.zst/",
        "./coinbase.zst",
        "COINBASE.ZST",
        "coinbase.zst%20",
        "coinbase",
        "notes.txt",
        "link.zst",
        "folder",
        "folder/secret.zst",
        ".",
        "..",
        "*",
        "%ff%fe",
        "%0d%0aX-Evil:1",
        "%1b[31m",
        &long,
    ];
    for name in names {
        let (status, said) = refused(&gateway, format!("symbols=*&replay={name}").as_bytes());
        assert_eq!(status, 404, "{name}: {said}");
        assert!(said.starts_with("`replay`: no capture has the name \""), "{name}: {said}");
        assert!(said.len() < 300 && !said.chars().any(char::is_control), "{name}: {said}");
    }
    for name in ["", ",", "coinbase.zst,", "coinbase.zst,coinbase.zst"] {
        assert_refused(&gateway, &format!("replay={name}"), 400, "`replay`");
    }
    for (status, query) in [(400, &b"replay=a\0b"[..]), (400, b"replay=\xff\xfe"), (431, &[b'a'; 40_000])] {
        assert_eq!(refused(&gateway, query).0, status, "{:?}", query.get(..20));
    }
    assert_eq!(gateway.metric_sum("tickfan_rooms_opened_total"), 0);
    assert_eq!((gateway.metric_sum("tickfan_rooms"), rooms(&gateway).len()), (0, 0));
    let unknown = gateway.metric("tickfan_rooms_refused_total");
    let unknown = unknown.iter().find(|(labels, _)| labels == r#"{reason="unknown"}"#).expect("a row").1;
    assert_eq!(unknown, names.len() as u64);
    // After all that, what is there is there.
    let mut client = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&{EVERYTHING}"));
    ticks(&mut client, 10);
    gateway.stop();
}

#[test]
fn who_asks_for_what_is_not_in_the_captures_is_told_what_is() {
    let gateway = gateway(&[]);
    for (from, at) in
        [("%2B999s", "2024-05-01T12:16:39."), ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000000Z")]
    {
        let query = format!("replay={CAPTURE}&from={from}&{EVERYTHING}");
        // A room opens without knowing the end if the captures are not read to it in 2 s.
        let answers = std::iter::repeat_with(|| refused(&gateway, query.as_bytes()));
        let (status, said) = answers.take(100).find(|(status, _)| *status != 101).expect("the end is found");
        assert_eq!(status, 400, "{said}");
        for word in
            [&format!("`from`: {at}"), " begins at 2024-05-01T12:00:00.", " and ends at 2024-05-01T12:01:1"]
        {
            assert!(said.contains(word), "{query}: {said}");
        }
    }
    for (from, at) in
        [("-5s", "2024-05-01T11:59:55."), ("2024-05-01T11:00:00Z", "2024-05-01T11:00:00.000000Z")]
    {
        let query = format!("replay={CAPTURE}&from={from}&{EVERYTHING}");
        assert_refused(&gateway, &query, 400, &format!("`from`: {at}"));
        assert_refused(&gateway, &query, 400, " begins at 2024-05-01T12:00:00.");
    }
    eventually("no room stays", || rooms(&gateway).is_empty());
    // A room that is there has its own ends.
    let mut client = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&from=%2B10s&to=%2B20s"));
    for to in ["+5s", "+21s"] {
        client.text(&json!({"op": "replay", "id": to, "do": "seek", "to": to}).to_string());
        let answer = client.answer();
        assert_eq!((&answer["code"], &answer["id"]), (&"out_of_span".into(), &to.into()), "{answer}");
    }
    client.text(&json!({"op": "replay", "id": 1, "do": "seek", "to": "+20s"}).to_string());
    assert_eq!(client.answer()["type"], "ack");
    // At its first record, it begins there.
    drop(RawSocket::open(&gateway, &format!("?replay={CAPTURE}&from=-0s&{EVERYTHING}")));
    gateway.stop();
}

#[test]
fn a_room_that_is_to_end_behind_its_captures_ends_with_them() {
    let gateway = gateway(&[]);
    let mut client = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&to=%2B10m"));
    let number = rooms(&gateway)[0]["number"].as_u64().expect("a number");
    let span_us = || {
        let replay = room(&gateway, number)["replay"].take();
        replay["to"].as_u64().zip(replay["from"].as_u64()).map(|(to, from)| to - from)
    };
    eventually("the end is known", || span_us().is_some_and(|us| us < 80_000_000));
    client.text(&json!({"op": "replay", "id": 1, "do": "seek", "to": "+5m"}).to_string());
    let answer = client.answer();
    assert_eq!(answer["code"], "out_of_span", "{answer}");
    assert!(
        answer["msg"].as_str().is_some_and(|msg| msg.contains(" and ends at 2024-05-01T12:01:1")),
        "{answer}"
    );
    gateway.stop();
}

#[test]
fn wrong_parameters_are_named() {
    let gateway = gateway(&["replay.room_captures_max=2"]);
    for (query, word) in [
        ("speed=fast", "`speed`"),
        ("speed=-1", "`speed`"),
        ("speed=1001", "`speed`"),
        ("speed=inf", "`speed`"),
        ("from=noon", "`from`"),
        ("to=%00", "`to`"),
        ("from=99999999999999999999", "`from`"),
        ("from=%2B2m&to=%2B1m", "`to` is not behind `from`"),
        ("loop=maybe", "`loop`"),
        ("max_idle=5", "`max_idle`"),
        ("room=", "`room`"),
        ("room=..%2fx", "`room`"),
        ("replay=kraken.zst", "`replay` is given twice"),
        ("speed=1&speed=1", "`speed` is given twice"),
        ("sped=1", "\"sped\" is no parameter"),
        ("max_hz=0&symbols=*", "`max_hz`"),
    ] {
        assert_refused(&gateway, &format!("replay={CAPTURE}&{query}"), 400, word);
    }
    let three = "replay=coinbase.zst,kraken.zst,binance-futures.zst";
    assert_refused(&gateway, three, 400, "`replay` names more than 2");
    assert_refused(&gateway, "room=nobody", 404, "`room`");
    all_are_gone(&gateway);
    // Without either of the two they are none of ours, as before.
    RawSocket::open(&gateway, "?speed=fast&to=noon");
    gateway.stop();
}

#[test]
fn where_there_are_no_rooms_that_is_said() {
    let gateway = Gateway::start(&["replay", "--loop", FEED]);
    assert_refused(&gateway, &format!("replay={CAPTURE}"), 404, "`[replay] dir`");
    assert_refused(&gateway, "room=desk", 404, "`[replay] dir`");
    assert_eq!(Gateway::get(gateway.http, "/api/replays").0, 404);
    assert_eq!(rooms(&gateway), Vec::<Value>::new());
    gateway.stop();
    let wrong = run(&["replay", "--set", "replay.dir=no/such/folder", FEED]);
    assert_eq!(wrong.code(), Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("replay.dir: no/such/folder cannot be read"), "{}", wrong.stderr);
}
