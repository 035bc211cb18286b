//! Writes the history: reads the ring and stores compressed blocks of ticks in files.

use std::io::{self, Write};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Shared;
use super::block::Packer;
use super::files::Folder;
use super::index::{Entry, Room};
use crate::model::tick::Words;
use crate::ring::TickReader;
use crate::text::printable;

/// Maximum number of ticks of a block: 384 KiB in memory. Larger blocks would compress slightly better, but
/// each request has to read a whole block.
const BLOCK_TICKS_MAX: usize = 4_096;

/// Creates the file with a number, in the folder of a run.
type Begin = Box<dyn FnMut(&Folder, u64) -> io::Result<Box<dyn Write + Send>> + Send>;

/// An alternative way to create the file with a number.
pub type OpenFile = Box<dyn FnMut(u64) -> io::Result<Box<dyn Write + Send>> + Send>;

/// Stores ticks. [`turn`](Self::turn) does all its work and can be called by hand. Drop removes its files.
pub struct HistoryWriter {
    shared: Arc<Shared>,
    reader: TickReader,
    packer: Packer,
    /// Ticks not yet written; they are still in the ring.
    pending: Vec<Words>,
    /// Ticks in a block: few enough that the ring still holds them when the block is written.
    block_ticks: usize,
    /// The newest file, its number, and the numbers of the older ones.
    file: Box<dyn Write + Send>,
    number: u64,
    others: Vec<u64>,
    begin: Begin,
    notices: mpsc::Sender<String>,
    ended: bool,
}

impl HistoryWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        reader: TickReader,
        ring_capacity: usize,
        notices: mpsc::Sender<String>,
        open: Option<OpenFile>,
    ) -> io::Result<Self> {
        let mut begin: Begin = match open {
            Some(mut open) => Box::new(move |_, number| open(number)),
            None => Box::new(|folder, number| Ok(Box::new(folder.create(number)?))),
        };
        let block_ticks = (ring_capacity / 4).clamp(1, BLOCK_TICKS_MAX);
        Ok(Self {
            file: begin(&shared.folder, 1)?,
            shared,
            reader,
            packer: Packer::new()?,
            pending: Vec::with_capacity(block_ticks),
            block_ticks,
            number: 1,
            others: Vec::new(),
            begin,
            notices,
            ended: false,
        })
    }

    /// Takes at most the rest of a block from the ring, and writes the block if it is complete. Returns true
    /// if there may be more.
    pub fn turn(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let room = self.block_ticks - self.pending.len();
        let pending = &mut self.pending;
        let batch = self.reader.poll(room, |packed| pending.push(packed.words()));
        self.shared.stats.taken.add(batch.taken as u64);
        let kept = if batch.lapped > 0 {
            // The ticks taken precede the hole.
            let first = self.reader.cursor() - batch.lapped - self.pending.len() as u64;
            self.shared.stats.missed.add(batch.lapped);
            self.write(first).map(|()| self.shared.index().skip_to(self.reader.cursor()))
        } else if self.pending.len() == self.block_ticks {
            self.write(self.reader.cursor() - self.pending.len() as u64)
        } else {
            Ok(())
        };
        if let Err(error) = kept {
            self.give_up(&error);
            return false;
        }
        !batch.is_empty()
    }

    /// Writes the pending ticks, the first of which has the position `first`.
    fn write(&mut self, first: u64) -> io::Result<()> {
        let Some(rx) = span(&self.pending) else { return Ok(()) };
        let packed = self.packer.pack(&self.pending)?;
        let mut index = self.shared.index();
        let room = index.make_room(packed.len() as u64);
        self.shared.show(&index);
        drop(index);
        let Some(Room { file, offset, given_up }) = room else {
            // This one block exceeds the whole limit.
            self.shared.stats.missed.add(self.pending.len() as u64);
            self.shared.index().skip_to(first + self.pending.len() as u64);
            self.pending.clear();
            return Ok(());
        };
        for number in given_up {
            self.others.retain(|other| *other != number);
            self.shared.folder.remove(number);
        }
        if file != self.number {
            self.file = (self.begin)(&self.shared.folder, file)?;
            self.others.push(self.number);
            self.number = file;
        }
        self.file.write_all(packed)?;
        self.file.flush()?;
        let (count, bytes) = (self.pending.len() as u32, packed.len() as u32);
        let mut index = self.shared.index();
        index.add(Entry { first, count, bytes, least_rx_ns: rx.0, greatest_rx_ns: rx.1, file, offset });
        self.shared.show(&index);
        self.pending.clear();
        Ok(())
    }

    /// Ends the history after a write error: nothing more is kept, and its files are removed, which may free
    /// the space that the disk lacks.
    fn give_up(&mut self, error: &io::Error) {
        self.ended = true;
        let mut index = self.shared.index();
        index.close();
        self.shared.show(&index);
        drop(index);
        self.pending = Vec::new();
        self.remove_files();
        if let Ok(mut failed) = self.shared.failed.lock() {
            *failed = Some(error.to_string());
        }
        // If the channel is full, the alarm still reports it.
        let path = self.shared.folder.path(self.number);
        let _ = self
            .notices
            .try_send(format!("{}: {error}: no history is kept any more", printable::path(&path)));
    }

    fn remove_files(&mut self) {
        for number in self.others.drain(..).chain([self.number]) {
            self.shared.folder.remove(number);
        }
        self.shared.folder.leave();
    }
}

impl Drop for HistoryWriter {
    fn drop(&mut self) {
        self.remove_files();
    }
}

/// Returns the earliest and the latest receive time of some ticks.
fn span(ticks: &[Words]) -> Option<(u64, u64)> {
    let rx = || ticks.iter().map(|words| words[2]);
    rx().min().zip(rx().max())
}
