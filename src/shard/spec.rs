//! What a session wants of an instrument.

use super::plan::Plan;
use super::start::StartAt;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, State};
use crate::protocol::DeliveryPolicy;

/// A channel of an instrument as a session wants it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubscribeSpec<'a> {
    channel: Channel,
    policy: DeliveryPolicy,
    /// It is asked for by its name.
    named: bool,
    /// Where it begins, unless the plan knows better.
    start: StartAt,
    plan: Option<&'a Plan>,
}

impl<'a> SubscribeSpec<'a> {
    /// A channel with this policy, `named` or by a wildcard, which begins where the plan says, or else there.
    pub(super) fn new(
        channel: Channel,
        policy: DeliveryPolicy,
        named: bool,
        start: StartAt,
        plan: Option<&'a Plan>,
    ) -> Self {
        Self { channel, policy, named, start, plan }
    }

    /// A channel of an instrument of which nothing was sent yet: it is sent from its first number on.
    pub(super) fn of_new(channel: Channel, policy: DeliveryPolicy, named: bool) -> Self {
        Self::new(channel, policy, named, StartAt::FromFirst, None)
    }

    /// The same with another policy.
    pub(super) fn with_policy(self, policy: DeliveryPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The channel.
    pub(super) fn channel(&self) -> Channel {
        self.channel
    }

    /// The policy.
    pub(super) fn policy(&self) -> DeliveryPolicy {
        self.policy
    }

    /// Whether it is asked for by its name.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Where it begins on an instrument, the shard having read the ring up to `cursor`.
    pub(super) fn start_of(&self, instrument: InstrumentId, cursor: u64) -> StartAt {
        self.plan.and_then(|plan| plan.start(instrument, cursor)).unwrap_or(self.start)
    }

    /// Where the state of an instrument begins. The session has the channel already, or not; its answer `showed` a state;
    /// clients are shown the state `now`, of this number.
    pub(super) fn start_of_state(
        &self,
        instrument: InstrumentId,
        (had, cursor): (bool, u64),
        showed: Option<State>,
        (now, number): (State, u64),
    ) -> StartAt {
        // What is there already goes on as it is, and the answer shows its state.
        let plan = self.plan.filter(|_| !had);
        let goes_on = plan.is_some_and(|plan| plan.start(instrument, cursor).is_some());
        let showed = showed.filter(|_| self.named || !goes_on);
        // It is not called live before its prices are.
        if let Some(past) = plan.and_then(Plan::past) {
            return StartAt::Past(past.beginning());
        }
        // It may change at any moment: what is not shown has another number.
        match self.start {
            StartAt::FromFirst => StartAt::FromFirst,
            _ if showed == Some(now) => StartAt::After(number),
            _ => StartAt::Snapshot,
        }
    }
}
