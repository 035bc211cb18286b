//! What is replayed in rooms, each for itself.

use super::*;

fn key(tick: &Value) -> (String, String) {
    let text = |name: &str| tick[name].as_str().expect("text").to_owned();
    (text("symbol"), text("type"))
}

#[test]
fn clients_of_a_room_see_the_same_ticks_from_the_first_to_the_last() {
    let expected: Vec<Value> = normalized(CAPTURE).into_iter().map(timeless).collect();
    let gateway = gateway(&[]);
    let mut first = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&room=desk&speed=100"));
    order(&mut first, &json!({"do": "pause"}));
    let mut second = RawSocket::open(&gateway, "?room=desk");
    let mut third = RawSocket::open(&gateway, &format!("?room=desk&replay={CAPTURE}&speed=100"));
    assert_eq!(first.hello["feed"], "replay");
    assert_eq!(
        (&first.hello["epoch"], &first.hello["epoch"]),
        (&second.hello["epoch"], &third.hello["epoch"])
    );
    assert_ne!(first.hello["session"], second.hello["session"]);
    for client in [&mut first, &mut second, &mut third] {
        subscribe(client);
    }
    let row = &rooms(&gateway)[0];
    assert_eq!((&row["room"], &row["clients"], &row["published"]), (&"desk".into(), &3.into(), &0.into()));
    order(&mut third, &json!({"do": "resume"}));
    let count = expected.len();
    let readers = [first, second, third].map(|mut client| {
        std::thread::spawn(move || {
            let heard = ticks(&mut client, count);
            (client, heard)
        })
    });
    let mut clients = Vec::new();
    for reader in readers {
        let (client, heard) = reader.join().expect("it hears everything");
        clients.push(client);
        for (at, (heard, expected)) in heard.into_iter().map(timeless).zip(&expected).enumerate() {
            assert_eq!(heard, *expected, "tick {at}");
        }
    }
    // It stays at its end.
    let row = until(&gateway, 1, "ended");
    assert_eq!((&row["clients"], &row["state"]), (&3.into(), &"open".into()));
    gateway.stop();
}

#[test]
fn a_late_client_is_whole() {
    let gateway = gateway(&[]);
    let query = format!("?room=late&replay={CAPTURE}&speed=20&{EVERYTHING}");
    let mut early = RawSocket::open(&gateway, &query);
    let count = normalized(CAPTURE).len();
    let mut all = ticks(&mut early, 1_000);
    let mut late = Client::open(&gateway, &format!("?room=late&{EVERYTHING}"));
    all.extend(ticks(&mut early, count - 1_000));
    let last: BTreeMap<_, _> = all.iter().map(|tick| (key(tick), tick["seq"].as_u64())).collect();
    let told = |late: &Client, (symbol, channel): &(String, String)| {
        let channel = if channel == "trade" { "trade" } else { "quote" };
        late.told.get(&(symbol.clone(), channel)).copied()
    };
    while !last.iter().all(|(key, seq)| told(&late, key) == *seq) {
        assert!(late.step(), "it goes on to the end");
    }
    assert!(late.ledger.held(), "{:?}", late.ledger.breaks());
    assert_eq!(late.ledger.gaps().next().map(|(why, _)| why), None, "nothing is missing");
    // A wildcard's snapshots: what had come before is not told, but where it stands.
    let mut later = RawSocket::open(&gateway, &format!("?room=late&{EVERYTHING}"));
    let snaps = ticks(&mut later, last.len());
    let newest: BTreeMap<_, _> = all.iter().map(|tick| (key(tick), tick)).collect();
    for mut snap in snaps {
        assert_eq!(snap.as_object_mut().expect("an object").remove("snap"), Some(true.into()), "{snap}");
        assert_eq!(timeless(snap.clone()), timeless(newest[&key(&snap)].clone()));
    }
    gateway.stop();
}

#[test]
fn it_begins_and_ends_where_it_is_told_and_as_fast() {
    let all = normalized(CAPTURE);
    let gateway = gateway(&[]);
    // Written as it is, and as a form writes it.
    for (number, plus) in [(1, "+"), (2, "%2B")] {
        let query = format!("?replay={CAPTURE}&from={plus}30s&to={plus}40s&speed=0&{EVERYTHING}");
        let mut client = RawSocket::open(&gateway, &query);
        let row = until(&gateway, number, "ended");
        let (from, to) = (row["replay"]["from"].as_u64(), row["replay"]["to"].as_u64());
        let (from, to) = from.zip(to).expect("times");
        assert_eq!((to - from, &row["replay"]["speed"]), (10_000_000, &0.into()), "{row}");
        let inside = |tick: &&Value| tick["rx"].as_u64().is_some_and(|rx| (from..to).contains(&rx));
        let expected: Vec<_> = all.iter().filter(inside).cloned().collect();
        assert!(expected.len() > 1_000, "{}", expected.len());
        client.text(r#"{"op":"ping","id":"end"}"#);
        let mut heard = Vec::new();
        loop {
            let message = client.word();
            if message["id"] == "end" {
                break;
            }
            if is_tick(&message) && message.get("snap").is_none() {
                heard.push(message);
            }
        }
        // Its numbers are its own: there was one for what stood at the beginning.
        let unnumbered = |tick: Value| {
            let mut tick = timeless(tick);
            tick.as_object_mut().expect("an object").remove("seq");
            tick
        };
        let heard: Vec<_> = heard.into_iter().map(unnumbered).collect();
        assert_eq!(heard, expected.into_iter().map(unnumbered).collect::<Vec<_>>());
    }
    gateway.stop();
}

#[test]
fn several_captures_are_merged() {
    let gateway = gateway(&[]);
    let query = format!("?replay=coinbase.zst,binance-futures.zst&speed=100&{EVERYTHING}");
    let mut client = RawSocket::open(&gateway, &query);
    let ended = run(&["normalize", "feeds/coinbase.zst", "feeds/binance-futures.zst"]);
    let expected: Vec<Value> = ended.values().into_iter().filter(is_tick).map(timeless).collect();
    let heard: Vec<_> = ticks(&mut client, expected.len()).into_iter().map(timeless).collect();
    assert!(heard == expected, "the same ticks in the same order");
    assert_eq!(rooms(&gateway)[0]["captures"], json!(["coinbase.zst", "binance-futures.zst"]));
    gateway.stop();
}

#[test]
fn a_jump_in_a_room_shows_what_a_replay_from_the_start_would() {
    let gateway = gateway(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ticks.ndjson");
    let lines: Vec<String> = normalized(CAPTURE).iter().map(Value::to_string).collect();
    std::fs::write(&file, lines.join("\n") + "\n").expect("written");
    let url = format!("{}?replay={CAPTURE}&room=jumps&loop=true", gateway.ws);
    let args = ["seeks", &url, file.to_str().expect("UTF-8"), "7", "10"];
    let seen = python("replaying.py", &args).end();
    assert!(seen.status.success(), "{}", seen.stderr);
    assert_eq!(seen.values()[0]["jumps"], 12);
    gateway.stop();
}

#[test]
fn private_rooms_know_nothing_of_each_other_or_of_the_feed() {
    let gateway = gateway(&["replay.control_token=a-token-of-sixteen"]);
    let query = format!("?replay={CAPTURE}&loop=1&speed=5&{EVERYTHING}");
    let mut feed = RawSocket::open(&gateway, "");
    let mut one = RawSocket::open(&gateway, &query);
    let mut two = RawSocket::open(&gateway, &query);
    let epochs = [&feed, &one, &two].map(|client| client.hello["epoch"].as_str().expect("text").to_owned());
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2], "{epochs:?}");
    // The feed's token guards the feed's replay alone.
    let error = ask(&mut feed, &json!({"op": "replay", "id": 1, "do": "pause"}));
    assert_eq!(error["code"], "unauthorised");
    ticks(&mut one, 10);
    order(&mut one, &json!({"do": "pause"}));
    let published = |number| room(&gateway, number)["published"].as_u64().expect("a count");
    let paused = until(&gateway, 1, "paused")["published"].as_u64().expect("a count");
    let (other, feeds) = (published(2), gateway.metric_sum("tickfan_published_total"));
    eventually("the other room goes on", || published(2) > other + 200);
    eventually("the feed goes on", || gateway.metric_sum("tickfan_published_total") > feeds + 200);
    assert_eq!(published(1), paused);
    assert_eq!(room(&gateway, 2)["replay"]["state"], "playing");
    // And the other way round.
    let pause = r#"{"do":"pause"}"#;
    let head = format!("{POST}\r\nAuthorization: Bearer a-token-of-sixteen");
    let request =
        format!("POST /api/replay HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{pause}", pause.len());
    assert_eq!(Gateway::ask(gateway.http, &request).0, 200);
    eventually("the feed stands", || Gateway::get(gateway.http, "/api/replay").1.contains("\"paused\""));
    let other = published(2);
    eventually("the other room goes on", || published(2) > other + 200);
    // The symbols of a room are its captures'; those of the feed are not there.
    let symbols = ask(&mut two, &json!({"op": "symbols", "id": 2}));
    let listed = symbols["symbols"].as_array().expect("rows");
    assert!(
        !listed.is_empty()
            && listed
                .iter()
                .all(|row| { row["symbol"].as_str().is_some_and(|symbol| symbol.starts_with("coinbase:")) })
    );
    assert_eq!((gateway.sessions(), gateway.metric_sum("tickfan_room_clients")), (1, 2));
    // With its client a private room goes.
    drop(one);
    eventually("one room is left", || rooms(&gateway).len() == 1);
    assert_eq!(rooms(&gateway)[0]["number"], 2);
    // What is counted of it stays.
    assert_eq!(gateway.metric_sum("tickfan_room_clients_ended_total"), 1);
    assert_eq!(gateway.metric_sum("tickfan_sessions_ended_total"), 0);
    gateway.stop();
}
