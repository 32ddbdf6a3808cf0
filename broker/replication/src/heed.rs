//! Heeding the state that the coordinator holds: whether it can be believed, and which role it asks for.

use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::BrokerLife;

use crate::{Effect, Replica, Role, Seen};

impl Replica {
    /// A state was read. Never goes back to a lower version than one it has seen.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        state: QueueState,
        version: Version,
        synced: bool,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(seen) = &self.seen {
            if version < seen.version {
                return;
            }
            if state.epoch < seen.state.epoch {
                return self.stop(
                    format!(
                        "the coordinator holds epoch {} although epoch {} was seen: it was restored to an older state. Restore its newer state, or recover this queue by hand",
                        state.epoch, seen.state.epoch
                    ),
                    effects,
                );
            }
        }
        if let Some(last) = self.log.epochs.last().filter(|last| *last > state.epoch) {
            // A server that lags shows an older state, which accuses nobody. Only a synced read does.
            if !synced {
                return self.doubt(now, effects);
            }
            return self.stop(
                format!(
                    "the coordinator holds epoch {} although the log here has epoch {last}: it was restored to an older state. Restore its newer state, or recover this queue by hand",
                    state.epoch
                ),
                effects,
            );
        }
        if let Some((epoch, before)) = self.abandoned.filter(|_| synced) {
            // The session that the CAS was sent in is over: it can no longer apply. If the old epoch
            // still stands, it may be answered again.
            self.abandoned = None;
            if state.epoch == epoch && self.stopped_answering == Some(epoch) {
                self.stopped_answering = before;
            }
        }
        self.seen = Some(Seen { state, version });
        self.verified |= synced && self.life.is_some();
        if self.verified {
            self.reread_after = None;
            self.act_on_state(now, effects);
            self.resignation_read(now, effects);
            self.consider_parting(now, effects);
        } else if self.life.is_some() {
            self.doubt(now, effects);
        }
    }

    /// Takes the role that the last state read asks for.
    fn act_on_state(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Some(seen), Some(life)) = (self.seen.clone(), self.life) else { return };
        let epoch = seen.state.epoch;
        match &mut self.role {
            Role::Stopped { .. } => return,
            Role::Leading(leading) if leading.epoch == epoch && !leading.is_leaving() => {
                if seen.state.leader == Some(life) {
                    return self.isr_read(now, effects);
                }
                // Only this broker writes the state in its epoch: it has resigned.
            }
            Role::Leading(leading) if leading.epoch == epoch => {
                return self.leaving_read(now, effects);
            }
            Role::Standing(standing) => {
                if seen.version <= standing.version {
                    // The CAS may apply yet: a read of the old version decides nothing.
                    return;
                }
                if epoch == standing.old_epoch {
                    // Decided against it, and the old epoch goes on: it may be answered again.
                    let before = standing.answered_before;
                    self.stopped_answering = before;
                    self.role = Role::Idle;
                }
            }
            Role::Following(following)
                if following.epoch == epoch && Some(following.leader) == seen.state.leader =>
            {
                return self.consider_standing(now, effects);
            }
            Role::Parting(parting) if seen.version <= parting.version => return,
            Role::Idle | Role::Following(_) | Role::Leading(_) | Role::Parting(_) => {}
        }
        self.take_role(now, &seen.state, life, effects);
    }

    fn take_role(
        &mut self,
        now: Instant,
        state: &QueueState,
        life: BrokerLife,
        effects: &mut Vec<Effect>,
    ) {
        let won = matches!(&self.role, Role::Standing(standing) if standing.old_epoch < state.epoch && state.leader == Some(life));
        match state.leader {
            Some(leader) if leader == life => {
                if self.is_named_for_lost_log(state) {
                    let store = self.identity.member.store;
                    let why = "its log on this broker is damaged, and it was named as leader before that was known";
                    return self.lose_log(now, store, why.to_owned(), effects);
                }
                if !state.isr.contains(&self.identity.member) {
                    let why = "the coordinator names this broker as leader, but its copy is not in the in-sync set";
                    return self.stop(why.to_owned(), effects);
                }
                if !self.may_answer(state.epoch) || self.log.epochs.last() == Some(state.epoch) {
                    // Led before and left, in this or an earlier life of the process: never resumed.
                    self.leave_role(now, effects);
                    return self.consider_standing(now, effects);
                }
                if self.declines(now, won, effects) {
                    return;
                }
                self.lead(now, state.clone(), won, effects);
            }
            Some(leader) if leader.broker != life.broker && self.may_answer(state.epoch) => {
                self.leave_role(now, effects);
                self.candidacy = None;
                self.follow(now, leader, state.epoch, effects);
                self.consider_standing(now, effects);
            }
            Some(_) | None => {
                self.leave_role(now, effects);
                self.consider_standing(now, effects);
            }
        }
    }
}
