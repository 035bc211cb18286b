//! The table of a shard's connections. Beside it stands the table of their trays, on which ticks are laid: whoever is given a
//! connection to change finds its session with all of them taken in.

use slab::Slab;

use super::client::Connection;
use crate::session::{Strip, Tray};

/// The connections of one shard.
pub(super) struct Connections<S> {
    /// Boxed: a table of very many grows by doubling, and would be half empty. The number of one that was removed is
    /// kept until it is [freed](Self::free).
    table: Slab<Option<Box<Connection<S>>>>,
    /// In chunks, for the same reason.
    trays: Vec<Box<[Tray; CHUNK]>>,
}

/// Trays that are allocated together.
const CHUNK: usize = 64;

fn tray_of(trays: &mut [Box<[Tray; CHUNK]>], id: u32) -> Option<&mut Tray> {
    let chunk = trays.get_mut(id as usize / CHUNK)?;
    Some(&mut chunk[id as usize % CHUNK])
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
        self.table.get(id as usize)?.as_deref()
    }

    /// A connection. What lay on its tray was taken in, and there is no room on it until it is set out again.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Connection<S>> {
        self.get_with_tray(id).map(|(connection, _)| connection)
    }

    /// As [`get_mut`](Self::get_mut), with the tray, which may be [set out](Connection::set_out) when all is done.
    #[inline]
    pub(super) fn get_with_tray(&mut self, id: u32) -> Option<(&mut Connection<S>, &mut Tray)> {
        let connection = self.table.get_mut(id as usize)?.as_deref_mut()?;
        let tray = tray_of(&mut self.trays, id)?;
        connection.session.take(tray);
        Some((connection, tray))
    }

    /// Takes one in: its number, which one that has gone may have had.
    pub(super) fn insert(&mut self, connection: Box<Connection<S>>) -> u32 {
        let id = self.table.insert(Some(connection)) as u32;
        match tray_of(&mut self.trays, id) {
            Some(tray) => *tray = Tray::default(),
            None => self.trays.push(Box::new(std::array::from_fn(|_| Tray::default()))),
        }
        id
    }

    /// Takes one out. No other has its number before it is [freed](Self::free).
    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Connection<S>>> {
        self.get_mut(id)?;
        self.table.get_mut(id as usize)?.take()
    }

    /// Nothing stands for a connection any more that was removed.
    pub(super) fn free(&mut self, id: u32) {
        if self.table.get(id as usize).is_some_and(Option::is_none) {
            self.table.remove(id as usize);
        }
    }

    /// True if there is none, and no number is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// All of them, as [`get`](Self::get) gives them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<S>)> {
        self.table.iter().filter_map(|(id, connection)| Some((id as u32, connection.as_deref()?)))
    }

    /// All of them, as [`get_mut`](Self::get_mut) gives them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Connection<S>)> {
        let trays = &mut self.trays;
        self.table.iter_mut().filter_map(|(id, connection)| {
            let connection = connection.as_deref_mut()?;
            if let Some(tray) = tray_of(trays, id as u32) {
                connection.session.take(tray);
            }
            Some((id as u32, connection))
        })
    }

    // ---- trays ----------------------------------------------------------------------------------------

    /// Reads what a tick needs of a connection, and says nothing of it. Of several in a row this waits for memory once.
    #[inline]
    pub(super) fn touch(&self, id: u32) -> usize {
        self.trays.get(id as usize / CHUNK).map_or(0, |chunk| chunk[id as usize % CHUNK].touch())
    }

    /// Lays a tick's frame on a connection's tray, and marks it as queued: whether it was already. `None` if there is no room:
    /// its session has to be asked.
    #[inline]
    pub(super) fn lay(&mut self, id: u32, strip: Strip, counted: bool, now_ns: u64) -> Option<bool> {
        let tray = tray_of(&mut self.trays, id)?;
        tray.lay(strip, counted, now_ns).then(|| std::mem::replace(&mut tray.queued, true))
    }

    /// Says whether a connection is in the queue of those with something to write. What it was said to be before.
    #[inline]
    pub(super) fn set_queued(&mut self, id: u32, queued: bool) -> bool {
        tray_of(&mut self.trays, id).is_some_and(|tray| std::mem::replace(&mut tray.queued, queued))
    }
}
