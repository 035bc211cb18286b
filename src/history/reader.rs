//! Serves the requests of shards: a thread that reads blocks from the files and decompresses them, one after
//! the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use tokio::sync::mpsc;

use super::Shared;
use super::block::{Block, Unpacker};
use super::client::{Answer, Found, REQUESTS_MAX, Request, Want};
use super::index::{Entry, Place};

use crate::text::printable;

/// Decompressed blocks kept for the next request: clients that connect together need the same. At most 3 MiB.
const BLOCKS_KEPT: usize = 8;
/// Maximum number of requests answered in one turn, after which the stop flag is checked.
const REQUESTS_PER_TURN: usize = 64;

/// Answers requests. [`turn`](Self::turn) does all its work and can be called by hand.
pub struct HistoryReader {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// Requests for ticks that are not written yet: one per session, and those of sessions that have ended.
    later: Vec<Request>,
    unpacker: Unpacker,
    packed: Vec<u8>,
    /// The most recently used blocks, the newest last.
    kept: VecDeque<Arc<Block>>,
    /// The file that was read last. It can still be read after it was removed.
    file: Option<(u64, File)>,
    notices: mpsc::Sender<String>,
}

impl HistoryReader {
    pub(super) fn new(
        shared: Arc<Shared>,
        requests: Receiver<Request>,
        notices: mpsc::Sender<String>,
    ) -> io::Result<Self> {
        Ok(Self {
            shared,
            requests,
            later: Vec::new(),
            unpacker: Unpacker::new()?,
            packed: Vec::new(),
            kept: VecDeque::new(),
            file: None,
            notices,
        })
    }

    /// Answers waiting requests, up to a limit. Waits up to `patience` if there are none.
    pub fn turn(&mut self, patience: Duration) {
        for request in std::mem::take(&mut self.later) {
            self.answer(request);
        }
        let first = match self.requests.recv_timeout(patience) {
            Ok(first) => first,
            // Close it: a removed file occupies the disk as long as it is open.
            Err(RecvTimeoutError::Timeout) => {
                self.file = None;
                return;
            }
            // All clients are gone, so this is the end.
            Err(RecvTimeoutError::Disconnected) => return,
        };
        self.answer(first);
        for _ in 1..REQUESTS_PER_TURN {
            let Ok(next) = self.requests.try_recv() else { break };
            self.answer(next);
        }
    }

    fn answer(&mut self, request: Request) {
        let found = match request.want {
            Want::At(position) => self.at(position),
            Want::Since(from_ns) => Some(self.since(from_ns)),
        };
        match found {
            None if self.later.len() < REQUESTS_MAX => self.later.push(request),
            found => {
                let found = found.unwrap_or(Found::Gone);
                let Request { ticket, want, home } = request;
                home.tell(Answer { ticket, want, found });
            }
        }
    }

    /// Returns the block of a position; `None` while it is not written yet.
    fn at(&mut self, position: u64) -> Option<Found> {
        let place = self.shared.index().find(position);
        match place {
            Place::Block(entry) => Some(match self.block(&entry) {
                Some(block) => Found::Block(block),
                None => self.lost(&entry, position),
            }),
            Place::Hole(upto) => Some(Found::Hole(upto)),
            Place::Gone => Some(self.gone()),
            Place::NotYet => None,
        }
    }

    fn since(&mut self, from_ns: u64) -> Found {
        let index = self.shared.index();
        let ((start, entry), closed) = (index.since(from_ns), index.is_closed());
        drop(index);
        match entry {
            Some(entry) if entry.first == start => Found::Start(start, self.block(&entry)),
            None if closed => Found::Gone,
            // What is missing from there on is found when it is requested.
            _ => Found::Start(start, None),
        }
    }

    /// Returns the result for a position before the kept ones: a hole up to there, unless the history was
    /// closed.
    fn gone(&self) -> Found {
        let index = self.shared.index();
        if index.is_closed() { Found::Gone } else { Found::Hole(index.begin()) }
    }

    /// Returns the result for an unreadable block: it was dropped meanwhile, or it is a hole.
    fn lost(&self, entry: &Entry, position: u64) -> Found {
        match self.shared.index().find(position) {
            Place::Gone => self.gone(),
            _ => Found::Hole(entry.first + u64::from(entry.count)),
        }
    }

    /// Returns a block, from memory or from its file; `None` if it cannot be read.
    fn block(&mut self, entry: &Entry) -> Option<Arc<Block>> {
        if let Some(at) = self.kept.iter().position(|block| block.first() == entry.first) {
            let block = self.kept.remove(at)?;
            self.kept.push_back(Arc::clone(&block));
            return Some(block);
        }
        match self.read(entry) {
            Ok(block) => {
                self.shared.stats.read.add(1);
                let block = Arc::new(block);
                if self.kept.len() == BLOCKS_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(Arc::clone(&block));
                Some(block)
            }
            Err(error) => {
                // An error for a block that was dropped meanwhile is expected.
                if matches!(self.shared.index().find(entry.first), Place::Block(_)) {
                    let path = self.shared.folder.path(entry.file);
                    let _ = self
                        .notices
                        .try_send(format!("{}: {error}: a hole in the history", printable::path(&path)));
                }
                None
            }
        }
    }

    fn read(&mut self, entry: &Entry) -> io::Result<Block> {
        if self.file.as_ref().is_none_or(|(number, _)| *number != entry.file) {
            self.file = Some((entry.file, File::open(self.shared.folder.path(entry.file))?));
        }
        let Some((_, file)) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.seek(SeekFrom::Start(entry.offset))?;
        self.packed.resize(entry.bytes as usize, 0);
        file.read_exact(&mut self.packed)?;
        self.unpacker.unpack(&self.packed, entry.first, entry.count)
    }
}
