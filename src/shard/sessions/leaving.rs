//! How connections end: each for one cause, which is counted, and with which last frames.

use super::{Connection, Sessions};
use crate::protocol::close::Close;
use crate::protocol::{frame, json};
use crate::session::Level;
use crate::shard::deadlines::phase_ns;
use crate::shard::ending::Parting;
use crate::shard::socket::Socket;
use crate::system::counters::Ending;
use crate::time::clock::{MS, Now};

/// The code of a close without a close frame (RFC 6455 §7.4.1), for the flight recorder.
const NOT_SENT: u16 = 1_006;
/// After how long a client that was cut should reconnect, milliseconds.
const AFTER_CUT_MS: u64 = 1_000;

/// The sentence in the `bye` of a client that is cut because memory is short.
const CUT_FOR_MEMORY: &str =
    "the gateway is short of memory (limits.memory_bytes_max), and this client held much of it";

impl<S: Socket> Sessions<S> {
    /// Removes a connection and all that is kept for it. Returns how its socket closes.
    pub fn remove(&mut self, id: u32) -> Parting {
        let Some(mut gone) = self.connections.remove(id) else { return Parting::Linger };
        self.leave_behind(id, &mut gone);
        gone.ends(Ending::Failed, &self.env.counters);
        self.env.counters.sessions.sub(1);
        self.count_level(gone.session.level(), Level::Ok);
        gone.link.parting
    }

    /// Closes a connection: queues `bye` and the close frame after what is queued already.
    pub fn close(&mut self, id: u32, why: Close, now: Now) {
        if self.connections.get(id).is_none_or(|c| c.session.is_closing()) {
            return;
        }
        self.leave_all(id, now);
        let after_ms = self.after_ms(id, why);
        self.say(id, &json::bye(why, after_ms, None), now);
        self.end(id, why, now);
    }

    /// Queues the close frame after what is queued already.
    pub(super) fn end(&mut self, id: u32, why: Close, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.ends(why.into(), &self.env.counters);
        connection.session.close();
        let more = match connection.link.ending {
            Some(Ending::TooBig) => {
                Some(format!("limits.frame_bytes is {}", self.env.options.limits.frame_bytes_max))
            }
            Some(Ending::Memory) => Some("the gateway is short of memory".to_owned()),
            _ => None,
        };
        let mut close = Vec::new();
        frame::close(why, more.as_deref(), &mut close);
        connection.session.push(&close, now.mono_ns);
        self.last_is_queued(id, now);
    }

    /// Completes a close whose last frame is queued: the frame goes out within the grace time, or never.
    fn last_is_queued(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.socket.kick();
        let due_ns = now.mono_ns + self.env.options.times.close_grace_ms * MS;
        self.deadlines.close_by(due_ns, id, connection.serial);
        if connection.session.awaits_answer() {
            self.go_on(id);
        } else {
            self.queue(id);
        }
    }

    /// Handles a connection that the client's side ended, for this cause. `reply`: the answer to its close frame, raw
    /// bytes.
    pub fn ended_by_client(&mut self, id: u32, cause: Ending, reply: &[u8], now: Now) {
        self.leave_all(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.ends(cause, &self.env.counters);
        if connection.session.is_closing() {
            connection.socket.kick();
            return self.queue(id);
        }
        connection.session.close();
        connection.session.push(reply, now.mono_ns);
        self.last_is_queued(id, now);
    }

    /// Ends the connection of a client whose host is dead, without a message.
    pub(super) fn give_up_dead(&mut self, id: u32, now: Now) {
        if self.connections.get(id).is_none_or(|c| c.session.is_closing()) {
            return;
        }
        self.saw_cut(id, Ending::DeadPeer, NOT_SENT, now);
        self.leave_all(id, now);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.ends(Ending::DeadPeer, &self.env.counters);
        connection.session.abandon();
        (connection.link.dead, connection.link.parting) = (true, Parting::Abort);
        connection.socket.kick();
    }

    /// Closes all connections.
    pub(super) fn close_all(&mut self, why: Close, now: Now) {
        for id in self.ids() {
            // A client that has not read what is queued would not reach a `bye` after it.
            let Some(Connection { session, .. }) = self.connections.get(id) else {
                continue;
            };
            if session.is_blocked() || session.is_shedding() {
                self.cut(id, why, now);
            } else {
                self.close(id, why, now);
            }
        }
    }

    /// Cuts a client that cannot be waited for. What is queued is dropped; `bye` and the close frame are forced into
    /// the kernel, so that the client finds them when it reads.
    pub(super) fn cut(&mut self, id: u32, why: Close, now: Now) {
        self.cut_for(id, why, why.into(), now);
    }

    /// As [`cut`](Self::cut), counted under `cause` instead of that of the close code.
    pub(super) fn cut_for(&mut self, id: u32, why: Close, cause: Ending, now: Now) {
        let after_ms = self.after_ms(id, why);
        if self.connections.get(id).is_none_or(|c| c.session.is_closing()) {
            return;
        }
        if matches!(why, Close::SlowConsumer | Close::NoPong) {
            self.saw_cut(id, cause, why.code(), now);
        }
        self.leave_all(id, now);
        let msg = (cause == Ending::Memory).then_some(CUT_FOR_MEMORY);
        self.say_urgently(id, &json::bye(why, after_ms, msg), now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.ends(cause, &self.env.counters);
            connection.session.abandon();
            connection.link.parting = Parting::LastWords;
        }
        self.end(id, why, now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.force(true, &self.env.counters);
        }
    }

    /// After how long a client should reconnect, milliseconds. Clients of a stopping gateway are spread, so that they
    /// do not all reconnect at once.
    pub(super) fn after_ms(&self, id: u32, why: Close) -> u64 {
        match why {
            Close::Shutdown => {
                let serial = self.connections.get(id).map_or(0, |c| c.serial);
                phase_ns(serial) % self.env.options.times.drain_spread_ms.max(1)
            }
            Close::SlowConsumer | Close::Busy => AFTER_CUT_MS,
            _ => 0,
        }
    }

    /// Gives up connections that did not take their last frames in time.
    pub(super) fn give_up(&mut self, now: Now) {
        while let Some((id, serial)) = self.deadlines.next_to_give_up(now.mono_ns) {
            if let Some(connection) = self.connections.get_same(id, serial) {
                connection.link.dead = true;
                connection.socket.kick();
            }
        }
    }
}
