//! What one connection is subscribed to: the places of its subscriptions in the directory, its wildcards, and the
//! symbols that it awaits.
//!
//! Several of these may match the same channel of an instrument, but the session subscribes to it once. The narrowest
//! match sets the policy: the name before `venue:*` before `*`. A subscription knows whether the client requested it by
//! name ([`Subscription::is_named`](crate::session::Subscription::is_named)); the others belong to the wildcard that
//! [governs](Holdings::governing) them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::awaited::{AwaitedBy, Wanted};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, Key, Stream};
use crate::protocol::{DeliveryPolicy, Selector};
use crate::session::Subscription;

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wildcard {
    /// All symbols, or those of a venue.
    selector: Selector,
    channel: Channel,
    policy: DeliveryPolicy,
    /// A request is ending it, in portions: it takes no further instruments.
    ending: bool,
}

impl Wildcard {
    /// All instruments, or those of a venue, on a channel.
    pub(super) fn new(selector: Selector, channel: Channel, policy: DeliveryPolicy) -> Self {
        Self { selector, channel, policy, ending: false }
    }

    /// Whether it matches a symbol.
    pub(super) fn takes(&self, symbol: &Symbol) -> bool {
        self.selector.takes(symbol)
    }

    /// Its selector.
    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Whether it is for one venue.
    pub(super) fn is_of_venue(&self) -> bool {
        matches!(self.selector, Selector::Venue(_))
    }

    /// The channel.
    pub(super) fn channel(&self) -> Channel {
        self.channel
    }

    /// The policy of its subscriptions.
    pub(super) fn policy(&self) -> DeliveryPolicy {
        self.policy
    }

    /// Changes its policy.
    pub(super) fn set_policy(&mut self, policy: DeliveryPolicy) {
        self.policy = policy;
    }

    /// Has it take no further instruments.
    pub(super) fn end(&mut self) {
        self.ending = true;
    }

    /// Whether it takes no further instruments.
    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether it has the same symbols and the same channel as another.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.selector == other.selector && self.channel == other.channel
    }
}

/// What a connection is subscribed to.
#[derive(Default)]
pub(super) struct Holdings {
    /// Its subscriptions and their places in the directory.
    places: BTreeMap<Key, u32>,
    /// Wildcards, which take instruments listed later.
    wildcards: Vec<Wildcard>,
    /// Symbols that no feed lists yet.
    awaited: AwaitedBy,
    /// How many listed instruments it requested by name, on any channel.
    named: u32,
    /// A rate may still hold back a subscription that has another rate now.
    unsettled: bool,
}

impl Holdings {
    /// Whether it is subscribed to anything.
    pub(super) fn is_subscribed(&self) -> bool {
        !(self.places.is_empty() && self.wildcards.is_empty() && self.awaited.is_empty())
    }

    /// Bytes that its subscriptions take, here and in the directory.
    pub(super) fn held_bytes(&self) -> usize {
        // Tree nodes are more than half full, hence the factor.
        self.places.len() * (2 * size_of::<(Key, u32)>() + size_of::<Subscription>())
    }

    // ---- subscriptions --------------------------------------------------------------------------------

    /// The place of its subscription to a stream.
    pub(super) fn place(&self, key: Key) -> Option<u32> {
        self.places.get(&key).copied()
    }

    /// Its subscriptions, with their places.
    pub(super) fn places(&self) -> impl Iterator<Item = (Key, u32)> {
        self.places.iter().map(|(key, place)| (*key, *place))
    }

    /// Its subscriptions to channels, with their places.
    pub(super) fn on_channels(&self) -> impl Iterator<Item = (Key, u32)> {
        self.places().filter(|(key, _)| key.channel().is_some())
    }

    /// Its subscriptions to an instrument, with their places.
    pub(super) fn places_of(&self, instrument: InstrumentId) -> impl Iterator<Item = (Key, u32)> {
        let first = |instrument| Key::new(instrument, Stream::Trade);
        let keys = first(instrument)..first(InstrumentId(instrument.0 + 1));
        self.places.range(keys).map(|(key, place)| (*key, *place))
    }

    /// The first of its subscriptions.
    pub(super) fn first(&self) -> Option<Key> {
        self.places.first_key_value().map(|(key, _)| *key)
    }

    /// The first instrument from this one on that it has a subscription to.
    pub(super) fn instrument_from(&self, from: InstrumentId) -> Option<InstrumentId> {
        self.places.range(Key::new(from, Stream::Trade)..).next().map(|(key, _)| key.instrument())
    }

    /// Adds a subscription.
    pub(super) fn insert(&mut self, key: Key, place: u32) {
        self.places.insert(key, place);
    }

    /// Updates the place of a subscription, if the connection has it.
    pub(super) fn moved(&mut self, key: Key, place: u32) {
        self.places.entry(key).and_modify(|at| *at = place);
    }

    /// Removes a subscription, and returns its place.
    pub(super) fn remove(&mut self, key: Key) -> Option<u32> {
        self.places.remove(&key)
    }

    /// Takes what it has in the directory: its subscriptions, and the symbols that it awaits.
    pub(super) fn take(&mut self) -> (BTreeMap<Key, u32>, AwaitedBy) {
        (std::mem::take(&mut self.places), std::mem::take(&mut self.awaited))
    }

    /// How many symbols it requested by name; matches of wildcards are not counted.
    pub(super) fn named(&self) -> usize {
        self.awaited.len() + self.named as usize
    }

    /// Counts one more listed instrument that is requested by name.
    pub(super) fn name(&mut self) {
        self.named += 1;
    }

    /// Counts one listed instrument fewer that is requested by name.
    pub(super) fn unname(&mut self) {
        self.named -= 1;
    }

    /// Whether a rate may still hold back a subscription that has another rate now.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Notes whether a rate may still hold back a subscription that has another rate now.
    pub(super) fn set_unsettled(&mut self, unsettled: bool) {
        self.unsettled = unsettled;
    }

    // ---- wildcards ------------------------------------------------------------------------------------

    /// Its wildcards.
    pub(super) fn wildcards(&self) -> &[Wildcard] {
        &self.wildcards
    }

    /// Its wildcards, mutable.
    pub(super) fn wildcards_mut(&mut self) -> &mut [Wildcard] {
        &mut self.wildcards
    }

    /// Adds a wildcard.
    pub(super) fn add_wildcard(&mut self, wildcard: Wildcard) {
        self.wildcards.push(wildcard);
    }

    /// Removes and returns the wildcards for which `goes` is true.
    pub(super) fn drop_wildcards(&mut self, goes: impl Fn(&Wildcard) -> bool) -> Vec<Wildcard> {
        self.wildcards.extract_if(.., |wildcard| goes(wildcard)).collect()
    }

    /// The wildcard that sets the policy of an instrument on a channel, unless it is subscribed to by name.
    pub(super) fn governing(&self, symbol: &Symbol, channel: Channel) -> Option<&Wildcard> {
        let taking = self.wildcards.iter().filter(|w| w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.is_of_venue())
    }

    /// The policy of the wildcard that takes a new instrument: as [`governing`](Self::governing), without those that
    /// are ending.
    pub(super) fn taking(&self, symbol: &Symbol, channel: Channel) -> Option<DeliveryPolicy> {
        let taking = self.wildcards.iter().filter(|w| !w.ending && w.channel == channel && w.takes(symbol));
        taking.max_by_key(|wildcard| wildcard.is_of_venue()).map(|wildcard| wildcard.policy)
    }

    // ---- awaited symbols ------------------------------------------------------------------------------

    /// What it wants of an awaited symbol.
    pub(super) fn awaits(&self, symbol: &Symbol) -> Option<&Wanted> {
        self.awaited.get(symbol)
    }

    /// The same, mutable.
    pub(super) fn awaits_mut(&mut self, symbol: &Symbol) -> Option<&mut Wanted> {
        self.awaited.get_mut(symbol)
    }

    /// Adds an awaited symbol.
    pub(super) fn await_symbol(&mut self, symbol: Rc<Symbol>) {
        self.awaited.insert(symbol, Wanted::default());
    }

    /// Removes an awaited symbol. Returns what the connection wanted of it.
    pub(super) fn stop_awaiting(&mut self, symbol: &Symbol) -> Option<Wanted> {
        self.awaited.remove(symbol)
    }

    /// The first awaited symbol after this one, in text order.
    pub(super) fn awaited_behind(&self, behind: Option<&Rc<Symbol>>) -> Option<Rc<Symbol>> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        self.awaited.range::<Rc<Symbol>, _>((from, Bound::Unbounded)).next().map(|(text, _)| Rc::clone(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Mode;

    #[test]
    fn the_narrowest_wildcard_governs_and_one_that_ends_takes_nothing_more() {
        let policy = |mode| DeliveryPolicy { mode, rate: None, disconnect_on_loss: false };
        let mut holdings = Holdings::default();
        holdings.add_wildcard(Wildcard::new(
            Selector::parse("kraken:*"),
            Channel::Trade,
            policy(Mode::Latest),
        ));
        holdings.add_wildcard(Wildcard::new(Selector::All, Channel::Trade, policy(Mode::Every)));
        let symbol = |text| Symbol::parse(text).expect("a symbol");
        let mode = |holdings: &Holdings, text| {
            holdings.governing(&symbol(text), Channel::Trade).map(|wildcard| wildcard.policy().mode)
        };
        assert_eq!(mode(&holdings, "kraken:BTC/USD"), Some(Mode::Latest));
        assert_eq!(mode(&holdings, "coinbase:BTC-USD"), Some(Mode::Every));
        assert!(holdings.governing(&symbol("kraken:BTC/USD"), Channel::Quote).is_none());
        holdings.wildcards_mut()[0].end();
        assert_eq!(mode(&holdings, "kraken:BTC/USD"), Some(Mode::Latest), "what it has stays with it");
        let taking = holdings.taking(&symbol("kraken:BTC/USD"), Channel::Trade);
        assert_eq!(taking.map(|policy| policy.mode), Some(Mode::Every));
        assert_eq!(holdings.drop_wildcards(Wildcard::is_ending).len(), 1);
        assert_eq!(holdings.wildcards().len(), 1);
    }

    #[test]
    fn an_instrument_has_a_place_for_each_of_its_streams() {
        let mut holdings = Holdings::default();
        let key = |instrument, stream| Key::new(InstrumentId(instrument), stream);
        for (at, (instrument, stream)) in
            [(4, Stream::Trade), (4, Stream::Status), (7, Stream::Quote)].into_iter().enumerate()
        {
            holdings.insert(key(instrument, stream), at as u32);
        }
        let places: Vec<_> = holdings.places_of(InstrumentId(4)).map(|(_, place)| place).collect();
        assert_eq!((places, holdings.on_channels().count()), (vec![0, 1], 2));
        let from = |instrument| holdings.instrument_from(InstrumentId(instrument)).map(|found| found.0);
        assert_eq!([from(0), from(4), from(5), from(8)], [Some(4), Some(4), Some(7), None]);
        holdings.moved(key(7, Stream::Quote), 9);
        holdings.moved(key(9, Stream::Quote), 9);
        assert_eq!(
            (holdings.remove(key(7, Stream::Quote)), holdings.place(key(9, Stream::Quote))),
            (Some(9), None)
        );
    }
}
