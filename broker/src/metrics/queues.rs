//! What is shown of single queues and of followers: taken from the shards when somebody scrapes, and bounded in number.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_protocol::client::QueueCounts;
use bellwether_protocol::ids::BrokerId;
use bellwether_protocol::names::{QueueName, VirtualHost};
use wildmatch::WildMatch;

use super::{Family, Kind};
use crate::config::Watch;

/// Which queues have metrics of their own.
#[derive(Debug)]
pub struct QueueSelection {
    patterns: Vec<WildMatch>,
    /// The first so many by name.
    pub most: usize,
}

impl QueueSelection {
    #[must_use]
    pub fn new(watch: &Watch) -> QueueSelection {
        let patterns = watch.queues.split(',').map(|pattern| WildMatch::new(pattern.trim()));
        QueueSelection { patterns: patterns.collect(), most: watch.queues_max }
    }

    #[must_use]
    pub fn wants(&self, queue: &QueueName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(queue.as_str()))
    }
}

/// What went through a queue while it was led here, in this life of the process. Owned by the queue's shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub published_messages: u64,
    pub published_bytes: u64,
    pub delivered_messages: u64,
    pub delivered_bytes: u64,
    pub acked_messages: u64,
    pub rejected_messages: u64,
    pub returned_messages: u64,
}

/// One queue that is led here.
#[derive(Clone, Debug)]
pub struct QueueSample {
    pub virtual_host: VirtualHost,
    pub queue: QueueName,
    pub counts: QueueCounts,
    pub tally: Tally,
    pub replicas: u64,
    pub in_sync: u64,
}

/// How far the copies on one broker are behind those led here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerLag {
    pub copies: u64,
    /// Copies that have reported nothing in the present term.
    pub unheard: u64,
    /// Copies that do not hold everything there is.
    pub behind: u64,
    /// Records that they lack, all together.
    pub records: u64,
    /// The longest that one of them has not held everything there was.
    pub behind_for: Duration,
}

impl FollowerLag {
    pub fn add(&mut self, records: Option<u64>, behind_for: Duration) {
        self.copies += 1;
        self.unheard += u64::from(records.is_none());
        self.behind += u64::from(!behind_for.is_zero());
        self.records += records.unwrap_or_default();
        self.behind_for = self.behind_for.max(behind_for);
    }

    fn join(&mut self, other: FollowerLag) {
        self.copies += other.copies;
        self.unheard += other.unheard;
        self.behind += other.behind;
        self.records += other.records;
        self.behind_for = self.behind_for.max(other.behind_for);
    }
}

/// What one shard, or all of them, say of the queues led here.
#[derive(Clone, Debug, Default)]
pub struct ShardSample {
    /// The selected ones, the first by name.
    pub queues: Vec<QueueSample>,
    /// Queues led here that the patterns select, shown or not.
    pub selected: u64,
    pub ready: u64,
    pub unsettled: u64,
    pub uncommitted: u64,
    /// Queues that serve and may not deliver at the moment.
    pub without_lease: u64,
    pub followers: BTreeMap<BrokerId, FollowerLag>,
}

impl ShardSample {
    /// Adds what another shard says.
    pub fn join(&mut self, other: ShardSample) {
        self.queues.extend(other.queues);
        self.selected += other.selected;
        self.ready += other.ready;
        self.unsettled += other.unsettled;
        self.uncommitted += other.uncommitted;
        self.without_lease += other.without_lease;
        for (broker, lag) in other.followers {
            self.followers.entry(broker).or_default().join(lag);
        }
    }

    /// Keeps the first `most` queues by name: the same ones at every scrape, so that their series do not flicker.
    pub fn keep_first(&mut self, most: usize) {
        let name = |queue: &QueueSample| (queue.virtual_host.clone(), queue.queue.clone());
        self.queues.sort_by_cached_key(name);
        self.queues.truncate(most);
    }

    /// Queues that are selected and not shown, for want of room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.selected.saturating_sub(self.queues.len() as u64)
    }
}

const fn of_queue(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, labels: &["virtual_host", "queue"], help }
}

const fn of_follower(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels: &["follower"], help }
}

const fn of_all(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels: &[], help }
}

/// A family and where its value is found.
pub type Column<Row, Value> = (Family, fn(&Row) -> Value);

/// One line for each queue that is shown. Counters begin at nothing when the process does, and stand still while another broker
/// leads the queue: its own go on, so that sums over brokers are right.
pub const OF_QUEUES: &[Column<QueueSample, u64>] = &[
    (
        of_queue(
            "bellwether_queue_ready_messages",
            Kind::Gauge,
            "Messages of the queue that wait for a consumer.",
        ),
        |queue| queue.counts.ready,
    ),
    (
        of_queue(
            "bellwether_queue_unsettled_messages",
            Kind::Gauge,
            "Messages of the queue that are with consumers and not settled.",
        ),
        |queue| queue.counts.delivered,
    ),
    (
        of_queue(
            "bellwether_queue_uncommitted_records",
            Kind::Gauge,
            "Records at the end of the queue's log that are not on every in-sync replica yet.",
        ),
        |queue| queue.counts.log_end.0.saturating_sub(queue.counts.high_watermark.0),
    ),
    (
        of_queue("bellwether_queue_consumers", Kind::Gauge, "Consumers attached to the queue."),
        |queue| u64::from(queue.counts.consumers),
    ),
    (
        of_queue(
            "bellwether_queue_replicas",
            Kind::Gauge,
            "Brokers that are to hold a copy of the queue.",
        ),
        |queue| queue.replicas,
    ),
    (
        of_queue(
            "bellwether_queue_in_sync_replicas",
            Kind::Gauge,
            "Copies of the queue that count for confirms, the leader's among them.",
        ),
        |queue| queue.in_sync,
    ),
    (
        of_queue(
            "bellwether_queue_published_messages_total",
            Kind::Counter,
            "Messages appended to the queue while it was led here.",
        ),
        |queue| queue.tally.published_messages,
    ),
    (
        of_queue(
            "bellwether_queue_published_bytes_total",
            Kind::Counter,
            "Bytes of messages appended to the queue while it was led here.",
        ),
        |queue| queue.tally.published_bytes,
    ),
    (
        of_queue(
            "bellwether_queue_delivered_messages_total",
            Kind::Counter,
            "Messages of the queue handed to consumers, redeliveries among them.",
        ),
        |queue| queue.tally.delivered_messages,
    ),
    (
        of_queue(
            "bellwether_queue_delivered_bytes_total",
            Kind::Counter,
            "Bytes of messages of the queue handed to consumers.",
        ),
        |queue| queue.tally.delivered_bytes,
    ),
    (
        of_queue(
            "bellwether_queue_acked_messages_total",
            Kind::Counter,
            "Messages of the queue that consumers acknowledged.",
        ),
        |queue| queue.tally.acked_messages,
    ),
    (
        of_queue(
            "bellwether_queue_rejected_messages_total",
            Kind::Counter,
            "Messages of the queue that consumers rejected.",
        ),
        |queue| queue.tally.rejected_messages,
    ),
    (
        of_queue(
            "bellwether_queue_returned_messages_total",
            Kind::Counter,
            "Messages of the queue that consumers returned.",
        ),
        |queue| queue.tally.returned_messages,
    ),
];

/// One line for each broker that is to hold copies of queues led here.
pub const OF_FOLLOWERS: &[Column<FollowerLag, f64>] = &[
    (
        of_follower(
            "bellwether_follower_copies",
            "Copies of queues led here that this broker is to hold.",
        ),
        |lag| lag.copies as f64,
    ),
    (
        of_follower(
            "bellwether_follower_copies_unheard",
            "Of these, copies that have reported nothing since the present leadership began.",
        ),
        |lag| lag.unheard as f64,
    ),
    (
        of_follower(
            "bellwether_follower_copies_behind",
            "Of these, copies that do not hold everything there is.",
        ),
        |lag| lag.behind as f64,
    ),
    (
        of_follower(
            "bellwether_follower_lag_records",
            "Records of logs led here that this broker does not hold durably, all queues together.",
        ),
        |lag| lag.records as f64,
    ),
    (
        of_follower(
            "bellwether_follower_lag_seconds",
            "How long ago the slowest copy on this broker last held everything there was.",
        ),
        |lag| lag.behind_for.as_secs_f64(),
    ),
];

/// One line each, over all queues led here whatever the patterns say.
pub const OF_ALL: &[Column<ShardSample, u64>] = &[
    (
        of_all(
            "bellwether_ready_messages",
            "Messages that wait for a consumer, in all queues led here.",
        ),
        |sample| sample.ready,
    ),
    (
        of_all(
            "bellwether_unsettled_messages",
            "Messages that are with consumers and not settled, in all queues led here.",
        ),
        |sample| sample.unsettled,
    ),
    (
        of_all(
            "bellwether_uncommitted_records",
            "Records that are not on every in-sync replica yet, in all queues led here.",
        ),
        |sample| sample.uncommitted,
    ),
    (
        of_all(
            "bellwether_queues_without_lease",
            "Queues led here that may not deliver at the moment.",
        ),
        |sample| sample.without_lease,
    ),
    (
        of_all(
            "bellwether_metrics_queues_shown",
            "Queues led here that have metrics of their own in this scrape.",
        ),
        |sample| sample.queues.len() as u64,
    ),
    (
        of_all(
            "bellwether_metrics_queues_left_out",
            "Queues led here that metrics-queues selects and metrics-queues-max leaves out of this scrape.",
        ),
        ShardSample::left_out,
    ),
];

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::Offset;

    use super::*;

    fn sample(name: &str) -> QueueSample {
        QueueSample {
            virtual_host: VirtualHost::default(),
            queue: QueueName::new(name).unwrap(),
            counts: QueueCounts {
                enqueued: 0,
                ready: 0,
                delivered: 0,
                settled: 0,
                purged: 0,
                consumers: 0,
                bytes: 0,
                high_watermark: Offset(0),
                log_end: Offset(0),
            },
            tally: Tally::default(),
            replicas: 3,
            in_sync: 3,
        }
    }

    #[test]
    fn a_queue_is_selected_by_any_of_the_patterns() {
        let watch = Watch { queues: "orders.*, bill?".to_owned(), ..Watch::default() };
        let selection = QueueSelection::new(&watch);
        let wants = |name: &str| selection.wants(&QueueName::new(name).unwrap());
        assert!(wants("orders.eu") && wants("bills"));
        assert!(!wants("bill") && !wants("my.orders.eu") && !wants("audit"));
    }

    #[test]
    fn the_same_queues_are_shown_however_they_are_spread_over_shards_and_the_rest_is_counted() {
        let shard = |names: &[&str]| ShardSample {
            queues: names.iter().map(|name| sample(name)).collect(),
            selected: names.len() as u64,
            ..ShardSample::default()
        };
        for (one, other) in [(["d", "a"], ["c", "b"]), (["a", "b"], ["d", "c"])] {
            let mut all = shard(&one);
            all.join(shard(&other));
            all.keep_first(3);
            let names: Vec<&str> = all.queues.iter().map(|queue| queue.queue.as_str()).collect();
            assert_eq!((names, all.left_out()), (vec!["a", "b", "c"], 1));
        }
    }

    #[test]
    fn a_follower_is_as_far_behind_as_its_slowest_copy() {
        let mut lag = FollowerLag::default();
        lag.add(Some(0), Duration::ZERO);
        lag.add(Some(7), Duration::from_secs(2));
        let mut other = FollowerLag::default();
        other.add(None, Duration::from_secs(1));
        lag.join(other);
        let expected = FollowerLag {
            copies: 3,
            unheard: 1,
            behind: 2,
            records: 7,
            behind_for: Duration::from_secs(2),
        };
        assert_eq!(lag, expected);
    }
}
