//! The table of a shard's connections, and the table of their pending frames, to which ticks are pushed. A connection
//! that is handed out as mutable has absorbed its pending frames.

use slab::Slab;

use super::Connection;
use crate::session::{FrameRange, PendingFrames};

/// The connections of one shard.
pub(super) struct Connections<S> {
    /// Boxed, because a large table grows by doubling and would be half empty. The number of a removed connection is
    /// kept until it is [freed](Self::free).
    table: Slab<Option<Box<Connection<S>>>>,
    /// In chunks, for the same reason.
    pending_frames_of_all: Vec<Box<[PendingFrames; CHUNK]>>,
    /// The serial of the newest connection.
    serials: u64,
}

/// Rows of pending frames that are allocated together.
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
        Self { table: Slab::new(), pending_frames_of_all: Vec::new(), serials: 0 }
    }
}

impl<S> Connections<S> {
    /// A connection, which may have pending frames: not for queries about what waits for it.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Connection<S>> {
        self.table.get(id as usize)?.as_deref()
    }

    /// A connection. It has absorbed its pending frames, and takes no more until they are
    /// [allowed](Connection::allow_pending) again.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Connection<S>> {
        self.get_with_pending(id).map(|(connection, _)| connection)
    }

    /// As [`get_mut`](Self::get_mut), if the number still belongs to the connection of this serial.
    pub(super) fn get_same(&mut self, id: u32, serial: u64) -> Option<&mut Connection<S>> {
        self.get_mut(id).filter(|connection| connection.serial == serial)
    }

    /// Whether a number still belongs to the connection of this serial.
    pub(super) fn is_same(&self, id: u32, serial: u64) -> bool {
        self.get(id).is_some_and(|connection| connection.serial == serial)
    }

    /// As [`get_mut`](Self::get_mut), with the pending frames, which may be [allowed](Connection::allow_pending) again
    /// at the end.
    #[inline]
    pub(super) fn get_with_pending(&mut self, id: u32) -> Option<(&mut Connection<S>, &mut PendingFrames)> {
        let connection = self.table.get_mut(id as usize)?.as_deref_mut()?;
        let pending_frames = pending_of(&mut self.pending_frames_of_all, id)?;
        connection.session.absorb(pending_frames);
        Some((connection, pending_frames))
    }

    /// Adds a connection, made with its serial. Returns its number, which an earlier connection may have had.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Connection<S>) -> u32 {
        self.serials += 1;
        let id = self.table.insert(Some(Box::new(make(self.serials)))) as u32;
        match pending_of(&mut self.pending_frames_of_all, id) {
            Some(pending_frames) => *pending_frames = PendingFrames::default(),
            None => {
                self.pending_frames_of_all.push(Box::new(std::array::from_fn(|_| PendingFrames::default())));
            }
        }
        id
    }

    /// Removes a connection. No other gets its number before it is [freed](Self::free).
    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Connection<S>>> {
        self.get_mut(id)?;
        self.table.get_mut(id as usize)?.take()
    }

    /// Allows the number of a removed connection to be used again.
    pub(super) fn free(&mut self, id: u32) {
        if self.table.get(id as usize).is_some_and(Option::is_none) {
            self.table.remove(id as usize);
        }
    }

    /// True if there is no connection, and no number is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All of them, as [`get`](Self::get) gives them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.table.iter().filter_map(|(id, connection)| Some((id as u32, connection.as_deref()?)))
    }

    /// All of them, as [`get_mut`](Self::get_mut) gives them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Connection<S>)> {
        let pending_frames_of_all = &mut self.pending_frames_of_all;
        self.table.iter_mut().filter_map(|(id, connection)| {
            let connection = connection.as_deref_mut()?;
            if let Some(pending_frames) = pending_of(pending_frames_of_all, id as u32) {
                connection.session.absorb(pending_frames);
            }
            Some((id as u32, connection))
        })
    }

    // ---- pending frames -------------------------------------------------------------------------------

    /// Prefetches what a tick needs of a connection, so that several in a row wait for memory once. The returned value
    /// has no meaning.
    #[inline]
    pub(super) fn prefetch(&self, id: u32) -> usize {
        self.pending_frames_of_all
            .get(id as usize / CHUNK)
            .map_or(0, |chunk| chunk[id as usize % CHUNK].prefetch())
    }

    /// Pushes a tick's frame to a connection's pending frames, and marks the connection as queued. Returns whether it
    /// was already; `None` if there is no room, and its session has to decide.
    #[inline]
    pub(super) fn push(&mut self, id: u32, range: FrameRange, counted: bool, now_ns: u64) -> Option<bool> {
        let pending_frames = pending_of(&mut self.pending_frames_of_all, id)?;
        pending_frames
            .push(range, counted, now_ns)
            .then(|| std::mem::replace(&mut pending_frames.queued, true))
    }

    /// Marks whether a connection is in the queue of those with something to write. Returns the previous mark.
    #[inline]
    pub(super) fn set_queued(&mut self, id: u32, queued: bool) -> bool {
        pending_of(&mut self.pending_frames_of_all, id)
            .is_some_and(|pending_frames| std::mem::replace(&mut pending_frames.queued, queued))
    }
}
