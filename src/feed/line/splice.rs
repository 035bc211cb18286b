//! The newest changes of a book with numbered messages, kept as received frames.
//!
//! A recorder requests a snapshot while it already receives changes, so the snapshot is often older than
//! changes that were recorded before it. The changes that it does not include are applied to it from here, as
//! the venue's recipe requires
//! (<https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly>).

use std::collections::VecDeque;
use std::sync::Arc;

/// Size of a block of frames in bytes. Full blocks are shared between copies of a window.
const BLOCK_BYTES: usize = 32 << 10;

/// A kept change: its update ids, and the location of its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) previous: Option<u64>,
    /// The number of its block, counted from the first block of the window, and the offset there.
    block: u64,
    from: usize,
    len: usize,
}

impl Kept {
    /// Returns true if this can be the first change applied to a snapshot of update id `snapshot`.
    pub(super) fn joins(&self, snapshot: u64) -> bool {
        match self.previous {
            // Update ids of futures are shared with other symbols, so `first` may lie far beyond the previous
            // message.
            Some(previous) => previous <= snapshot,
            None => self.first <= snapshot.saturating_add(1),
        }
    }
}

/// The newest changes of one book, consecutive.
#[derive(Default)]
pub(super) struct Window {
    kept: VecDeque<Kept>,
    blocks: VecDeque<Arc<Vec<u8>>>,
    /// The number of the first block.
    first_block: u64,
    /// Total bytes of the frames in `kept`.
    bytes: usize,
    /// A freed block, reused for the next one.
    spare: Vec<u8>,
}

impl Clone for Window {
    fn clone(&self) -> Self {
        let Self { kept, blocks, first_block, bytes, .. } = self;
        let (kept, blocks) = (kept.clone(), blocks.clone());
        Self { kept, blocks, first_block: *first_block, bytes: *bytes, spare: Vec::new() }
    }
}

impl Window {
    /// Keeps a change, unless it is a duplicate. Evicts the oldest ones to stay within `messages_max` changes
    /// and `bytes_max` bytes of frames, and all of them if the change does not follow the newest one.
    pub(super) fn keep(
        &mut self,
        (first, last, previous): (u64, u64, Option<u64>),
        frame: &[u8],
        messages_max: usize,
        bytes_max: usize,
    ) {
        if self.kept.back().is_some_and(|newest| last <= newest.last) {
            return;
        }
        let follows = |newest: &Kept| match previous {
            Some(previous) => previous == newest.last,
            None => first == newest.last.saturating_add(1),
        };
        if !self.kept.back().is_none_or(follows) {
            self.clear();
        }
        while self.kept.len() >= messages_max.max(1) || self.bytes.saturating_add(frame.len()) > bytes_max {
            if !self.drop_oldest() {
                break;
            }
        }
        // It does not fit, and without it the changes before it are useless.
        if frame.len() > bytes_max || messages_max == 0 {
            return self.clear();
        }
        let is_full = |block: &Arc<Vec<u8>>| block.len() + frame.len() > BLOCK_BYTES;
        if self.blocks.back().is_none_or(is_full) {
            let mut block = std::mem::take(&mut self.spare);
            block.reserve(BLOCK_BYTES.max(frame.len()));
            self.blocks.push_back(Arc::new(block));
        }
        let block = self.first_block + self.blocks.len() as u64 - 1;
        let Some(open) = self.blocks.back_mut() else { return };
        let open = Arc::make_mut(open);
        let kept = Kept { first, last, previous, block, from: open.len(), len: frame.len() };
        open.extend_from_slice(frame);
        self.kept.push_back(kept);
        self.bytes += frame.len();
    }

    /// Removes all changes.
    pub(super) fn clear(&mut self) {
        self.first_block += self.blocks.len() as u64;
        self.kept.clear();
        self.blocks.clear();
        self.bytes = 0;
    }

    /// Returns the changes that a snapshot of update id `snapshot` does not include, oldest first.
    pub(super) fn after(&self, snapshot: u64) -> impl ExactSizeIterator<Item = (Kept, &[u8])> {
        let from = self.kept.partition_point(|kept| kept.last <= snapshot);
        self.kept.range(from..).map(|kept| (*kept, self.frame(kept)))
    }

    /// Returns the memory that it does not share with copies, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.len() * size_of::<Kept>() + self.blocks.back().map_or(0, |block| block.capacity())
    }

    /// Returns the total bytes of the kept frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn frame(&self, kept: &Kept) -> &[u8] {
        let block = self.blocks.get((kept.block - self.first_block) as usize);
        block.and_then(|block| block.get(kept.from..kept.from + kept.len)).unwrap_or_default()
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.kept.pop_front() else { return false };
        self.bytes -= oldest.len;
        let needed = self.kept.front().map_or(oldest.block, |kept| kept.block);
        while self.first_block < needed
            && let Some(block) = self.blocks.pop_front()
        {
            self.first_block += 1;
            if let Some(mut block) = Arc::into_inner(block) {
                block.clear();
                self.spare = block;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(window: &Window, snapshot: u64) -> Vec<(u64, Vec<u8>)> {
        window.after(snapshot).map(|(kept, frame)| (kept.last, frame.to_vec())).collect()
    }

    #[test]
    fn the_newest_changes_are_kept_within_both_bounds() {
        let mut window = Window::default();
        let frame = |n: u64| vec![n as u8; 1_000];
        for n in 1..=200 {
            window.keep((n, n, None), &frame(n), 100, usize::MAX);
        }
        assert_eq!(frames(&window, 0), (101..=200).map(|n| (n, frame(n))).collect::<Vec<_>>());
        assert_eq!(frames(&window, 198), [(199, frame(199)), (200, frame(200))]);
        assert_eq!(window.bytes(), 100_000);
        let copy = window.clone();
        window.keep((201, 201, None), &frame(201), 100, 5_500);
        assert_eq!(frames(&window, 0).len(), 5);
        assert_eq!((window.bytes(), window.blocks.len() <= 2), (5_000, true), "blocks of others go");
        assert_eq!(frames(&copy, 0).len(), 100, "a copy is not touched");
        window.keep((202, 202, None), &[0; 6_000], 100, 5_500);
        assert_eq!((frames(&window, 0).len(), window.bytes()), (0, 0), "a hole is not bridged");
        window.keep((203, 203, None), &frame(203), 100, 5_500);
        assert_eq!(frames(&window, 0), [(203, frame(203))]);
        window.keep((204, 204, None), &[7; 2 * BLOCK_BYTES], 100, usize::MAX);
        assert_eq!(frames(&window, 203), [(204, vec![7; 2 * BLOCK_BYTES])], "longer than a block");
    }

    #[test]
    fn a_change_joins_a_snapshot_by_its_venues_rule() {
        let kept = |first, previous| Kept { first, last: 20, previous, block: 0, from: 0, len: 0 };
        assert!(kept(11, None).joins(10) && kept(5, None).joins(10) && !kept(12, None).joins(10));
        assert!(kept(15, Some(10)).joins(10) && kept(15, Some(3)).joins(10) && !kept(15, Some(11)).joins(10));
    }
}
