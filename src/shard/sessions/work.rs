//! Requests are carried out in portions, counted in [steps](crate::shard::steps::Steps), so that no turn is long. A session
//! has one request under way at most, and is not read from until it is answered; sessions take turns. So do those that have to
//! be sent what their subscriptions lack. What is gone is taken out of the tables in portions, too.

use super::change::{Setting, Unsubscribing};
use super::listing::{Listing, SymbolListing};
use super::subscribe::Subscribing;
use super::{Connection, Sessions};
use crate::model::tick::Channel;
use crate::protocol::close::Close;
use crate::protocol::json as message;
use crate::protocol::{self, Op, Request, Selector, Subscribe};
use crate::shard::allowance::Admission;
use crate::shard::directory::Forgotten;
use crate::shard::socket::Socket;
use crate::system::faults;
use crate::time::clock::Now;

/// Steps of a request, whatever it asks for.
const STEPS_PER_REQUEST: usize = 8;
/// Bytes of a message that are read in one step.
const BYTES_PER_STEP: usize = 128;
/// The longest message over the allowance of its client of which the `id` is read, bytes.
const NAMED_BYTES_MAX: usize = 1_024;

/// What a session has under way.
pub(super) enum Work {
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

impl<S: Socket> Sessions<S> {
    /// Takes in one message of a client: it is answered now, or in one of the next turns, and until then the client does not
    /// [want](Self::wants) to be read from.
    pub fn request(&mut self, id: u32, text: &str, now: Now) {
        self.env.counters.requests.add(1);
        faults::inject(text.as_bytes());
        let admission = match self.connections.get(id) {
            Some(connection) if connection.request.work.is_some() => Admission::Refused,
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
        let bytes = wanted.symbols.iter().map(Selector::bytes).sum();
        if self.admit(id, bytes, now) == Admission::Granted {
            self.begin(id, Work::Subscribe(Box::new(Subscribing::new(None, wanted))), now);
        }
    }

    /// Answers a message over the allowance of its client. A long one is not read.
    fn refuse(&mut self, id: u32, text: &str, now: Now) {
        self.env.counters.faults.add(1);
        let name = match text.len() {
            0..=NAMED_BYTES_MAX => protocol::parse(text, NAMED_BYTES_MAX).map_or_else(|f| f.id, |r| r.id),
            _ => None,
        };
        let msg = format!("more than {} requests a second", self.env.options.limits.ops_per_s);
        self.say(id, &message::error(name.as_ref(), "rate_limited", &msg, true), now);
    }

    /// Reads a request and begins with it: what is left to do.
    fn read_request(&mut self, id: u32, text: &str, now: Now) -> Option<Work> {
        let Request { id: name, op } = match protocol::parse(text, self.named_at_once()) {
            Ok(request) => request,
            Err(fault) => {
                self.env.counters.faults.add(1);
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
        connection.request.work = Some(Box::new(work));
        self.steps.begin_slice();
        self.go_on_working(id, now);
        self.steps.end_slice();
    }

    /// A session leaves: its request is given up, and its subscriptions end.
    pub(super) fn leave_all(&mut self, id: u32, now: Now) {
        let is_subscribed =
            |sessions: &Self| sessions.connections.get(id).is_some_and(|c| c.holdings.is_subscribed());
        let was_subscribed = is_subscribed(self);
        self.drop_wildcards(id, |_| true);
        if was_subscribed && !is_subscribed(self) {
            self.env.counters.subscribed.sub(1);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.progress.reading = None;
        connection.request.waits_for = None;
        self.begin(id, Work::Leave, now);
    }

    /// Goes on with what a session has under way. It is paid by its allowance.
    fn go_on_working(&mut self, id: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(mut work) = connection.request.work.take() else { return };
        let (taken, was_subscribed) = (self.steps.taken(), connection.holdings.is_subscribed());
        let is_done = self.advance(id, &mut work, now);
        self.charge(id, (self.steps.taken() - taken) as usize);
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (was_subscribed, connection.holdings.is_subscribed()) {
            (false, true) => self.env.counters.subscribed.add(1),
            (true, false) => self.env.counters.subscribed.sub(1),
            _ => {}
        }
        if is_done {
            self.recover(id, now);
        } else {
            connection.request.work = Some(work);
            if connection.request.waits_for.is_none() {
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
    pub(super) fn put_to_work(&mut self, id: u32) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.put_to_work(id, &mut self.workload);
        }
    }

    /// Goes on with what a session has under way, by a slice of the steps.
    pub(super) fn work_on(&mut self, id: u32, now: Now) {
        let has_work =
            |sessions: &Self| sessions.connections.get(id).is_some_and(|c| c.request.work.is_some());
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
    pub(super) fn work(&mut self, now: Now) {
        self.forget_those_gone();
        self.go_on_with_long_answers();
        // The rest of the steps is for what rates let go, and for those that resume.
        while !self.steps.are_few()
            && let Some((id, serial)) = self.workload.next()
        {
            let Some(connection) = self.connections.get_mut(id).filter(|c| c.serial == serial) else {
                continue;
            };
            connection.request.at_work = false;
            self.steps.begin_slice();
            self.recover(id, now);
            if self.connections.get(id).is_none_or(|connection| connection.request.waits_for.is_some()) {
                continue;
            }
            let taken = self.steps.taken();
            self.work_on(id, now);
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.request.work.is_some()
                && connection.request.waits_for.is_none()
                && self.steps.taken() == taken
            {
                // What is next needs more than is left: it comes first in the next turn.
                self.workload.last_comes_first();
                break;
            }
        }
        self.steps.end_slice();
    }

    /// True while subscriptions have to take instruments, or what they missed, before the ring is read.
    pub(super) fn is_catching_up(&self) -> bool {
        self.has_to_learn() || self.directory.is_sweeping()
    }

    /// True while something is left that was to be done in portions.
    pub(in crate::shard) fn has_work(&self) -> bool {
        self.workload.can_go_on() || self.directory.has_left_behind() || self.is_catching_up()
    }

    /// Takes some of what a session that leaves has out of the tables. True when nothing is left.
    fn go_on_leaving(&mut self, id: u32) -> bool {
        loop {
            let Some(connection) = self.connections.get(id) else { return true };
            if let Some(key) = connection.holdings.first() {
                if !self.steps.take(1) {
                    return false;
                }
                self.end_subscription(id, key);
            } else if let Some(symbol) = connection.holdings.awaited_behind(None) {
                if !self.steps.take(1) {
                    return false;
                }
                self.stop_awaiting(id, &symbol, &Channel::ALL);
            } else {
                return true;
            }
        }
    }

    /// What is left of a session that was removed is taken out of the tables in the next turns.
    pub(super) fn leave_behind(&mut self, id: u32, gone: &mut Connection<S>) {
        if gone.holdings.is_subscribed() {
            self.env.counters.subscribed.sub(1);
        }
        self.directory.set_wild(id, false);
        let (places, awaited) = gone.holdings.take();
        if places.is_empty() && awaited.is_empty() {
            self.connections.free(id);
        } else {
            self.directory.leave_behind(id, places, awaited);
        }
    }

    /// Takes some of what is left of sessions that were removed out of the tables.
    fn forget_those_gone(&mut self) {
        while self.directory.has_left_behind() {
            if !self.steps.take_of_half(1) {
                return;
            }
            match self.directory.forget_one() {
                Some(Forgotten::Subscription { key, place, moved: Some(moved) }) => {
                    self.moved(moved, key, place);
                }
                Some(Forgotten::Session(id)) => self.connections.free(id),
                Some(Forgotten::Subscription { .. } | Forgotten::Symbol) | None => {}
            }
        }
    }

    /// A message of so many bytes has come from a client.
    pub(super) fn admit(&mut self, id: u32, bytes: usize, now: Now) -> Admission {
        let ops_per_s = self.env.options.limits.ops_per_s;
        let Some(connection) = self.connections.get_mut(id) else { return Admission::Refused };
        connection.request.allowance.admit(bytes, ops_per_s, now.mono_ns)
    }

    /// Takes what a request cost beyond itself out of the session's allowance: one request for each 256 steps that it
    /// made the shard take. It may have to wait for some seconds then.
    pub(super) fn charge(&mut self, id: u32, steps: usize) {
        let ops_per_s = self.env.options.limits.ops_per_s;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.request.allowance.charge(steps as u64, ops_per_s);
        }
    }
}

/// What it takes to read a message.
fn steps_to_read(text: &str) -> usize {
    STEPS_PER_REQUEST + text.len() / BYTES_PER_STEP
}
