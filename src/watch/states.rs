//! What was told of the states of symbols.

use std::collections::BTreeMap;
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
}

impl States {
    /// Takes the next message in.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Status(status) => self.set(&status.symbol, &status.state),
            Message::Ack(ack) => {
                for accepted in ack.ok.iter().flatten().filter(|ok| !is_wildcard(&ok.symbol)) {
                    if let Some(state) = accepted.state.as_deref() {
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
