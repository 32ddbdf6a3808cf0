//! Standing for election: when a leader is gone, resigned or provably dead, the members of the ISR
//! stand in turn, the one with the longest log first.

use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::election::{Occasion, elected, may_stand, noted};
use bellwether_coordinator::records::{QueueState, Trigger};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch};
use bellwether_protocol::peer::Position;

use crate::{CasOutcome, Effect, Replica, Role};

/// How much longer each member waits for those before it to stand, for each queue that lost the same leader: the coordinator carries
/// out some thousand elections a second, and a member that does not wait for its turn stands in vain, at their cost.
const CROWD_STEP: Duration = Duration::from_micros(600);
/// The same for any number of queues: those before it may not be able to stand at all.
const CROWD_MAX: Duration = Duration::from_secs(3);

/// How much longer, of that, one that has not answered is waited for. It may be gone as well, and nobody know it yet.
const CROWD_LISTEN_MAX: Duration = Duration::from_secs(1);

/// A CAS to lead is under way, and the old epoch is not answered.
#[derive(Debug)]
pub(crate) struct Standing {
    pub old_epoch: Epoch,
    /// The version the CAS names.
    pub version: Version,
    pub proposal: QueueState,
    /// What had been stopped before, to go back to when the CAS is decided against.
    pub answered_before: Option<Epoch>,
    /// When to send the CAS again while nobody knows what became of it.
    pub resend_at: Option<Instant>,
    /// The old leader had resigned: it delivers nothing any more.
    pub after_resignation: bool,
}

impl Standing {
    pub fn cas(&self) -> Effect {
        Effect::Cas { version: self.version, state: self.proposal.clone() }
    }
}

/// There is a reason to stand; positions are being gathered.
#[derive(Debug)]
pub(crate) struct Candidacy {
    /// The version of the state that gave the reason.
    version: Version,
    since: Instant,
    /// When it was first known that another leader is needed.
    noticed: Instant,
    /// Brokers asked that have not answered yet.
    unheard: Vec<BrokerId>,
    /// What the others hold.
    heard: Vec<Position>,
}

impl Replica {
    /// Whether the state gives a reason to stand, and this member may; but for its disk.
    pub(crate) fn may_stand(&self) -> bool {
        let (Some(seen), Some(life)) = (&self.seen, self.life) else { return false };
        if !self.connected
            || !self.verified
            || !may_stand(&seen.state, self.identity.member)
            || !matches!(self.role, Role::Idle | Role::Following(_))
        {
            return false;
        }
        match seen.state.leader {
            None => true,
            // An own earlier life: a new one begins only when it is gone.
            Some(leader) if leader.broker == life.broker => leader != life,
            Some(leader) => self.has_departed(leader),
        }
    }

    pub(crate) fn consider_standing(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.leaves_it_to_others(now) || !self.may_stand() {
            self.candidacy = None;
            return;
        }
        let Some(seen) = &self.seen else { return };
        let version = seen.version;
        if self.candidacy.as_ref().is_none_or(|candidacy| candidacy.version != version) {
            let others = self.other_members(&seen.state);
            if !others.is_empty() {
                effects.push(Effect::AskPositions { brokers: others.clone() });
            }
            let noticed = self.candidacy.as_ref().map_or(now, |candidacy| candidacy.noticed);
            let (unheard, heard) = (others, Vec::new());
            self.candidacy = Some(Candidacy { version, since: now, noticed, unheard, heard });
        }
        self.stand_when_due(now, effects);
    }

    /// The other members of the ISR that may be alive.
    fn other_members(&self, state: &QueueState) -> Vec<BrokerId> {
        let leader = state.leader.map(|life| life.broker);
        state
            .isr
            .iter()
            .map(|member| member.broker)
            .filter(|broker| *broker != self.identity.member.broker && Some(*broker) != leader)
            .collect()
    }

    pub(crate) fn heard_position(
        &mut self,
        now: Instant,
        from: BrokerLife,
        position: Position,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.highest_epoch();
        if position.seen > known {
            self.doubt(now, effects);
        }
        self.force_heard(now, from, position.member, effects);
        if let Some(candidacy) = &mut self.candidacy {
            candidacy.unheard.retain(|broker| *broker != position.member.broker);
            candidacy.heard.retain(|heard| heard.member != position.member);
            candidacy.heard.push(position);
            self.consider_standing(now, effects);
        }
    }

    /// This many queues lose this leader at once, this one among them. It is only about when a member stands that others go before.
    pub fn crowd(&mut self, leader: BrokerLife, queues: usize) {
        let queues = u32::try_from(queues).unwrap_or(u32::MAX);
        self.crowd = Some((leader, CROWD_STEP.saturating_mul(queues).min(CROWD_MAX)));
    }

    /// In turn: the longest log at once, each other a step later; first a step for the answers to come in.
    fn stand_when_due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Some(candidacy), Some(seen)) = (&self.candidacy, &self.seen) else { return };
        let step = self.timing.stand_step;
        let crowd = self.crowd.filter(|(leader, _)| seen.state.leader == Some(*leader));
        let crowd = crowd.map_or(Duration::ZERO, |(_, longer)| longer);
        // A member that does not answer is not waited for any longer than this.
        let listening = if candidacy.unheard.is_empty() {
            Duration::ZERO
        } else if self.awaits_one_before(candidacy, &seen.state) {
            2 * step + crowd.min(CROWD_LISTEN_MAX)
        } else {
            step
        };
        let rank = u32::try_from(self.rank(candidacy, &seen.state)).unwrap_or(u32::MAX);
        let due = candidacy.since + listening + (step + crowd) * rank;
        if now >= due {
            self.stand(now, effects);
        }
    }

    /// Whether one that has not answered would go first if its log is as long: when thousands of queues ask at once, the answers take
    /// longer than a step, and all would take themselves for the first.
    fn awaits_one_before(&self, candidacy: &Candidacy, state: &QueueState) -> bool {
        let mine = place(state, self.identity.member.broker);
        let is_dead = |broker: BrokerId| {
            let mut dead = self.departed.iter().chain(&self.taken_for_dead);
            dead.any(|life| life.broker == broker)
        };
        candidacy.unheard.iter().any(|one| place(state, *one) < mine && !is_dead(*one))
    }

    /// How many of those heard go before this one: longer log first, then the order of the replica set.
    fn rank(&self, candidacy: &Candidacy, state: &QueueState) -> usize {
        let me = self.identity.member;
        let mine = (self.log.epochs.last().unwrap_or_default(), self.log.end);
        candidacy
            .heard
            .iter()
            .filter(|other| state.isr.contains(&other.member) && other.member != me)
            .filter(|other| {
                let theirs = (other.last_epoch, other.log_end);
                let earlier = place(state, other.member.broker) < place(state, me.broker);
                theirs > mine || (theirs == mine && earlier)
            })
            .count()
    }

    fn stand(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Some(seen), Some(life)) = (self.seen.clone(), self.life) else { return };
        let old_epoch = seen.state.epoch;
        let after_resignation = seen.state.leader.is_none();
        let me = self.identity.member;
        let leader =
            seen.state.leader.map(|leader| leader.broker).filter(|leader| *leader != me.broker);
        let Ok(proposal) = elected(&seen.state, life, me, |member| Some(member.broker) == leader)
        else {
            return;
        };
        let noticed = self.candidacy.as_ref().map_or(now, |candidacy| candidacy.noticed);
        let proposal =
            noted(&seen.state, proposal, self.occasion(now, self.trigger(&seen.state), noticed));
        let answered_before = self.stopped_answering;
        // First it stops answering and promising, then it asks to lead: in the other order the old leader
        // could still confirm with this member's word what this member's log will not have.
        if let Role::Following(following) = &self.role {
            effects.push(Effect::Unsubscribe { leader: following.leader, epoch: following.epoch });
        }
        self.stop_answering(now, old_epoch);
        self.candidacy = None;
        let standing = Standing {
            old_epoch,
            version: seen.version,
            proposal,
            answered_before,
            resend_at: None,
            after_resignation,
        };
        effects.push(standing.cas());
        self.role = Role::Standing(standing);
    }

    fn trigger(&self, state: &QueueState) -> Trigger {
        match state.leader {
            None => Trigger::Resigned,
            Some(leader) if self.taken_for_dead.contains(&leader) => Trigger::ProcessGone,
            // Also an own earlier life: a new one begins only when it is gone.
            Some(_) => Trigger::SessionExpired,
        }
    }

    /// What is to be remembered of an election. Made once for a proposal: sent again it has to be the same.
    pub(crate) fn occasion(&self, now: Instant, trigger: Trigger, noticed: Instant) -> Occasion {
        let took = now.saturating_duration_since(noticed).as_millis();
        Occasion { trigger, at_ms: self.wall_ms, took_ms: u64::try_from(took).unwrap_or(u64::MAX) }
    }

    pub(crate) fn stand_answered(
        &mut self,
        now: Instant,
        outcome: CasOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Standing(standing) = &mut self.role else { return };
        match outcome {
            CasOutcome::Done { version } => {
                let state = standing.proposal.clone();
                self.read(now, state, version, true, effects);
            }
            // The version had moved, perhaps by an earlier sending of this very CAS: the state tells.
            CasOutcome::Refused => {
                standing.resend_at = None;
                self.doubt(now, effects);
            }
            CasOutcome::Undecided | CasOutcome::NotSent => {
                standing.resend_at = Some(now + self.timing.stand_step);
            }
        }
    }

    pub(crate) fn stand_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let connected = self.connected;
        let Role::Standing(standing) = &mut self.role else { return };
        if connected && standing.resend_at.is_some_and(|at| now >= at) {
            standing.resend_at = None;
            let again = standing.cas();
            effects.push(again);
        }
    }
}

/// Brokers outside the replica set, of which one may be in sync yet, come last.
fn place(state: &QueueState, broker: BrokerId) -> usize {
    state.replicas.iter().position(|one| *one == broker).unwrap_or(usize::MAX)
}
