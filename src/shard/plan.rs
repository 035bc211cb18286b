//! Where the symbols of a `subscribe` begin that goes on where an earlier connection ended, or with what was recorded since
//! some time.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::resolve::Resolved;
use super::start::{Beginning, StartAt};
use crate::model::instrument::{InstrumentId, InstrumentTable, Symbol};

/// Where the symbols of a `resume`, or of a `from`, begin.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// What was recorded comes first.
    past: Option<Past>,
    /// Numbers of an earlier run: everything begins anew.
    new_epoch: bool,
    steps: FxHashMap<InstrumentId, ResumeStep>,
    /// Of these the client names numbers that have not come yet.
    ahead: BTreeSet<Symbol>,
    /// How far the shard had read the ring when this was found out.
    cursor: u64,
}

/// What of the past that a client asks for is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    beginning: Beginning,
    /// Where that is not all: since when, microseconds since the Unix epoch.
    begins_us: Option<u64>,
}

impl Past {
    /// What was recorded from there on; where that is not all, since when, microseconds since the Unix epoch.
    pub(super) fn new(beginning: Beginning, begins_us: Option<u64>) -> Self {
        Self { beginning, begins_us }
    }

    /// Where it begins.
    pub(super) fn beginning(&self) -> Beginning {
        self.beginning
    }

    /// Where that is not all: since when, microseconds since the Unix epoch.
    pub(super) fn begins_us(&self) -> Option<u64> {
        self.begins_us
    }
}

/// Why the past cannot be had: a word, a sentence, and whether it may be had later.
pub(super) type NoPast = (&'static str, String, bool);

/// Where an instrument goes on, and what the answer says of it.
pub(super) type ResumeStep = (StartAt, &'static str);

impl Plan {
    /// Everything begins with what was recorded.
    pub(super) fn of_past(past: Past) -> Self {
        Self { past: Some(past), ..Self::default() }
    }

    /// The numbers of the client are of an earlier run.
    pub(super) fn of_new_epoch() -> Self {
        Self { new_epoch: true, ..Self::default() }
    }

    /// Where instruments go on, found out when the shard had read the ring up to `cursor`; and the symbols of which the
    /// client names numbers that have not come yet.
    pub(super) fn of_resume(
        steps: FxHashMap<InstrumentId, ResumeStep>,
        ahead: BTreeSet<Symbol>,
        cursor: u64,
    ) -> Self {
        Self { steps, ahead, cursor, ..Self::default() }
    }

    /// What of the past comes first, if that was asked for.
    pub(super) fn past(&self) -> Option<Past> {
        self.past
    }

    /// Where an instrument goes on, the shard having read the ring up to `cursor` by now; `None`: it begins as any.
    pub(super) fn start(&self, instrument: InstrumentId, cursor: u64) -> Option<StartAt> {
        if let Some(past) = self.past {
            return Some(StartAt::Past(past.beginning));
        }
        let (start, _) = self.steps.get(&instrument)?;
        Some(match *start {
            // What the shard has read since then is read again for it.
            StartAt::After(told) if cursor > self.cursor => StartAt::Behind(told, self.cursor),
            start => start,
        })
    }

    /// A symbol of which the client names a number that has not come yet, among those that it asks for by this.
    pub(super) fn ahead<'p>(&'p self, named: &'p Resolved, table: &'p InstrumentTable) -> Option<&'p Symbol> {
        match named {
            Resolved::Listed(instrument, _) => {
                table.get(*instrument).filter(|symbol| self.ahead.contains(*symbol))
            }
            Resolved::Awaited(symbol) => self.ahead.get(symbol),
            Resolved::Wildcard(selector) => self.ahead.iter().find(|symbol| selector.takes(symbol)),
        }
    }

    /// What the answer says of an instrument.
    pub(super) fn word(&self, instrument: InstrumentId) -> Option<&'static str> {
        self.steps.get(&instrument).map_or(self.new_epoch(), |(_, word)| Some(word))
    }

    /// What the answer says where the numbers are of an earlier run.
    pub(super) fn new_epoch(&self) -> Option<&'static str> {
        self.new_epoch.then_some("new_epoch")
    }

    /// What the answer says of all instruments together.
    pub(super) fn word_of_all(&self) -> Option<&'static str> {
        let mut words = self.steps.values().map(|(_, word)| *word);
        let first = words.next();
        if first.is_none() {
            return self.new_epoch();
        }
        first.into_iter().chain(words).find(|word| *word == "gap").or(first)
    }
}
