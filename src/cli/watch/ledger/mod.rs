//! Checks the accounting rule of the protocol from the client side: `seq − n` equals the previous `seq`, or a
//! `gap` covers exactly the difference.
//!
//! Pure: messages go in, counts and violations come out. Pass *every* message of a connection to
//! [`SequenceLedger::hear`], in order, including the `hello` of a new connection; then check
//! [`SequenceLedger::held`].
//!
//! The first message of a subscription may be:
//!
//! | subscription | first message |
//! | --- | --- |
//! | the `ack` contains a `seq` | a snapshot of at least that number, or the update or gap right after it |
//! | snapshot on, no `seq` in the `ack` | any snapshot, or the update or gap that starts at 1 |
//! | snapshot off, no `seq` in the `ack` | anything |
//! | requested again while active | a snapshot of at least the last number, or the next message |
//!
//! Later snapshots do not permit a jump: one may repeat the last number; any other counts as an update and
//! must follow it.

use std::fmt;

use rustc_hash::{FxHashMap, FxHashSet};

use super::message::{Accepted, Ack, Gap, Message, Update};
use crate::model::tick::Channel;

/// Most violations that are kept; all are counted.
pub const BREAKS_KEPT: usize = 10;

/// Most reasons for gaps that are distinguished; further ones are counted as `other`.
const WHYS_MAX: usize = 16;

/// Position of a symbol's stream of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Nothing was received, and no number is known.
    Anything,
    /// Nothing was received; expects a snapshot of this number or later, or what follows this number.
    Start(u64),
    /// The last number.
    After(u64),
}

impl Expect {
    /// The last number that is accounted for, if known.
    fn last(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Start(last) | Self::After(last) => Some(last),
        }
    }
}

/// A violation of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFault {
    /// An update that does not follow: `seq − n` is not `last`.
    Update {
        /// The previous number.
        last: u64,
        /// Number of the update.
        seq: u64,
        /// The ticks that it claims to stand for.
        n: u64,
    },
    /// A snapshot that neither repeats `last` nor follows it.
    Snapshot {
        /// The previous number.
        last: u64,
        /// Number of the snapshot.
        seq: u64,
    },
    /// A gap that does not start right after `last`.
    Gap {
        /// The previous number.
        last: u64,
        /// First number of the gap.
        from: u64,
        /// Last number of the gap.
        to: u64,
    },
    /// A gap without numbers.
    EmptyGap {
        /// First number of the gap.
        from: u64,
        /// Last number of the gap, smaller than the first.
        to: u64,
    },
    /// An update with an invalid `n`: 0, or greater than its number.
    Count {
        /// Number of the update.
        seq: u64,
        /// The ticks that it claims to stand for.
        n: u64,
    },
    /// A message that cannot be parsed: its ticks are unaccounted for.
    Unreadable(String),
}

/// A violation of the rule at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The symbol and channel; `None` for a message that cannot be parsed.
    pub of: Option<(String, Channel)>,
    /// The violation.
    pub fault: LedgerFault,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((symbol, channel)) = &self.of {
            write!(f, "{symbol} {}: ", channel.name())?;
        }
        match &self.fault {
            LedgerFault::Update { last, seq, n } => {
                let before = seq.saturating_sub(*n);
                write!(f, "expected seq - n = {last}, got {before} (seq {seq}, n {n}): ")?;
                difference(f, *last, before)
            }
            LedgerFault::Snapshot { last, seq } => {
                write!(f, "expected no snapshot but a repeat of {last}, got {seq}: ")?;
                difference(f, *last, *seq)
            }
            LedgerFault::Gap { last, from, to } => {
                write!(f, "expected a gap from {}, got {from} to {to}: ", last.saturating_add(1))?;
                difference(f, *last, from.saturating_sub(1))
            }
            LedgerFault::EmptyGap { from, to } => {
                write!(f, "expected a gap of something, got {from} to {to}")
            }
            LedgerFault::Count { seq, n } => {
                write!(f, "expected n between 1 and seq, got n {n} at seq {seq}")
            }
            LedgerFault::Unreadable(what) => write!(f, "a message could not be read: {what}"),
        }
    }
}

/// Writes the difference between the expected and the received number.
fn difference(f: &mut fmt::Formatter<'_>, expected: u64, got: u64) -> fmt::Result {
    match got.checked_sub(expected) {
        Some(missing) => write!(f, "{missing} ticks unaccounted for"),
        None => write!(f, "{} ticks told twice", expected - got),
    }
}

/// Counts of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Messages, without snapshots that only repeat a number.
    pub updates: u64,
    /// Ticks that the updates stand for.
    pub ticks: u64,
    /// Ticks merged into a newer one: the sum of `n − 1`.
    pub merged: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// Gaps with one reason, or all gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapTotals {
    /// Number of gaps.
    pub count: u64,
    /// Ticks that they name.
    pub ticks: u64,
}

impl GapTotals {
    fn add(&mut self, ticks: u64) {
        self.count += 1;
        self.ticks = self.ticks.saturating_add(ticks);
    }
}

/// Accounts for the messages of a connection. The [module](self) describes the rule.
#[derive(Clone, Debug)]
pub struct SequenceLedger {
    snapshot: bool,
    streams: FxHashMap<Box<str>, [Option<Expect>; 2]>,
    /// The accepted symbols and wildcards, by channel.
    held: [FxHashSet<Box<str>>; 2],
    heard: [Heard; 2],
    gaps: Vec<(Box<str>, GapTotals)>,
    break_count: u64,
    breaks: Vec<Break>,
}

impl SequenceLedger {
    /// Creates a ledger for subscriptions with a first snapshot (the default of the protocol) or without one.
    pub fn new(snapshot: bool) -> Self {
        Self {
            snapshot,
            streams: FxHashMap::default(),
            held: [FxHashSet::default(), FxHashSet::default()],
            heard: [Heard::default(); 2],
            gaps: Vec::new(),
            break_count: 0,
            breaks: Vec::new(),
        }
    }

    /// Processes the next message.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Update(channel, update) => self.update(*channel, update),
            Message::Gap(gap) => self.gap(gap),
            Message::Ack(ack) => match &*ack.op {
                "subscribe" => self.subscribed(ack),
                "unsubscribe" => self.unsubscribed(ack),
                _ => {}
            },
            // A new connection has no subscriptions; in a new epoch the numbers restart as well.
            Message::Hello(_) => {
                self.streams.clear();
                self.held.iter_mut().for_each(FxHashSet::clear);
            }
            Message::Status(_)
            | Message::Joined(_)
            | Message::Failure(_)
            | Message::Lag(_)
            | Message::Bye(_)
            | Message::Other => {}
        }
    }

    /// Counts a message that cannot be parsed as a violation, because it may have been a tick.
    pub fn unreadable(&mut self, what: &str) {
        self.broke(None, LedgerFault::Unreadable(what.to_owned()));
    }

    /// True if every number is accounted for so far.
    pub fn held(&self) -> bool {
        self.break_count == 0
    }

    /// Number of violations.
    pub fn break_count(&self) -> u64 {
        self.break_count
    }

    /// The first [`BREAKS_KEPT`] violations.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Counts of this channel.
    pub fn heard(&self, channel: Channel) -> Heard {
        self.heard[channel as usize]
    }

    /// Counts of all channels.
    pub fn heard_all(&self) -> Heard {
        self.heard.iter().fold(Heard::default(), |sum, heard| Heard {
            updates: sum.updates + heard.updates,
            ticks: sum.ticks.saturating_add(heard.ticks),
            merged: sum.merged.saturating_add(heard.merged),
            snapshots: sum.snapshots + heard.snapshots,
        })
    }

    /// The gaps by reason, in the order of first occurrence.
    pub fn gaps(&self) -> impl Iterator<Item = (&str, GapTotals)> {
        self.gaps.iter().map(|(why, gaps)| (&**why, *gaps))
    }

    /// All gaps.
    pub fn gaps_all(&self) -> GapTotals {
        self.gaps.iter().fold(GapTotals::default(), |sum, (_, gaps)| GapTotals {
            count: sum.count + gaps.count,
            ticks: sum.ticks.saturating_add(gaps.ticks),
        })
    }

    fn update(&mut self, channel: Channel, update: &Update<'_>) {
        let Update { seq, n, snap, .. } = *update;
        let expect = self.expect(&update.symbol, channel);
        let opens = snap
            && match expect {
                Expect::Anything => true,
                Expect::Start(least) => seq >= least,
                Expect::After(last) => seq == last,
            };
        let heard = &mut self.heard[channel as usize];
        heard.snapshots += u64::from(snap);
        let fault = if opens {
            None
        } else {
            heard.updates += 1;
            heard.ticks = heard.ticks.saturating_add(n);
            heard.merged = heard.merged.saturating_add(n.saturating_sub(1));
            update_fault(expect, seq, n, snap)
        };
        self.settle(&update.symbol, channel, expect, seq, fault);
    }

    fn gap(&mut self, gap: &Gap<'_>) {
        let Gap { channel, from, to, .. } = *gap;
        let expect = self.expect(&gap.symbol, channel);
        let fault = if from > to {
            Some(LedgerFault::EmptyGap { from, to })
        } else {
            self.gaps_of(&gap.why).add((to - from).saturating_add(1));
            expect.last().filter(|last| from.checked_sub(1) != Some(*last)).map(|last| LedgerFault::Gap {
                last,
                from,
                to,
            })
        };
        self.settle(&gap.symbol, channel, expect, to, fault);
    }

    /// Moves a stream to `seq`, and records a violation. A violation never moves it back, so that one late
    /// message violates the rule once.
    fn settle(
        &mut self,
        symbol: &str,
        channel: Channel,
        expect: Expect,
        seq: u64,
        fault: Option<LedgerFault>,
    ) {
        let next = Expect::After(expect.last().map_or(seq, |last| last.max(seq)));
        self.set(symbol, channel, next);
        if let Some(fault) = fault {
            self.broke(Some((symbol, channel)), fault);
        }
    }

    fn broke(&mut self, of: Option<(&str, Channel)>, fault: LedgerFault) {
        self.break_count += 1;
        if self.breaks.len() < BREAKS_KEPT {
            let of = of.map(|(symbol, channel)| (symbol.to_owned(), channel));
            self.breaks.push(Break { of, fault });
        }
    }

    /// What may come next. A stream that no `ack` named belongs to a wildcard, or was listed later and then
    /// starts at 1.
    fn expect(&self, symbol: &str, channel: Channel) -> Expect {
        let known = self.streams.get(symbol).and_then(|streams| streams[channel as usize]);
        known.unwrap_or(if self.snapshot { Expect::Start(0) } else { Expect::Anything })
    }

    fn set(&mut self, symbol: &str, channel: Channel, expect: Expect) {
        match self.streams.get_mut(symbol) {
            Some(streams) => streams[channel as usize] = Some(expect),
            None => {
                let mut streams = [None; 2];
                streams[channel as usize] = Some(expect);
                self.streams.insert(symbol.into(), streams);
            }
        }
    }

    fn gaps_of(&mut self, why: &str) -> &mut GapTotals {
        let full = self.gaps.len() >= WHYS_MAX;
        let at = self.gaps.iter().position(|(known, _)| **known == *why);
        let at = at.unwrap_or_else(|| {
            if !full {
                self.gaps.push((why.into(), GapTotals::default()));
            } else if self.gaps.len() == WHYS_MAX {
                self.gaps.push(("other".into(), GapTotals::default()));
            }
            self.gaps.len() - 1
        });
        &mut self.gaps[at].1
    }

    fn subscribed(&mut self, ack: &Ack<'_>) {
        for accepted in ack.ok.iter().flatten() {
            for channel in channels(ack, Some(accepted)) {
                self.held[channel as usize].insert((*accepted.symbol).into());
                if is_wildcard(&accepted.symbol) {
                    continue;
                }
                let running = self.streams.get(&*accepted.symbol).and_then(|s| s[channel as usize]);
                let base = accepted.seq.or(running.and_then(Expect::last));
                let expect = match (base, self.snapshot) {
                    (Some(base), true) => Expect::Start(base),
                    (Some(base), false) => Expect::After(base),
                    (None, true) => Expect::Start(0),
                    (None, false) => Expect::Anything,
                };
                self.set(&accepted.symbol, channel, expect);
            }
        }
    }

    /// An ended stream may restart anywhere. Removing a wildcard keeps the streams of narrower subscriptions.
    fn unsubscribed(&mut self, ack: &Ack<'_>) {
        let entries = ack.ok.as_deref().filter(|_| !ack.all);
        let Some(entries) = entries else {
            for channel in channels(ack, None) {
                self.held[channel as usize].clear();
                self.forget("*", channel);
            }
            return;
        };
        for entry in entries {
            for channel in channels(ack, Some(entry)) {
                self.held[channel as usize].remove(&*entry.symbol);
                self.forget(&entry.symbol, channel);
            }
        }
    }

    /// Removes the positions of the streams of a symbol or wildcard, except those of narrower subscriptions.
    fn forget(&mut self, what: &str, channel: Channel) {
        let Some(prefix) = what.strip_suffix('*').filter(|_| is_wildcard(what)) else {
            if let Some(streams) = self.streams.get_mut(what) {
                streams[channel as usize] = None;
            }
            return;
        };
        let held = &self.held[channel as usize];
        let venue = |symbol: &str| symbol.split_once(':').map(|(venue, _)| format!("{venue}:*"));
        let by_venue = |symbol: &str| venue(symbol).is_some_and(|venue| held.contains(&*venue));
        let narrower = |symbol: &str| held.contains(symbol) || (prefix.is_empty() && by_venue(symbol));
        for (symbol, streams) in &mut self.streams {
            if symbol.starts_with(prefix) && !narrower(symbol) {
                streams[channel as usize] = None;
            }
        }
    }
}

/// The violation of an update, or of a snapshot that does not start a stream, if any.
fn update_fault(expect: Expect, seq: u64, n: u64, snap: bool) -> Option<LedgerFault> {
    let Some(before) = seq.checked_sub(n).filter(|_| n > 0) else {
        return Some(LedgerFault::Count { seq, n });
    };
    let last = expect.last().filter(|last| *last != before)?;
    Some(if snap { LedgerFault::Snapshot { last, seq } } else { LedgerFault::Update { last, seq, n } })
}

/// The channels of an ack, or of one of its entries; all channels if it names none.
fn channels(ack: &Ack<'_>, entry: Option<&Accepted<'_>>) -> Vec<Channel> {
    let named = entry.and_then(|entry| entry.channel.as_ref()).or(ack.channel.as_ref());
    named.map_or_else(|| Channel::ALL.to_vec(), |channels| channels.0.clone())
}

/// True for `*` and `venue:*`.
pub(super) fn is_wildcard(symbol: &str) -> bool {
    crate::protocol::Selector::parse(symbol).is_wildcard()
}

#[cfg(test)]
mod tests;
