//! About how many bytes a frame that waits for a client takes in memory.

use bellwether_protocol::client::{BrokerFrame, QueueSummary, Response, UserSummary};
use bellwether_protocol::error::ErrorBody;

/// What every frame takes.
const FRAME: usize = size_of::<super::outbox::Item>();
/// What an entry of a list takes besides the words in it.
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
        Response::Exchanges(list) => list.iter().map(|(name, _)| entry([name.as_str()])).sum(),
        Response::Queues(list) => list.iter().map(queue).sum(),
        Response::Bindings(list) => list
            .iter()
            .map(|one| entry([one.exchange.as_str(), one.queue.as_str(), one.routing_key.as_str()]))
            .sum(),
        Response::Definitions(list) => list.iter().map(|(name, _)| entry([name.as_str()])).sum(),
        Response::Plan { moves, .. } => {
            moves.iter().map(|one| entry([one.virtual_host.as_str(), one.queue.as_str()])).sum()
        }
        Response::Stuck(stuck) => {
            let first = stuck.queues.iter().flat_map(|one| &one.queues.first);
            let first = first.map(|(host, queue)| entry([host.as_str(), queue.as_str()]));
            let kinds = stuck.queues.len() * ENTRY;
            kinds + first.sum::<usize>() + size_of_val(stuck.takers.as_slice())
        }
        Response::Cluster(cluster) => {
            let brokers = cluster
                .brokers
                .iter()
                .map(|one| entry([one.address.address.as_str(), &one.incarnation, &one.version]));
            brokers.sum::<usize>()
                + size_of_val(cluster.absent.as_slice())
                + size_of_val(cluster.tombstones.as_slice())
        }
        Response::Settings(list) => list.iter().map(|(key, value)| entry([&**key, value])).sum(),
        Response::Users(list) => list.iter().map(user).sum(),
        Response::Elections(list) => list
            .iter()
            .map(|one| {
                let why = one.why.as_deref().unwrap_or_default();
                entry([one.virtual_host.as_str(), one.queue.as_str(), why])
            })
            .sum(),
        Response::Condition(condition) => {
            let why = condition.resigned.as_ref().map_or(0, |resigned| resigned.why.len());
            let live: usize = condition.live.iter().map(|one| entry([one.address.as_str()])).sum();
            let entries = condition.isr.len() + condition.drained.len();
            (1 + entries) * ENTRY + live + why
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
            let queues = queues.iter().flat_map(|troubled| &troubled.first);
            let queues = queues.map(|(host, queue)| entry([host.as_str(), queue.as_str()]));
            let stopped = attention
                .stopped
                .iter()
                .map(|copy| entry([copy.virtual_host.as_str(), copy.queue.as_str(), &copy.why]));
            queues.sum::<usize>() + stopped.sum::<usize>()
        }
        Response::Counted(list) => list.len() * ENTRY,
        Response::Credentials(list) => list.iter().map(|(user, _)| entry([user.as_str()])).sum(),
        Response::Browsed(browsed) => {
            let messages: usize = browsed.runs.iter().map(|run| run.messages.len()).sum();
            browsed.runs.len() * ENTRY + messages
        }
        Response::ConsumerAttached(attached) => {
            size_of_val(attached.held.as_slice()) + size_of_val(attached.settled.as_slice())
        }
        Response::Declared { warning, .. } => ENTRY + warning.as_ref().map_or(0, String::len),
        Response::Queue { summary, .. } => queue(summary),
        Response::Recovered(_) => ENTRY,
        Response::Done | Response::Purged { .. } | Response::ProducerAttached => 0,
    }
}

/// An entry with these words in it.
fn entry<const N: usize>(words: [&str; N]) -> usize {
    ENTRY + words.iter().map(|word| word.len()).sum::<usize>()
}

fn queue(queue: &QueueSummary) -> usize {
    let brokers = size_of_val(queue.replicas.as_slice()) + size_of_val(queue.in_sync.as_slice());
    entry([queue.name.as_str()]) + brokers
}

fn user(user: &UserSummary) -> usize {
    let permissions = user.permissions.iter().map(|(host, permissions)| {
        entry([host.as_str(), &permissions.configure, &permissions.write, &permissions.read])
    });
    entry([user.user.as_str()]) + permissions.sum::<usize>()
}

fn words(error: &ErrorBody) -> usize {
    error.message.len()
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::client::{Binding, ConsumerAttached, Permissions};
    use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, QueueId, RequestId};
    use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, UserName, VirtualHost};

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

    /// Names weighed the same whatever their length: lists of the longest took four times what was counted.
    #[test]
    fn answers_weigh_by_the_length_of_the_names_in_them() {
        let longest = "n".repeat(255);
        let binding = Binding {
            exchange: ExchangeName::new(&*longest).unwrap(),
            queue: QueueName::new(&*longest).unwrap(),
            routing_key: RoutingKey::new(&*longest).unwrap(),
        };
        assert!(of(Response::Bindings(vec![binding; 100])) > 100 * 3 * 255);
    }
}
