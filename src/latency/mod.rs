//! Latency by stages, and the interval log that stores it. `docs/LATENCY.md` describes the log and how to
//! read it.

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
pub use symbols::SymbolHistograms;

/// A stage of a tick's path through the gateway. Each begins where the one before it ends; the first begins
/// at `rx`, when the gateway has read the frame. [`Stage::Total`] is the whole path, and
/// [`Stage::SlowClient`] the additional time of clients that do not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From `rx` until its feed line starts on the frame.
    Recv,
    /// Until the tick is decoded, checked and numbered.
    Normalise,
    /// Until the tick is in the ring and the doorbells are rung.
    Publish,
    /// Until a shard takes the tick from the ring.
    Pickup,
    /// Until its frame is encoded and queued for its subscribers.
    Encode,
    /// Until the kernel has accepted the frame, unless the client's socket refused it meanwhile.
    Write,
    /// The gateway's part of the whole path: from `rx` until the kernel has accepted the frame or, if the
    /// client's socket refused it, until it was queued.
    Total,
    /// The delay by a client's socket: from when a frame was queued until the kernel accepted it, if the
    /// socket refused it meanwhile. It is not part of [`Stage::Write`] and [`Stage::Total`].
    SlowClient,
}

impl Stage {
    /// Every stage, in the order of a tick's path.
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

    /// Returns the name used in logs, reports and budgets.
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

    /// Returns a short description for reports.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Recv => "from receipt until its feed line starts on it",
            Self::Normalise => "decoded, checked and numbered",
            Self::Publish => "published to the ring",
            Self::Pickup => "waiting for a shard",
            Self::Encode => "encoded and queued",
            Self::Write => "waiting for its turn, until the kernel accepts it",
            Self::Total => "the gateway's part of the whole path, from rx until the kernel accepts it",
            Self::SlowClient => "delayed by the socket of a client that did not read",
        }
    }

    /// Returns the stage of a tag of the log; `None` if the tag is not ours.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let first = tag.split(Tag::SEPARATOR).next()?;
        Self::ALL.into_iter().find(|stage| stage.name() == first)
    }
}

/// The common properties of the measurements in one histogram, and its tag in the log: `write`,
/// `write/kraken`, `write/kraken/trade`, or `write/*/trade` for venues measured together. Each measurement is
/// in the log once, so the tags of a stage add up to the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag<'a> {
    /// The stage.
    pub stage: Stage,
    /// The venue, if measured separately: a name that satisfies
    /// [`is_venue`](crate::model::instrument::Symbol::is_venue).
    pub venue: Option<&'a str>,
    /// The channel, if measured separately.
    pub channel: Option<Channel>,
}

impl Tag<'_> {
    /// Separates the parts of a tag.
    pub const SEPARATOR: char = '/';
    /// The part of a tag that matches every venue or channel.
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

/// The longest time in our histograms, in nanoseconds: one minute.
pub const NS_MAX: u64 = 60_000_000_000;
/// The significant digits of our histograms: the error is at most one thousandth.
pub const DIGITS: u8 = 3;

/// Returns a histogram of nanoseconds as stored in the log: 1 ns to [`NS_MAX`], [`DIGITS`] digits, about 220
/// kB.
///
/// # Panics
/// Never: these bounds are valid.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, DIGITS).expect("valid bounds")
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
