//! What the broker counts while it runs. Everyone increments, nobody waits; `admin` renders them.
//! Names and units are stable: docs/metrics.md is made of what stands here, by `bellwether serve --print-metrics`.

pub mod memory;
pub mod process;
pub mod queues;
mod reference;

pub use reference::{Family, Kind, families, reference};

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Only ever grows while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `n` more: once a batch, not once a message.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` fewer; never below zero.
    pub fn subtract(&self, n: u64) {
        // The closure always gives a value, so the update cannot be refused.
        let _before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| {
            Some(value.saturating_sub(n))
        });
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A length of time that goes up and down.
#[derive(Debug, Default)]
pub struct Seconds(AtomicU64);

impl Seconds {
    /// Replaces the value.
    pub fn set(&self, value: Duration) {
        self.0.store(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Upper bounds of a histogram's buckets, in microseconds: each about twice the last, from a quick
/// sync to a stall that somebody should look into.
pub const BUCKETS_MICROS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what is above all of them. Not cumulative.
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// One thing took `took`.
    pub fn observe(&self, took: Duration) {
        self.observe_many(took, 1);
    }

    /// `n` things took `took` each.
    pub fn observe_many(&self, took: Duration, n: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|&bound| bound < micros);
        self.buckets[bucket].fetch_add(n, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros.saturating_mul(n), Ordering::Relaxed);
    }

    /// Replaces all by what was counted elsewhere: `counts` by upper bounds in microseconds, one more for
    /// what is above all of them. A bound between two of ours goes to the higher.
    pub fn replace(&self, bounds: &[u64], counts: impl IntoIterator<Item = u64>, sum_micros: u64) {
        let mut ours = [0; BUCKETS_MICROS.len() + 1];
        for (index, count) in counts.into_iter().enumerate() {
            let bucket = bounds.get(index).map_or(BUCKETS_MICROS.len(), |theirs| {
                BUCKETS_MICROS.partition_point(|bound| bound < theirs)
            });
            ours[bucket] += count;
        }
        for (bucket, count) in self.buckets.iter().zip(ours) {
            bucket.store(count, Ordering::Relaxed);
        }
        self.sum_micros.store(sum_micros, Ordering::Relaxed);
    }

    /// How many were in each bucket, and the sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS_MICROS.len() + 1], u64) {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed));
        (counts, self.sum_micros.load(Ordering::Relaxed))
    }
}

/// One metric, for rendering.
#[derive(Clone, Copy, Debug)]
pub enum Metric<'a> {
    /// Only grows.
    Counter(&'a Counter),
    /// Goes up and down.
    Gauge(&'a Gauge),
    /// Goes up and down, and is a length of time.
    Seconds(&'a Seconds),
    /// How long things took; in seconds when rendered.
    Histogram(&'a Histogram),
}

/// A metric with its name and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// As scraped. Those of one name follow each other and differ in the value of their label.
    pub name: &'static str,
    /// Its label, if several have this name.
    pub label: Option<(&'static str, &'static str)>,
    /// For people. What is shown is that of the first of this name.
    pub help: &'static str,
    /// The values.
    pub metric: Metric<'a>,
}

macro_rules! metrics {
    ($($kind:ident $field:ident $name:literal $({$label:ident: $value:literal})? $help:literal;)*) => {
        /// All that a broker counts. One for the process, shared.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $kind,)*
            /// What is held in memory, by pools.
            pub memory: crate::memory::Memory,
        }

        impl Metrics {
            /// All of them, in the order of the documentation.
            #[must_use]
            pub fn all(&self) -> Vec<Named<'_>> {
                vec![$(Named {
                    name: $name,
                    label: None$(.or(Some((stringify!($label), $value))))?,
                    help: $help,
                    metric: Metric::$kind(&self.$field),
                },)*]
            }
        }
    };
}

metrics! {
    Counter published_messages "bellwether_published_messages_total" "Messages taken from producers on this broker's connections.";
    Counter published_bytes "bellwether_published_bytes_total" "Bytes of messages taken from producers on this broker's connections.";
    Counter confirmed_messages "bellwether_confirmed_messages_total" "Messages confirmed to producers on this broker's connections.";
    Counter refused_messages "bellwether_refused_messages_total" "Messages refused with a definite error: not stored.";
    Counter unknown_messages "bellwether_unknown_messages_total" "Messages whose fate was reported as unknown.";
    Counter unroutable_messages "bellwether_unroutable_messages_total" "Messages that no binding took: confirmed and dropped.";
    Counter forwarded_messages "bellwether_forwarded_messages_total" "Messages forwarded to leaders on other brokers.";
    Counter duplicate_messages "bellwether_duplicate_messages_total" "Retried messages that were already stored.";
    Histogram confirm_seconds "bellwether_confirm_seconds" "From taking a publish to confirming it.";
    Counter delivered_messages "bellwether_delivered_messages_total" "Messages written to consumers.";
    Counter redelivered_messages "bellwether_redelivered_messages_total" "Messages written to consumers that may have been delivered before.";
    Counter settled_messages "bellwether_settled_messages_total" "Messages acknowledged or rejected in queues led here.";
    Counter returned_messages "bellwether_returned_messages_total" "Messages returned by consumers in queues led here.";
    Counter lease_refusals "bellwether_lease_refusals_total" "Delivery writes held back because the lease had run out.";
    Gauge client_connections "bellwether_client_connections" "Client connections open.";
    Counter client_connections_opened "bellwether_client_connections_opened_total" "Client connections past their handshake.";
    Counter client_connections_refused "bellwether_client_connections_refused_total" "Client connections turned away because there were too many.";
    Counter handshakes_failed "bellwether_handshakes_failed_total" "Client connections that failed their handshake.";
    Counter accepts_failed "bellwether_accepts_failed_total" "Accepts that failed, mostly for want of file descriptors.";
    Gauge tls_client_certificate_expires "bellwether_tls_client_certificate_expires_timestamp_seconds" "When the certificate of the port for clients expires, in seconds since 1970; 0 without TLS.";
    Gauge tls_peer_certificate_expires "bellwether_tls_peer_certificate_expires_timestamp_seconds" "When the certificate of the port for brokers expires, in seconds since 1970; 0 without TLS.";
    Gauge peer_tls_optional "bellwether_peer_tls_optional" "1 while brokers are taken that do not speak TLS, although this one has a certificate (peer-tls accept).";
    Gauge client_tls_optional "bellwether_client_tls_optional" "1 while clients are taken that do not speak TLS, although their port has a certificate (tls accept).";
    Counter client_connections_plain "bellwether_client_connections_plain_total" "Client connections taken without TLS on a port that speaks it (tls accept).";
    Gauge tls_reload_failed "bellwether_tls_reload_failed" "1 while new certificate files are no good and the old certificate is still in use.";
    Counter logins "bellwether_logins_total" "Client connections that logged in.";
    Counter logins_failed "bellwether_logins_failed_total" "Logins refused: wrong password, unknown user, or not looked at after too many failures.";
    Counter access_refused "bellwether_access_refused_total" "Requests, publishes and consumers refused for want of a permission.";
    Gauge producers "bellwether_producers" "Producers attached.";
    Gauge producers_withheld "bellwether_producers_withheld" "Producers that were told that they get no credit for now because too much is held in memory.";
    Gauge consumers "bellwether_consumers" "Consumers attached.";
    Gauge publish_bytes_in_flight "bellwether_publish_bytes_in_flight" "Bytes of publishes taken and not answered.";
    Gauge memory_above_limit "bellwether_memory_above_limit" "1 while producers get no credit because too much is held in memory.";
    Gauge queues_led "bellwether_queues_led" "Queues that this broker leads.";
    Gauge queues_stopped "bellwether_queues_stopped" "Queues that stopped themselves here rather than break a promise. Look into it.";
    Gauge queues "bellwether_queues" "Queues of the cluster, as this broker sees it.";
    Gauge queues_without_leader "bellwether_queues_without_leader" "Queues of the cluster that nobody leads, as this broker sees it.";
    Gauge queues_under_replicated "bellwether_queues_under_replicated" "Queues of the cluster with fewer in-sync replicas than replicas, as this broker sees it.";
    Gauge objects_queues "bellwether_objects" {kind: "queues"} "What there is in the cluster, as this broker sees it, of what is limited in number.";
    Gauge objects_deleted_queues "bellwether_objects" {kind: "deleted_queues"} "Deleted queues that the disk of a broker may still hold.";
    Gauge objects_exchanges "bellwether_objects" {kind: "exchanges"} "Exchanges.";
    Gauge objects_bindings "bellwether_objects" {kind: "bindings"} "Bindings.";
    Gauge objects_max_queues "bellwether_objects_max" {kind: "queues"} "How many of them this broker allows: queues-max, deleted-queues-max, exchanges-max, bindings-max.";
    Gauge objects_max_deleted_queues "bellwether_objects_max" {kind: "deleted_queues"} "deleted-queues-max.";
    Gauge objects_max_exchanges "bellwether_objects_max" {kind: "exchanges"} "exchanges-max.";
    Gauge objects_max_bindings "bellwether_objects_max" {kind: "bindings"} "bindings-max.";
    Counter objects_refused "bellwether_objects_refused_total" "Declarations refused because there are as many as are allowed.";
    Counter elections_declared "bellwether_elections_won_total" {trigger: "declared"} "Leaderships begun here, by what gave rise to them: the queue was declared, its leader handed it over, its leader was lost, or it was led by an earlier life of this broker.";
    Counter elections_handed_over "bellwether_elections_won_total" {trigger: "handed_over"} "Of queues that their leaders handed over.";
    Counter elections_leader_lost "bellwether_elections_won_total" {trigger: "leader_lost"} "Of queues whose leaders were lost.";
    Counter elections_restarted "bellwether_elections_won_total" {trigger: "restarted"} "Of queues that an earlier life of this broker led.";
    Counter leaderships_ended "bellwether_leaderships_ended_total" "Leaderships given up, handed over or lost here.";
    Counter leases_granted "bellwether_leases_granted_total" "Times that a queue led here became allowed to deliver.";
    Counter leases_withdrawn "bellwether_leases_withdrawn_total" "Times that a queue led here lost that allowance because the members it rests on changed or left.";
    Counter isr_shrinks "bellwether_isr_shrinks_total" "Members taken out of in-sync sets led here.";
    Counter isr_expands "bellwether_isr_expands_total" "Members taken into in-sync sets led here.";
    Counter truncations "bellwether_truncations_total" "Cuts of a follower's log to agree with its leader.";
    Counter snapshots_sent "bellwether_snapshots_sent_total" "Snapshots sent to fill a replica.";
    Counter snapshots_received "bellwether_snapshots_received_total" "Snapshots that filled a replica here.";
    Counter replication_bytes_sent "bellwether_replication_bytes_sent_total" "Bytes of log batches sent to followers.";
    Counter replication_bytes_received "bellwether_replication_bytes_received_total" "Bytes of log batches received from leaders.";
    Counter peer_dials_refused "bellwether_peer_dials_refused_total" "Connections to live brokers that were refused.";
    Gauge peer_connections "bellwether_peer_connections" "Connections with other brokers that are up.";
    Counter journal_syncs "bellwether_journal_syncs_total" "Calls of fdatasync that returned.";
    Counter journal_bytes "bellwether_journal_bytes_total" "Bytes written to the journal.";
    Histogram journal_sync_seconds "bellwether_journal_sync_seconds" "How long fdatasync took.";
    Gauge journal_segments "bellwether_journal_segments" "Segment files in use.";
    Gauge journal_live_bytes "bellwether_journal_live_bytes" "Bytes of records that are still needed.";
    Counter journal_relocated_bytes "bellwether_journal_relocated_bytes_total" "Bytes moved together to free segments.";
    Gauge journal_failed "bellwether_journal_failed" "1 once a write or a sync has failed: the store is dead until replaced.";
    Gauge disk_stalled "bellwether_disk_stalled" "1 while no write or sync of the journal returns, and until it has been fine for a while.";
    Counter disk_stalls "bellwether_disk_stalls_total" "Times that the disk stalled and leaderships were given up for it.";
    Gauge disk_free_bytes "bellwether_disk_free_bytes" "Free on the journal's file system.";
    Gauge disk_low "bellwether_disk_low" "1 while producers are slowed, and publishes to queues of class bulk refused, because less is free than disk-free-warn.";
    Gauge journal_starved "bellwether_journal_starved" "1 while publishes are refused because there is no file descriptor for the journal's next segment.";
    Gauge disk_full "bellwether_disk_full" "1 while publishes are refused for want of disk: less is free than disk-free-min. Those to queues of class vital are below half of it.";
    Gauge coordinator_connected "bellwether_coordinator_connected" "1 while the coordinator session is connected.";
    Seconds coordinator_session_timeout "bellwether_coordinator_session_timeout_seconds" "The session time-out that the coordinator granted.";
    Counter coordinator_sessions "bellwether_coordinator_sessions_total" "Sessions begun: lives of this broker.";
    Counter coordinator_disconnects "bellwether_coordinator_disconnects_total" "Times that the coordinator could not be reached.";
    Counter coordinator_reconnects "bellwether_coordinator_reconnects_total" "Times that it was reached again with the same session.";
    Histogram coordinator_reads "bellwether_coordinator_request_seconds" {request: "read"} "How long the coordinator took to answer, refusals and time-outs among it, by what was asked.";
    Histogram coordinator_syncs "bellwether_coordinator_request_seconds" {request: "sync"} "Of syncs, each before a read that must not be stale.";
    Histogram coordinator_writes "bellwether_coordinator_request_seconds" {request: "write"} "Of writes.";
    Counter coordinator_failures "bellwether_coordinator_requests_failed_total" "Requests to the coordinator without a decided answer: nobody knows whether such a write was done.";
    Counter scrapes_without_queues "bellwether_metrics_scrapes_without_queues_total" "Scrapes that show nothing of the queues because these did not answer in time.";
    Counter spans_exported "bellwether_spans_exported_total" "Spans of traced messages that the collector took.";
    Counter spans_dropped "bellwether_spans_dropped_total" "Spans dropped because there were too many or the collector did not take them.";
    Gauge controller "bellwether_controller" "1 while this broker is the controller.";
    Gauge controller_copying "bellwether_controller_copies_under_way" "Copies of queues that the controller waits for: 1 at most.";
    Counter controller_replaces "bellwether_controller_changes_total" {change: "replaces"} "Changes of replica sets made as the controller: a copy moved off a broker that is gone or drained, a copy or a leadership moved to even them out, a missing copy made, min_isr raised to what was declared.";
    Counter controller_evens_copies "bellwether_controller_changes_total" {change: "evens_copies"} "Copies moved to spread them evenly.";
    Counter controller_spreads_racks "bellwether_controller_changes_total" {change: "spreads_racks"} "Copies moved to keep them in several racks.";
    Counter controller_adds "bellwether_controller_changes_total" {change: "adds"} "Missing copies made.";
    Counter controller_leads "bellwether_controller_changes_total" {change: "leads"} "Leaderships given to other brokers to spread them evenly, or to empty one.";
    Counter controller_raises_min_isr "bellwether_controller_changes_total" {change: "raises_min_isr"} "Queues whose confirms wait for more copies now that these are there.";
    Counter controller_refused "bellwether_controller_changes_refused_total" "Changes that the controller planned and that did not go through: planned anew.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_goes_below_zero() {
        let gauge = Gauge::default();
        gauge.add(2);
        gauge.subtract(3);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(100));
        histogram.observe_many(Duration::from_micros(101), 3);
        histogram.observe(Duration::from_secs(11));
        let (counts, sum) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[16]), (1, 3, 1));
        assert_eq!(sum, 100 + 303 + 11_000_000);
    }

    #[test]
    fn counts_by_other_bounds_are_never_shown_as_quicker_than_they_were() {
        let histogram = Histogram::default();
        histogram.replace(&[100, 200, 20_000], [1, 2, 3, 4], 99);
        let (counts, sum) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[7], counts[16], sum), (1, 2, 3, 4, 99));
    }

    #[test]
    fn a_length_of_time_is_kept_to_the_microsecond() {
        let seconds = Seconds::default();
        seconds.set(Duration::from_millis(1_500));
        assert_eq!(seconds.get(), Duration::from_millis(1_500));
    }
}
