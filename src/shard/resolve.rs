//! What the symbols of a request mean, and why some are refused.

use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::model::tick::{Channel, State};
use crate::protocol::json::SubscriptionRow;
use crate::protocol::outcome::RejectedRow;
use crate::protocol::{DeliveryPolicy, Selector};

/// What a symbol of a `subscribe` stands for.
pub(super) enum Resolved {
    /// Everything, or everything of a venue.
    Wildcard(Selector),
    /// An instrument, with the state that the answer shows.
    Listed(InstrumentId, State),
    /// A symbol of a venue that is configured, which no feed has listed yet.
    Awaited(Symbol),
}

impl Resolved {
    /// Whether it stands for one symbol, which the client named.
    pub(super) fn is_named(&self) -> bool {
        !matches!(self, Self::Wildcard(_))
    }

    /// The row of an answer that shows it.
    pub(super) fn row<'t>(
        &self,
        table: &'t InstrumentTable,
        channel: Channel,
        policy: DeliveryPolicy,
    ) -> SubscriptionRow<'t> {
        match self {
            Self::Wildcard(selector) => SubscriptionRow::new(selector.to_string(), channel, policy, None),
            Self::Awaited(symbol) => {
                SubscriptionRow::new(symbol.as_str().to_owned(), channel, policy, Some(State::Waiting))
            }
            Self::Listed(instrument, state) => {
                let symbol = table.get(*instrument).map_or("", Symbol::as_str);
                SubscriptionRow::new(symbol, channel, policy, Some(*state))
            }
        }
    }
}

/// Why a symbol is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    code: &'static str,
    msg: String,
}

impl Refusal {
    /// A code of the protocol, and a sentence.
    pub(super) fn new(code: &'static str, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }

    /// There is no such symbol.
    pub(super) fn unknown(msg: impl Into<String>) -> Self {
        Self::new("unknown_symbol", msg)
    }

    /// The connection has as many different rates as it may.
    pub(super) fn too_many_rates() -> Self {
        Self::new("too_many_rates", "this connection has too many different `max_hz`")
    }

    /// The code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence.
    pub(super) fn msg(&self) -> &str {
        &self.msg
    }

    /// The row of an answer that refuses this symbol.
    pub(super) fn row<'a>(&'a self, symbol: &'a str) -> RejectedRow<'a> {
        RejectedRow { symbol, code: self.code, msg: &self.msg }
    }
}
