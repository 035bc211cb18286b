use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::files::HIDDEN;
use super::*;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Body, Quote, Tick};
use crate::ring::{Seen, TickWriter, tick_ring};

const RUN_NS: u64 = 1_000;
const TICKET: Ticket = Ticket { session: 3, serial: 7 };
const AT_ONCE: Duration = Duration::ZERO;

/// A ring and its history, both driven by hand.
struct Rig {
    folder: tempfile::TempDir,
    writer: TickWriter,
    recorder: HistoryWriter,
    reader: HistoryReader,
    access: Access,
    client: HistoryClient,
    woken: Arc<AtomicUsize>,
    log: mpsc::Receiver<String>,
    published: u64,
}

fn tick(n: u64) -> Tick {
    let (instrument, rx_ns) = (InstrumentId((n % 3) as u32), RUN_NS + 10 * n);
    Tick { instrument, seq: n + 1, rx_ns, ts_us: None, snap: false, body: Body::Quote(Quote::default()) }
}

impl Rig {
    /// A ring of `capacity` ticks; blocks have a quarter of that.
    fn new(capacity: usize, bytes_max: u64, open: Option<OpenFile>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (writer, ring) = tick_ring(capacity, 4).expect("a good capacity");
        let (notices, log) = mpsc::channel(8);
        let options = HistoryOptions { dir: folder.path().join("recordings"), bytes_max, run_ns: RUN_NS };
        let history = History::opening(&options, &ring, notices, open).expect("a folder");
        let (access, woken) = (history.access(), Arc::<AtomicUsize>::default());
        let bell = Arc::clone(&woken);
        let client = access.client(move || {
            bell.fetch_add(1, Ordering::Relaxed);
        });
        let (recorder, reader) = history.into_halves();
        Self { folder, writer, recorder, reader, access, client, woken, log, published: 0 }
    }

    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            self.writer.publish(&tick(self.published), Seen::new(9, 1)).expect("a place");
            self.published += 1;
        }
    }

    fn keep(&mut self) {
        while self.recorder.turn() {}
    }

    /// Sends a request, and returns the answer if there is one.
    fn ask(&mut self, want: Want) -> Option<Found> {
        assert_eq!(self.client.ask(TICKET, want), Ok(()));
        self.answer(want)
    }

    fn answer(&mut self, asked: Want) -> Option<Found> {
        self.reader.turn(AT_ONCE);
        let Answer { ticket, want, found } = self.client.take()?;
        assert_eq!((ticket, want), (TICKET, asked));
        Some(found)
    }

    /// Returns the positions of a block, after checking each of its ticks.
    fn block(&mut self, position: u64) -> std::ops::Range<u64> {
        let Some(Found::Block(block)) = self.ask(Want::At(position)) else { panic!("{position}: no block") };
        for at in block.first()..block.end() {
            assert_eq!(block.at(at), Some(tick(at)));
            assert_eq!(block.key_at(at), Some(tick(at).key()));
        }
        block.first()..block.end()
    }

    fn files(&self) -> Vec<String> {
        files(&self.folder.path().join("recordings"))
    }
}

/// Returns the files in the hidden folder among these recordings; none if it does not exist.
fn files(recordings: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let entries = fs::read_dir(recordings.join(HIDDEN)).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("UTF-8")).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_was_published_is_found_by_position_and_by_time() {
    let mut rig = Rig::new(16, 1 << 20, None);
    assert_eq!(rig.client.begins_ns(), Some(RUN_NS));
    assert_eq!(rig.ask(Want::Since(0)), Some(Found::Start(0, None)), "nothing is written yet");
    for _ in 0..10 {
        rig.publish(3);
        rig.keep();
    }
    // Seven whole blocks; the rest is only in the ring.
    assert_eq!((rig.block(0), rig.block(3), rig.block(4), rig.block(27)), (0..4, 0..4, 4..8, 24..28));
    assert_eq!(rig.woken.load(Ordering::Relaxed), 5);
    let at = |n: u64| Want::Since(RUN_NS + 10 * n);
    for (want, first) in [(Want::Since(0), 0), (at(3), 0), (at(4), 4), (at(27), 24)] {
        let Some(Found::Start(start, Some(block))) = rig.ask(want) else { panic!("{want:?}") };
        assert_eq!((start, block.first()), (first, first), "{want:?}");
    }
    assert_eq!(rig.ask(at(28)), Some(Found::Start(28, None)));
    assert_eq!(rig.client.begins_ns(), Some(RUN_NS), "nothing was given up");
    let stats = rig.access.stats();
    assert_eq!((stats.taken.get(), stats.held.get(), stats.missed.get()), (30, 28, 0));
    assert_eq!(stats.read.get(), 3, "what was read just now is not read again");
}

#[test]
fn what_is_not_written_yet_is_waited_for() {
    let mut rig = Rig::new(16, 1 << 20, None);
    rig.publish(3);
    rig.keep();
    let want = Want::At(2);
    assert_eq!(rig.ask(want), None);
    assert_eq!(rig.answer(want), None);
    rig.publish(1);
    rig.keep();
    assert!(matches!(rig.answer(want), Some(Found::Block(block)) if block.first() == 0));
}

#[test]
fn where_the_keeper_was_lapped_there_is_a_hole() {
    let mut rig = Rig::new(16, 1 << 20, None);
    rig.publish(6);
    rig.keep();
    rig.publish(100);
    rig.keep();
    rig.publish(4);
    rig.keep();
    assert_eq!((rig.block(0), rig.block(5), rig.block(106)), (0..4, 4..6, 106..110));
    for position in [6, 50, 105] {
        assert_eq!(rig.ask(Want::At(position)), Some(Found::Hole(106)), "{position}");
    }
    assert_eq!(rig.access.stats().missed.get(), 100);
}

#[test]
fn the_bound_is_kept_and_the_oldest_goes() {
    const BYTES_MAX: u64 = 8_192;
    let mut rig = Rig::new(16, BYTES_MAX, None);
    for _ in 0..500 {
        rig.publish(4);
        rig.keep();
        let files = rig.files();
        let bytes: u64 = files
            .iter()
            .map(|name| {
                fs::metadata(rig.folder.path().join("recordings").join(HIDDEN).join(name))
                    .expect("a file")
                    .len()
            })
            .sum();
        let heads = files::HEAD.len() as u64 * files.len() as u64;
        assert!(files.len() <= 9 && bytes <= BYTES_MAX + heads, "{} files of {bytes} bytes", files.len());
    }
    let stats = rig.access.stats();
    assert!(stats.bytes.get() <= BYTES_MAX && stats.held.get() > 100, "{stats:?}");
    let begins_ns = rig.client.begins_ns().expect("a history");
    let first = (begins_ns - RUN_NS) / 10;
    assert_eq!(first, 2_000 - stats.held.get());
    assert_eq!(rig.ask(Want::At(first - 1)), Some(Found::Hole(first)), "what is no longer kept");
    assert_eq!(rig.block(first), first..first + 4);
    assert!(matches!(rig.ask(Want::Since(0)), Some(Found::Start(start, Some(_))) if start == first));
    assert_eq!(stats.missed.get(), 0);
}

#[test]
fn a_file_that_was_removed_can_be_read_to_the_end() {
    let mut rig = Rig::new(16, 8_192, None);
    rig.publish(4);
    rig.keep();
    assert_eq!(rig.block(0), 0..4);
    // A file removed or damaged by others is a hole, and reported.
    rig.publish(4);
    rig.keep();
    let path = rig.folder.path().join("recordings").join(HIDDEN).join(&rig.files()[0]);
    let bytes = fs::read(&path).expect("a file");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    assert_eq!(rig.ask(Want::At(5)), Some(Found::Hole(8)));
    assert!(rig.log.try_recv().expect("a notice").contains("a hole in the history"));
}

#[test]
fn a_disk_that_fails_ends_the_history_with_an_alarm() {
    struct Full(Arc<AtomicUsize>);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The disk is full at the second write.
            let before = self.0.fetch_add(1, Ordering::Relaxed);
            if before == 0 { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let writes = Arc::<AtomicUsize>::default();
    let open: OpenFile = Box::new(move |_| Ok(Box::new(Full(Arc::clone(&writes)))));
    let mut rig = Rig::new(16, 1 << 20, Some(open));
    rig.publish(3);
    rig.keep();
    let early = Want::At(2);
    assert_eq!(rig.ask(early), None);
    rig.publish(1);
    rig.keep();
    assert_eq!((rig.access.failure(), rig.access.stats().held.get()), (None, 4));
    rig.publish(4);
    rig.keep();
    assert!(rig.access.failure().is_some_and(|why| why.contains("space")), "{:?}", rig.access.failure());
    assert!(rig.log.try_recv().expect("a notice").contains("no history is kept any more"));
    assert_eq!(rig.answer(early), Some(Found::Gone), "who waited is told");
    assert_eq!((rig.client.begins_ns(), rig.ask(Want::Since(0))), (None, Some(Found::Gone)));
    assert_eq!(rig.ask(Want::At(1_000)), Some(Found::Gone));
    // It no longer takes ticks.
    rig.publish(100);
    assert!(!rig.recorder.turn());
    assert_eq!(rig.access.stats().held.get(), 0);
}

#[test]
fn its_threads_keep_up_and_its_files_go_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut writer, ring) = tick_ring(1_024, 4).expect("a good capacity");
    let options = HistoryOptions { dir: folder.path().to_owned(), bytes_max: 1 << 20, run_ns: RUN_NS };
    let history = History::begin(&options, &ring, mpsc::channel(1).0).expect("a folder");
    let (access, stats) = (history.access(), history.access().stats());
    let (woke, woken) = crossbeam::channel::bounded(8);
    let client = access.client(move || woke.try_send(()).unwrap_or_default());
    let threads = history.spawn().expect("threads");
    let patience = Duration::from_secs(60);
    for n in 0..2_000 {
        writer.publish(&tick(n), Seen::UNMEASURED).expect("a place");
        // The ring must not lap the writer.
        while n - stats.taken.get().min(n) > 512 {
            std::thread::yield_now();
        }
    }
    assert_eq!(client.ask(TICKET, Want::At(0)), Ok(()));
    woken.recv_timeout(patience).expect("it wakes");
    assert!(
        matches!(client.take(), Some(Answer { found: Found::Block(block), .. }) if block.at(7) == Some(tick(7)))
    );
    assert_eq!(files(folder.path()), ["history-1000.1.ticks"]);
    drop(threads);
    assert!(files(folder.path()).is_empty());
    assert_eq!(client.ask(TICKET, Want::At(0)), Err(Unasked::Ended), "nobody is there any more");
}

#[test]
fn one_that_never_ran_leaves_nothing() {
    let rig = Rig::new(16, 1 << 20, None);
    assert_eq!(rig.files().len(), 1);
    let Rig { folder, recorder, .. } = rig;
    drop(recorder);
    assert!(files(&folder.path().join("recordings")).is_empty());
}
