//! How clients reach brokers: whom they connect to, what they send there, and what becomes of both when a connection breaks.

use crate::happenings::Happening;
use crate::ports::Input;
use crate::words::{ClientId, Reply, Request};
use crate::world::World;

/// Messages that wait in the queue before producers hold back, so that consumers can drain it in time.
const WAITING_MAX: usize = 600;

impl World {
    pub(crate) fn client_turn(&mut self, client: usize) {
        let delay = self.random.delay(if self.quiet { 1_000 } else { 4_000 });
        self.schedule.after(delay, Happening::ClientTurn(client));
        if self.clients[client].broker.is_none() {
            if self.schedule.now_us() >= self.clients_away_until_us[client] {
                self.client_connects(client);
            }
            return;
        }
        if !self.quiet && self.random.one_in(2_000) {
            return self.client_lost(client);
        }
        let full = self.witness.waiting() > WAITING_MAX && self.clients[client].is_producer();
        let quiet = self.quiet || full;
        let requests = self.clients[client].acts(&mut self.random, &mut self.numbers, quiet);
        let (Some(node), id) = (self.clients[client].broker, self.clients[client].id) else {
            return;
        };
        for request in requests {
            if !matches!(request, Request::Attach { .. }) {
                self.tell(|| format!("c{client} -> b{} {request:?}", node + 1));
            }
            let delay = self.random.delay(300);
            let lane = &mut self.client_links[client];
            lane.1 = lane.1.max(self.schedule.now_us() + delay);
            let (link, at, _) = *lane;
            let generation = self.nodes[node].generation;
            self.schedule
                .at(at, Happening::Request { node, generation, client: id, link, request });
        }
        if !self.quiet && self.random.one_in(3_000) {
            self.give(node, Input::Client { client: id, request: Request::Purge });
        }
    }

    /// To whom the ensemble says leads, and now and then to anybody.
    fn client_connects(&mut self, client: usize) {
        let leader = self.ensemble.state().leader.and_then(|life| self.node_of(life));
        let anybody = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        let node = if self.random.chance(20) { Some(anybody) } else { leader };
        // Its next connection begins where the end of the last one was heard of.
        let unheard = |node: usize| {
            let generation = self.nodes[node].generation;
            self.client_losses[client] == Some((node, generation))
        };
        let usable = |node: &usize| self.nodes[*node].process.is_some() && !unheard(*node);
        if let Some(node) = node.filter(usable) {
            self.clients[client].broker = Some(node);
        }
    }

    /// A client's connection breaks: both ends hear of it.
    fn client_lost(&mut self, client: usize) {
        let id = self.clients[client].id;
        if let Some(node) = self.clients[client].broker {
            self.client_losses[client] = Some((node, self.nodes[node].generation));
            self.later(node, 500, Input::ClientLost { client: id });
        }
        self.drop_client(client);
    }

    fn drop_client(&mut self, client: usize) {
        let now = self.schedule.now_us();
        let lane = &mut self.client_links[client];
        *lane = (lane.0 + 1, now, now);
        self.clients[client].hears(Reply::Lost, &mut self.witness);
    }

    /// Some clients of a broker lose it, and look for another when the dust has settled.
    pub(crate) fn drop_some_clients_of(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].broker == Some(node) && self.random.chance(50) {
                self.client_lost(client);
                let away = self.random.between(20_000, 200_000);
                self.clients_away_until_us[client] = self.schedule.now_us() + away;
            }
        }
    }

    pub(crate) fn drop_clients_of(&mut self, node: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].broker == Some(node) {
                self.drop_client(client);
            }
        }
    }

    pub(crate) fn reply_arrives(&mut self, client: ClientId, link: u64, reply: Reply) {
        let index = client.0 as usize;
        if self.client_links[index].0 != link {
            return;
        }
        if !matches!(reply, Reply::Closed { .. }) {
            self.tell(|| format!("c{index} <- {reply:?}"));
        }
        self.clients[index].hears(reply, &mut self.witness);
        if self.clients[index].broker.is_none() {
            // It left for another broker.
            self.client_links[index].0 += 1;
        }
    }
}
