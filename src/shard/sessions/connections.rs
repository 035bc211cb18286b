//! The table of a shard's connections. Beside it stands the table of their pending frames, to which ticks are pushed: a
//! connection that is given out to be changed has all of them taken in.

use slab::Slab;

use crate::session::{FrameRange, PendingFrames};
use crate::shard::sessions::connection::Connection;

/// The connections of one shard.
pub(in crate::shard) struct Connections<S> {
    /// Boxed: a table of very many grows by doubling, and would be half empty. The number of one that was removed is
    /// kept until it is [freed](Self::free).
    table: Slab<Option<Box<Connection<S>>>>,
    /// In chunks, for the same reason.
    pending_frames_of_all: Vec<Box<[PendingFrames; CHUNK]>>,
}

/// PendingFramesOfAll that are allocated together.
const CHUNK: usize = 64;

fn pending_of(
    pending_frames_of_all: &mut [Box<[PendingFrames; CHUNK]>],
    id: u32,
) -> Option<&mut PendingFrames> {
    let chunk = pending_frames_of_all.get_mut(id as usize / CHUNK)?;
    Some(&mut chunk[id as usize % CHUNK])
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Self { table: Slab::new(), pending_frames_of_all: Vec::new() }
    }
}

impl<S> Connections<S> {
    /// A connection, for those who ask nothing about what waits for it: ticks may lie on its pending frames.
    #[inline]
    pub(in crate::shard) fn get(&self, id: u32) -> Option<&Connection<S>> {
        self.table.get(id as usize)?.as_deref()
    }

    /// A connection. What lay on its pending frames was taken in, and there is no room on it until it is set out again.
    #[inline]
    pub(in crate::shard) fn get_mut(&mut self, id: u32) -> Option<&mut Connection<S>> {
        self.get_with_pending(id).map(|(connection, _)| connection)
    }

    /// As [`get_mut`](Self::get_mut), with the pending frames, which may be [set out](Connection::set_out) when all is done.
    #[inline]
    pub(in crate::shard) fn get_with_pending(
        &mut self,
        id: u32,
    ) -> Option<(&mut Connection<S>, &mut PendingFrames)> {
        let connection = self.table.get_mut(id as usize)?.as_deref_mut()?;
        let pending_frames = pending_of(&mut self.pending_frames_of_all, id)?;
        connection.session.take(pending_frames);
        Some((connection, pending_frames))
    }

    /// Takes one in: its number, which one that has gone may have had.
    pub(in crate::shard) fn insert(&mut self, connection: Box<Connection<S>>) -> u32 {
        let id = self.table.insert(Some(connection)) as u32;
        match pending_of(&mut self.pending_frames_of_all, id) {
            Some(pending_frames) => *pending_frames = PendingFrames::default(),
            None => {
                self.pending_frames_of_all.push(Box::new(std::array::from_fn(|_| PendingFrames::default())));
            }
        }
        id
    }

    /// Takes one out. No other has its number before it is [freed](Self::free).
    pub(in crate::shard) fn remove(&mut self, id: u32) -> Option<Box<Connection<S>>> {
        self.get_mut(id)?;
        self.table.get_mut(id as usize)?.take()
    }

    /// Nothing stands for a connection any more that was removed.
    pub(in crate::shard) fn free(&mut self, id: u32) {
        if self.table.get(id as usize).is_some_and(Option::is_none) {
            self.table.remove(id as usize);
        }
    }

    /// True if there is none, and no number is kept.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All of them, as [`get`](Self::get) gives them.
    pub(in crate::shard) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.table.iter().filter_map(|(id, connection)| Some((id as u32, connection.as_deref()?)))
    }

    /// All of them, as [`get_mut`](Self::get_mut) gives them.
    pub(in crate::shard) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Connection<S>)> {
        let pending_frames_of_all = &mut self.pending_frames_of_all;
        self.table.iter_mut().filter_map(|(id, connection)| {
            let connection = connection.as_deref_mut()?;
            if let Some(pending_frames) = pending_of(pending_frames_of_all, id as u32) {
                connection.session.take(pending_frames);
            }
            Some((id as u32, connection))
        })
    }

    // ---- pending frames ----------------------------------------------------------------------------------------

    /// Reads what a tick needs of a connection, and says nothing of it. Of several in a row this waits for memory once.
    #[inline]
    pub(in crate::shard) fn prefetch(&self, id: u32) -> usize {
        self.pending_frames_of_all
            .get(id as usize / CHUNK)
            .map_or(0, |chunk| chunk[id as usize % CHUNK].prefetch())
    }

    /// Lays a tick's frame on a connection's pending frames, and marks it as queued: whether it was already. `None` if there is no room:
    /// its session has to be asked.
    #[inline]
    pub(in crate::shard) fn lay(
        &mut self,
        id: u32,
        range: FrameRange,
        counted: bool,
        now_ns: u64,
    ) -> Option<bool> {
        let pending_frames = pending_of(&mut self.pending_frames_of_all, id)?;
        pending_frames
            .lay(range, counted, now_ns)
            .then(|| std::mem::replace(&mut pending_frames.queued, true))
    }

    /// Says whether a connection is in the queue of those with something to write. What it was said to be before.
    #[inline]
    pub(in crate::shard) fn set_queued(&mut self, id: u32, queued: bool) -> bool {
        pending_of(&mut self.pending_frames_of_all, id)
            .is_some_and(|pending_frames| std::mem::replace(&mut pending_frames.queued, queued))
    }
}
