//! All sessions of a shard, and the operations on them.
//!
//! [`Sessions`] and [`Connection`] consist of parts. The modules below hold the operations that need several parts. A
//! part with rules of its own is a module of [`shard`](super), and operations use only its methods. The groups of flags
//! that are declared here have no rules, so operations set them directly.

mod answering;
mod awaiting;
mod change;
mod clocks;
mod coming;
mod connection;
mod connections;
mod fan_out;
mod incidents;
mod interest;
mod leaving;
mod listing;
mod memory;
mod names;
mod pongs;
mod pressure;
mod rates;
mod readers;
mod reading;
mod recovery;
mod replaying;
mod report;
mod resume;
mod settling;
mod subscribe;
mod turn;
mod work;
mod writing;

use std::rc::Rc;
use std::sync::Arc;

use connections::Connections;
use work::Work;

use super::allowance::Allowance;
use super::backfill::Backfill;
use super::deadlines::Deadlines;
use super::directory::Directory;
use super::egress::Egress;
use super::ending::Parting;
use super::holdings::Holdings;
use super::options::SessionOptions;
use super::pongs::{HeldPings, Pings};
use super::reading::Reading;
use super::replay_status::ReplayStatus;
use super::shortage::Shortage;
use super::socket::{ClientInfo, Socket};
use super::steps::Steps;
use super::surroundings::Surroundings;
use super::workload::Workload;
use crate::history::HistoryClient;
use crate::latency::Log2Histogram;
use crate::latency::meter::Meter;
use crate::model::instrument::InstrumentTable;
use crate::ops::flight::{ClientHistory, IncidentReporter};
use crate::ring::TickRing;
use crate::session::{Policy, Session};
use crate::system::counters::{Ending, ShardCounters};
use crate::time::clock::Clock;

/// All sessions of one shard, with the state that they share.
pub struct Sessions<S> {
    env: Environment,
    connections: Connections<S>,
    /// What they are subscribed to.
    directory: Directory,
    /// The output to them.
    egress: Egress,
    /// Their deadlines.
    deadlines: Deadlines,
    /// What rereading sessions share.
    backfill: Backfill,
    /// The step budget of the turn.
    steps: Steps,
    /// Their work that is done in portions.
    workload: Workload,
    /// Pings that wait for the ring to be read.
    held_pings: HeldPings,
    replay_status: ReplayStatus,
    /// Where incidents are reported.
    reporter: IncidentReporter,
    shortage: Shortage,
    /// The state of the feed and of the clocks.
    surroundings: Surroundings,
    /// The shard is ending: rates hold nothing back any more.
    draining: bool,
}

/// What the sessions of a shard are given when they are created.
struct Environment {
    options: SessionOptions,
    policy: Rc<Policy>,
    table: Arc<InstrumentTable>,
    ring: TickRing,
    clock: Clock,
    counters: Arc<ShardCounters>,
}

/// A session with its socket.
///
/// It is in no near cache when a write begins. So the fields that a write needs come first, on whole cache lines, up to
/// the first fields of [`Session`].
#[repr(C, align(64))]
struct Connection<S> {
    progress: Progress,
    link: Link,
    /// Unique in this shard, unlike the number of a connection, which is reused.
    serial: u64,
    socket: S,
    session: Session,
    who: Box<ClientInfo>,
    /// When it connected, microseconds since the Unix epoch.
    since_us: u64,
    /// What it is subscribed to.
    holdings: Holdings,
    request: RequestState,
    /// Pings that wait for what has to be sent before their answers.
    pings: Pings,
    /// Total latency of its ticks, waits for its own socket included. `None` before the first measurement.
    way: Option<Box<Log2Histogram>>,
    /// Its states since it last kept up, if incidents are recorded.
    history: Option<Box<ClientHistory>>,
    /// When the kernel may be asked next about the client's host, steady time.
    ask_kernel_ns: u64,
}

const _: () = assert!(
    std::mem::offset_of!(Connection<usize>, session) == 64,
    "what comes before the session is on one line of memory"
);

/// How far a connection is behind the shard, besides what waits in its session.
struct Progress {
    /// What it rereads, while it resumes or catches up.
    reading: Option<Box<Reading>>,
    /// How many ticks it missed while catching up. Set once it has caught up, until it is sent `joined`.
    seam: Option<u64>,
    /// The version of the [`ReplayStatus`] that it was sent.
    status: u64,
    /// It is one of the [readers](super::readers).
    reads: bool,
}

/// The state of the socket of a connection.
struct Link {
    /// It is checked periodically, because its socket was full.
    watched: bool,
    /// The socket failed, or did not take the last frames in time.
    dead: bool,
    /// Its back-pressure level was above `ok` at some time.
    slowed: bool,
    /// Why it ends, once it does.
    ending: Option<Ending>,
    /// How the socket closes then.
    parting: Parting,
}

/// What a client may request, and what it has requested.
struct RequestState {
    /// The request that is under way: until it is answered, the client is not read from.
    work: Option<Box<Work>>,
    /// What that request waits for, besides its turn.
    waits_for: Option<WaitsFor>,
    /// It waits for a turn in the [`Workload`].
    at_work: bool,
    /// What it may still request.
    allowance: Allowance,
}

/// What a request under way waits for, besides its turn. It gets no turn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// The index of the ring, for a `resume`.
    Plan,
    /// A permit to write a long answer.
    LongAnswer,
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
        Self {
            connections: Connections::default(),
            directory: Directory::new(table.len()),
            egress: Egress::new(options.frame_ring_bytes),
            deadlines: Deadlines::default(),
            backfill: Backfill::new(options.reread_per_turn),
            steps: Steps::new(options.limits.steps_per_turn_max),
            workload: Workload::default(),
            held_pings: HeldPings::default(),
            replay_status: ReplayStatus::default(),
            reporter: IncidentReporter::off(),
            shortage: Shortage::default(),
            surroundings: Surroundings::default(),
            draining: false,
            env: Environment { policy: Rc::new(options.policy), options, table, ring, clock, counters },
        }
    }

    /// Measures with this meter from now on.
    pub fn measure_with(&mut self, meter: Meter) {
        self.egress.measure_with(meter);
    }

    /// Sets the source of ticks that the ring no longer holds.
    pub fn read_past_at(&mut self, client: HistoryClient) {
        self.backfill.read_history_at(client);
    }

    /// Hands over all that was measured.
    pub(super) fn end_measuring(&mut self) {
        let now = self.env.clock.now();
        let machine_ns = self.env.clock.machine_ns(now.mono_ns);
        self.egress.meter().end(machine_ns);
    }

    /// The options and limits of the sessions.
    pub(super) fn options(&self) -> &SessionOptions {
        &self.env.options
    }

    /// The counters of the shard.
    pub(super) fn counters(&self) -> &ShardCounters {
        &self.env.counters
    }

    /// Whether the shard is ending.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Steps taken since the shard began. Between the beginnings of two turns, at most
    /// [`steps_per_turn_max`](super::ClientLimits::steps_per_turn_max) are added.
    pub fn steps(&self) -> u64 {
        self.steps.taken()
    }

    /// True when no session is left.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    fn ids(&self) -> Vec<u32> {
        self.connections.iter().map(|(id, _)| id).collect()
    }
}
