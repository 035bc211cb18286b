//! Jumps, and the ends that they are held to.

use super::*;

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
