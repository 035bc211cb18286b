use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::files::HIDDEN;
use super::*;
use crate::instrument::InstrumentId;
use crate::ring::{Seen, TickWriter, tick_ring};
use crate::tick::{Body, Quote, Tick};

const RUN_NS: u64 = 1_000;
const TICKET: Ticket = Ticket { session: 3, serial: 7 };
const AT_ONCE: Duration = Duration::ZERO;

/// A ring and its history, both turned by hand.
struct House {
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

impl House {
    /// A ring of so many ticks: blocks have a quarter of that.
    fn new(capacity: usize, bytes_max: u64, open: Option<OpenFile>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (writer, ring) = tick_ring(capacity, 4).expect("a good capacity");
        let (notices, log) = mpsc::channel(8);
        let options = Options { dir: folder.path().join("recordings"), bytes_max, run_ns: RUN_NS };
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

    /// Asks, and gives the answer if there is one.
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

    /// The positions of a block, each with the tick that was published there.
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

/// What is in the hidden folder among these recordings; nothing if there is none.
fn files(recordings: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let entries = fs::read_dir(recordings.join(HIDDEN)).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| name(entry).expect("UTF-8")).collect();
    names.sort_unstable();
    names
}

#[test]
fn what_was_published_is_found_by_position_and_by_time() {
    let mut house = House::new(16, 1 << 20, None);
    assert_eq!(house.client.begins_ns(), Some(RUN_NS));
    assert_eq!(house.ask(Want::Since(0)), Some(Found::Start(0, None)), "nothing is written yet");
    for _ in 0..10 {
        house.publish(3);
        house.keep();
    }
    // Seven whole blocks; the rest is in the ring.
    assert_eq!((house.block(0), house.block(3), house.block(4), house.block(27)), (0..4, 0..4, 4..8, 24..28));
    assert_eq!(house.woken.load(Ordering::Relaxed), 5);
    let at = |n: u64| Want::Since(RUN_NS + 10 * n);
    for (want, first) in [(Want::Since(0), 0), (at(3), 0), (at(4), 4), (at(27), 24)] {
        let Some(Found::Start(start, Some(block))) = house.ask(want) else { panic!("{want:?}") };
        assert_eq!((start, block.first()), (first, first), "{want:?}");
    }
    assert_eq!(house.ask(at(28)), Some(Found::Start(28, None)));
    assert_eq!(house.client.begins_ns(), Some(RUN_NS), "nothing was given up");
    let stats = house.access.stats();
    assert_eq!((stats.taken.get(), stats.held.get(), stats.missed.get()), (30, 28, 0));
    assert_eq!(stats.read.get(), 3, "what was read just now is not read again");
}

#[test]
fn what_is_not_written_yet_is_waited_for() {
    let mut house = House::new(16, 1 << 20, None);
    house.publish(3);
    house.keep();
    let want = Want::At(2);
    assert_eq!(house.ask(want), None);
    assert_eq!(house.answer(want), None);
    house.publish(1);
    house.keep();
    assert!(matches!(house.answer(want), Some(Found::Block(block)) if block.first() == 0));
}

#[test]
fn where_the_keeper_was_lapped_there_is_a_hole() {
    let mut house = House::new(16, 1 << 20, None);
    house.publish(6);
    house.keep();
    house.publish(100);
    house.keep();
    house.publish(4);
    house.keep();
    assert_eq!((house.block(0), house.block(5), house.block(106)), (0..4, 4..6, 106..110));
    for position in [6, 50, 105] {
        assert_eq!(house.ask(Want::At(position)), Some(Found::Hole(106)), "{position}");
    }
    assert_eq!(house.access.stats().missed.get(), 100);
}

#[test]
fn the_bound_is_kept_and_the_oldest_goes() {
    const BYTES_MAX: u64 = 8_192;
    let mut house = House::new(16, BYTES_MAX, None);
    for _ in 0..500 {
        house.publish(4);
        house.keep();
        let files = house.files();
        let bytes: u64 = files
            .iter()
            .map(|name| {
                fs::metadata(house.folder.path().join("recordings").join(HIDDEN).join(name))
                    .expect("a file")
                    .len()
            })
            .sum();
        let heads = files::HEAD.len() as u64 * files.len() as u64;
        assert!(files.len() <= 9 && bytes <= BYTES_MAX + heads, "{} files of {bytes} bytes", files.len());
    }
    let stats = house.access.stats();
    assert!(stats.bytes.get() <= BYTES_MAX && stats.held.get() > 100, "{stats:?}");
    let begins_ns = house.client.begins_ns().expect("a history");
    let first = (begins_ns - RUN_NS) / 10;
    assert_eq!(first, 2_000 - stats.held.get());
    assert_eq!(house.ask(Want::At(first - 1)), Some(Found::Hole(first)), "what is no longer kept");
    assert_eq!(house.block(first), first..first + 4);
    assert!(matches!(house.ask(Want::Since(0)), Some(Found::Start(start, Some(_))) if start == first));
    assert_eq!(stats.missed.get(), 0);
}

#[test]
fn a_file_that_was_removed_can_be_read_to_the_end() {
    let mut house = House::new(16, 8_192, None);
    house.publish(4);
    house.keep();
    assert_eq!(house.block(0), 0..4);
    // One that somebody else removed or spoilt is a hole, and told.
    house.publish(4);
    house.keep();
    let path = house.folder.path().join("recordings").join(HIDDEN).join(&house.files()[0]);
    let bytes = fs::read(&path).expect("a file");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    assert_eq!(house.ask(Want::At(5)), Some(Found::Hole(8)));
    assert!(house.log.try_recv().expect("a notice").contains("a hole in the history"));
}

#[test]
fn a_disk_that_fails_ends_the_history_with_an_alarm() {
    struct Full(Arc<AtomicUsize>);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The second write finds it full.
            let before = self.0.fetch_add(1, Ordering::Relaxed);
            if before == 0 { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let writes = Arc::<AtomicUsize>::default();
    let open: OpenFile = Box::new(move |_| Ok(Box::new(Full(Arc::clone(&writes)))));
    let mut house = House::new(16, 1 << 20, Some(open));
    house.publish(3);
    house.keep();
    let early = Want::At(2);
    assert_eq!(house.ask(early), None);
    house.publish(1);
    house.keep();
    assert_eq!((house.access.failure(), house.access.stats().held.get()), (None, 4));
    house.publish(4);
    house.keep();
    assert!(house.access.failure().is_some_and(|why| why.contains("space")), "{:?}", house.access.failure());
    assert!(house.log.try_recv().expect("a notice").contains("no history is kept any more"));
    assert_eq!(house.answer(early), Some(Found::Gone), "who waited is told");
    assert_eq!((house.client.begins_ns(), house.ask(Want::Since(0))), (None, Some(Found::Gone)));
    assert_eq!(house.ask(Want::At(1_000)), Some(Found::Gone));
    // It is out of the way.
    house.publish(100);
    assert!(!house.recorder.turn());
    assert_eq!(house.access.stats().held.get(), 0);
}

#[test]
fn its_threads_keep_up_and_its_files_go_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut writer, ring) = tick_ring(1_024, 4).expect("a good capacity");
    let options = Options { dir: folder.path().to_owned(), bytes_max: 1 << 20, run_ns: RUN_NS };
    let history = History::begin(&options, &ring, mpsc::channel(1).0).expect("a folder");
    let (access, stats) = (history.access(), history.access().stats());
    let (woke, woken) = crossbeam::channel::bounded(8);
    let client = access.client(move || woke.try_send(()).unwrap_or_default());
    let threads = history.spawn().expect("threads");
    let patience = Duration::from_secs(60);
    for n in 0..2_000 {
        writer.publish(&tick(n), Seen::UNMEASURED).expect("a place");
        // The ring is not to come round.
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
    let house = House::new(16, 1 << 20, None);
    assert_eq!(house.files().len(), 1);
    let House { folder, recorder, .. } = house;
    drop(recorder);
    assert!(files(&folder.path().join("recordings")).is_empty());
}
