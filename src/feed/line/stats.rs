//! What a feed line counts.

use crate::venue::DecodeError;

/// What a line counted, from its first frame on.
#[derive(Clone, Debug, Default)]
pub struct LineStats {
    /// Frames received.
    pub frames: u64,
    /// Frames, or parts of them, that could not be read.
    pub bad_frames: u64,
    /// Trades handed out.
    pub trades: u64,
    /// Quotes handed out.
    pub quotes: u64,
    /// Trades and quotes that another source of the same line or another line already told.
    pub repeated: u64,
    /// Gaps handed out.
    pub gaps: u64,
    /// Breaks of a venue's sequence or update chain.
    pub sequence_breaks: u64,
    /// Book checksums that were right.
    pub checksums_good: u64,
    /// Book checksums that were wrong.
    pub checksums_bad: u64,
    /// Quotes that were not told because their bid was above their ask.
    pub crossed: u64,
    /// What was not told because it makes no sense or cannot be held.
    pub refused: Refused,
    /// Frames by the venue's word for them.
    pub kinds: Kinds,
}

impl LineStats {
    /// Adds another line's counts.
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

/// Frames counted by kind, for at most [`Kinds::MAX`] kinds: a venue cannot make it grow.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<Kind>);

/// One row of [`Kinds`].
#[derive(Clone, Debug)]
pub struct Kind {
    /// The venue's word.
    pub name: Box<str>,
    /// Whether the decoder knows it.
    pub known: bool,
    /// How many frames.
    pub frames: u64,
}

impl Kinds {
    /// How many kinds are told apart.
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
            None => self.0.push(Kind { name: name.into(), known, frames }),
        }
    }

    /// Adds another's counts.
    fn add(&mut self, other: &Self) {
        for kind in &other.0 {
            self.add_frames(&kind.name, kind.known, kind.frames);
        }
    }

    /// The rows, in the order of first sight.
    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.0.iter()
    }
}

/// What a line was sent and did not tell, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Trades of size or price 0.
    pub zero_trades: u64,
    /// Levels of a book without a size that can be held: what stands at their price is unknown until the venue says so again.
    pub levels: u64,
    /// Venue times before 2000 or after 2199, of which a venue's tick was sent without one; and frames of publishers
    /// with such a time, or one that is more than a day ahead.
    pub times: u64,
    /// Snapshots of a book that were older than changes before them, and that the changes kept do not reach.
    pub snapshots: u64,
    /// Frames whose symbol cannot be one, or may not be published.
    pub symbols: u64,
    /// Frames of a new instrument for which there was no room, or over the share of a publisher.
    pub instruments: u64,
    /// Frames with a price or a size that makes no sense.
    pub numbers: u64,
}

impl Refused {
    /// The counts, with the word for each.
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

    /// Counts a frame that was refused, where there is a count for its fault.
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
