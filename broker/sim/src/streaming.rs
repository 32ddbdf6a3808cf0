//! What a process says to other brokers, and what it hears from them: the log as a stream, how far it got, promises.

use bellwether_log::Batch;
use bellwether_protocol::ids::BrokerLife;
use bellwether_protocol::peer::{AppendRun, NoPosition, PeerFrame};
use bellwether_replication::{Admit, Event};
use bytes::{Bytes, BytesMut};

use crate::disk::{Disk, Write};
use crate::ports::Side;
use crate::process::{Process, QUEUE};

/// Batches in one frame of a stream.
const FRAME_BATCHES_MAX: usize = 3;

impl Process {
    pub(crate) fn frame(
        &mut self,
        disk: &mut Disk,
        peer: BrokerLife,
        side: Side,
        frame: PeerFrame,
    ) {
        match frame {
            PeerFrame::Append(_) | PeerFrame::EpochEnd { .. } if self.installing => {}
            PeerFrame::Subscribe(subscriptions) => {
                for subscription in subscriptions {
                    self.step(disk, Event::Subscribe { from: peer, subscription });
                }
            }
            PeerFrame::Unsubscribe(queues) => {
                for (_, epoch) in queues {
                    self.step(disk, Event::Unsubscribe { from: peer, epoch });
                }
            }
            PeerFrame::Durable(ends) => {
                for (_, epoch, end) in ends {
                    self.step(disk, Event::Durable { from: peer, epoch, end });
                }
            }
            PeerFrame::Committed(ends) => {
                for (_, epoch, high_watermark) in ends {
                    self.step(disk, Event::Committed { from: peer, epoch, high_watermark });
                }
            }
            PeerFrame::Append(runs) => {
                for run in runs {
                    self.streamed(disk, peer, run);
                }
            }
            PeerFrame::EpochEnd { epoch, last_epoch, end, number, .. } => {
                self.step(disk, Event::EpochEnd { from: peer, epoch, last_epoch, end, number });
            }
            PeerFrame::NotLeading { epoch, seen, .. } => {
                self.step(disk, Event::NotLeading { from: peer, epoch, seen });
            }
            PeerFrame::SnapshotNeeded { epoch, .. } => {
                self.step(disk, Event::SnapshotNeeded { from: peer, epoch });
            }
            PeerFrame::PositionAsk(_) => {
                let begins =
                    NoPosition { queue: QUEUE, member: self.identity.member, stopped: false };
                let position = if self.hosts { self.replica.position() } else { Err(begins) };
                let frame = match position {
                    Ok(position) => PeerFrame::Positions(vec![position], Vec::new()),
                    Err(none) => PeerFrame::Positions(Vec::new(), vec![none]),
                };
                self.send(peer, side, frame);
            }
            PeerFrame::Positions(positions, without) => {
                for position in positions {
                    self.step(disk, Event::Position { from: peer, position });
                }
                for without in without {
                    self.step(disk, Event::NoPosition { from: peer, without });
                }
            }
            // By this process, in this life, which has sent its unsubscribes before.
            PeerFrame::PromiseAsk { number } => {
                if self.life.is_some() {
                    self.send(peer, side, PeerFrame::Promise { number });
                }
            }
            PeerFrame::Promise { number } => self.promise(peer, number),
            other => panic!("the simulation sends no {other:?}"),
        }
    }

    fn promise(&mut self, peer: BrokerLife, number: u64) {
        let asked = self.asked.remove(&(peer, number));
        if let (Some(asked), Some(promised)) = (asked, self.promised.get_mut(&peer)) {
            *promised = (*promised).max(Some(asked + self.timing.promise * 2 / 3));
        }
    }

    fn streamed(&mut self, disk: &mut Disk, from: BrokerLife, run: AppendRun) {
        let mut bytes = run.batches;
        while !bytes.is_empty() {
            let batch = Batch::decode(&mut bytes).expect("the simulated network damages nothing");
            match self.replica.admit(self.now, from, run.epoch, batch.base()) {
                Admit::From(end) if batch.end() <= end => {}
                Admit::From(end) => {
                    assert_eq!(batch.base(), end, "a batch that straddles the log's end");
                    let start = (batch.epoch(), batch.base());
                    let end = batch.end();
                    self.write(disk, Write::Append(batch));
                    self.replica.followed(&[start], end);
                }
                Admit::Drop | Admit::Gap => return,
            }
        }
        let (epoch, high_watermark) = (run.epoch, run.high_watermark);
        self.step(disk, Event::Committed { from, epoch, high_watermark });
    }

    pub(crate) fn stream(&mut self) {
        let high_watermark = self.replica.log().high_watermark;
        let Some(leader) = &mut self.leader else { return };
        let epoch = leader.epoch;
        let tell = std::mem::take(&mut leader.tell_committed);
        let mut frames = Vec::new();
        let mut ended = Vec::new();
        for (to, next) in &mut leader.streams {
            if *next < self.log.start {
                ended.push(*to);
                frames.push((*to, PeerFrame::SnapshotNeeded { queue: QUEUE, epoch }));
                continue;
            }
            let batches: Vec<&Batch> = self.log.batches.range(*next..).map(|(_, b)| b).collect();
            for some in batches.chunks(FRAME_BATCHES_MAX) {
                let mut bytes = BytesMut::new();
                some.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
                let batches: Bytes = bytes.freeze();
                let run = AppendRun { queue: QUEUE, epoch, high_watermark, batches };
                frames.push((*to, PeerFrame::Append(vec![run])));
            }
            *next = self.log.end;
            if tell {
                frames.push((*to, PeerFrame::Committed(vec![(QUEUE, epoch, high_watermark)])));
            }
        }
        for to in ended {
            leader.streams.remove(&to);
        }
        for (to, frame) in frames {
            self.send(to, Side::Accepted, frame);
        }
    }
}
