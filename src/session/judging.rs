//! How far behind a client is, and what comes of it: looks at the clock, at the kernel, and at the pings that stand in the
//! stream.

use super::window::Window;
use super::{REFILL_BYTES, Session, marks};

/// How far behind a client is, as it is warned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing worth a word waits.
    #[default]
    Ok,
    /// Something waits for too long.
    Warn,
    /// Ticks are merged or dropped.
    Shed,
    /// Soon cut.
    Cut,
}

impl Level {
    /// Every level, the best first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Warn, Self::Shed, Self::Cut];

    /// The word used on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Shed => "shed",
            Self::Cut => "cut",
        }
    }
}

/// What the kernel holds of what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes that the other side has not acknowledged; 0 where the system does not report it.
    pub unacked: u64,
}

/// What a look at the clock leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The levels to send, the first and the last of them; `None` if nothing has changed.
    pub tell: Option<(Level, Level)>,
    /// Nanoseconds until it is cut, while nothing is taken.
    pub cut_in_ns: Option<u64>,
    /// Its time is up.
    pub cut: bool,
    /// It needs no more looks until its socket is full again.
    pub at_ease: bool,
}

impl Session {
    // ---- pings ----------------------------------------------------------------------------------------

    /// Whether what is written next comes to a place of the stream at which [marks](Self::look_at_marks) are looked at.
    #[inline]
    pub fn is_at_mark(&self) -> bool {
        self.taken + self.outbox.len() as u64 >= self.marks_at
    }

    /// Puts a ping into what is written next, where one is due. False: the client has so much before it that nothing is to
    /// be written until it answers, which blocks the session.
    #[cold]
    pub fn look_at_marks(&mut self, now_ns: u64) -> bool {
        if self.closing {
            // Nothing comes behind a close frame, nor in its way.
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
        // A session that sheds, or has a window, is given little, with a ping in each of its portions.
        self.marks_at = if self.shedding || self.has_limit() { 0 } else { self.marks.next_look(at) };
        true
    }

    /// Queues a ping. It overtakes what is queued, as all pings do: so each stays where it was put, and in its turn.
    pub fn mark(&mut self, now_ns: u64) {
        let at = self.taken + self.outbox.urgent_end() as u64;
        let ping = self.marks.put(at, now_ns);
        self.outbox.push_urgent(&ping, now_ns);
    }

    /// The client has answered a ping, with this payload. False if it was none of those that wait for an answer.
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

    /// How many answers to pings may come at once.
    pub fn unanswered(&self) -> usize {
        self.marks.unanswered()
    }

    /// Whether the client has so much before it that it is sent no more until it answers.
    pub fn is_ahead(&self, now_ns: u64) -> bool {
        match self.window_room() {
            Some(left) => left == 0 || (self.oldest_mark().is_some() && self.marks.is_full()),
            None => self.oldest_mark().is_some() && self.marks.is_ahead(self.taken, now_ns),
        }
    }

    /// The oldest ping that is not answered, where that says something of the client: one that is not read from is not heard.
    pub(super) fn oldest_mark(&self) -> Option<marks::Mark> {
        self.marks.oldest().filter(|_| !self.is_over_full())
    }

    // ---- the window -----------------------------------------------------------------------------------

    /// The window, where it limits.
    #[inline]
    fn limit(&self) -> Option<&Window> {
        self.window.as_deref().filter(|window| window.is_limit())
    }

    #[inline]
    fn has_limit(&self) -> bool {
        self.limit().is_some()
    }

    /// Bytes of the stream that the client is known to have come to: by its answers, or by what its kernel
    /// acknowledged where it answers never, or is not heard.
    fn come_to(&self) -> u64 {
        self.marks.read().filter(|_| !self.is_over_full()).unwrap_or(self.acked)
    }

    /// Bytes that may be queued until the client has as much before it as its window has room for; `None`: there is
    /// none.
    pub(super) fn window_room(&self) -> Option<u64> {
        let window = self.limit()?;
        // Where all pings are answered, what stands behind the last of them is less than is between two.
        let all = self.marks.read().is_some() && !self.is_over_full() && self.oldest_mark().is_none();
        let before = if all { 0 } else { self.taken.saturating_sub(self.come_to()) };
        Some(window.bytes().saturating_sub(before))
    }

    /// The most that one write takes: what the window has room for, and not more than comes before the next ping.
    #[cold]
    pub(super) fn portion(&self) -> usize {
        let Some((window, left)) = self.limit().zip(self.window_room()).filter(|_| !self.closing) else {
            return usize::MAX;
        };
        let before_ping = (self.marks.last_at() + window.ping_bytes()).saturating_sub(self.taken);
        let most = if before_ping == 0 { left } else { left.min(before_ping) };
        usize::try_from(most.max(1)).unwrap_or(usize::MAX)
    }

    /// Whether a tick of a subscription to the newest values is better sent later, when the client has come to more:
    /// as much waits as its window has room for. The newest value of its stream then takes the place of all before
    /// it.
    pub fn conflates(&mut self, now_ns: u64) -> bool {
        let full = self.window_room().is_some_and(|left| left <= self.outbox.len() as u64);
        if full {
            self.fill_window(now_ns);
        }
        full && !self.closing
    }

    /// Whether something that has waited since `since_ms`, milliseconds of steady time, or longer, is sent when there is
    /// room, and the client has no report that it is behind: no answer may imply that it was sent.
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

    /// The client has come to more. A window as large as all that may wait limits nothing, and is given up.
    fn advance_window(&mut self, now_ns: u64) {
        let (come_to, idle) = (self.come_to(), self.waiting.is_empty() && self.outbox.is_empty());
        let ahead_ns = self.policy.ahead_ns.saturating_add(self.marks.road_ns());
        if let Some(window) = &mut self.window {
            window.advance(come_to, idle, ahead_ns, now_ns);
        }
        self.drop_window(now_ns);
    }

    /// Gives up a window that is of no use.
    fn drop_window(&mut self, now_ns: u64) {
        let most = self.policy.outbox_bytes_max as u64;
        let is_useless = |window: &Window| window.bytes() >= most || window.is_unused(now_ns);
        let gone = self.window.take_if(|window| window.is_limit() && is_useless(window));
        if gone.is_some() && !self.shedding {
            self.marks_at = self.marks.next_look(self.taken);
        }
    }

    /// Measures a client whose socket is full, from one look to the next.
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

    /// Whether the window is full and something waits for it.
    fn is_held_up(&self) -> bool {
        self.window_room() == Some(0) && !(self.waiting.is_empty() && self.outbox.is_empty())
    }

    // ---- time -----------------------------------------------------------------------------------------

    /// For how long the oldest of what waits has waited, nanoseconds.
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

    /// The level that the client was sent last.
    pub fn level(&self) -> Level {
        self.level
    }

    /// A look at a session whose socket was full or whose kernel holds bytes.
    pub fn judge(&mut self, kernel: Kernel, now_ns: u64) -> Verdict {
        if self.closing {
            return Verdict { at_ease: true, ..Verdict::default() };
        }
        self.look_at(kernel, now_ns);
        self.look_at_window(now_ns);
        let oldest = self.oldest_mark();
        let late = oldest.is_some_and(|mark| now_ns.saturating_sub(mark.since_ns) >= marks::AHEAD_NS);
        // What waits for want of a turn is no fault of the client's.
        let stuck = self.blocked || self.stalled || self.is_held_up() || (self.shedding && late);
        let behind_ns = if stuck || self.shedding { self.behind_ns(now_ns) } else { 0 };
        if stuck && behind_ns >= self.policy.shed_behind_ns {
            self.shed();
        }
        self.end_shedding();
        // What was asked since then could not be answered before.
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

    /// The time that it may take to come to the next ping because of what stands before that, nanoseconds.
    fn allowance_ns(&self) -> u64 {
        if self.is_over_full() { 0 } else { self.marks.allowance_ns() }
    }

    /// For how long neither anything was heard of the client, nor did it take anything, nanoseconds.
    pub fn silent_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.alive_ns.max(self.progress_ns))
    }

    /// Looks at what the kernel holds: true if it has not become less since the last look.
    pub fn look_at(&mut self, kernel: Kernel, now_ns: u64) -> bool {
        let acked = self.taken.saturating_sub(kernel.unacked);
        let progress = acked > self.acked;
        let stalled = kernel.unacked > 0 && !progress;
        // What the kernel of a client takes, or does not, behind a ping that it has already says nothing of the client.
        let counts = self.is_over_full() || self.marks.is_on_its_way(self.acked);
        if counts && (progress || (stalled && !self.stalled && !self.was_full)) {
            // Whatever stands still does so since now, as far as is known.
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

    /// Something was heard of the client.
    #[inline]
    pub fn heard(&mut self, now_ns: u64) {
        self.alive_ns = now_ns;
    }

    /// True if nothing was heard of the client for too long, nor did its socket take anything that had to wait. One that
    /// sheds may not have come to its ping yet: how long that may take is another matter, see [`judge`](Self::judge).
    pub fn is_dead(&self, now_ns: u64) -> bool {
        let patience_ns = self.policy.pong_timeout_ns.saturating_add(self.allowance_ns());
        !self.shedding && now_ns.saturating_sub(self.alive_ns) >= patience_ns
    }
}
