//! A queue in a situation: three brokers, broker 1 leads, all copies in sync and whole; and then what went wrong.

use bellwether_client::{
    BrokerId, BrokerLife, CommittedNote, CopyHealth, CopyRole, CopyStatus, Epoch, Incarnation,
    LiveBroker, Member, Offset, QueueClass, QueueCondition, QueueId, QueueName, QueueSummary,
    StoreId,
};
use uuid::Uuid;

use super::facts::{Facts, Holder, Said};

pub fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(u128::from(broker))) }
}

pub fn life(broker: u32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(1) }
}

fn copy(broker: u32) -> CopyStatus {
    CopyStatus {
        member: member(broker),
        role: CopyRole::Follows,
        why: None,
        starved: false,
        last_epoch: Some(Epoch(4)),
        log_start: Offset(0),
        log_end: Offset(1_001),
        durable: Offset(1_001),
        high_watermark: Offset(1_001),
        heard_committed: Offset(1_001),
        enqueued: 1_000,
        counted: true,
        last_message_ms: Some(1_700_000_000_000),
        others: Vec::new(),
        epoch_start: Some(Offset(0)),
        enqueued_below: None,
    }
}

pub struct Given(pub Facts);

impl Given {
    pub fn whole() -> Given {
        let ids = [1, 2, 3];
        let queue = QueueSummary {
            name: QueueName::new("orders").unwrap(),
            id: QueueId(Uuid::from_u128(7)),
            replicas: ids.map(BrokerId).to_vec(),
            in_sync: ids.map(BrokerId).to_vec(),
            min_isr: 2,
            leader: Some(BrokerId(1)),
            epoch: Epoch(4),
            class: QueueClass::Standard,
            tainted: false,
        };
        let condition = QueueCondition {
            queue,
            version: 9,
            fresh: true,
            leader: Some(life(1)),
            isr: ids.map(member).to_vec(),
            replicas_wanted: 3,
            min_isr_wanted: 2,
            live: ids.map(|id| LiveBroker { life: life(id), address: format!("h:{id}") }).to_vec(),
            resigned: None,
            committed: None,
            taint: None,
            drained: Vec::new(),
        };
        let holders =
            ids.map(|id| Holder { broker: BrokerId(id), said: Said::Copy(copy(id)) }).to_vec();
        let mut given = Given(Facts { condition, holders });
        given.copy(1).role = CopyRole::Serves;
        let healthy = |id| CopyHealth {
            member: member(id),
            in_sync: true,
            gone: false,
            durable: Some(Offset(1_001)),
        };
        given.copy(1).others = [2, 3].map(healthy).to_vec();
        given
    }

    pub fn copy(&mut self, broker: u32) -> &mut CopyStatus {
        let holder = self.0.holders.iter_mut().find(|holder| holder.broker.0 == broker).unwrap();
        match &mut holder.said {
            Said::Copy(copy) => copy,
            other => panic!("broker {broker} has no copy: {other:?}"),
        }
    }

    pub fn says(mut self, broker: u32, said: Said) -> Given {
        let holder = self.0.holders.iter_mut().find(|holder| holder.broker.0 == broker).unwrap();
        holder.said = said;
        self
    }

    pub fn in_sync(mut self, brokers: &[u32]) -> Given {
        self.0.condition.isr = brokers.iter().map(|id| member(*id)).collect();
        self.0.condition.queue.in_sync = brokers.iter().copied().map(BrokerId).collect();
        self
    }

    /// Not live, and nothing more is heard of it.
    pub fn down(mut self, broker: u32) -> Given {
        self.0.condition.live.retain(|live| live.life.broker.0 != broker);
        for holder in &mut self.0.holders {
            if let Said::Copy(copy) = &mut holder.said {
                for other in &mut copy.others {
                    other.gone |= other.member.broker.0 == broker;
                }
            }
        }
        self.says(broker, Said::Down)
    }

    pub fn role(mut self, broker: u32, role: CopyRole) -> Given {
        self.copy(broker).role = role;
        self
    }

    pub fn stopped(mut self, broker: u32, why: &str) -> Given {
        self.copy(broker).role = CopyRole::Stopped;
        self.copy(broker).why = Some(why.to_owned());
        self
    }

    /// The disk is another, with nothing on it.
    pub fn emptied(mut self, broker: u32) -> Given {
        let store = StoreId(Uuid::from_u128(99));
        let copy = self.copy(broker);
        copy.member.store = store;
        copy.role = CopyRole::Waits;
        copy.last_epoch = None;
        copy.log_end = Offset(0);
        copy.high_watermark = Offset(0);
        copy.heard_committed = Offset(0);
        copy.enqueued = 0;
        self
    }

    /// Its log ends here.
    pub fn holds(mut self, broker: u32, messages: u64) -> Given {
        let copy = self.copy(broker);
        copy.log_end = Offset(messages + 1);
        copy.high_watermark = Offset(messages + 1);
        copy.heard_committed = Offset(messages + 1);
        copy.enqueued = messages;
        self
    }

    pub fn noted(mut self, messages: u64) -> Given {
        self.0.condition.committed = Some(CommittedNote {
            end: Offset(messages + 1),
            enqueued: messages,
            settled: 0,
            at_ms: 1_700_000_060_000,
            term: Some((Epoch(4), Offset(0))),
        });
        self
    }
}
