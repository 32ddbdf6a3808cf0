//! Leaving in order: a leader that drains takes nothing new, waits until everything is committed, and names a member that
//! holds everything as the next leader.

use std::time::Instant;

use bellwether_coordinator::election::handed_over;

use crate::lead::Pending;
use crate::{Effect, Replica, Role};

impl Replica {
    pub(crate) fn hand_over(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Role::Leading(leading) = &mut self.role {
            leading.leaving = true;
            self.consider_leaving(now, effects);
        }
    }

    /// Whether a hand-over is under way that somebody is there to take.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        leading.leaving
            && self.connected
            && leading
                .others
                .iter()
                .any(|other| other.subscribed && leading.committed.contains(&other.member))
    }

    /// When all that was appended is committed, names a member that holds everything as the next leader. That one delivers at
    /// once: not before this one might have, for until then an older leader may (promise G3).
    pub(crate) fn consider_leaving(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
        let all_committed = self.log.high_watermark == self.log.end && leading.serves;
        if !leading.leaving || leading.pending.is_some() || !all_committed || !self.connected {
            return;
        }
        if now < leading.deliver_from {
            return;
        }
        let end = self.log.end;
        let successor = leading
            .others
            .iter()
            .filter(|other| other.subscribed && leading.committed.contains(&other.member))
            .filter(|other| other.durable == Some(end))
            .find_map(|other| other.life.map(|life| (life, other.member)));
        let Some((successor, member)) = successor else { return };
        // Who is not in the ISR may not lead: the filter above sees to it, and the rule says it once more.
        let Ok(proposal) = handed_over(&seen.state, successor, member) else { return };
        leading.pending = Some(Pending {
            version: seen.version,
            proposal: proposal.clone(),
            resend_at: None,
            hands_over: true,
        });
        effects.push(Effect::LeaseChanged);
        effects.push(Effect::Cas { version: seen.version, state: proposal });
    }

    /// The state was read while leaving, and it still is of this epoch: if the CAS was decided against, try again.
    pub(crate) fn leaving_read(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
        if leading.pending.as_ref().is_some_and(|pending| seen.version > pending.version) {
            leading.pending = None;
        }
        leading.committed.clone_from(&seen.state.isr);
        self.advance(effects);
        self.consider_leaving(now, effects);
    }
}
