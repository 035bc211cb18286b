//! Latency by stages: what is told apart, and the interval log that holds it. `docs/LATENCY.md` describes the log and
//! how it is read.

pub mod budget;
mod figures;
pub mod hlog;
mod log2_histogram;
pub mod meter;
mod symbols;

use std::fmt;

use hdrhistogram::Histogram;

use crate::model::tick::Channel;

pub use figures::{Figures, Nanos, QUANTILES};
pub use log2_histogram::{CoarseFigures, Log2Histogram};
pub use symbols::Symbols;

/// A part of a tick's way through the gateway. Each begins where the one before it ends; the first begins at `rx`, when
/// the frame was in our hands. [`Stage::Total`] is the whole way, and
/// [`Stage::SlowClient`] what came on top of it for who does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From `rx` until the frame is taken up by its feed line.
    Recv,
    /// Until the tick is decoded, checked and numbered.
    Normalise,
    /// Until the tick is in the ring and the doorbells were rung.
    Publish,
    /// Until a shard takes the tick from the ring.
    Pickup,
    /// Until its frame is made and queued for whoever wants it.
    Encode,
    /// Until the kernel has taken the frame, where the client's socket did not refuse it meanwhile.
    Write,
    /// The gateway's part of the whole way: from `rx` until the kernel has taken the frame, or, where the client's socket
    /// refused it, until it was queued.
    Total,
    /// What a client's socket kept waiting: from when a frame was queued until the kernel has taken it, where the socket
    /// refused it meanwhile. It is no part of [`Stage::Write`] and [`Stage::Total`].
    SlowClient,
}

impl Stage {
    /// Every stage, in the order of a tick's way.
    pub const ALL: [Self; 8] = [
        Self::Recv,
        Self::Normalise,
        Self::Publish,
        Self::Pickup,
        Self::Encode,
        Self::Write,
        Self::Total,
        Self::SlowClient,
    ];

    /// The word that logs, reports and budgets use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recv => "recv",
            Self::Normalise => "normalise",
            Self::Publish => "publish",
            Self::Pickup => "pickup",
            Self::Encode => "encode",
            Self::Write => "write",
            Self::Total => "total",
            Self::SlowClient => "slow_client",
        }
    }

    /// Where it begins and ends, in a few words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Recv => "received, until its feed line takes it up",
            Self::Normalise => "decoded, checked and numbered",
            Self::Publish => "put into the ring",
            Self::Pickup => "waiting for a shard",
            Self::Encode => "made into a frame and queued",
            Self::Write => "waiting for its turn, and taken by the kernel",
            Self::Total => "the gateway's part of the whole way, from rx until the kernel has it",
            Self::SlowClient => "kept waiting by the socket of a client that did not read",
        }
    }

    /// The stage that a tag of the log is about; `None` if it is none of ours.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let first = tag.split(Tag::SEPARATOR).next()?;
        Self::ALL.into_iter().find(|stage| stage.name() == first)
    }
}

/// What the measurements of one histogram have in common, and the tag under which the log keeps it: `write`,
/// `write/kraken`, `write/kraken/trade`, or `write/*/trade` where the venue is not told apart. Each measurement stands
/// in the log once, so the tags of a stage add up to the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag<'a> {
    /// The part of the way.
    pub stage: Stage,
    /// The venue, if it is told apart: a name that [`is_venue`](crate::model::instrument::Symbol::is_venue).
    pub venue: Option<&'a str>,
    /// The channel, if it is told apart.
    pub channel: Option<Channel>,
}

impl Tag<'_> {
    /// What stands between the parts of a tag.
    pub const SEPARATOR: char = '/';
    /// The part of a tag that stands for every venue or channel.
    pub const ANY: &'static str = "*";
}

impl fmt::Display for Tag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage.name())?;
        match (self.venue, self.channel) {
            (None, None) => Ok(()),
            (Some(venue), None) => write!(f, "{}{venue}", Self::SEPARATOR),
            (venue, Some(channel)) => {
                write!(f, "{0}{1}{0}{2}", Self::SEPARATOR, venue.unwrap_or(Self::ANY), channel.name())
            }
        }
    }
}

/// The longest time that a histogram of ours holds, nanoseconds: a minute.
pub const NS_MAX: u64 = 60_000_000_000;
/// Significant digits of a histogram of ours: a value is off by a thousandth at most.
pub const DIGITS: u8 = 3;

/// A histogram of nanoseconds as the log holds them: 1 ns to [`NS_MAX`], [`DIGITS`] digits, some 220 kB.
///
/// # Panics
/// Never: these bounds make a histogram.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, DIGITS).expect("bounds that make a histogram")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_what_is_told_apart() {
        let tag = |venue, channel| Tag { stage: Stage::Write, venue, channel }.to_string();
        assert_eq!(tag(None, None), "write");
        assert_eq!(tag(Some("kraken"), None), "write/kraken");
        assert_eq!(tag(Some("binance-futures"), Some(Channel::Quote)), "write/binance-futures/quote");
        assert_eq!(tag(None, Some(Channel::Trade)), "write/*/trade");
    }

    #[test]
    fn a_tag_tells_its_stage() {
        for stage in Stage::ALL {
            for channel in [None, Some(Channel::Trade)] {
                let tag = Tag { stage, venue: Some("kraken"), channel }.to_string();
                assert_eq!(Stage::of_tag(&tag), Some(stage), "{tag}");
            }
        }
        assert_eq!([Stage::of_tag("writes"), Stage::of_tag(""), Stage::of_tag("gc/write")], [None; 3]);
    }

    #[test]
    fn a_histogram_holds_a_nanosecond_and_a_minute() {
        let mut histogram = histogram();
        for ns in [1, NS_MAX] {
            histogram.record(ns).expect("within its bounds");
        }
        assert_eq!(histogram.min(), 1);
        assert!(histogram.max().abs_diff(NS_MAX) <= NS_MAX / 1000);
    }
}
