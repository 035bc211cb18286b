use clap::{CommandFactory, Parser};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::screen::tests::{Page, screen};
use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    watch: WatchArgs,
}

fn args(words: &[&str]) -> Result<WatchArgs, clap::Error> {
    Cli::try_parse_from([&["watch"], words].concat()).map(|cli| cli.watch)
}

const HELLO: &str = r#"{"type":"hello","v":1,"session":"s","epoch":"e","feed":"mixed","heartbeat_ms":5000}"#;
const ACK_TRADE: &str = r#"{"type":"ack","id":1,"op":"subscribe","channel":"trade","ok":[{"symbol":"c:A","mode":"every","state":"replay"}],"rejected":[]}"#;
const ACK_QUOTE: &str = r#"{"type":"ack","id":2,"op":"subscribe","channel":"quote","ok":[{"symbol":"c:A","mode":"latest","state":"replay"}],"rejected":[]}"#;
const PART_TRADE: &str = r#"{"type":"ack","id":1,"op":"subscribe","channel":"trade","ok":[{"symbol":"c:A","mode":"every","state":"replay"}],"rejected":[{"symbol":"FOO","code":"unknown_symbol"}]}"#;
const PART_QUOTE: &str = r#"{"type":"ack","id":2,"op":"subscribe","channel":"quote","ok":[],"rejected":[{"symbol":"c:A","code":"limit"},{"symbol":"FOO","code":"unknown_symbol"}]}"#;
const WILD_TRADE: &str = r#"{"type":"ack","id":1,"op":"subscribe","channel":"trade","ok":[{"symbol":"*","mode":"every"},{"symbol":"c:*","mode":"every"},{"symbol":"demo:*","mode":"every"}],"rejected":[]}"#;
const WILD_QUOTE: &str = r#"{"type":"ack","id":2,"op":"subscribe","channel":"quote","ok":[{"symbol":"*","mode":"latest"},{"symbol":"c:*","mode":"latest"},{"symbol":"demo:*","mode":"latest"}],"rejected":[]}"#;
const NONE_TRADE: &str = r#"{"type":"ack","id":1,"op":"subscribe","channel":"trade","ok":[],"rejected":[{"symbol":"FOO","code":"unknown_symbol"}]}"#;
const ERROR_QUOTE: &str = r#"{"type":"error","id":2,"code":"bad_request","msg":"no","retry":false}"#;
const SNAP: &str = r#"{"type":"quote","symbol":"c:A","seq":8,"snap":true,"bid":"1.10","rx":1}"#;
const QUOTE: &str = r#"{"type":"quote","symbol":"c:A","seq":12,"n":4,"bid":"1.20","ask":"1.30","rx":2}"#;
const TRADE: &str =
    r#"{"type":"trade","symbol":"c:A","seq":1,"price":"1.25","size":"3","side":"buy","rx":2}"#;
const GAP: &str = r#"{"type":"gap","symbol":"c:A","channel":"trade","from":2,"to":5,"why":"overrun"}"#;
const STATUS: &str = r#"{"type":"status","symbol":"c:A","state":"stale","since":1}"#;
const LAG: &str = r#"{"type":"lag","level":"warn","behind_ms":420}"#;
const HB: &str = r#"{"type":"hb","time":1,"sent":4,"behind_ms":3}"#;
const WAIT_TRADE: &str = r#"{"type":"ack","id":1,"op":"subscribe","channel":"trade","ok":[{"symbol":"c:A","mode":"every","state":"waiting"},{"symbol":"c:B","mode":"every","state":"waiting"}],"rejected":[]}"#;
const WAIT_QUOTE: &str = r#"{"type":"ack","id":2,"op":"subscribe","channel":"quote","ok":[{"symbol":"c:A","mode":"latest","state":"waiting"},{"symbol":"c:B","mode":"every","state":"waiting"}],"rejected":[]}"#;
const BYE: &str = r#"{"type":"bye","code":4001,"why":"shutdown","reconnect":true,"after_ms":1000}"#;

/// What the server does after its last message.
#[derive(Clone, Copy)]
enum Then {
    /// The ordinary end.
    Close,
    CloseWith(u16, &'static str),
    Vanish,
    Stay,
}

/// A server that accepts two requests, sends its messages and ends. Returns its URL and, at the end, the
/// requests.
async fn server(says: Vec<&'static str>, then: Then) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut socket = accept_async(stream).await.expect("a WebSocket client");
        let mut requests = Vec::new();
        while requests.len() < 2 {
            let frame = socket.next().await.expect("a request").expect("readable");
            requests.push(frame.into_text().expect("text").to_string());
        }
        for text in says {
            socket.feed(Frame::text(text)).await.expect("is read");
        }
        socket.flush().await.expect("is read");
        match then {
            Then::Close => socket.close(close(4001, "shutdown")).await.expect("is read"),
            Then::CloseWith(code, why) => socket.close(close(code, why)).await.expect("is read"),
            Then::Vanish => return requests,
            Then::Stay => {}
        }
        while let Some(Ok(_)) = socket.next().await {}
        requests
    });
    (url, task)
}

fn close(code: u16, why: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame { code: code.into(), reason: why.into() })
}

struct Watched {
    verdict: WatchVerdict,
    out: String,
    err: String,
    requests: Vec<String>,
}

async fn watch_with(more: &[&str], look: Look, says: &[&'static str], then: Then) -> Watched {
    let (url, task) = server(says.to_vec(), then).await;
    let args = args(&[&["--url", &url, "c:A", "FOO"], more].concat()).expect("good arguments");
    let (screen, out, err): (_, Page, Page) = screen(look);
    let verdict = run_on(&args, &Clock::real(), screen).await;
    let requests = task.await.expect("the server is content");
    Watched { verdict, out: out.text(), err: err.text(), requests }
}

async fn watch(says: &[&'static str], then: Then) -> Watched {
    watch_with(&[], Look::Counts, says, then).await
}

const GOOD: [&str; 11] =
    [HELLO, ACK_TRADE, ACK_QUOTE, SNAP, QUOTE, TRADE, STATUS, GAP, HB, LAG, r#"{"type":"new","x":1}"#];

#[tokio::test]
async fn a_good_stream_holds() {
    let watched = watch(&GOOD, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "{}", watched.err);
    for line in [
        "lag: warn, 420 ms behind",
        "trade       1 ticks in 1 updates, 0 merged, 0 snapshots",
        "quote       4 ticks in 1 updates, 3 merged, 1 snapshots",
        "gaps        1 naming 4 ticks: overrun 4 ticks in 1",
        "the accounting rule held",
        "states      1 stale",
        "(of what is replayed, rx is when the frame was due)",
    ] {
        assert!(watched.err.contains(line), "{line} is missing in\n{}", watched.err);
    }
    assert!(watched.err.contains(" of 2   negative (clock skew) 0"), "the snapshot is left out");
    let asked: serde_json::Value = serde_json::from_str(&watched.requests[1]).expect("JSON");
    let wanted = json!({"op": "subscribe", "id": 2, "channel": "quote", "symbols": ["c:A", "FOO"]});
    assert_eq!(asked, wanted);
}

#[tokio::test]
async fn json_is_the_data_as_it_came() {
    let watched =
        watch_with(&["--json", "--mode", "latest", "--max-hz", "10"], Look::Json, &GOOD, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held);
    assert_eq!(watched.out, [SNAP, QUOTE, TRADE, STATUS, GAP, ""].join("\n"));
    assert!(watched.requests[0].contains(r#""mode":"latest","max_hz":10"#), "{}", watched.requests[0]);
}

#[tokio::test]
async fn the_past_is_asked_for_and_is_not_shown_as_live() {
    let past = r#"{"type":"trade","symbol":"c:A","seq":7,"past":true,"price":"1.25","size":"3","rx":2}"#;
    let says = [ACK_TRADE, ACK_QUOTE, past];
    let watched = watch_with(&["--from", "-30s"], Look::Table, &says, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "it may begin with any number: {}", watched.err);
    assert!(watched.out.contains("\x1b[90mc:A") && watched.out.contains("past"), "grey: {}", watched.out);
    for request in &watched.requests {
        assert!(request.ends_with(r#""from":"-30s","mode":"every"}"#), "{request}");
    }
    let joined = [&says[..], &[r#"{"type":"joined","time":1,"missed":3}"#]].concat();
    let watched = watch_with(&["--from", "-30s"], Look::Table, &joined, Then::Close).await;
    assert!(watched.err.contains("joined: 3 ticks of the past were no longer kept"), "{}", watched.err);
    assert!(watched.err.contains("nothing to measure"), "what is of the past is not late: {}", watched.err);
}

#[tokio::test]
async fn a_table_shows_the_newest_and_gives_the_cursor_back() {
    let watched = watch_with(&[], Look::Table, &GOOD, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held);
    assert!(watched.out.starts_with("\x1b[?25l") && watched.out.ends_with("\x1b[?25h"), "{}", watched.out);
    assert!(watched.out.contains("\x1b[90mc:A     stale  1.20  1.30  1.25"), "{}", watched.out);
}

#[tokio::test]
async fn a_lost_quote_breaks_the_rule() {
    let watched = watch(&[ACK_TRADE, ACK_QUOTE, SNAP, QUOTE, QUOTE], Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Broke);
    assert!(watched.err.contains("c:A quote: expected seq - n = 12, got 8 (seq 12, n 4)"), "{}", watched.err);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_breaks_the_rule() {
    let watched = watch(&[ACK_TRADE, ACK_QUOTE, r#"{"type":"trade""#], Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Broke, "{}", watched.err);
}

#[tokio::test]
async fn a_bye_is_shown_and_is_no_break() {
    let watched = watch(&[ACK_TRADE, ACK_QUOTE, SNAP, BYE], Then::Vanish).await;
    assert_eq!(watched.verdict, WatchVerdict::Held);
    assert!(watched.err.contains("bye from the server: shutdown (4001)\n"), "{}", watched.err);
    assert!(watched.err.contains("the stream ended: "), "{}", watched.err);
}

#[tokio::test]
async fn a_connection_that_ends_before_its_time_says_why_and_is_no_success() {
    for (then, says) in [
        (
            Then::CloseWith(4000, "slow_consumer"),
            "closed with 4000: slow_consumer (this client was too slow)\n",
        ),
        (
            Then::CloseWith(4503, "room_ended"),
            "closed with 4503: room_ended (the room of the replay has ended)\n",
        ),
        (Then::Vanish, "the connection went away without a close\n"),
    ] {
        let watched = watch(&GOOD, then).await;
        assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
        assert!(watched.err.contains("tickfan watch: the connection ended after 0."), "{}", watched.err);
        assert!(watched.err.ends_with(says), "{says}{}", watched.err);
        // The received messages were accounted for nevertheless.
        assert!(watched.err.contains("the accounting rule held\n"), "{}", watched.err);
    }
    // The ordinary end of the gateway is early if the requested duration is not over.
    let watched = watch_with(&["--for", "75s"], Look::Counts, &GOOD, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
    assert!(
        watched.err.contains(" of 75.0 s: closed with 4001: shutdown (the gateway stops"),
        "{}",
        watched.err
    );
}

#[tokio::test]
async fn a_symbol_that_never_comes_is_waited_for_and_is_no_success() {
    let wait = |says: &'static [&'static str]| watch_with(&["--for", "50ms"], Look::Counts, says, Then::Stay);
    let watched = wait(&[HELLO, WAIT_TRADE, WAIT_QUOTE]).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
    let says = "waiting for c:A: the gateway has seen nothing of it yet\n";
    assert_eq!(watched.err.matches(says).count(), 1, "once for both channels: {}", watched.err);
    assert!(watched.err.ends_with("tickfan watch: never came: c:A, c:B\n"), "{}", watched.err);
    // One of them is received, by a tick or by its state.
    for came in [SNAP, STATUS] {
        let watched =
            watch_with(&["--for", "50ms"], Look::Counts, &[WAIT_TRADE, WAIT_QUOTE, came], Then::Stay).await;
        assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
        assert!(watched.err.ends_with("tickfan watch: never came: c:B\n"), "{}", watched.err);
    }
    const B: &str = r#"{"type":"status","symbol":"c:B","state":"live"}"#;
    let watched = wait(&[WAIT_TRADE, WAIT_QUOTE, SNAP, B]).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "{}", watched.err);
    let watched = watch_with(&[], Look::Counts, &[WAIT_TRADE, WAIT_QUOTE, SNAP], Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "nor by the ordinary end: {}", watched.err);
}

#[tokio::test]
async fn a_symbol_that_is_rejected_never_came() {
    let says = [HELLO, PART_TRADE, PART_QUOTE, TRADE];
    let watched = watch_with(&["--for", "50ms"], Look::Counts, &says, Then::Stay).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
    assert!(watched.err.contains("rejected: FOO (quote): unknown_symbol\n"), "{}", watched.err);
    let last = "tickfan watch: never came: FOO (rejected for trade, quote), c:A (rejected for quote)\n";
    assert!(watched.err.ends_with(last), "{}", watched.err);
    // The ordinary end does not change that.
    let watched = watch(&says, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
}

#[tokio::test]
async fn a_wildcard_under_which_nothing_comes_is_no_success() {
    let wait = |says: &'static [&'static str]| watch_with(&["--for", "50ms"], Look::Counts, says, Then::Stay);
    let watched = wait(&[WILD_TRADE, WILD_QUOTE]).await;
    assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
    let none = "(no symbol under it)";
    let last = format!("tickfan watch: never came: * {none}, c:* {none}, demo:* {none}\n");
    assert!(watched.err.ends_with(&last), "{}", watched.err);
    // By a tick, even before the second answer, or by a state other than waiting.
    const WAITING: &str = r#"{"type":"status","symbol":"demo:B","state":"waiting"}"#;
    let last = format!("tickfan watch: never came: demo:* {none}\n");
    for watched in [
        wait(&[WILD_TRADE, TRADE, WILD_QUOTE, WAITING]).await,
        wait(&[WILD_TRADE, WILD_QUOTE, STATUS, WAITING]).await,
    ] {
        assert_eq!(watched.verdict, WatchVerdict::Short, "{}", watched.err);
        assert!(watched.err.ends_with(&last), "{}", watched.err);
    }
    const DEMO: &str = r#"{"type":"status","symbol":"demo:B","state":"live"}"#;
    let watched = wait(&[WILD_TRADE, WILD_QUOTE, SNAP, DEMO]).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "{}", watched.err);
}

#[tokio::test]
async fn who_is_refused_everything_has_nothing_to_watch() {
    let watched = watch(&[HELLO, NONE_TRADE, ERROR_QUOTE], Then::Stay).await;
    assert_eq!(watched.verdict, WatchVerdict::Failed);
    assert!(watched.err.contains("rejected: FOO (trade): unknown_symbol\n"), "{}", watched.err);
    assert!(watched.err.contains("the server refused: no (bad_request)\n"), "{}", watched.err);
    assert!(watched.err.contains("refused every subscription\n"), "{}", watched.err);
}

#[tokio::test]
async fn one_channel_is_enough() {
    let watched = watch(&[ACK_TRADE, ERROR_QUOTE, TRADE], Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held);
}

#[tokio::test]
async fn a_server_that_leaves_before_its_answer_is_a_failure() {
    for then in [Then::Close, Then::Vanish] {
        let watched = watch(&[HELLO, BYE], then).await;
        assert_eq!(watched.verdict, WatchVerdict::Failed);
        assert!(watched.err.contains("accepted no subscription: "), "{}", watched.err);
    }
}

#[tokio::test]
async fn the_time_runs_from_the_answers() {
    let watched = watch_with(&["--for", "1ms"], Look::Counts, &[ACK_TRADE, ACK_QUOTE], Then::Stay).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "{}", watched.err);
    assert!(!watched.err.contains("the stream ended"), "{}", watched.err);
}

#[tokio::test]
async fn a_slow_watcher_tells_the_ladder_and_misses_nothing() {
    const SHED: &str = r#"{"type":"lag","level":"shed","behind_ms":3120,"queued_bytes":0,"cut_in_ms":19000,"merged":3,"dropped":0}"#;
    const OK: &str = r#"{"type":"lag","level":"ok","behind_ms":0,"queued_bytes":0,"merged":3,"dropped":4}"#;
    let says = [HELLO, ACK_TRADE, ACK_QUOTE, SNAP, LAG, SHED, QUOTE, TRADE, GAP, OK, BYE];
    let watched = watch_with(&["--slow", "4000", "--on-slow", "cut"], Look::Counts, &says, Then::Close).await;
    assert_eq!(watched.verdict, WatchVerdict::Held, "{}", watched.err);
    for line in [
        "lag: warn, 420 ms behind\n",
        "lag: shed, 3,120 ms behind, cut in 19,000 ms; so far merged 3, dropped 0\n",
        "lag         ok 1, warn 1, shed 1   at most 3,120 ms behind   told: merged 3, dropped 4   ok at the end\n",
        "the accounting rule held",
    ] {
        assert!(watched.err.contains(line), "{line} is missing in\n{}", watched.err);
    }
    let asked = watched.requests.iter().map(|text| text.contains(r#""on_slow":"cut""#));
    assert_eq!(asked.collect::<Vec<_>>(), [true, false], "of quotes that are the latest nothing is lost");
}

#[tokio::test]
async fn who_cannot_connect_names_the_address_and_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
    drop(listener);
    for (url, cause) in [(url.as_str(), "refused"), ("http://127.0.0.1/ws", "URL"), ("wss://127.0.0.1:1", "")]
    {
        let (screen, _, err) = screen(Look::Counts);
        let args = args(&["--url", url, "*"]).expect("good arguments");
        assert_eq!(run_on(&args, &Clock::real(), screen).await, WatchVerdict::Failed);
        let err = err.text();
        assert!(err.starts_with(&format!("tickfan watch: cannot connect to {url}: ")), "{err}");
        assert!(err.contains(cause), "{err}");
    }
}

#[tokio::test]
async fn an_http_answer_is_told() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}/nowhere", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\ntry /ws";
        stream.write_all(answer).await.expect("is read");
    });
    let (screen, _, err) = screen(Look::Counts);
    let args = args(&["--url", &url, "*"]).expect("good arguments");
    assert_eq!(run_on(&args, &Clock::real(), screen).await, WatchVerdict::Failed);
    assert!(err.text().contains("the server answered 404 Not Found"), "{}", err.text());
}

#[tokio::test]
async fn a_reader_that_has_enough_ends_the_watch_in_peace() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (url, task) = server(GOOD.to_vec(), Then::Stay).await;
    let args = args(&["--url", &url, "--json", "*"]).expect("good arguments");
    let err = Page::default();
    let screen = Screen::new(Box::new(Closed), Box::new(err.clone()), Look::Json);
    assert_eq!(run_on(&args, &Clock::real(), screen).await, WatchVerdict::Held, "{}", err.text());
    task.await.expect("the server is content");
}

#[test]
fn arguments_have_units_and_defaults() {
    Cli::command().debug_assert();
    let plain = args(&["*"]).expect("enough");
    assert_eq!((plain.url.as_str(), plain.channels), ("ws://127.0.0.1:8080/ws", Channel::ALL.to_vec()));
    assert_eq!((plain.duration, plain.mode, plain.max_hz, plain.json), (None, None, None, false));
    assert_eq!((plain.slow, plain.on_slow), (None, None));
    let full =
        args(&["--channel", "quote", "--channel", "trade", "--for", "2m", "--max-hz", "0.5", "a", "b"]);
    let full = full.expect("good arguments");
    assert_eq!(full.channels, [Channel::Quote, Channel::Trade]);
    assert_eq!(full.duration, Some(Duration::from_secs(120)));
    assert_eq!(full.max_hz.map(|hz| hz.to_string()), Some("0.5".to_owned()));
    for bad in [
        vec![],
        vec!["--channel", "book", "*"],
        vec!["--for", "10", "*"],
        vec!["--for", "0s", "*"],
        vec!["--for", "0ms", "*"],
        vec!["--for", "s", "*"],
        vec!["--for", "1.5", "*"],
        vec!["--for", "99999999999999999999s", "*"],
        vec!["--max-hz", "0", "*"],
        vec!["--max-hz=-1", "*"],
        vec!["--max-hz", "fast", "*"],
        vec!["--slow", "0", "*"],
        vec!["--on-slow", "merge", "*"],
    ] {
        assert!(args(&bad).is_err(), "{bad:?}");
    }
}
