//! Where the replay is, told to everybody: the newest only, behind the ticks that were published before.

use crate::protocol::Id;
use crate::protocol::json::{self as message, Ack};
use crate::protocol::replay::Control;
use crate::replay_control::NOT_A_REPLAY;
use crate::shard::sessions::{Sessions, Socket};
use crate::text::json;
use crate::time::clock::Now;

/// What the clients of a shard are told of the replay.
#[derive(Default)]
pub(in crate::shard) struct News {
    /// Counts how often there was something new; 0 before the first time.
    pub(in crate::shard) version: u64,
    /// The message.
    text: Vec<u8>,
}

impl<S: Socket> Sessions<S> {
    /// Whether the replay shows something that was not told yet.
    pub(in crate::shard) fn has_news(&self) -> bool {
        self.options
            .replay_control
            .as_ref()
            .is_some_and(|replay_control| replay_control.version() != self.news.version)
    }

    /// Tells everybody where the replay is, if that is new and this shard has read the ring so far.
    pub(in crate::shard) fn tell_news(&mut self, now: Now) {
        if self.has_news() && self.learn_news() {
            for id in self.ids() {
                self.tell_news_to(id, now);
            }
        }
    }

    /// Takes up what the replay shows; false while ticks come first.
    fn learn_news(&mut self) -> bool {
        let Some(replay_control) = &self.options.replay_control else { return false };
        // Before what it counts, so that nothing is missed.
        let version = replay_control.version();
        let Some(shown) = replay_control.shown().filter(|shown| shown.published <= self.cursor) else {
            return false;
        };
        self.news.version = version;
        self.news.text.clear();
        json::write(&shown.playback.message(), &mut self.news.text);
        true
    }

    /// Tells one client what it was not told yet, if there is room: a slow one is told the newest later.
    pub(in crate::shard) fn tell_news_to(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.news == self.news.version || !connection.session.may_hear_news() {
            return;
        }
        connection.news = self.news.version;
        let text = &self.news.text;
        let frame = self.frames.text(|out| out.extend_from_slice(text));
        connection.session.push(frame, now.mono_ns);
        self.queue(id);
    }

    /// Passes on what a client asks of the replay.
    pub(in crate::shard) fn control(&mut self, id: u32, name: Option<&Id>, control: &Control, now: Now) {
        let peer = self.connections.get(id).and_then(|connection| connection.who.peer);
        let refused = match &self.options.replay_control {
            None => Some((NOT_A_REPLAY.0, NOT_A_REPLAY.1.to_owned(), false)),
            Some(replay_control) => {
                let given = replay_control.give(control, peer.map(|peer| peer.ip()));
                given.err().map(|refusal| (refusal.code(), refusal.to_string(), refusal.retry()))
            }
        };
        match refused {
            None => self.say(id, &Ack::new(name, "replay", serde_json::Map::new()), now),
            Some((code, msg, retry)) => {
                self.counters.faults.add(1);
                self.say(id, &message::error(name, code, &msg, retry), now);
            }
        }
    }
}
