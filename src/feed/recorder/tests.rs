//! Tests of the recorder with simulated disks: full, stuck, and good.

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Condvar;

use super::*;
use crate::capture::{CaptureReader, RecordKind};
use crate::time::clock::Clock;

/// Files in memory, by path.
type Files = Arc<Mutex<HashMap<PathBuf, Vec<u8>>>>;

/// One of these files. It accepts `room` bytes, and none before its gate is open.
struct MemoryFile {
    files: Files,
    path: PathBuf,
    room: usize,
    gate: Gate,
}

#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("not poisoned") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("not poisoned");
        drop(self.0.1.wait_while(closed, |open| !*open).expect("not poisoned"));
    }
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gate.pass();
        let mut files = self.files.lock().expect("not poisoned");
        let file = files.entry(self.path.clone()).or_default();
        let n = bytes.len().min(self.room - file.len());
        file.extend_from_slice(&bytes[..n]);
        if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rig {
    recorder: Recorder,
    files: Files,
    gate: Gate,
    log: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

fn rig(change: impl FnOnce(&mut RecordOptions), room: usize) -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = RecordOptions {
        dir: folder.path().to_owned(),
        queue_bytes_max: 1 << 20,
        queue_frames_max: 1_000,
        segment_s: 3_600,
        flush_ms: 200,
        level: 3,
    };
    change(&mut options);
    let (notices, log) = mpsc::channel(8);
    let (files, gate) = (Files::default(), Gate::default());
    let (opened, passed) = (Arc::clone(&files), gate.clone());
    let open = move |path: &Path| {
        let path = path.to_owned();
        let file = MemoryFile { files: Arc::clone(&opened), path, room, gate: passed.clone() };
        Ok(Box::new(file) as Box<dyn Write + Send>)
    };
    let recorder = Recorder::opening(options, at(0), notices, Box::new(open));
    Rig { recorder, files, gate, log, _folder: folder }
}

const START_NS: u64 = 1_700_000_000 * SECOND;

fn at(ms: u64) -> Now {
    Now { mono_ns: ms * MS, wall_ns: START_NS + ms * MS }
}

/// The contents of the files in the order of their names: frames as text, other records as a word.
fn said(files: &Files) -> Vec<String> {
    let files = files.lock().expect("not poisoned");
    let mut names: Vec<&PathBuf> = files.keys().collect();
    names.sort();
    let mut said = Vec::new();
    for name in names {
        let mut reader = CaptureReader::from_read(name, Cursor::new(files[name].clone())).expect("a capture");
        while let Some(record) = reader.next_record() {
            said.push(match record.map(|record| (record.rx_ns, record.kind)) {
                Ok((rx_ns, RecordKind::Frame(frame))) => {
                    format!("{} {}", (rx_ns - START_NS) / MS, String::from_utf8_lossy(frame))
                }
                Ok((_, RecordKind::Segment(segment))) => format!("segment {}", segment.number),
                Ok((_, RecordKind::Connected(to))) => format!("connected {to}"),
                Ok((_, RecordKind::Disconnected)) => "disconnected".to_owned(),
                Ok((_, RecordKind::Joined)) => "joined".to_owned(),
                Ok((_, RecordKind::Dropped { frames })) => format!("dropped {frames}"),
                Ok((_, RecordKind::Note(note))) => {
                    String::from_utf8_lossy(&note[2..]).splitn(2, ' ').skip(1).collect()
                }
                Ok((_, RecordKind::Sent(_))) => "sent".to_owned(),
                Err(bad) => bad.to_string(),
            });
        }
    }
    said
}

fn rx(ms: u64) -> u64 {
    START_NS + ms * MS
}

#[test]
fn what_comes_is_written_in_its_order_with_its_notes() {
    let Rig { mut recorder, files, gate, .. } = rig(|_| {}, usize::MAX);
    gate.open();
    let mut tap = recorder.tap("kraken.1", WireFormat::Kraken, false).expect("a folder");
    tap.connected(rx(0), "wss://ws.kraken.com");
    tap.frame(rx(1), b"a");
    tap.frame(rx(2), b"{\n\"b\":\r1}");
    tap.gap(rx(2), 2);
    tap.disconnected(rx(3));
    tap.frame(rx(4), b"");
    let records = recorder.records();
    recorder.finish(at(10));
    assert_eq!(
        said(&files),
        [
            "segment 1",
            "connected wss://ws.kraken.com",
            "1 a",
            "2 { \"b\": 1}",
            "altered frames=1",
            "gap gaps=2",
            "disconnected",
            "4 ",
            "disconnected",
        ]
    );
    let name = files.lock().expect("not poisoned").keys().next().cloned().expect("a file");
    assert!(name.ends_with("kraken.1/2023-11-14T22-13-20.000000Z-00001.zst"), "{}", name.display());
    let record = &records[0];
    assert_eq!((record.frames.get(), record.altered.get(), record.dropped_frames.get()), (3, 1, 0));
    assert_eq!(record.bytes.get(), files.lock().expect("not poisoned")[&name].len() as u64);
    assert_eq!(record.alarm(), None);
}

#[test]
fn a_block_is_written_when_its_time_has_come_or_it_is_full() {
    let Rig { mut recorder, gate, .. } = rig(|options| options.queue_bytes_max = 8 << 20, usize::MAX);
    gate.open();
    let mut tap = recorder.tap("x", WireFormat::Native, false).expect("a folder");
    let record = Arc::clone(&recorder.records()[0]);
    tap.frame(rx(0), b"a");
    assert!(recorder.turn(at(1_000)), "something came");
    tap.frame(rx(1), b"b");
    recorder.turn(at(1_100));
    assert_eq!(record.frames.get(), 0, "its time has not come");
    assert!(!recorder.turn(at(1_180)));
    assert_eq!(record.frames.get(), 2, "within 200 ms, though nothing more came");
    for _ in 0..3 {
        tap.frame(rx(2), &[b'x'; 600_000]);
    }
    recorder.turn(at(1_190));
    assert_eq!(record.frames.get(), 4, "more than a megabyte does not wait");
}

#[test]
fn a_new_file_begins_with_each_hour_and_goes_on_where_the_last_one_ended() {
    let Rig { mut recorder, files, gate, .. } = rig(|options| options.segment_s = 10, usize::MAX);
    gate.open();
    let mut tap = recorder.tap("x", WireFormat::Kraken, false).expect("a folder");
    for ms in [0, 9_999, 10_000, 9_998, 31_000, 11_000] {
        tap.frame(rx(ms), b"f");
    }
    recorder.finish(at(0));
    let files_count = files.lock().expect("not poisoned").len();
    assert_eq!(
        files_count, 4,
        "none for ten seconds without a frame, none for a clock that stepped back a little"
    );
    assert_eq!(
        said(&files),
        [
            "segment 1",
            "0 f",
            "9999 f",
            "segment 2",
            "10000 f",
            "9998 f",
            "segment 3",
            "31000 f",
            "segment 4",
            "11000 f",
            "disconnected"
        ]
    );
}

#[test]
fn one_of_many_that_goes_ends_nothing() {
    let Rig { mut recorder, files, gate, .. } = rig(|_| {}, usize::MAX);
    gate.open();
    let mut one = recorder.tap("publish", WireFormat::Native, true).expect("a folder");
    let mut other = one.clone();
    one.frame(rx(0), b"a");
    other.frame(rx(1), b"b");
    one.disconnected(rx(2));
    other.frame(rx(3), b"c");
    recorder.finish(at(0));
    assert_eq!(said(&files), ["segment 1", "0 a", "1 b", "left", "3 c", "disconnected"]);
}

#[test]
fn a_stuck_disk_costs_frames_that_are_counted_and_named_and_the_feed_does_not_wait() {
    let Rig { mut recorder, files, gate, .. } = rig(|options| options.queue_frames_max = 100, usize::MAX);
    let mut tap = recorder.tap("x", WireFormat::Native, false).expect("a folder");
    let record = Arc::clone(&recorder.records()[0]);
    let thread = recorder.spawn(&Clock::real()).expect("a thread");
    const FRAMES: u64 = 10_000;
    // The gate is closed: if the tap waited for the disk, this would not end.
    for n in 0..FRAMES {
        tap.frame(rx(n), n.to_string().as_bytes());
    }
    assert!(record.dropped_frames.get() > FRAMES - 1_000, "{}", record.dropped_frames.get());
    assert_eq!(record.frames.get(), 0);
    gate.open();
    // Sends until the queue has room again.
    let dropped = record.dropped_frames.get();
    let mut more = 0;
    loop {
        tap.frame(rx(FRAMES + more), b"again");
        more += 1;
        if record.dropped_frames.get() < dropped + more {
            break;
        }
        std::thread::yield_now();
    }
    thread.stop();
    let said = said(&files);
    let named: u64 = said.iter().filter_map(|s| s.strip_prefix("dropped ")?.parse::<u64>().ok()).sum();
    assert_eq!(named, record.dropped_frames.get(), "each loss is named in the file");
    let frames: Vec<u64> = said.iter().filter_map(|s| s.split_once(' ')?.0.parse().ok()).collect();
    assert!(frames.is_sorted() && frames[0] == 0);
    assert_eq!(frames.len() as u64 + named, FRAMES + more, "none is neither written nor named");
    assert_eq!(frames.len() as u64, record.frames.get());
    assert!(record.alarm().is_some_and(|alarm| alarm.contains("were not recorded")));
}

#[test]
fn buffers_come_back_but_for_large_ones() {
    let mut rig = rig(|_| {}, usize::MAX);
    rig.gate.open();
    let mut tap = rig.recorder.tap("a.1", WireFormat::Kraken, false).expect("a folder");
    let queue = Arc::clone(&rig.recorder.queue);
    for round in 0..3 {
        (0..10).for_each(|n| tap.frame(rx(n), b"[]"));
        tap.frame(rx(10), &[b' '; SPARE_BYTES_MAX + 1]);
        assert_eq!(queue.spares.len(), 0, "all that there were are used, round {round}");
        rig.recorder.turn(at(10));
        assert_eq!(queue.spares.len(), 10, "round {round}");
    }
    // None of the kept buffers has grown to hold the long frame.
    (0..10).for_each(|n| tap.frame(rx(n), b"[]"));
    assert_eq!(queue.spares.len(), 0);
}

#[test]
fn more_bytes_than_may_wait_are_dropped() {
    let Rig { mut recorder, files, gate, .. } = rig(|options| options.queue_bytes_max = 10, usize::MAX);
    gate.open();
    let mut tap = recorder.tap("x", WireFormat::Native, false).expect("a folder");
    let record = Arc::clone(&recorder.records()[0]);
    tap.frame(rx(0), b"123456");
    tap.frame(rx(1), b"123456");
    tap.frame(rx(2), b"1234");
    recorder.turn(at(0));
    tap.frame(rx(3), b"1234567890");
    recorder.turn(at(0));
    tap.frame(rx(4), b"more than ten");
    recorder.finish(at(0));
    let expected =
        ["segment 1", "0 123456", "dropped 1", "2 1234", "3 1234567890", "dropped 1", "disconnected"];
    assert_eq!(said(&files), expected);
    assert_eq!((record.dropped_frames.get(), record.dropped_bytes.get()), (2, 19));
}

#[test]
fn a_full_disk_ends_the_recording_of_the_line_and_of_no_other() {
    let Rig { mut recorder, files, gate, mut log, .. } = rig(|_| {}, 2_000);
    gate.open();
    let mut full = recorder.tap("full", WireFormat::Native, false).expect("a folder");
    let mut other = recorder.tap("other", WireFormat::Native, false).expect("a folder");
    let records = recorder.records();
    other.frame(rx(0), b"a");
    // Noise, which does not compress.
    let mut state = 1u64;
    for n in 0..100 {
        let mut noise = Vec::new();
        while noise.len() < 100 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            noise.extend_from_slice(format!("{:x}", state >> 33).as_bytes());
        }
        full.frame(rx(n), &noise);
        recorder.turn(at(n * 200));
        recorder.turn(at(n * 200 + 199));
    }
    other.frame(rx(1), b"b");
    recorder.finish(at(100_000));
    assert_eq!(records[0].frames.get() + records[0].dropped_frames.get(), 100);
    assert!(records[0].frames.get() > 5 && records[0].dropped_frames.get() > 50, "{:?}", records[0]);
    let alarm = records[0].alarm().expect("an alarm");
    assert!(alarm.starts_with("recording of full has stopped: "), "{alarm}");
    assert_eq!((records[1].frames.get(), records[1].alarm()), (2, None));
    let notice = log.try_recv().expect("a notice");
    assert!(notice.contains("full: ") && notice.ends_with("nothing more is recorded of it"), "{notice}");
    assert!(log.try_recv().is_err(), "said once");
    // The torn end of the last block is cut off, and everything before it is intact.
    let said = said(&files);
    let frames = said.iter().take_while(|s| !s.contains("torn")).count() as u64 - 1;
    assert_eq!(frames, records[0].frames.get(), "{said:?}");
}

#[test]
fn a_frame_that_no_reader_would_take_is_named_instead() {
    let Rig { mut recorder, files, gate, .. } = rig(|options| options.queue_bytes_max = 1 << 30, usize::MAX);
    gate.open();
    let mut tap = recorder.tap("x", WireFormat::Native, false).expect("a folder");
    tap.frame(rx(0), b"a");
    tap.frame(rx(1), &vec![b'x'; LINE_BYTES_MAX]);
    tap.frame(rx(2), &vec![b'x'; FRAME_BYTES_MAX]);
    recorder.finish(at(0));
    let said = said(&files);
    assert_eq!(
        (&said[..3], said[3].len()),
        (&["segment 1", "0 a", "dropped 1"].map(str::to_owned)[..], FRAME_BYTES_MAX + 2)
    );
}
