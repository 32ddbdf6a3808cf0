//! What reaches a process, and where what it wants done goes: to the ensemble, another broker, the disk, a client, the witness.

use bellwether_protocol::ids::Member;
use bellwether_protocol::peer::PeerFrame;

use crate::happenings::Happening;
use crate::ports::{Fact, Input, Output};
use crate::process::STORE_FAILED;
use crate::world::World;

impl World {
    /// Something reaches a process, if there is one; one that is stopped hears it when it goes on.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let now = self.schedule.now();
        let it = &mut self.nodes[node];
        if it.paused {
            if !matches!(input, Input::Tick) {
                it.backlog.push_back(input);
            }
            return;
        }
        let Some(process) = &mut it.process else { return };
        if let Input::ClientLost { client } = &input {
            self.client_losses[client.0 as usize] = None;
        }
        let told = (self.story.is_some() && !is_routine(&input))
            .then(|| format!("b{} <- {input:?}", node + 1));
        let outputs = process.take(now, &mut it.disk, input);
        if let Some(told) = told {
            self.tell(|| told);
        }
        for output in outputs {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        if !is_routine_too(&output) {
            self.tell(|| format!("b{} -> {output:?}", node + 1));
        }
        match output {
            Output::ReadState => self.send_read(node),
            Output::Cas { version, state } => self.send_cas(node, version, state),
            Output::Send { peer, side, frame } => self.send_frame(node, peer, side, frame),
            Output::SendToBroker { broker, frame } => self.send_to_broker(node, broker, frame),
            Output::FetchSnapshot { leader, epoch, fetch } => {
                let Some(from) = self.nodes[node].life else { return };
                let input = Input::SnapshotAsked { from, epoch, fetch };
                match self.node_of(leader) {
                    Some(leader) => self.later(leader, 5_000, input),
                    None => self.later(node, 5_000, Input::Snapshot { epoch, fetch, image: None }),
                }
            }
            Output::GiveSnapshot { to, epoch, fetch, image } => {
                let image = if self.random.chance(15) { None } else { image };
                if let Some(to) = self.node_of(to) {
                    self.later(to, 20_000, Input::Snapshot { epoch, fetch, image });
                }
            }
            Output::Sync => self.sync_begins(node),
            Output::Reply { client, reply } => {
                let index = client.0 as usize;
                if self.clients[index].broker == Some(node) {
                    let delay = self.random.delay(300);
                    let lane = &mut self.client_links[index];
                    lane.2 = lane.2.max(self.schedule.now_us() + delay);
                    let (link, _, at) = *lane;
                    self.schedule.at(at, Happening::Reply { client, link, reply });
                }
            }
            Output::Fact(fact) => self.witnessed(node, fact),
        }
    }

    fn witnessed(&mut self, node: usize, fact: Fact) {
        let Some(life) = self.nodes[node].life else { return };
        match fact {
            Fact::Leads { epoch } => self.witness.leads(life, epoch),
            Fact::Serves { epoch, applied } => self.witness.serves(life, epoch, applied),
            Fact::Applied { batch } => self.witness.applied(life, &batch),
            Fact::Confirms { epoch, end } => {
                let nodes = &self.nodes;
                let disk_of = |member: Member| {
                    let disk = &nodes[member.broker.0 as usize - 1].disk;
                    (disk.store() == Some(member.store)).then(|| disk.synced())
                };
                self.witness.confirms(epoch, end, &self.ensemble, disk_of);
            }
            // One that was deposed promises nothing with it: it can neither deliver nor confirm a settle.
            Fact::Claimed { epoch, .. } if epoch != self.ensemble.state().epoch => {}
            Fact::Claimed { held, .. } => self.witness.claimed(life, &held),
            Fact::Delivers { epoch, run, batches, redelivered } => {
                self.witness.delivers(life, epoch, run, &batches, redelivered);
            }
            Fact::Stopped { why } if why == STORE_FAILED => {}
            Fact::Guarded(guard) => self.counts.guarded(guard),
            Fact::Resigns { epoch } => {
                self.witness.resigned(epoch);
                self.may_lose_the_ensemble(node);
            }
            Fact::Stopped { why } => self.witness.stopped(life, &why),
        }
    }

    pub(crate) fn later(&mut self, node: usize, usual_us: u64, input: Input) {
        let delay = self.random.delay(usual_us);
        let generation = self.nodes[node].generation;
        self.schedule.after(delay, Happening::Input { node, generation, input });
    }
}

/// What would fill the story without telling anything.
fn is_routine(input: &Input) -> bool {
    match input {
        Input::Tick | Input::Synced => true,
        Input::Frame { frame, .. } => is_promise(frame),
        Input::Client { .. } => true,
        _ => false,
    }
}

fn is_routine_too(output: &Output) -> bool {
    match output {
        Output::Sync => true,
        Output::Send { frame, .. } => is_promise(frame),
        Output::Reply { .. } | Output::Fact(Fact::Applied { .. }) => true,
        _ => false,
    }
}

fn is_promise(frame: &PeerFrame) -> bool {
    matches!(frame, PeerFrame::PromiseAsk { .. } | PeerFrame::Promise { .. })
}
