//! Slow clients, silent ones and those that vanish, over real sockets against the real binary: what they are told,
//! what they are cut for, and that nobody else pays for it. `TICKFAN_SLOW_SECONDS=60` is the long form.

use std::io::Write;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{
    BINARY, CLOSE, CONTINUATION, Capture, FIN, Gateway, PATIENCE, PING, PONG, RawSocket, TEXT, TOKEN,
    connect, eventually, tickfan, undisturbed,
};

const FEED: &str = "feeds/coinbase.zst";
const EVERYTHING: &str = "?symbols=*&channel=trade,quote";

/// A capture that goes round and round.
fn looped(speed: &str, settings: &[&str]) -> Gateway {
    let args = [&["replay", "--loop", "--speed", speed][..], &Gateway::settings(settings), &[FEED]].concat();
    Gateway::start(&args)
}

/// A client on its own thread, until the gateway closes.
fn reads(client: Client) -> JoinHandle<Client> {
    std::thread::spawn(move || client.read_to_end())
}

/// Publishes so many trades of one symbol, and waits until they are in the ring.
fn publish(gateway: &Gateway, count: u64) {
    let before = gateway.metric_sum("tickfan_published_total");
    let mut publisher = connect(gateway.publish.expect("it listens"));
    writeln!(publisher, "{{\"op\":\"auth\",\"token\":\"{TOKEN}\"}}").expect("sent");
    let line = "{\"type\":\"trade\",\"symbol\":\"demo:ABC\",\"price\":\"1.25\",\"size\":\"3\"}\n";
    let block = line.repeat(100);
    for _ in 0..count / 100 {
        publisher.write_all(block.as_bytes()).expect("sent");
    }
    eventually("all is published", || gateway.metric_sum("tickfan_published_total") >= before + count);
}

// ---- the ladder ---------------------------------------------------------------------------------------

#[test]
fn stalled_clients_go_down_the_ladder_and_readers_do_not_notice() {
    let _undisturbed = undisturbed();
    const OUTBOX: u64 = 65_536;
    const READERS: usize = 60;
    const STALLED: usize = 6;
    let gateway = looped(
        "4",
        &[
            "shard.threads=1",
            "session.warn_behind_ms=100",
            "session.shed_behind_ms=200",
            "session.cut_after_ms=1500",
            "session.outbox_bytes_max=65536",
            // Its histograms, which come with the first ticks, are no memory of clients.
            "latency.interval_ms=0",
        ],
    );
    let readers: Vec<_> = (0..READERS).map(|_| reads(Client::open(&gateway, EVERYTHING))).collect();
    let before = gateway.resident();
    let stalled: Vec<_> = (0..STALLED).map(|_| Client::open_small(&gateway, EVERYTHING)).collect();
    let mut highest = before;
    eventually("the stalled ones are cut", || {
        highest = highest.max(gateway.resident());
        gateway.sessions() == READERS as u64
    });
    // A reader that has no core for a while may fill its outbox too.
    let bound = (READERS + STALLED) as u64 * (OUTBOX + 64 * 1_024);
    assert!(highest - before <= bound, "{} bytes for {STALLED} stalled clients", highest - before);

    for client in stalled {
        let client = client.read_to_end();
        let levels = client.levels();
        // A queue that is full before it is old goes on at once.
        let wanted: &[&str] =
            if levels.first() == Some(&"warn") { &["warn", "shed", "cut"] } else { &["shed", "cut"] };
        assert_eq!(levels, wanted, "{:?}", client.steps);
        assert_eq!(client.codes(), (Some(4_000), Some(4_000)));
        let bye = client.bye.as_ref().expect("last words");
        assert_eq!((bye.why.as_str(), bye.reconnect, bye.after_ms.is_some()), ("slow_consumer", true, true));
        for step in &client.steps {
            assert!(step.queued_bytes <= OUTBOX + 65_536, "{step:?}");
        }
        let cut = client.steps.iter().find(|step| step.level == "cut").expect("it was told");
        assert!(cut.cut_in_ms.is_some_and(|ms| ms <= 1_500), "{cut:?}");
    }
    gateway.process.signal("TERM");
    for reader in readers {
        let reader = reader.join().expect("its account is right");
        assert_eq!(reader.codes(), (Some(4_001), Some(4_001)));
        assert!(reader.ledger.heard_all().updates > 0);
    }
    assert_eq!(gateway.process.end().code(), Some(0));
}

#[test]
fn slow_readers_are_told_the_newest_and_are_whole_again_when_they_hurry() {
    let _undisturbed = undisturbed();
    let seconds =
        std::env::var("TICKFAN_SLOW_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6u32);
    let capture = Capture::generate("coinbase", "BTC-USD,ETH-USD,SOL-USD", seconds * 2 + 4, 600);
    let settings = Gateway::settings(&[
        "session.warn_behind_ms=200",
        "session.shed_behind_ms=1000",
        "session.outbox_bytes_max=32768",
        // Slow is not stalled, however slow the machine is.
        "session.cut_after_ms=60000",
    ]);
    let replay = ["replay", "--speed", "1", "--exit", "--wait-subscribers", "3"];
    let gateway = Gateway::start(&[&replay[..], &settings, &[capture.path()]].concat());
    let fast = reads(Client::open(&gateway, &format!("{EVERYTHING}&mode=every")));
    let slow = ["?symbols=*&channel=quote&mode=latest", "?symbols=*&channel=trade,quote&mode=every"];
    let slow = slow.map(|query| {
        let mut client = Client::open_small(&gateway, query);
        client.socket.read_at_most(Some(5_000));
        std::thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(u64::from(seconds)) {
                assert!(
                    client.step() && client.ledger.held(),
                    "{:?} {:?}",
                    client.bye,
                    client.ledger.breaks()
                );
            }
            client.socket.read_at_most(None);
            client.read_to_end()
        })
    });
    let [latest, every] = slow.map(|client| client.join().expect("its account is right"));
    let fast = fast.join().expect("its account is right");
    assert_eq!(gateway.process.end().code(), Some(0));
    for client in [&latest, &every] {
        assert!(client.steps.iter().any(|step| step.level == "shed"), "{:?}", client.steps);
        assert_eq!(client.steps.last().map(|step| step.level.as_str()), Some("ok"), "{:?}", client.steps);
        assert_eq!(client.codes(), (Some(4_001), Some(4_001)));
    }
    assert!(latest.ledger.heard_all().merged > 0);
    assert_eq!(latest.missing("slow_consumer"), 0);
    assert!(every.missing("slow_consumer") > 0);
    assert_eq!(every.ledger.heard_all().merged, 0);
    assert_eq!(every.told, fast.told);
    let quotes = fast.told.into_iter().filter(|((_, channel), _)| *channel == "quote");
    assert_eq!(latest.told, quotes.collect());
}

#[test]
fn the_newest_values_over_a_thin_link_are_newer_than_ticks_that_wait_in_line() {
    let _undisturbed = undisturbed();
    // Some 120 kB a second, of which each is read 20 kB.
    let gateway = looped("4", &[]);
    let ages = ["mode=latest", "mode=every"].map(|mode| {
        let mut client = Client::open_small(&gateway, &format!("{EVERYTHING}&{mode}"));
        client.socket.read_at_most(Some(20_000));
        std::thread::spawn(move || {
            let (start, mut ages) = (Instant::now(), Vec::new());
            while start.elapsed() < Duration::from_secs(20) {
                client.age_us = None;
                assert!(client.step() && client.ledger.held(), "{:?}", client.ledger.breaks());
                ages.extend(client.age_us.filter(|_| start.elapsed() > Duration::from_secs(8)));
            }
            ages.sort_unstable();
            (ages[ages.len() / 2], client)
        })
    });
    let [(latest_us, latest), (every_us, every)] =
        ages.map(|ages| ages.join().expect("its account is right"));
    assert!(latest.ledger.heard_all().merged > 0 && every.ledger.heard_all().merged == 0);
    assert_eq!(latest.missing("slow_consumer"), 0);
    assert!(every.missing("slow_consumer") > 0);
    assert!(
        2 * latest_us < every_us,
        "half of them are older than {latest_us} us, and {every_us} us in line"
    );
    drop((latest, every));
    gateway.stop();
}

#[test]
fn who_would_rather_be_cut_than_miss_a_tick_is_cut() {
    let gateway = looped(
        "20",
        &["session.outbox_bytes_max=65536", "session.shed_behind_ms=1000", "session.cut_after_ms=500000"],
    );
    let client = Client::open_small(&gateway, &format!("{EVERYTHING}&mode=every&on_slow=cut"));
    eventually("it is cut", || gateway.sessions() == 0);
    let client = client.read_to_end();
    assert_eq!(client.codes(), (Some(4_000), Some(4_000)));
    assert_eq!(client.missing("slow_consumer"), 0, "{:?}", client.ledger.gaps().collect::<Vec<_>>());
    assert_eq!(client.ledger.heard_all().merged, 0);
    gateway.stop();
}

// ---- the dead -----------------------------------------------------------------------------------------

#[test]
fn who_reads_but_answers_no_ping_is_closed_and_who_answers_is_not() {
    let settings = ["session.heartbeat_ms=500", "session.pong_timeout_ms=4000"];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let mut silent = RawSocket::open(&gateway, "");
    let answering = RawSocket::open(&gateway, "?symbols=demo:ABC");
    let mut asking = answering.sender();
    let deadline = Instant::now() + PATIENCE;
    let answering = std::thread::spawn(move || {
        let (mut answering, mut pings) = (answering, 0);
        loop {
            assert!(Instant::now() < deadline, "no pong after {pings} pings");
            match answering.frame() {
                (PING, payload) => {
                    pings += 1;
                    answering.send(FIN | PONG, &payload);
                }
                (TEXT, payload) if payload.starts_with(br#"{"type":"pong""#) => return pings,
                (TEXT, _) => {}
                (other, payload) => panic!("opcode {other}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    });
    let mut pings = 0;
    let bye = loop {
        assert!(Instant::now() < deadline, "still there after {pings} pings");
        let (opcode, payload) = silent.frame();
        match opcode {
            PING => pings += 1,
            TEXT => {
                let message: Value = serde_json::from_slice(&payload).expect("JSON");
                if message["type"] == "bye" {
                    break message;
                }
            }
            other => panic!("opcode {other} before the bye"),
        }
    };
    assert!(pings > 0, "nothing was asked");
    assert_eq!(
        (&bye["code"], &bye["why"], &bye["reconnect"]),
        (&json!(4_002), &json!("no_pong"), &json!(true))
    );
    assert_eq!(silent.close_frame(), 4_002);
    asking.text(r#"{"op":"ping","t":"still"}"#);
    assert!(answering.join().expect("it is still there") > 0);
    gateway.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_host_that_vanished_is_forgotten_and_nothing_else_ends_it() {
    // With much to send, and with next to nothing. What is slow or silent is cut sooner: a host that acknowledges nothing is
    // neither.
    let settings = [
        "session.dead_peer_ms=4000",
        "session.heartbeat_ms=1000",
        "session.pong_timeout_ms=2000",
        "session.shed_behind_ms=1000",
        "session.cut_after_ms=1500",
    ];
    for speed in ["5", "0.01"] {
        let Some(network) = crate::support::network::Network::new() else { return };
        let args =
            [&["replay", "--loop", "--speed", speed][..], &Gateway::settings(&settings), &[FEED]].concat();
        let gateway = Gateway::listening("0.0.0.0:0", &args);
        let watch = network.watch(&gateway);
        eventually("it is subscribed", || gateway.metric_sum("tickfan_sessions_subscribed") == 1);
        network.unplug();
        let since = Instant::now();
        eventually("it is forgotten", || gateway.sessions() == 0);
        assert!(since.elapsed() > Duration::from_millis(3_500), "after {:?}", since.elapsed());
        let ended = gateway.metric("tickfan_sessions_ended_total");
        let ended: Vec<_> = ended.iter().filter(|(_, count)| *count > 0).collect();
        assert!(matches!(ended[..], [(labels, 1)] if labels.contains("cause=\"dead_peer\"")), "{ended:?}");
        drop((watch, network));
        gateway.stop();
    }
}

// ---- limits -------------------------------------------------------------------------------------------

#[test]
fn too_many_pieces_or_control_frames_close_the_connection() {
    let settings = ["limits.fragments_per_message=4", "limits.control_frames_per_s=5"];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    // As many as are allowed.
    let mut client = RawSocket::open(&gateway, "");
    client.send(TEXT, br#"{"op""#);
    client.send(CONTINUATION, br#":"li"#);
    client.send(CONTINUATION, br#"st""#);
    client.send(FIN | CONTINUATION, b"}");
    assert_eq!(client.message()["op"], "list");
    // One more, and it does not matter how little is in them.
    client.send(TEXT, b"");
    for _ in 0..4 {
        client.send(CONTINUATION, b"");
    }
    assert_eq!(client.goodbye(), (4_502, 4_502));

    for opcode in [PING, PONG] {
        let mut client = RawSocket::open(&gateway, "");
        for _ in 0..100 {
            client.send(FIN | opcode, b"x");
        }
        // Those within the limit are answered.
        let code = loop {
            let (opcode, payload) = client.frame();
            if opcode == TEXT {
                let bye: Value = serde_json::from_slice(&payload).expect("JSON");
                assert_eq!((&bye["type"], &bye["reconnect"]), (&json!("bye"), &json!(false)), "{bye}");
                break bye["code"].as_u64();
            }
            assert_eq!(opcode, PONG);
        };
        assert_eq!((code, client.close_frame()), (Some(4_502), 4_502));
    }
    gateway.stop();
}

#[test]
fn answers_to_our_own_pings_are_not_limited() {
    // A burst as long as a kernel takes in at once has more pings in it than a client may send pongs.
    let settings = ["limits.control_frames_per_s=5", "session.outbox_bytes_max=4000000"];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let query = "?symbols=demo:ABC&channel=trade&mode=every";
    let mut client = Client::over(RawSocket::open_sized(&gateway, query, 4 << 20));
    publish(&gateway, 10_000);
    eventually("all is sent, or waits for an answer", || gateway.metric_sum("tickfan_sent_total") == 10_000);
    while client.told.values().ne([&10_000]) {
        assert!(client.step(), "closed: {:?}", client.bye);
    }
    assert!(client.pongs > 30, "{} pings", client.pongs);
    assert_eq!(client.missing("slow_consumer"), 0);
    gateway.stop();
}

#[test]
fn one_address_has_so_many_connections() {
    let gateway = Gateway::publishing(r#"["demo"]"#, &["limits.connections_per_address=2"]);
    let first = RawSocket::open(&gateway, "");
    let _second = RawSocket::open(&gateway, "");
    assert_eq!(RawSocket::status_of_handshake(&gateway), 429);
    drop(first);
    eventually("there is room again", || RawSocket::status_of_handshake(&gateway) == 101);
    gateway.stop();
}

// ---- the end ------------------------------------------------------------------------------------------

#[test]
fn a_stopping_gateway_sends_what_it_has_and_spreads_its_clients_return() {
    const TICKS: u64 = 200;
    let gateway = Gateway::publishing(r#"["demo"]"#, &["session.drain_spread_ms=5000"]);
    let query = "?symbols=demo:ABC&channel=trade&mode=every";
    let clients: Vec<_> = (0..50).map(|_| Client::open(&gateway, query)).collect();
    publish(&gateway, TICKS);
    gateway.process.signal("TERM");
    let mut after = Vec::new();
    for client in clients {
        let client = client.read_to_end();
        assert_eq!(client.codes(), (Some(4_001), Some(4_001)));
        assert_eq!(client.told.values().copied().collect::<Vec<_>>(), [TICKS]);
        assert_eq!((client.ledger.heard_all().ticks, client.ledger.gaps_all().count), (TICKS, 0));
        let bye = client.bye.expect("last words");
        assert_eq!((bye.why.as_str(), bye.reconnect), ("shutdown", true));
        after.push(bye.after_ms.expect("a time"));
    }
    assert!(after.iter().all(|ms| *ms < 5_000), "{after:?}");
    assert!(after.iter().any(|ms| *ms != after[0]), "{after:?}");
    assert_eq!(gateway.process.end().code(), Some(0));
}

// ---- what the operator sees ---------------------------------------------------------------------------

/// What `/api/clients` says.
fn clients(gateway: &Gateway, query: &str) -> (Vec<Value>, u64) {
    let (status, body) = Gateway::get(gateway.admin, &format!("/api/clients{query}"));
    assert_eq!(status, 200, "{body}");
    let mut answer: Value = serde_json::from_str(&body).expect("JSON");
    let Value::Array(rows) = answer["clients"].take() else { panic!("{body}") };
    (rows, answer["total"].as_u64().expect("a count"))
}

fn figure(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_else(|| panic!("{name} of {row}"))
}

/// Each row adds up, and all of them together are what is counted.
fn adds_up(gateway: &Gateway) -> bool {
    let (rows, _) = clients(gateway, "?sort=behind&limit=100");
    let parts = ["sent", "merged", "dropped", "lost"];
    for row in &rows {
        let told: u64 = parts.iter().map(|part| figure(row, part)).sum();
        assert_eq!(figure(row, "offered"), told + figure(row, "pending"), "{row}");
    }
    parts.iter().all(|part| {
        let sum: u64 = rows.iter().map(|row| figure(row, part)).sum();
        sum == gateway.metric_sum(&format!("tickfan_{part}_total"))
    })
}

#[test]
fn each_end_of_a_connection_is_counted_by_its_cause() {
    let gateway = Gateway::publishing(r#"["demo"]"#, &[]);
    type Leave = fn(RawSocket);
    let ways: [(&str, Leave); 8] = [
        ("closed", |mut socket| {
            socket.send(FIN | CLOSE, &1_000u16.to_be_bytes());
            assert_eq!(socket.close_frame(), 1_000);
        }),
        ("left", drop),
        ("reset", RawSocket::vanish),
        ("text_only", |mut socket| socket.send(FIN | BINARY, b"x")),
        ("not_utf8", |mut socket| socket.send(FIN | TEXT, b"\xff")),
        ("protocol_error", |mut socket| socket.bytes(&[0x83, 0x80, 0, 0, 0, 0])),
        ("message_too_big", |mut socket| socket.send(FIN | TEXT, &[b' '; 300_000])),
        ("limit", |mut socket| (0..100).for_each(|_| socket.send(FIN | PONG, b"x"))),
    ];
    let ended = || -> Vec<(String, u64)> {
        let rows = gateway.metric("tickfan_sessions_ended_total");
        let cause = |labels: &str| labels.split('"').rev().nth(1).expect("a cause").to_owned();
        rows.iter().filter(|(_, count)| *count > 0).map(|(labels, count)| (cause(labels), *count)).collect()
    };
    for (n, (_, leave)) in ways.iter().enumerate() {
        leave(RawSocket::open(&gateway, ""));
        eventually("it is counted", || ended().iter().map(|(_, count)| count).sum::<u64>() == n as u64 + 1);
    }
    let mut wanted: Vec<_> = ways.iter().map(|(cause, _)| ((*cause).to_owned(), 1)).collect();
    let mut counted = ended();
    wanted.sort();
    counted.sort();
    assert_eq!(counted, wanted);
    gateway.stop();
}

#[test]
fn each_client_is_on_one_page_of_the_list() {
    const CLIENTS: usize = 23;
    let gateway = Gateway::publishing(r#"["demo"]"#, &["shard.threads=3"]);
    let held: Vec<RawSocket> = (0..CLIENTS).map(|_| RawSocket::open(&gateway, "?symbols=demo:ABC")).collect();
    let name = |row: &Value| row["session"].as_str().expect("a name").to_owned();
    let mut expected: Vec<String> =
        held.iter().map(|socket| socket.hello["session"].as_str().expect("a name").to_owned()).collect();
    expected.sort_unstable();
    let all = |query: &str| Gateway::list(gateway.admin, &format!("/api/clients?{query}"), "clients");
    for (query, pages) in [
        ("sort=since&limit=1", CLIENTS),
        ("sort=since&limit=5", 5),
        ("sort=since&limit=23", 1),
        ("sort=since", 1),
        // All the same: threads and order of arrival separate them.
        ("sort=dropped&limit=4", 6),
    ] {
        let (rows, count) = all(query);
        let mut found: Vec<String> = rows.iter().map(name).collect();
        found.sort_unstable();
        assert_eq!((found, count), (expected.clone(), pages), "{query}");
    }
    // A client that comes or leaves meanwhile moves no other.
    let first: Value =
        serde_json::from_str(&Gateway::get(gateway.admin, "/api/clients?sort=since&limit=9").1)
            .expect("JSON");
    let later = RawSocket::open(&gateway, "");
    let next = first["next"].as_str().expect("there are more");
    let (rows, _) = all(&format!("sort=since&limit=20&after={next}"));
    let both = first["clients"].as_array().expect("rows").iter().chain(&rows).map(name);
    let mut both: Vec<String> = both.collect();
    both.sort_unstable();
    assert_eq!(both, expected);
    for bad in ["x", "1", "1.2", "1.2.x", "-1.0.0", "1.0.0.0", "99999999999999999999.0.0"] {
        let (status, body) = Gateway::get(gateway.admin, &format!("/api/clients?after={bad}"));
        assert!(status == 400 && body.contains("`after`"), "{bad}: {status} {body}");
    }
    drop((held, later));
    gateway.stop();
}

#[test]
fn the_operator_sees_who_is_behind_and_every_tick_of_each() {
    // More than the kernel holds for who reads nothing.
    const TICKS: u64 = 20_000;
    let settings = [
        "ring.capacity=65536",
        "session.outbox_bytes_max=16384",
        "session.shed_behind_ms=1000",
        "session.cut_after_ms=500000",
        "session.pong_timeout_ms=600000",
    ];
    let gateway = Gateway::publishing(r#"["demo"]"#, &settings);
    let query = "?symbols=demo:ABC&channel=trade&mode=every";
    let readers = [(); 2].map(|()| reads(Client::open(&gateway, query)));
    let stalled = Client::open_small(&gateway, query);
    publish(&gateway, TICKS);
    eventually("only the stalled one has something to come", || {
        let (rows, total) = clients(&gateway, "?sort=behind&limit=100");
        assert_eq!((rows.len(), total), (3, 3));
        rows[0]["state"] == "shedding" && rows[1..].iter().all(|row| figure(row, "pending") == 0)
    });
    let (rows, total) = clients(&gateway, "?sort=behind&limit=1");
    assert_eq!((rows.len(), total), (1, 3));
    let row = &rows[0];
    for name in ["session", "peer", "state", "level"] {
        assert!(row[name].is_string(), "{name} of {row}");
    }
    assert_eq!(figure(row, "offered"), TICKS);
    assert!(figure(row, "behind_ms") > 0 && figure(row, "pending") > 0 && figure(row, "since") > 0, "{row}");
    assert!(figure(row, "queued_bytes") <= 16_384 + 65_536, "{row}");
    assert!(figure(row, "kernel_unsent_bytes") > 0 && figure(row, "subscriptions") > 0, "{row}");
    eventually("the figures agree", || adds_up(&gateway));

    // It reads, and is like all the others.
    let stalled = reads(stalled);
    eventually("nothing is pending", || {
        clients(&gateway, "?sort=behind&limit=100").0.iter().all(|row| figure(row, "pending") == 0)
    });
    eventually("the figures agree", || adds_up(&gateway));
    gateway.process.signal("TERM");
    for client in readers.into_iter().chain([stalled]) {
        let client = client.join().expect("its account is right");
        assert_eq!(client.told.values().copied().collect::<Vec<_>>(), [TICKS]);
    }
    assert_eq!(gateway.process.end().code(), Some(0));
}

#[test]
fn a_gateway_without_file_descriptors_waits_for_one_and_does_not_spin() {
    let _undisturbed = undisturbed();
    let gateway = Gateway::run(tickfan(&["replay", "--loop", "--speed", "1", FEED]), "127.0.0.1:0");
    let failed = || gateway.metric_sum("tickfan_http_accept_errors_total");
    gateway.leave_files(20);
    let kept: Vec<_> = (0..60).map(|_| connect(gateway.http)).collect();
    // The admin listener is short of them too: it answers once some are given back.
    std::thread::sleep(Duration::from_millis(1_500));
    let cpu_ticks = gateway.cpu_ticks();
    std::thread::sleep(Duration::from_millis(1_000));
    // A hundredth of a second a tick: a loop that spins takes a hundred in a second.
    assert!(gateway.cpu_ticks() - cpu_ticks < 50, "it spins");
    drop(kept);
    eventually("it is there again", || failed() > 0);
    assert!((1..200).contains(&failed()), "{} accepts failed", failed());
    // Connections that waited with these are accepted, and closed, before it.
    eventually("a client is served", || RawSocket::status_of_handshake(&gateway) == 101);
    reads_a_little(&gateway);
    gateway.stop();
}

/// A client is served.
fn reads_a_little(gateway: &Gateway) {
    let mut client = Client::open(gateway, EVERYTHING);
    while client.told.is_empty() {
        assert!(client.step(), "it is not closed");
    }
}
