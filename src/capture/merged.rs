//! Many captures, as one stream in the order of receive time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::reader::{Place, Placed, Reader};
use super::{BadLine, Record};

/// The records of several captures by receive time, whatever their forms.
///
/// Within a file the order of lines is kept even where its clock steps back: what counts is the latest
/// time that the file has shown so far, while each record keeps its own. Where two files show the same
/// time, the one that was named first goes first. So the order is the same in every run.
///
/// A bad line comes in the place of its line.
pub struct Merged {
    sources: Vec<Source>,
    /// The sources that have a next item, by the time and the place it is due.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// The source whose item was given out last: its buffer is lent out until the next call.
    lent: Option<usize>,
}

/// A place between two records of merged captures: for each source where it is, and the latest receive time so far.
pub type Places = Vec<(Place, u64)>;

struct Source {
    reader: Reader,
    next: Option<Result<Placed, BadLine>>,
    /// The latest receive time so far.
    key_ns: u64,
}

impl Merged {
    /// Merges `readers`; their places in the list are the source numbers, and the order of equal times.
    pub fn new(readers: Vec<Reader>) -> Self {
        Self::resume(readers.into_iter().map(|reader| (reader, 0)).collect())
    }

    /// Merges readers that begin at [places](Self::places), each with the latest receive time of its source there.
    pub fn resume(readers: Vec<(Reader, u64)>) -> Self {
        // A bad line has no time of its own, but is not of 1970: at the start it goes by its file's first.
        let source = |(reader, key_ns): (Reader, u64)| Source {
            key_ns: key_ns.max(reader.rx_ns()),
            reader,
            next: None,
        };
        let sources: Vec<_> = readers.into_iter().map(source).collect();
        let mut merged = Self { due: BinaryHeap::with_capacity(sources.len()), sources, lent: None };
        for index in 0..merged.sources.len() {
            merged.refill(index);
        }
        merged
    }

    /// The readers, in the order they were given.
    pub fn readers(&self) -> impl ExactSizeIterator<Item = &Reader> {
        self.sources.iter().map(|source| &source.reader)
    }

    /// Where it is: in front of the record that comes next.
    pub fn places(&mut self) -> Places {
        self.peek_ns();
        self.sources.iter().map(|source| (source.reader.before().clone(), source.key_ns)).collect()
    }

    /// Bytes of text of all sources that were read up to here.
    pub fn text_bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.reader.before().text_bytes()).sum()
    }

    /// When the next record is due: the latest receive time that its file has shown up to it. `None` at
    /// the end.
    pub fn peek_ns(&mut self) -> Option<u64> {
        if let Some(index) = self.lent.take() {
            self.refill(index);
        }
        self.due.peek().map(|Reverse((key_ns, _))| *key_ns)
    }

    /// The next record, and the number of the source it comes from.
    pub fn next_record(&mut self) -> Option<(usize, Result<Record<'_>, BadLine>)> {
        if let Some(index) = self.lent.take() {
            self.refill(index);
        }
        let Reverse((_, index)) = self.due.pop()?;
        self.lent = Some(index);
        let source = &mut self.sources[index];
        let item = source.next.take()?;
        Some((index, item.map(|placed| source.reader.record(&placed))))
    }

    /// Looks up the next item of a source and queues the source for it.
    fn refill(&mut self, index: usize) {
        let source = &mut self.sources[index];
        source.next = source.reader.advance();
        if let Some(Ok(placed)) = &source.next {
            source.key_ns = source.key_ns.max(placed.rx_ns);
        }
        if source.next.is_some() {
            self.due.push(Reverse((source.key_ns, index)));
        }
    }
}
