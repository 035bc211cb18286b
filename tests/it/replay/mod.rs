//! A replay and its remote control: the clock, jumps, who may, and what is published in the end.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use crate::support::recorded::recorded;
use crate::support::{Capture, Ended, Gateway, POST, RawSocket, eventually, in_repository, python, run};
use serde_json::{Value, json};

const SHIPPED: [&str; 3] = ["feeds/coinbase.zst", "feeds/binance-futures.zst", "feeds/kraken.zst"];
/// What may slow a client down is not what these tests are about.
const PATIENT: [&str; 2] = ["--set", "session.outbox_bytes_max=16777216"];

fn replay<'a>(options: &[&'a str], files: &[&'a str]) -> Gateway {
    Gateway::start(&[&["replay"][..], options, files].concat())
}

/// Gives an order over HTTP.
fn order(gateway: &Gateway, body: &Value) -> (u16, Value) {
    post(gateway.http, &body.to_string(), None)
}

fn post(address: SocketAddr, body: &str, token: Option<&str>) -> (u16, Value) {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!("{POST}\r\n{token}Content-Length: {}", body.len());
    let (status, answer) =
        Gateway::ask(address, &format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}"));
    (status, serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status} {answer}")))
}

#[track_caller]
fn told(gateway: &Gateway, body: &Value) {
    let ack = json!({"type": "ack", "op": "replay"});
    assert_eq!(order(gateway, body), (200, ack), "{body}");
}

/// Where it is.
fn shown(gateway: &Gateway) -> Value {
    let (status, body) = Gateway::get(gateway.http, "/api/replay");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn until(gateway: &Gateway, state: &str) -> Value {
    eventually(state, || shown(gateway)["state"] == state);
    shown(gateway)
}

/// The word behind `key=` in the last thing that a replay says.
fn summary(ended: &Ended, key: &str) -> String {
    let line = ended.lines.iter().find_map(|line| line.strip_prefix("tickfan replayed "));
    let line = line.unwrap_or_else(|| panic!("no summary: {ended:?}"));
    let word = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    word.map(str::to_owned).unwrap_or_default()
}

/// What `normalize` says of captures: its lines, and the digest.
fn normalized(files: &[&str]) -> (Vec<String>, String) {
    let ended = run(&[&["normalize"][..], files].concat());
    assert!(ended.status.success(), "{ended:?}");
    let digest = ended.stderr.lines().find_map(|line| line.strip_prefix("digest "));
    (ended.lines, digest.expect("a digest").to_owned())
}

// ---- the digest ---------------------------------------------------------------------------------------

#[test]
fn the_digest_is_the_same_at_every_speed() {
    let (lines, digest) = normalized(&SHIPPED);
    for speed in ["0", "50", "1000"] {
        let args =
            ["replay", "--exit", "--speed", speed, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let ended = run(&[&args[..], &SHIPPED].concat());
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let ticks = lines.len().to_string();
        let words = ["ticks", "of", "digest", "part"].map(|key| summary(&ended, key));
        assert_eq!(words, [ticks.clone(), ticks, digest.clone(), String::new()], "at speed {speed}");
        // How punctual it was is told where there was something to be punctual for.
        assert_eq!(summary(&ended, "max").is_empty(), speed == "0", "{ended:?}");
    }
    let (_, other) = normalized(&SHIPPED[..2]);
    assert_ne!(other, digest);
}

#[test]
fn the_digest_is_what_the_docs_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ticks.ndjson");
    let path = path.to_str().expect("UTF-8");
    let torn = Capture::generate("binance-futures", "BTCUSDT,ETHUSDT", 20, 100);
    // A hole in the updates is a gap.
    torn.edit(|lines| drop(lines.drain(500..600)));
    for files in [&SHIPPED[..], &[torn.path()]] {
        let (lines, digest) = normalized(files);
        std::fs::write(path, lines.join("\n") + "\n").expect("written");
        assert_eq!(python("digest.py", &[path]).end().lines, [digest], "{files:?}");
    }
}

#[test]
fn pauses_jumps_and_rounds_do_not_change_the_digest() {
    let (lines, digest) = normalized(&SHIPPED);
    let gateway = replay(&["--speed", "100", "--wait-subscribers", "1"], &SHIPPED);
    told(&gateway, &json!({"do": "pause"}));
    let _client = RawSocket::open(&gateway, "?symbols=kraken:*");
    // The end first, then some of the middle twice, then all.
    told(&gateway, &json!({"do": "seek", "to": "+60s"}));
    told(&gateway, &json!({"do": "step", "ticks": 100}));
    told(&gateway, &json!({"do": "resume"}));
    until(&gateway, "ended");
    for to in ["+20s", "+25s"] {
        told(&gateway, &json!({"do": "pause"}));
        told(&gateway, &json!({"do": "seek", "to": to}));
        told(&gateway, &json!({"do": "step", "ticks": 500}));
    }
    let before = until(&gateway, "paused");
    assert!(before["position"].as_u64() > before["from"].as_u64(), "{before}");
    for speed in [0.0, 1000.0, 100.0] {
        told(&gateway, &json!({"do": "speed", "speed": speed}));
    }
    told(&gateway, &json!({"do": "seek", "to": before["from"]}));
    told(&gateway, &json!({"do": "resume"}));
    until(&gateway, "ended");
    let ended = gateway.stop();
    let ticks = lines.len().to_string();
    let words = ["ticks", "of", "digest", "part"].map(|key| summary(&ended, key));
    assert_eq!(words, [ticks.clone(), ticks, digest, String::new()]);
}

#[test]
fn who_begins_behind_the_end_plays_nothing_and_says_so() {
    let args = ["replay", "--exit", "--from", "+10h", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let ended = run(&[&args[..], &SHIPPED[2..]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(["ticks", "of", "part"].map(|key| summary(&ended, key)), ["0", "0", ""], "{ended:?}");
}

#[test]
fn what_was_not_played_is_told() {
    let (lines, digest) = normalized(&SHIPPED[2..]);
    let gateway = replay(&["--speed", "0", "--wait-subscribers", "1"], &SHIPPED[2..]);
    told(&gateway, &json!({"do": "pause"}));
    let _client = RawSocket::open(&gateway, "?symbols=*");
    told(&gateway, &json!({"do": "step", "ticks": 10}));
    eventually("a step", || shown(&gateway)["position"] != shown(&gateway)["from"]);
    told(&gateway, &json!({"do": "seek", "to": "+70s"}));
    told(&gateway, &json!({"do": "resume"}));
    until(&gateway, "ended");
    let ended = gateway.stop();
    assert_eq!(summary(&ended, "of"), lines.len().to_string());
    assert_ne!(summary(&ended, "digest"), digest);
    let part = summary(&ended, "part");
    let (first, last) = part.split_once(',').unwrap_or_else(|| panic!("two parts: {ended:?}"));
    assert!(first.starts_with("1-") && last.ends_with(&format!("-{}", lines.len())), "{part}");
}

// ---- jumps --------------------------------------------------------------------------------------------

/// After random jumps everybody sees what `normalize` says.
fn jumps(files: &[&str], seed: u64) {
    writeln!(std::io::stderr(), "seed {seed}").expect("stderr");
    let folder = tempfile::tempdir().expect("a folder");
    let ticks = folder.path().join("ticks.ndjson");
    std::fs::write(&ticks, normalized(files).0.join("\n") + "\n").expect("written");
    let gateway = replay(&[&["--speed", "20", "--loop"][..], &PATIENT].concat(), files);
    let (ticks, seed) = (ticks.to_str().expect("UTF-8"), seed.to_string());
    let seen = python("replaying.py", &["seeks", &gateway.ws, ticks, &seed, "20"]).end();
    assert!(seen.status.success(), "{}", seen.stderr);
    let seen = &seen.values()[0];
    assert_eq!(seen["jumps"], 22);
    assert!(seen["snaps"].as_u64() > Some(20), "{seen}");
    assert!(seen["gaps"].as_object().expect("an object").keys().all(|why| why == "seek"), "{seen}");
    gateway.stop();
}

#[test]
fn a_jump_shows_what_a_replay_from_the_start_would() {
    jumps(&SHIPPED, std::process::id().into());
}

#[test]
#[ignore = "needs recorded captures: TICKFAN_FEEDS"]
fn a_jump_within_what_venues_sent() {
    let several =
        recorded(["COINBASE.ws.28.0", "BINANCE_FUTURES.ws.1.0", "KRAKEN.ws.48.0", "KRAKEN.ws.50.0"]);
    for files in [&several[..], &recorded(["btcusdt_20240808.gz"])] {
        let files: Vec<&str> = files.iter().map(|file| file.to_str().expect("UTF-8")).collect();
        jumps(&files, std::process::id().into());
    }
}

#[test]
fn a_jump_within_a_recording_of_several_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = Capture::generate("kraken", "XBT/USD,ETH/USD", 90, 100);
    let dir = folder.path().to_str().expect("UTF-8");
    let args = ["replay", "--exit", "--speed", "30", "--record", dir, "--set", "record.segment_s=1"];
    let ended =
        run(&[&args[..], &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", capture.path()]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let line = folder.path().join("kraken.1");
    assert!(std::fs::read_dir(&line).expect("a folder").count() > 1, "several files");
    jumps(&[line.to_str().expect("UTF-8")], 7);
}

/// The parts of shipped captures, a file every few seconds.
fn parts(folder: &Path, names: &[&str], count: usize) -> Vec<String> {
    let mut parts = Vec::new();
    for name in names {
        let packed = std::fs::read(name).expect("a shipped capture");
        let text = zstd::decode_all(&packed[..]).expect("zstd");
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let stem = Path::new(name).file_stem().expect("a name").to_string_lossy().into_owned();
        for part in 0..count {
            let path = folder.join(format!("{stem}.{part}"));
            let lines = &lines[part * lines.len() / count..(part + 1) * lines.len() / count];
            std::fs::write(&path, lines.concat()).expect("a part");
            parts.push(path.to_str().expect("UTF-8").to_owned());
        }
    }
    parts
}

/// F01: seeks, digest and rounds of files that follow one another are those of the whole.
#[test]
fn files_that_follow_one_another_are_one_capture() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["feeds/binance-futures.zst", "feeds/kraken.zst"];
    let parts = parts(folder.path(), &names, 9);
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    parts.reverse();
    let (whole, of_parts) = (normalized(&names), normalized(&parts));
    assert!(whole.0 == of_parts.0, "the same ticks");
    let digest = |files: &[&str]| {
        let args = ["replay", "--exit", "--speed", "0", "--wait-subscribers", "0"];
        let ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let ended = run(&[&args[..], &ports, files].concat());
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let said = ended.lines.last().expect("a summary").clone();
        let digest = said.split_once("digest=").expect("a digest").1;
        digest.split(' ').next().expect("a word").to_owned()
    };
    assert_eq!(digest(&parts), digest(&names));
    jumps(&parts, std::process::id().into());
}

#[test]
fn a_jump_needs_no_checkpoints() {
    let none = ["--set", "replay.checkpoints_max=0", "--speed", "0", "--wait-subscribers", "1"];
    let gateway = replay(&none, &SHIPPED);
    let from = shown(&gateway)["from"].as_u64().expect("a time");
    told(&gateway, &json!({"do": "pause"}));
    told(&gateway, &json!({"do": "seek", "to": "+50s"}));
    let _client = RawSocket::open(&gateway, "?symbols=*");
    eventually("it is there", || shown(&gateway)["position"].as_u64() == Some(from + 50_000_000));
    assert_eq!(shown(&gateway)["state"], "paused");
    gateway.stop();
}

/// A `seek` that is refused, over HTTP and over the WebSocket: what it says.
fn refused(gateway: &Gateway, client: &mut RawSocket, to: &Value) -> String {
    let (status, error) = order(gateway, &json!({"do": "seek", "to": to}));
    assert_eq!((status, &error["code"]), (400, &"out_of_span".into()), "{to}: {error}");
    let asked = json!({"op": "replay", "id": "seek", "do": "seek", "to": to});
    client.text(&asked.to_string());
    let answer = client.answer();
    assert_eq!(
        (&answer["type"], &answer["id"], &answer["code"], &answer["retry"]),
        (&"error".into(), &"seek".into(), &"out_of_span".into(), &false.into()),
        "{to}: {answer}"
    );
    assert_eq!(answer["msg"], error["error"], "{to}");
    error["error"].as_str().expect("a sentence").to_owned()
}

#[test]
fn a_seek_out_of_the_replay_is_refused_and_names_its_ends() {
    let gateway = replay(&["--from", "+10s", "--to", "+20s"], &SHIPPED);
    told(&gateway, &json!({"do": "pause"}));
    let mut client = RawSocket::open(&gateway, "");
    let before = until(&gateway, "paused");
    let (from, to) = (before["from"].as_u64().expect("a time"), before["to"].as_u64().expect("a time"));
    for outside in [json!("+9s"), json!("-1s"), json!("+21s"), json!("+999s"), json!(from - 1), json!(to + 1)]
    {
        let msg = refused(&gateway, &mut client, &outside);
        for part in ["`to`: 2", " begins at 2024-05-01T12:00:10.", " and ends at 2024-05-01T12:00:20."] {
            assert!(msg.contains(part), "{outside}: {msg}");
        }
    }
    assert_eq!(shown(&gateway), before, "nothing has moved");
    // Both ends are moments of it.
    for end in [to, from] {
        told(&gateway, &json!({"do": "seek", "to": end}));
        eventually("it is there", || shown(&gateway)["position"] == end);
    }
    gateway.stop();
}

#[test]
fn the_end_of_a_stream_is_looked_for_and_then_holds() {
    let gateway = replay(&[], &SHIPPED);
    told(&gateway, &json!({"do": "pause"}));
    // Until the end is known, what is late enough may be there.
    eventually("the end is known", || order(&gateway, &json!({"do": "seek", "to": "+10h"})).0 == 400);
    // A client connected meanwhile reads nothing; it would be sent a move.
    let mut client = RawSocket::open(&gateway, "");
    let msg = refused(&gateway, &mut client, &json!("+10h"));
    assert!(msg.contains("2024-05-01T22:00:0") && msg.contains(" and ends at 2024-05-01T12:01:1"), "{msg}");
    let end = shown(&gateway)["to"].clone();
    told(&gateway, &json!({"do": "seek", "to": end}));
    eventually("it is there", || shown(&gateway)["position"] == end);
    gateway.stop();
}

#[test]
fn while_the_end_is_not_known_behind_the_last_record_is_the_end() {
    // Flat out the machine is the replay's, and nobody looks for the end.
    let gateway = replay(&["--speed", "0", "--wait-subscribers", "1"], &SHIPPED[2..]);
    told(&gateway, &json!({"do": "pause"}));
    let _client = RawSocket::open(&gateway, "?symbols=*");
    told(&gateway, &json!({"do": "seek", "to": "+10h"}));
    let from = shown(&gateway)["from"].as_u64().expect("a time");
    eventually("the end", || {
        let shown = shown(&gateway);
        shown["state"] == "paused" && shown["position"].as_u64() > Some(from + 60_000_000)
    });
    let there = shown(&gateway);
    assert!(there["position"].as_u64() < Some(from + 120_000_000), "not ten hours later: {there}");
    told(&gateway, &json!({"do": "resume"}));
    until(&gateway, "ended");
    // It has come there by itself.
    assert_eq!(order(&gateway, &json!({"do": "seek", "to": "+10h"})).1["code"], "out_of_span");
    gateway.stop();
}

#[test]
fn an_end_behind_the_captures_is_theirs() {
    let gateway = replay(&["--to", "+10m"], &SHIPPED[2..]);
    told(&gateway, &json!({"do": "pause"}));
    let mut client = RawSocket::open(&gateway, "");
    eventually("the end is known", || order(&gateway, &json!({"do": "seek", "to": "+5m"})).0 == 400);
    let msg = refused(&gateway, &mut client, &json!("+5m"));
    assert!(
        msg.contains("`to`: 2024-05-01T12:05:0") && msg.contains(" and ends at 2024-05-01T12:01:1"),
        "{msg}"
    );
    let end = shown(&gateway)["to"].clone();
    told(&gateway, &json!({"do": "seek", "to": end}));
    told(&gateway, &json!({"do": "resume"}));
    let ended = until(&gateway, "ended");
    assert_eq!((&ended["position"], &ended["to"]), (&end, &end), "{ended}");
    gateway.stop();

    // One that is not looked for is found when the replay comes to it.
    let gateway = replay(&["--to", "+10m", "--speed", "0", "--wait-subscribers", "1"], &SHIPPED[2..]);
    let _client = RawSocket::open(&gateway, "?symbols=*");
    let ended = until(&gateway, "ended");
    assert_eq!((&ended["position"], &ended["to"]), (&end, &end), "{ended}");
    gateway.stop();
}

// ---- the clock ----------------------------------------------------------------------------------------

#[test]
fn a_step_publishes_what_it_says() {
    // Trades of a venue that sends several in one message, and quotes.
    let gateway = replay(&[&["--speed", "2", "--loop"][..], &PATIENT].concat(), &SHIPPED);
    let ended = python("replaying.py", &["steps", &gateway.ws]).end();
    assert!(ended.status.success(), "{}", ended.stderr);
    gateway.stop();
}

#[test]
fn a_step_goes_on_in_the_next_round() {
    let capture = Capture::generate("coinbase", "BTC-USD", 30, 50);
    let (lines, _) = normalized(&[capture.path()]);
    let ticks = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut rx: Vec<u64> = ticks.map(|tick| tick["rx"].as_u64().expect("a time")).collect();
    let args = ["--loop", "--from", "+20s", "--to", "+21s", "--wait-subscribers", "1"];
    let gateway = replay(&args, &[capture.path()]);
    let from = shown(&gateway)["from"].as_u64().expect("a time");
    rx.retain(|at| (from..from + 1_000_000).contains(at));
    assert!(rx.len() > 10);
    told(&gateway, &json!({"do": "pause"}));
    let _client = RawSocket::open(&gateway, "?symbols=*");
    told(&gateway, &json!({"do": "step", "ticks": rx.len() + 5}));
    eventually("the fifth tick of the second round", || {
        let shown = shown(&gateway);
        shown["state"] == "paused" && shown["position"] == rx[4]
    });
    gateway.stop();
}

#[test]
fn it_begins_and_ends_where_it_is_told() {
    let capture = Capture::generate("coinbase", "BTC-USD", 60, 50);
    let (all, _) = normalized(&[capture.path()]);
    let ticks: Vec<Value> = all.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let rx = |tick: &Value| tick["rx"].as_u64().expect("a time");
    let gateway = replay(&["--speed", "1", "--wait-subscribers", "1"], &[capture.path()]);
    let start_us = shown(&gateway)["from"].as_u64().expect("a time");
    gateway.stop();
    let (from_us, to_us) = (start_us + 20_000_000, start_us + 30_000_000);
    let inside = ticks.iter().filter(|tick| (from_us..to_us).contains(&rx(tick))).count();
    assert!(inside > 10);
    // Three ways of saying it, F12 among them: the capture begins at 2024-05-01T12:00:00Z.
    let at_offset = |s: u64| format!("2024-05-01T13:00:{s:02}.{:06}+01:00", start_us % 1_000_000);
    for (from, to) in [
        ("+20s".to_owned(), "+30s".to_owned()),
        (from_us.to_string(), to_us.to_string()),
        (at_offset(20), at_offset(30)),
    ] {
        let args =
            ["replay", "--exit", "--speed", "100", "--from", &from, "--to", &to, "--wait-subscribers", "1"];
        let gateway = Gateway::start(&[&args[..], &[capture.path()]].concat());
        let shown = shown(&gateway);
        assert_eq!((&shown["from"], &shown["to"]), (&from_us.into(), &to_us.into()), "{shown}");
        let heard = python("subscribers.py", &[&gateway.ws, "1", "--mode", "every"]);
        let heard = heard.end().lines.pop().expect("a summary");
        let heard: Value = serde_json::from_str(&heard).expect("JSON");
        let told = heard["trades"].as_u64().zip(heard["quotes"].as_u64()).expect("counts");
        // What stands at the beginning comes as a snapshot.
        let snaps = heard["snaps"].as_u64().expect("a count");
        assert!(snaps > 0 && told.0 + told.1 >= inside as u64, "{heard}");
        let ended = gateway.process.end();
        let words = ["ticks", "of", "part"].map(|key| summary(&ended, key));
        assert_eq!(words, [inside.to_string(), inside.to_string(), String::new()], "{ended:?}");
    }
    let wrong = run(&["replay", "--from", "+30s", "--to", "+20s", capture.path()]);
    assert_eq!(wrong.code(), Some(2));
    assert!(wrong.stderr.contains("`to` is not behind `from`"), "{}", wrong.stderr);
    for (flag, value) in [("--from", "noon"), ("--max-idle", "5"), ("--speed", "0.001"), ("--speed", "1001")]
    {
        let wrong = run(&["replay", flag, value, capture.path()]);
        assert_eq!(wrong.code(), Some(2), "{flag} {value}");
        assert!(wrong.stderr.contains(flag), "{}", wrong.stderr);
    }
}

/// The body of a request in chunks of so many bytes.
fn chunks(body: &str, bytes: usize) -> String {
    let chunk =
        |part: &[u8]| format!("{:X}\r\n{}\r\n", part.len(), std::str::from_utf8(part).expect("ASCII"));
    body.as_bytes().chunks(bytes).map(chunk).collect()
}

#[test]
fn an_order_may_come_in_chunks() {
    let gateway = replay(&["--loop", "--set", "limits.head_timeout_ms=1000"], &SHIPPED);
    let chunked = |method: &str, more: &str, body: &str| {
        let head = format!("{POST}\r\nTransfer-Encoding: {more}");
        let (status, answer) =
            Gateway::ask(gateway.http, &format!("{method} HTTP/1.1\r\n{head}\r\n\r\n{body}"));
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status} {answer}"));
        (status, answer["op"].as_str().or(answer["error"].as_str()).expect("a word").to_owned())
    };
    let post = |body: &str| chunked("POST /api/replay", "chunked", body);
    let pause = r#"{"do":"pause"}"#;
    let padded = |bytes: usize| format!("{pause:<bytes$}");
    for (what, body) in [
        ("at once", chunks(pause, 100) + "0\r\n\r\n"),
        ("byte by byte", chunks(pause, 1) + "0\r\n\r\n"),
        ("with an extension", format!("e;name=\"value\"\r\n{pause}\r\n000\r\n\r\n")),
        ("with a trailer", chunks(pause, 5) + "0\r\nChecksum: 1\r\n\r\n"),
        ("as long as it may be", chunks(&padded(1_024), 100) + "0\r\n\r\n"),
    ] {
        assert_eq!(post(&body), (200, "replay".to_owned()), "{what}");
    }
    assert_eq!(chunked("POST /api/replay", "Chunked", &(chunks(pause, 9) + "0\r\n\r\n")).0, 200);
    for (what, status, words, body) in [
        ("nothing in it", 400, "not JSON", "0\r\n\r\n".to_owned()),
        ("no JSON", 400, "not JSON", chunks("pause", 2) + "0\r\n\r\n"),
        ("a byte too long", 413, "1024 bytes", chunks(&padded(1_025), 100) + "0\r\n\r\n"),
        ("much too long", 413, "1024 bytes", chunks(&padded(50_000), 999) + "0\r\n\r\n"),
        ("no end to it", 413, "1024 bytes", "ffffffff\r\n".to_owned() + &padded(2_000)),
        ("no chunk", 400, "body", "xyz\r\n{}\r\n0\r\n\r\n".to_owned()),
        ("longer than it says", 400, "body", "2\r\n{}{}\r\n0\r\n\r\n".to_owned()),
    ] {
        let (found, error) = post(&body);
        assert!(found == status && error.contains(words), "{what}: {found} {error}");
    }
    // Where no body is taken, the method is what is wrong.
    let body = chunks(pause, 5) + "0\r\n\r\n";
    assert_eq!(chunked("POST /healthz", "chunked", &body).0, 405);
    assert_eq!(chunked("POST /api/replay", "gzip", "").0, 400);
    // One that breaks off is told so, and one that does not come.
    let ask = |body: &str| {
        let mut stream = crate::support::connect(gateway.http);
        let head = "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked";
        write!(stream, "POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}").expect("sent");
        stream
    };
    let mut answer = String::new();
    let mut stream = ask("5\r\n{\"d");
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("broke off"), "{answer}");
    answer.clear();
    ask("5\r\n{\"d").read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body"), "{answer}");
    // The connection is as good as it was: two orders, one behind the other.
    answer.clear();
    let mut stream = ask(&body);
    let next = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(next.as_bytes()).expect("sent");
    stream.read_to_string(&mut answer).expect("two answers");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(shown(&gateway)["state"], "paused");
}

#[test]
fn long_silences_are_skipped() {
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    // The same again, a year later: nobody waits for it.
    let later = capture.later("kraken", "XBT/USD", (2, 50), 1_714_564_800 + 31_536_000);
    std::fs::write(&capture.path, capture.text() + &later).expect("written");
    let (lines, digest) = normalized(&[capture.path()]);
    let args = ["replay", "--exit", "--speed", "10", "--max-idle", "100ms"];
    let args = [&args[..], &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", capture.path()]].concat();
    let ended = run(&args);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!([summary(&ended, "ticks"), summary(&ended, "digest")], [lines.len().to_string(), digest]);
}

#[test]
fn rounds_can_be_ended_and_begun() {
    let capture = Capture::generate("kraken", "XBT/USD", 2, 50);
    let gateway = replay(&["--speed", "10", "--loop"], &[capture.path()]);
    assert_eq!(shown(&gateway)["loop"], true);
    let (_, (trades, quotes)) = ((), capture.normalized());
    eventually("a second round", || gateway.metric_sum("tickfan_published_total") > trades + quotes + 50);
    told(&gateway, &json!({"do": "loop", "on": false}));
    let ended = until(&gateway, "ended");
    assert_eq!((&ended["loop"], &ended["position"]), (&false.into(), &ended["to"]), "{ended}");
    assert_eq!(gateway.readyz(), 503);
    // From the beginning again.
    let before = gateway.metric_sum("tickfan_published_total");
    told(&gateway, &json!({"do": "loop", "on": true}));
    told(&gateway, &json!({"do": "resume"}));
    eventually("it goes on", || gateway.metric_sum("tickfan_published_total") > before + trades + quotes);
    assert_eq!(gateway.readyz(), 200);
    told(&gateway, &json!({"do": "stop"}));
    until(&gateway, "ended");
    gateway.stop();
}

#[test]
fn to_stop_is_to_end() {
    let gateway = replay(&["--speed", "1", "--exit"], &SHIPPED);
    let mut client = RawSocket::open(&gateway, "?symbols=coinbase:*");
    eventually("ticks", || gateway.metric_sum("tickfan_published_total") > 10);
    told(&gateway, &json!({"do": "stop"}));
    let mut ended = 0;
    loop {
        let message = client.word();
        match message["type"].as_str() {
            Some("bye") => break,
            Some("status") => ended += u64::from(message["state"] == "ended"),
            _ => {}
        }
    }
    assert!(ended > 0, "what was told does not hold any more");
    let ended = gateway.process.end();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!summary(&ended, "part").is_empty());
}

// ---- who may ------------------------------------------------------------------------------------------

/// The answer to a request over the WebSocket.
fn ask(client: &mut RawSocket, request: &Value) -> Value {
    client.text(&request.to_string());
    loop {
        let message = client.word();
        if matches!(message["type"].as_str(), Some("ack" | "error" | "bye")) {
            return message;
        }
    }
}

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
