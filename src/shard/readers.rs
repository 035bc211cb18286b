//! The order in which rereading sessions have their turns.

/// The rereading sessions, each with its serial. They are visited in rounds.
#[derive(Debug, Default)]
pub(super) struct Readers {
    sessions: Vec<(u32, u64)>,
    /// How many of this round are still to be visited: the first ones of the list.
    left: usize,
    /// A session that was visited in this round, or added during it, can continue at once.
    more: bool,
}

impl Readers {
    /// Adds a session.
    pub(super) fn push(&mut self, id: u32, serial: u64) {
        self.sessions.push((id, serial));
        self.more = true;
    }

    /// Notes that a session can continue: another round follows.
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

    /// The next session of this round.
    pub(super) fn next(&mut self) -> Option<(u32, u64)> {
        self.left = self.left.checked_sub(1)?;
        self.sessions.get(self.left).copied()
    }

    /// Removes the session that [`next`](Self::next) has returned.
    pub(super) fn leave(&mut self) {
        // The last one takes its place, which is after those left of this round.
        self.sessions.swap_remove(self.left);
    }

    /// Whether a session can continue.
    pub(super) fn can_go_on(&self) -> bool {
        self.left > 0 || self.more
    }
}
