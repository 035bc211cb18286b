//! How connections end: each for one cause, which is counted; and with which last words.

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
/// When a client that was cut does well to come back, milliseconds.
const AFTER_CUT_MS: u64 = 1_000;

/// The sentence in the `bye` of a client that is cut because memory is short.
const CUT_FOR_MEMORY: &str =
    "the gateway is short of memory (limits.memory_bytes_max), and this client held much of it";

impl<S: Socket> Sessions<S> {
    /// The connection is gone: so is all that was kept for it. What becomes of its socket.
    pub fn remove(&mut self, id: u32) -> Parting {
        let Some(mut gone) = self.connections.remove(id) else { return Parting::Linger };
        self.leave_behind(id, &mut gone);
        gone.ends(Ending::Failed, &self.env.counters);
        self.env.counters.sessions.sub(1);
        self.count_level(gone.session.level(), Level::Ok);
        gone.link.parting
    }

    /// Says goodbye: `bye`, then the close frame, behind what is queued already.
    pub fn close(&mut self, id: u32, why: Close, now: Now) {
        if self.connections.get(id).is_none_or(|c| c.session.is_closing()) {
            return;
        }
        self.leave_all(id, now);
        let after_ms = self.after_ms(id, why);
        self.say(id, &json::bye(why, after_ms, None), now);
        self.end(id, why, now);
    }

    /// The last frame, behind what is queued.
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

    /// The last that a session has to say is queued: it goes out in time, or never.
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

    /// The client's side ended the connection, for this cause. A close frame of its was answered by `reply`, raw bytes.
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

    /// The host of a client is dead: nothing can be sent to it any more.
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

    /// Says goodbye to every client.
    pub(super) fn close_all(&mut self, why: Close, now: Now) {
        for id in self.ids() {
            // One that has not taken what there was by now would not come to a goodbye behind it.
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

    /// Ends a session that cannot be waited for. What is queued is thrown away; `bye` and the close frame reach the
    /// kernel in any case, so that the client finds them when it reads.
    pub(super) fn cut(&mut self, id: u32, why: Close, now: Now) {
        self.cut_for(id, why, why.into(), now);
    }

    /// As [`cut`](Self::cut), where the cause that is counted is not that of the close code.
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

    /// When a client does well to come back, milliseconds. Those of a gateway that stops are spread, so that they do
    /// not all knock at the next one's door at once.
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

    /// Gives up connections that did not take their last words in time.
    pub(super) fn give_up(&mut self, now: Now) {
        while let Some((id, serial)) = self.deadlines.next_to_give_up(now.mono_ns) {
            if let Some(connection) = self.connections.get_same(id, serial) {
                connection.link.dead = true;
                connection.socket.kick();
            }
        }
    }
}
