//! How the world carries frames between processes, and reads and CASes to the ensemble.

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{BrokerId, BrokerLife};
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::CasOutcome;

use crate::coordinator::Cas;
use crate::happenings::Happening;
use crate::network::{Connection, other};
use crate::ports::{Input, Side};
use crate::world::{SESSION_TIMEOUT_US, World};

impl World {
    /// Every broker dials every other, again and again.
    pub(crate) fn redial(&mut self) {
        let now = self.schedule.now_us();
        self.connections.retain(|_, connection| !connection.cut || connection.open != [false; 2]);
        for dialer in 0..self.nodes.len() {
            for acceptor in 0..self.nodes.len() {
                let blocked =
                    self.blocked.get(&(dialer, acceptor)).is_some_and(|until| *until > now);
                if dialer != acceptor && !blocked {
                    self.dial(dialer, acceptor);
                }
            }
        }
    }

    fn dial(&mut self, dialer: usize, acceptor: usize) {
        let from = &self.nodes[dialer];
        let lives =
            |node: &crate::nodes::Node| node.process.as_ref().and_then(|process| process.life);
        let (Some(me), false) = (lives(from), from.paused) else { return };
        let to = &self.nodes[acceptor];
        let known = from.known.get(&acceptor).copied();
        let exists = self.connections.values().any(|c| {
            !c.cut
                && c.dialer == (dialer, me)
                && Some(c.acceptor.1) == lives(to)
                && c.acceptor.0 == acceptor
        });
        if exists || !self.random.chance(50) {
            return;
        }
        if to.process.is_none() {
            // Refused, after a reset: the process is dead.
            if let Some(life) = known {
                self.nodes[dialer].known.remove(&acceptor);
                self.give(dialer, Input::Dead(life));
            }
            return;
        }
        let (Some(life), false) = (lives(to), to.paused) else { return };
        if let Some(old) = known.filter(|known| *known != life) {
            self.nodes[dialer].known.remove(&acceptor);
            self.give(dialer, Input::Dead(old));
        }
        self.add_connection(dialer, acceptor);
    }

    pub(crate) fn add_connection(&mut self, dialer: usize, acceptor: usize) {
        let (Some(from), Some(to)) = (self.nodes[dialer].life, self.nodes[acceptor].life) else {
            return;
        };
        let number = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(number, Connection::new((dialer, from), (acceptor, to)));
        let (first, second) = (self.random.delay(300), self.random.delay(300));
        self.schedule.after(first, Happening::Up { connection: number, side: Side::Accepted });
        self.schedule
            .after(first + second, Happening::Up { connection: number, side: Side::Dialed });
    }

    pub(crate) fn connection_up(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let ((node, life), (peer_node, peer)) = (connection.end(side), connection.end(other(side)));
        let process = self.nodes[node].process.as_ref();
        if connection.cut || process.is_none_or(|process| process.life != Some(life)) {
            return self.cut(number);
        }
        connection.open[side as usize] = true;
        if side == Side::Dialed {
            self.nodes[node].known.insert(peer_node, peer);
        }
        self.give(node, Input::Up { peer, side });
    }

    /// A connection breaks; each end notices a little later.
    pub(crate) fn cut(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if !std::mem::replace(&mut connection.cut, true) {
            for side in [Side::Dialed, Side::Accepted] {
                let delay = self.random.delay(500);
                self.schedule.after(delay, Happening::Down { connection: number, side });
            }
        }
    }

    pub(crate) fn connection_down(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if std::mem::replace(&mut connection.open[side as usize], false) {
            let ((node, life), (_, peer)) = (connection.end(side), connection.end(other(side)));
            if self.nodes[node].life == Some(life) {
                self.give(node, Input::Down { peer, side });
            }
        }
    }

    /// All connections of a node break at once.
    pub(crate) fn cut_all(&mut self, node: usize) {
        let ends = |c: &Connection| c.dialer.0 == node || c.acceptor.0 == node;
        let theirs = self.connections.iter().filter(|(_, connection)| ends(connection));
        let theirs: Vec<u64> = theirs.map(|(number, _)| *number).collect();
        theirs.into_iter().for_each(|number| self.cut(number));
    }

    pub(crate) fn send_frame(
        &mut self,
        node: usize,
        peer: BrokerLife,
        side: Side,
        frame: PeerFrame,
    ) {
        let now = self.schedule.now_us();
        let delay = self.random.delay(200);
        let open = self.connections.iter_mut().find(|(_, c)| {
            !c.cut && c.is_open(side) && c.end(side).0 == node && c.end(other(side)).1 == peer
        });
        if let Some((number, connection)) = open {
            let at = connection.arrival(side, &frame, now + delay);
            let happening = Happening::Frame { connection: *number, to: other(side), frame };
            self.schedule.at(at, happening);
        }
    }

    pub(crate) fn send_to_broker(&mut self, node: usize, broker: BrokerId, frame: PeerFrame) {
        let Some(peer) = self.nodes.get(broker.0 as usize - 1).and_then(|node| node.life) else {
            return;
        };
        let has = |side: Side| {
            self.connections.values().any(|c| {
                !c.cut && c.is_open(side) && c.end(side).0 == node && c.end(other(side)).1 == peer
            })
        };
        let side = if has(Side::Dialed) { Side::Dialed } else { Side::Accepted };
        self.send_frame(node, peer, side, frame);
    }

    pub(crate) fn frame_arrives(&mut self, number: u64, to: Side, frame: PeerFrame) {
        let Some(connection) = self.connections.get(&number) else { return };
        let ((node, life), (_, peer)) = (connection.end(to), connection.end(other(to)));
        if connection.is_open(to) && self.nodes[node].life == Some(life) {
            self.give(node, Input::Frame { peer, side: to, frame });
        }
    }

    pub(crate) fn is_linked(&self, node: usize, generation: u64, link: u64) -> bool {
        let node = &self.nodes[node];
        node.generation == generation && node.link == link && node.connected
    }

    pub(crate) fn send_read(&mut self, node: usize) {
        let (generation, link) = (self.nodes[node].generation, self.nodes[node].link);
        if self.nodes[node].connected {
            let delay = self.random.delay(1_000);
            self.schedule.after(delay, Happening::ReadState { node, generation, link });
        }
    }

    /// Reads the state, then the path of the life that it names.
    pub(crate) fn read_arrives(&mut self, node: usize, generation: u64, link: u64) {
        if !self.is_linked(node, generation, link) {
            return;
        }
        let (state, version) = (self.ensemble.state().clone(), self.ensemble.version());
        let gone = state.leader.filter(|leader| !self.ensemble.is_live(*leader));
        let mut inputs = vec![Input::State { state, version, synced: true }];
        inputs.extend(gone.map(Input::Gone));
        let delay = self.random.delay(1_000);
        self.schedule.after(delay, Happening::StateRead { node, generation, link, inputs });
    }

    /// Everybody watches: each reads anew, a little later, and some are shown an old state first.
    pub(crate) fn ensemble_changed(&mut self) {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].connected {
                continue;
            }
            self.send_read(node);
            if self.random.chance(10) {
                let back = self.random.between(0, 2);
                let (state, version) = self.ensemble.older(back);
                self.later(node, 500, Input::State { state, version, synced: false });
            }
        }
    }

    pub(crate) fn send_cas(&mut self, node: usize, version: Version, state: QueueState) {
        let it = &mut self.nodes[node];
        let Some(by) = it.process.as_ref().and_then(|process| process.life) else { return };
        if !it.connected {
            let outcome = CasOutcome::NotSent;
            return self.later(node, 500, Input::Cas { version, state, outcome });
        }
        let (generation, link) = (it.generation, it.link);
        let cas = Cas { by, version, state };
        it.open_cas.push(cas.clone());
        let present = self.ensemble.version();
        self.under_way.retain(|other| other.version == present);
        self.under_way.push(cas.clone());
        let delay = self.random.delay(2_000);
        self.schedule.after(delay, Happening::Cas { node, generation, link, cas, late: false });
    }

    pub(crate) fn cas_arrives(
        &mut self,
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        late: bool,
    ) {
        let linked = self.is_linked(node, generation, link);
        if !linked && !late && self.random.chance(60) {
            // The connection it was sent on is lost, and yet it is under way: it applies at any time
            // while its session lives, or never.
            if self.random.chance(70) {
                let delay = self.random.between(0, SESSION_TIMEOUT_US);
                self.schedule
                    .after(delay, Happening::Cas { node, generation, link, cas, late: true });
            }
            return;
        }
        let before = self.ensemble.state().clone();
        let won = self.ensemble.apply(&cas);
        if won.is_some() {
            self.count(&before, &cas.state);
            self.notice_force(node, &cas);
            self.tell(|| format!("ensemble: version {} is {:?}", self_version(&won), cas.state));
            self.ensemble_changed();
        }
        let delay = self.random.delay(1_000);
        let won = won.map(|version| version.0);
        self.schedule.after(delay, Happening::CasAnswer { node, generation, link, cas, won });
    }

    pub(crate) fn cas_answered(
        &mut self,
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        won: Option<i32>,
    ) {
        if !self.is_linked(node, generation, link) {
            return; // The answer is lost; "undecided" was said when the connection was.
        }
        let open = &mut self.nodes[node].open_cas;
        open.retain(|open| open.version != cas.version || open.state != cas.state);
        let outcome = won
            .map_or(CasOutcome::Refused, |version| CasOutcome::Done { version: Version(version) });
        self.give(node, Input::Cas { version: cas.version, state: cas.state, outcome });
    }

    /// The connection to the ensemble is lost: what was under way is undecided.
    pub(crate) fn disconnect(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.connected {
            return;
        }
        it.connected = false;
        it.link += 1;
        let undecided = std::mem::take(&mut it.open_cas);
        if let Some(life) = it.life {
            self.ensemble.disconnected(life, self.schedule.now_us());
        }
        self.give(node, Input::Connected(false));
        for Cas { version, state, .. } in undecided {
            self.give(node, Input::Cas { version, state, outcome: CasOutcome::Undecided });
        }
    }

    /// The process reaches the ensemble again: its session lives on, or it hears that it is over.
    pub(crate) fn reconnect(&mut self, node: usize) {
        let it = &self.nodes[node];
        if it.process.is_none() || it.paused || it.connected {
            return;
        }
        if self.ensemble_away {
            let delay = self.random.delay(200_000);
            return self.schedule.after(delay, Happening::Reconnect { node });
        }
        let Some(life) = it.process.as_ref().and_then(|process| process.life) else { return };
        if self.ensemble.has_session(life) {
            self.ensemble.connected(life);
            self.nodes[node].connected = true;
            self.nodes[node].link += 1;
            self.give(node, Input::Connected(true));
            self.send_read(node);
        } else {
            self.tell(|| format!("b{}: its session is over", node + 1));
            self.give(node, Input::Life(None));
            self.cut_all(node);
            let generation = self.nodes[node].generation;
            let delay = self.random.delay(30_000);
            self.schedule.after(delay, Happening::Register { node, generation });
        }
    }

    pub(crate) fn expire_overdue(&mut self) {
        if self.ensemble_away {
            return;
        }
        let overdue = self.ensemble.overdue(self.schedule.now_us(), SESSION_TIMEOUT_US);
        for life in overdue {
            self.tell(|| format!("ensemble: the session of {life} is over"));
            self.ensemble.end_session(life);
            self.ensemble_changed();
        }
    }
}

fn self_version(won: &Option<Version>) -> i32 {
    won.map_or(-1, |version| version.0)
}
