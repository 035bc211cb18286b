//! `docs/PROTOCOL.md` shows what is sent. Each of its samples is held against `docs/asyncapi.yaml`, and against
//! the code that reads such messages.

use serde_json::Value;
use tickfan::cli::watch::message::Message;
use tickfan::model::tick::Channel;
use tickfan::protocol::{self, Op};

use crate::support::{in_repository, python};

/// The lines of the page's JSON blocks, but for those of publishers.
fn samples() -> Vec<String> {
    let page = std::fs::read_to_string(in_repository("docs/PROTOCOL.md")).expect("the page");
    let (of_clients, _) = page.split_once("\n## Publishing\n").expect("a section on publishing");
    let mut samples = Vec::new();
    for block in of_clients.split("\n```json\n").skip(1) {
        let (lines, _) = block.split_once("\n```\n").expect("a block ends");
        samples.extend(lines.lines().map(str::to_owned));
    }
    samples
}

/// Those that carry this key, with its word.
fn samples_with(key: &str) -> Vec<(String, String)> {
    let word = |line: &String| {
        let sample: Value = serde_json::from_str(line).expect("JSON");
        sample[key].as_str().map(str::to_owned)
    };
    let keyed = samples().into_iter().filter_map(|line| word(&line).map(|word| (word, line)));
    // An answer carries the `op` of its request too.
    keyed.filter(|(_, line)| line.starts_with(&format!("{{\"{key}\":"))).collect()
}

fn each_kind(samples: &[(String, String)]) -> Vec<&str> {
    let mut kinds: Vec<&str> = samples.iter().map(|(kind, _)| kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn the_page_and_the_asyncapi_document_say_the_same() {
    let ended = python("samples.py", &[]).end();
    assert!(ended.status.success(), "after {:?}: {}", ended.lines, ended.stderr);
    assert_eq!(ended.lines.len(), 7, "{:?}", ended.lines);
}

#[test]
fn every_sample_is_of_a_client_or_of_the_gateway() {
    let all = samples();
    assert_eq!(samples_with("op").len() + samples_with("type").len(), all.len(), "{all:?}");
}

#[test]
fn every_request_of_the_page_is_accepted() {
    let requests = samples_with("op");
    assert_eq!(
        each_kind(&requests),
        ["list", "ping", "replay", "set", "subscribe", "symbols", "unsubscribe"]
    );
    let mut refused = Vec::new();
    for (word, text) in &requests {
        match protocol::parse(text, 1000) {
            Ok(request) => {
                let sample: Value = serde_json::from_str(text).expect("JSON");
                assert_eq!(request.id.as_ref().map(protocol::Id::value), sample.get("id"), "{text}");
                let right = match word.as_str() {
                    "subscribe" => matches!(request.op, Op::Subscribe(..)),
                    "unsubscribe" => matches!(request.op, Op::Unsubscribe(..)),
                    "set" => matches!(request.op, Op::Set(..)),
                    "list" => matches!(request.op, Op::List(..)),
                    "symbols" => matches!(request.op, Op::Symbols(..)),
                    "replay" => matches!(request.op, Op::Replay(..)),
                    _ => matches!(request.op, Op::Ping(..)),
                };
                assert!(right, "{text} is read as {:?}", request.op);
            }
            Err(fault) => refused.push(format!("{text}: {}: {}", fault.code, fault.msg)),
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn every_message_of_the_page_is_read() {
    let messages = samples_with("type");
    let kinds = [
        "ack",
        "bye",
        "clock_step",
        "error",
        "gap",
        "hb",
        "hello",
        "joined",
        "lag",
        "pong",
        "quote",
        "replay",
        "status",
        "trade",
    ];
    assert_eq!(each_kind(&messages), kinds);
    for (kind, text) in &messages {
        let read = Message::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let right = match kind.as_str() {
            "quote" => matches!(read, Message::Update(Channel::Quote, _)),
            "trade" => matches!(read, Message::Update(Channel::Trade, _)),
            "gap" => matches!(read, Message::Gap(_)),
            "status" => matches!(read, Message::Status(_)),
            "hello" => matches!(read, Message::Hello(_)),
            "ack" => matches!(read, Message::Ack(_)),
            "error" => matches!(read, Message::Failure(_)),
            "lag" => matches!(read, Message::Lag(_)),
            "bye" => matches!(read, Message::Bye(_)),
            "joined" => matches!(read, Message::Joined(_)),
            // A watcher has no use for them.
            "hb" | "pong" | "replay" | "clock_step" => true,
            other => panic!("what is a {other}? {text}"),
        };
        assert!(right, "{text} is read as {read:?}");
    }
}
