//! What an operator can set: one struct, each field with why one would change it and its default.
//! Reading files, the environment and flags is the command line's business; here is what they come to.

use std::path::PathBuf;
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, ClusterId};
use bellwether_protocol::message::MESSAGE_BYTES_MAX;
use tokio::net::TcpListener;

use crate::tls::Tls;
pub use crate::watch::{Ratio, Watch};

mod bounds;
mod numbers;

pub use bounds::Bounds;
pub use numbers::Numbers;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Longest promise T, in time. A successor waits T before it delivers, so a longer one would be felt
/// in every failover; the bound on late deliveries of a deposed leader is stated in terms of it.
pub const PROMISE_MAX: Duration = Duration::from_millis(500);
/// Shortest promise T: renewals go out every T/6, and a loaded machine must manage those.
pub const PROMISE_MIN: Duration = Duration::from_millis(30);
/// Most shards: each is a task and a mailbox, and more of them than cores gain nothing.
pub const SHARDS_MAX: usize = 64;
/// What a frame may need beside one message of the largest size: headers of the frame, names, key.
pub const FRAME_OVERHEAD_BYTES: u64 = 64 * KIB;

/// All that a broker is told from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// This broker's number, unique in the cluster and the same after every restart. No default.
    pub id: BrokerId,
    /// Failure domain, shown to operators; set it when brokers stand in several racks or zones. Default: none.
    pub rack: Option<String>,
    /// Folder of the journal. Change it to put the journal on a disk of its own. Default: `bellwether-data`.
    pub data: PathBuf,
    /// The id that the cluster is to have: founded with it, or checked against it. Needed when certificates are made before the
    /// first start. Default: any.
    pub cluster: Option<ClusterId>,
    /// Where it is reached.
    pub addresses: Addresses,
    /// How long things may take.
    pub timing: Timing,
    /// How the journal uses disk and memory.
    pub storage: Storage,
    /// What clients and peers may ask for at most.
    pub limits: Limits,
    /// What is shown to those who watch.
    pub watch: Watch,
    /// Tasks that the queues are spread over. More than cores gain nothing. Default: the cores, 8 at most.
    pub shards: usize,
    /// Whether who does not log in is turned away; else they may do everything. Default: no.
    pub login_required: bool,
}

/// Addresses as others are told them: `host:port`, with the ports that were really bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where clients reach this broker. Change it when they see another address than the one that is
    /// bound (several interfaces, address translation, containers). Default: the client listener's.
    pub client: String,
    /// Where brokers reach this broker; likewise. Default: the peer listener's.
    pub peer: String,
}

/// Sockets that are bound already, so that whoever starts a broker knows its ports and hears at once
/// when one is taken.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: TcpListener,
    /// For other brokers.
    pub peer: TcpListener,
    /// For `/metrics`, `/healthz`, `/readyz`, when wanted.
    pub admin: Option<TcpListener>,
    /// The certificates of the first two; without one, a port is plain.
    pub tls: Tls,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Session time-out asked of the ensemble, which may grant another. It bounds the failover of a
    /// broker that hangs or is cut off; shorter means quicker, but a stall of that length (a slow disk
    /// under ZooKeeper, a paused machine) then costs a leadership. Default: 6 s.
    pub session_timeout: Duration,
    /// A follower that has not caught up for so long leaves the in-sync set. Confirms wait for it
    /// until then; shorter means a shorter stall, but a busy follower is dropped sooner. Default: 1 s.
    pub lag_limit: Duration,
    /// How long the preferred leader of a queue has to be in sync before the leadership moves to it.
    pub leader_settle: Duration,
    /// The promise T under which a leader may deliver: a successor waits this long before its first
    /// delivery, and a leader that is cut off stops delivering within it. Longer forgives longer
    /// hiccups between brokers; at most 500 ms. Default: 300 ms.
    pub promise: Duration,
    /// How long a stopping broker tries to hand its queues over before it stops all the same. Raise
    /// it for brokers that lead very many queues. Default: 30 s.
    pub drain_timeout: Duration,
    /// A broker that is away for so long is replaced in its replica sets. `None`: never.
    pub replace_after: Option<Duration>,
    /// How often clients must be heard; a connection is closed after twice that. Raise it for clients
    /// on bad networks. Default: 10 s.
    pub heartbeat: Duration,
    /// How long a new connection may take for its handshake, TLS and the login included. Default: 5 s.
    pub handshake_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            session_timeout: Duration::from_secs(6),
            lag_limit: Duration::from_secs(1),
            leader_settle: Duration::from_secs(5),
            promise: Duration::from_millis(300),
            drain_timeout: Duration::from_secs(30),
            replace_after: Some(Duration::from_secs(600)),
            heartbeat: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// How the journal uses disk and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Size of a segment file, preallocated. Space comes back a segment at a time: smaller ones give
    /// it back sooner, bigger ones mean fewer files. Default: 64 MiB.
    pub segment_bytes: u64,
    /// Dead bytes that may lie about before the cleaner moves live messages together. Lower saves
    /// disk, higher saves writing. Default: 384 MiB.
    pub dead_bytes_max: u64,
    /// Memory for recent records of all queues, from which consumers and followers are served. Raise
    /// it when consumers are often seconds behind and the disk is busy. Default: 64 MiB.
    pub cache_bytes: u64,
    /// Publishes are refused when the file system has less free than this; settles and deletes go
    /// on. Must leave room for what else writes to that file system. Default: 256 MiB.
    pub disk_free_min: u64,
    /// Bytes a second that filling an emptied replica may use, for each pair of brokers. Raise it to
    /// be whole again sooner, lower it to spare producers meanwhile. Default: 64 MiB.
    pub snapshot_bytes_per_second: u64,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            segment_bytes: 64 * MIB,
            dead_bytes_max: 384 * MIB,
            cache_bytes: 64 * MIB,
            disk_free_min: 256 * MIB,
            snapshot_bytes_per_second: 64 * MIB,
        }
    }
}

/// What clients and peers may ask for at most. Each bounds memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, headers and body together. Lower it to refuse early what consumers could not
    /// take; it cannot be above 16 MiB. Default: 16 MiB.
    pub message_bytes_max: u64,
    /// Longest frame after the handshake: one message of the largest size and what goes around it.
    /// Default: `message_bytes_max` and 64 KiB.
    pub frame_bytes_max: u64,
    /// Longest frame before the handshake is done, when nobody knows yet who is there. Default: 4 KiB.
    pub handshake_bytes_max: u64,
    /// Client connections at once; each costs buffers and a file descriptor. Default: 10,000.
    pub connections_max: usize,
    /// Producers on one connection. Default: 256.
    pub producers_per_connection_max: usize,
    /// Consumers on one connection. Default: 1,024.
    pub consumers_per_connection_max: usize,
    /// Unanswered requests on one connection; further ones wait in the socket. Default: 256.
    pub requests_in_flight_max: usize,
    /// Most unsettled messages that a consumer may ask for; more are cut to it. Default: 65,535.
    pub prefetch_max: u32,
    /// Messages that a producer may have published and not seen confirmed. Default: 16,384.
    pub producer_credit_messages: u64,
    /// Bytes that a producer may have published and not seen confirmed; one message is always let
    /// through. With many producers on one broker, lower it to bound memory. Default: 8 MiB.
    pub producer_credit_bytes: u64,
    /// Bytes of publishes that a whole broker holds unconfirmed before it stops granting credit.
    /// Default: 64 MiB.
    pub publish_bytes_in_flight_max: u64,
    /// Bytes waiting to be written to one client; its deliveries wait beyond that. Default: 2 MiB.
    pub outbox_bytes_max: u64,
    /// Bytes that a leader streams to a follower ahead of its answers. Raise it for brokers far
    /// apart (bandwidth times round trip). Default: 8 MiB.
    pub peer_window_bytes: u64,
    /// What holds for the whole broker, and for whoever has not said hello yet.
    pub bounds: Bounds,
    /// How many things there may be in the whole cluster.
    pub numbers: Numbers,
}

impl Default for Limits {
    fn default() -> Limits {
        let message_bytes_max = MESSAGE_BYTES_MAX as u64;
        Limits {
            message_bytes_max,
            frame_bytes_max: message_bytes_max + FRAME_OVERHEAD_BYTES,
            handshake_bytes_max: 4 * KIB,
            connections_max: 10_000,
            producers_per_connection_max: 256,
            consumers_per_connection_max: 1_024,
            requests_in_flight_max: 256,
            prefetch_max: 65_535,
            producer_credit_messages: 16_384,
            producer_credit_bytes: 8 * MIB,
            publish_bytes_in_flight_max: 64 * MIB,
            outbox_bytes_max: 2 * MIB,
            peer_window_bytes: 8 * MIB,
            bounds: Bounds::default(),
            numbers: Numbers::default(),
        }
    }
}

/// A setting that cannot be worked with: which, what it is, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {given}: {allowed}")]
pub struct InvalidSetting {
    /// The setting's name, as in the configuration file.
    pub key: &'static str,
    /// What it was set to.
    pub given: String,
    /// What is allowed, and why.
    pub allowed: String,
}

impl BrokerConfig {
    /// Defaults for broker `id` with its journal in `data`, reached at these addresses.
    #[must_use]
    pub fn new(id: BrokerId, data: PathBuf, addresses: Addresses) -> BrokerConfig {
        BrokerConfig {
            id,
            rack: None,
            data,
            cluster: None,
            addresses,
            timing: Timing::default(),
            storage: Storage::default(),
            limits: Limits::default(),
            watch: Watch::default(),
            shards: default_shards(),
            login_required: false,
        }
    }

    /// Checks that the settings can be worked with, each and together.
    ///
    /// # Errors
    /// Names the first setting that cannot be, and what is allowed.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        self.check_timing()?;
        self.check_limits()?;
        self.check_storage()?;
        self.watch.check()?;
        between("shards", self.shards as u64, 1, SHARDS_MAX as u64)
    }

    fn check_timing(&self) -> Result<(), InvalidSetting> {
        let Timing {
            session_timeout,
            lag_limit,
            leader_settle,
            promise,
            heartbeat,
            handshake_timeout,
            ..
        } = self.timing;
        let ms = Duration::from_millis;
        lasting("session-timeout-ms", session_timeout, ms(400), ms(60_000))?;
        lasting("promise", promise, PROMISE_MIN, PROMISE_MAX)?;
        lasting("lag-limit", lag_limit, ms(100), ms(60_000))?;
        lasting("leader-settle", leader_settle, ms(100), ms(86_400_000))?;
        lasting("heartbeat", heartbeat, ms(100), ms(600_000))?;
        lasting("handshake-timeout", handshake_timeout, ms(100), ms(60_000))
    }

    fn check_limits(&self) -> Result<(), InvalidSetting> {
        let limits = &self.limits;
        between("message-bytes-max", limits.message_bytes_max, KIB, MESSAGE_BYTES_MAX as u64)?;
        let smallest_frame = limits.message_bytes_max + FRAME_OVERHEAD_BYTES;
        between("frame-bytes-max", limits.frame_bytes_max, smallest_frame, 2 * smallest_frame)?;
        between("handshake-bytes-max", limits.handshake_bytes_max, KIB, 64 * KIB)?;
        between("connections-max", limits.connections_max as u64, 1, 1_000_000)?;
        between(
            "producers-per-connection-max",
            limits.producers_per_connection_max as u64,
            1,
            65_536,
        )?;
        between(
            "consumers-per-connection-max",
            limits.consumers_per_connection_max as u64,
            1,
            65_536,
        )?;
        between("requests-in-flight-max", limits.requests_in_flight_max as u64, 1, 65_536)?;
        between("prefetch-max", u64::from(limits.prefetch_max), 1, 1_000_000)?;
        between("producer-credit-messages", limits.producer_credit_messages, 1, 1_000_000)?;
        between("producer-credit-bytes", limits.producer_credit_bytes, 64 * KIB, 1024 * MIB)?;
        between(
            "publish-bytes-in-flight-max",
            limits.publish_bytes_in_flight_max,
            MIB,
            16_384 * MIB,
        )?;
        between("outbox-bytes-max", limits.outbox_bytes_max, 64 * KIB, 1024 * MIB)?;
        between("peer-window-bytes", limits.peer_window_bytes, 512 * KIB, 1024 * MIB)?;
        limits.numbers.check()?;
        limits.bounds.check(limits.connections_max)
    }

    fn check_storage(&self) -> Result<(), InvalidSetting> {
        let storage = &self.storage;
        // A batch never spans segments, so one must hold the largest message with room to spare.
        let smallest = 2 * MIB + 2 * self.limits.message_bytes_max;
        between("segment-bytes", storage.segment_bytes, smallest, 1024 * MIB)?;
        between(
            "dead-bytes-max",
            storage.dead_bytes_max,
            storage.segment_bytes,
            1024 * 1024 * MIB,
        )?;
        between("cache-bytes", storage.cache_bytes, MIB, 1024 * 1024 * MIB)?;
        between(
            "disk-free-min",
            storage.disk_free_min,
            2 * storage.segment_bytes,
            1024 * 1024 * MIB,
        )?;
        between(
            "snapshot-bytes-per-second",
            storage.snapshot_bytes_per_second,
            64 * KIB,
            1024 * 1024 * MIB,
        )
    }
}

/// One shard a core, 8 at most.
#[must_use]
pub fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8)
}

pub(crate) fn between(
    key: &'static str,
    given: u64,
    least: u64,
    most: u64,
) -> Result<(), InvalidSetting> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(InvalidSetting {
        key,
        given: given.to_string(),
        allowed: format!("allowed is {least} to {most}"),
    })
}

fn lasting(
    key: &'static str,
    given: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), InvalidSetting> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(InvalidSetting {
        key,
        given: shown(given),
        allowed: format!("allowed is {} to {}", shown(least), shown(most)),
    })
}

/// As people write it; nothing at all has no unit that fits.
fn shown(time: Duration) -> String {
    if time.is_zero() { "0s".to_owned() } else { format!("{time:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BrokerConfig {
        let addresses =
            Addresses { client: "127.0.0.1:7400".into(), peer: "127.0.0.1:7500".into() };
        BrokerConfig::new(BrokerId(1), PathBuf::from("data"), addresses)
    }

    #[test]
    fn the_defaults_can_be_worked_with() {
        assert_eq!(config().check(), Ok(()));
    }

    #[test]
    fn a_promise_over_the_stated_bound_is_refused_by_name() {
        let mut config = config();
        config.timing.promise = Duration::from_millis(501);
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "promise = 501ms: allowed is 30ms to 500ms"
        );
    }

    #[test]
    fn a_segment_must_hold_the_largest_message() {
        let mut config = config();
        config.storage.segment_bytes = 16 * MIB;
        assert_eq!(config.check().unwrap_err().key, "segment-bytes");
        config.limits.message_bytes_max = MIB;
        config.limits.frame_bytes_max = MIB + FRAME_OVERHEAD_BYTES;
        assert_eq!(config.check(), Ok(()));
    }
}
