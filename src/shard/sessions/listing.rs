//! The answers to `list` and `symbols`, of bounded length: where one ends, the next continues.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use super::Sessions;
use super::awaiting::policy_of;
use crate::model::instrument::{InstrumentId, Symbol};
use crate::model::tick::{Channel, Key, State};
use crate::protocol::json::{self as message, SubscriptionRow, SymbolRow};
use crate::protocol::outcome::{self, ROWS_BYTES_MAX};
use crate::protocol::{Id, Selector};
use crate::shard::answers::{BYTES_PER_STEP, LongAnswer};
use crate::shard::holdings::Wildcard;
use crate::shard::pattern::Pattern;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

/// Rows of one answer, at most; `"more":true` says that there are others.
const ROWS_MAX: usize = 10_000;
/// Instruments without a match that are passed over in one step.
const PASSED_PER_STEP: usize = 8;

/// The rows of an answer, written as they are found.
#[derive(Default)]
struct Rows {
    /// Separated by commas.
    text: Vec<u8>,
    count: usize,
    /// A row has found no room.
    more: bool,
    long: LongAnswer,
}

impl Rows {
    /// Adds the rows of one symbol, all or none, so that the next answer can begin after a symbol. False once there is
    /// no room.
    fn take<R: Serialize>(&mut self, of_one: &[R]) -> bool {
        let before = self.text.len();
        for row in of_one {
            outcome::push_row(&mut self.text, row, usize::MAX);
        }
        self.more |= self.count + of_one.len() > ROWS_MAX || self.text.len() >= ROWS_BYTES_MAX;
        if self.more {
            self.text.truncate(before);
        } else {
            self.count += of_one.len();
        }
        !self.more
    }
}

/// A `list` that is under way.
pub(super) struct Listing {
    name: Option<Id>,
    rows: Rows,
    next: Next,
}

/// What a `list` shows next.
enum Next {
    /// The wildcards after this text.
    Wildcards(Option<String>),
    /// Instruments from this one on.
    Listed(InstrumentId),
    /// Awaited symbols after this one.
    Awaited(Option<Rc<Symbol>>),
    Answer,
}

/// A `symbols` that is under way.
pub(super) struct SymbolListing {
    name: Option<Id>,
    rows: Rows,
    /// `None` if no symbol can match: then there are no rows.
    pattern: Option<Pattern>,
    /// The instrument that is looked at next.
    next: usize,
}

impl<S: Socket> Sessions<S> {
    /// Begins to list the subscriptions of a session after those of the symbol `after`: wildcards in text order,
    /// instruments in listing order, awaited symbols in text order.
    pub(super) fn listing(
        &mut self,
        id: u32,
        name: Option<Id>,
        after: Option<&str>,
        now: Now,
    ) -> Option<Listing> {
        let next = match Behind::of(after, |symbol| self.env.table.find(symbol)) {
            Ok(Behind::Nothing) => Next::Wildcards(None),
            Ok(Behind::Wildcard(text)) => Next::Wildcards(Some(text)),
            Ok(Behind::Listed(instrument)) => Next::Listed(InstrumentId(instrument.0 + 1)),
            // If the symbol was listed meanwhile, the arm above applies, and rows may repeat.
            Ok(Behind::Awaited(symbol)) => Next::Awaited(Some(Rc::new(symbol))),
            Err(()) => {
                self.no_such_row(id, name.as_ref(), now);
                return None;
            }
        };
        Some(Listing { name, rows: Rows::default(), next })
    }

    /// Writes the answer to a `list`. True when that is done.
    pub(super) fn go_on_listing(&mut self, id: u32, listing: &mut Listing, now: Now) -> bool {
        loop {
            let Listing { name, rows, next } = listing;
            match next {
                Next::Wildcards(behind) => {
                    let Some(connection) = self.connections.get(id) else { return true };
                    if !self.steps.take(connection.holdings.wildcards().len()) {
                        return false;
                    }
                    list_wildcards(connection.holdings.wildcards(), behind.as_deref(), rows);
                    *next = Next::Listed(InstrumentId(0));
                }
                Next::Listed(from) => {
                    let Some(instrument) = self.instrument_from(id, *from).filter(|_| !rows.more) else {
                        *next = Next::Awaited(None);
                        continue;
                    };
                    if !self.may_write(id, &mut rows.long, rows.text.len()) {
                        return false;
                    }
                    *from = InstrumentId(instrument.0 + 1);
                    rows.take(&self.rows_of(id, instrument));
                }
                Next::Awaited(behind) => {
                    let symbol = self.awaited_behind(id, behind.as_ref()).filter(|_| !rows.more);
                    let Some(symbol) = symbol else {
                        *next = Next::Answer;
                        continue;
                    };
                    if !self.may_write(id, &mut rows.long, rows.text.len()) {
                        return false;
                    }
                    rows.take(&self.rows_of_awaited(id, &symbol));
                    *behind = Some(symbol);
                }
                Next::Answer => {
                    if !self.steps.take(rows.text.len() / BYTES_PER_STEP) {
                        return false;
                    }
                    self.say_rows(id, (name.as_ref(), "list", "subscriptions"), rows, now);
                    return true;
                }
            }
        }
    }

    /// The rows of an instrument that a session is subscribed to.
    fn rows_of(&self, id: u32, instrument: InstrumentId) -> Vec<SubscriptionRow<'_>> {
        let Some(connection) = self.connections.get(id) else { return Vec::new() };
        let row = |(key, place): (Key, u32)| {
            let (channel, policy) = key.channel().zip(self.policy_of(id, key, place))?;
            Some(self.listed(instrument).row(&self.env.table, channel, policy))
        };
        connection.holdings.places_of(instrument).filter_map(row).collect()
    }

    /// The rows of a symbol that a session awaits.
    fn rows_of_awaited<'s>(&self, id: u32, symbol: &'s Symbol) -> Vec<SubscriptionRow<'s>> {
        let Some(connection) = self.connections.get(id) else { return Vec::new() };
        let wanted = connection.holdings.awaits(symbol).copied().unwrap_or_default();
        let row = |(channel, claimed): (Channel, _)| {
            let policy = policy_of(&connection.session, claimed);
            SubscriptionRow::new(symbol.as_str(), channel, policy, Some(State::Waiting))
        };
        wanted.channels().map(row).collect()
    }

    /// Begins to list the instruments after the symbol `after`, in listing order.
    pub(super) fn symbol_listing(
        &mut self,
        id: u32,
        name: Option<Id>,
        (text, after): (&str, Option<&str>),
        now: Now,
    ) -> Option<SymbolListing> {
        let pattern = match self.pattern(&Selector::parse(text)) {
            Ok(pattern) => Some(pattern),
            Err(refusal) if refusal.code() == "unknown_symbol" => None,
            Err(refusal) => {
                let msg = format!("`match`: {}", refusal.msg());
                self.say(id, &message::error(name.as_ref(), refusal.code(), &msg, false), now);
                return None;
            }
        };
        let next = match Behind::of(after, |symbol| self.env.table.find(symbol)) {
            Ok(Behind::Nothing) => 0,
            Ok(Behind::Listed(instrument)) => instrument.index() + 1,
            _ => {
                self.no_such_row(id, name.as_ref(), now);
                return None;
            }
        };
        Some(SymbolListing { name, rows: Rows::default(), pattern, next })
    }

    /// Writes the answer to a `symbols`. True when that is done.
    pub(super) fn go_on_with_symbols(&mut self, id: u32, listing: &mut SymbolListing, now: Now) -> bool {
        let table = Arc::clone(&self.env.table);
        let SymbolListing { name, rows, pattern, next } = listing;
        while let (Some(pattern), false) = (&*pattern, rows.more) {
            if *next >= table.len() {
                break;
            }
            if !self.may_write(id, &mut rows.long, rows.text.len()) {
                return false;
            }
            for _ in 0..PASSED_PER_STEP {
                let instrument = InstrumentId(*next as u32);
                let Some(symbol) = table.get(instrument) else { break };
                *next += 1;
                if pattern.means(symbol) {
                    let state = self.state(instrument).name();
                    rows.take(&[SymbolRow { symbol: symbol.as_str(), state }]);
                    break;
                }
            }
        }
        if !self.steps.take(rows.text.len() / BYTES_PER_STEP) {
            return false;
        }
        self.say_rows(id, (name.as_ref(), "symbols", "symbols"), rows, now);
        true
    }

    /// Sends an answer with rows.
    fn say_rows(&mut self, id: u32, (name, op, field): (Option<&Id>, &str, &str), rows: &Rows, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.egress.text(|out| outcome::listing(name, op, field, (&rows.text, rows.more), out));
        connection.session.push_answer(frame, now.mono_ns);
        self.queue(id);
    }

    fn no_such_row(&mut self, id: u32, name: Option<&Id>, now: Now) {
        self.env.counters.faults.add(1);
        let msg = "`after` is no symbol that such an answer has a row of";
        self.say(id, &message::error(name, "bad_request", msg, false), now);
    }
}

/// The row after which an answer begins.
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
}

/// Adds the rows of the wildcards after a text, in text order.
fn list_wildcards(wildcards: &[Wildcard], behind: Option<&str>, rows: &mut Rows) {
    let mut shown: Vec<(String, &Wildcard)> =
        wildcards.iter().map(|w| (w.selector().to_string(), w)).collect();
    shown.retain(|(text, _)| behind.is_none_or(|behind| text.as_str() > behind));
    shown.sort_by(|(a, _), (b, _)| a.cmp(b));
    for of_one in shown.chunk_by(|(a, _), (b, _)| a == b) {
        let row = |(text, w): &(String, &Wildcard)| {
            SubscriptionRow::new(text.clone(), w.channel(), w.policy(), None)
        };
        rows.take(&of_one.iter().map(row).collect::<Vec<_>>());
    }
}
