//! What a client has and what there is, in answers of bounded length: where one ends, the next goes on.

use std::sync::Arc;

use serde::Serialize;

use super::interest::{Awaited, Wildcard};
use super::requests::{Named, row};
use super::sessions::{Sessions, Socket};
use crate::clock::Now;
use crate::instrument::{InstrumentId, Symbol};
use crate::protocol::Id;
use crate::protocol::json::{self as message, Ack, Space, SubscriptionRow, SymbolRow};
use crate::tick::Key;

/// Rows of one answer, at most; what is beyond is told by `"more":true`.
const ROWS_MAX: usize = 10_000;

/// The fields of the answers to `list` and `symbols`.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<Vec<SubscriptionRow<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbols: Option<Vec<SymbolRow<'a>>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
}

/// The rows of an answer.
struct Rows<R> {
    rows: Vec<R>,
    space: Space,
    /// There is one that found no room.
    more: bool,
}

impl<R: Serialize> Rows<R> {
    fn new() -> Self {
        Self { rows: Vec::new(), space: Space::default(), more: false }
    }

    /// Takes in the rows of one symbol, all or none: so the next answer can begin behind a symbol. False once there is no room.
    fn take(&mut self, of_one: Vec<R>) -> bool {
        self.more |= self.rows.len() + of_one.len() > ROWS_MAX || !self.space.takes(&of_one);
        if !self.more {
            self.rows.extend(of_one);
        }
        !self.more
    }
}

impl<S: Socket> Sessions<S> {
    /// Every subscription of a session behind those of a symbol: wildcards by their texts, instruments in the order of listing,
    /// awaited symbols by their texts.
    pub(super) fn list(&mut self, id: u32, name: Option<&Id>, after: Option<&str>, now: Now) {
        let table = Arc::clone(&self.table);
        let Some(connection) = self.connections.get(id) else { return };
        let Ok(behind) = Behind::of(after, |symbol| table.find(symbol)) else {
            return self.no_such_row(id, name, now);
        };
        let mut rows = Rows::new();
        let mut wildcards: Vec<(String, &Wildcard)> =
            connection.wildcards.iter().map(|w| (w.shown(), w)).collect();
        wildcards.retain(|(text, _)| behind.takes_wildcard(text));
        wildcards.sort_by(|(a, _), (b, _)| a.cmp(b));
        for of_one in wildcards.chunk_by(|(a, _), (b, _)| a == b) {
            let row = |(text, w): &(String, &Wildcard)| {
                SubscriptionRow::new(text.clone(), w.channel, w.terms, None)
            };
            rows.take(of_one.iter().map(row).collect());
        }
        let from = connection.places.partition_point(|(key, _)| !behind.takes_listed(key.instrument()));
        for of_one in connection.places[from..].chunk_by(|(a, _), (b, _)| a.instrument() == b.instrument()) {
            let row = |(key, place): &(Key, u32)| {
                let (channel, terms) = key.channel().zip(self.terms_of(id, *key, *place))?;
                Some(row(&table, &self.listed(key.instrument()), channel, terms))
            };
            if !rows.take(of_one.iter().filter_map(row).collect()) {
                break;
            }
        }
        let mut awaited: Vec<&Awaited> =
            connection.awaited.iter().filter(|a| behind.takes_awaited(&a.symbol)).collect();
        awaited.sort_by(|a, b| a.symbol.as_str().cmp(b.symbol.as_str()));
        for of_one in awaited.chunk_by(|a, b| a.symbol == b.symbol) {
            let row = |a: &&Awaited| row(&table, &Named::Awaited(a.symbol.clone()), a.channel, a.terms);
            rows.take(of_one.iter().map(row).collect());
        }
        let Rows { rows, more, .. } = rows;
        self.charge(id, rows.len());
        let listing = Listing { subscriptions: Some(rows), symbols: None, more };
        self.say(id, &Ack::new(name, "list", listing), now);
    }

    /// What there is behind a symbol, in the order of listing.
    pub(super) fn symbols(
        &mut self,
        id: u32,
        name: Option<&Id>,
        (text, after): (&str, Option<&str>),
        now: Now,
    ) {
        let pattern = match self.pattern(text) {
            Ok(pattern) => Some(pattern),
            Err(refusal) if refusal.code == "unknown_symbol" => None,
            Err(refusal) => {
                let msg = format!("`match`: {}", refusal.msg);
                return self.say(id, &message::error(name, refusal.code, &msg, false), now);
            }
        };
        let table = Arc::clone(&self.table);
        let from = match Behind::of(after, |symbol| table.find(symbol)) {
            Ok(Behind::Nothing) => 0,
            Ok(Behind::Listed(instrument)) => instrument.index() + 1,
            _ => return self.no_such_row(id, name, now),
        };
        let mut rows = Rows::new();
        let mut looked_at = 0;
        for (instrument, symbol) in table.iter().skip(from) {
            looked_at += 1;
            if !pattern.as_ref().is_some_and(|pattern| pattern.means(symbol)) {
                continue;
            }
            let state = self.state(instrument).name();
            if !rows.take(vec![SymbolRow { symbol: symbol.as_str(), state }]) {
                break;
            }
        }
        let Rows { rows, more, .. } = rows;
        self.charge(id, looked_at);
        let listing = Listing { subscriptions: None, symbols: Some(rows), more };
        self.say(id, &Ack::new(name, "symbols", listing), now);
    }

    fn no_such_row(&mut self, id: u32, name: Option<&Id>, now: Now) {
        self.counters.faults.add(1);
        let msg = "`after` is no symbol that such an answer has a row of";
        self.say(id, &message::error(name, "bad_request", msg, false), now);
    }
}

/// Where an answer goes on.
enum Behind {
    Nothing,
    Wildcard(String),
    Listed(InstrumentId),
    Awaited(Symbol),
}

impl Behind {
    fn of(after: Option<&str>, find: impl Fn(&Symbol) -> Option<InstrumentId>) -> Result<Self, ()> {
        match after {
            None => Ok(Self::Nothing),
            Some(text) if text == "*" || text.ends_with(":*") => Ok(Self::Wildcard(text.to_owned())),
            Some(text) => {
                let symbol = Symbol::parse(text).map_err(|_| ())?;
                Ok(find(&symbol).map_or(Self::Awaited(symbol), Self::Listed))
            }
        }
    }

    fn takes_wildcard(&self, text: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Wildcard(last) => text > last.as_str(),
            Self::Listed(_) | Self::Awaited(_) => false,
        }
    }

    fn takes_listed(&self, instrument: InstrumentId) -> bool {
        match self {
            Self::Nothing | Self::Wildcard(_) => true,
            Self::Listed(last) => instrument > *last,
            Self::Awaited(_) => false,
        }
    }

    /// One that was listed meanwhile may be told twice, and is not left out.
    fn takes_awaited(&self, symbol: &Symbol) -> bool {
        match self {
            Self::Nothing | Self::Wildcard(_) | Self::Listed(_) => true,
            Self::Awaited(last) => symbol.as_str() > last.as_str(),
        }
    }
}
