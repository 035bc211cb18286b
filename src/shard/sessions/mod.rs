//! All sessions of a shard, and the operations on them.
//!
//! [`Sessions`] consists of parts, and so does a [`Connection`]. The modules below are the operations that need several of
//! them. Parts with rules of their own are modules of [`shard`](super): of these the operations see methods alone. The
//! groups of flags that are declared here have no rules, and the operations set them.

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

/// All sessions of one shard, and what they want.
pub struct Sessions<S> {
    env: Environment,
    connections: Connections<S>,
    /// What they are subscribed to.
    directory: Directory,
    /// What goes out to them.
    egress: Egress,
    /// What is due at some time.
    deadlines: Deadlines,
    /// The means by which they read again.
    backfill: Backfill,
    /// Steps that are left of this turn.
    steps: Steps,
    /// What is done for them in portions.
    workload: Workload,
    /// Pings that wait for the ring to be read.
    held_pings: HeldPings,
    replay_status: ReplayStatus,
    /// Where incidents are reported.
    reporter: IncidentReporter,
    shortage: Shortage,
    /// The feed, and the clocks.
    surroundings: Surroundings,
    /// Nothing is held back any more: the end is near.
    draining: bool,
}

/// What the sessions of a shard are given, and do not change.
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
/// A write meets it in no near cache. So what a write needs comes first, on whole lines of memory, up to the first fields of
/// [`Session`].
#[repr(C, align(64))]
struct Connection<S> {
    progress: Progress,
    link: Link,
    /// No other session of this shard ever has it: the place of a connection is used again.
    serial: u64,
    socket: S,
    session: Session,
    who: Box<ClientInfo>,
    /// When it came, microseconds since the Unix epoch.
    since_us: u64,
    /// What it is subscribed to.
    holdings: Holdings,
    request: RequestState,
    /// Pings that wait for what is sent before their answers.
    pings: Pings,
    /// What the whole way of its ticks took, its own part of it counted. There is none before the first that was measured.
    way: Option<Box<Log2Histogram>>,
    /// How it did since it was last at ease, where incidents are recorded.
    history: Option<Box<ClientHistory>>,
    /// When the kernel may be asked next whether it hears of the other side, steady time.
    ask_kernel_ns: u64,
}

const _: () = assert!(
    std::mem::offset_of!(Connection<usize>, session) == 64,
    "what comes before the session is on one line of memory"
);

/// How far a connection is behind the shard, besides what waits in its session.
struct Progress {
    /// What it reads again, while it resumes or catches up.
    reading: Option<Box<Reading>>,
    /// It has caught up, and is to be sent `joined`, with how many ticks were missed on the way.
    seam: Option<u64>,
    /// The number of the [`ReplayStatus`] that it was sent.
    status: u64,
    /// It is one of the [readers](super::readers).
    reads: bool,
}

/// How the socket of a connection does.
struct Link {
    /// Looked at again and again, because its socket was full.
    watched: bool,
    /// The socket failed, or did not take its last words in time.
    dead: bool,
    /// It was above `ok` at some time.
    slowed: bool,
    /// Why it ends, once it does.
    ending: Option<Ending>,
    /// What becomes of the socket then.
    parting: Parting,
}

/// What a client may ask for, and what it has asked for.
struct RequestState {
    /// The request that is under way: until it is answered, the client is not read from.
    work: Option<Box<Work>>,
    /// What that waits for, besides its turn.
    waits_for: Option<WaitsFor>,
    /// It waits for a turn in the [`Workload`].
    at_work: bool,
    /// Requests that it may still make.
    allowance: Allowance,
}

/// What a request under way waits for, besides its turn: it is not put to work before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitsFor {
    /// The index of the ring, of a `resume`.
    Plan,
    /// That one long answer less is being written.
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

    /// Measures what happens from now on.
    pub fn measure_with(&mut self, meter: Meter) {
        self.egress.measure_with(meter);
    }

    /// Reads what is no longer in the ring here from now on.
    pub fn read_past_at(&mut self, client: HistoryClient) {
        self.backfill.read_history_at(client);
    }

    /// Hands over all that was measured.
    pub(super) fn end_measuring(&mut self) {
        let now = self.env.clock.now();
        let machine_ns = self.env.clock.machine_ns(now.mono_ns);
        self.egress.meter().end(machine_ns);
    }

    /// The figures and limits of the sessions.
    pub(super) fn options(&self) -> &SessionOptions {
        &self.env.options
    }

    /// What the shard counts.
    pub(super) fn counters(&self) -> &ShardCounters {
        &self.env.counters
    }

    /// Whether the shard ends.
    pub(super) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Steps that were taken since the shard began. Between the beginnings of two turns they are at most
    /// [`steps_per_turn_max`](super::ClientLimits::steps_per_turn_max).
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
