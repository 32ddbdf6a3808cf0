//! Stopping for good: a copy that cannot keep a promise takes no further part, says why (promise G12), and sees to
//! it that it is not named as leader any more.

use std::time::Instant;

use bellwether_coordinator::election::resigned;

use crate::force::NotForced;
use crate::renew::Trust;
use crate::{CasOutcome, Effect, Event, Replica, Role, Seen};

impl Replica {
    /// The store failed, or invariants of this copy are broken; the other copies may well be sound, and one of them should lead.
    pub(crate) fn stop_and_resign(&mut self, now: Instant, why: String, effects: &mut Vec<Effect>) {
        self.leave_role(now, effects);
        self.stop(why.clone(), effects);
        self.resigns = Some(why);
        self.resign(now, effects);
    }

    /// A replica that has stopped takes no part, but as long as the state names it as leader nobody else may stand.
    pub(crate) fn step_stopped(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Life(life) => self.life = life,
            Event::Connected(connected) => self.connected = connected,
            Event::State { state, version, .. } => {
                let newer = self
                    .seen
                    .as_ref()
                    .is_none_or(|seen| version > seen.version && state.epoch >= seen.state.epoch);
                if newer {
                    self.seen = Some(Seen { state, version });
                    self.reread_after = None;
                }
            }
            Event::Cas { outcome, .. } => {
                if !matches!(outcome, CasOutcome::NotSent) {
                    effects.push(Effect::ReadState);
                }
                return;
            }
            // It may begin anew as another member: then it has to know.
            Event::DiskStalls(stalls) => self.disk.told(stalls),
            Event::DiskReturns => self.disk.returned(),
            // The store, or what is held to be true, is worse off than the log alone.
            Event::StoreFailed { .. } | Event::Broken { .. } => self.trust = Trust::Sound,
            Event::Force(_) => {
                let why = self.stopped().unwrap_or_default().to_owned();
                effects.push(Effect::Forced(Err(NotForced::Unusable { why })));
            }
            Event::Subscribe { from, subscription } => {
                let (epoch, seen) = (subscription.epoch, self.highest_epoch());
                effects.push(Effect::TellNotLeading { to: from, epoch, seen });
            }
            _ => {}
        }
        self.resign(now, effects);
        self.renew(now, effects);
    }

    /// Asks for a state that names nobody, again and again until it names somebody else. Whoever follows one that resigned
    /// delivers at once: not before this one might have (promise G3).
    pub(crate) fn resign(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let waits = |until: Option<Instant>| until.is_some_and(|at| now < at);
        if !self.is_named_and_resigns()
            || !self.connected
            || waits(self.deliver_from)
            || waits(self.reread_after)
        {
            return;
        }
        if let (Some(seen), Some(why)) = (&self.seen, &self.resigns) {
            self.reread_after = Some(now + self.timing.retry * 8);
            effects.push(Effect::Cas { version: seen.version, state: resigned(&seen.state, why) });
        }
    }

    pub(crate) fn is_named_and_resigns(&self) -> bool {
        let named = self.seen.as_ref().and_then(|seen| seen.state.leader);
        self.resigns.is_some() && named.is_some() && named == self.life
    }

    pub(crate) fn stop(&mut self, why: String, effects: &mut Vec<Effect>) {
        match &self.role {
            Role::Leading(leading) => effects.push(Effect::StopLeading { epoch: leading.epoch }),
            Role::Following(following) => {
                effects
                    .push(Effect::Unsubscribe { leader: following.leader, epoch: following.epoch });
            }
            Role::Idle | Role::Standing(_) | Role::Parting(_) | Role::Stopped { .. } => {}
        }
        self.candidacy = None;
        if self.forcing.take().is_some() {
            effects.push(Effect::Forced(Err(NotForced::Unusable { why: why.clone() })));
        }
        self.role = Role::Stopped { why: why.clone() };
        effects.push(Effect::Stopped { why });
    }
}
