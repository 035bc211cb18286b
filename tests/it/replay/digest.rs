//! The digest: the same ticks, however they are replayed.

use super::*;

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
