//! Recordings: what comes in is written down as it came, whatever happens to the process or the disk.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tickfan::capture::{CaptureReader, RecordFault, RecordKind, SegmentIndex, segments};
use tickfan::cli::offline::{Captures, InputEnd, Progress, normalize};
use tickfan::config::LimitsConfig;
use tickfan::feed::{
    LineId, LineLimits, RecordOptions, Recorder, Replay, ReplaySpec, ReplayStep, Sequencer, Stamp,
};
use tickfan::model::instrument::InstrumentTable;
use tickfan::time::clock::Now;
use tokio::sync::mpsc;

use crate::support::recorded::recorded;
use crate::support::{Gateway, POST, RawSocket, eventually, in_repository, run, skipped};

const SHIPPED: [&str; 3] = ["coinbase", "binance-futures", "kraken"];

fn shipped() -> Vec<PathBuf> {
    SHIPPED.iter().map(|name| in_repository(&format!("feeds/{name}.zst"))).collect()
}

/// The frames of a capture, with their receive times, and what is said of its end.
struct Read {
    frames: Vec<(u64, Vec<u8>)>,
    torn_bytes: u64,
    dropped: u64,
}

fn read(path: &Path) -> Read {
    let mut reader = CaptureReader::open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut read = Read { frames: Vec::new(), torn_bytes: 0, dropped: 0 };
    while let Some(record) = reader.next_record() {
        match record.map(|record| (record.rx_ns, record.kind)) {
            Ok((rx_ns, RecordKind::Frame(frame))) => read.frames.push((rx_ns, frame.to_vec())),
            Ok((_, RecordKind::Dropped { frames })) => read.dropped += frames,
            Ok(_) => {}
            Err(bad) => match bad.fault {
                RecordFault::Torn { bytes, .. } => read.torn_bytes += bytes,
                _ => panic!("{bad}"),
            },
        }
    }
    read
}

fn normalized(path: &Path) -> String {
    let captures = Captures {
        files: vec![path.to_owned()],
        venue: None,
        strict: true,
        checks_off: tickfan::venue::ChecksOff::default(),
    };
    let mut out = Vec::new();
    let input = normalize(&captures, &LimitsConfig::default(), &mut out, io::sink(), &mut Progress::hidden());
    assert_eq!(input.expect("readable"), InputEnd::Whole);
    String::from_utf8(out).expect("UTF-8")
}

/// Replays a capture with the times it was recorded at, and records that, in files of so many seconds.
fn recording_of(file: &Path, dir: &Path, segment_s: u64) -> PathBuf {
    let options = RecordOptions {
        dir: dir.to_owned(),
        queue_bytes_max: 64 << 20,
        queue_frames_max: 1_000,
        segment_s,
        flush_ms: 200,
        level: 3,
    };
    let (notices, mut log) = mpsc::channel(8);
    let mut recorder = Recorder::new(options, Now::default(), notices);
    let limits = LineLimits { book_levels_max: 100_000, ..LineLimits::default() };
    let files = vec![file.to_owned()];
    let spec = ReplaySpec { strict: true, ..ReplaySpec::new(files) };
    let mut replay = Replay::open(spec, &limits, LineId(0)).expect("a capture");
    let mut sequencer = Sequencer::new(Arc::new(InstrumentTable::new(1_000)));
    replay.record(|line| recorder.tap("line", line.wire(), false)).expect("a folder");
    replay.prime(&mut sequencer);
    let record = Arc::clone(&recorder.records()[0]);
    let mut now = Now::default();
    loop {
        match replay.step(Now::default(), Stamp::Recorded, &mut sequencer, |_| {}) {
            ReplayStep::Took => {}
            ReplayStep::Ended => break,
            other => panic!("{other:?}"),
        }
        now.mono_ns += 1_000_000;
        recorder.turn(now);
    }
    recorder.finish(now);
    assert_eq!((record.alarm(), record.altered.get()), (None, 0));
    assert!(log.try_recv().is_err());
    dir.join("line")
}

/// A recording has the same frames as its capture, and gives the same ticks.
fn a_recording_is_the_same(file: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let original = read(file);
    for segment_s in [3_600, 7] {
        let dir = folder.path().join(segment_s.to_string());
        let recording = recording_of(file, &dir, segment_s);
        let again = read(&recording);
        let name = file.display();
        assert!(again.frames == original.frames, "{name}: the same frames, to the byte and the nanosecond");
        assert!(normalized(&recording) == normalized(file), "{name}, in files of {segment_s} s");
        assert_eq!((again.torn_bytes, again.dropped), (0, 0));
        let files = segments(&recording).expect("a folder");
        assert!(segment_s == 3_600 || files.len() > 2, "{name}: {} files", files.len());
        // The index of each file covers it to its end.
        let lines = files.iter().map(|file| {
            let index = SegmentIndex::read(file).expect("a file").expect("a segment");
            assert_eq!(index.torn_bytes, 0);
            index.blocks.iter().map(|block| u64::from(block.lines)).sum::<u64>()
        });
        assert!(lines.sum::<u64>() >= original.frames.len() as u64);
    }
}

#[test]
fn a_recording_of_a_shipped_capture_has_its_frames_and_gives_its_ticks() {
    shipped().iter().for_each(|file| a_recording_is_the_same(file));
}

#[test]
#[ignore = "needs recorded captures: TICKFAN_FEEDS"]
fn a_recording_of_a_recorded_capture_has_its_frames_and_gives_its_ticks() {
    let names = [
        "COINBASE.ws.28.0",
        "BINANCE_FUTURES.ws.1.0",
        "KRAKEN.ws.48.0",
        "KRAKEN.ws.49.0",
        "KRAKEN.ws.50.0",
        "btcusdt_20240808.gz",
    ];
    recorded(names).iter().for_each(|file| a_recording_is_the_same(file));
}

#[test]
fn a_gap_of_the_venue_is_noted_where_it_showed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.cap");
    let trade = |id: u64| {
        format!(
            "2024-05-01T12:00:0{id}Z {{\"type\":\"match\",\"trade_id\":{id},\"side\":\"buy\",\"size\":\"1\",\
             \"price\":\"1\",\"product_id\":\"A-USD\"}}\n"
        )
    };
    fs::write(&file, [1, 2, 5, 6].map(trade).concat()).expect("written");
    let mut reader = CaptureReader::open(recording_of(&file, folder.path(), 3_600)).expect("a capture");
    let mut said = Vec::new();
    while let Some(record) = reader.next_record() {
        said.push(match record.expect("a good line").kind {
            RecordKind::Frame(_) => "frame".to_owned(),
            RecordKind::Note(note) => String::from_utf8_lossy(note).into_owned(),
            RecordKind::Segment(_) => "segment".to_owned(),
            other => format!("{other:?}"),
        });
    }
    let gap = "# 2024-05-01T12:00:05.0000000Z gap gaps=1";
    assert_eq!(said, ["segment", "frame", "frame", "frame", gap, "frame", "Disconnected"]);
}

#[test]
fn nobody_records_into_what_is_replayed() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().to_str().expect("UTF-8");
    let args = ["replay", "--speed", "0", "--exit", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let kraken = in_repository("feeds/kraken.zst");
    let once = [&args[..], &["--record", dir, kraken.to_str().expect("UTF-8")]].concat();
    assert_eq!(run(&once).code(), Some(0));
    let recording = format!("{dir}/kraken.1");
    let ended = run(&[&args[..], &["--record", dir, &recording]].concat());
    assert_eq!((ended.code(), ended.lines.len()), (Some(2), 0));
    assert!(
        ended.stderr.contains("record.dir: ") && ended.stderr.contains("is replayed from it"),
        "{}",
        ended.stderr
    );
}

/// The lines of `normalize` without what a replay at another time changes.
fn without_rx(text: &str) -> Vec<String> {
    let cut = |line: &str| {
        let from = line.find(",\"rx\":").unwrap_or(line.len());
        let to = line[from..].find('}').map_or(line.len(), |at| from + at);
        format!("{}{}", &line[..from], &line[to..])
    };
    text.lines().map(cut).collect()
}

#[test]
fn the_gateway_records_what_it_replays() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().join("recordings");
    let mut args =
        vec!["replay", "--speed", "0", "--exit", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    // Room for everything, so that it does not matter how fast the disk is.
    args.extend(["--set", "record.queue_bytes_max=1073741824", "--set", "record.queue_frames_max=1000000"]);
    args.extend(["--record", dir.to_str().expect("UTF-8")]);
    let files = shipped();
    args.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
    let ended = run(&args);
    assert_eq!((ended.code(), ended.complaints().as_str()), (Some(0), ""));
    for (file, venue) in files.iter().zip(SHIPPED) {
        let recording = dir.join(format!("{venue}.1"));
        let frames = |read: Read| read.frames.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>();
        assert!(frames(read(file)) == frames(read(&recording)), "{venue}");
        assert_eq!(without_rx(&normalized(file)), without_rx(&normalized(&recording)), "{venue}");
    }
    // What every other reader of the form sees.
    let segment = segments(&dir.join("kraken.1")).expect("a folder").remove(0);
    let plain = zstd::stream::decode_all(fs::File::open(segment).expect("a file")).expect("zstd");
    let plain = String::from_utf8(plain).expect("UTF-8");
    assert!(plain.lines().all(|line| line.is_empty() || line.starts_with("20")), "no notes among the lines");
}

#[test]
fn publishers_are_recorded_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let record = format!("record.dir={}", dir.path().display());
    let gateway = Gateway::publishing(r#"["demo"]"#, &["record.enabled=true", &record]);
    for price in 1..4 {
        let mut publisher = crate::support::connect(gateway.publish.expect("it listens"));
        let auth = format!("{{\"op\":\"auth\",\"token\":\"{}\"}}\n", crate::support::TOKEN);
        let tick =
            format!("{{\"type\":\"trade\",\"symbol\":\"demo:ABC\",\"price\":\"{price}\",\"size\":\"1\"}}\n");
        publisher.write_all((auth + &tick).as_bytes()).expect("sent");
        eventually("its line is there", || gateway.metric_sum("tickfan_feed_trades_total") == price);
    }
    eventually("the lines are written", || gateway.metric_sum("tickfan_record_frames_total") == 3);
    gateway.stop();
    let ticks = normalized(&dir.path().join("publish"));
    let prices: Vec<_> = ticks.lines().map(|line| line.contains("\"type\":\"trade\"")).collect();
    assert_eq!(prices, [true; 3], "{ticks}");
}

// ---- killed -------------------------------------------------------------------------------------------

/// How often the gateway is killed: `make kill` says more often.
fn kills() -> u64 {
    std::env::var("TICKFAN_KILLS").map_or(3, |text| text.parse().expect("a number"))
}

fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_nanos()).expect("before 2554")
}

/// How fast the captures are replayed there.
const SPEED: u64 = 20;

/// A value of a metric by line.
fn of_line(rows: &[(String, u64)], word: &str) -> u64 {
    rows.iter().find(|(labels, _)| labels.contains(word)).map_or(0, |(_, value)| *value)
}

#[test]
fn a_kill_costs_no_frame_that_was_written_and_says_what_it_cut() {
    let sources: Vec<Read> = shipped().iter().map(|file| read(file)).collect();
    let (mut cut, mut late) = (0, 0);
    for round in 0..kills() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = shipped();
        let mut args =
            vec!["replay", "--loop", "--speed", "20", "--record", dir.path().to_str().expect("UTF-8")];
        // A disk that stalls for a minute costs no frame.
        args.extend([
            "--set",
            "record.queue_frames_max=1000000",
            "--set",
            "record.queue_bytes_max=1073741824",
        ]);
        args.extend(files.iter().map(|file| file.to_str().expect("UTF-8")));
        let gateway = Gateway::start(&args);
        eventually("each line has frames", || {
            let rows = gateway.metric("tickfan_record_frames_total");
            rows.len() == 3 && rows.iter().all(|(_, frames)| *frames > 0)
        });
        // Everything that has come in by now is written without anything else having to come.
        let came = gateway.metric("tickfan_feed_frames_total");
        eventually("what came is written", || {
            let written = gateway.metric("tickfan_record_frames_total");
            SHIPPED.iter().all(|venue| {
                of_line(&written, &format!("line=\"{venue}.1\""))
                    >= of_line(&came, &format!("venue=\"{venue}\""))
            })
        });
        // Some moment or other of the next 400 ms.
        std::thread::sleep(Duration::from_millis((wall_ns() / 1_000 + round * 137) % 400));
        let written = gateway.metric("tickfan_record_frames_total");
        let killed_ns = wall_ns();
        gateway.process.signal("KILL");
        gateway.process.end();
        for (venue, source) in SHIPPED.iter().zip(&sources) {
            let recording = read(&dir.path().join(format!("{venue}.1")));
            assert_eq!(recording.dropped, 0);
            let n = source.frames.len();
            for (at, (_, frame)) in recording.frames.iter().enumerate() {
                assert!(*frame == source.frames[at % n].1, "{venue}: frame {at} is the one that came");
            }
            let promised = of_line(&written, &format!("line=\"{venue}.1\""));
            let found = recording.frames.len();
            assert!(found as u64 >= promised, "{venue}: {found} frames, {promised} were written");
            cut += u64::from(recording.torn_bytes > 0);
            // How many were due 250 ms before, by the pace of the replay. A slow machine may be behind that, so it is told,
            // and only asked for where somebody watches.
            let due_ns = |at: usize| {
                recording.frames[0].0 + (source.frames[at].0.saturating_sub(source.frames[0].0)) / SPEED
            };
            let due = (0..n).take_while(|at| due_ns(*at) + 250_000_000 <= killed_ns).count();
            late += u64::from(found < due);
        }
    }
    let all = 3 * kills();
    writeln!(
        io::stderr(),
        "killed {} times: {all} recordings, {cut} torn and cut, {late} without a frame of more than 250 ms before",
        kills()
    )
    .expect("stderr");
    if std::env::var_os("TICKFAN_KILLS_ON_TIME").is_some() {
        assert_eq!(late, 0);
    }
}

#[test]
fn who_starts_again_goes_on_in_new_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_str().expect("UTF-8");
    let kraken = in_repository("feeds/kraken.zst");
    for _ in 0..2 {
        let args = ["replay", "--speed", "0", "--exit", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        let room =
            ["--set", "record.queue_frames_max=1000000", "--record", path, kraken.to_str().expect("UTF-8")];
        assert_eq!(run(&[&args[..], &room].concat()).code(), Some(0));
    }
    let folder = dir.path().join("kraken.1");
    assert_eq!(segments(&folder).expect("a folder").len(), 2);
    assert_eq!(read(&folder).frames.len(), 2 * read(&kraken).frames.len());
    let report = run(&["inspect", "--json", folder.to_str().expect("UTF-8")]).values().remove(0);
    assert_eq!(
        (&report["holes"][0]["cause"], &report["segments"]),
        (&"disconnect".into(), &2.into()),
        "{report}"
    );
}

// ---- full ---------------------------------------------------------------------------------------------

/// A file system of a megabyte, taken away at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, visibly, where it cannot be mounted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        skipped::left_out("a full disk", "no tmpfs can be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A folder that is still mounted is not removed, and says so.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_alarm_and_the_gateway_goes_on() {
    let Some(disk) = SmallDisk::mount() else { return };
    let coinbase = in_repository("feeds/coinbase.zst");
    let args = ["replay", "--loop", "--speed", "100", "--record", disk.0.path().to_str().expect("UTF-8")];
    let gateway = Gateway::start(&[&args[..], &[coinbase.to_str().expect("UTF-8")]].concat());
    eventually("the disk is full", || gateway.metric_sum("tickfan_record_failed") == 1);
    let (status, ready) = Gateway::get(gateway.http, "/readyz");
    assert_eq!(status, 200, "it serves all the same: {ready}");
    assert!(ready.contains("recording of coinbase.1 has stopped: "), "{ready}");
    let before = gateway.metric_sum("tickfan_feed_frames_total");
    eventually("the feed goes on", || gateway.metric_sum("tickfan_feed_frames_total") > before + 1_000);
    eventually("what is not recorded is counted", || gateway.metric_sum("tickfan_record_dropped_total") > 0);
    let written = gateway.metric_sum("tickfan_record_frames_total");
    let ended = gateway.stop();
    assert!(ended.stderr.contains("nothing more is recorded of it"), "{}", ended.stderr);
    let recording = read(&disk.0.path().join("coinbase.1"));
    assert_eq!(recording.frames.len() as u64, written, "what was written can be read");
}

/// A disk that can be made to stand still: whoever writes to it waits.
struct StuckDisk(tempfile::TempDir);

impl StuckDisk {
    /// `None`, visibly, where it cannot be made.
    fn mount() -> Option<Self> {
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let folder = tempfile::tempdir().expect("a folder");
        let (image, place) = (folder.path().join("image"), folder.path().join("disk"));
        fs::create_dir(&place).expect("a folder");
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a file");
        let made = done(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).args([&image, &place]));
        if made {
            return Some(Self(folder));
        }
        skipped::left_out("a disk that is stuck", "none can be mounted here");
        None
    }

    fn place(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    /// It stands still until what this gives is dropped.
    fn freeze(&self) -> Frozen {
        let place = self.place();
        let status = Command::new("fsfreeze").arg("-f").arg(&place).status();
        assert!(status.expect("fsfreeze").success());
        Frozen(place)
    }
}

impl Drop for StuckDisk {
    fn drop(&mut self) {
        // A folder that is still mounted is not removed, and says so.
        let _ = Command::new("umount").arg(self.place()).status();
    }
}

struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        // Who writes to it would wait for ever, and the test for them.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

#[test]
fn a_stuck_disk_costs_frames_that_are_named_and_delays_nobody() {
    let Some(disk) = StuckDisk::mount() else { return };
    let place = disk.place();
    let coinbase = in_repository("feeds/coinbase.zst");
    let args = ["replay", "--loop", "--speed", "20", "--set", "record.queue_frames_max=200", "--record"];
    let files = [place.to_str().expect("UTF-8"), coinbase.to_str().expect("UTF-8")];
    let gateway = Gateway::start(&[&args[..], &files].concat());
    let sum = |name: &str| gateway.metric_sum(name);
    eventually("something is written", || sum("tickfan_record_frames_total") > 0);
    let frozen = disk.freeze();
    let mut client = RawSocket::open(&gateway, "?symbols=coinbase:*");
    let is_new = |message: &Value| message["type"] == "trade" && message["snap"].is_null();
    while !is_new(&client.message()) {}
    eventually("nothing is written to a disk that stands still", || {
        let (written, came) = (sum("tickfan_record_frames_total"), sum("tickfan_feed_frames_total"));
        eventually("the feed goes on", || sum("tickfan_feed_frames_total") > came + 1_000);
        sum("tickfan_record_frames_total") == written && sum("tickfan_record_dropped_total") > 0
    });
    let written = sum("tickfan_record_frames_total");
    let (status, ready) = Gateway::get(gateway.http, "/readyz");
    assert!(status == 200 && ready.contains("frames of coinbase.1 were not recorded"), "{status} {ready}");
    drop(frozen);
    eventually("it is written to again", || sum("tickfan_record_frames_total") > written + 100);
    let body = r#"{"do":"pause"}"#;
    let head = format!("{POST}\r\nContent-Length: {}", body.len());
    let pause = format!("POST /api/replay HTTP/1.1\r\n{head}\r\n\r\n{body}");
    assert_eq!(Gateway::ask(gateway.http, &pause).0, 200);
    let known = || sum("tickfan_record_frames_total") + sum("tickfan_record_dropped_total");
    eventually("every frame is written or counted", || known() == sum("tickfan_feed_frames_total"));
    let (written, dropped) = (sum("tickfan_record_frames_total"), sum("tickfan_record_dropped_total"));
    gateway.stop();
    let recording = read(&place.join("coinbase.1"));
    assert_eq!((recording.frames.len() as u64, recording.dropped), (written, dropped));
    assert_eq!(recording.torn_bytes, 0);
}

#[test]
fn a_folder_that_cannot_be_made_is_said_before_anything_is_served() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let ended = run(&["replay", "--record", file.to_str().expect("UTF-8"), "feeds/kraken.zst"]);
    assert_eq!((ended.code(), ended.lines.len()), (Some(2), 0), "{ended:?}");
    assert!(ended.stderr.contains("record.dir: ") && ended.stderr.contains("kraken.1"), "{}", ended.stderr);
}
