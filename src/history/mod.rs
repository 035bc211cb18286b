//! The history: the ticks of this run, as they were in the ring, on disk, for clients that catch up.
//!
//! ```text
//! ring ─► HistoryWriter ─────────────► Index ◄─ HistoryReader ◄─────────────► HistoryClient
//!         (thread: reads the ring,              (thread: looks up, reads,     (one per shard)
//!         compresses blocks, writes files)      decompresses)
//! ```
//!
//! A recording holds frames before they are decoded, and the sequence numbers of their ticks belong to the
//! run that assigned them. So what clients of this run catch up on is kept as this run published it, by
//! position in the ring. It has no meaning for another run: its files need not survive, and are removed at
//! the end or, after a kill, at the next start.
//!
//! Nothing waits for the history. The writer is a reader of the ring like a shard: if it is lapped, or a
//! block finds no room on disk, the history has a hole, which is reported to its clients. If it cannot write,
//! it ends with an alarm and removes its files. A shard sends requests through its [`HistoryClient`],
//! continues its turn, and is woken when the block is there.

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

/// The size and place of the history.
#[derive(Clone, Debug)]
pub struct HistoryOptions {
    /// The folder of the recordings, in which the files have a folder of their own; it is created if
    /// necessary.
    pub dir: PathBuf,
    /// Maximum size of all files together, in bytes.
    pub bytes_max: u64,
    /// The start of the run, in nanoseconds since the Unix epoch, used in the file names.
    pub run_ns: u64,
}

/// The counters of a history.
#[derive(Debug, Default)]
pub struct HistoryStats {
    /// Ticks taken from the ring.
    pub taken: Counter,
    /// Ticks currently in the files.
    pub held: Counter,
    /// Bytes currently used by the files, including the index in memory.
    pub bytes: Counter,
    /// Ticks that are missing: the writer was lapped, or there was no room for them.
    pub missed: Counter,
    /// Blocks read from the files.
    pub read: Counter,
}

/// The state that writer, reader and clients share.
#[derive(Debug)]
struct Shared {
    folder: Folder,
    /// Used by the writer and the reader; no shard takes this lock.
    index: Mutex<Index>,
    /// A copy of the index's `begins_ns` for shards; `u64::MAX`: nothing is kept any more.
    begins_ns: AtomicU64,
    stats: Arc<HistoryStats>,
    /// Why it ended, if it did.
    failed: Mutex<Option<String>>,
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        // After a panic the index is still consistent: each of its changes is one call.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the state of the index.
    fn show(&self, index: &Index) {
        self.begins_ns.store(index.begins_ns(), Ordering::Release);
        let (ticks, bytes) = index.size();
        self.stats.held.set(ticks);
        self.stats.bytes.set(bytes);
    }
}

/// A history before its threads run.
pub struct History {
    writer: HistoryWriter,
    reader: HistoryReader,
    access: Access,
}

/// The handle to a history for the rest of the gateway. Clones share one history.
#[derive(Clone, Debug)]
pub struct Access {
    shared: Arc<Shared>,
    requests: crossbeam::channel::Sender<client::Request>,
}

impl Access {
    /// Returns a client for a shard. `wake` wakes the shard when there is an answer.
    pub fn client(&self, wake: impl Fn() + Send + Sync + 'static) -> HistoryClient {
        HistoryClient::new(Arc::clone(&self.shared), self.requests.clone(), wake)
    }

    /// Returns the counters.
    pub fn stats(&self) -> Arc<HistoryStats> {
        Arc::clone(&self.shared.stats)
    }

    /// Returns why it ended, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failed.lock().map_or(None, |failed| failed.clone())
    }
}

impl History {
    /// Creates the folder, removes the leftovers of a killed run, and creates the first file. Ticks published
    /// from now on are kept. Failures are reported to `notices`.
    ///
    /// # Errors
    /// The I/O error if the folder or the file cannot be created.
    pub fn begin(
        options: &HistoryOptions,
        ring: &TickRing,
        notices: mpsc::Sender<String>,
    ) -> io::Result<Self> {
        Self::opening(options, ring, notices, None)
    }

    /// As [`begin`](Self::begin), with another way to open files.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn opening(
        options: &HistoryOptions,
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

    /// Returns the handle for the rest of the gateway.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Returns its two halves, for calling their turns by hand.
    pub fn into_halves(self) -> (HistoryWriter, HistoryReader) {
        (self.writer, self.reader)
    }

    /// Starts its threads.
    ///
    /// # Errors
    /// The I/O error if a thread cannot be started.
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

/// The interval at which the ring is polled, since the ingest thread does not wake the history. At 5 ms a
/// ring of 65,536 ticks is lapped only above 13 million ticks a second.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The threads of a running history. Drop ends them and removes the files.
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
            // A thread that panicked has removed its files nevertheless.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
