//! What happens as time goes by: heartbeats, slow clients judged and told, those cut who read nothing, dead peers.

use crate::protocol::close::Close;
use crate::protocol::json;
use crate::session::{Kernel, Level, Verdict};
use crate::shard::sessions::{Sessions, Socket};
use crate::time::clock::{MS, Now, SECOND};

/// How often sessions whose socket was full are looked at.
const WATCH_NS: u64 = 100 * MS;
/// Heartbeats sent in one turn: those of clients that came at the same moment are due at the same moment, and the feed is
/// not to wait for all of them.
const HEARTBEATS_PER_TURN: usize = 64;
/// Sessions whose socket was full that are looked at in one turn.
const WATCHED_PER_TURN: usize = 64;
/// How often what the sessions' buffers do not need is given back.
const SHRINK_NS: u64 = SECOND;
/// How often the kernel is asked at most whether it hears of a client's host.
const ASK_KERNEL_NS: u64 = SECOND;

/// What the clock of the kernel may be coarser by than ours.
const GRAIN_NS: u64 = 50 * MS;

/// What the kernel hears of the host of a client that takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// It acknowledges, or there is nothing to acknowledge, or nobody tells.
    Answers,
    /// Nothing since the client took something last, but not for long enough.
    Silent,
    /// It has acknowledged nothing for too long.
    Dead,
    /// It was asked a moment ago.
    Unasked,
}

impl<S: Socket> Sessions<S> {
    /// Judges those who just lost a tick for want of room.
    #[cold]
    pub(in crate::shard) fn press(&mut self, now: Now) {
        for (id, cut) in std::mem::take(&mut self.pressed) {
            self.watch_over(id, now);
            self.judge(id, now);
            if cut {
                self.cut(id, Close::SlowConsumer, now);
            }
        }
    }

    /// Looks at a session again and again from now on.
    pub(in crate::shard) fn watch_over(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.watched {
            connection.watched = true;
            if self.watched.is_empty() {
                self.watch_at_ns = now.mono_ns + WATCH_NS;
            }
            self.watched.push_back((id, connection.serial));
        }
    }

    /// Looks at those whose socket was full, where it is time. True if it did.
    pub(in crate::shard) fn watch(&mut self, now: Now) -> bool {
        if self.to_watch == 0 {
            if self.watched.is_empty() || now.mono_ns < self.watch_at_ns {
                return false;
            }
            self.watch_at_ns = now.mono_ns + WATCH_NS;
            self.to_watch = self.watched.len();
            self.shortage.unacked_bytes = 0;
        }
        for _ in 0..self.to_watch.min(WATCHED_PER_TURN) {
            self.to_watch -= 1;
            let Some((id, serial)) = self.watched.pop_front() else { break };
            if self.connections.get(id).is_none_or(|c| c.serial != serial) {
                continue;
            }
            self.shortage.looks = true;
            if self.judge(id, now) {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.watched = false;
                }
            } else {
                self.watched.push_back((id, serial));
            }
            // Where the kernel alone stood still, nobody else tells that it moves again; nor that pings are not counted any
            // more, because no requests are read.
            self.go_on_answered(id, now);
            self.recover(id, now);
        }
        if self.to_watch == 0 {
            self.counters.unacked_bytes.set(self.shortage.unacked_bytes);
        }
        true
    }

    /// Judges one session and tells it. True if it needs no more looks.
    pub(in crate::shard) fn judge(&mut self, id: u32, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let kernel = Kernel { unacked: connection.socket.unacked() };
        if std::mem::take(&mut self.shortage.looks) {
            self.shortage.unacked_bytes += kernel.unacked;
        }
        let before = connection.session.level();
        let verdict = connection.session.judge(kernel, now.mono_ns);
        self.tell_levels(id, verdict, kernel, now);
        if let Some(connection) = self.connections.get_mut(id) {
            let level = connection.session.level();
            if level > Level::Ok && !std::mem::replace(&mut connection.slowed, true) {
                self.counters.slowed.add(1);
            }
            self.count_level(before, level);
        }
        self.note(id, verdict, kernel, now);
        let host = self.look_at_host(id, verdict.cut, kernel, now);
        if host == Host::Dead {
            self.give_up_dead(id, now);
        } else if verdict.cut && host == Host::Answers {
            self.cut(id, Close::SlowConsumer, now);
        }
        verdict.at_ease
    }

    /// Asks the kernel whether the host of a client is still there: where nothing has been heard of the client for half the
    /// time after which a host is dead, or with `at_once`; at most once a second.
    ///
    /// A client that stopped reading and a host that vanished look alike from here, and it is the kernel that can tell: the
    /// host of the first answers the probes of its closed window.
    fn look_at_host(&mut self, id: u32, at_once: bool, kernel: Kernel, now: Now) -> Host {
        let dead_peer_ns = self.options.dead_peer_ms * MS;
        let Some(connection) = self.connections.get_mut(id) else { return Host::Answers };
        let silent_ns = connection.session.silent_ns(now.mono_ns);
        if !at_once && (kernel.unacked == 0 || silent_ns < dead_peer_ns / 2) {
            return Host::Answers;
        }
        if now.mono_ns < connection.ask_kernel_ns.max(self.context.ask_kernel_ns) {
            return Host::Unasked;
        }
        connection.ask_kernel_ns = now.mono_ns + ASK_KERNEL_NS;
        match connection.socket.peer() {
            Some(peer) if peer.asked && peer.silent_ms * MS >= dead_peer_ns => Host::Dead,
            Some(peer) if peer.asked && peer.silent_ms * MS + GRAIN_NS >= silent_ns => Host::Silent,
            _ => Host::Answers,
        }
    }

    fn tell_levels(&mut self, id: u32, verdict: Verdict, kernel: Kernel, now: Now) {
        let Some((first, last)) = verdict.tell else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let ledger = connection.session.ledger();
        for level in Level::ALL.into_iter().filter(|level| (first..=last).contains(level)) {
            let lag = json::Lag {
                level: level.name(),
                behind_ms: connection.session.behind_ns(now.mono_ns) / MS,
                queued_bytes: connection.session.outbox().len() as u64 + kernel.unacked,
                cut_in_ms: verdict.cut_in_ns.filter(|_| level >= Level::Shed).map(|ns| ns / MS),
                merged: ledger.merged,
                dropped: ledger.dropped,
            };
            let frame = self.frames.text(|out| json::lag(&lag, out));
            connection.session.push_urgent(frame, now.mono_ns);
        }
        if connection.session.is_blocked() {
            connection.force(false, &self.counters);
        } else {
            self.queue(id);
        }
    }

    /// Keeps count of the sessions on each level.
    pub(in crate::shard) fn count_level(&mut self, from: Level, to: Level) {
        let gauge = |level| match level {
            Level::Ok => None,
            Level::Warn => Some(&self.counters.warned),
            Level::Shed => Some(&self.counters.shedding),
            Level::Cut => Some(&self.counters.nearly_cut),
        };
        if from == to {
            return;
        }
        if let Some(gauge) = gauge(from) {
            gauge.sub(1);
        }
        if let Some(gauge) = gauge(to) {
            gauge.add(1);
        }
        if to == Level::Shed && from < to {
            self.counters.sheds.add(1);
        }
    }

    /// Sends the heartbeats that are due, each with a ping, and looks who is dead.
    pub(in crate::shard) fn heartbeats(&mut self, now: Now) -> bool {
        let mut any = false;
        for _ in 0..HEARTBEATS_PER_TURN {
            let due = self.heartbeats.pop_front_if(|(due, ..)| *due <= now.mono_ns);
            let Some((_, id, serial)) = due else { break };
            any = true;
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.serial != serial || connection.session.is_closing() {
                continue;
            }
            self.heartbeats.push_back((now.mono_ns + self.options.heartbeat_ms * MS, id, serial));
            let kernel = Kernel { unacked: connection.socket.unacked() };
            // A watched one is looked at often enough, and two looks in one moment would see no progress.
            let stalled = !connection.watched && connection.session.look_at(kernel, now.mono_ns);
            let blocked = connection.session.is_blocked();
            if connection.session.is_dead(now.mono_ns) {
                match self.look_at_host(id, true, kernel, now) {
                    Host::Answers => {
                        self.cut(id, Close::NoPong, now);
                        continue;
                    }
                    Host::Dead => {
                        self.give_up_dead(id, now);
                        continue;
                    }
                    Host::Silent | Host::Unasked => {}
                }
            }
            if stalled || blocked {
                self.watch_over(id, now);
            }
            self.beat(id, now);
        }
        if now.mono_ns >= self.shrink_at_ns {
            self.shrink_at_ns = now.mono_ns + SHRINK_NS;
            self.buffers.shrink();
        }
        any
    }

    /// One heartbeat and one ping. A socket that takes nothing holds one of each at most.
    fn beat(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.session.has_urgent() {
            return;
        }
        let sent = connection.session.ledger().sent;
        let behind_ms = connection.session.behind_ns(now.mono_ns) / MS;
        let frame = self.frames.text(|out| json::heartbeat(now.wall_ns / 1_000, sent, behind_ms, out));
        connection.session.push_urgent(frame, now.mono_ns);
        connection.session.mark(now.mono_ns);
        self.queue_urgent(id);
    }

    /// When something is due next, steady time.
    pub(in crate::shard) fn next_deadline_ns(&self) -> Option<u64> {
        let heartbeat = self.heartbeats.front().map(|(due, _, _)| *due);
        let watch = (!self.watched.is_empty()).then_some(self.watch_at_ns);
        let release = self.releases.peek().map(|release| release.0.due_ns);
        let closing = self.closing.front().map(|(due, _, _)| *due);
        [heartbeat, watch, release, closing].into_iter().flatten().min()
    }
}
