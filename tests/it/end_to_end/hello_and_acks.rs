//! What is shipped, requests and their answers, and `tickfan watch`.

use super::*;

#[test]
fn a_bare_websocket_hears_three_venues_of_the_shipped_configuration() {
    let gateway = Gateway::start(&["serve"]);
    let heard = python("shipped.py", &[&gateway.ws, "20"]).end().values();
    assert!(number(&heard[0], "snaps") + number(&heard[0], "trades") > 0, "{heard:?}");
    assert_eq!(missing(&heard[0]), 0, "{heard:?}");
    assert_eq!(gateway.readyz(), 200);
    stopped_quietly(gateway);
}

#[test]
fn every_request_in_its_forms() {
    let settings = ["limits.ops_per_s=100000", "shard.threads=1"];
    let gateway = Gateway::publishing(r#"["demo", "other"]"#, &settings);
    let publish = gateway.publish.expect("it listens").to_string();
    let scenes = python("conversation.py", &[&gateway.ws, &publish]).end();
    assert!(scenes.status.success(), "after {:?}: {}", scenes.lines, scenes.stderr);
    assert_eq!(scenes.lines.len(), 8);
    stopped_quietly(gateway);
}

#[test]
fn limits_are_kept_and_said() {
    let settings = ["limits.ops_per_s=2", "limits.symbols_per_connection=3", "limits.connections_max=1"];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let limits = python("limits.py", &[&gateway.ws]).end();
    assert!(limits.status.success(), "{}", limits.stderr);
    stopped_quietly(gateway);
}

#[test]
fn a_client_whose_answers_pile_up_is_read_again_once_it_reads() {
    // A heartbeat would be an event, and hide that there is none.
    let settings = [
        "limits.ops_per_s=1000000",
        "session.outbox_bytes_max=4096",
        "session.control_bytes_max=4096",
        "session.heartbeat_ms=3600000",
        // Nor is it told how far behind it is, unless it is so slow that its outbox is half full.
        "session.warn_behind_ms=600000",
        "session.shed_behind_ms=600000",
    ];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut publisher = connect(gateway.publish.expect("it listens"));
    let mut lines = format!("{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}\n");
    for n in 0..1_000 {
        lines += &format!("{{\"type\":\"trade\",\"symbol\":\"demo:S{n}\",\"price\":\"1\",\"size\":\"1\"}}\n");
    }
    publisher.write_all(lines.as_bytes()).expect("sent");
    eventually("1,000 instruments", || gateway.metric_sum("tickfan_instruments") == 1_000);

    // Each answer names all of them and is far over what may wait for a client.
    const ASKED: u64 = 300;
    let mut client = RawSocket::open(&gateway, "");
    let mut asking = client.sender();
    let asker = std::thread::spawn(move || {
        for id in 0..ASKED {
            asking.text(&json!({"op": "symbols", "id": id}).to_string());
        }
    });
    for id in 0..ASKED {
        let answer = std::iter::repeat_with(|| client.message()).find(|message| message["type"] != "lag");
        let answer = answer.expect("without an end");
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["symbols"].as_array().map(Vec::len), Some(1_000));
    }
    asker.join().expect("all was sent");
    stopped_quietly(gateway);
}

#[test]
fn watch_succeeds_on_a_whole_stream_and_fails_without_one() {
    let capture = Capture::generate("kraken", "XBT/USD,ETH/USD", 20, 100);
    let replay = ["replay", "--speed", "10", "--wait-subscribers", "1", "--exit", capture.path()];
    let gateway = Gateway::start(&replay);
    let ended = run(&["watch", "--url", &gateway.ws, "*"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(gateway.process.end().code(), Some(0));

    let gateway = Gateway::start(&[&["replay", "--speed", "5", "--loop"][..], &SHIPPED].concat());
    let ended = run(&["watch", "--url", &gateway.ws, "--json", "--for", "500ms", "kraken:*"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.values().iter().all(|m| m["symbol"].as_str().is_some_and(|s| s.starts_with("kraken:"))));
    let refused = run(&["watch", "--url", &gateway.ws, "--for", "10s", "nowhere:X"]);
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    stopped_quietly(gateway);

    // Of a venue that is served, but nobody speaks of it.
    let gateway = Gateway::publishing(r#"["demo"]"#, &[]);
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:XYZ"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    for says in ["waiting for demo:XYZ: the gateway has seen nothing of it yet\n", "never came: demo:XYZ\n"] {
        assert!(ended.stderr.contains(says), "{says}: {ended:?}");
    }
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:*"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with("never came: demo:* (no symbol under it)\n"), "{ended:?}");
    let ended = run(&["watch", "--url", &gateway.ws, "--for", "200ms", "demo:*", "nosuch:X"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.ends_with(", nosuch:X (rejected for trade, quote)\n"), "{ended:?}");
    // The gateway goes before the time is over.
    let mut watch = Process::start(&mut tickfan(&["watch", "--url", &gateway.ws, "--for", "10m", "demo:*"]));
    watch.line();
    stopped_quietly(gateway);
    let ended = watch.end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("tickfan watch: the connection ended after "), "{ended:?}");
    assert!(last.contains(" of 600.0 s: closed with 4001: shutdown (the gateway stops"), "{ended:?}");

    // Bound but not listening: nobody else can take it, and it refuses.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    deaf.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
    let address = deaf.local_addr().expect("bound").as_socket().expect("ip");
    let ended = run(&["watch", "--url", &format!("ws://{address}/ws"), "--for", "10s", "*"]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
}
