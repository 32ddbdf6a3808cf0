//! Orders of an operator: the leader goes on alone, or a copy leads that lacks what was confirmed. The witness is told what was given up;
//! everything else has to hold as ever.

use bellwether_protocol::ids::{BrokerLife, Epoch};
use bellwether_replication::Force;

use crate::clients::Kind;
use crate::coordinator::Cas;
use crate::happenings::Happening;
use crate::nodes::member_of;
use crate::ports::Input;
use crate::world::{SESSION_TIMEOUT_US, World};

impl World {
    /// The rest of the in-sync set is given up; the leader has everything. It refuses as long as enough of them are there.
    pub(crate) fn leader_goes_on_alone(&mut self) {
        let leader = self.ensemble.state().leader.and_then(|life| self.node_of(life));
        if let Some(node) = leader.filter(|_| !self.ensemble_away) {
            self.order(node);
        }
    }

    /// One in-sync copy is away until the others have gone on without it; then they die.
    pub(crate) fn leave_one_behind(&mut self) {
        let behind = (0..self.nodes.len()).find(|node| self.is_in_sync(*node));
        let Some(node) = behind.filter(|_| !self.ensemble_away) else { return };
        self.tell(|| format!("fault: b{} falls behind", node + 1));
        if self.nodes[node].process.is_some() {
            self.kill(node);
        }
        // Longer than the lag limit.
        let delay = self.random.between(1_100_000, 2_000_000);
        self.schedule.after(delay, Happening::LoseInSync { behind: node });
    }

    /// Every in-sync member dies, and an operator is quicker than their return.
    pub(crate) fn lose_the_in_sync(&mut self, behind: usize) {
        self.schedule.after(1, Happening::Restart { node: behind });
        if self.is_in_sync(behind) || self.ensemble_away || self.quiet {
            return;
        }
        self.tell(|| format!("fault: all in-sync members die; b{} is left", behind + 1));
        for node in (0..self.nodes.len()).filter(|node| *node != behind) {
            if self.nodes[node].process.is_some() && self.is_in_sync(node) {
                self.kill(node);
                let delay = self.random.between(SESSION_TIMEOUT_US, 3 * SESSION_TIMEOUT_US);
                self.schedule.after(delay, Happening::Restart { node });
            }
        }
        let delay = self.random.between(SESSION_TIMEOUT_US, 2 * SESSION_TIMEOUT_US);
        self.schedule.after(delay, Happening::Recover { node: behind });
    }

    fn is_in_sync(&self, node: usize) -> bool {
        let member = member_of(node, &self.nodes[node].disk);
        self.ensemble.state().isr.contains(&member)
    }

    pub(crate) fn recover(&mut self, node: usize) {
        if self.ensemble_away {
            return;
        }
        // Those that are given up are stopped for good: one that runs, cut off, could go on confirming. One that came back and is live, or is
        // about to be, has to be found out by the order itself.
        let cut_off = |other: usize| {
            let runs = self.nodes[other].process.is_some();
            other != node && self.counts(other) && runs && self.live_life(other).is_none()
        };
        if !(0..self.nodes.len()).any(cut_off) {
            self.order(node);
        }
    }

    fn counts(&self, node: usize) -> bool {
        self.ensemble.state().isr.iter().any(|member| member.broker.0 as usize == node + 1)
    }

    fn live_life(&self, node: usize) -> Option<BrokerLife> {
        let life = self.nodes[node].process.as_ref().and_then(|process| process.life);
        life.filter(|life| self.ensemble.is_live(*life))
    }

    fn order(&mut self, node: usize) {
        let (state, version) = (self.ensemble.state().clone(), self.ensemble.version());
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        let (me, log) = (process.replica.member(), process.replica.log());
        let others = (0..self.nodes.len()).filter(|other| *other != node && self.counts(*other));
        let ask = others.filter_map(|other| self.live_life(other)).collect();
        let order = Force {
            version,
            last_epoch: log.epochs.last().unwrap_or(Epoch(0)),
            log_end: log.end,
            given_up: state.isr.iter().copied().filter(|member| *member != me).collect(),
            ask,
            lost: 0,
            more: true,
        };
        let gone = state.leader.filter(|leader| !self.ensemble.is_live(*leader));
        self.tell(|| format!("b{} is ordered to lead: {order:?}", node + 1));
        self.give(node, Input::Force { state, version, gone, order });
    }

    /// Whether what was applied forced a leader on the queue: then its log is the queue's.
    pub(crate) fn notice_force(&mut self, node: usize, cas: &Cas) {
        let forced = cas.state.past.taint.as_ref().is_some_and(|taint| {
            taint.epoch == cas.state.epoch && cas.state.leader == Some(taint.by)
        });
        let epoch = cas.state.epoch;
        if !forced || self.witness.given_up_in() == Some(epoch) {
            return;
        }
        let it = &self.nodes[node];
        let log = it.process.as_ref().map_or(it.disk.synced(), |process| &process.log).clone();
        self.witness.forced(epoch, &log);
        for client in &mut self.clients {
            if let Kind::Consumer(consumer) = &mut client.kind {
                consumer.forgets();
            }
        }
    }
}
