//! What clients mean by a name, a wildcard or no symbols at all, when they speak of what they are subscribed to.

use super::holdings::{Holdings, Wildcard};
use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::Selector;

/// What holds a subscription: the narrowest of what its client asked for that takes it. It gives the policy, and its end is
/// that of the subscription.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Name,
    Venue,
    All,
}

impl Holder {
    /// That of a channel of an instrument, which was asked for by name or not.
    pub(super) fn of(holdings: &Holdings, symbol: &Symbol, channel: Channel, named: bool) -> Self {
        let wildcard = || holdings.governing(symbol, channel);
        match named {
            true => Self::Name,
            false if wildcard().is_some_and(Wildcard::is_of_venue) => Self::Venue,
            false => Self::All,
        }
    }
}

/// Which of a client's subscriptions a request means.
pub(super) enum Pattern {
    /// It names no symbols: whatever there is.
    Everything,
    /// Those of a selector: a wildcard, or one symbol.
    Of(Selector),
}

impl Pattern {
    /// Whether it stands for more than one symbol.
    pub(super) fn is_wide(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(selector) => selector.is_wildcard(),
        }
    }

    /// Whether it stands for this symbol.
    pub(super) fn means(&self, symbol: &Symbol) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(selector) => selector.takes(symbol),
        }
    }

    /// Whether it picks a client's subscription: it stands for the symbol, and nothing narrower that the client asked for
    /// holds it.
    pub(super) fn picks(&self, symbol: &Symbol, holder: impl Fn() -> Holder) -> bool {
        let narrow_enough = || match self {
            Self::Of(Selector::Venue(_)) => holder() != Holder::Name,
            Self::Of(Selector::All) => holder() == Holder::All,
            Self::Everything | Self::Of(_) => true,
        };
        self.means(symbol) && narrow_enough()
    }

    /// Whether it picks a wildcard.
    pub(super) fn covers(&self, wildcard: &Wildcard) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(selector) => wildcard.selector() == selector,
        }
    }

    /// As a client writes it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Everything => "*".to_owned(),
            Self::Of(selector) => selector.to_string(),
        }
    }
}
