//! How far behind a client is, and what follows: checks of the time, the kernel, and the pings in the stream.

use super::window::Window;
use super::{REFILL_BYTES, Session, marks};

/// How far behind a client is, as reported to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing has waited for long.
    #[default]
    Ok,
    /// Something has waited for too long.
    Warn,
    /// Ticks are merged or dropped.
    Shed,
    /// The client is about to be cut.
    Cut,
}

impl Level {
    /// All levels, the best first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warn, Self::Shed, Self::Cut];

    /// Returns the name used on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Shed => "shed",
            Self::Cut => "cut",
        }
    }
}

/// What the kernel holds for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes that the peer has not acknowledged; 0 where the system does not report them.
    pub unacked: u64,
}

/// The result of [`Session::judge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first and the last of the levels to send; `None` if the level has not changed.
    pub tell: Option<(Level, Level)>,
    /// Nanoseconds until the client is cut, if it makes no progress.
    pub cut_in_ns: Option<u64>,
    /// The client is to be cut.
    pub cut: bool,
    /// The session needs no more checks until its socket is full again.
    pub at_ease: bool,
}

impl Session {
    // ---- pings ----------------------------------------------------------------------------------------

    /// Returns true if the next write reaches a stream position at which [marks](Self::look_at_marks) are checked.
    #[inline]
    pub fn is_at_mark(&self) -> bool {
        self.taken + self.outbox.len() as u64 >= self.marks_at
    }

    /// Puts a ping into the next write, if one is due. Returns false, and blocks the session, if the client has so much
    /// unread that nothing may be written until it answers.
    #[cold]
    pub fn look_at_marks(&mut self, now_ns: u64) -> bool {
        if self.closing {
            // No ping follows a close frame or delays one.
            self.marks_at = u64::MAX;
            return true;
        }
        if self.outbox.is_empty() {
            return true;
        }
        if self.is_ahead(now_ns) {
            if !self.has_limit() {
                self.window = Some(Box::new(Window::smallest(now_ns)));
                self.marks_at = 0;
            }
            self.fill_window(now_ns);
            self.block(now_ns);
            self.awaits_answer = true;
            return false;
        }
        let at = self.taken + self.outbox.urgent_end() as u64;
        let due = match self.limit() {
            Some(window) => self.marks.is_due_within(at, window.ping_bytes()),
            None => self.marks.is_due(at, self.shedding, now_ns),
        };
        if due {
            self.mark(now_ns);
        }
        // A session that sheds, or has a window, is written to in small portions, each with a ping.
        self.marks_at = if self.shedding || self.has_limit() { 0 } else { self.marks.next_look(at) };
        true
    }

    /// Queues a ping. All pings are urgent, so each keeps its stream position, and they keep their order.
    pub fn mark(&mut self, now_ns: u64) {
        let at = self.taken + self.outbox.urgent_end() as u64;
        let ping = self.marks.put(at, now_ns);
        self.outbox.push_urgent(&ping, now_ns);
    }

    /// Handles an answer to a ping. Returns false if its payload is not a new read position.
    pub fn answered(&mut self, payload: &[u8], now_ns: u64) -> bool {
        if !self.marks.answered(payload, self.policy.warn_behind_ns, now_ns) {
            return false;
        }
        self.progress_ns = now_ns;
        if self.shedding && self.oldest_mark().is_none() {
            if self.marks.is_prompt() {
                self.refill_more();
            } else {
                self.refill_bytes = REFILL_BYTES;
            }
        }
        self.advance_window(now_ns);
        if !self.shedding && !self.has_limit() {
            self.marks_at = self.marks.next_look(self.taken);
        }
        self.end_shedding();
        true
    }

    /// Returns how many answers to pings may come at once.
    pub fn unanswered(&self) -> usize {
        self.marks.unanswered()
    }

    /// Returns true if the client has so much unread that nothing more is written until it answers.
    pub fn is_ahead(&self, now_ns: u64) -> bool {
        match self.window_room() {
            Some(left) => left == 0 || (self.oldest_mark().is_some() && self.marks.is_full()),
            None => self.oldest_mark().is_some() && self.marks.is_ahead(self.taken, now_ns),
        }
    }

    /// Returns the oldest unanswered ping, unless the client is not read from: then its answers are not seen.
    pub(super) fn oldest_mark(&self) -> Option<marks::Mark> {
        self.marks.oldest().filter(|_| !self.is_over_full())
    }

    // ---- the window -----------------------------------------------------------------------------------

    /// Returns the window, if it is a limit.
    #[inline]
    fn limit(&self) -> Option<&Window> {
        self.window.as_deref().filter(|window| window.is_limit())
    }

    #[inline]
    fn has_limit(&self) -> bool {
        self.limit().is_some()
    }

    /// Returns the read position of the client, in bytes: from its answers or, if it never answers or is not read from,
    /// from the acknowledgements of its kernel.
    fn come_to(&self) -> u64 {
        self.marks.read().filter(|_| !self.is_over_full()).unwrap_or(self.acked)
    }

    /// Returns how many bytes fit in the window, queued ones included; `None` without a limit.
    pub(super) fn window_room(&self) -> Option<u64> {
        let window = self.limit()?;
        // If all pings are answered, at most the bytes between two pings are unread, and count as none.
        let all = self.marks.read().is_some() && !self.is_over_full() && self.oldest_mark().is_none();
        let before = if all { 0 } else { self.taken.saturating_sub(self.come_to()) };
        Some(window.bytes().saturating_sub(before))
    }

    /// Returns the most bytes of one write: what fits in the window, up to the next ping.
    #[cold]
    pub(super) fn portion(&self) -> usize {
        let Some((window, left)) = self.limit().zip(self.window_room()).filter(|_| !self.closing) else {
            return usize::MAX;
        };
        let before_ping = (self.marks.last_at() + window.ping_bytes()).saturating_sub(self.taken);
        let most = if before_ping == 0 { left } else { left.min(before_ping) };
        usize::try_from(most.max(1)).unwrap_or(usize::MAX)
    }

    /// Returns true if a tick of a `latest` subscription should wait until the client has read more, because the queue
    /// fills the window. The newest value of its stream then replaces earlier ones.
    pub fn conflates(&mut self, now_ns: u64) -> bool {
        let full = self.window_room().is_some_and(|left| left <= self.outbox.len() as u64);
        if full {
            self.fill_window(now_ns);
        }
        full && !self.closing
    }

    /// Returns true if a subscription has been dirty since `since_ms` or before (milliseconds of steady time), and the
    /// client was not told that it sheds. Until the value is sent, no answer may imply that it was.
    pub fn withholds(&self, since_ms: u32) -> bool {
        let oldest = self.waiting.front().filter(|_| !self.shedding && !self.closing);
        oldest.is_some_and(|(_, waits_ms)| since_ms.wrapping_sub(*waits_ms) < 1 << 31)
    }

    fn fill_window(&mut self, now_ns: u64) {
        let come_to = self.come_to();
        if let Some(window) = &mut self.window {
            window.fill(come_to, now_ns);
        }
    }

    /// Adapts the window to a new read position, and drops it if it is of no use.
    fn advance_window(&mut self, now_ns: u64) {
        let (come_to, idle) = (self.come_to(), self.waiting.is_empty() && self.outbox.is_empty());
        let ahead_ns = self.policy.ahead_ns.saturating_add(self.marks.road_ns());
        if let Some(window) = &mut self.window {
            window.advance(come_to, idle, ahead_ns, now_ns);
        }
        self.drop_window(now_ns);
    }

    /// Drops a window that is unused, or so large that the outbox limits more.
    fn drop_window(&mut self, now_ns: u64) {
        let most = self.policy.outbox_bytes_max as u64;
        let is_useless = |window: &Window| window.bytes() >= most || window.is_unused(now_ns);
        let gone = self.window.take_if(|window| window.is_limit() && is_useless(window));
        if gone.is_some() && !self.shedding {
            self.marks_at = self.marks.next_look(self.taken);
        }
    }

    /// Measures a client whose socket is full, from one check to the next.
    fn look_at_window(&mut self, now_ns: u64) {
        let (acked, ahead_ns) = (self.acked, self.policy.ahead_ns);
        let is_silent = self.marks.read().is_none() || self.is_over_full();
        let waits = !(self.waiting.is_empty() && self.outbox.is_empty());
        match &mut self.window {
            None if self.was_full => self.window = Some(Box::new(Window::measured(acked, now_ns))),
            None => {}
            Some(window) if !window.is_limit() => {
                window.begin(acked, ahead_ns, now_ns);
                if window.is_limit() {
                    self.marks_at = 0;
                }
            }
            Some(_) if is_silent => self.advance_window(now_ns),
            Some(window) if !waits => window.rest(now_ns),
            Some(_) => {}
        }
        self.drop_window(now_ns);
    }

    /// Returns true if the window is full and something waits for it.
    fn is_held_up(&self) -> bool {
        self.window_room() == Some(0) && !(self.waiting.is_empty() && self.outbox.is_empty())
    }

    // ---- time -----------------------------------------------------------------------------------------

    /// Returns how long the oldest item has waited, in nanoseconds.
    pub fn behind_ns(&self, now_ns: u64) -> u64 {
        let queued = self.outbox.oldest_ns().map(|since| now_ns.saturating_sub(since));
        let dirty = self.waiting.front().map(|(_, since_ms)| {
            u64::from(((now_ns / 1_000_000) as u32).wrapping_sub(*since_ms)) * 1_000_000
        });
        let held = self.stalled.then(|| now_ns.saturating_sub(self.progress_ns));
        let counts = self.awaits_answer || self.shedding || self.is_held_up();
        let before = self.oldest_mark().filter(|_| counts);
        let unread = before.map(|mark| now_ns.saturating_sub(mark.since_ns));
        [queued, dirty, held, unread].into_iter().flatten().max().unwrap_or(0)
    }

    /// Returns the level that the client was last sent.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Checks a session whose socket was full or whose kernel holds bytes.
    pub fn judge(&mut self, kernel: Kernel, now_ns: u64) -> Verdict {
        if self.closing {
            return Verdict { at_ease: true, ..Verdict::default() };
        }
        self.look_at(kernel, now_ns);
        self.look_at_window(now_ns);
        let oldest = self.oldest_mark();
        let late = oldest.is_some_and(|mark| now_ns.saturating_sub(mark.since_ns) >= marks::AHEAD_NS);
        // Data that waits for a turn of the shard is no fault of the client.
        let stuck = self.blocked || self.stalled || self.is_held_up() || (self.shedding && late);
        let behind_ns = if stuck || self.shedding { self.behind_ns(now_ns) } else { 0 };
        if stuck && behind_ns >= self.policy.shed_behind_ns {
            self.shed();
        }
        self.end_shedding();
        // The client could not answer a ping before the ping was queued.
        let since_ns = oldest.map_or(0, |mark| mark.since_ns).max(self.progress_ns);
        let patience_ns = self.policy.cut_after_ns + self.allowance_ns();
        let left_ns = patience_ns.saturating_sub(now_ns.saturating_sub(since_ns));
        let cut_in_ns = (self.shedding && stuck).then_some(left_ns);
        let level = self.level_at(behind_ns, cut_in_ns);
        let tell = (level != self.level).then(|| {
            // A rise is announced one level at a time: `warn`, then `shed`, then `cut`.
            let next = Level::ALL[(self.level as usize + 1).min(3)];
            (if level > self.level { next } else { level }, level)
        });
        self.level = level;
        Verdict {
            tell,
            cut_in_ns,
            cut: cut_in_ns == Some(0),
            at_ease: level == Level::Ok && !stuck && !self.shedding && self.window.is_none(),
        }
    }

    /// Returns the extra time to reach the next ping because of the bytes before it, in nanoseconds.
    fn allowance_ns(&self) -> u64 {
        if self.is_over_full() { 0 } else { self.marks.allowance_ns() }
    }

    /// Returns for how long the client has neither sent nor taken anything, in nanoseconds.
    pub fn silent_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.alive_ns.max(self.progress_ns))
    }

    /// Checks what the kernel holds. Returns true if it holds bytes and none was acknowledged since the last check.
    pub fn look_at(&mut self, kernel: Kernel, now_ns: u64) -> bool {
        let acked = self.taken.saturating_sub(kernel.unacked);
        let progress = acked > self.acked;
        let stalled = kernel.unacked > 0 && !progress;
        // Once the kernel of the client has the oldest unanswered ping, its progress says nothing of the client.
        let counts = self.is_over_full() || self.marks.is_on_its_way(self.acked);
        if counts && (progress || (stalled && !self.stalled && !self.was_full)) {
            // Progress is timed from here, and so is a stall that was just found.
            self.progress_ns = now_ns;
        }
        self.acked = acked;
        self.stalled = stalled;
        stalled
    }

    fn level_at(&self, behind_ns: u64, cut_in_ns: Option<u64>) -> Level {
        let policy = &self.policy;
        if self.shedding {
            let soon = cut_in_ns.is_some_and(|left| left <= policy.cut_after_ns / 2);
            return if soon { Level::Cut } else { Level::Shed };
        }
        let full = self.blocked && self.outbox.len() > policy.outbox_bytes_max / 2;
        let limit_ns =
            if self.level == Level::Ok { policy.warn_behind_ns } else { policy.warn_behind_ns / 2 };
        if full || behind_ns >= limit_ns.max(1) { Level::Warn } else { Level::Ok }
    }

    /// Records that the client sent something.
    #[inline]
    pub fn heard(&mut self, now_ns: u64) {
        self.alive_ns = now_ns;
    }

    /// Returns true if for too long the client sent nothing and its socket took nothing that had waited. A session that
    /// sheds is not dead, since the client may not have reached its ping; [`judge`](Self::judge) limits how long that
    /// may take.
    pub fn is_dead(&self, now_ns: u64) -> bool {
        let patience_ns = self.policy.pong_timeout_ns.saturating_add(self.allowance_ns());
        !self.shedding && now_ns.saturating_sub(self.alive_ns) >= patience_ns
    }
}
