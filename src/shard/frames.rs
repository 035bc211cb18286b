//! Encode once: the frame of a tick is made when the first session wants it, and shared by all others.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use super::surroundings;
use crate::model::instrument::Symbol;
use crate::model::tick::{Body, Channel, GapCause, Key, Tick};
use crate::protocol::frame::TextFrame;
use crate::protocol::json::{self, EncodeFlags, EncodedTemplate};
use crate::session::{CatchUp, Missing, Told};
use crate::system::counters::{GAP_CAUSES, ShardCounters};

const _: () = assert!(GAP_CAUSES == GapCause::ALL.len(), "each cause has its place");

/// Makes the frames of a shard.
#[derive(Default)]
pub(super) struct Frames {
    shared: TextFrame,
    own: TextFrame,
    /// The newest value of streams that were caught up with last: where clients have rates, each of very many is sent the
    /// same value with an `n` of its own.
    newest: HashMap<Key, Newest, FxBuildHasher>,
    /// Ticks that were read again last, each at the place of its number: clients that come back together read the same. Nothing
    /// until there are some.
    again: Vec<Again>,
    /// Frames made to be shared.
    count: u64,
    /// Gaps that were sent, and how many numbers they named, by the number of their cause.
    gaps: [(u64, u64); GAP_CAUSES],
    /// Since when the feed stands, if it does: no state that is sent is live then.
    feed_stands_ns: Option<u64>,
}

/// A message but for what differs from client to client.
struct Newest {
    seq: u64,
    template: EncodedTemplate,
    text: Vec<u8>,
}

/// The message of a trade or quote that was read again, but for the end.
#[derive(Default)]
struct Again {
    of: Option<(Key, u64, bool, EncodedTemplate)>,
    text: Vec<u8>,
}

/// Ticks that were read again and are kept: some 300 bytes each.
const AGAIN_MAX: usize = 2_048;

/// Streams of which the newest value is kept, at most: some 200 bytes each.
const NEWEST_MAX: usize = 4_096;

impl Frames {
    /// Makes the frame of a tick, the same for every session. `tx_us`: now, microseconds since the Unix epoch.
    pub(super) fn encode(&mut self, tick: &Tick, symbol: &Symbol, tx_us: u64) {
        self.count += 1;
        let flags = EncodeFlags { tx_us: Some(tx_us), ..EncodeFlags::default() };
        match self.feed_stands_ns {
            None => self.shared.make(|out| json::tick(tick, symbol, flags, out)),
            Some(since_ns) => {
                self.shared.make(|out| json::tick(&surroundings::stale(tick, since_ns), symbol, flags, out))
            }
        };
    }

    /// The frame made last by [`encode`](Self::encode).
    #[inline]
    pub(super) fn encoded(&self) -> &[u8] {
        self.shared.bytes()
    }

    /// Hands the frames that make one subscription current again to `push`.
    pub(super) fn catch_up(
        &mut self,
        told: &CatchUp,
        key: Key,
        symbol: &Symbol,
        tx_us: u64,
        mut push: impl FnMut(&[u8]),
    ) {
        for missing in told.before.into_iter().flatten() {
            push(self.gap(missing, key, symbol));
        }
        let feed_stands_ns = self.feed_stands_ns;
        let shown = |told: Told| match feed_stands_ns {
            None => told,
            Some(since_ns) => Told { tick: surroundings::stale(&told.tick, since_ns), ..told },
        };
        match told.value.map(shown) {
            Some(value) if value.snap => {
                let flags = EncodeFlags { snap: true, past: false, tx_us: Some(tx_us) };
                push(self.own.make(|out| json::tick(&value.tick, symbol, flags, out)));
            }
            Some(value) => push(self.newest(&value.tick, value.n, key, symbol, tx_us)),
            None => {}
        }
        if let Some(missing) = told.after {
            push(self.gap(missing, key, symbol));
        }
    }

    /// Hands the frames of a tick that is read again to `push`, and what is missing before it.
    pub(super) fn again(
        &mut self,
        tick: &Tick,
        flags: EncodeFlags,
        missing: Option<Missing>,
        symbol: &Symbol,
        mut push: impl FnMut(&[u8]),
    ) {
        if let Some(missing) = missing {
            push(self.gap(missing, tick.key(), symbol));
        }
        self.told(tick);
        push(self.read_again(tick, flags, symbol));
    }

    fn read_again(&mut self, tick: &Tick, flags: EncodeFlags, symbol: &Symbol) -> &[u8] {
        if matches!(tick.body, Body::Gap { .. } | Body::Status(_)) {
            // A gap names what this client lacks.
            return self.own.make(|out| json::tick(tick, symbol, flags, out));
        }
        if self.again.is_empty() {
            self.again.resize_with(AGAIN_MAX, Again::default);
        }
        let Self { again, own, .. } = self;
        let (key, seq, past) = (tick.key(), tick.seq, flags.past);
        let known = &mut again[(key.index() as u64 ^ seq) as usize % AGAIN_MAX];
        let template = match known.of {
            Some((of, at, then, template)) if (of, at, then) == (key, seq, past) => template,
            _ => {
                known.text.clear();
                let Some(template) = EncodedTemplate::write(tick, symbol, flags, &mut known.text) else {
                    known.of = None;
                    return own.make(|out| out.extend_from_slice(&known.text));
                };
                known.of = Some((key, seq, past, template));
                template
            }
        };
        own.make(|out| template.copy(&known.text, 1, flags.tx_us, out))
    }

    /// Gives back what is kept of ticks that were read again.
    pub(super) fn forget_again(&mut self) {
        self.again = Vec::new();
    }

    /// The newest value of a stream, for one client.
    fn newest(&mut self, tick: &Tick, n: u64, key: Key, symbol: &Symbol, tx_us: u64) -> &[u8] {
        if self.newest.len() >= NEWEST_MAX && !self.newest.contains_key(&key) {
            self.newest.clear();
        }
        let Self { newest, own, .. } = self;
        let known = newest.get_mut(&key).filter(|known| known.seq == tick.seq);
        let known = match known {
            Some(known) => known,
            None => {
                let mut text = newest.remove(&key).map(|old| old.text).unwrap_or_default();
                text.clear();
                let Some(template) = EncodedTemplate::write(tick, symbol, EncodeFlags::default(), &mut text)
                else {
                    // A state: it was written whole.
                    return own.make(|out| out.extend_from_slice(&text));
                };
                newest.entry(key).insert_entry(Newest { seq: tick.seq, template, text }).into_mut()
            }
        };
        own.make(|out| known.template.copy(&known.text, n, Some(tx_us), out))
    }

    /// A gap of one subscription. States have none, so any key but a channel's is of no consequence.
    fn gap(&mut self, missing: Missing, key: Key, symbol: &Symbol) -> &[u8] {
        let Missing { from, to, why } = missing;
        self.told_gap(why, to - from + 1);
        let channel = key.channel().unwrap_or(Channel::Quote);
        self.own.make(|out| json::gap(symbol, channel, from, to, why, out))
    }

    /// Counts a tick that a client is sent, if it is a gap.
    pub(super) fn told(&mut self, tick: &Tick) {
        if let Body::Gap { from, void, .. } = tick.body {
            self.told_gap(void.why(), tick.seq - from + 1);
        }
    }

    fn told_gap(&mut self, why: GapCause, numbers: u64) {
        let (told, ticks) = &mut self.gaps[why as usize];
        *told += 1;
        *ticks += numbers;
    }

    /// The feed stands since then, if it does.
    pub(super) fn set_feed_stands(&mut self, since_ns: Option<u64>) {
        self.feed_stands_ns = since_ns;
    }

    /// Publishes how many frames were made, and which gaps were sent.
    pub(super) fn publish(&self, counters: &ShardCounters) {
        counters.encoded.set(self.count);
        for (counted, (told, ticks)) in counters.gaps.iter().zip(self.gaps) {
            counted.told.set(told);
            counted.ticks.set(ticks);
        }
    }

    /// Any text frame, for one session.
    pub(super) fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.own.make(write)
    }
}
