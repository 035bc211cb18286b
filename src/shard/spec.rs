//! What a session wants of an instrument.

use super::plan::Plan;
use super::start::StartAt;
use crate::model::instrument::InstrumentId;
use crate::model::tick::{Channel, State};
use crate::protocol::DeliveryPolicy;

/// How a session subscribes to a channel of an instrument.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubscribeSpec<'a> {
    channel: Channel,
    policy: DeliveryPolicy,
    /// The client requested it by name.
    named: bool,
    /// Where it begins, unless the plan says otherwise.
    start: StartAt,
    plan: Option<&'a Plan>,
}

impl<'a> SubscribeSpec<'a> {
    /// A channel with this policy, `named` or by a wildcard. It begins where the plan says, or else at `start`.
    pub(super) fn new(
        channel: Channel,
        policy: DeliveryPolicy,
        named: bool,
        start: StartAt,
        plan: Option<&'a Plan>,
    ) -> Self {
        Self { channel, policy, named, start, plan }
    }

    /// A channel of a newly listed instrument: it is sent from its first sequence number on.
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

    /// Whether the client requested it by name.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Where it begins on an instrument, with the shard at `cursor`.
    pub(super) fn start_of(&self, instrument: InstrumentId, cursor: u64) -> StartAt {
        self.plan.and_then(|plan| plan.start(instrument, cursor)).unwrap_or(self.start)
    }

    /// Where the state of an instrument begins. `had`: the session has the channel already. `showed`: the state in the
    /// answer. `now`: the state that clients are shown now, with its number.
    pub(super) fn start_of_state(
        &self,
        instrument: InstrumentId,
        (had, cursor): (bool, u64),
        showed: Option<State>,
        (now, number): (State, u64),
    ) -> StartAt {
        // A subscription that exists already continues as it is, and the answer shows its state.
        let plan = self.plan.filter(|_| !had);
        let goes_on = plan.is_some_and(|plan| plan.start(instrument, cursor).is_some());
        let showed = showed.filter(|_| self.named || !goes_on);
        // The state is not live before the prices are.
        if let Some(past) = plan.and_then(Plan::past) {
            return StartAt::Past(past.beginning());
        }
        // A state that has changed since the answer is sent as a snapshot.
        match self.start {
            StartAt::FromFirst => StartAt::FromFirst,
            _ if showed == Some(now) => StartAt::After(number),
            _ => StartAt::Snapshot,
        }
    }
}
