//! The counters of a feed line.

use crate::venue::DecodeError;

/// The counters of a line since its first frame.
#[derive(Clone, Debug, Default)]
pub struct LineStats {
    /// Frames received.
    pub frames: u64,
    /// Frames that could not be decoded, wholly or in part.
    pub bad_frames: u64,
    /// Trades published.
    pub trades: u64,
    /// Quotes published.
    pub quotes: u64,
    /// Trades and quotes not published because another source of this line, or another line, already
    /// publishes them.
    pub repeated: u64,
    /// Gaps published.
    pub gaps: u64,
    /// Breaks in a venue's sequence numbers or update ids.
    pub sequence_breaks: u64,
    /// Book checksums that matched.
    pub checksums_good: u64,
    /// Book checksums that did not match.
    pub checksums_bad: u64,
    /// Quotes not published because the bid was above the ask.
    pub crossed: u64,
    /// Input not published because it is implausible or cannot be represented.
    pub refused: RefusedCounts,
    /// Frames by the venue's name of their type.
    pub kinds: FrameKinds,
}

impl LineStats {
    /// Adds the counters of another line.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bad_frames += other.bad_frames;
        self.trades += other.trades;
        self.quotes += other.quotes;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.sequence_breaks += other.sequence_breaks;
        self.checksums_good += other.checksums_good;
        self.checksums_bad += other.checksums_bad;
        self.crossed += other.crossed;
        self.refused.add(&other.refused);
        self.kinds.add(&other.kinds);
    }
}

/// Frames counted by kind, for at most [`FrameKinds::MAX`] kinds, so that a venue cannot make it grow without
/// bound.
#[derive(Clone, Debug, Default)]
pub struct FrameKinds(Vec<FrameKind>);

/// One row of [`FrameKinds`].
#[derive(Clone, Debug)]
pub struct FrameKind {
    /// The venue's name of the frame type.
    pub name: Box<str>,
    /// Whether the decoder knows it.
    pub known: bool,
    /// The number of frames.
    pub frames: u64,
}

impl FrameKinds {
    /// Maximum number of kinds that are counted separately.
    pub const MAX: usize = 64;

    #[inline]
    pub(super) fn count(&mut self, name: &str, known: bool) {
        self.add_frames(name, known, 1);
    }

    fn add_frames(&mut self, name: &str, known: bool, frames: u64) {
        if let Some(kind) = self.0.iter_mut().find(|kind| &*kind.name == name) {
            kind.frames += frames;
            return;
        }
        let name = match self.0.len() {
            ..Self::MAX => name.chars().filter(|c| !c.is_control()).take(32).collect(),
            _ => "(other)".to_owned(),
        };
        match self.0.iter_mut().find(|kind| *kind.name == name) {
            Some(kind) => kind.frames += frames,
            None => self.0.push(FrameKind { name: name.into(), known, frames }),
        }
    }

    /// Adds the counts of another table.
    fn add(&mut self, other: &Self) {
        for kind in &other.0 {
            self.add_frames(&kind.name, kind.known, kind.frames);
        }
    }

    /// Returns the rows in the order of first appearance.
    pub fn iter(&self) -> impl Iterator<Item = &FrameKind> {
        self.0.iter()
    }
}

/// Input that was received and not published, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedCounts {
    /// Trades with size or price 0.
    pub zero_trades: u64,
    /// Book levels whose size cannot be represented; the size at their price is unknown until the venue sends
    /// it again.
    pub levels: u64,
    /// Implausible venue times. Before 2000 or after 2199: a venue's tick is published without the time, a
    /// publisher's frame is rejected. More than a day ahead: a publisher's frame is rejected.
    pub times: u64,
    /// Book snapshots not used because the kept changes begin too late to be applied to them.
    pub snapshots: u64,
    /// Frames whose symbol is invalid or may not be published.
    pub symbols: u64,
    /// Frames of a new instrument for which there was no room, or beyond the share of a publisher.
    pub instruments: u64,
    /// Frames with an implausible price or size.
    pub numbers: u64,
}

impl RefusedCounts {
    /// Returns each counter with its name.
    pub fn rows(&self) -> [(&'static str, u64); 7] {
        [
            ("zero_trades", self.zero_trades),
            ("levels", self.levels),
            ("times", self.times),
            ("snapshots", self.snapshots),
            ("symbols", self.symbols),
            ("instruments", self.instruments),
            ("numbers", self.numbers),
        ]
    }

    /// Counts a rejected frame, if there is a counter for its fault.
    #[cold]
    pub(super) fn count(&mut self, fault: &DecodeError) {
        match fault {
            DecodeError::Symbol { .. } => self.symbols += 1,
            DecodeError::RoomError { .. } => self.instruments += 1,
            DecodeError::Value { .. } => self.numbers += 1,
            DecodeError::Time { .. } | DecodeError::Ahead { .. } => self.times += 1,
            DecodeError::Json(_)
            | DecodeError::Shape(_)
            | DecodeError::Field(_)
            | DecodeError::Decimal { .. } => {}
        }
    }

    fn add(&mut self, other: &Self) {
        self.zero_trades += other.zero_trades;
        self.levels += other.levels;
        self.times += other.times;
        self.snapshots += other.snapshots;
        self.symbols += other.symbols;
        self.instruments += other.instruments;
        self.numbers += other.numbers;
    }
}
