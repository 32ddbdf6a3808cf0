//! What can happen in the world, and who takes it.

use bellwether_protocol::peer::PeerFrame;

use crate::coordinator::Cas;
use crate::ports::{Input, Side};
use crate::words::{ClientId, Reply, Request};
use crate::world::World;

/// What can happen.
#[derive(Debug)]
pub enum Happening {
    Tick,
    Redial,
    Expiries,
    Fault,
    ClientTurn(usize),
    Input {
        node: usize,
        generation: u64,
        input: Input,
    },
    Up {
        connection: u64,
        side: Side,
    },
    Down {
        connection: u64,
        side: Side,
    },
    Frame {
        connection: u64,
        to: Side,
        frame: PeerFrame,
    },
    ReadState {
        node: usize,
        generation: u64,
        link: u64,
    },
    StateRead {
        node: usize,
        generation: u64,
        link: u64,
        inputs: Vec<Input>,
    },
    Cas {
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        late: bool,
    },
    CasAnswer {
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        won: Option<i32>,
    },
    Request {
        node: usize,
        generation: u64,
        client: ClientId,
        link: u64,
        request: Request,
    },
    Reply {
        client: ClientId,
        link: u64,
        reply: Reply,
    },
    Restart {
        node: usize,
    },
    /// All in-sync members die; this one is not in sync.
    LoseInSync {
        behind: usize,
    },
    /// An operator finds the in-sync set gone, and has this broker's copy lead.
    Recover {
        node: usize,
    },
    Register {
        node: usize,
        generation: u64,
    },
    Terminate {
        node: usize,
        generation: u64,
    },
    Replace {
        node: usize,
        generation: u64,
    },
    Resume {
        node: usize,
    },
    StallEnds {
        node: usize,
    },
    Disconnect {
        node: usize,
    },
    Reconnect {
        node: usize,
    },
    ReconnectAll,
}

impl World {
    pub(crate) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => {
                for node in 0..self.nodes.len() {
                    self.give(node, Input::Tick);
                }
                self.schedule.after(10_000, Happening::Tick);
            }
            Happening::Redial => {
                self.redial();
                self.schedule.after(10_000, Happening::Redial);
            }
            Happening::Expiries => {
                self.expire_overdue();
                self.schedule.after(50_000, Happening::Expiries);
            }
            Happening::Fault => self.fault(),
            Happening::ClientTurn(client) => self.client_turn(client),
            Happening::Input { node, generation, input } => {
                if self.nodes[node].generation == generation {
                    self.give(node, input);
                }
            }
            Happening::Up { connection, side } => self.connection_up(connection, side),
            Happening::Down { connection, side } => self.connection_down(connection, side),
            Happening::Frame { connection, to, frame } => self.frame_arrives(connection, to, frame),
            Happening::ReadState { node, generation, link } => {
                self.read_arrives(node, generation, link)
            }
            Happening::StateRead { node, generation, link, inputs } => {
                if self.is_linked(node, generation, link) {
                    inputs.into_iter().for_each(|input| self.give(node, input));
                }
            }
            Happening::Cas { node, generation, link, cas, late } => {
                self.cas_arrives(node, generation, link, cas, late);
            }
            Happening::CasAnswer { node, generation, link, cas, won } => {
                self.cas_answered(node, generation, link, cas, won);
            }
            Happening::Request { node, generation, client, link, request } => {
                if self.nodes[node].generation == generation
                    && self.client_links[client.0 as usize].0 == link
                {
                    self.give(node, Input::Client { client, request });
                }
            }
            Happening::Reply { client, link, reply } => self.reply_arrives(client, link, reply),
            Happening::Restart { node } => self.restart(node),
            Happening::LoseInSync { behind } => self.lose_the_in_sync(behind),
            Happening::Recover { node } => self.recover(node),
            Happening::Register { node, generation } => self.register(node, generation),
            Happening::Terminate { node, generation } => self.terminate(node, generation),
            Happening::Replace { node, generation } => self.replace_disk(node, generation),
            Happening::Resume { node } => self.resume(node),
            Happening::StallEnds { node } => self.stall_ends(node),
            Happening::Disconnect { node } => self.disconnect(node),
            Happening::Reconnect { node } => self.reconnect(node),
            Happening::ReconnectAll => self.ensemble_returns(),
        }
    }
}
