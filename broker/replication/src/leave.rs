//! Leaving in order: a leader that drains, or is not the one preferred, takes nothing new, waits until everything is committed, and
//! names a member that holds everything as the next leader.

use std::time::Instant;

use bellwether_coordinator::election::{handed_over, noted};
use bellwether_coordinator::records::Trigger;
use bellwether_protocol::ids::BrokerId;

use crate::lead::{Leading, Leaving, Pending};
use crate::progress::Progress;
use crate::{Effect, Replica, Role};

impl Replica {
    pub(crate) fn hand_over(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Role::Leading(leading) = &mut self.role {
            let held_back = matches!(leading.leaving, Leaving::Moves { .. });
            leading.leaving = Leaving::Drains;
            leading.leaves_since = now;
            if held_back {
                // It is not taken here any more: who asked goes elsewhere, at once.
                effects.push(Effect::Stays);
            }
            self.consider_leaving(now, effects);
        }
    }

    /// These brokers would decline to lead, and no others: their disks stall, or did a moment ago. No leadership is offered to them,
    /// but where there is nobody else to take it.
    pub fn unready(&mut self, brokers: &[BrokerId]) {
        if self.unready != brokers {
            self.unready = brokers.to_vec();
        }
    }

    /// Whether a hand-over is under way that somebody is there to take.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        leading.is_leaving()
            && self.connected
            && leading
                .others
                .iter()
                .any(|other| other.subscribed && leading.committed.contains(&other.member))
    }

    /// Where the leadership belongs, if not here, and could go now: to the first of the replica set; or, when this broker is not
    /// of it any more, to the first that can take it. For the shell to say [`crate::Event::Move`], a few queues at a time.
    #[must_use]
    pub fn moves_to(&self, now: Instant) -> Option<BrokerId> {
        let (Role::Leading(leading), Some(seen)) = (&self.role, &self.seen) else { return None };
        if !leading.serves()
            || leading.pending.is_some()
            || !self.connected
            || now < leading.deliver_from
            || now < leading.moves_again
        {
            return None;
        }
        let settled = |since: Instant| now.saturating_duration_since(since) >= self.timing.settle;
        let can_lead = |broker: &BrokerId| {
            leading.others.iter().any(|other| {
                other.member.broker == *broker
                    && !self.unready.contains(broker)
                    && leading.may_succeed(other)
                    && !other.is_gone(now, &self.timing, self.log.end)
                    && other.in_sync_since.is_some_and(settled)
            })
        };
        let replicas = &seen.state.replicas;
        let me = self.identity.member.broker;
        if replicas.contains(&me) {
            let first = replicas.first().copied().filter(|first| *first != me)?;
            return (settled(leading.since) && can_lead(&first)).then_some(first);
        }
        replicas.iter().copied().find(can_lead)
    }

    /// Whether it leads although the leadership belongs elsewhere, if somebody can take it there: then time may bring
    /// [`Replica::moves_to`] about.
    #[must_use]
    pub fn is_misplaced(&self) -> bool {
        let (Role::Leading(_), Some(seen)) = (&self.role, &self.seen) else { return false };
        let me = self.identity.member.broker;
        seen.state.replicas.first().is_some_and(|first| *first != me)
    }

    /// Whether a move is under way: what clients ask for is held back, for it will soon be clear who is to take it.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        matches!(leading.leaving, Leaving::Moves { .. })
    }

    pub(crate) fn move_on(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(to) = self.moves_to(now) else { return };
        if let Role::Leading(leading) = &mut self.role {
            leading.leaving = Leaving::Moves { to, until: now + self.timing.lag_limit };
            leading.leaves_since = now;
            self.consider_leaving(now, effects);
        }
    }

    /// When all that was appended is committed, names a member that holds everything as the next leader. That one delivers at
    /// once: not before this one might have, for until then an older leader may (promise G3).
    pub(crate) fn consider_leaving(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
        if !leading.is_leaving() || leading.pending.is_some() {
            return;
        }
        if let Leaving::Moves { to, until } = leading.leaving
            && (now >= until || self.unready.contains(&to))
        {
            leading.leaving = Leaving::No;
            leading.moves_again = now + self.timing.settle;
            effects.push(Effect::LeaseChanged);
            return effects.push(Effect::Stays);
        }
        let all_committed = self.log.high_watermark == self.log.end && leading.serves;
        if !all_committed || !self.connected || now < leading.deliver_from {
            return;
        }
        let end = self.log.end;
        let place = |broker: BrokerId| {
            seen.state.replicas.iter().position(|b| *b == broker).unwrap_or(usize::MAX)
        };
        let successor = leading
            .others
            .iter()
            .filter(|other| leading.may_succeed(other) && other.durable == Some(end))
            .filter(|other| match leading.leaving {
                Leaving::Moves { to, .. } => other.member.broker == to,
                Leaving::Drains | Leaving::No => true,
            })
            .filter_map(|other| other.life.map(|life| (life, other.member)))
            .min_by_key(|(life, _)| (self.unready.contains(&life.broker), place(life.broker)));
        let Some((successor, member)) = successor else { return };
        // Who is not in the ISR may not lead: the filter above sees to it, and the rule says it once more.
        let Ok(proposal) = handed_over(&seen.state, successor, member) else { return };
        let trigger = match leading.leaving {
            Leaving::Moves { .. } => Trigger::Moved,
            Leaving::Drains | Leaving::No => Trigger::Drained,
        };
        let since = leading.leaves_since;
        let proposal = noted(&seen.state, proposal, self.occasion(now, trigger, since));
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
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
            effects.push(Effect::LeaseChanged);
        }
        leading.committed.clone_from(&seen.state.isr);
        leading.min_isr = usize::from(seen.state.min_isr);
        self.advance(effects);
        self.consider_leaving(now, effects);
    }
}

impl Leading {
    /// Whether it follows and is one of those that hold what is committed.
    fn may_succeed(&self, other: &Progress) -> bool {
        other.subscribed && self.committed.contains(&other.member)
    }
}
