//! What peers say of the queues here: followers of those that are led, leaders of those that are followed.

use bellwether_log::Batch;
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset};
use bellwether_protocol::peer::{AppendRun, NoPosition, PeerFrame};
use bellwether_replication::{Admit, Event};

use super::Shard;
use super::input::{ConnectionId, PeerNews, Side};
use super::queue::LocalQueue;
use super::tools::Tools;

impl Shard {
    pub(super) fn peer(&mut self, news: PeerNews) {
        match news {
            PeerNews::Up { peer, side: Side::Dialed, .. } => {
                self.each(|queue, tools| queue.step(tools, Event::Dialed { peer }))
            }
            PeerNews::Up { peer, side: Side::Accepted, promises, .. } => {
                if let Some(promises) = promises {
                    self.tools.promises.insert(peer, promises);
                }
            }
            PeerNews::Down { peer, side: Side::Dialed, .. } => {
                self.each(|queue, tools| queue.step(tools, Event::DialedDown { peer }));
            }
            PeerNews::Down { peer, side: Side::Accepted, connection } => {
                self.tools.promises.remove(&peer);
                self.tools.environment.leases.gone(connection);
                self.each(|queue, tools| {
                    queue.step(tools, Event::AcceptedDown { peer });
                    // What the connection's reader withdrew for an `Unsubscribe` that never got here.
                    queue.renew_lease(tools);
                });
            }
            PeerNews::Dead { peer } => {
                tracing::debug!(peer = %peer, "the broker's process is dead: its connection was reset and its address refuses or belongs to another life");
                self.crowd(|leader| leader == peer);
                self.each(|queue, tools| queue.step(tools, Event::Dead { life: peer }));
            }
            PeerNews::Room { peer } => self.each(|queue, tools| queue.room(tools, peer)),
            PeerNews::NotReady { .. } => {}
            PeerNews::Snapshot { queue, fetch, part } => {
                self.on(queue, |queue, tools| queue.snapshot_part(tools, fetch, part));
            }
            PeerNews::Frames { peer, side, connection, frames } => {
                for frame in frames {
                    self.frame(peer, side, connection, frame);
                }
            }
        }
    }

    fn frame(&mut self, peer: BrokerLife, side: Side, connection: ConnectionId, frame: PeerFrame) {
        match frame {
            PeerFrame::Subscribe(subscriptions) => {
                for subscription in subscriptions {
                    let (id, epoch) = (subscription.queue, subscription.epoch);
                    if !self.queues.contains_key(&id) {
                        // Not read from the coordinator yet: asked again shortly.
                        let answer = PeerFrame::NotLeading { queue: id, epoch, seen: Epoch(0) };
                        self.tools.to_follower(peer, answer);
                        self.tools.reread(id);
                        continue;
                    }
                    self.on(id, |queue, tools| {
                        queue.step(tools, Event::Subscribe { from: peer, subscription })
                    });
                }
            }
            PeerFrame::Unsubscribe(queues) => {
                for (id, epoch) in queues {
                    self.tools.environment.leases.handled(id, connection);
                    self.on(id, |queue, tools| {
                        queue.step(tools, Event::Unsubscribe { from: peer, epoch });
                        // Whoever it was, the reader of its connection has ended the lease.
                        queue.renew_lease(tools);
                    });
                }
            }
            PeerFrame::Durable(ends) => {
                for (id, epoch, end) in ends {
                    self.on(id, |queue, tools| {
                        queue.step(tools, Event::Durable { from: peer, epoch, end })
                    });
                }
            }
            PeerFrame::Committed(ends) => {
                for (id, epoch, high_watermark) in ends {
                    self.on(id, |queue, tools| {
                        queue.step(tools, Event::Committed { from: peer, epoch, high_watermark });
                    });
                }
            }
            PeerFrame::Append(runs) => {
                for run in runs {
                    self.on(run.queue, |queue, tools| queue.streamed(tools, peer, run));
                }
            }
            PeerFrame::EpochEnd { queue, epoch, last_epoch, end, number } => {
                self.on(queue, |queue, tools| {
                    if !queue.is_installing() {
                        queue.step(
                            tools,
                            Event::EpochEnd { from: peer, epoch, last_epoch, end, number },
                        );
                    }
                })
            }
            PeerFrame::NotLeading { queue, epoch, seen } => self.on(queue, |queue, tools| {
                queue.step(tools, Event::NotLeading { from: peer, epoch, seen });
            }),
            PeerFrame::SnapshotNeeded { queue, epoch } => self.on(queue, |queue, tools| {
                if !queue.is_installing() {
                    queue.step(tools, Event::SnapshotNeeded { from: peer, epoch });
                }
            }),
            PeerFrame::PositionAsk(ids) => self.tell_positions(peer, side, &ids),
            PeerFrame::Positions(positions, without) => {
                for position in positions {
                    self.on(position.queue, |queue, tools| {
                        queue.step(tools, Event::Position { from: peer, position })
                    });
                }
                for without in without {
                    self.on(without.queue, |queue, tools| {
                        queue.step(tools, Event::NoPosition { from: peer, without })
                    });
                }
            }
            PeerFrame::StateChanged(ids) => {
                for id in ids {
                    self.tools.reread(id);
                }
            }
            // Dealt with by the connection.
            PeerFrame::Hello(_)
            | PeerFrame::Goodbye(_)
            | PeerFrame::Heartbeat
            | PeerFrame::AppendPart { .. }
            | PeerFrame::PromiseAsk { .. }
            | PeerFrame::Promise { .. }
            | PeerFrame::Forward(_)
            | PeerFrame::ForwardPart { .. }
            | PeerFrame::Forwarded(_)
            | PeerFrame::SnapshotAsk { .. }
            | PeerFrame::SnapshotStart { .. }
            | PeerFrame::SnapshotPart(_)
            | PeerFrame::SnapshotEnd => {
                tracing::error!(peer = %peer, "a frame that is the connection's own came to a shard: this is a defect");
            }
        }
    }

    fn tell_positions(
        &mut self,
        peer: BrokerLife,
        side: Side,
        ids: &[bellwether_protocol::ids::QueueId],
    ) {
        let (mut positions, mut without) = (Vec::new(), Vec::new());
        for id in ids {
            // Every log on the disk was opened before anything was heard: of a queue that is not among them there is none. But a copy may
            // begin any moment, and if that is of the broker's own store it may be one of those that a young queue counts on.
            let begins =
                NoPosition { queue: *id, member: self.tools.environment.member, stopped: false };
            match self.queues.get(id).map_or(Err(begins), |queue| queue.replica.position()) {
                Ok(position) => positions.push(position),
                Err(none) => without.push(none),
            }
        }
        let answer = PeerFrame::Positions(positions, without);
        match side {
            Side::Dialed => self.tools.to_leader(peer, answer),
            Side::Accepted => {
                self.tools.to_follower(peer, answer);
            }
        }
    }
}

impl LocalQueue {
    /// Takes what the leader streamed, if it joins the log.
    fn streamed(&mut self, tools: &mut Tools, from: BrokerLife, run: AppendRun) {
        if self.is_installing() {
            return;
        }
        let mut bytes = run.batches;
        let mut starts: Vec<(Epoch, Offset)> = Vec::new();
        while !bytes.is_empty() {
            let batch = match Batch::decode(&mut bytes) {
                Ok(batch) => batch,
                Err(error) => {
                    // Its checksum was right when the leader wrote it: nothing of it is taken, and it is asked for again.
                    tracing::error!(peer = %from, queue = %self.definition.name, %error, "a streamed batch is damaged");
                    return self.step(
                        tools,
                        Event::NotLeading { from, epoch: run.epoch, seen: run.epoch },
                    );
                }
            };
            match self.replica.admit(tools.now, from, run.epoch, batch.base()) {
                Admit::From(end) if batch.end() <= end => {}
                Admit::From(end) if batch.base() == end && batch.queue() == self.id => {
                    let (epoch, base, end) = (batch.epoch(), batch.base(), batch.end());
                    tools.logs.append(batch);
                    starts.clear();
                    starts.push((epoch, base));
                    self.replica.followed(&starts, end);
                }
                Admit::From(end) => {
                    let why = format!(
                        "the leader streamed a batch at {} where the log ends at {end}",
                        batch.base()
                    );
                    return self.step(tools, Event::Broken { why });
                }
                Admit::Drop | Admit::Gap => return,
            }
        }
        let (epoch, high_watermark) = (run.epoch, run.high_watermark);
        self.step(tools, Event::Committed { from, epoch, high_watermark });
    }
}
