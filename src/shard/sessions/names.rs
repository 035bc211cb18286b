//! What the symbols of requests mean.

use super::Sessions;
use crate::model::instrument::{InstrumentId, Symbol};
use crate::protocol::Selector;
use crate::shard::pattern::Pattern;
use crate::shard::resolve::{Refusal, Resolved};
use crate::shard::socket::Socket;

impl<S: Socket> Sessions<S> {
    /// An instrument that is listed, with its state.
    pub(super) fn listed(&self, instrument: InstrumentId) -> Resolved {
        Resolved::Listed(instrument, self.state(instrument))
    }

    /// What a symbol of a `subscribe` stands for.
    pub(super) fn resolve(&self, selector: &Selector) -> Result<Resolved, Refusal> {
        if let Some(venue) = selector.venue() {
            self.require_venue(venue)?;
        }
        match selector {
            Selector::All | Selector::Venue(_) => Ok(Resolved::Wildcard(selector.clone())),
            Selector::Symbol(symbol) => Ok(match self.env.table.find(symbol) {
                Some(instrument) => self.listed(instrument),
                None => Resolved::Awaited(symbol.clone()),
            }),
            Selector::Bare(name) => self.resolve_bare(name).map(|instrument| self.listed(instrument)),
            Selector::Malformed(_, why) => Err(Refusal::unknown(why.to_string())),
        }
    }

    fn require_venue(&self, venue: &str) -> Result<(), Refusal> {
        if self.env.options.venues.iter().any(|v| &**v == venue) || self.env.table.has_venue(venue) {
            return Ok(());
        }
        Err(Refusal::unknown(format!("no venue {:?} here", venue.chars().take(40).collect::<String>())))
    }

    /// A name without a venue is good when exactly one venue lists it.
    fn resolve_bare(&self, name: &str) -> Result<InstrumentId, Refusal> {
        match self.env.table.find_name(name) {
            Some((id, None)) => Ok(id),
            Some((one, Some(other))) => {
                let [one, other] = [one, other].map(|id| self.env.table.get(id).map_or("", Symbol::as_str));
                let msg = format!("several venues list it: {one}, {other}");
                Err(Refusal::new("ambiguous_symbol", msg))
            }
            None => Err(Refusal::unknown("no venue lists it: write venue:NAME")),
        }
    }

    /// What a selector picks among a client's subscriptions. A symbol need not be listed, nor its venue known.
    pub(super) fn pattern(&self, selector: &Selector) -> Result<Pattern, Refusal> {
        match selector {
            Selector::All | Selector::Symbol(_) => Ok(Pattern::Of(selector.clone())),
            Selector::Venue(venue) => self.require_venue(venue).map(|()| Pattern::Of(selector.clone())),
            Selector::Bare(name) => {
                let symbol = self.env.table.get(self.resolve_bare(name)?).cloned();
                let symbol = symbol.ok_or_else(|| Refusal::unknown("not listed"))?;
                Ok(Pattern::Of(Selector::Symbol(symbol)))
            }
            Selector::Malformed(_, why) => Err(Refusal::unknown(why.to_string())),
        }
    }
}
