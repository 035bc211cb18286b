//! Requests are carried out in portions, counted in [steps](crate::shard::steps::Steps), so that no turn is long. A session has one
//! request under way at most, and is not read from until it is answered; sessions take turns. So do those that have to be sent
//! what their subscriptions lack. What is gone is taken out of the tables in portions, too.

use std::collections::BTreeMap;

use crate::model::tick::Key;
use crate::protocol::close::Close;
use crate::protocol::json as message;
use crate::protocol::{self, Op, Request, Subscribe};
use crate::session::Hold;
use crate::shard::sessions::allowance::Admission;
use crate::shard::sessions::awaited::AwaitedBy;
use crate::shard::sessions::change::{Setting, Unsubscribing};
use crate::shard::sessions::connection::Connection;
use crate::shard::sessions::listing::{Listing, SymbolListing};
use crate::shard::sessions::subscribe::Subscribing;
use crate::shard::sessions::{Sessions, Socket};
use crate::system::faults;
use crate::time::clock::Now;

/// Steps of a request, whatever it asks for.
const STEPS_PER_REQUEST: usize = 8;
/// Bytes of a message that are read in one step.
const BYTES_PER_STEP: usize = 128;
/// The longest message over the allowance of its client of which the `id` is read, bytes.
const NAMED_BYTES_MAX: usize = 1_024;

/// What a session has under way.
pub(in crate::shard) enum Work {
    /// A message that is still to be read.
    Message(Box<str>),
    Subscribe(Box<Subscribing>),
    Unsubscribe(Unsubscribing),
    Set(Setting),
    List(Listing),
    Symbols(SymbolListing),
    /// The end: it is taken out of the tables.
    Leave,
}

/// What a session that was removed has left in the tables.
pub(in crate::shard) struct Leaving {
    pub(in crate::shard) places: BTreeMap<Key, u32>,
    pub(in crate::shard) awaited: AwaitedBy,
}

/// How a request takes what waits and what rates hold back into account, after it has changed subscriptions.
#[derive(Default)]
pub(in crate::shard) struct Settling {
    /// Waiting subscriptions that are still to be asked whether they are there; `None` before that was counted.
    waiting: Option<usize>,
    /// The rate, and which of what it holds back is next.
    held: (usize, usize),
}

impl Settling {
    /// Where no subscription has ended.
    pub(in crate::shard) fn of_rates() -> Self {
        Self { waiting: Some(0), ..Self::default() }
    }
}

impl<S: Socket> Sessions<S> {
    /// Takes in one message of a client: it is answered now, or in one of the next turns, and until then the client does not
    /// [want](Self::wants) to be read from.
    pub fn request(&mut self, id: u32, text: &str, now: Now) {
        self.counters.requests.add(1);
        faults::inject(text.as_bytes());
        let admission = match self.connections.get(id) {
            Some(connection) if connection.work.is_some() => Admission::Refused,
            _ => self.admit(id, text.len(), now),
        };
        match admission {
            Admission::Granted => {}
            Admission::Refused => return self.refuse(id, text, now),
            Admission::Over => return self.close(id, Close::Limit, now),
        }
        if self.steps.take(steps_to_read(text)) {
            if let Some(work) = self.read_request(id, text, now) {
                self.begin(id, work, now);
            }
        } else {
            self.begin(id, Work::Message(text.into()), now);
        }
    }

    /// Subscribes as the address of a client asks for, with the answer before the first data.
    pub fn subscribe(&mut self, id: u32, wanted: Subscribe, now: Now) {
        let bytes = wanted.symbols.iter().map(String::len).sum();
        if self.admit(id, bytes, now) == Admission::Granted {
            self.begin(id, Work::Subscribe(Box::new(Subscribing::new(None, wanted))), now);
        }
    }

    /// Answers a message over the allowance of its client. A long one is not read.
    fn refuse(&mut self, id: u32, text: &str, now: Now) {
        self.counters.faults.add(1);
        let name = match text.len() {
            0..=NAMED_BYTES_MAX => protocol::parse(text, NAMED_BYTES_MAX).map_or_else(|f| f.id, |r| r.id),
            _ => None,
        };
        let msg = format!("more than {} requests a second", self.options.ops_per_s);
        self.say(id, &message::error(name.as_ref(), "rate_limited", &msg, true), now);
    }

    /// Reads a request and begins with it: what is left to do.
    fn read_request(&mut self, id: u32, text: &str, now: Now) -> Option<Work> {
        let Request { id: name, op } = match protocol::parse(text, self.named_at_once()) {
            Ok(request) => request,
            Err(fault) => {
                self.counters.faults.add(1);
                self.say(id, &message::error(fault.id.as_ref(), fault.code, &fault.msg, false), now);
                return None;
            }
        };
        match op {
            Op::Subscribe(wanted) => Some(Work::Subscribe(Box::new(Subscribing::new(name, wanted)))),
            Op::Unsubscribe(target) => Some(Work::Unsubscribe(Unsubscribing::new(name, target))),
            Op::Set(target, change) => Some(Work::Set(Setting::new(name, target, change))),
            Op::List(after) => self.listing(id, name, after.as_deref(), now).map(Work::List),
            Op::Symbols(pattern, after) => {
                self.symbol_listing(id, name, (&pattern, after.as_deref()), now).map(Work::Symbols)
            }
            Op::Ping(t) => {
                self.ping(id, name, t, now);
                None
            }
            Op::Replay(control) => {
                self.control(id, name.as_ref(), &control, now);
                None
            }
        }
    }

    /// Has a session do this, as far as there are steps for it now.
    fn begin(&mut self, id: u32, work: Work, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.work = Some(Box::new(work));
        self.steps.begin_slice();
        self.go_on_working(id, now);
        self.steps.end_slice();
    }

    /// A session leaves: its request is given up, and its subscriptions end.
    pub(in crate::shard) fn leave_all(&mut self, id: u32, now: Now) {
        let is_subscribed =
            |sessions: &Self| sessions.connections.get(id).is_some_and(Connection::is_subscribed);
        let was_subscribed = is_subscribed(self);
        self.drop_wildcards(id, |_| true);
        if was_subscribed && !is_subscribed(self) {
            self.counters.subscribed.sub(1);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.reading = None;
        connection.waits_for = None;
        self.begin(id, Work::Leave, now);
    }

    /// Goes on with what a session has under way. It is paid by its allowance.
    fn go_on_working(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(mut work) = connection.work.take() else { return };
        let (taken, was_subscribed) = (self.steps.taken(), connection.is_subscribed());
        let is_done = self.advance(id, &mut work, now);
        self.charge(id, (self.steps.taken() - taken) as usize);
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (was_subscribed, connection.is_subscribed()) {
            (false, true) => self.counters.subscribed.add(1),
            (true, false) => self.counters.subscribed.sub(1),
            _ => {}
        }
        if is_done {
            self.recover(id, now);
        } else {
            connection.work = Some(work);
            if connection.waits_for.is_none() {
                self.put_to_work(id);
            }
        }
    }

    /// True when it is done.
    fn advance(&mut self, id: u32, work: &mut Work, now: Now) -> bool {
        loop {
            return match work {
                Work::Message(text) => {
                    if !self.steps.take(steps_to_read(text)) {
                        return false;
                    }
                    match self.read_request(id, &std::mem::take(text), now) {
                        Some(next) => *work = next,
                        None => return true,
                    }
                    continue;
                }
                Work::Subscribe(subscribing) => self.go_on_subscribing(id, subscribing, now),
                Work::Unsubscribe(unsubscribing) => self.go_on_unsubscribing(id, unsubscribing, now),
                Work::Set(setting) => self.go_on_setting(id, setting, now),
                Work::List(listing) => self.go_on_listing(id, listing, now),
                Work::Symbols(listing) => self.go_on_with_symbols(id, listing, now),
                Work::Leave => self.go_on_leaving(id),
            };
        }
    }

    /// A session has more to do: it has a turn.
    pub(in crate::shard) fn put_to_work(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !std::mem::replace(&mut connection.at_work, true) {
            self.workers.push_back((id, connection.serial));
        }
    }

    /// Goes on with what a session has under way, by a slice of the steps.
    pub(in crate::shard) fn work_on(&mut self, id: u32, now: Now) {
        let has_work = |sessions: &Self| sessions.connections.get(id).is_some_and(|c| c.work.is_some());
        let had_work = has_work(self);
        self.steps.begin_slice();
        self.go_on_working(id, now);
        self.steps.end_slice();
        if had_work
            && !has_work(self)
            && let Some(connection) = self.connections.get_mut(id)
        {
            // Its requests were left unread until it is done.
            connection.socket.kick();
        }
    }

    /// Goes on with what sessions have under way, in turns, as long as there are steps.
    pub(in crate::shard) fn work(&mut self, now: Now) {
        self.forget_those_gone();
        self.go_on_with_long_answers();
        // The rest of the steps is for what rates let go, and for those that resume.
        while !self.steps.are_few()
            && let Some((id, serial)) = self.workers.pop_front()
        {
            let Some(connection) = self.connections.get_mut(id).filter(|c| c.serial == serial) else {
                continue;
            };
            connection.at_work = false;
            self.steps.begin_slice();
            self.recover(id, now);
            if self.connections.get(id).is_none_or(|connection| connection.waits_for.is_some()) {
                continue;
            }
            let taken = self.steps.taken();
            self.work_on(id, now);
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.work.is_some() && connection.waits_for.is_none() && self.steps.taken() == taken {
                // What is next needs more than is left: it comes first in the next turn.
                self.workers.rotate_right(1);
                break;
            }
        }
        self.steps.end_slice();
    }

    /// True while subscriptions have to take instruments, or what they missed, before the ring is read.
    pub(in crate::shard) fn is_catching_up(&self) -> bool {
        self.has_to_learn() || self.is_sweeping()
    }

    /// True while something is left that was to be done in portions.
    pub(in crate::shard) fn has_work(&self) -> bool {
        !self.workers.is_empty()
            || !self.leaving.is_empty()
            || self.is_catching_up()
            || self.long_answers.can_go_on()
    }

    /// Takes some of what a session that leaves has out of the tables. True when nothing is left.
    fn go_on_leaving(&mut self, id: u32) -> bool {
        loop {
            let Some(connection) = self.connections.get(id) else { return true };
            if let Some((key, _)) = connection.places.first_key_value() {
                let key = *key;
                if !self.steps.take(1) {
                    return false;
                }
                self.end_subscription(id, key);
            } else if let Some((symbol, _)) = connection.awaited.first_key_value() {
                let symbol = std::rc::Rc::clone(symbol);
                if !self.steps.take(1) {
                    return false;
                }
                self.stop_awaiting(id, &symbol, &crate::model::tick::Channel::ALL);
            } else {
                return true;
            }
        }
    }

    /// What is left of a session that was removed is taken out of the tables in the next turns.
    pub(in crate::shard) fn leave_behind(&mut self, id: u32, gone: &mut Connection<S>) {
        if gone.is_subscribed() {
            self.counters.subscribed.sub(1);
        }
        self.wild.remove(&id);
        let (places, awaited) = (std::mem::take(&mut gone.places), std::mem::take(&mut gone.awaited));
        if places.is_empty() && awaited.is_empty() {
            self.connections.free(id);
        } else {
            self.leaving.insert(id, Leaving { places, awaited });
        }
    }

    /// Takes some of what is left of sessions that were removed out of the tables.
    fn forget_those_gone(&mut self) {
        while let Some(id) = self.leaving.first_key_value().map(|(id, _)| *id) {
            if !self.steps.take_of_half(1) {
                return;
            }
            let Some(left) = self.leaving.get_mut(&id) else { return };
            if let Some((key, place)) = left.places.pop_first() {
                self.leave(key, place);
            } else if let Some((symbol, _)) = left.awaited.pop_first() {
                self.awaited.remove(&symbol, id);
            } else {
                self.leaving.remove(&id);
                self.connections.free(id);
            }
        }
    }

    /// [Settles](Self::settle), if a subscription has another rate now.
    pub(in crate::shard) fn settle_rates(&mut self, id: u32, settling: &mut Settling, now: Now) -> bool {
        if self.connections.get(id).is_none_or(|connection| !connection.unsettled) {
            return true;
        }
        let is_done = self.settle(id, settling, now);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.unsettled = !is_done;
        }
        is_done
    }

    /// Has what was held back by a rate wait for room where its subscription has another now, and forgets what waits for
    /// subscriptions that have ended. True when that is done.
    pub(in crate::shard) fn settle(&mut self, id: u32, settling: &mut Settling, now: Now) -> bool {
        let (table, steps) = (&self.subscriptions, &mut self.steps);
        let Some(Connection { session, places, .. }) = self.connections.get_mut(id) else { return true };
        let waiting = settling.waiting.get_or_insert(session.waiting());
        while *waiting > 0 {
            if !steps.take(1) {
                return false;
            }
            *waiting -= 1;
            session.sift_waiting(|key| places.contains_key(&key));
        }
        loop {
            let judge = |key, rate| {
                let place = places.get(&key);
                match place
                    .and_then(|place| table.get(key, *place))
                    .filter(|subscription| subscription.is_held())
                {
                    None => Hold::Over,
                    Some(subscription) if subscription.rate() == Some(rate) => Hold::Stays,
                    Some(_) => Hold::LetGo,
                }
            };
            if !session.is_held_at(settling.held) {
                return true;
            }
            if !steps.take(1) {
                return false;
            }
            session.sift_held(&mut settling.held, judge, now.mono_ns);
        }
    }
}

/// What it takes to read a message.
fn steps_to_read(text: &str) -> usize {
    STEPS_PER_REQUEST + text.len() / BYTES_PER_STEP
}
