//! Lines over TCP: their numbers, their faults, and an ingest thread that takes none.

use super::*;

#[test]
fn lines_over_tcp_come_in_chunks_with_their_numbers() {
    let mut door = usual();
    // The first tick comes in the packet of the token, and the last has no end.
    let mut stream = door.tcp(&format!("{AUTH}a\nb"));
    assert_eq!(line(&mut stream), ACK);
    let (publisher, errors) = door.opened();
    let chunk = door.chunk();
    assert_eq!((chunk.publisher, chunk.first_line, &chunk.bytes[..]), (publisher, 2, &b"a\n"[..]));
    assert!(chunk.rx_ns > 1_700_000_000_000_000_000);
    let woken = async { tokio::time::timeout(PATIENCE, door.wake.notified()).await };
    door.runtime.as_ref().expect("running").block_on(woken).expect("the ingest thread is woken");
    stream.get_mut().write_all(b"c\n\nd").expect("sent");
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(numbered(&door.lines_to_the_end()), [(3, "bc"), (4, ""), (5, "d")]);

    // Faults found after the end are still told.
    errors.tell(LineFault { line: 5, msg: "`type` is missing".into() });
    drop(errors);
    let told = message(&line(&mut stream));
    assert_eq!(told, json!({"type": "error", "line": 5, "code": "bad_tick", "msg": "`type` is missing"}));
    assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
    let stats = door.publish.stats();
    assert_eq!(stats.lines.load(Ordering::SeqCst), 4);
    assert_eq!(stats.bytes.load(Ordering::SeqCst), 8);
    assert_eq!(stats.faults.load(Ordering::SeqCst), 1);
}

#[test]
fn a_line_too_long_is_named_and_skipped() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let text = format!("a\n{}\nb\n{}\n", "x".repeat(300_000), "y".repeat(65_536));
    stream.get_mut().write_all(text.as_bytes()).expect("sent");
    let told = message(&line(&mut stream));
    assert_eq!((&told["line"], &told["code"]), (&json!(3), &json!("bad_tick")));
    stream.get_ref().shutdown(Shutdown::Write).expect("half closed");
    let (_, errors) = door.opened();
    drop(errors);
    let lines = door.lines_to_the_end();
    assert_eq!(numbered(&lines[..2]), [(2, "a"), (4, "b")]);
    assert_eq!((lines.len(), lines[2].0, lines[2].1.len()), (3, 5, 65_536));
}

#[test]
fn faults_nobody_reads_are_counted_and_told_as_a_number() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let (_, errors) = door.opened();
    const FAULTS: u64 = 200_000;
    for n in 1..=FAULTS {
        errors.tell(LineFault { line: n, msg: "x".repeat(200) });
    }
    let mut told = 0;
    while told < FAULTS {
        let error = message(&line(&mut stream));
        told += match error["line"].as_u64() {
            Some(_) => 1,
            None => {
                let msg = error["msg"].as_str().expect("text");
                msg.strip_suffix(" more lines").expect(msg).parse::<u64>().expect("a number")
            }
        };
    }
    assert_eq!(told, FAULTS, "every fault is told or counted, once");
    let stats = door.publish.stats();
    assert_eq!(stats.faults.load(Ordering::SeqCst), FAULTS);
    assert!(stats.faults_untold.load(Ordering::SeqCst) > 0);
}

#[test]
fn faults_are_told_to_a_publisher_that_only_listens() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let (_, errors) = door.opened();
    // Each is more than may wait for a publisher at once.
    for n in 1..=5 {
        errors.tell(LineFault { line: n, msg: "x".repeat(20_000) });
    }
    for n in 1..=5 {
        assert_eq!(message(&line(&mut stream))["line"], n);
    }
}

#[test]
fn a_stalled_ingest_thread_stops_the_publisher_and_loses_nothing() {
    let mut door = door(PublishOptions::default(), 2);
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let socket = stream.get_mut();
    socket.set_write_timeout(Some(Duration::from_millis(200))).expect("timeout");
    // Nobody takes a chunk, so that the socket must fill up, however much the kernel buffers.
    let mut sent = Vec::new();
    let mut next = 0u64;
    let rest = 'full: loop {
        let block: String = (next..next + 1000).map(|n| format!("tick {n}\n")).collect();
        next += 1000;
        assert!(sent.len() < 1 << 30, "the publisher is not held back");
        let mut block = block.as_bytes();
        sent.extend_from_slice(block);
        while !block.is_empty() {
            match socket.write(block) {
                Ok(n) => block = &block[n..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break 'full block.to_vec();
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut socket = socket.try_clone().expect("a handle");
    let writer = std::thread::spawn(move || {
        socket.set_write_timeout(Some(PATIENCE)).expect("timeout");
        socket.write_all(&rest).expect("sent");
        socket.shutdown(Shutdown::Write).expect("half closed");
    });
    let (_, errors) = door.opened();
    drop(errors);
    let lines = door.lines_to_the_end();
    writer.join().expect("the writer ends");
    assert_eq!(lines.len() as u64, next);
    for (at, (number, text)) in lines.iter().enumerate() {
        assert_eq!((*number, text.as_str()), (at as u64 + 2, format!("tick {at}").as_str()));
    }
}

#[test]
fn stopping_sends_publishers_away() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    assert_eq!(line(&mut stream), ACK);
    let mut socket = door.ws(Some(BEARER)).expect("upgraded");
    let _errors = (door.opened(), door.opened());
    door.publish.stop();
    assert_eq!(message(&line(&mut stream))["code"], "shutdown");
    assert_eq!(message(socket.read().expect("told").to_text().expect("text"))["code"], "shutdown");
    assert!(matches!(socket.read(), Ok(Message::Close(Some(frame))) if u16::from(frame.code) == 4001));
    for _ in 0..2 {
        assert!(matches!(door.next(), PublishInput::Closed { .. }));
    }
}

#[test]
fn a_broken_connection_is_counted() {
    let mut door = usual();
    let mut stream = door.tcp(AUTH);
    // The answer is there and stays unread, so that closing resets the connection.
    assert_eq!(stream.get_ref().peek(&mut [0]).expect("the answer"), 1);
    stream.get_mut().write_all(b"cut of").expect("sent");
    drop(door.opened());
    drop(stream);
    assert_eq!(door.lines_to_the_end(), [], "a line that was cut off is no line");
    assert_eq!(door.publish.stats().resets.load(Ordering::SeqCst), 1);
}
