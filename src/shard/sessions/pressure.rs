//! Timed checks: sends heartbeats, judges and warns slow clients, cuts those that read nothing, and gives up dead
//! peers.

use super::Sessions;
use crate::protocol::close::Close;
use crate::protocol::json;
use crate::session::{Kernel, Level, Verdict};
use crate::shard::socket::Socket;
use crate::time::clock::{MS, Now, SECOND};

/// Heartbeats sent in one turn. Those of clients that connected together are due together, and the feed must not wait
/// for all of them.
const HEARTBEATS_PER_TURN: usize = 64;
/// Watched sessions that are checked in one turn.
const WATCHED_PER_TURN: usize = 64;
/// The shortest interval at which the kernel is asked about a client's host, nanoseconds.
const ASK_KERNEL_NS: u64 = SECOND;

/// How much coarser the kernel's clock may be than the shard's, nanoseconds.
const GRAIN_NS: u64 = 50 * MS;

/// What the kernel knows of the host of a client that takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// It acknowledges, or there is nothing to acknowledge, or the system does not report it.
    Answers,
    /// It has been silent since the client last took something, but not for long enough to be dead.
    Silent,
    /// It has acknowledged nothing for too long.
    Dead,
    /// The kernel was asked a moment ago.
    Unasked,
}

impl<S: Socket> Sessions<S> {
    /// Judges the sessions that lost a tick in this turn because there was no room.
    #[cold]
    pub(super) fn on_overflow(&mut self, now: Now) {
        for (id, disconnects) in self.deadlines.take_overflowed() {
            self.watch_over(id, now);
            self.judge(id, now);
            if disconnects {
                self.cut(id, Close::SlowConsumer, now);
            }
        }
    }

    /// Has a session checked periodically from now on.
    pub(super) fn watch_over(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.link.watched, true) {
            self.deadlines.watch(id, connection.serial, now.mono_ns);
        }
    }

    /// Checks some of the watched sessions, if a round is due. True if it did.
    pub(super) fn watch(&mut self, now: Now) -> bool {
        if self.deadlines.left_of_round() == 0 {
            if !self.deadlines.begin_round(now.mono_ns) {
                return false;
            }
            self.shortage.begin_round();
        }
        for _ in 0..self.deadlines.left_of_round().min(WATCHED_PER_TURN) {
            let Some((id, serial)) = self.deadlines.next_watched() else { break };
            if !self.connections.is_same(id, serial) {
                continue;
            }
            self.shortage.count_next();
            if self.judge(id, now) {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.link.watched = false;
                }
            } else {
                self.deadlines.watch_on(id, serial);
            }
            // Nothing else reports that a stalled kernel moves again, or that unanswered pings no longer count because
            // the client is not read from.
            self.go_on_answered(id, now);
            self.recover(id, now);
        }
        if self.deadlines.left_of_round() == 0 {
            self.env.counters.unacked_bytes.set(self.shortage.unacked_bytes());
        }
        true
    }

    /// Judges one session and sends it its levels. True if it needs no more checks.
    pub(super) fn judge(&mut self, id: u32, now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let kernel = Kernel { unacked: connection.socket.unacked() };
        self.shortage.count(kernel.unacked);
        let before = connection.session.level();
        let verdict = connection.session.judge(kernel, now.mono_ns);
        self.tell_levels(id, verdict, kernel, now);
        if let Some(connection) = self.connections.get_mut(id) {
            let level = connection.session.level();
            if level > Level::Ok && !std::mem::replace(&mut connection.link.slowed, true) {
                self.env.counters.slowed.add(1);
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

    /// Asks the kernel whether the host of a client is still there, if the client has been silent for half of
    /// `dead_peer_ms`, or with `at_once`; at most once per second.
    ///
    /// A client that stopped reading and a host that vanished look alike to the shard. Only the kernel can tell: the
    /// host of the former answers the probes of its closed window.
    fn look_at_host(&mut self, id: u32, at_once: bool, kernel: Kernel, now: Now) -> Host {
        let dead_peer_ns = self.env.options.times.dead_peer_ms * MS;
        let Some(connection) = self.connections.get_mut(id) else { return Host::Answers };
        let silent_ns = connection.session.silent_ns(now.mono_ns);
        if !at_once && (kernel.unacked == 0 || silent_ns < dead_peer_ns / 2) {
            return Host::Answers;
        }
        if now.mono_ns < connection.ask_kernel_ns.max(self.surroundings.ask_kernel_ns()) {
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
            let frame = self.egress.text(|out| json::lag(&lag, out));
            connection.session.push_urgent(frame, now.mono_ns);
        }
        if connection.session.is_blocked() {
            connection.force(false, &self.env.counters);
        } else {
            self.queue(id);
        }
    }

    /// Updates the counts of sessions on each level.
    pub(super) fn count_level(&mut self, from: Level, to: Level) {
        let gauge = |level| match level {
            Level::Ok => None,
            Level::Warn => Some(&self.env.counters.warned),
            Level::Shed => Some(&self.env.counters.shedding),
            Level::Cut => Some(&self.env.counters.nearly_cut),
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
            self.env.counters.sheds.add(1);
        }
    }

    /// Sends the heartbeats that are due, each with a ping, and gives up dead clients.
    pub(super) fn heartbeats(&mut self, now: Now) -> bool {
        let mut any = false;
        for _ in 0..HEARTBEATS_PER_TURN {
            let Some((id, serial)) = self.deadlines.next_beat(now.mono_ns) else { break };
            any = true;
            let Some(connection) = self.connections.get_same(id, serial) else { continue };
            if connection.session.is_closing() {
                continue;
            }
            let due_ns = now.mono_ns + self.env.options.times.heartbeat_ms * MS;
            self.deadlines.beat_at(due_ns, id, serial);
            let kernel = Kernel { unacked: connection.socket.unacked() };
            // A watched session is checked often enough, and two checks at one moment would see no progress.
            let stalled = !connection.link.watched && connection.session.look_at(kernel, now.mono_ns);
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
        if self.deadlines.shrinks(now.mono_ns) {
            self.egress.buffers().shrink();
        }
        any
    }

    /// Queues one heartbeat and one ping. At most one of each waits for a socket that takes nothing.
    fn beat(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.session.has_urgent() {
            return;
        }
        let sent = connection.session.ledger().sent;
        let behind_ms = connection.session.behind_ns(now.mono_ns) / MS;
        let frame = self.egress.text(|out| json::heartbeat(now.wall_ns / 1_000, sent, behind_ms, out));
        connection.session.push_urgent(frame, now.mono_ns);
        connection.session.mark(now.mono_ns);
        self.queue_urgent(id);
    }
}
