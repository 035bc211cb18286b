//! What was told of the states of symbols.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rustc_hash::FxHashMap;

use super::ledger::is_wildcard;
use super::message::Message;
use crate::tick::State;

/// The newest state of each symbol of which one was told: what a wildcard takes is live where none was.
#[derive(Debug, Default)]
pub struct States {
    by_symbol: FxHashMap<Box<str>, Box<str>>,
    recorded: bool,
    /// Symbols asked for by name of which nothing has come.
    awaited: BTreeSet<Box<str>>,
    /// Those of them that nobody asked for yet.
    newly_awaited: Vec<Box<str>>,
}

impl States {
    /// Takes the next message in.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Status(status) => {
                if *status.state != *State::Waiting.name() {
                    self.came(&status.symbol);
                }
                self.set(&status.symbol, &status.state);
            }
            Message::Update(_, update) => self.came(&update.symbol),
            Message::Ack(ack) => {
                for accepted in ack.ok.iter().flatten().filter(|ok| !is_wildcard(&ok.symbol)) {
                    if let Some(state) = accepted.state.as_deref() {
                        self.await_it(&accepted.symbol, state);
                        self.set(&accepted.symbol, state);
                    }
                }
            }
            _ => {}
        }
    }

    fn set(&mut self, symbol: &str, state: &str) {
        self.recorded |= is_recorded(state);
        self.by_symbol.insert(symbol.into(), state.into());
    }

    /// Notes a symbol of which nothing was seen yet, once however many channels are about it.
    fn await_it(&mut self, symbol: &str, state: &str) {
        if state == State::Waiting.name() && !self.by_symbol.contains_key(symbol) {
            self.awaited.insert(symbol.into());
            self.newly_awaited.push(symbol.into());
        }
    }

    fn came(&mut self, symbol: &str) {
        // Nearly always there is nothing to look through.
        if !self.awaited.is_empty() {
            self.awaited.remove(symbol);
        }
    }

    /// The symbols asked for by name of which nothing has come yet.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        self.awaited.iter().map(AsRef::as_ref)
    }

    /// Those of them that came on the list since this was last asked, in the order of the answers.
    pub fn newly_awaited(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.newly_awaited)
    }

    /// Whether any of them was replayed.
    pub fn any_recorded(&self) -> bool {
        self.recorded
    }
}

/// How many symbols have which state.
impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for state in self.by_symbol.values() {
            *counts.entry(state).or_default() += 1;
        }
        for (at, (state, count)) in counts.iter().enumerate() {
            write!(f, "{}{count} {state}", if at == 0 { "" } else { ", " })?;
        }
        if counts.is_empty() { write!(f, "none was told") } else { Ok(()) }
    }
}

/// Whether a symbol in this state is, or was, replayed.
pub(super) fn is_recorded(state: &str) -> bool {
    [State::Replay, State::Paused, State::Ended].iter().any(|recorded| recorded.name() == state)
}
