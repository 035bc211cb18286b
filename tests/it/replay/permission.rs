//! Who may give orders, and what becomes of those that make no sense.

use super::*;

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let gateway = replay(&["--set", "replay.control_token=a-token-of-sixteen", "--loop"], &SHIPPED);
    let mut client = RawSocket::open(&gateway, "");
    for (token, code) in
        [(Value::Null, "unauthorised"), ("wrong".into(), "unauthorised"), (1.into(), "bad_request")]
    {
        let error = ask(&mut client, &json!({"op": "replay", "id": 1, "do": "pause", "token": token}));
        assert_eq!(
            (&error["type"], &error["id"], &error["code"]),
            (&"error".into(), &1.into(), &code.into())
        );
    }
    let pause = r#"{"do":"pause","id":"p"}"#;
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some(""), 401)] {
        let (found, error) = post(gateway.http, pause, token);
        assert_eq!((found, &error["code"]), (status, &"unauthorised".into()), "{error}");
    }
    assert_eq!(shown(&gateway)["state"], "playing", "whoever asks may look");
    let ack = json!({"type": "ack", "id": "p", "op": "replay"});
    assert_eq!(post(gateway.http, pause, Some("a-token-of-sixteen")), (200, ack));
    until(&gateway, "paused");
    let ack =
        ask(&mut client, &json!({"op": "replay", "id": 2, "do": "resume", "token": "a-token-of-sixteen"}));
    assert_eq!(ack, json!({"type": "ack", "id": 2, "op": "replay"}));
    until(&gateway, "playing");
    gateway.stop();
}

#[test]
fn what_is_no_replay_cannot_be_controlled() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("two.toml");
    let feed = |file: &str| format!("[[feed]]\nkind = \"replay\"\nfiles = [{:?}]\n", in_repository(file));
    std::fs::write(&config, feed(SHIPPED[0]) + &feed(SHIPPED[1])).expect("written");
    let two = Gateway::start(&["serve", "--config", config.to_str().expect("UTF-8")]);
    for gateway in [Gateway::publishing(r#"["demo"]"#, &[]), two] {
        let mut client = RawSocket::open(&gateway, "");
        let error = ask(&mut client, &json!({"op": "replay", "id": 1, "do": "pause"}));
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"not_a_replay".into()), "{error}");
        assert_eq!(Gateway::get(gateway.http, "/api/replay").0, 404);
        let (status, error) = order(&gateway, &json!({"do": "pause"}));
        assert_eq!((status, &error["code"]), (404, &"not_a_replay".into()));
        gateway.stop();
    }
}

#[test]
fn hostile_orders_are_answered() {
    let gateway =
        replay(&["--loop", "--set", "limits.ops_per_s=1000000", "--set", "replay.commands_max=4"], &SHIPPED);
    let mut client = RawSocket::open(&gateway, "");
    let deep = "[".repeat(100) + &"]".repeat(100);
    for fields in [
        "",
        r#""do":null"#,
        r#""do":"rewind""#,
        r#""do":"seek""#,
        r#""do":"seek","to":-5"#,
        r#""do":"seek","to":1e300"#,
        r#""do":"seek","to":"""#,
        r#""do":"seek","to":"+99999999999999999999s""#,
        r#""do":"speed","speed":"fast""#,
        r#""do":"speed","speed":1e-9"#,
        r#""do":"speed","speed":1e9"#,
        r#""do":"step","ticks":-1"#,
        r#""do":"step","ticks":4294967297"#,
        r#""do":"loop","on":"yes""#,
        &format!(r#""do":"seek","to":{deep}"#),
    ] {
        let comma = if fields.is_empty() { "" } else { "," };
        client.text(&format!("{{\"op\":\"replay\",\"id\":7{comma}{fields}}}"));
        let error = client.word();
        assert_eq!((&error["code"], &error["id"]), (&"bad_request".into(), &7.into()), "{fields}: {error}");
        let (status, error) = post(gateway.http, &format!("{{{fields}}}"), None);
        assert_eq!((status, &error["code"]), (400, &"bad_request".into()), "{fields}: {error}");
    }
    for body in ["", "{", "[]", "null", "\u{0}"] {
        assert_eq!(post(gateway.http, body, None).0, 400, "{body:?}");
    }
    let long = format!(r#"{{"do":"pause","x":"{}"}}"#, "x".repeat(2_000));
    assert_eq!(post(gateway.http, &long, None).0, 413);
    let (status, _) = Gateway::ask(
        gateway.http,
        "DELETE /api/replay HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status, 405);
    let body = r#"{"do":"stop"}"#;
    let stop = |head: &str| {
        let head = format!("POST /api/replay HTTP/1.1\r\nConnection: close\r\n{head}");
        let (status, answer) =
            Gateway::ask(gateway.http, &format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        (status, answer["error"].as_str().expect("a sentence").to_owned())
    };
    let json = "Content-Type: application/json";
    let local = "Host: localhost";
    for origin in ["https://evil.example", "null", "http://evil.example:8080"] {
        let (status, error) = stop(&format!("{local}\r\n{json}\r\nOrigin: {origin}"));
        assert!(status == 403 && error.contains("`Origin`"), "{origin}: {status} {error}");
    }
    // Under the name of a page that its owner has pointed here.
    let (status, error) = stop(&format!("Host: evil.example\r\n{json}\r\nOrigin: http://evil.example"));
    assert!(status == 421 && error.contains("\"evil.example\""), "{status} {error}");
    // What a form of a page, or a script that does not ask first, may send.
    for kind in [
        "",
        "\r\nContent-Type: text/plain",
        "\r\nContent-Type: application/x-www-form-urlencoded",
        "\r\nContent-Type: multipart/form-data",
        "\r\nContent-Type: text/plain; application/json",
        "\r\nContent-Type: application/jsonp",
        "\r\nContent-Type:",
        "\r\nContent-Type: application/json\r\nContent-Type: application/json",
    ] {
        let (status, error) = stop(&format!("{local}{kind}"));
        assert!(status == 415 && error.contains("`Content-Type`"), "{kind}: {status} {error}");
    }
    assert_ne!(shown(&gateway)["state"], "ended");
    for kind in ["Application/JSON", "application/json; charset=utf-8", "application/json ;charset=\"utf-8\""]
    {
        let pause = r#"{"do":"pause"}"#;
        let head = format!("{local}\r\nConnection: close\r\nContent-Type: {kind}");
        let request =
            format!("POST /api/replay HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{pause}", pause.len());
        assert_eq!(Gateway::ask(gateway.http, &request).0, 200, "{kind}");
    }
    // So many at once that there may be no room; each is answered, and the last ones count.
    for n in 0..2_000 {
        client
            .text(&json!({"op": "replay", "id": n, "do": "seek", "to": format!("+{}s", n % 75)}).to_string());
    }
    for n in 0..2_000 {
        let answer = client.word();
        assert_eq!(answer["id"], n);
        assert!(answer["type"] == "ack" || answer["code"] == "rate_limited", "{answer}");
    }
    // The last of them may still wait.
    eventually("there is room again", || order(&gateway, &json!({"do": "pause"})).0 == 200);
    until(&gateway, "paused");
    gateway.stop();
}
