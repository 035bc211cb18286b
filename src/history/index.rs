//! The index of a history: the locations of blocks in files, within a size limit.
//!
//! The limit is kept by whole files: several are written one after the other, and the oldest is removed as a
//! whole.

use std::collections::VecDeque;

/// The number of files in a full history; the oldest is removed as a whole, so this determines how much is
/// lost at a time.
const FILES: u64 = 8;
/// Bytes that a block counts beyond its data: its index entry.
const ENTRY_BYTES: u64 = size_of::<Entry>() as u64;

/// The location of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The position of its first tick.
    pub(super) first: u64,
    /// The number of its ticks.
    pub(super) count: u32,
    /// Its size in the file, in bytes.
    pub(super) bytes: u32,
    /// The earliest and the latest receive time of its ticks, in nanoseconds since the Unix epoch: ticks need
    /// not be in order of time.
    pub(super) least_rx_ns: u64,
    pub(super) greatest_rx_ns: u64,
    /// The number of its file, and the offset there.
    pub(super) file: u64,
    pub(super) offset: u64,
}

impl Entry {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// A file of the history.
#[derive(Clone, Copy, Debug)]
struct FileSpan {
    number: u64,
    bytes: u64,
    /// Bytes that its blocks count against the limit, and their number of ticks.
    counted: u64,
    ticks: u64,
}

/// The result of looking up a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Block(Entry),
    /// The position was never kept, nor were those after it up to this one, exclusive.
    Hole(u64),
    /// It is no longer kept.
    Gone,
    /// It was not written yet.
    NotYet,
}

/// A reserved place for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The number of its file.
    pub(super) file: u64,
    /// The offset there.
    pub(super) offset: u64,
    /// Files that no longer contain kept ticks.
    pub(super) given_up: Vec<u64>,
}

/// The index. It does no I/O.
#[derive(Debug)]
pub(super) struct Index {
    bytes_max: u64,
    /// Bytes of the header of each file.
    head_bytes: u64,
    files: VecDeque<FileSpan>,
    entries: VecDeque<Entry>,
    /// Ticks before this position are no longer kept.
    begin: u64,
    gave_up: bool,
    /// The time since which it is complete, except in holes: its start, until something is dropped.
    begins_ns: u64,
    /// The latest receive time of the dropped ticks.
    gone_ns: u64,
    /// The position after the last one that is written or known to be missing.
    end: u64,
}

impl Index {
    /// Returns an empty index that starts at position `end` and time `begins_ns`; each file has a header of
    /// `head_bytes`.
    pub(super) fn new(bytes_max: u64, head_bytes: u64, end: u64, begins_ns: u64) -> Self {
        let files = VecDeque::from([FileSpan { number: 1, bytes: head_bytes, counted: 0, ticks: 0 }]);
        let entries = VecDeque::new();
        Self { bytes_max, head_bytes, files, entries, begin: end, gave_up: false, begins_ns, gone_ns: 0, end }
    }

    /// Returns the time since which all received ticks are kept, except in holes, in nanoseconds since the
    /// Unix epoch.
    pub(super) fn begins_ns(&self) -> u64 {
        self.begins_ns
    }

    /// Returns the number of kept ticks, and the bytes that they count against the limit.
    pub(super) fn size(&self) -> (u64, u64) {
        self.files.iter().fold((0, 0), |(ticks, counted), file| (ticks + file.ticks, counted + file.counted))
    }

    /// Reserves a place for a block of `bytes` bytes, and drops the oldest files for it; `None` if it exceeds
    /// the whole limit.
    pub(super) fn make_room(&mut self, bytes: u64) -> Option<Room> {
        let counted = bytes + ENTRY_BYTES;
        if counted > self.bytes_max {
            return None;
        }
        let newest = *self.files.back()?;
        if newest.counted > 0 && newest.counted + counted > self.bytes_max / FILES {
            let number = newest.number + 1;
            self.files.push_back(FileSpan { number, bytes: self.head_bytes, counted: 0, ticks: 0 });
        }
        let mut given_up = Vec::new();
        while self.size().1 + counted > self.bytes_max && self.files.len() > 1 {
            given_up.extend(self.give_up_oldest());
        }
        let newest = self.files.back()?;
        Some(Room { file: newest.number, offset: newest.bytes, given_up })
    }

    fn give_up_oldest(&mut self) -> Option<u64> {
        let number = self.files.pop_front()?.number;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.file == number) {
            self.begin = entry.end();
            self.gave_up = true;
            self.gone_ns = self.gone_ns.max(entry.greatest_rx_ns);
        }
        if let Some(oldest) = self.entries.front() {
            self.begins_ns = oldest.least_rx_ns.max(self.gone_ns + 1);
        }
        Some(number)
    }

    /// Adds a block that was written to the [room](Self::make_room) reserved for it.
    pub(super) fn add(&mut self, entry: Entry) {
        if self.entries.is_empty() && self.gave_up {
            self.begins_ns = entry.least_rx_ns.max(self.gone_ns + 1);
        }
        if let Some(file) = self.files.back_mut() {
            file.bytes += u64::from(entry.bytes);
            file.counted += u64::from(entry.bytes) + ENTRY_BYTES;
            file.ticks += u64::from(entry.count);
        }
        self.end = entry.end();
        self.entries.push_back(entry);
    }

    /// Marks everything before this position that is not kept as missing.
    pub(super) fn skip_to(&mut self, position: u64) {
        self.end = self.end.max(position);
    }

    /// Drops everything, and keeps nothing more.
    pub(super) fn close(&mut self) {
        self.entries.clear();
        self.files.clear();
        (self.begin, self.begins_ns, self.end) = (u64::MAX, u64::MAX, u64::MAX);
    }

    /// Returns true once it was [closed](Self::close).
    pub(super) fn is_closed(&self) -> bool {
        self.files.is_empty()
    }

    /// Looks up a position.
    pub(super) fn find(&self, position: u64) -> Place {
        if position < self.begin {
            return Place::Gone;
        }
        if position >= self.end {
            return Place::NotYet;
        }
        let at = self.entries.partition_point(|entry| entry.end() <= position);
        match self.entries.get(at) {
            Some(entry) if entry.first <= position => Place::Block(*entry),
            next => Place::Hole(next.map_or(self.end, |next| next.first)),
        }
    }

    /// Returns a position before which all kept ticks were received before this moment, and the first block
    /// with a tick of that moment or later; `None` if nothing written is that new. Ticks missing between the
    /// two may be of that moment or later.
    pub(super) fn since(&self, from_ns: u64) -> (u64, Option<Entry>) {
        let at = self.entries.iter().position(|entry| entry.greatest_rx_ns >= from_ns);
        let before = at.unwrap_or(self.entries.len()).checked_sub(1);
        let start = before.and_then(|before| self.entries.get(before)).map_or(self.begin, Entry::end);
        (start, at.and_then(|at| self.entries.get(at)).copied())
    }

    /// Returns the position before which nothing is kept any more.
    pub(super) fn begin(&self) -> u64 {
        self.begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for eight files of three blocks each.
    const BYTES_MAX: u64 = 8 * 3 * (100 + ENTRY_BYTES);

    /// Writes a block of ten ticks and 100 bytes, received in the order of their positions; returns the files
    /// dropped for it.
    fn write(index: &mut Index, first: u64) -> Vec<u64> {
        let room = index.make_room(100).expect("room");
        index.add(Entry {
            first,
            count: 10,
            bytes: 100,
            least_rx_ns: 1_000 + first,
            greatest_rx_ns: 1_009 + first,
            file: room.file,
            offset: room.offset,
        });
        room.given_up
    }

    fn at(place: Place) -> (u64, u64, u64) {
        match place {
            Place::Block(entry) => (entry.first, entry.file, entry.offset),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_are_found_by_position_and_by_time() {
        let mut index = Index::new(BYTES_MAX, 16, 0, 7);
        assert_eq!((index.find(0), index.since(0)), (Place::NotYet, (0, None)));
        for n in 0..7 {
            assert!(write(&mut index, 10 * n).is_empty());
        }
        assert_eq!((index.begins_ns(), index.end), (7, 70));
        assert_eq!(index.size(), (70, 7 * (100 + ENTRY_BYTES)));
        assert_eq!(at(index.find(0)), (0, 1, 16));
        assert_eq!(at(index.find(29)), (20, 1, 216));
        assert_eq!(at(index.find(30)), (30, 2, 16), "three fit in a file");
        assert_eq!(at(index.find(69)), (60, 3, 16));
        assert_eq!(index.find(70), Place::NotYet);
        let since = |ns| (index.since(ns).0, index.since(ns).1.map(|entry| entry.first));
        assert_eq!([0, 1_000, 1_009, 1_010, 1_065].map(since), [0, 0, 0, 10, 60].map(|at| (at, Some(at))));
        assert_eq!(since(1_070), (70, None));
    }

    #[test]
    fn the_oldest_file_goes_as_one() {
        let mut index = Index::new(BYTES_MAX, 16, 0, 7);
        for n in 0..24 {
            assert!(write(&mut index, 10 * n).is_empty());
        }
        assert_eq!(index.begins_ns(), 7, "nothing is missing yet");
        assert_eq!(write(&mut index, 240), [1]);
        assert_eq!((index.find(0), index.find(29)), (Place::Gone, Place::Gone));
        assert_eq!(at(index.find(30)), (30, 2, 16));
        assert_eq!((index.begins_ns(), index.since(0).1.map(|e| e.first)), (1_030, Some(30)));
        for n in 25..1_000 {
            write(&mut index, 10 * n);
            let (ticks, counted) = index.size();
            assert!(counted <= BYTES_MAX && ticks >= 210, "{ticks} ticks of {counted} bytes");
        }
        assert_eq!(index.find(u64::MAX), Place::NotYet);
        index.close();
        assert_eq!((index.find(0), index.find(u64::MAX - 1)), (Place::Gone, Place::Gone));
        assert_eq!((index.since(0), index.make_room(1), index.is_closed()), ((u64::MAX, None), None, true));
    }

    #[test]
    fn a_block_that_is_too_large_finds_no_room_and_costs_nothing() {
        let mut index = Index::new(BYTES_MAX, 0, 0, 0);
        write(&mut index, 0);
        assert_eq!(index.make_room(BYTES_MAX), None);
        assert_eq!(at(index.find(0)), (0, 1, 0));
        // A block that takes the place of all others.
        let room = index.make_room(BYTES_MAX - ENTRY_BYTES).expect("room");
        assert_eq!((room.file, room.given_up), (2, vec![1]));
    }

    #[test]
    fn holes_are_told_from_what_is_to_come() {
        let mut index = Index::new(BYTES_MAX, 0, 5, 0);
        assert_eq!(index.find(4), Place::Gone, "before its begin");
        index.skip_to(20);
        assert_eq!((index.find(5), index.find(20)), (Place::Hole(20), Place::NotYet));
        write(&mut index, 20);
        index.skip_to(50);
        assert_eq!((index.find(5), index.find(30)), (Place::Hole(20), Place::Hole(50)));
        write(&mut index, 50);
        assert_eq!((index.find(49), at(index.find(50)).0), (Place::Hole(50), 50));
        // The missing ticks may have been received since.
        let since = |index: &Index, ns| (index.since(ns).0, index.since(ns).1.map(|entry| entry.first));
        assert_eq!((since(&index, 0), since(&index, 1_050)), ((5, Some(20)), (30, Some(50))));
        index.skip_to(90);
        assert_eq!(since(&index, 2_000), (60, None));
        // Times out of order: the first block with a tick that new.
        index.add(Entry { greatest_rx_ns: 9_000, ..index.since(1_050).1.expect("a block") });
        assert_eq!(index.since(8_000).1.map(|entry| entry.first), Some(50));
    }
}
