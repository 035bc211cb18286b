//! The accounting rule of the protocol, checked from the outside: `seq − n` equals the `seq` before
//! it, or a `gap` covers exactly the difference.
//!
//! Pure: messages go in, counts and breaks come out. Feed *every* message of a connection to
//! [`Ledger::hear`], in order, the `hello` of a new connection included; then ask [`Ledger::held`].
//!
//! What may come first on a subscription:
//!
//! | the subscription | first message |
//! | --- | --- |
//! | ack named a `seq` | a snapshot of at least that number, or the update or gap right after it |
//! | snapshot on, no `seq` in the ack | any snapshot, or the update or gap that starts at 1 |
//! | snapshot off, no `seq` in the ack | anything |
//! | asked for again while it runs | a snapshot of at least the last number, or simply the next |
//!
//! Later snapshots are no licence to skip: one may repeat the last number, any other counts as an
//! update and has to follow.

use std::fmt;

use rustc_hash::{FxHashMap, FxHashSet};

use super::message::{Accepted, Ack, Gap, Message, Update};
use crate::model::tick::Channel;

/// How many breaks are kept word for word; all are counted.
pub const BREAKS_KEPT: usize = 10;

/// How many different reasons for gaps are told apart; later ones are counted as `other`.
const WHYS_MAX: usize = 16;

/// Where a symbol's stream of one channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Nothing has come, and no number is known.
    Anything,
    /// Nothing has come: a snapshot of this number or later, or what follows this number.
    Start(u64),
    /// This number was the last.
    After(u64),
}

impl Expect {
    /// The last number that is known to be accounted for.
    fn last(self) -> Option<u64> {
        match self {
            Self::Anything => None,
            Self::Start(last) | Self::After(last) => Some(last),
        }
    }
}

/// How the rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An update that does not follow: `seq − n` should have been `last`.
    Update {
        /// The number before it.
        last: u64,
        /// The update's number.
        seq: u64,
        /// The ticks it says it stands for.
        n: u64,
    },
    /// A snapshot that neither repeats `last` nor follows it.
    Snapshot {
        /// The number before it.
        last: u64,
        /// The snapshot's number.
        seq: u64,
    },
    /// A gap that does not start right after `last`.
    Gap {
        /// The number before it.
        last: u64,
        /// First number the gap names.
        from: u64,
        /// Last number the gap names.
        to: u64,
    },
    /// A gap that names no number at all.
    EmptyGap {
        /// First number the gap names.
        from: u64,
        /// Last number the gap names, before the first.
        to: u64,
    },
    /// An update that cannot stand for `n` ticks: none, or more than there are numbers.
    Count {
        /// The update's number.
        seq: u64,
        /// The ticks it says it stands for.
        n: u64,
    },
    /// A message that could not be read: whatever it said is unaccounted for.
    Unreadable(String),
}

/// One place where the rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The symbol and channel; `None` for a message that could not be read.
    pub of: Option<(String, Channel)>,
    /// What was wrong.
    pub fault: Fault,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((symbol, channel)) = &self.of {
            write!(f, "{symbol} {}: ", channel.name())?;
        }
        match &self.fault {
            Fault::Update { last, seq, n } => {
                let before = seq.saturating_sub(*n);
                write!(f, "expected seq - n = {last}, got {before} (seq {seq}, n {n}): ")?;
                difference(f, *last, before)
            }
            Fault::Snapshot { last, seq } => {
                write!(f, "expected no snapshot but a repeat of {last}, got {seq}: ")?;
                difference(f, *last, *seq)
            }
            Fault::Gap { last, from, to } => {
                write!(f, "expected a gap from {}, got {from} to {to}: ", last.saturating_add(1))?;
                difference(f, *last, from.saturating_sub(1))
            }
            Fault::EmptyGap { from, to } => write!(f, "expected a gap of something, got {from} to {to}"),
            Fault::Count { seq, n } => write!(f, "expected n between 1 and seq, got n {n} at seq {seq}"),
            Fault::Unreadable(what) => write!(f, "a message could not be read: {what}"),
        }
    }
}

/// Says what lies between the number that was expected and the one that came.
fn difference(f: &mut fmt::Formatter<'_>, expected: u64, got: u64) -> fmt::Result {
    match got.checked_sub(expected) {
        Some(missing) => write!(f, "{missing} ticks unaccounted for"),
        None => write!(f, "{} ticks told twice", expected - got),
    }
}

/// What came on one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Messages, without the snapshots that only repeat a number.
    pub updates: u64,
    /// Ticks the updates stand for.
    pub ticks: u64,
    /// Ticks that were merged into a newer one: `n − 1`, summed.
    pub merged: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// Gaps of one reason, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// How many.
    pub count: u64,
    /// The ticks they name.
    pub ticks: u64,
}

impl Gaps {
    fn add(&mut self, ticks: u64) {
        self.count += 1;
        self.ticks = self.ticks.saturating_add(ticks);
    }
}

/// Keeps account of what a connection was sent. See the [module](self) for the rule.
#[derive(Clone, Debug)]
pub struct Ledger {
    snapshot: bool,
    streams: FxHashMap<Box<str>, [Option<Expect>; 2]>,
    /// The symbols and wildcards that were accepted, by channel.
    held: [FxHashSet<Box<str>>; 2],
    heard: [Heard; 2],
    gaps: Vec<(Box<str>, Gaps)>,
    break_count: u64,
    breaks: Vec<Break>,
}

impl Ledger {
    /// A ledger for subscriptions that ask for a snapshot first (the protocol's default), or for ones
    /// that do not.
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

    /// Takes the next message into account.
    pub fn hear(&mut self, message: &Message<'_>) {
        match message {
            Message::Update(channel, update) => self.update(*channel, update),
            Message::Gap(gap) => self.gap(gap),
            Message::Ack(ack) => match &*ack.op {
                "subscribe" => self.subscribed(ack),
                "unsubscribe" => self.unsubscribed(ack),
                _ => {}
            },
            // A new connection, and so nothing is subscribed any more; in a new epoch the numbers
            // start over as well.
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

    /// Counts a message that could not be read as a break: it may have been a tick.
    pub fn unreadable(&mut self, what: &str) {
        self.broke(None, Fault::Unreadable(what.to_owned()));
    }

    /// True as long as every number is accounted for.
    pub fn held(&self) -> bool {
        self.break_count == 0
    }

    /// How often the rule was broken.
    pub fn break_count(&self) -> u64 {
        self.break_count
    }

    /// The first [`BREAKS_KEPT`] breaks.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// What came on this channel.
    pub fn heard(&self, channel: Channel) -> Heard {
        self.heard[channel as usize]
    }

    /// What came on all channels.
    pub fn heard_all(&self) -> Heard {
        self.heard.iter().fold(Heard::default(), |sum, heard| Heard {
            updates: sum.updates + heard.updates,
            ticks: sum.ticks.saturating_add(heard.ticks),
            merged: sum.merged.saturating_add(heard.merged),
            snapshots: sum.snapshots + heard.snapshots,
        })
    }

    /// The gaps by reason, in the order the reasons were first given.
    pub fn gaps(&self) -> impl Iterator<Item = (&str, Gaps)> {
        self.gaps.iter().map(|(why, gaps)| (&**why, *gaps))
    }

    /// All gaps.
    pub fn gaps_all(&self) -> Gaps {
        self.gaps.iter().fold(Gaps::default(), |sum, (_, gaps)| Gaps {
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
            Some(Fault::EmptyGap { from, to })
        } else {
            self.gaps_of(&gap.why).add((to - from).saturating_add(1));
            expect.last().filter(|last| from.checked_sub(1) != Some(*last)).map(|last| Fault::Gap {
                last,
                from,
                to,
            })
        };
        self.settle(&gap.symbol, channel, expect, to, fault);
    }

    /// Moves a stream on to `seq`, and notes what was wrong with that. A break never moves it back, so
    /// that one message that came late breaks the rule once.
    fn settle(&mut self, symbol: &str, channel: Channel, expect: Expect, seq: u64, fault: Option<Fault>) {
        let next = Expect::After(expect.last().map_or(seq, |last| last.max(seq)));
        self.set(symbol, channel, next);
        if let Some(fault) = fault {
            self.broke(Some((symbol, channel)), fault);
        }
    }

    fn broke(&mut self, of: Option<(&str, Channel)>, fault: Fault) {
        self.break_count += 1;
        if self.breaks.len() < BREAKS_KEPT {
            let of = of.map(|(symbol, channel)| (symbol.to_owned(), channel));
            self.breaks.push(Break { of, fault });
        }
    }

    /// What may come next. A stream that no ack named belongs to a wildcard, or was listed later and
    /// then starts at 1.
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

    fn gaps_of(&mut self, why: &str) -> &mut Gaps {
        let full = self.gaps.len() >= WHYS_MAX;
        let at = self.gaps.iter().position(|(known, _)| **known == *why);
        let at = at.unwrap_or_else(|| {
            if !full {
                self.gaps.push((why.into(), Gaps::default()));
            } else if self.gaps.len() == WHYS_MAX {
                self.gaps.push(("other".into(), Gaps::default()));
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

    /// What ends may begin anywhere when it comes again. A wildcard leaves what something narrower holds.
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

    /// Forgets where the streams stand that a name or a wildcard stands for, but for those that something narrower holds.
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

/// What is wrong with an update, or a snapshot that opens nothing, if anything is.
fn update_fault(expect: Expect, seq: u64, n: u64, snap: bool) -> Option<Fault> {
    let Some(before) = seq.checked_sub(n).filter(|_| n > 0) else {
        return Some(Fault::Count { seq, n });
    };
    let last = expect.last().filter(|last| *last != before)?;
    Some(if snap { Fault::Snapshot { last, seq } } else { Fault::Update { last, seq, n } })
}

/// The channels an ack, or one entry of it, is about: all of them when it names none.
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
