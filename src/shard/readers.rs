//! The turns of the sessions that read again.

/// The sessions that read again, each with its serial. They are looked at in rounds.
#[derive(Debug, Default)]
pub(super) struct Readers {
    sessions: Vec<(u32, u64)>,
    /// How many of this round are still to be looked at: those in front.
    left: usize,
    /// One of this round, or that came during it, can go on at once.
    more: bool,
}

impl Readers {
    /// Takes one in.
    pub(super) fn push(&mut self, id: u32, serial: u64) {
        self.sessions.push((id, serial));
        self.more = true;
    }

    /// One of them can go on: there is a round after this one.
    pub(super) fn wake(&mut self) {
        self.more = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sessions.iter().copied()
    }

    /// Begins a round if the last one is over.
    pub(super) fn begin(&mut self) {
        if self.left == 0 {
            (self.left, self.more) = (self.sessions.len(), false);
        }
    }

    /// The next of this round, which is then out of it.
    pub(super) fn next(&mut self) -> Option<(u32, u64)> {
        self.left = self.left.checked_sub(1)?;
        self.sessions.get(self.left).copied()
    }

    /// The one that was [next](Self::next) reads no more.
    pub(super) fn leave(&mut self) {
        // What takes its place is behind those that are left of this round.
        self.sessions.swap_remove(self.left);
    }

    /// Whether some of them can go on.
    pub(super) fn can_go_on(&self) -> bool {
        self.left > 0 || self.more
    }
}
