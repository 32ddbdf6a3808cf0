//! What goes wrong, and how it is put right.

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{BrokerId, BrokerLife};

use crate::disk::Disk;
use crate::happenings::Happening;
use crate::ports::Input;
use crate::process::Process;
use crate::world::World;

impl World {
    /// One fault, drawn by chance, and the time of the next.
    pub(crate) fn fault(&mut self) {
        if self.quiet {
            return;
        }
        let pause = self.random.between(20_000, 900_000);
        self.schedule.after(pause, Happening::Fault);
        let node = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        if self.shape.spares > 0 && self.random.chance(10) {
            return self.move_copies();
        }
        match self.random.between(0, 106) {
            0..7 => self.kill_for_a_while(node),
            7..15 => self.isolate_leader(),
            15..18 => self.slow_down(node),
            18..24 => {
                if let Some(leader) =
                    self.serving().map(|(life, _)| life).and_then(|l| self.node_of(l))
                {
                    self.kill_for_a_while(leader);
                }
            }
            24..28 => (0..self.nodes.len()).for_each(|node| self.kill_for_a_while(node)),
            28..38 => self.pause(node),
            38..52 => self.cut_or_freeze(node),
            52..66 => {
                self.tell(|| format!("fault: b{} loses the ensemble", node + 1));
                self.disconnect(node);
                let delay = self.random.between(1_000, 4_000_000);
                self.schedule.after(delay, Happening::Reconnect { node });
            }
            66..69 => self.ensemble_leaves(),
            69..75 => self.expire(node),
            75..82 => self.wrong_evidence(node),
            82..86 => self.wipe(node),
            86..88 => {
                self.fail_store(node);
            }
            88..93 => self.hand_over(node),
            93..95 => self.damage(node),
            95 => self.leader_goes_on_alone(),
            98 => self.leave_one_behind(),
            96..98 => self.move_copies(),
            99 => self.give(node, Input::Clean),
            100..103 => self.stall(node),
            _ => self.stall_leader(),
        }
    }

    pub(crate) fn kill_for_a_while(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            self.kill(node);
            let delay = if self.random.chance(70) {
                self.random.between(5_000, 400_000)
            } else {
                self.random.between(400_000, 5_000_000)
            };
            self.schedule.after(delay, Happening::Restart { node });
        }
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.tell(|| format!("fault: b{} is killed", node + 1));
        let now = self.schedule.now_us();
        let it = &mut self.nodes[node];
        it.process = None;
        it.generation += 1;
        it.connected = false;
        it.link += 1;
        it.paused = false;
        it.backlog.clear();
        it.disk.crash(&mut self.random);
        if let Some(life) = it.life {
            self.ensemble.disconnected(life, now);
        }
        self.cut_all(node);
        self.drop_clients_of(node);
        if self.nodes[node].store_failed {
            // It never comes back with that store.
            self.new_disk(node);
        }
    }

    fn pause(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if it.process.is_none() || it.paused {
            return;
        }
        it.paused = true;
        if let Some(life) = it.life {
            self.ensemble.disconnected(life, self.schedule.now_us());
        }
        self.tell(|| format!("fault: b{} is stopped", node + 1));
        let delay = self.random.between(10_000, 4_000_000);
        self.schedule.after(delay, Happening::Resume { node });
    }

    pub(crate) fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].paused, false) {
            return;
        }
        self.tell(|| format!("b{} goes on", node + 1));
        // It finds out what happened meanwhile only after it has acted on what had arrived.
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for input in backlog {
            self.give(node, input);
        }
        self.give(node, Input::Tick);
        self.disconnect(node);
        let delay = self.random.delay(20_000);
        self.schedule.after(delay, Happening::Reconnect { node });
    }

    fn cut_or_freeze(&mut self, node: usize) {
        let now = self.schedule.now_us();
        let peer = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        let until = now + self.random.between(10_000, 2_500_000);
        let (both, freezes) = (self.random.chance(70), self.random.chance(60));
        self.tell(|| format!("fault: b{} and b{}: connections break", node + 1, peer + 1));
        let mut cut = Vec::new();
        for (number, connection) in &mut self.connections {
            let (dialer, acceptor) = (connection.dialer.0, connection.acceptor.0);
            if (dialer, acceptor) == (node, peer) || both && (acceptor, dialer) == (node, peer) {
                if freezes {
                    connection.frozen_until_us = until;
                }
                // What is frozen long enough is given up by its ends.
                if !freezes || until - now > 1_500_000 {
                    cut.push(*number);
                }
            }
        }
        cut.into_iter().for_each(|number| self.cut(number));
        self.blocked.insert((node, peer), until);
        if both {
            self.blocked.insert((peer, node), until);
        }
    }

    /// The leader is cut off from everybody, and does not notice; the others may take it for dead.
    fn isolate_leader(&mut self) {
        let Some((life, _)) = self.serving() else { return };
        let Some(leader) = self.node_of(life) else { return };
        self.tell(|| format!("fault: b{}, the leader, is cut off", leader + 1));
        let until = self.schedule.now_us() + self.random.between(50_000, 3_000_000);
        for connection in self.connections.values_mut() {
            if connection.dialer.0 == leader || connection.acceptor.0 == leader {
                connection.frozen_until_us = until;
            }
        }
        self.disconnect(leader);
        self.drop_some_clients_of(leader);
        self.schedule.at(until, Happening::Reconnect { node: leader });
        if self.random.chance(60) {
            for node in (0..self.nodes.len()).filter(|node| *node != leader) {
                self.blocked.insert((node, leader), until);
                self.later(node, 3_000, Input::Dead(life));
            }
        }
    }

    /// A disk that is busy with something else, or the way to a broker.
    fn slow_down(&mut self, node: usize) {
        self.tell(|| format!("fault: b{} is slow", node + 1));
        let until = self.schedule.now_us() + self.random.between(100_000, 2_000_000);
        if self.random.chance(50) {
            self.nodes[node].disk_slow_until_us = until;
        } else {
            for connection in self.connections.values_mut() {
                if connection.dialer.0 == node {
                    connection.data_slow_until_us = until;
                }
            }
        }
    }

    fn ensemble_leaves(&mut self) {
        if self.ensemble_away {
            return;
        }
        self.tell(|| "fault: the ensemble is away".to_owned());
        self.ensemble_away = true;
        (0..self.nodes.len()).for_each(|node| self.disconnect(node));
        let delay = self.random.between(50_000, 5_000_000);
        self.schedule.after(delay, Happening::ReconnectAll);
    }

    pub(crate) fn ensemble_returns(&mut self) {
        if !std::mem::replace(&mut self.ensemble_away, false) {
            return;
        }
        self.tell(|| "the ensemble is back".to_owned());
        let now = self.schedule.now_us();
        let lives: Vec<(usize, BrokerLife)> =
            self.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.life?))).collect();
        for (node, life) in lives {
            // A time-out begins anew: the ensemble did not count while it was away.
            self.ensemble.connected(life);
            self.ensemble.disconnected(life, now);
            let delay = self.random.delay(30_000);
            self.schedule.after(delay, Happening::Reconnect { node });
        }
    }

    fn expire(&mut self, node: usize) {
        let Some(life) = self.nodes[node].life.filter(|_| !self.ensemble_away) else { return };
        self.tell(|| format!("fault: the session of b{} ends", node + 1));
        self.ensemble.end_session(life);
        self.ensemble_changed();
        self.disconnect(node);
        let delay = self.random.between(1_000, 3_000_000);
        self.schedule.after(delay, Happening::Reconnect { node });
    }

    fn wrong_evidence(&mut self, node: usize) {
        let peer = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        if let Some(life) = self.nodes[peer].life.filter(|_| peer != node) {
            self.tell(|| format!("fault: b{} takes {life} for dead", node + 1));
            self.give(node, Input::Dead(life));
        }
    }

    /// Whether the promise still holds without the disk of `node`: another member of the ISR keeps its own, also should a
    /// change that is under way apply.
    fn may_lose_disk(&self, node: usize) -> bool {
        let kept = |state: &QueueState| {
            (0..self.nodes.len()).any(|other| {
                let it = &self.nodes[other];
                let member = crate::nodes::member_of(other, &it.disk);
                other != node && !it.store_failed && state.isr.contains(&member)
            })
        };
        let present = self.ensemble.version();
        let under_way = self.under_way.iter().filter(|cas| cas.version == present);
        kept(self.ensemble.state()) && under_way.into_iter().all(|cas| kept(&cas.state))
    }

    fn wipe(&mut self, node: usize) {
        if !self.may_lose_disk(node) {
            return;
        }
        self.kill_for_a_while(node);
        if self.nodes[node].process.is_none() {
            self.new_disk(node);
        }
    }

    fn new_disk(&mut self, node: usize) {
        self.tell(|| format!("fault: the disk of b{} is lost", node + 1));
        let store = self.new_store();
        self.nodes[node].disk = Disk::new(store);
        self.nodes[node].store_failed = false;
    }

    /// A sync fails, and after a while an operator gives the broker another disk. `false`: not with this one, or not now.
    pub(crate) fn fail_store(&mut self, node: usize) -> bool {
        let it = &self.nodes[node];
        if it.process.is_none() || it.paused || it.store_failed || !self.may_lose_disk(node) {
            return false;
        }
        self.tell(|| format!("fault: a sync of b{} fails", node + 1));
        self.nodes[node].store_failed = true;
        self.give(node, Input::StoreFailed);
        let generation = self.nodes[node].generation;
        let delay = self.random.between(10_000, 4_000_000);
        self.schedule.after(delay, Happening::Replace { node, generation });
        true
    }

    /// Other brokers are to hold the copies, or the same in another order. With spares it happens often.
    pub(crate) fn move_copies(&mut self) {
        if self.ensemble_away {
            return;
        }
        let mut all: Vec<u32> = (1..=self.nodes.len() as u32).collect();
        let mut replicas = Vec::new();
        while replicas.len() < self.shape.brokers {
            let at = self.random.between(0, all.len() as u64 - 1) as usize;
            replicas.push(BrokerId(all.swap_remove(at)));
        }
        self.counts.moves += 1;
        self.tell(|| format!("the copies are to be on {replicas:?}"));
        self.ensemble.move_to(replicas);
        self.ensemble_changed();
    }

    /// Bits turn in what was synced, and a process that runs finds out.
    fn damage(&mut self, node: usize) {
        let it = &self.nodes[node];
        let installing = it.process.as_ref().is_some_and(|process| process.installing);
        let has_log = it.process.as_ref().map_or(it.disk.has_log(), Process::hosts);
        if it.paused || it.store_failed || installing || !has_log || it.disk.is_damaged() {
            return;
        }
        if self.may_lose_disk(node) {
            self.tell(|| format!("fault: the log of b{} is damaged", node + 1));
            self.nodes[node].disk.damage();
            self.finds_damage(node);
        }
    }

    pub(crate) fn finds_damage(&mut self, node: usize) {
        if self.nodes[node].disk.is_damaged() && self.nodes[node].process.is_some() {
            let store = self.new_store();
            self.give(node, Input::LogLost(store));
        }
    }

    pub(crate) fn replace_disk(&mut self, node: usize, generation: u64) {
        if self.nodes[node].generation == generation {
            self.kill_for_a_while(node);
        }
    }

    fn hand_over(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.tell(|| format!("b{} drains", node + 1));
        self.give(node, Input::HandOver);
        // It ends once it has handed over, or when its time is up.
        let generation = self.nodes[node].generation;
        let delay = self.random.between(1_000, 800_000);
        self.schedule.after(delay, Happening::Terminate { node, generation });
    }

    pub(crate) fn terminate(&mut self, node: usize, generation: u64) {
        if self.nodes[node].generation == generation {
            self.kill_for_a_while(node);
        }
    }

    /// Faults are over, and everything comes back.
    pub fn heal(&mut self) {
        self.tell(|| "faults are over".to_owned());
        self.quiet = true;
        self.blocked.clear();
        for connection in self.connections.values_mut() {
            connection.frozen_until_us = 0;
            connection.data_slow_until_us = 0;
        }
        self.ensemble_returns();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk_slow_until_us = 0;
            self.stall_ends(node);
            self.resume(node);
            let delay = self.random.between(1_000, 500_000);
            self.schedule.after(delay, Happening::Restart { node });
            self.schedule.after(delay, Happening::Reconnect { node });
        }
    }
}
