//! About how many bytes a frame that waits for a client takes in memory.

use bellwether_protocol::client::{BrokerFrame, Response, UserSummary};
use bellwether_protocol::error::ErrorBody;

/// What every frame takes.
const FRAME: usize = size_of::<super::outbox::Item>();
/// What an entry of a list takes, names of a common length included.
const ENTRY: usize = 192;

/// Only lists and words count for more than themselves: nothing else grows.
pub(super) fn weight(frame: &BrokerFrame) -> usize {
    FRAME
        + match frame {
            BrokerFrame::Response { response, .. } => answer(response),
            BrokerFrame::Failure { error, .. }
            | BrokerFrame::PublishFailed { error, .. }
            | BrokerFrame::SettleFailed { error, .. }
            | BrokerFrame::ConsumerClosed { error, .. }
            | BrokerFrame::Goodbye(error) => words(error),
            BrokerFrame::Confirmed { ranges, .. } => size_of_val(ranges.as_slice()),
            _ => 0,
        }
}

fn answer(response: &Response) -> usize {
    match response {
        Response::Exchanges(list) => list.len() * ENTRY,
        Response::Queues(list) => list.len() * ENTRY,
        Response::Bindings(list) => list.len() * ENTRY,
        Response::Definitions(list) => list.len() * ENTRY,
        Response::Plan { moves, .. } => moves.len() * ENTRY,
        Response::Cluster(cluster) => (cluster.brokers.len() + cluster.absent.len()) * ENTRY,
        Response::Settings(list) => {
            list.iter().map(|(key, value)| ENTRY + key.len() + value.len()).sum()
        }
        Response::Users(list) => list.iter().map(user).sum(),
        Response::Elections(list) => {
            list.iter().map(|one| ENTRY + one.why.as_ref().map_or(0, String::len)).sum()
        }
        Response::Condition(condition) => {
            let why = condition.resigned.as_ref().map_or(0, |resigned| resigned.why.len());
            let entries = condition.isr.len() + condition.live.len() + condition.drained.len();
            (1 + entries) * ENTRY + why
        }
        Response::Replica(replica) => {
            let copy = replica.copy.as_ref();
            let why = copy.and_then(|copy| copy.why.as_ref()).map_or(0, String::len);
            (1 + copy.map_or(0, |copy| copy.others.len())) * ENTRY + why
        }
        Response::Attention(attention) => {
            let queues = [
                &attention.without_leader,
                &attention.tainted,
                &attention.below_min_isr,
                &attention.under_replicated,
            ];
            let queues: usize = queues.iter().map(|troubled| troubled.first.len()).sum();
            let stopped: usize = attention.stopped.iter().map(|copy| ENTRY + copy.why.len()).sum();
            queues * ENTRY + stopped
        }
        Response::Counted(list) => list.len() * ENTRY,
        Response::Credentials(list) => list.len() * ENTRY,
        Response::Browsed(browsed) => {
            let messages: usize = browsed.runs.iter().map(|run| run.messages.len()).sum();
            browsed.runs.len() * ENTRY + messages
        }
        Response::ConsumerAttached(attached) => {
            size_of_val(attached.held.as_slice()) + size_of_val(attached.settled.as_slice())
        }
        Response::Declared { warning, .. } => ENTRY + warning.as_ref().map_or(0, String::len),
        Response::Queue { .. } | Response::Recovered(_) => ENTRY,
        Response::Done | Response::Purged { .. } | Response::ProducerAttached => 0,
    }
}

fn user(user: &UserSummary) -> usize {
    let permissions = user.permissions.iter().map(|(_, permissions)| {
        ENTRY + permissions.configure.len() + permissions.write.len() + permissions.read.len()
    });
    ENTRY + permissions.sum::<usize>()
}

fn words(error: &ErrorBody) -> usize {
    error.message.len()
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::client::{ConsumerAttached, Permissions};
    use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, QueueId, RequestId};
    use bellwether_protocol::names::{UserName, VirtualHost};

    use super::*;

    fn of(response: Response) -> usize {
        weight(&BrokerFrame::Response { id: RequestId(1), response })
    }

    /// They weighed nothing: a client that attached with large claims and read no answer held memory that no limit knew of.
    #[test]
    fn answers_weigh_by_the_length_of_their_lists() {
        let range = OffsetRange::new(Offset(0), Offset(1));
        let queue = QueueId(uuid::Uuid::from_u128(1));
        let (held, settled) = (vec![range; 10_000], vec![range; 10_000]);
        let attached = ConsumerAttached { epoch: Epoch(1), queue, held, settled };
        assert!(of(Response::ConsumerAttached(attached)) > 20_000 * size_of::<OffsetRange>());

        let pattern = "x".repeat(1_000);
        let permissions =
            Permissions { configure: pattern.clone(), write: pattern.clone(), read: pattern };
        let user = UserSummary {
            user: UserName::new("u").unwrap(),
            tags: Vec::new(),
            permissions: vec![(VirtualHost::default(), permissions)],
        };
        assert!(of(Response::Users(vec![user; 100])) > 300_000);
        assert!(of(Response::Done) < 1_000);
    }
}
