//! What the sessions of a shard are subscribed to: the subscription table, the instruments that wildcards and awaited
//! symbols have taken so far, and the entries of sessions that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::awaited::{Awaited, AwaitedBy};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{GapCause, Key};
use crate::ring::TickRing;
use crate::session::Subscription;

/// Subscriptions that one [step of a sweep](Directory::sweep_some) examines.
const SWEPT_PER_STEP: usize = 64;
/// Keys without a subscription that one step of a sweep passes over.
const KEYS_PER_STEP: u32 = 64;

/// The subscriptions of a shard, by stream.
pub(super) struct Directory {
    subscriptions: Subscriptions,
    /// How many instruments wildcards and awaited symbols have taken.
    known: usize,
    /// Sessions below this number have taken the next instrument, too.
    learned: u32,
    /// Sessions with a wildcard.
    wild: BTreeSet<u32>,
    awaited: Awaited,
    /// Entries of sessions that are gone, by session number. A number is not reused before its entries are removed.
    leaving: BTreeMap<u32, Leaving>,
    /// A sweep after lost ticks. It has still to examine what is before this key, and before this place in the row of
    /// the key.
    sweep: Option<(u32, usize)>,
}

/// What a removed session has left in the tables.
struct Leaving {
    places: BTreeMap<Key, u32>,
    awaited: AwaitedBy,
}

/// What [`Directory::forget_one`] removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// A subscription. That of session `moved` has its place now.
    Subscription { key: Key, place: u32, moved: Option<u32> },
    /// An awaited symbol.
    Symbol,
    /// Nothing: all entries of this session are gone, and its number is free.
    Session(u32),
}

impl Directory {
    /// A directory without subscriptions, for `known` listed instruments.
    pub(super) fn new(known: usize) -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            known,
            learned: 0,
            wild: BTreeSet::new(),
            awaited: Awaited::default(),
            leaving: BTreeMap::new(),
            sweep: None,
        }
    }

    // ---- subscriptions --------------------------------------------------------------------------------

    /// All subscriptions to a stream.
    #[inline]
    pub(super) fn of(&mut self, key: Key) -> &mut [Subscription] {
        self.subscriptions.of(key)
    }

    /// As [`of`](Self::of), to be [put back](Self::put_back) before a subscription is added or removed.
    #[inline]
    pub(super) fn take(&mut self, key: Key) -> Vec<Subscription> {
        self.subscriptions.take(key)
    }

    /// Puts back the subscriptions to a stream.
    #[inline]
    pub(super) fn put_back(&mut self, key: Key, row: Vec<Subscription>) {
        self.subscriptions.put_back(key, row);
    }

    /// One subscription, by its place.
    pub(super) fn at(&mut self, key: Key, place: u32) -> Option<&mut Subscription> {
        self.subscriptions.at(key, place)
    }

    /// The same, read-only.
    pub(super) fn get(&self, key: Key, place: u32) -> Option<&Subscription> {
        self.subscriptions.get(key, place)
    }

    /// Whether the client requested a subscription by name.
    pub(super) fn is_named(&self, key: Key, place: u32) -> bool {
        self.get(key, place).is_some_and(Subscription::is_named)
    }

    /// Every key that may have a subscription.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        self.subscriptions.keys()
    }

    /// The number of subscriptions.
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Adds a subscription and returns its place.
    pub(super) fn add(&mut self, key: Key, subscription: Subscription) -> u32 {
        self.subscriptions.add(key, subscription)
    }

    /// Removes a subscription. Returns the session whose subscription has its place now, unless that session is gone.
    pub(super) fn remove(&mut self, key: Key, place: u32) -> Option<u32> {
        let moved = self.subscriptions.remove(key, place)?;
        match self.leaving.get_mut(&moved) {
            Some(left) => {
                left.places.entry(key).and_modify(|at| *at = place);
                None
            }
            None => Some(moved),
        }
    }

    // ---- instruments listed later ---------------------------------------------------------------------

    /// How many instruments wildcards and awaited symbols have taken.
    pub(super) fn known(&self) -> usize {
        self.known
    }

    /// Whether wildcards and awaited symbols have taken an instrument.
    #[inline]
    pub(super) fn knows(&self, instrument: InstrumentId) -> bool {
        instrument.index() < self.known
    }

    /// How many of the `listed` instruments a new wildcard takes at once. It takes the others as they are learned.
    pub(super) fn listed_so_far(&self, listed: usize) -> usize {
        // The one that is being learned may have been offered to this session already.
        self.known + usize::from(self.known < listed && self.learned > 0)
    }

    /// The next session with a wildcard that has not taken the instrument that is being learned.
    pub(super) fn next_wild(&mut self) -> Option<u32> {
        let session = self.wild.range(self.learned..).next().copied()?;
        self.learned = session + 1;
        Some(session)
    }

    /// Notes that all sessions have taken the instrument that is being learned.
    pub(super) fn learned(&mut self) {
        (self.known, self.learned) = (self.known + 1, 0);
    }

    /// Notes whether a session has a wildcard.
    pub(super) fn set_wild(&mut self, session: u32, is_wild: bool) {
        if is_wild {
            self.wild.insert(session);
        } else {
            self.wild.remove(&session);
        }
    }

    /// The number of sessions with a wildcard.
    pub(super) fn wild(&self) -> usize {
        self.wild.len()
    }

    /// Adds a session that awaits a symbol. Returns the text that all sessions share.
    pub(super) fn await_symbol(&mut self, symbol: &Symbol, session: u32) -> Rc<Symbol> {
        self.awaited.add(symbol, session)
    }

    /// Removes a session that awaits a symbol.
    pub(super) fn stop_awaiting(&mut self, symbol: &Symbol, session: u32) {
        self.awaited.remove(symbol, session);
    }

    /// Removes and returns one of the sessions that await a symbol.
    pub(super) fn next_awaiting(&mut self, symbol: &Symbol) -> Option<u32> {
        self.awaited.take_one(symbol)
    }

    // ---- sessions that are gone -----------------------------------------------------------------------

    /// Keeps the entries of a session that is gone, until they are [forgotten](Self::forget_one).
    pub(super) fn leave_behind(&mut self, session: u32, places: BTreeMap<Key, u32>, awaited: AwaitedBy) {
        self.leaving.insert(session, Leaving { places, awaited });
    }

    /// Whether entries of sessions that are gone are left.
    pub(super) fn has_left_behind(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Removes one entry of a session that is gone.
    pub(super) fn forget_one(&mut self) -> Option<Forgotten> {
        let mut first = self.leaving.first_entry()?;
        let (id, left) = (*first.key(), first.get_mut());
        if let Some((key, place)) = left.places.pop_first() {
            let moved = self.remove(key, place);
            return Some(Forgotten::Subscription { key, place, moved });
        }
        if let Some((symbol, _)) = left.awaited.pop_first() {
            self.awaited.remove(&symbol, id);
            return Some(Forgotten::Symbol);
        }
        first.remove();
        Some(Forgotten::Session(id))
    }

    // ---- lost ticks -----------------------------------------------------------------------------------

    /// Begins a sweep, because ticks of any of `instruments` instruments were lost on the way to this shard.
    pub(super) fn begin_sweep(&mut self, instruments: usize) {
        self.sweep = Some((Key::count(instruments) as u32, 0));
    }

    /// Whether a sweep is under way.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// One step of a sweep: marks subscriptions that are behind the last value, and hands each to `missed`. False once
    /// the sweep is finished.
    pub(super) fn sweep_some(&mut self, ring: &TickRing, mut missed: impl FnMut(u32, Key)) -> bool {
        let Some((next, place)) = self.sweep else { return false };
        if place == 0 {
            if next == 0 {
                self.sweep = None;
                return false;
            }
            let last = next.saturating_sub(KEYS_PER_STEP);
            let wanted = (last..next).rev().find(|key| !self.subscriptions.of(Key(*key)).is_empty());
            let before = wanted.unwrap_or(last);
            self.sweep = Some((before, self.subscriptions.of(Key(before)).len()));
            return true;
        }
        // From the last of a row to the first, because the last takes the place of one that ends.
        let (key, from) = (Key(next), place.saturating_sub(SWEPT_PER_STEP));
        let last = ring.last_value(key);
        for at in (from..place).rev() {
            let subscription = self.subscriptions.at(key, at as u32);
            let behind = last.zip(subscription).filter(|(last, s)| s.misses(last.head));
            if let Some((_, subscription)) = behind
                && subscription.fell_behind(GapCause::Overrun)
            {
                missed(subscription.session, key);
            }
        }
        self.sweep = Some((next, from));
        true
    }
}

/// The table of subscriptions, dense and indexed by key: nothing on the tick path hashes, locks or allocates.
#[derive(Default)]
struct Subscriptions {
    by_key: Vec<Vec<Subscription>>,
    len: usize,
}

impl Subscriptions {
    /// Every key that may have a subscription.
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.by_key.len() as u32).map(Key)
    }

    /// All subscriptions to a stream.
    #[inline]
    fn of(&mut self, key: Key) -> &mut [Subscription] {
        self.by_key.get_mut(key.index()).map_or(&mut [], Vec::as_mut_slice)
    }

    /// As [`of`](Self::of), to be [put back](Self::put_back) before one is added or removed.
    #[inline]
    fn take(&mut self, key: Key) -> Vec<Subscription> {
        self.by_key.get_mut(key.index()).map(std::mem::take).unwrap_or_default()
    }

    /// Puts back the subscriptions to a stream.
    #[inline]
    fn put_back(&mut self, key: Key, row: Vec<Subscription>) {
        if let Some(place) = self.by_key.get_mut(key.index()) {
            *place = row;
        }
    }

    /// One subscription by its place.
    fn at(&mut self, key: Key, place: u32) -> Option<&mut Subscription> {
        self.by_key.get_mut(key.index())?.get_mut(place as usize)
    }

    /// The same, read-only.
    fn get(&self, key: Key, place: u32) -> Option<&Subscription> {
        self.by_key.get(key.index())?.get(place as usize)
    }

    /// Adds a subscription. Returns its place.
    fn add(&mut self, key: Key, subscription: Subscription) -> u32 {
        if self.by_key.len() <= key.index() {
            self.by_key.resize_with(key.index() + 1, Vec::new);
        }
        let row = &mut self.by_key[key.index()];
        row.push(subscription);
        self.len += 1;
        row.len() as u32 - 1
    }

    /// Removes a subscription; the last of its row moves to its place. Returns the session of the one that moved.
    fn remove(&mut self, key: Key, place: u32) -> Option<u32> {
        let row = self.by_key.get_mut(key.index())?;
        if place as usize >= row.len() {
            return None;
        }
        row.swap_remove(place as usize);
        self.len -= 1;
        row.get(place as usize).map(|moved| moved.session)
    }

    /// How many subscriptions there are.
    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tick::Stream;
    use crate::protocol::Mode;
    use crate::session::Baseline;

    fn subscription(session: u32) -> Subscription {
        Subscription::new(session, Mode::Latest.into(), Baseline::After(0))
    }

    #[test]
    fn the_last_of_a_row_moves_to_the_place_of_one_that_ends() {
        let mut directory = Directory::new(1);
        let key = Key::new(InstrumentId(0), Stream::Trade);
        let places: Vec<u32> = (0..4).map(|session| directory.add(key, subscription(session))).collect();
        assert_eq!((places, directory.len()), (vec![0, 1, 2, 3], 4));
        // The last one is of a session that is gone: its entry is updated here.
        directory.leave_behind(3, BTreeMap::from([(key, 3)]), AwaitedBy::new());
        assert_eq!(directory.remove(key, 0), None);
        assert_eq!(directory.remove(key, 1), Some(2));
        assert_eq!(directory.remove(key, 7), None);
        let forgotten = Forgotten::Subscription { key, place: 0, moved: Some(2) };
        assert_eq!(directory.forget_one(), Some(forgotten));
        assert_eq!(directory.forget_one(), Some(Forgotten::Session(3)));
        assert_eq!((directory.forget_one(), directory.len()), (None, 1));
    }

    #[test]
    fn each_wildcard_takes_each_instrument_once() {
        let mut directory = Directory::new(0);
        for session in [5, 2] {
            directory.set_wild(session, true);
        }
        assert_eq!((directory.listed_so_far(1), directory.next_wild()), (0, Some(2)));
        // A wildcard that is made now takes the instrument itself.
        assert_eq!(directory.listed_so_far(1), 1);
        directory.set_wild(1, true);
        assert_eq!((directory.next_wild(), directory.next_wild()), (Some(5), None));
        directory.learned();
        assert!(directory.knows(InstrumentId(0)) && directory.next_wild() == Some(1));
    }
}
