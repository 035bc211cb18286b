//! States of the symbols, and the requested symbols for which nothing was received.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rustc_hash::FxHashMap;

use super::ledger::is_wildcard;
use super::message::{Ack, Message};
use crate::model::tick::{Channel, State};

/// The newest state of each symbol with a received state; a symbol of a wildcard without one is live.
#[derive(Debug, Default)]
pub struct States {
    by_symbol: FxHashMap<Box<str>, Box<str>>,
    recorded: bool,
    /// Symbols requested by name for which nothing was received.
    awaited: BTreeSet<Box<str>>,
    /// The part of them not yet returned by [`newly_awaited`](Self::newly_awaited).
    newly_awaited: Vec<Box<str>>,
    /// Wildcards without their `*`, and whether a matching symbol was received.
    wildcards: BTreeMap<Box<str>, bool>,
    /// Rejected symbols as requested, and on which channels.
    rejected: BTreeMap<Box<str>, BTreeSet<Channel>>,
}

impl States {
    /// Processes the next message.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Status(status) => {
                if *status.state != *State::Waiting.name() {
                    self.came(&status.symbol);
                }
                self.set(&status.symbol, &status.state);
            }
            Message::Update(_, update) => self.came(&update.symbol),
            Message::Ack(ack) => self.answered(ack),
            _ => {}
        }
    }

    fn answered(&mut self, ack: &Ack<'_>) {
        for rejected in &ack.rejected {
            let channels = ack.channel.iter().flat_map(|channels| &channels.0);
            self.rejected.entry((&*rejected.symbol).into()).or_default().extend(channels);
        }
        for accepted in ack.ok.iter().flatten() {
            if let Some(prefix) = accepted.symbol.strip_suffix('*').filter(|_| is_wildcard(&accepted.symbol))
            {
                self.wildcards.entry(prefix.into()).or_default();
            } else if let Some(state) = accepted.state.as_deref() {
                self.await_it(&accepted.symbol, state);
                self.set(&accepted.symbol, state);
            }
        }
    }

    fn set(&mut self, symbol: &str, state: &str) {
        self.recorded |= is_recorded(state);
        self.by_symbol.insert(symbol.into(), state.into());
    }

    /// Adds a symbol without data, once over all channels.
    fn await_it(&mut self, symbol: &str, state: &str) {
        if state == State::Waiting.name() && !self.by_symbol.contains_key(symbol) {
            self.awaited.insert(symbol.into());
            self.newly_awaited.push(symbol.into());
        }
    }

    fn came(&mut self, symbol: &str) {
        // Usually empty: avoids the lookup.
        if !self.awaited.is_empty() {
            self.awaited.remove(symbol);
        }
        let venue = symbol.find(':').map_or("", |colon| &symbol[..=colon]);
        for prefix in ["", venue] {
            if let Some(came) = self.wildcards.get_mut(prefix) {
                *came = true;
            }
        }
    }

    /// The requested symbols that were not received, as text: symbols without data, wildcards without a
    /// matching symbol, and symbols rejected on at least one channel.
    pub fn never_came(&self) -> Vec<String> {
        let missing = self.wildcards.iter().filter(|(_, came)| !**came);
        let awaited = self.awaited.iter().map(ToString::to_string);
        let wildcards = missing.map(|(prefix, _)| format!("{prefix}* (no symbol under it)"));
        let rejected = self.rejected.iter().map(|(symbol, channels)| {
            let channels: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
            format!("{symbol} (rejected for {})", channels.join(", "))
        });
        awaited.chain(wildcards).chain(rejected).collect()
    }

    /// Symbols requested by name that had no data when they were accepted, since the last call, in the order
    /// of the answers.
    pub fn newly_awaited(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.newly_awaited)
    }

    /// Whether any symbol was replayed.
    pub fn any_recorded(&self) -> bool {
        self.recorded
    }
}

/// Displays the number of symbols per state.
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

/// Whether this state belongs to a replay.
pub(super) fn is_recorded(state: &str) -> bool {
    [State::Replay, State::Paused, State::Ended].iter().any(|recorded| recorded.name() == state)
}
