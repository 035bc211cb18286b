//! Finds what shards ask for: a thread that reads blocks from the files and unpacks them, one after the other.

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

/// Blocks that are kept for the next who wants them: clients that come together want the same. 3 MiB at most.
const BLOCKS_KEPT: usize = 8;
/// Requests that are answered in one turn: then it is looked whether the end has come.
const REQUESTS_PER_TURN: usize = 64;

/// Answers requests. [`turn`](Self::turn) does all its work and can be called by hand.
pub struct HistoryReader {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    /// What the writer has not written yet: one request a session, and those of sessions that are gone.
    later: Vec<Request>,
    unpacker: Unpacker,
    packed: Vec<u8>,
    /// Those that were wanted last, the newest last.
    kept: VecDeque<Arc<Block>>,
    /// The file that was read last. It can be read on even when it was removed.
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

    /// Answers what waits, a fair share at most. Where nothing does, it waits for so long.
    pub fn turn(&mut self, patience: Duration) {
        for request in std::mem::take(&mut self.later) {
            self.answer(request);
        }
        let first = match self.requests.recv_timeout(patience) {
            Ok(first) => first,
            // A file that was given up takes its room on the disk until it is let go.
            Err(RecvTimeoutError::Timeout) => {
                self.file = None;
                return;
            }
            // Nobody can ask any more while there is a client: it is the end.
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

    /// The block of a position; `None` while it is not written yet.
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
            // Whatever is missing from there on is found out there.
            _ => Found::Start(start, None),
        }
    }

    /// Before what is kept: nothing up to there, unless it was closed.
    fn gone(&self) -> Found {
        let index = self.shared.index();
        if index.is_closed() { Found::Gone } else { Found::Hole(index.begin()) }
    }

    /// A block that cannot be read: it was given up meanwhile, or it is a hole.
    fn lost(&self, entry: &Entry, position: u64) -> Found {
        match self.shared.index().find(position) {
            Place::Gone => self.gone(),
            _ => Found::Hole(entry.first + u64::from(entry.count)),
        }
    }

    /// Reads a block, unless it was read just now; `None` where it cannot be read.
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
                // Where it was given up meanwhile, that is no trouble.
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
