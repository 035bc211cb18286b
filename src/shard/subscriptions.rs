//! Who wants which stream: a dense table, indexed by key. Nothing on the tick path hashes, locks or allocates.

use crate::model::tick::Key;
use crate::session::Subscription;

/// The subscriptions of one shard.
#[derive(Default)]
pub(super) struct Subscriptions {
    by_key: Vec<Vec<Subscription>>,
    len: usize,
}

impl Subscriptions {
    /// Every key that may be wanted.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.by_key.len() as u32).map(Key)
    }

    /// Everybody who wants this stream.
    #[inline]
    pub(super) fn of(&mut self, key: Key) -> &mut [Subscription] {
        self.by_key.get_mut(key.index()).map_or(&mut [], Vec::as_mut_slice)
    }

    /// As [`of`](Self::of), to be [put back](Self::put_back) before anybody is added or removed.
    #[inline]
    pub(super) fn take(&mut self, key: Key) -> Vec<Subscription> {
        self.by_key.get_mut(key.index()).map(std::mem::take).unwrap_or_default()
    }

    /// Puts back who wants a stream.
    #[inline]
    pub(super) fn put_back(&mut self, key: Key, row: Vec<Subscription>) {
        if let Some(place) = self.by_key.get_mut(key.index()) {
            *place = row;
        }
    }

    /// One subscription by its place.
    pub(super) fn at(&mut self, key: Key, place: u32) -> Option<&mut Subscription> {
        self.by_key.get_mut(key.index())?.get_mut(place as usize)
    }

    /// The same, to be looked at.
    pub(super) fn get(&self, key: Key, place: u32) -> Option<&Subscription> {
        self.by_key.get(key.index())?.get(place as usize)
    }

    /// Whether the client of one asked for it by its name.
    pub(super) fn is_named(&self, key: Key, place: u32) -> bool {
        self.get(key, place).is_some_and(Subscription::is_named)
    }

    /// Adds one; its place.
    pub(super) fn add(&mut self, key: Key, subscription: Subscription) -> u32 {
        if self.by_key.len() <= key.index() {
            self.by_key.resize_with(key.index() + 1, Vec::new);
        }
        let row = &mut self.by_key[key.index()];
        row.push(subscription);
        self.len += 1;
        row.len() as u32 - 1
    }

    /// Takes one away; the last of its row moves to its place, and whose that is is told.
    pub(super) fn remove(&mut self, key: Key, place: u32) -> Option<u32> {
        let row = self.by_key.get_mut(key.index())?;
        if place as usize >= row.len() {
            return None;
        }
        row.swap_remove(place as usize);
        self.len -= 1;
        row.get(place as usize).map(|moved| moved.session)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}
