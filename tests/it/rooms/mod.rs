//! Rooms: captures replayed beside the feed, for one client or for several that share a clock.

use std::collections::BTreeMap;
use std::io::Write;

use crate::support::answer::Answer;
use crate::support::client::Client;
use crate::support::{Ended, Gateway, POST, RawSocket, connect, eventually, in_repository, python, run};
use serde_json::{Value, json};

/// What the feed replays, and what clients replay beside it.
const FEED: &str = "feeds/kraken.zst";
const CAPTURE: &str = "coinbase.zst";
/// What a slow client or machine costs is not what these tests are about.
const PATIENT: [&str; 3] = [
    "session.outbox_bytes_max=67108864",
    "session.shed_behind_ms=86400000",
    "replay.room_ring_capacity=131072",
];
const EVERYTHING: &str = "symbols=*&mode=every";

/// A gateway whose clients may replay what ships.
fn gateway(settings: &[&str]) -> Gateway {
    gateway_of("feeds", settings)
}

fn gateway_of(dir: &str, settings: &[&str]) -> Gateway {
    let dir = format!("replay.dir={dir}");
    let settings = [&[dir.as_str()], &PATIENT[..], settings].concat();
    Gateway::start(&[&["replay", "--loop", FEED][..], &Gateway::settings(&settings)].concat())
}

/// The rooms that the operator sees.
fn rooms(gateway: &Gateway) -> Vec<Value> {
    let (status, body) = Gateway::get(gateway.admin, "/api/rooms");
    assert_eq!(status, 200, "{body}");
    let mut body: Value = serde_json::from_str(&body).expect("JSON");
    match body["rooms"].take() {
        Value::Array(rooms) => rooms,
        other => panic!("{other}"),
    }
}

/// The room of this number; null once it has gone.
fn room(gateway: &Gateway, number: u64) -> Value {
    let found = rooms(gateway).into_iter().find(|room| room["number"] == number);
    found.unwrap_or_default()
}

fn until(gateway: &Gateway, number: u64, state: &str) -> Value {
    eventually(state, || room(gateway, number)["replay"]["state"] == state);
    room(gateway, number)
}

fn all_are_gone(gateway: &Gateway) {
    eventually("every room has gone", || gateway.metric_sum("tickfan_rooms") == 0);
    assert_eq!(rooms(gateway), Vec::<Value>::new());
}

/// What a handshake is answered with that is no good, and what it says.
fn refused(gateway: &Gateway, query: &[u8]) -> (u16, String) {
    let mut stream = connect(gateway.http);
    let head = "HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let request = [b"GET /ws?", query, b" ", head.as_bytes()].concat();
    stream.write_all(&request).expect("sent");
    let answer = Answer::read(&mut stream);
    assert_ne!(answer.status, 101, "{}", String::from_utf8_lossy(query));
    let said = if answer.body.is_empty() { String::new() } else { answer.error() };
    (answer.status, said)
}

#[track_caller]
fn assert_refused(gateway: &Gateway, query: &str, status: u16, word: &str) {
    let (found, said) = refused(gateway, query.as_bytes());
    assert!(found == status && said.contains(word), "{query}: {found} {said}, and not {status} {word}");
}

/// The answer to a request; what comes before it is left out.
fn ask(client: &mut RawSocket, request: &Value) -> Value {
    client.text(&request.to_string());
    loop {
        let message = client.word();
        if message["id"] == request["id"] {
            return message;
        }
    }
}

#[track_caller]
fn order(client: &mut RawSocket, what: &Value) {
    let mut request = json!({"op": "replay", "id": "order"});
    request.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
    assert_eq!(ask(client, &request), json!({"type": "ack", "id": "order", "op": "replay"}), "{what}");
}

fn subscribe(client: &mut RawSocket) {
    let channels = ["trade", "quote"];
    let request = json!({"op": "subscribe", "id": 1, "channel": channels, "symbols": ["*"], "mode": "every"});
    assert_eq!(ask(client, &request)["type"], "ack");
}

/// A trade or quote as it is the same in every replay.
fn timeless(mut tick: Value) -> Value {
    let fields = tick.as_object_mut().expect("an object");
    fields.remove("tx");
    fields.remove("rx");
    tick
}

fn is_tick(message: &Value) -> bool {
    message["type"] == "trade" || message["type"] == "quote"
}

/// The next so many trades and quotes.
fn ticks(client: &mut RawSocket, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    while found.len() < count {
        let message = client.word();
        assert_ne!(message["type"], "gap", "{message}");
        if is_tick(&message) {
            found.push(message);
        }
    }
    found
}

/// What `normalize` makes of the capture.
fn normalized(name: &str) -> Vec<Value> {
    let ended = run(&["normalize", &format!("feeds/{name}")]);
    ended.values().into_iter().filter(is_tick).collect()
}

fn key(tick: &Value) -> (String, String) {
    let text = |name: &str| tick[name].as_str().expect("text").to_owned();
    (text("symbol"), text("type"))
}

// ---- what is replayed ---------------------------------------------------------------------------------

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

// ---- each for itself ----------------------------------------------------------------------------------

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

// ---- hostile names ------------------------------------------------------------------------------------

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
        assert_refused(&gateway, &query, 400, &format!("`from`: {at}"));
        assert_refused(&gateway, &query, 400, " begins at 2024-05-01T12:00:00.");
        assert_refused(&gateway, &query, 400, " and ends at 2024-05-01T12:01:1");
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

// ---- bounds -------------------------------------------------------------------------------------------

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

// ---- the end ------------------------------------------------------------------------------------------

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
