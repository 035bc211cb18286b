//! Reports to the flight recorder: the states of slow clients, clients that are cut, and clients that were sent a gap.

use super::{Connection, Sessions};
use crate::model::tick::Key;
use crate::ops::flight::{Cause, Client, ClientSnapshot, Incident, IncidentReporter};
use crate::session::{Kernel, Missing, Verdict};
use crate::shard::socket::Socket;
use crate::system::counters::Ending;
use crate::time::clock::{MS, Now};

impl<S: Socket> Sessions<S> {
    /// Reports incidents here from now on.
    pub fn report_incidents_to(&mut self, reporter: IncidentReporter) {
        self.reporter = reporter;
    }

    /// Notes the state of a client. Nothing is kept of a client that keeps up.
    pub(super) fn note(&mut self, id: u32, verdict: Verdict, kernel: Kernel, now: Now) {
        let Some(span_us) = self.reporter.span_us() else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if verdict.at_ease {
            connection.history = None;
        } else {
            let state = connection.state(kernel, now);
            connection.history.get_or_insert_default().note(state, span_us);
        }
    }

    /// Reports that a client is about to be cut, with this code.
    pub(super) fn saw_cut(&mut self, id: u32, why: Ending, code: u16, now: Now) {
        self.tell_incident(id, now, || Cause::Cut { why, code });
    }

    /// Reports that a client was sent a gap because it, or this shard, was slow.
    #[cold]
    pub(super) fn saw_gap(&mut self, id: u32, key: Key, missing: Missing, now: Now) {
        let Missing { from, to, why } = missing;
        self.tell_incident(id, now, || Cause::Gap { key, from, to, why });
    }

    fn tell_incident(&mut self, id: u32, now: Now, cause: impl FnOnce() -> Cause) {
        self.reporter.tell(now.mono_ns, || Incident {
            at_ns: now.wall_ns,
            position: self.env.ring.published(),
            cause: cause(),
            client: self.connections.get_mut(id).map(|connection| connection.past(now)),
        });
    }
}

impl<S: Socket> Connection<S> {
    /// The state of the client now.
    fn state(&self, kernel: Kernel, now: Now) -> ClientSnapshot {
        let ledger = self.session.ledger();
        ClientSnapshot {
            at_us: now.wall_ns / 1_000,
            level: self.session.level(),
            behind_ms: self.session.behind_ns(now.mono_ns) / MS,
            queued_bytes: self.session.outbox().len() as u64,
            kernel_unsent_bytes: kernel.unacked,
            waiting: self.session.waiting() as u64,
            sent: ledger.sent,
            merged: ledger.merged,
            dropped: ledger.dropped,
        }
    }

    /// The client with its states up to now.
    fn past(&self, now: Now) -> Client {
        let state = self.state(Kernel { unacked: self.socket.unacked() }, now);
        let history = self.history.as_ref();
        Client {
            session: self.who.name.clone(),
            peer: self.who.peer.map(|peer| peer.to_string()),
            since_us: self.since_us,
            subscriptions: self.holdings.on_channels().count(),
            states: history.map_or_else(|| vec![state], |history| history.until(state)),
        }
    }
}
