//! Connections: heads and bodies that are not whole, their number, and the shutdown.

use super::*;

#[test]
fn malformed_heads_get_an_answer() {
    let door = plain();
    let long = "x".repeat(20_000);
    let many: String = (0..101).map(|n| format!("h{n}: x\r\n")).collect();
    for (what, bytes, status) in [
        ("garbage", "\u{1}\u{2}\u{3} garbage\r\n\r\n".to_owned(), 400),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}".to_owned(), 400),
        ("bad version", "GET / HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("bad header", "GET / HTTP/1.1\r\nHost h\r\n\r\n".to_owned(), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("long target", format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
        ("long header", format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {long}\r\n\r\n"), 431),
        ("endless header", format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}", "x".repeat(200_000)), 431),
        ("many headers", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
    ] {
        let answer = door.raw(bytes.as_bytes());
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.has("content-type: application/json"), "{what}: {}", answer.head);
        let words: &[&str] = if status == 431 { &["16384 bytes", "100 lines"] } else { &[""] };
        assert!(words.iter().all(|word| answer.error().contains(word)), "{what}: {}", answer.body);
    }
    // F26: more symbols than an address has room for.
    let symbols: Vec<String> = (0..1_000).map(|n| format!("demo:{n:064}")).collect();
    let answer = door.request(&format!("GET /ws?symbols={}", symbols.join(",")), &handshake());
    assert_eq!(answer.status, 431);
    assert!(answer.error().contains("16384 bytes") && answer.error().contains("messages"), "{}", answer.body);
    // On a connection that was good before, too.
    let mut stream = door.connect();
    let asked = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    stream.write_all(asked.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    let answer = Answer::read(&mut stream);
    assert!(answer.status == 431 && answer.error().contains("16384 bytes"), "{}", answer.body);
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0, "nothing comes behind it");
    let good: String = (0..98).map(|n| format!("h{n}: x\r\n")).collect();
    assert_eq!(door.request("GET /healthz", &good).status, 200, "a hundred headers are fine");
}

#[test]
fn a_head_that_breaks_off_gets_an_answer() {
    let door = plain();
    let mut stream = door.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(Answer::read(&mut stream).status, 400);
}

#[test]
fn bodies_are_bounded() {
    let door = plain();
    let short = door.request("GET /healthz", "Content-Length: 0\r\n");
    assert_eq!(short.status, 200);
    for header in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut stream = door.connect();
        let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        stream.write_all(&[head.as_bytes(), &[b'x'; 50_000]].concat()).expect("sent");
        let answer = Answer::read(&mut stream);
        assert_eq!(answer.status, 413, "{header}");
        assert!(answer.has("connection: close"));
    }
}

#[test]
fn a_half_sent_head_gets_408_and_silence_gets_silence() {
    let limits = HttpLimits { head_timeout_ms: 200, idle_timeout_ms: 600, ..HttpLimits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut stream = door.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("too long"));
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    assert_eq!(door.stats.timeouts.load(Ordering::SeqCst), 1);

    // Also for the second request, which begins in the packet of the first.
    let mut stream = door.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he").expect("sent");
    assert_eq!(Answer::read(&mut stream).status, 200);
    assert_eq!(Answer::read(&mut stream).status, 408);

    for before in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = door.connect();
        stream.write_all(before.as_bytes()).expect("sent");
        if !before.is_empty() {
            assert_eq!(Answer::read(&mut stream).status, 200);
        }
        assert_eq!(stream.read(&mut [0]).expect("closed"), 0, "idle connections end without a word");
    }
}

#[test]
fn connections_over_the_limit_get_503() {
    let limits = HttpLimits { connections_max: 1, ..HttpLimits::default() };
    let door = door(|options| options.limits = limits, false);
    let mut first = door.connect();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(&mut first).status, 200);
    let answer = door.request("GET /healthz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("too many"));
    // A session does not count: its socket has left.
    let head = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n", handshake());
    first.write_all(head.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut first).status, 101);
    door.sessions.recv_timeout(PATIENCE).expect("handed over");
    let admitted = (0..10_000).any(|_| door.request("GET /healthz", "").status == 200);
    assert!(admitted, "there is room again");
    assert!(door.stats.refused_full.load(Ordering::SeqCst) >= 1);
}

#[test]
fn shutdown_ends_idle_connections_and_the_listener() {
    let mut door = plain();
    let mut idle = door.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    assert_eq!(Answer::read(&mut idle).status, 200);
    let mut fresh = door.connect();
    door.stop.take().expect("once").send(()).expect("serving");
    assert_eq!(idle.read(&mut [0]).expect("closed"), 0);
    // Accepted and closed, or never accepted and reset: ended in any case.
    assert!(matches!(fresh.read(&mut [0]), Ok(0) | Err(_)));
    door.served.recv_timeout(PATIENCE).expect("serve returns");
    assert!(TcpStream::connect(door.addr).is_err());
}
