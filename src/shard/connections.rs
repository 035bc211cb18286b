//! The table of a shard's connections. Beside it stands the table of their trays, on which ticks are laid: whoever is given a
//! connection to change finds its session with all of them taken in.

use slab::Slab;

use super::client::Connection;
use crate::session::{Strip, Tray};

/// The connections of one shard.
pub(super) struct Connections<S> {
    /// Boxed: a table of very many grows by doubling, and would be half empty.
    table: Slab<Box<Connection<S>>>,
    trays: Vec<Tray>,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Self { table: Slab::new(), trays: Vec::new() }
    }
}

impl<S> Connections<S> {
    /// A connection, for those who ask nothing about what waits for it: ticks may lie on its tray.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&Connection<S>> {
        self.table.get(id as usize).map(|connection| &**connection)
    }

    /// A connection. What lay on its tray was taken in, and there is no room on it until it is [set out](Self::set_out)
    /// again.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Connection<S>> {
        let connection = self.table.get_mut(id as usize)?;
        connection.session.take(self.trays.get_mut(id as usize)?);
        Some(connection)
    }

    /// Takes one in: its number, which one that has gone may have had.
    pub(super) fn insert(&mut self, connection: Box<Connection<S>>) -> u32 {
        let at = self.table.insert(connection);
        if self.trays.len() <= at {
            if self.trays.capacity() <= at {
                // By a part, not twofold: there are very many.
                self.trays.reserve_exact(at / 8 + 64);
            }
            self.trays.resize_with(at + 1, Tray::default);
        }
        self.trays[at] = Tray::default();
        at as u32
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Connection<S>>> {
        self.get_mut(id)?;
        self.table.try_remove(id as usize)
    }

    /// True if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All of them, as [`get`](Self::get) gives them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.table.iter().map(|(id, connection)| (id as u32, &**connection))
    }

    /// All of them, as [`get_mut`](Self::get_mut) gives them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Connection<S>)> {
        let trays = &mut self.trays;
        self.table.iter_mut().map(|(id, connection)| {
            connection.session.take(&mut trays[id]);
            (id as u32, &mut **connection)
        })
    }

    // ---- trays ----------------------------------------------------------------------------------------

    /// Reads what a tick needs of a connection, and says nothing of it. Of several in a row this waits for memory once.
    #[inline]
    pub(super) fn touch(&self, id: u32) -> usize {
        self.trays.get(id as usize).map_or(0, Tray::touch)
    }

    /// Lays a tick's frame on a connection's tray. False if that has no room: its session has to be asked.
    #[inline]
    pub(super) fn lay(&mut self, id: u32, strip: Strip, counted: bool, now_ns: u64) -> bool {
        self.trays.get_mut(id as usize).is_some_and(|tray| tray.lay(strip, counted, now_ns))
    }

    /// Lets ticks be laid on a connection's tray, if its session would take them.
    pub(super) fn set_out(&mut self, id: u32) {
        let Some(connection) = self.get_mut(id).filter(|connection| !connection.dead) else { return };
        let room = connection.session.room();
        self.trays[id as usize].set_room(room);
    }

    /// Says whether a connection is in the queue of those with something to write. What it was said to be before.
    #[inline]
    pub(super) fn set_queued(&mut self, id: u32, queued: bool) -> bool {
        self.trays.get_mut(id as usize).is_some_and(|tray| std::mem::replace(&mut tray.queued, queued))
    }

    /// Whether a connection is in the queue of those with something to write.
    #[inline]
    pub(super) fn is_queued(&self, id: u32) -> bool {
        self.trays.get(id as usize).is_some_and(|tray| tray.queued)
    }
}
