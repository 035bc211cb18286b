//! All sessions of a shard: fan-out, requests, flushing. It does what it is told when it is told; the sockets
//! are behind [`Socket`], so a test can put its own in their place.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashSet};
use slab::Slab;

use super::frames::Frames;
use super::subscriptions::Subscriptions;
use crate::clock::{Clock, MS, Now};
use crate::counters::ShardCounters;
use crate::instrument::{InstrumentId, InstrumentTable, Symbol};
use crate::protocol::close::Close;
use crate::protocol::{Mode, frame, json};
use crate::ring::{Packed, TickRing};
use crate::session::{Budget, Ledger, Session, Subscription};
use crate::tick::{Body, Channel, GapCause, Key, Stream};

/// What a shard needs of a client's socket.
pub trait Socket {
    /// Writes as much as the kernel takes now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; anything else ends the connection.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Something happened to the session that its driver has to look at: see [`Sessions::wants`].
    fn kick(&self);
}

/// What the driver of a connection has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Requests may be read.
    pub read: bool,
    /// The socket took nothing: wait until it can be written to.
    pub write: bool,
    /// Everything is out and nothing more will come, or the socket failed: end it.
    pub end: bool,
    /// By this steady time it has to have ended.
    pub end_by_ns: Option<u64>,
}

/// Figures and limits that every session of a run shares.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Name of this run.
    pub epoch: Arc<str>,
    /// True where every feed is a replay.
    pub replay: bool,
    /// Memory of one session.
    pub budget: Budget,
    /// Milliseconds between heartbeats.
    pub heartbeat_ms: u64,
    /// Symbols one connection may name.
    pub symbols_max: usize,
    /// Longest message of a client, bytes.
    pub frame_bytes_max: usize,
    /// Requests a second, and how many at once.
    pub ops_per_s: u32,
    /// Milliseconds that a closing connection has to take what is queued.
    pub close_grace_ms: u64,
    /// Venues a symbol may name though nothing was seen of it yet.
    pub venues: Arc<[String]>,
}

/// A session with its socket.
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) session: Session,
    name: Box<str>,
    /// Its subscriptions and their places in the table, sorted by key.
    pub(super) places: Vec<(Key, u32)>,
    /// Wildcards, which take instruments listed later.
    pub(super) wildcards: Vec<Wildcard>,
    /// Symbols that nobody lists yet.
    pub(super) awaited: Vec<Awaited>,
    /// In the queue of those with something to write.
    queued: bool,
    /// The socket took nothing last time.
    blocked: bool,
    /// The socket failed.
    dead: bool,
    /// Since when something has been waiting in the outbox, steady time; 0 if nothing is.
    behind_since_ns: u64,
    /// By when a closing connection is dropped, steady time.
    end_by_ns: Option<u64>,
    /// Requests it may still make, in thousandths, and when that was reckoned.
    tokens_milli: u64,
    tokens_at_ns: u64,
}

/// A wildcard subscription.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wildcard {
    /// `None`: every venue.
    pub(super) venue: Option<Box<str>>,
    pub(super) channel: Channel,
    pub(super) mode: Mode,
}

impl Wildcard {
    pub(super) fn takes(&self, symbol: &Symbol) -> bool {
        self.venue.as_deref().is_none_or(|venue| venue == symbol.venue())
    }
}

/// A subscription to a symbol that nobody lists yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Awaited {
    pub(super) symbol: Symbol,
    pub(super) channel: Channel,
    pub(super) mode: Mode,
}

impl<S> Connection<S> {
    pub(super) fn place(&self, key: Key) -> Option<u32> {
        let at = self.places.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.places[at].1)
    }

    fn is_subscribed(&self) -> bool {
        !(self.places.is_empty() && self.wildcards.is_empty() && self.awaited.is_empty())
    }
}

/// All sessions of one shard, and what they want.
pub struct Sessions<S> {
    pub(super) options: SessionOptions,
    pub(super) table: Arc<InstrumentTable>,
    pub(super) ring: TickRing,
    pub(super) clock: Clock,
    pub(super) counters: Arc<ShardCounters>,
    pub(super) connections: Slab<Connection<S>>,
    subscriptions: Subscriptions,
    frames: Frames,
    /// What became of the ticks of all its sessions, those that are gone too.
    ledger: Ledger,
    /// Who has something to write, the longest waiting first: the order of deadlines.
    flush_queue: VecDeque<u32>,
    /// When each session's heartbeat is due; all have the same period, so the order stays.
    heartbeats: VecDeque<(u64, u32, Box<str>)>,
    /// Instruments whose wildcards and awaited symbols were looked through.
    known: usize,
    awaited: HashMap<Symbol, Vec<u32>, FxBuildHasher>,
}

impl<S: Socket> Sessions<S> {
    /// A shard without clients.
    pub fn new(
        options: SessionOptions,
        table: Arc<InstrumentTable>,
        ring: TickRing,
        clock: Clock,
        counters: Arc<ShardCounters>,
    ) -> Self {
        let known = table.len();
        Self {
            options,
            table,
            ring,
            clock,
            counters,
            connections: Slab::new(),
            subscriptions: Subscriptions::default(),
            frames: Frames::default(),
            ledger: Ledger::default(),
            flush_queue: VecDeque::new(),
            heartbeats: VecDeque::new(),
            known,
            awaited: HashMap::default(),
        }
    }

    // ---- ticks ----------------------------------------------------------------------------------------

    /// Fans out one tick.
    #[inline]
    pub(super) fn tick(&mut self, packed: Packed<'_>, now: Now) {
        let key = packed.key();
        if key.instrument().index() >= self.known {
            self.learn(now);
        }
        let row = self.subscriptions.of(key);
        if row.is_empty() {
            return;
        }
        let tick = packed.unpack();
        let Some(symbol) = self.table.get(tick.instrument) else { return };
        let counts = key.stream() != Stream::Status && !matches!(tick.body, Body::Gap { .. });
        let mut encoded = false;
        for subscription in row {
            if !subscription.wants(tick.seq) {
                continue;
            }
            let Some(connection) = self.connections.get_mut(subscription.session as usize) else { continue };
            if !encoded {
                encoded = true;
                self.frames.encode(&tick, symbol, self.clock.wall_ns() / 1_000);
            }
            if connection.session.offer(self.frames.encoded()) {
                subscription.queued(tick.seq);
                if counts {
                    connection.session.count_sent();
                    self.ledger.sent += 1;
                }
                if !connection.queued {
                    connection.queued = true;
                    connection.behind_since_ns = now.mono_ns;
                    self.flush_queue.push_back(subscription.session);
                }
            } else if subscription.fell_behind(GapCause::SlowConsumer) {
                connection.session.wait(key);
            }
        }
    }

    /// Ticks were lost on the way to this shard: whoever missed one is told from the last value.
    pub(super) fn lapped(&mut self, now: Now) {
        self.learn(now);
        for key in self.subscriptions.keys() {
            let Some(last) = self.ring.last_value(key) else { continue };
            for subscription in self.subscriptions.of(key) {
                if !subscription.wants(last.head) {
                    continue;
                }
                let Some(connection) = self.connections.get_mut(subscription.session as usize) else {
                    continue;
                };
                if subscription.fell_behind(GapCause::Overrun) {
                    connection.session.wait(key);
                }
            }
        }
        for id in self.ids() {
            self.recover(id, now);
        }
    }

    fn ids(&self) -> Vec<u32> {
        self.connections.iter().map(|(id, _)| id as u32).collect()
    }

    /// Tells a session's dirty subscriptions what they missed, as far as there is room.
    fn recover(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        let mut told_any = false;
        while let Some(key) = connection.session.next_waiting() {
            let Some(place) = connection.place(key) else { continue };
            let Some(subscription) = self.subscriptions.at(key, place) else { continue };
            let Some(symbol) = self.table.get(key.instrument()) else { continue };
            let told = subscription.catch_up(key.stream(), self.ring.last_value(key));
            self.ledger.add(connection.session.count(&told));
            let tx_us = self.clock.wall_ns() / 1_000;
            self.frames.catch_up(&told, key, symbol, tx_us, |frame| connection.session.push(frame));
            told_any = true;
        }
        if told_any {
            self.queue(id, now);
        }
    }

    /// New instruments were listed: wildcards and awaited symbols take them.
    pub(super) fn learn(&mut self, now: Now) {
        while self.known < self.table.len() {
            let id = InstrumentId(self.known as u32);
            self.known += 1;
            let Some(symbol) = self.table.get(id).cloned() else { continue };
            let mut wanted: Vec<(u32, Channel, Mode)> = Vec::new();
            for session in self.awaited.remove(&symbol).unwrap_or_default() {
                let Some(connection) = self.connections.get_mut(session as usize) else { continue };
                connection.awaited.retain(|awaited| {
                    let mine = awaited.symbol == symbol;
                    if mine {
                        wanted.push((session, awaited.channel, awaited.mode));
                    }
                    !mine
                });
            }
            for (session, connection) in &self.connections {
                let taking = connection.wildcards.iter().filter(|wildcard| wildcard.takes(&symbol));
                wanted.extend(taking.map(|wildcard| (session as u32, wildcard.channel, wildcard.mode)));
            }
            for (session, channel, mode) in wanted {
                // Nothing of it was told yet: it is told from its first number on.
                self.attach(session, id, channel, mode, Start::FromFirst, now);
            }
        }
    }

    // ---- subscriptions --------------------------------------------------------------------------------

    /// Subscribes a session to a channel of an instrument, or changes the mode if it has it already. The
    /// instrument's state comes with it.
    pub(super) fn attach(
        &mut self,
        session: u32,
        instrument: InstrumentId,
        channel: Channel,
        mode: Mode,
        start: Start,
        now: Now,
    ) {
        let key = Key::new(instrument, channel.into());
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        if let Some(place) = connection.place(key) {
            if let Some(subscription) = self.subscriptions.at(key, place) {
                subscription.set_mode(mode);
            }
            return;
        }
        self.add(session, key, mode, start);
        let status = Key::new(instrument, Stream::Status);
        if self.connections.get(session as usize).is_some_and(|c| c.place(status).is_none()) {
            let start = match start {
                Start::FromFirst => Start::FromFirst,
                _ => Start::FromHere,
            };
            self.add(session, status, Mode::Latest, start);
        }
        self.recover(session, now);
    }

    fn add(&mut self, session: u32, key: Key, mode: Mode, start: Start) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let head = self.ring.last_value(key).map_or(0, |last| last.head);
        let subscription = match start {
            Start::Snapshot => Subscription::new(session, mode, true, 0),
            Start::FromHere => Subscription::new(session, mode, false, head),
            Start::FromFirst => Subscription::new(session, mode, false, 0),
        };
        if subscription.is_dirty() {
            connection.session.wait(key);
        }
        let place = self.subscriptions.add(key, subscription);
        if let Err(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) {
            connection.places.insert(at, (key, place));
        }
    }

    /// Takes a session off a channel of an instrument; off its state too with the last channel.
    pub(super) fn detach(&mut self, session: u32, key: Key) {
        self.remove_place(session, key);
        let Some(connection) = self.connections.get(session as usize) else { return };
        let has = |stream| connection.place(Key::new(key.instrument(), stream)).is_some();
        if !has(Stream::Trade) && !has(Stream::Quote) {
            self.remove_place(session, Key::new(key.instrument(), Stream::Status));
        }
    }

    fn remove_place(&mut self, session: u32, key: Key) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let Ok(at) = connection.places.binary_search_by_key(&key, |(key, _)| *key) else { return };
        let (_, place) = connection.places.remove(at);
        connection.session.forget(key);
        let Some(moved) = self.subscriptions.remove(key, place) else { return };
        let Some(moved) = self.connections.get_mut(moved as usize) else { return };
        if let Ok(at) = moved.places.binary_search_by_key(&key, |(key, _)| *key) {
            moved.places[at].1 = place;
        }
    }

    /// Waits for a symbol that nobody lists yet.
    pub(super) fn await_symbol(&mut self, session: u32, awaited: Awaited) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let same = |a: &&mut Awaited| a.symbol == awaited.symbol && a.channel == awaited.channel;
        if let Some(mine) = connection.awaited.iter_mut().find(same) {
            mine.mode = awaited.mode;
            return;
        }
        let waiting = self.awaited.entry(awaited.symbol.clone()).or_default();
        if !waiting.contains(&session) {
            waiting.push(session);
        }
        connection.awaited.push(awaited);
    }

    /// Waits no more for the symbols that `gone` picks.
    pub(super) fn stop_awaiting(&mut self, session: u32, gone: impl Fn(&Awaited) -> bool) {
        let Some(connection) = self.connections.get_mut(session as usize) else { return };
        let before = std::mem::take(&mut connection.awaited);
        let (gone, kept): (Vec<_>, Vec<_>) = before.into_iter().partition(gone);
        for awaited in gone {
            if kept.iter().any(|k| k.symbol == awaited.symbol) {
                continue;
            }
            if let Some(waiting) = self.awaited.get_mut(&awaited.symbol) {
                waiting.retain(|waiting| *waiting != session);
                if waiting.is_empty() {
                    self.awaited.remove(&awaited.symbol);
                }
            }
        }
        connection.awaited = kept;
    }

    /// The mode of a subscription.
    pub(super) fn mode_of(&mut self, key: Key, place: u32) -> Option<Mode> {
        self.subscriptions.at(key, place).map(|s| s.mode())
    }

    /// Changes the mode of a subscription.
    pub(super) fn set_mode(&mut self, key: Key, place: u32, mode: Mode) {
        if let Some(subscription) = self.subscriptions.at(key, place) {
            subscription.set_mode(mode);
        }
    }

    /// How many symbols this session named itself: those that came by a wildcard are not counted.
    pub(super) fn named(&self, session: u32) -> usize {
        let Some(connection) = self.connections.get(session as usize) else { return 0 };
        let by_wildcard = |key: Key| {
            let symbol = self.table.get(key.instrument());
            symbol.is_some_and(|symbol| connection.wildcards.iter().any(|w| w.takes(symbol)))
        };
        let listed = connection.places.iter().filter(|(key, _)| key.stream() == Stream::Status);
        let awaited: FxHashSet<&Symbol> = connection.awaited.iter().map(|awaited| &awaited.symbol).collect();
        awaited.len() + listed.filter(|(key, _)| !by_wildcard(*key)).count()
    }

    // ---- coming and going -----------------------------------------------------------------------------

    /// A client is connected; it is greeted. Its number.
    pub fn open(&mut self, socket: S, name: Box<str>, now: Now) -> u32 {
        let hello = json::Hello {
            session: &name,
            epoch: &self.options.epoch,
            replay: self.options.replay,
            time_us: now.wall_ns / 1_000,
            heartbeat_ms: self.options.heartbeat_ms,
            symbols: self.options.symbols_max,
            frame_bytes: self.options.frame_bytes_max,
            ops_per_s: self.options.ops_per_s,
        }
        .message();
        let id = self.connections.insert(Connection {
            socket,
            session: Session::new(self.options.budget),
            name: name.clone(),
            places: Vec::new(),
            wildcards: Vec::new(),
            awaited: Vec::new(),
            queued: false,
            blocked: false,
            dead: false,
            behind_since_ns: 0,
            end_by_ns: None,
            tokens_milli: u64::from(self.options.ops_per_s) * 1_000,
            tokens_at_ns: now.mono_ns,
        }) as u32;
        self.heartbeats.push_back((now.mono_ns + self.options.heartbeat_ms * MS, id, name));
        self.counters.sessions.add(1);
        self.say(id, &hello, now);
        id
    }

    /// The connection is gone: so is all that was kept for it.
    pub fn remove(&mut self, id: u32) {
        self.unsubscribe_all(id);
        if self.connections.contains(id as usize) {
            self.connections.remove(id as usize);
            self.counters.sessions.sub(1);
        }
    }

    fn unsubscribe_all(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        let was_subscribed = connection.is_subscribed();
        connection.wildcards.clear();
        let keys: Vec<Key> = connection.places.iter().map(|(key, _)| *key).collect();
        for key in keys {
            self.remove_place(id, key);
        }
        self.stop_awaiting(id, |_| true);
        if was_subscribed {
            self.counters.subscribed.sub(1);
        }
    }

    /// Runs `change` on a session's subscriptions and keeps the count of subscribed sessions right.
    pub(super) fn change_subscriptions(&mut self, id: u32, change: impl FnOnce(&mut Self)) {
        let subscribed =
            |sessions: &Self| sessions.connections.get(id as usize).is_some_and(Connection::is_subscribed);
        let before = subscribed(self);
        change(self);
        match (before, subscribed(self)) {
            (false, true) => self.counters.subscribed.add(1),
            (true, false) => self.counters.subscribed.sub(1),
            _ => {}
        }
    }

    /// Says goodbye: `bye`, then the close frame, behind what is queued already.
    pub fn close(&mut self, id: u32, why: Close, now: Now) {
        if self.connections.get(id as usize).is_none_or(|c| c.session.is_closing()) {
            return;
        }
        self.unsubscribe_all(id);
        self.say(id, &json::bye(why, 0), now);
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        connection.session.close();
        let mut close = Vec::new();
        frame::close(why, &mut close);
        connection.session.push(&close);
        connection.end_by_ns = Some(now.mono_ns + self.options.close_grace_ms * MS);
        connection.socket.kick();
        self.queue(id, now);
    }

    /// The client closed the connection, and its close frame was answered by `reply`, raw bytes.
    pub fn closed_by_client(&mut self, id: u32, reply: &[u8], now: Now) {
        self.unsubscribe_all(id);
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        if !connection.session.is_closing() {
            connection.session.close();
            connection.session.push(reply);
            connection.end_by_ns = Some(now.mono_ns + self.options.close_grace_ms * MS);
        }
        connection.socket.kick();
        self.queue(id, now);
    }

    /// Raw bytes of the reserved lane, made by somebody else: pongs.
    pub fn push_raw(&mut self, id: u32, bytes: &[u8], now: Now) {
        if let Some(connection) = self.connections.get_mut(id as usize) {
            connection.session.push(bytes);
            self.queue(id, now);
        }
    }

    /// Sends one message of the reserved lane.
    pub(super) fn say(&mut self, id: u32, message: &serde_json::Value, now: Now) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        // A value made of maps with text keys always becomes text.
        let frame = self.frames.text(|out| serde_json::to_writer(out, message).unwrap_or_default());
        connection.session.push(frame);
        self.queue(id, now);
    }

    /// Whether a session may make another request now.
    pub(super) fn may_ask(&mut self, id: u32, now: Now) -> bool {
        let per_s = u64::from(self.options.ops_per_s);
        let Some(connection) = self.connections.get_mut(id as usize) else { return false };
        let gained = (now.mono_ns - connection.tokens_at_ns.min(now.mono_ns)) / 1_000 * per_s / 1_000;
        if gained > 0 {
            connection.tokens_milli = (connection.tokens_milli + gained).min(per_s * 1_000);
            connection.tokens_at_ns = now.mono_ns;
        }
        let granted = connection.tokens_milli >= 1_000;
        if granted {
            connection.tokens_milli -= 1_000;
        }
        granted
    }

    // ---- writing --------------------------------------------------------------------------------------

    fn queue(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        if !connection.queued && !connection.dead {
            connection.queued = true;
            connection.behind_since_ns = now.mono_ns;
            self.flush_queue.push_back(id);
        }
    }

    /// Writes for the `most` sessions that have waited longest, one write each. True if some are left.
    pub(super) fn flush(&mut self, most: usize, now: Now) -> bool {
        for _ in 0..most {
            let Some(id) = self.flush_queue.pop_front() else { return false };
            self.flush_one(id, now);
        }
        !self.flush_queue.is_empty()
    }

    fn flush_one(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id as usize) else { return };
        // The number may have gone to a new session since it was queued: its own turn comes.
        if !connection.queued {
            return;
        }
        let was_over_full = connection.session.is_over_full();
        // A blocked session stays out of the queue but marked, so that ticks do not put it back.
        match connection.socket.write(connection.session.outbox().pending()) {
            Ok(0) if !connection.session.outbox().is_empty() => connection.dead = true,
            Ok(n) => {
                self.counters.writes.add(1);
                self.counters.bytes.add(n as u64);
                connection.session.outbox().wrote(n);
                connection.queued = false;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.blocked = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.flush_queue.push_back(id);
                return;
            }
            Err(_) => connection.dead = true,
        }
        if connection.dead || connection.blocked {
            connection.socket.kick();
            return;
        }
        if was_over_full && !connection.session.is_over_full() {
            // Its requests were left unread for want of room.
            connection.socket.kick();
        }
        let rest = !connection.session.outbox().is_empty();
        if connection.session.waiting() > 0 {
            self.recover(id, now);
        } else if connection.session.is_closing() && !rest {
            connection.socket.kick();
        }
        if rest {
            self.queue(id, now);
        }
    }

    /// The socket can be written to again.
    pub fn writable(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(id as usize)
            && connection.blocked
        {
            connection.blocked = false;
            self.flush_queue.push_back(id);
        }
    }

    /// What the driver of a connection has to wait for.
    pub fn wants(&mut self, id: u32) -> Wants {
        let Some(connection) = self.connections.get_mut(id as usize) else {
            return Wants { read: false, write: false, end: true, end_by_ns: None };
        };
        let closing = connection.session.is_closing();
        Wants {
            read: !closing && !connection.session.is_over_full(),
            write: connection.blocked,
            end: connection.dead || (closing && connection.session.outbox().is_empty()),
            end_by_ns: connection.end_by_ns,
        }
    }

    /// True while some session has something to write and its socket is not known to be full.
    pub fn has_to_flush(&self) -> bool {
        !self.flush_queue.is_empty()
    }

    /// True when every session has been told all there is.
    pub(super) fn is_settled(&mut self) -> bool {
        self.connections
            .iter_mut()
            .all(|(_, c)| c.dead || (c.session.waiting() == 0 && c.session.outbox().is_empty()))
    }

    // ---- time -----------------------------------------------------------------------------------------

    /// Sends the heartbeats that are due.
    pub(super) fn heartbeats(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some((due, _, _)) = self.heartbeats.front()
            && *due <= now.mono_ns
        {
            let Some((_, id, name)) = self.heartbeats.pop_front() else { break };
            any = true;
            let Some(connection) = self.connections.get_mut(id as usize) else { continue };
            if connection.name != name || connection.session.is_closing() {
                continue;
            }
            let sent = connection.session.ledger().sent;
            let behind_ns = match connection.queued {
                true => now.mono_ns.saturating_sub(connection.behind_since_ns),
                false => 0,
            };
            let frame =
                self.frames.text(|out| json::heartbeat(now.wall_ns / 1_000, sent, behind_ns / MS, out));
            connection.session.push(frame);
            self.queue(id, now);
            self.heartbeats.push_back((now.mono_ns + self.options.heartbeat_ms * MS, id, name));
        }
        any
    }

    /// When the next heartbeat is due, steady time.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.heartbeats.front().map(|(due, _, _)| *due)
    }

    /// Says goodbye to everybody.
    pub(super) fn close_all(&mut self, why: Close, now: Now) {
        for id in self.ids() {
            self.close(id, why, now);
        }
    }

    /// True when nobody is left.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Publishes the counts of a turn.
    pub(super) fn count(&mut self) {
        self.counters.subscriptions.set(self.subscriptions.len() as u64);
        self.counters.encoded.set(self.frames.count);
        self.counters.sent.set(self.ledger.sent);
        self.counters.merged.set(self.ledger.merged);
        self.counters.dropped.set(self.ledger.dropped);
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the last value, marked `snap`.
    Snapshot,
    /// Behind the newest number there is.
    FromHere,
    /// With the first number: the instrument was listed after the client asked for it.
    FromFirst,
}
