//! Sessions that await symbols: see [`awaited`](crate::shard::awaited).

use super::Sessions;
use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::Terms;
use crate::session::{Manner, Session};
use crate::shard::socket::Socket;

/// A policy with its rate as the client asked for it.
pub(super) fn terms_of(session: &Session, manner: Manner) -> Terms {
    let rate = manner.rate.and_then(|id| session.rate_of(id));
    Terms { mode: manner.mode, rate, cuts: manner.cuts }
}

impl<S: Socket> Sessions<S> {
    /// Awaits a channel of a symbol that no feed lists yet.
    pub(super) fn await_symbol(&mut self, session: u32, symbol: &Symbol, channel: Channel, terms: Terms) {
        let manner = self.manner(session, terms);
        let Some(connection) = self.connections.get_mut(session) else { return };
        if connection.holdings.awaits(symbol).is_none() {
            connection.holdings.await_symbol(self.directory.await_symbol(symbol, session));
        }
        let Some(wanted) = connection.holdings.awaits_mut(symbol) else { return };
        connection.session.use_rate(manner.rate);
        if let Some(before) = wanted.set(channel, Some(manner)) {
            connection.session.leave_rate(before.rate);
        }
    }

    /// Awaits some channels of a symbol no more. False if none of it was awaited.
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

    /// What a session wants of a symbol that is listed now: it awaits it no more.
    pub(super) fn take_awaited(&mut self, session: u32, symbol: &Symbol) -> Vec<(Channel, Terms)> {
        let Some(connection) = self.connections.get_mut(session) else { return Vec::new() };
        let wanted = connection.holdings.stop_awaiting(symbol).unwrap_or_default();
        let mut terms = Vec::new();
        for (channel, manner) in wanted.channels() {
            terms.push((channel, terms_of(&connection.session, manner)));
            connection.session.leave_rate(manner.rate);
        }
        terms
    }
}
