//! What clients mean by a name, a wildcard or no symbols at all, when they speak of what they are subscribed to.

use super::holdings::{Holdings, Wildcard};
use crate::model::instrument::Symbol;
use crate::model::tick::Channel;

/// What holds a subscription: the narrowest of what its client asked for that takes it. It gives the terms, and its end is
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
            false if wildcard().is_some_and(|w| w.venue().is_some()) => Self::Venue,
            false => Self::All,
        }
    }
}

/// Which symbols a text picks.
pub(super) enum Pattern {
    /// No text: whatever there is.
    Everything,
    All,
    Venue(Box<str>),
    One(Symbol),
}

impl Pattern {
    /// Whether it stands for more than one symbol.
    pub(super) fn is_wide(&self) -> bool {
        !matches!(self, Self::One(_))
    }

    /// Whether it stands for this symbol.
    pub(super) fn means(&self, symbol: &Symbol) -> bool {
        match self {
            Self::Everything | Self::All => true,
            Self::Venue(venue) => &**venue == symbol.venue(),
            Self::One(one) => one == symbol,
        }
    }

    /// Whether it picks a client's subscription: it stands for the symbol, and nothing narrower that the client asked for
    /// holds it.
    pub(super) fn picks(&self, symbol: &Symbol, holder: impl Fn() -> Holder) -> bool {
        let narrow_enough = || match self {
            Self::Everything | Self::One(_) => true,
            Self::Venue(_) => holder() != Holder::Name,
            Self::All => holder() == Holder::All,
        };
        self.means(symbol) && narrow_enough()
    }

    /// Whether it picks a wildcard.
    pub(super) fn covers(&self, wildcard: &Wildcard) -> bool {
        match self {
            Self::Everything => true,
            Self::All => wildcard.venue().is_none(),
            Self::Venue(venue) => wildcard.venue() == Some(venue),
            Self::One(_) => false,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Everything | Self::All => "*".to_owned(),
            Self::Venue(venue) => format!("{venue}:*"),
            Self::One(symbol) => symbol.as_str().to_owned(),
        }
    }
}
