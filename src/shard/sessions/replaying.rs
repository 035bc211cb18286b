//! Sends the status of the replay to every client: the newest only, after the ticks that were published before it.

use super::Sessions;
use crate::protocol::Id;
use crate::protocol::json::{self as message, Ack};
use crate::protocol::replay::Control;
use crate::replay_control::NOT_A_REPLAY;
use crate::shard::socket::Socket;
use crate::time::clock::Now;

impl<S: Socket> Sessions<S> {
    /// Whether the replay has published a status that was not sent yet.
    pub(super) fn has_new_status(&self) -> bool {
        self.replay_status.is_old(self.env.options.replay_control.as_deref())
    }

    /// Sends every client the status of the replay, if it is new and this shard has read the ticks before it.
    pub(super) fn show_status_to_all(&mut self, now: Now) {
        let control = self.env.options.replay_control.as_deref();
        if self.has_new_status() && self.replay_status.update(control, self.backfill.cursor()) {
            for id in self.ids() {
                self.show_status(id, now);
            }
        }
    }

    /// Sends one client the status, unless it has been sent it, if there is room: a slow client gets the newest later.
    pub(super) fn show_status(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let version = self.replay_status.version();
        if connection.progress.status == version || !connection.session.may_hear_news() {
            return;
        }
        connection.progress.status = version;
        let text = self.replay_status.text();
        let frame = self.egress.text(|out| out.extend_from_slice(text));
        connection.session.push(frame, now.mono_ns);
        self.queue(id);
    }

    /// Passes on a replay command of a client, and answers it.
    pub(super) fn control(&mut self, id: u32, name: Option<&Id>, control: &Control, now: Now) {
        let peer = self.connections.get(id).and_then(|connection| connection.who.peer);
        let refused = match &self.env.options.replay_control {
            None => Some((NOT_A_REPLAY.0, NOT_A_REPLAY.1.to_owned(), false)),
            Some(replay_control) => {
                let given = replay_control.give(control, peer.map(|peer| peer.ip()));
                given.err().map(|refusal| (refusal.code(), refusal.to_string(), refusal.retry()))
            }
        };
        match refused {
            None => self.say(id, &Ack::new(name, "replay", serde_json::Map::new()), now),
            Some((code, msg, retry)) => {
                self.env.counters.faults.add(1);
                self.say(id, &message::error(name, code, &msg, retry), now);
            }
        }
    }
}
