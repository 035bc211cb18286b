//! Which subscriptions a request refers to, by a name, by a wildcard, or by no symbols at all.

use super::holdings::{Holdings, Wildcard};
use crate::model::instrument::Symbol;
use crate::model::tick::Channel;
use crate::protocol::Selector;

/// What holds a subscription: the narrowest of the client's name, venue wildcard and `*` that matches it. The holder
/// sets the policy, and the subscription ends with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Name,
    Venue,
    All,
}

impl Holder {
    /// The holder of a subscription to this channel; `named`: the client requested it by name.
    pub(super) fn of(holdings: &Holdings, symbol: &Symbol, channel: Channel, named: bool) -> Self {
        let wildcard = || holdings.governing(symbol, channel);
        match named {
            true => Self::Name,
            false if wildcard().is_some_and(Wildcard::is_of_venue) => Self::Venue,
            false => Self::All,
        }
    }
}

/// Which of a client's subscriptions a request refers to.
pub(super) enum Pattern {
    /// The request names no symbols: all of them.
    Everything,
    /// Those that a selector matches: a wildcard, or one symbol.
    Of(Selector),
}

impl Pattern {
    /// Whether it may match more than one symbol.
    pub(super) fn is_wide(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(selector) => selector.is_wildcard(),
        }
    }

    /// Whether it matches this symbol.
    pub(super) fn means(&self, symbol: &Symbol) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(selector) => selector.takes(symbol),
        }
    }

    /// Whether it picks a client's subscription: it matches the symbol, and nothing narrower holds the subscription.
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

    /// The pattern as a client writes it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Everything => "*".to_owned(),
            Self::Of(selector) => selector.to_string(),
        }
    }
}
