//! What is known of one queue: what the coordinator holds, and what each broker says of its own copy.

use std::time::Duration;

use bellwether_client::{
    BrokerAddress, BrokerId, Client, CopyRole, CopyStatus, ErrorCode, Member, Offset, QueryError,
    QueueCondition,
};
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::outcome::Failure;

/// How long one broker may take to tell of its copy. A frozen one must not hold up what the others say.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where it may have to read its log first.
const PATIENCE_TO_COUNT: Duration = Duration::from_secs(30);

/// What one broker says of its copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Copy(CopyStatus),
    /// It has none.
    NoCopy,
    /// It is live, as far as the coordinator knows, and does not answer.
    Silent(String),
    /// It is not live.
    Down,
}

/// One broker of the set.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    pub broker: BrokerId,
    pub said: Said,
}

impl Holder {
    pub fn copy(&self) -> Option<&CopyStatus> {
        match &self.said {
            Said::Copy(copy) => Some(copy),
            Said::NoCopy | Said::Silent(_) | Said::Down => None,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub condition: QueueCondition,
    /// The brokers that are to hold a copy, that are counted on, or that hold one, in order.
    pub holders: Vec<Holder>,
}

impl Facts {
    pub fn holder(&self, broker: BrokerId) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.broker == broker)
    }

    pub fn is_live(&self, broker: BrokerId) -> bool {
        self.condition.live.iter().any(|live| live.life.broker == broker)
    }

    /// Who leads, if that one is live.
    pub fn leader(&self) -> Option<BrokerId> {
        let leader = self.condition.leader?;
        self.condition.live.iter().any(|live| live.life == leader).then_some(leader.broker)
    }

    pub fn in_sync(&self, member: Member) -> bool {
        self.condition.isr.contains(&member)
    }

    /// An in-sync copy that its broker has, and that can be used as far as it says.
    pub fn usable(&self, member: Member) -> Option<&CopyStatus> {
        let copy = self.holder(member.broker)?.copy()?;
        let fit = !matches!(copy.role, CopyRole::Stopped | CopyRole::Fetches);
        (fit && copy.member == member).then_some(copy)
    }

    pub fn address(&self, broker: BrokerId) -> Option<BrokerAddress> {
        let live = self.condition.live.iter().find(|live| live.life.broker == broker)?;
        Some(BrokerAddress { broker, address: live.address.clone() })
    }
}

/// Asks one broker once more to count its copy, those messages apart that lie below an offset.
pub async fn count_apart(client: &Client, facts: &mut Facts, broker: BrokerId, below: Offset) {
    let Some(address) = facts.address(broker) else { return };
    let queue = facts.condition.queue.name.clone();
    let (below, patience) = (Some(below), PATIENCE_TO_COUNT);
    let answer = client.replica_status(&address, queue.as_str(), true, below, patience).await;
    let answer = said(answer.map(|status| status.copy));
    if let Some(holder) = facts.holders.iter_mut().find(|holder| holder.broker == broker) {
        holder.said = answer;
    }
}

/// Asks the coordinator's record of the queue first, and then each live broker for its copy; `count`: with the messages in it.
pub async fn gather(client: &Client, queue: &str, count: bool) -> Result<Facts, Failure> {
    let condition = client.queue_condition(queue).await?;
    let patience = if count { PATIENCE_TO_COUNT } else { PATIENCE };
    let mut asked: FuturesUnordered<_> = condition
        .live
        .iter()
        .map(|live| BrokerAddress { broker: live.life.broker, address: live.address.clone() })
        .map(|address| async move {
            let answer = client.replica_status(&address, queue, count, None, patience).await;
            // Judged without it, a queue would seem to be in need that is not.
            if let Err(QueryError::Refused { code: ErrorCode::TlsExpected, .. }) = answer {
                return Err(Failure::not_done(format!(
                    "broker {} speaks TLS, and this command does not, so that it cannot be asked for its copy: say --tls, or --tls-ca FILE with the authority of its certificate",
                    address.broker
                )));
            }
            Ok(Holder { broker: address.broker, said: said(answer.map(|status| status.copy)) })
        })
        .collect();
    let mut holders: Vec<Holder> = Vec::new();
    while let Some(holder) = asked.next().await {
        holders.push(holder?);
    }
    drop(asked);
    let counted = condition.isr.iter().map(|member| member.broker);
    let expected: Vec<BrokerId> = condition
        .queue
        .replicas
        .iter()
        .copied()
        .chain(counted)
        .chain(condition.queue.leader)
        .collect();
    holders.retain(|holder| expected.contains(&holder.broker) || holder.copy().is_some());
    for broker in expected {
        if holders.iter().all(|holder| holder.broker != broker) {
            holders.push(Holder { broker, said: Said::Down });
        }
    }
    holders.sort_by_key(|holder| holder.broker);
    Ok(Facts { condition, holders })
}

fn said(answer: Result<Option<CopyStatus>, QueryError>) -> Said {
    match answer {
        Ok(Some(copy)) => Said::Copy(copy),
        Ok(None) => Said::NoCopy,
        // A question changes nothing: what matters is that there is no answer.
        Err(QueryError::Unknown { message }) => Said::Silent(message),
        Err(error) => Said::Silent(error.to_string()),
    }
}
