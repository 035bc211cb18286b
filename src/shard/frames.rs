//! Encode once: the frame of a tick is encoded for the first session that takes it, and shared with all others.

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
    /// A cache of the newest value of streams that recovered lately: with rates, very many clients are sent the same
    /// value, each with its own `n`.
    newest: HashMap<Key, Newest, FxBuildHasher>,
    /// A cache of ticks that were reread lately, by stream and sequence number: clients that return together reread the
    /// same ticks. Empty before the first.
    again: Vec<Again>,
    /// Frames made to be shared.
    count: u64,
    /// Gaps that were sent, and how many sequence numbers they named, indexed by cause.
    gaps: [(u64, u64); GAP_CAUSES],
    /// Since when the feed is stalled, nanoseconds since the Unix epoch; no state is sent as live then.
    feed_stands_ns: Option<u64>,
}

/// An encoded message, without what differs from client to client.
struct Newest {
    seq: u64,
    template: EncodedTemplate,
    text: Vec<u8>,
}

/// The encoded message of a reread trade or quote, without its end.
#[derive(Default)]
struct Again {
    of: Option<(Key, u64, bool, EncodedTemplate)>,
    text: Vec<u8>,
}

/// Reread ticks that are cached: some 300 bytes each.
const AGAIN_MAX: usize = 2_048;

/// Streams of which the newest value is cached, at most: some 200 bytes each.
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

    /// Passes to `push` the frames that make one subscription current again.
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

    /// Passes to `push` the frame of a reread tick, after the gap for what is missing before it.
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
            // Not cached: a gap names what this client lacks.
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

    /// Frees the cache of reread ticks.
    pub(super) fn forget_again(&mut self) {
        self.again = Vec::new();
    }

    /// The frame of the newest value of a stream, for one client.
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

    /// The frame of a gap of one subscription. States have no gaps, so the default channel is never used.
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

    /// Sets since when the feed is stalled, if it is.
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
