//! A leader that stops for the deletion of its queue, and goes on when nothing came of it.

use std::time::{Duration, Instant};

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::sync::oneshot;

use super::input::Deletable;
use super::queue::{LocalQueue, answer};
use super::tools::Tools;

/// How long a delete waits for a change of the queue's state that the coordinator has not decided on. Less than a client waits for its
/// answer, so that it hears of it.
const UNDECIDED_FOR: Duration = Duration::from_secs(5);

/// A delete that is asked for.
pub(crate) struct AskedDelete {
    pub if_unused: bool,
    pub if_empty: bool,
    pub reply: oneshot::Sender<Result<Deletable, ErrorBody>>,
}

/// One that waits; nothing has stopped for it yet.
pub(crate) struct HeldDelete {
    pub asked: AskedDelete,
    until: Instant,
}

impl LocalQueue {
    /// Stops the leader, if the queue may be deleted. What the delete names is the version of the state: a change of it that is under way
    /// would have the delete refused, and is waited for.
    pub fn prepare_delete(&mut self, tools: &mut Tools, asked: AskedDelete) {
        if self.is_to_be_deleted() {
            // One at a time: when the first is refused the leader goes on, and what it then confirms must not be deleted by the second.
            let words = format!("queue {} is being deleted already", self.definition.name);
            return answer(asked.reply, Err(ErrorBody::not_done(ErrorCode::InUse, words)));
        }
        if self.replica.leads().is_some()
            && self.replica.changes_state()
            && let Some(leader) = &mut self.leader
        {
            leader.held_delete = Some(HeldDelete { asked, until: tools.now + UNDECIDED_FOR });
            return;
        }
        let checked = self.may_be_deleted(tools, asked.if_unused, asked.if_empty);
        if checked.is_ok()
            && let Some(leader) = &mut self.leader
        {
            // A leader that went on confirming could confirm into the deleted queue.
            leader.deleting = true;
            tools.environment.leases.lapse(&leader.lease);
        }
        answer(asked.reply, checked);
    }

    fn may_be_deleted(
        &self,
        tools: &Tools,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Deletable, ErrorBody> {
        let name = &self.definition.name;
        match (&self.leader, self.state_version(), self.replica.leads()) {
            (Some(leader), Some(version), Some(epoch)) if leader.serves => {
                let counts = self.machine.counts();
                let unsettled = counts.ready + counts.delivered;
                if if_unused && !leader.consumers.is_empty() {
                    let words = format!("queue {name} has {} consumers", leader.consumers.len());
                    Err(ErrorBody::not_done(ErrorCode::InUse, words))
                } else if if_empty && unsettled > 0 {
                    let words = format!("queue {name} holds {unsettled} messages");
                    Err(ErrorBody::not_done(ErrorCode::InUse, words))
                } else {
                    Ok(Deletable { version, epoch })
                }
            }
            _ => Err(self.not_leader(tools)),
        }
    }

    /// Whether it has stopped for a delete, or is about to.
    pub(super) fn is_to_be_deleted(&self) -> bool {
        let leader = self.leader.as_ref();
        leader.is_some_and(|leader| leader.deleting || leader.held_delete.is_some())
    }

    /// Whether a delete waits for a change of the state.
    pub(super) fn waits_to_delete(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.held_delete.is_some())
    }

    /// The change that a delete waited for may be decided.
    pub(super) fn take_held_delete(&mut self, tools: &mut Tools) {
        let changes = self.replica.leads().is_some() && self.replica.changes_state();
        let Some(leader) = &mut self.leader else { return };
        let late = leader.held_delete.as_ref().is_some_and(|held| tools.now >= held.until);
        if changes && !late {
            return;
        }
        let Some(HeldDelete { asked, .. }) = leader.held_delete.take() else { return };
        if !changes {
            return self.prepare_delete(tools, asked);
        }
        let words = format!(
            "the coordinator has not decided on a change of queue {}'s state yet, which has to be known before it is deleted; nothing was deleted: try again",
            self.definition.name
        );
        let undecided = ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words);
        answer(asked.reply, Err(undecided));
    }

    pub fn delete_decided(&mut self, tools: &mut Tools, deleted: bool) {
        if let Some(leader) = &mut self.leader
            && !deleted
        {
            leader.deleting = false;
            self.renew_lease(tools);
            self.take_held(tools);
        }
        // When it was deleted the tombstone is read next, and ends the replica.
        tools.reread(self.id);
        tools.touch(self.id);
    }
}
