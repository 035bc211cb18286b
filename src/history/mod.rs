//! The history: the ticks of this run as they stood in the ring, on disk, for clients that ask for the past.
//!
//! ```text
//! ring ─► HistoryWriter (a thread: reads the ring, packs blocks, writes files) ─► Index ◄─ HistoryReader (a thread: finds, reads,
//!                                                                                  unpacks) ◄─► HistoryClient, one a shard
//! ```
//!
//! A recording holds frames before they are decoded; their ticks' numbers are of the run that gave them. So what a client
//! is to be told of this run is kept as this run told it, by position of the ring. To another run it means nothing: it
//! need not survive anything, and its files are removed at the end, or, after a kill, at the next start.
//!
//! Nobody waits for it. The writer is a reader of the ring like any shard: where it is lapped, or a block finds no room on
//! disk, the history has a hole that readers are told of. If it cannot write it ends with an alarm and gives its files
//! up. A shard asks through its [`HistoryClient`], goes on with its turn, and is woken when the block is there.

mod block;
mod client;
mod files;
mod index;
mod reader;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ring::TickRing;
use crate::system::counters::Counter;
use crate::system::threads;

pub use block::Block;
pub use client::{Answer, Found, HistoryClient, Ticket, Unasked, Want};
use files::Folder;
use index::Index;
pub use reader::HistoryReader;
pub use writer::{HistoryWriter, OpenFile};

/// How much is kept, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the recordings, in which the files have one of their own; it is made where there is none.
    pub dir: PathBuf,
    /// Bytes that the files may take together.
    pub bytes_max: u64,
    /// When the run began, nanoseconds since the Unix epoch: it names the files.
    pub run_ns: u64,
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Stats {
    /// Ticks taken from the ring.
    pub taken: Counter,
    /// Ticks that the files hold now.
    pub held: Counter,
    /// Bytes that they take now, with what the index takes in memory.
    pub bytes: Counter,
    /// Ticks that are missing: the ring came round, or they found no room.
    pub missed: Counter,
    /// Blocks read from the files.
    pub read: Counter,
}

/// What writer, reader and clients share.
#[derive(Debug)]
struct Shared {
    folder: Folder,
    /// Of the writer and the reader; no shard takes this lock.
    index: Mutex<Index>,
    /// A copy of what the index says, for shards; `u64::MAX`: nothing is kept any more.
    begins_ns: AtomicU64,
    stats: Arc<Stats>,
    /// Why it ended, if it did.
    failed: Mutex<Option<String>>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Whoever panicked left a whole index: each of its changes is one call.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what the index holds.
    fn show(&self, index: &Index) {
        self.begins_ns.store(index.begins_ns(), Ordering::Release);
        let (ticks, bytes) = index.size();
        self.stats.held.set(ticks);
        self.stats.bytes.set(bytes);
    }
}

/// A history, before its threads run.
pub struct History {
    writer: HistoryWriter,
    reader: HistoryReader,
    access: Access,
}

/// What the rest of the gateway has of a history. Clones are the same.
#[derive(Clone, Debug)]
pub struct Access {
    shared: Arc<Shared>,
    requests: crossbeam::channel::Sender<client::Request>,
}

impl Access {
    /// A shard's way to ask. `wake` wakes the shard when there is an answer.
    pub fn client(&self, wake: impl Fn() + Send + Sync + 'static) -> HistoryClient {
        HistoryClient::new(Arc::clone(&self.shared), self.requests.clone(), wake)
    }

    /// What is counted.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.shared.stats)
    }

    /// Why it ended, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.lock().map_or(None, |failed| failed.clone())
    }
}

impl History {
    /// Makes the folder, removes what a run left there that was killed, and begins the first file. What is published from now
    /// on is kept. Troubles are told to `notices`.
    ///
    /// # Errors
    /// When the folder or the file cannot be made.
    pub fn begin(options: &Options, ring: &TickRing, notices: mpsc::Sender<String>) -> io::Result<Self> {
        Self::opening(options, ring, notices, None)
    }

    /// The same with another way to open files.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn opening(
        options: &Options,
        ring: &TickRing,
        notices: mpsc::Sender<String>,
        open: Option<OpenFile>,
    ) -> io::Result<Self> {
        let folder = Folder::prepare(&options.dir, options.run_ns)?;
        let reader = ring.reader();
        let index = Index::new(options.bytes_max, files::HEAD.len() as u64, reader.cursor(), options.run_ns);
        let shared = Arc::new(Shared {
            folder,
            begins_ns: AtomicU64::new(index.begins_ns()),
            index: Mutex::new(index),
            stats: Arc::default(),
            failed: Mutex::default(),
        });
        let (requests, asked) = crossbeam::channel::bounded(client::REQUESTS_MAX);
        let writer = HistoryWriter::new(Arc::clone(&shared), reader, ring.capacity(), notices.clone(), open)?;
        let reader = HistoryReader::new(Arc::clone(&shared), asked, notices)?;
        Ok(Self { writer, reader, access: Access { shared, requests } })
    }

    /// What the rest of the gateway has of it.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Its two halves, for who turns them by hand.
    pub fn into_halves(self) -> (HistoryWriter, HistoryReader) {
        (self.writer, self.reader)
    }

    /// Starts its threads.
    ///
    /// # Errors
    /// When the system has no threads for it.
    pub fn spawn(self) -> io::Result<HistoryThreads> {
        let Self { mut writer, mut reader, .. } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let told = Arc::clone(&stop);
        let keeping = named("history").spawn(move || {
            while !told.load(Ordering::Acquire) {
                if !writer.turn() {
                    std::thread::park_timeout(LOOK_EVERY);
                }
            }
        })?;
        let told = Arc::clone(&stop);
        let finding = named("history-find").spawn(move || {
            threads::lower_priority();
            while !told.load(Ordering::Acquire) {
                reader.turn(LOOK_EVERY);
            }
        });
        let mut threads = HistoryThreads { stop, threads: vec![keeping] };
        threads.threads.push(finding?);
        Ok(threads)
    }
}

/// How often the ring is looked at: the writer wakes nobody here. It takes a ring of 65,536 ticks 13 million ticks a
/// second to come round meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A history at work. When it is dropped, its threads end and its files are removed.
#[derive(Debug)]
pub struct HistoryThreads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for HistoryThreads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // One that has panicked has removed its files all the same.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
