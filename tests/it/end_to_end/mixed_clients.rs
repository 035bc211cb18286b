//! Bad clients beside good ones, and more than there are files for.

use super::*;

/// A message that is too deep for anybody, and as long as is allowed.
fn nested(field: &str) -> String {
    format!("{{\"op\":\"list\",\"{field}\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000))
}

/// The longest message that a client was told it may send.
fn frame_bytes(client: &RawSocket) -> usize {
    client.hello["limits"]["frame_bytes"].as_u64().expect("a limit") as usize
}

/// What bad clients do, one by one.
const MISDEEDS: [fn(&Gateway); 11] = [
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        for (text, code) in
            [(nested("after").as_str(), "bad_request"), (r#"{"op":"fly","id":1}"#, "unknown_op")]
        {
            client.text(text);
            let error = client.message();
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
        }
        // What is unknown is left alone, however deep.
        client.text(&nested("x"));
        assert_eq!(client.message()["type"], "ack");
        // The longest message that is allowed is answered, and so is all that follows.
        let long = r#"{"op":"list","id":7}"#.to_owned();
        client.text(&(long.clone() + &" ".repeat(frame_bytes(&client) - long.len())));
        assert_eq!(client.message()["id"], 7);
        client.send(FIN | CLOSE, &1000u16.to_be_bytes());
        assert_eq!(client.close_frame(), 1000);
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(FIN | BINARY, br#"{"op":"list"}"#);
        assert_eq!(client.goodbye(), (1003, 1003));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(FIN | TEXT, b"{\"op\":\"\xff\xfe\"}");
        assert_eq!(client.goodbye(), (1007, 1007));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        let longest = frame_bytes(&client);
        client.text(&"x".repeat(longest + 1));
        assert_eq!(client.goodbye(), (1009, 1009));
        // In pieces it is just as long.
        let mut client = RawSocket::open(gateway, "");
        client.send(TEXT, &vec![b'x'; longest / 2]);
        client.send(FIN | CONTINUATION, &vec![b'x'; longest / 2 + 1]);
        assert_eq!(client.goodbye(), (1009, 1009));
        // Nobody waits for what a length promises.
        let mut client = RawSocket::open(gateway, "");
        client.bytes(&header(FIN | TEXT, 1 << 40, true));
        client.bytes(&[0; 4]);
        assert_eq!(client.goodbye(), (1009, 1009));
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.bytes(&header(FIN | TEXT, 2, false));
        client.bytes(b"{}");
        assert_eq!(client.goodbye(), (1002, 1002));
    },
    |gateway| {
        // A reserved opcode, a reserved bit, a control frame in pieces, a continuation of nothing.
        for first in [FIN | 3, FIN | TEXT | 0x40, PING, FIN | CONTINUATION] {
            let mut client = RawSocket::open(gateway, "");
            client.send(first, b"{}");
            assert_eq!(client.goodbye(), (1002, 1002), "{first:#x}");
        }
    },
    |gateway| {
        let mut client = RawSocket::open(gateway, "");
        client.send(TEXT, br#"{"op":"#);
        client.send(FIN | PING, b"between the pieces");
        assert_eq!(client.frame(), (PONG, b"between the pieces".to_vec()));
        client.send(CONTINUATION, br#""ping","#);
        client.send(CONTINUATION, b"");
        client.send(FIN | CONTINUATION, br#""t":5}"#);
        let pong = client.message();
        assert_eq!((&pong["type"], &pong["t"]), (&json!("pong"), &json!(5)));
        for payload in [&b""[..], &[0, 255, 10], &[7; 125]] {
            client.send(FIN | PING, payload);
            assert_eq!(client.frame(), (PONG, payload.to_vec()));
        }
        // Nobody asked for it, and nobody minds.
        client.send(FIN | PONG, b"unasked");
        client.text(r#"{"op":"list"}"#);
        assert_eq!(client.message()["op"], "list");
    },
    |gateway| {
        // One byte at a time.
        let mut client = RawSocket::open(gateway, "");
        let mut frame = header(FIN | TEXT, 13, true);
        frame.extend([0; 4]);
        frame.extend(br#"{"op":"list"}"#);
        frame.chunks(1).for_each(|byte| client.bytes(byte));
        assert_eq!(client.message()["op"], "list");
    },
    |gateway| {
        let sessions = gateway.metric_sum("tickfan_sessions");
        let mut client = RawSocket::open(gateway, "?symbols=*");
        assert_eq!(client.message()["type"], "ack");
        // In the middle of a frame.
        client.bytes(&header(FIN | TEXT, 100, true));
        client.vanish();
        eventually("the session is gone", || gateway.metric_sum("tickfan_sessions") == sessions);
    },
    |gateway| {
        // It asks for everything and then reads nothing, until it is gone.
        let sessions = gateway.metric_sum("tickfan_sessions");
        let mut client = RawSocket::open(gateway, "?symbols=*&mode=every");
        for id in 0..2_000 {
            client.text(&format!("{{\"op\":\"symbols\",\"id\":{id}}}"));
        }
        client.vanish();
        eventually("the session is gone", || gateway.metric_sum("tickfan_sessions") == sessions);
    },
    |gateway| {
        // Closed from the other side, with a code and without.
        for (payload, code) in [(&4321u16.to_be_bytes()[..], 4321), (&[], 1005)] {
            let mut client = RawSocket::open(gateway, "?symbols=nowhere:X");
            assert_eq!(client.message()["rejected"][0]["code"], "unknown_symbol");
            client.send(FIN | CLOSE, payload);
            let (opcode, echo) = client.frame();
            assert_eq!((opcode, echo.as_slice()), (CLOSE, payload), "{code}");
        }
    },
];

#[test]
fn a_bystander_notices_nothing_of_bad_clients() {
    for threads in ["shard.threads=1", "shard.threads=2"] {
        // A bystander that has no core for a while is not slow.
        let patient = ["session.outbox_bytes_max=16777216", "session.shed_behind_ms=600000", threads];
        let args =
            [&["replay", "--speed", "5", "--loop"][..], &Gateway::settings(&patient), &SHIPPED].concat();
        let gateway = Gateway::start(&args);
        let mut bystander = python("bystander.py", &[&gateway.ws]);
        assert_eq!(bystander.line(), "subscribed");
        for misdeed in MISDEEDS {
            misdeed(&gateway);
            bystander.tell("and now?");
            assert_eq!(bystander.line(), "flows");
        }
        let summary = &bystander.end().values()[0];
        assert!(number(summary, "trades") + number(summary, "quotes") > 100, "{summary}");
        assert_eq!((missing(summary), number(summary, "merged")), (0, 0), "{summary}");
        stopped_quietly(gateway);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn clients_that_do_not_fit_in_the_files_of_the_process_are_refused() {
    let script = format!("ulimit -Sn 100; ulimit -Hn 600; exec {} \"$@\"", env!("CARGO_BIN_EXE_tickfan"));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", "replay", "--loop", "--set", "shard.threads=1", SHIPPED[0]]);
    let gateway = Gateway::run(command, "127.0.0.1:0");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process.id()));
    let limits = limits.expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a row");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["600", "600"], "it was raised");
    assert_eq!(gateway.metric_sum("tickfan_open_files_max"), 600);
    let most = gateway.metric_sum("tickfan_connections_max");
    assert!((100..600).contains(&most), "{most}");
    let clients: Vec<_> = (0..most).map(|_| RawSocket::open(&gateway, "")).collect();
    // Another is refused, and the page and health still have room.
    assert_eq!(RawSocket::status_of_handshake(&gateway), 503);
    assert_eq!(gateway.readyz(), 200);
    assert_eq!(gateway.metric_sum("tickfan_http_accept_errors_total"), 0);
    drop(clients);
    let ended = gateway.stop();
    let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("limits.connections_max")).collect();
    assert!(
        matches!(told[..], [line] if line.contains(" 600 ") && line.contains(&format!(": {most} are"))),
        "{told:?}"
    );
}
