//! How subscriptions begin, change and end: to instruments, by wildcards, which also take instruments that are listed
//! later, and to symbols that no feed lists yet.

use super::{Connection, Sessions};
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, GapCause, Key, State, Stream};
use crate::protocol::{DeliveryPolicy, Mode, Rate};
use crate::session::{Baseline, RateId, Subscription};
use crate::shard::holdings::Wildcard;
use crate::shard::socket::Socket;
use crate::shard::spec::SubscribeSpec;
use crate::shard::start::StartAt;
use crate::time::clock::Now;

/// Steps for one session to take a new instrument, on all channels.
const STEPS_TO_OFFER: usize = 4;

impl<S: Socket> Sessions<S> {
    /// True while wildcards and awaited symbols have not taken all that is listed.
    pub(super) fn has_to_learn(&self) -> bool {
        self.directory.known() < self.env.table.len()
    }

    /// Has wildcards and awaited symbols take newly listed instruments, as far as there are steps. True once all are
    /// taken: until then the ring is read only up to the first tick of an instrument that is not.
    pub(super) fn learn(&mut self, now: Now) -> bool {
        while self.has_to_learn() {
            let id = InstrumentId(self.directory.known() as u32);
            let Some(symbol) = self.env.table.get(id).cloned() else { return true };
            // Waiting requests get a part of the turn, too.
            let may = |sessions: &mut Self| match sessions.workload.is_empty() {
                true => sessions.steps.take_most(STEPS_TO_OFFER),
                false => sessions.steps.take_of_half(STEPS_TO_OFFER),
            };
            if !self.learn_one(id, &symbol, now, may) {
                return false;
            }
        }
        true
    }

    /// As [`learn`](Self::learn), without a limit of steps: for a tick whose instrument was listed a moment ago.
    #[cold]
    pub(super) fn learn_at_once(&mut self, now: Now) {
        while self.has_to_learn() {
            let id = InstrumentId(self.directory.known() as u32);
            let Some(symbol) = self.env.table.get(id).cloned() else { return };
            self.learn_one(id, &symbol, now, |_| true);
        }
    }

    /// Has sessions take an instrument, while `may` returns true. True if all did.
    fn learn_one(
        &mut self,
        id: InstrumentId,
        symbol: &Symbol,
        now: Now,
        mut may: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        loop {
            if !may(self) {
                return false;
            }
            if let Some(session) = self.directory.next_awaiting(symbol) {
                for (channel, policy) in self.take_awaited(session, symbol) {
                    let spec = SubscribeSpec::of_new(channel, policy, true);
                    self.attach(session, id, spec, Some(State::Waiting), now);
                }
                continue;
            }
            let Some(session) = self.directory.next_wild() else { break };
            let Some(connection) = self.connections.get(session) else { continue };
            let taking = |channel| (channel, connection.holdings.taking(symbol, channel));
            for (channel, policy) in Channel::ALL.map(taking) {
                let Some(policy) = policy else { continue };
                let spec = SubscribeSpec::of_new(channel, policy, false);
                self.attach(session, id, spec, Some(State::Waiting), now);
            }
        }
        self.directory.learned();
        true
    }

    /// How many ticks of the ring from this position on, at most `most`, precede the first of an instrument that is
    /// still to be taken: these may be sent meanwhile. 0 during a sweep after lost ticks.
    pub(super) fn ticks_of_known(&self, cursor: u64, most: usize) -> usize {
        let is_known = |n: &usize| {
            let key = self.env.ring.key_at(cursor + *n as u64);
            key.is_some_and(|key| self.directory.knows(key.instrument()))
        };
        if self.directory.is_sweeping() { 0 } else { (0..most).take_while(is_known).count() }
    }

    /// Subscribes a session to a channel of an instrument. An existing subscription gets this policy, unless it was
    /// requested by name and this is a wildcard. The instrument's state comes with the first channel: it is sent before
    /// any value, unless the answer `showed` it.
    pub(super) fn attach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        spec: SubscribeSpec<'_>,
        showed: Option<State>,
        now: Now,
    ) {
        let key = Key::new(instrument, spec.channel().into());
        let status = Key::new(instrument, Stream::Status);
        let Some(connection) = self.connections.get(session) else { return };
        let (had, place) = (connection.holdings.place(key), connection.holdings.place(status));
        if let (Some(place), false) = (had, spec.is_named()) {
            if !self.directory.is_named(key, place) {
                self.apply_policy(session, key, place, spec.policy());
            }
            return;
        }
        let (state, number) = self.env.ring.numbered_state(instrument);
        let state = (self.surroundings.shown(state), number);
        let cursor = self.backfill.cursor();
        let start = spec.start_of_state(instrument, (had.is_some(), cursor), showed, state);
        match place {
            None => {
                self.enter(session, status, Mode::Latest.into(), start, now);
            }
            Some(place) => self.catch_up_state(session, (status, place), start, now),
        }
        match had {
            Some(place) => {
                self.name(session, key, place);
                self.apply_policy(session, key, place, spec.policy());
            }
            None => {
                let claimed = self.claim_policy(session, spec.policy());
                let start = spec.start_of(instrument, self.backfill.cursor());
                let place = self.enter(session, key, claimed, start, now);
                if let (true, Some(place)) = (spec.is_named(), place) {
                    self.name(session, key, place);
                }
            }
        }
    }

    /// Marks a subscription as requested by name.
    fn name(&mut self, session: u32, key: Key, place: u32) {
        let is_new = !self.is_named(session, key.instrument());
        let Some(connection) = self.connections.get_mut(session) else { return };
        let Some(subscription) = self.directory.at(key, place) else { return };
        if is_new {
            connection.holdings.name();
        }
        subscription.name();
    }

    /// Has the state of an instrument precede the values of a new subscription: a state that waits for a catch-up is
    /// sent at once, and so is one that the shard has not read yet.
    fn catch_up_state(&mut self, session: u32, (key, place): (Key, u32), start: StartAt, now: Now) {
        let head = self.env.ring.last_value(key).map_or(0, |last| last.head);
        let Some(state) = self.directory.at(key, place) else { return };
        if !state.is_past() {
            let is_behind = start != StartAt::FromFirst && state.misses(head);
            if is_behind && state.fell_behind(GapCause::Overrun) {
                let connection = self.connections.get_mut(session);
                connection.into_iter().for_each(|connection| connection.session.wait(key, now.mono_ns));
            }
            return;
        }
        let begin = match start {
            StartAt::After(told) => Baseline::After(told),
            StartAt::Past(_) => return,
            _ => Baseline::Snapshot(0),
        };
        *state = Subscription::new(session, Mode::Latest.into(), begin);
        if let Some(connection) = self.connections.get_mut(session).filter(|_| state.is_dirty()) {
            connection.session.wait(key, now.mono_ns);
        }
    }

    /// Adds a subscription to the table and to its session. Returns its place.
    fn enter(
        &mut self,
        session: u32,
        key: Key,
        claimed: DeliveryPolicy<RateId>,
        start: StartAt,
        now: Now,
    ) -> Option<u32> {
        let connection = self.connections.get_mut(session)?;
        let head = self.env.ring.last_value(key).map_or(0, |last| last.head);
        let begin = match start {
            StartAt::Snapshot => Baseline::Snapshot(head),
            StartAt::FromHere => Baseline::After(head),
            StartAt::FromFirst => Baseline::After(0),
            StartAt::After(told) => Baseline::After(told),
            StartAt::Newest(told) => Baseline::Newest(told),
            StartAt::Ring(told, _) | StartAt::Behind(told, _) => Baseline::Resume(told),
            StartAt::Past(_) => Baseline::Past(head),
        };
        let subscription = Subscription::new(session, claimed, begin);
        if key.channel().is_some() {
            connection.session.began(subscription.accounted_seq());
        }
        connection.session.use_rate(claimed.rate);
        let place = self.directory.add(key, subscription);
        connection.holdings.insert(key, place);
        match start {
            StartAt::Ring(_, position) => self.read_from(session, key, position),
            StartAt::Behind(_, position) => self.read_behind(session, key, position),
            StartAt::Past(beginning) => self.read_since(session, key, beginning),
            _ if subscription.is_dirty() => connection.session.wait(key, now.mono_ns),
            _ => {}
        }
        Some(place)
    }

    /// The policy, with its rate replaced by the session's number for it.
    pub(super) fn claim_policy(&mut self, session: u32, policy: DeliveryPolicy) -> DeliveryPolicy<RateId> {
        let rate = policy.rate.and_then(|rate| self.claim_rate(session, rate));
        DeliveryPolicy { mode: policy.mode, rate, disconnect_on_loss: policy.disconnect_on_loss }
    }

    /// The policy of a subscription, with its rate as the client requested it.
    pub(super) fn policy_of(&self, session: u32, key: Key, place: u32) -> Option<DeliveryPolicy> {
        let claimed = self.directory.get(key, place)?.policy();
        let connection = self.connections.get(session)?;
        let rate = claimed.rate.and_then(|id| connection.session.rate_of(id));
        Some(DeliveryPolicy { mode: claimed.mode, rate, disconnect_on_loss: claimed.disconnect_on_loss })
    }

    /// A session's number for a rate; `None` if it has too many rates.
    pub(super) fn claim_rate(&mut self, session: u32, rate: Rate) -> Option<RateId> {
        self.connections.get_mut(session)?.session.rate(rate)
    }

    /// Adds a wildcard, in place of one for the same symbols and channel.
    pub(super) fn add_wildcard(&mut self, session: u32, wildcard: Wildcard) {
        self.drop_wildcards(session, |other| other.is_like(&wildcard));
        let rate = self.claim_policy(session, wildcard.policy()).rate;
        let Some(connection) = self.connections.get_mut(session) else { return };
        connection.session.use_rate(rate);
        connection.holdings.add_wildcard(wildcard);
        self.directory.set_wild(session, true);
    }

    /// Removes wildcards from a session, but not their subscriptions.
    pub(super) fn drop_wildcards(&mut self, id: u32, goes: impl Fn(&Wildcard) -> bool) {
        let Some(Connection { session, holdings, .. }) = self.connections.get_mut(id) else { return };
        for gone in holdings.drop_wildcards(goes) {
            let rate = gone.policy().rate.and_then(|rate| session.rate_id(rate));
            session.leave_rate(rate);
        }
        if holdings.wildcards().is_empty() {
            self.directory.set_wild(id, false);
        }
    }

    /// Ends the subscriptions of a session to some channels of an instrument, and to its state with the last channel.
    /// Returns how many ended.
    pub(super) fn detach(&mut self, session: u32, instrument: InstrumentId, channels: &[Channel]) -> usize {
        let was_named = self.is_named(session, instrument);
        let mut gone = 0;
        for channel in channels {
            gone += usize::from(self.end_subscription(session, Key::new(instrument, (*channel).into())));
        }
        if gone == 0 {
            return 0;
        }
        let is_unnamed = was_named && !self.is_named(session, instrument);
        let Some(connection) = self.connections.get_mut(session) else { return gone };
        if is_unnamed {
            connection.holdings.unname();
        }
        let place = |channel: Channel| connection.holdings.place(Key::new(instrument, channel.into()));
        let has = |channel| place(channel).is_some();
        if !Channel::ALL.into_iter().any(has) {
            gone += usize::from(self.end_subscription(session, Key::new(instrument, Stream::Status)));
        }
        gone
    }

    /// Ends one subscription of a session. False if there is none.
    pub(super) fn end_subscription(&mut self, session: u32, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(session) else { return false };
        let Some(place) = connection.holdings.remove(key) else { return false };
        if let Some(subscription) = self.directory.get(key, place) {
            if key.channel().is_some() {
                connection.session.ended(subscription.accounted_seq());
            }
            connection.session.leave_rate(subscription.rate());
        }
        self.leave(key, place);
        true
    }

    /// Removes a subscription from the directory, and notes that the last of its row has moved to its place.
    pub(super) fn leave(&mut self, key: Key, place: u32) {
        if let Some(moved) = self.directory.remove(key, place) {
            self.moved(moved, key, place);
        }
    }

    /// Notes that a subscription of a session has moved in the directory.
    pub(super) fn moved(&mut self, session: u32, key: Key, place: u32) {
        if let Some(connection) = self.connections.get_mut(session) {
            connection.holdings.moved(key, place);
        }
    }

    /// Changes the policy of a subscription. What its old rate holds back is released when the request
    /// [settles](Self::settle).
    pub(super) fn apply_policy(&mut self, session: u32, key: Key, place: u32, policy: DeliveryPolicy) {
        let claimed = self.claim_policy(session, policy);
        let Some(subscription) = self.directory.at(key, place) else { return };
        let before = subscription.rate();
        subscription.set_policy(claimed);
        if before != claimed.rate
            && let Some(connection) = self.connections.get_mut(session)
        {
            connection.session.use_rate(claimed.rate);
            connection.session.leave_rate(before);
            let unsettled = connection.holdings.is_unsettled() || before.is_some();
            connection.holdings.set_unsettled(unsettled);
        }
    }

    /// How many symbols this session requested by name; matches of wildcards are not counted.
    pub(super) fn named(&self, session: u32) -> usize {
        self.connections.get(session).map_or(0, |connection| connection.holdings.named())
    }

    /// Whether this session requested an instrument by name, on any channel.
    pub(super) fn is_named(&self, session: u32, instrument: InstrumentId) -> bool {
        let Some(connection) = self.connections.get(session) else { return false };
        let keys = Channel::ALL.map(|channel| Key::new(instrument, channel.into()));
        let named =
            |key| connection.holdings.place(key).is_some_and(|place| self.directory.is_named(key, place));
        keys.into_iter().any(named)
    }
}
