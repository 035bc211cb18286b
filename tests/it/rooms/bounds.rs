//! How many rooms there may be, and when they end.

use super::*;

fn refused_for(gateway: &Gateway, reason: &str) -> u64 {
    let rows = gateway.metric("tickfan_rooms_refused_total");
    rows.iter().find(|(labels, _)| labels.contains(&format!("\"{reason}\""))).expect("a row").1
}

#[test]
fn every_bound_is_told() {
    let open = |query: &str| format!("replay={CAPTURE}{query}");
    let few = gateway(&["replay.rooms_max=2", "replay.room_clients_max=2", "limits.connections_max=100"]);
    let first = RawSocket::open(&few, &format!("?{}", open("&room=a&speed=2")));
    let second = RawSocket::open(&few, "?room=a");
    assert_refused(&few, "room=a", 503, "`room`: 2 clients");
    let other = RawSocket::open(&few, &format!("?{}", open("")));
    assert_refused(&few, &open(""), 503, "too many rooms");
    // The same name with other terms is another room.
    for (query, parameter) in [
        ("replay=kraken.zst", "replay"),
        ("speed=3", "speed"),
        ("from=%2B1s", "from"),
        ("to=%2B9s", "to"),
        ("loop=true", "loop"),
        ("max_idle=1s", "max_idle"),
    ] {
        assert_refused(&few, &format!("room=a&{query}"), 409, &format!("`{parameter}`"));
    }
    let counts = ["full", "taken", "address", "unknown", "bad"].map(|reason| refused_for(&few, reason));
    assert_eq!(counts, [2, 6, 0, 0, 0]);
    // A place that is given up is free, and so is a room.
    drop(second);
    eventually("a place is free", || room(&few, 1)["clients"] == 1);
    let second = RawSocket::open(&few, &format!("?{}", open("&room=a&speed=2")));
    drop(other);
    eventually("a room has gone", || few.metric_sum("tickfan_rooms") == 1);
    let other = RawSocket::open(&few, &format!("?{}", open("")));
    assert_eq!(few.metric_sum("tickfan_rooms_opened_total"), 3);
    drop((first, second, other));
    few.stop();

    let one_each = gateway(&["replay.rooms_per_address=1", "limits.connections_max=3"]);
    let _first = RawSocket::open(&one_each, &format!("?{}", open("&room=a")));
    assert_refused(&one_each, &open(""), 429, "your address");
    let _second = RawSocket::open(&one_each, "?room=a");
    let _third = RawSocket::open(&one_each, "");
    // Whoever is in a room is a connection as every other.
    assert_eq!(RawSocket::status_of_handshake(&one_each), 503);
    assert_eq!(refused_for(&one_each, "address"), 1);
    one_each.stop();
}

/// The threads of a gateway, each with how far it steps back for others, and how many files it has open. Those that wait for a
/// while for more work of the blocking kind are left out.
fn holds(gateway: &Gateway) -> (Vec<(String, String)>, usize) {
    let inside = |what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{}/{what}", gateway.process.id()));
        entries.expect("it runs").map(|entry| entry.expect("an entry").path())
    };
    // One that ends just now has no name any more. Behind the name, the nice value is the 17th field (proc_pid_stat(5)).
    let stats = inside("task").filter_map(|task| std::fs::read_to_string(task.join("stat")).ok());
    let thread = |stat: String| {
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        Some((name.to_owned(), fields.split(' ').nth(16)?.to_owned()))
    };
    let mut threads: Vec<_> = stats.filter_map(thread).collect();
    threads.retain(|(name, _)| !name.starts_with("tokio-r"));
    threads.sort();
    (threads, inside("fd").count())
}

#[cfg(target_os = "linux")]
#[test]
fn a_room_without_clients_ends_and_leaves_nothing() {
    let gateway = gateway(&["replay.room_idle_s=1"]);
    eventually("the feed's captures are known", || {
        !holds(&gateway).0.iter().any(|(name, _)| name == "replay-pass")
    });
    let before = holds(&gateway);
    for round in 1..=3 {
        let query = format!("?replay={CAPTURE},kraken.zst&room=idle&{EVERYTHING}");
        let mut one = RawSocket::open(&gateway, &query);
        let two = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&from=%2B10s&{EVERYTHING}"));
        ticks(&mut one, 100);
        // Those of the feed go first.
        let own = [2 * round - 1, 2 * round].into_iter().flat_map(|room| {
            ["ingest", "shard-0"].map(|thread| (format!("room{room}-{thread}"), "10".to_owned()))
        });
        let feeds = ["ingest", "shard-0"].map(|thread| (thread.to_owned(), "0".to_owned()));
        let wanted: Vec<_> = own.chain(feeds).collect();
        // A new thread gives itself its name.
        eventually("the threads of two rooms and of the feed", || {
            let (threads, _) = holds(&gateway);
            wanted.iter().all(|wanted| threads.contains(wanted))
        });
        drop((one, two));
        all_are_gone(&gateway);
        eventually("nothing is left", || {
            let (threads, files) = holds(&gateway);
            threads == before.0 && files <= before.1
        });
        assert_eq!(gateway.metric_sum("tickfan_rooms_opened_total"), 2 * round);
    }
    gateway.stop();
}

#[test]
fn who_comes_back_in_time_finds_the_room_and_goes_on() {
    let gateway = gateway(&["replay.room_idle_s=3600"]);
    let query = format!("?replay={CAPTURE}&room=back&speed=20");
    let mut client = RawSocket::open(&gateway, &format!("{query}&{EVERYTHING}"));
    let last = ticks(&mut client, 500).into_iter().rfind(|tick| tick["type"] == "trade");
    let last = last.expect("a trade");
    let (symbol, seq) = (last["symbol"].as_str().expect("text"), last["seq"].as_u64().expect("a number"));
    let epoch = client.hello["epoch"].clone();
    drop(client);
    eventually("it is empty", || room(&gateway, 1)["clients"] == 0);
    until(&gateway, 1, "ended");
    let mut back = RawSocket::open(&gateway, &query);
    assert_eq!(back.hello["epoch"], epoch);
    let resume = json!({"epoch": epoch, "seq": {symbol: seq}});
    let request =
        json!({"op": "subscribe", "id": 1, "channel": "trade", "symbols": [symbol], "resume": resume});
    let ack = ask(&mut back, &request);
    assert_eq!(ack["ok"][0]["resumed"], "ok", "{ack}");
    let expected: Vec<Value> = normalized(CAPTURE)
        .into_iter()
        .filter(|tick| {
            tick["type"] == "trade" && tick["symbol"] == symbol && tick["seq"].as_u64() > Some(seq)
        })
        .map(timeless)
        .collect();
    let heard: Vec<Value> = ticks(&mut back, expected.len()).into_iter().map(timeless).collect();
    assert_eq!(heard, expected);
    gateway.stop();
}

/// Reads to the goodbye: its code and that of the close frame.
fn goodbye(client: &mut RawSocket) -> (u64, u16, Value) {
    loop {
        let message = client.word();
        if message["type"] == "bye" {
            return (message["code"].as_u64().expect("a code"), client.close_frame(), message);
        }
    }
}

#[test]
fn a_room_that_is_told_to_stop_says_goodbye_to_all() {
    let gateway = gateway(&[]);
    let mut one = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&room=stop&{EVERYTHING}"));
    let mut two = RawSocket::open(&gateway, "?room=stop");
    let mut other = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&{EVERYTHING}"));
    ticks(&mut one, 10);
    order(&mut two, &json!({"do": "stop"}));
    for client in [&mut one, &mut two] {
        let (code, close, bye) = goodbye(client);
        assert_eq!((code, close), (4503, 4503));
        assert_eq!((&bye["why"], &bye["reconnect"]), (&"room_ended".into(), &false.into()), "{bye}");
    }
    eventually("it has gone", || rooms(&gateway).len() == 1);
    ticks(&mut other, 10);
    // Its name is free.
    let again = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&room=stop"));
    assert_ne!(again.hello["epoch"], one.hello["epoch"]);
    gateway.stop();
}

#[test]
fn no_room_lives_longer_than_it_may() {
    let gateway = gateway(&["replay.room_lifetime_s=1"]);
    let mut client = RawSocket::open(&gateway, &format!("?replay={CAPTURE}&room=old&{EVERYTHING}"));
    let (code, close, _) = goodbye(&mut client);
    assert_eq!((code, close), (4503, 4503));
    all_are_gone(&gateway);
    gateway.stop();
}

#[test]
fn a_gateway_that_stops_says_goodbye_in_its_rooms() {
    let gateway = gateway(&[]);
    let queries = [
        format!("?{EVERYTHING}"),
        format!("?replay={CAPTURE}&room=a&{EVERYTHING}"),
        format!("?room=a&{EVERYTHING}"),
        format!("?replay={CAPTURE}&speed=0&loop=1&{EVERYTHING}"),
        format!("?replay={CAPTURE}"),
    ];
    let clients = queries.map(|query| RawSocket::open(&gateway, &query));
    let readers = clients.map(|mut client| {
        std::thread::spawn(move || {
            let (code, close, bye) = goodbye(&mut client);
            (code, close, bye["reconnect"] == true && bye["after_ms"].is_u64())
        })
    });
    let Ended { stderr, .. } = gateway.stop();
    for reader in readers {
        assert_eq!(reader.join().expect("a goodbye"), (4001, 4001, true), "{stderr}");
    }
}
