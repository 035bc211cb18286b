//! New clients, messages to clients, and what their sockets report.

use std::rc::Rc;

use super::{Connection, Sessions};
use crate::protocol::json;
use crate::session::Session;
use crate::shard::allowance::Allowance;
use crate::shard::deadlines::phase_ns;
use crate::shard::socket::{ClientInfo, Socket, Wants};
use crate::text;
use crate::time::clock::{MS, Now};

impl<S: Socket> Sessions<S> {
    /// Opens the session of a new client, and sends `hello`. Returns its number.
    pub fn open(&mut self, socket: S, who: ClientInfo, now: Now) -> u32 {
        let hello = json::Hello {
            session: &who.name,
            epoch: &self.env.options.epoch,
            feed: self.env.options.feed,
            time_us: now.wall_ns / 1_000,
            heartbeat_ms: self.env.options.times.heartbeat_ms,
            symbols: self.env.options.limits.symbols_max,
            frame_bytes: self.env.options.limits.frame_bytes_max,
            ops_per_s: self.env.options.limits.ops_per_s,
        }
        .message();
        let id = self.connections.insert(|serial| {
            // The top bits are spread best.
            let stagger = (phase_ns(serial) >> 40) as u8;
            let policy = Rc::clone(&self.env.policy);
            let session = Session::new(policy, self.egress.buffers().clone(), stagger, now.mono_ns);
            let allowance = Allowance::new(self.env.options.limits.ops_per_s, now.mono_ns);
            Connection::new((socket, who), session, serial, allowance, now)
        });
        let serial = self.connections.get(id).map_or(0, |connection| connection.serial);
        let due_ns = now.mono_ns + self.env.options.times.heartbeat_ms * MS;
        self.deadlines.beat_at(due_ns, id, serial);
        self.env.counters.sessions.add(1);
        self.env.counters.came.add(1);
        // Urgent, or a heartbeat could overtake it. The ping right after it shows whether the client answers pings.
        self.say_urgently(id, &hello, now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.mark(now.mono_ns);
        }
        self.show_status(id, now);
        id
    }

    /// Queues whole frames that the driver made, pongs, which overtake what is queued.
    pub fn push_raw(&mut self, id: u32, frames: &[u8], now: Now) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.push_urgent(frames, now.mono_ns);
            self.queue_urgent(id);
        }
    }

    /// Has an urgent frame written: in its turn, or at once if the session is blocked until the client answers a ping.
    pub(super) fn queue_urgent(&mut self, id: u32) {
        match self.connections.get_mut(id) {
            Some(connection) if connection.session.awaits_answer() => {
                connection.force(false, &self.env.counters);
            }
            _ => self.queue(id),
        }
    }

    /// Sends one message that overtakes what is queued.
    pub(super) fn say_urgently(&mut self, id: u32, message: &impl serde::Serialize, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.egress.text(|out| text::json::write(message, out));
        connection.session.push_urgent(frame, now.mono_ns);
        self.queue(id);
    }

    /// Sends one message after what is queued, whether or not there is room for ticks.
    pub(super) fn say(&mut self, id: u32, message: &impl serde::Serialize, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let frame = self.egress.text(|out| text::json::write(message, out));
        connection.session.push_answer(frame, now.mono_ns);
        self.queue(id);
    }

    // ---- the socket -----------------------------------------------------------------------------------

    /// Notes that something came from the client.
    pub fn heard(&mut self, id: u32, now: Now) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.session.heard(now.mono_ns);
        }
    }

    /// Notes that the socket can be written to again.
    pub fn writable(&mut self, id: u32) {
        if self.connections.get(id).is_some_and(|connection| !connection.session.awaits_answer()) {
            self.go_on(id);
        }
    }

    /// Handles a pong with this payload. False if no ping waits for it.
    pub fn answered(&mut self, id: u32, payload: &[u8], now: Now) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if !connection.session.answered(payload, now.mono_ns) {
            return false;
        }
        self.go_on_answered(id, now);
        // A shedding session gets its next portion when the client has read the one before.
        self.recover(id, now);
        true
    }

    /// How many pongs may come from a client at once.
    pub(in crate::shard) fn unanswered(&self, id: u32) -> usize {
        self.connections.get(id).map_or(0, |connection| connection.session.unanswered())
    }

    /// Unblocks a session that waits for a pong, unless the client still has too much unread.
    pub(super) fn go_on_answered(&mut self, id: u32, now: Now) {
        let Some(Connection { session, .. }) = self.connections.get(id) else { return };
        if session.awaits_answer() && !session.is_ahead(now.mono_ns) {
            self.go_on(id);
        }
    }

    /// Unblocks a session: it is written to when its turn comes.
    pub(super) fn go_on(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.session.is_blocked()
        {
            connection.session.unblock();
            self.connections.set_queued(id, true);
            self.enqueue(id);
        }
    }

    /// What the driver of a connection has to wait for.
    pub fn wants(&mut self, id: u32) -> Wants {
        let Some(connection) = self.connections.get_mut(id) else {
            return Wants { read: false, write: false, end: true };
        };
        let closing = connection.session.is_closing();
        Wants {
            read: !closing && !connection.session.is_over_full() && connection.request.work.is_none(),
            write: connection.session.is_blocked() && !connection.session.awaits_answer(),
            end: connection.link.dead || (closing && connection.session.outbox().is_empty()),
        }
    }

    /// True when every session was sent all there is.
    pub(super) fn is_settled(&mut self) -> bool {
        self.connections.iter_mut().all(|(_, c)| {
            let is_sent =
                c.session.waiting() == 0 && c.progress.reading.is_none() && c.request.work.is_none();
            c.link.dead || (is_sent && c.session.outbox().is_empty())
        })
    }
}
