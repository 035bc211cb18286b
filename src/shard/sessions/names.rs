//! What the symbols of requests mean.

use super::Sessions;
use crate::model::instrument::{InstrumentId, Symbol};
use crate::shard::pattern::Pattern;
use crate::shard::resolved::{Refusal, Resolved};
use crate::shard::socket::Socket;

impl<S: Socket> Sessions<S> {
    /// An instrument that is listed, with its state.
    pub(super) fn listed(&self, instrument: InstrumentId) -> Resolved {
        Resolved::Listed(instrument, self.state(instrument))
    }

    /// What a symbol of a `subscribe` stands for.
    pub(super) fn resolve(&self, text: &str) -> Result<Resolved, Refusal> {
        if text == "*" {
            return Ok(Resolved::Wildcard(None));
        }
        match text.split_once(':') {
            Some((venue, "*")) => {
                self.require_venue(venue)?;
                Ok(Resolved::Wildcard(Some(venue.into())))
            }
            Some((venue, _)) => {
                self.require_venue(venue)?;
                let symbol = Symbol::parse(text).map_err(|error| Refusal::unknown(error.to_string()))?;
                Ok(self.env.table.find(&symbol).map_or(Resolved::Awaited(symbol), |id| self.listed(id)))
            }
            None => self.resolve_bare(text),
        }
    }

    fn require_venue(&self, venue: &str) -> Result<(), Refusal> {
        if self.env.options.venues.iter().any(|v| &**v == venue) || self.env.table.has_venue(venue) {
            return Ok(());
        }
        Err(Refusal::unknown(format!("no venue {:?} here", venue.chars().take(40).collect::<String>())))
    }

    /// A name without a venue is good when exactly one venue lists it.
    fn resolve_bare(&self, name: &str) -> Result<Resolved, Refusal> {
        match self.env.table.find_name(name) {
            Some((id, None)) => Ok(self.listed(id)),
            Some((one, Some(other))) => {
                let [one, other] = [one, other].map(|id| self.env.table.get(id).map_or("", Symbol::as_str));
                let msg = format!("several venues list it: {one}, {other}");
                Err(Refusal::new("ambiguous_symbol", msg))
            }
            None => Err(Refusal::unknown("no venue lists it: write venue:NAME")),
        }
    }

    /// What a text picks among a client's subscriptions. A symbol need not be known to anybody else.
    pub(super) fn pattern(&self, text: &str) -> Result<Pattern, Refusal> {
        match text.split_once(':') {
            _ if text == "*" => Ok(Pattern::All),
            Some((venue, "*")) => self.require_venue(venue).map(|()| Pattern::Venue(venue.into())),
            Some(_) => {
                Symbol::parse(text).map(Pattern::One).map_err(|error| Refusal::unknown(error.to_string()))
            }
            None => match self.resolve_bare(text)? {
                Resolved::Listed(instrument, _) => {
                    let symbol = self.env.table.get(instrument).cloned();
                    symbol.map(Pattern::One).ok_or_else(|| Refusal::unknown("not listed"))
                }
                _ => Err(Refusal::unknown("no venue lists it: write venue:NAME")),
            },
        }
    }
}
