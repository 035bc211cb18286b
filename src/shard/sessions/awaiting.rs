//! Sessions that await symbols: see [`awaited`](crate::shard::awaited).

use super::Sessions;
use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::DeliveryPolicy;
use crate::session::{RateId, Session};
use crate::shard::socket::Socket;

/// A policy with its rate as the client requested it.
pub(super) fn policy_of(session: &Session, claimed: DeliveryPolicy<RateId>) -> DeliveryPolicy {
    let rate = claimed.rate.and_then(|id| session.rate_of(id));
    DeliveryPolicy { mode: claimed.mode, rate, disconnect_on_loss: claimed.disconnect_on_loss }
}

impl<S: Socket> Sessions<S> {
    /// Has a session await a channel of a symbol that no feed lists yet.
    pub(super) fn await_symbol(
        &mut self,
        session: u32,
        symbol: &Symbol,
        channel: Channel,
        policy: DeliveryPolicy,
    ) {
        let claimed = self.claim_policy(session, policy);
        let Some(connection) = self.connections.get_mut(session) else { return };
        if connection.holdings.awaits(symbol).is_none() {
            connection.holdings.await_symbol(self.directory.await_symbol(symbol, session));
        }
        let Some(wanted) = connection.holdings.awaits_mut(symbol) else { return };
        connection.session.use_rate(claimed.rate);
        if let Some(before) = wanted.set(channel, Some(claimed)) {
            connection.session.leave_rate(before.rate);
        }
    }

    /// Has a session stop awaiting some channels of a symbol. False if it did not await the symbol.
    pub(super) fn stop_awaiting(&mut self, session: u32, symbol: &Symbol, channels: &[Channel]) -> bool {
        let Some(connection) = self.connections.get_mut(session) else { return false };
        let Some(wanted) = connection.holdings.awaits_mut(symbol) else { return false };
        for channel in channels {
            if let Some(gone) = wanted.set(*channel, None) {
                connection.session.leave_rate(gone.rate);
            }
        }
        if wanted.is_empty() {
            connection.holdings.stop_awaiting(symbol);
            self.directory.stop_awaiting(symbol, session);
        }
        true
    }

    /// Takes what a session wants of an awaited symbol, which is listed now.
    pub(super) fn take_awaited(&mut self, session: u32, symbol: &Symbol) -> Vec<(Channel, DeliveryPolicy)> {
        let Some(connection) = self.connections.get_mut(session) else { return Vec::new() };
        let wanted = connection.holdings.stop_awaiting(symbol).unwrap_or_default();
        let mut policy = Vec::new();
        for (channel, claimed) in wanted.channels() {
            policy.push((channel, policy_of(&connection.session, claimed)));
            connection.session.leave_rate(claimed.rate);
        }
        policy
    }
}
