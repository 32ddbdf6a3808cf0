//! The settings of `serve`: one list, read by the same parser from flags, the environment and the
//! configuration file, and printed back by `--print-config`.

pub mod docs;

mod bounds;
mod login;
mod numbers;
mod tls;
mod watch;

use std::path::PathBuf;

use bellwether_broker::config::{
    Addresses, BrokerConfig, FRAME_OVERHEAD_BYTES, Limits, Storage, Timing,
};
use bellwether_protocol::ids::BrokerId;
use clap::Args;

pub use tls::{TlsSettings, ZooKeeperTlsArgs};

use crate::values::{ByteSize, Span, SpanOrOff};
pub use login::LoginSettings;

/// What `serve` can be told. The name of a flag without its dashes is also the key in the
/// configuration file, and in capitals behind BELLWETHER_ the environment variable.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// This broker's number: unique in the cluster, and the same after every restart
    ///
    /// Two brokers with one number are refused. Required.
    #[arg(long, value_name = "N", env = "BELLWETHER_ID")]
    pub id: Option<u32>,
    /// Failure domain, shown to operators
    ///
    /// Set it where brokers stand in several racks or zones: copies of a queue are then kept apart.
    #[arg(long, value_name = "NAME", env = "BELLWETHER_RACK")]
    pub rack: Option<String>,
    /// Folder of the journal
    ///
    /// Put it on a disk of its own.
    #[arg(long, value_name = "DIR", env = "BELLWETHER_DATA", default_value = "bellwether-data")]
    pub data: PathBuf,
    /// ZooKeeper ensemble and chroot: h1:2181,h2:2181/chroot
    ///
    /// Name all servers. One chroot per cluster; it is made when missing.
    #[arg(long, value_name = "ENSEMBLE", env = "BELLWETHER_ZOOKEEPER")]
    pub zookeeper: Option<String>,
    /// Digest credentials for ZooKeeper, user:password; nodes are then readable by this user alone
    ///
    /// Better in the environment than in a flag, which other users of the machine see.
    #[arg(long, value_name = "AUTH", env = "BELLWETHER_ZOOKEEPER_AUTH", hide_env_values = true)]
    pub zookeeper_auth: Option<String>,
    /// Tasks that the queues are spread over [default: the cores, 8 at most]
    ///
    /// More than cores gain nothing.
    #[arg(long, value_name = "N", env = "BELLWETHER_SHARDS")]
    pub shards: Option<usize>,
    /// How logs are written to standard error
    ///
    /// `json` for log collectors.
    #[arg(long, value_name = "FORMAT", env = "BELLWETHER_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a tracing filter [default: RUST_LOG, or info]
    ///
    /// A filter looks like `info,bellwether_broker::peers=debug`. `info` is what an operator cares about; raise it while you look for something.
    #[arg(long, value_name = "FILTER", env = "BELLWETHER_LOG")]
    pub log: Option<String>,
    #[command(flatten)]
    pub network: NetworkSettings,
    #[command(flatten)]
    pub tls: TlsSettings,
    #[command(flatten)]
    pub login: LoginSettings,
    #[command(flatten)]
    pub timing: TimingSettings,
    #[command(flatten)]
    pub storage: StorageSettings,
    #[command(flatten)]
    pub limits: LimitSettings,
    #[command(flatten)]
    pub watch: watch::WatchSettings,
    #[command(flatten)]
    pub bounds: bounds::BoundSettings,
    #[command(flatten)]
    pub numbers: numbers::NumberSettings,
}

/// Where this broker listens, and what others are told.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub struct NetworkSettings {
    /// Where clients connect
    ///
    /// Another address than loopback for clients on other machines.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "BELLWETHER_LISTEN",
        default_value = "127.0.0.1:7400"
    )]
    pub listen: String,
    /// Where clients are told to connect [default: as --listen]
    ///
    /// Needed when `listen` is a wildcard such as `0.0.0.0:7400`, or behind address translation.
    #[arg(long, value_name = "HOST[:PORT]", env = "BELLWETHER_ADVERTISE")]
    pub advertise: Option<String>,
    /// Where other brokers connect
    ///
    /// Another address than loopback as soon as brokers stand on several machines.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "BELLWETHER_PEER_LISTEN",
        default_value = "127.0.0.1:7410"
    )]
    pub peer_listen: String,
    /// Where other brokers are told to connect [default: as --peer-listen]
    ///
    /// As for `advertise`.
    #[arg(long, value_name = "HOST[:PORT]", env = "BELLWETHER_PEER_ADVERTISE")]
    pub peer_advertise: Option<String>,
    /// Where /metrics, /healthz and /readyz are served [default: nowhere]
    ///
    /// Needed for Prometheus and for probes.
    #[arg(long, value_name = "HOST:PORT", env = "BELLWETHER_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,
    /// Let other machines reach the port of --admin-listen, which has neither TLS nor a login
    ///
    /// For Prometheus or probes that come from elsewhere, on a network that only they reach. It opens no other port.
    #[arg(long, env = "BELLWETHER_ADMIN_INSECURE", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true, hide_possible_values = true)]
    pub admin_insecure: bool,
    /// Let other machines reach clients' and brokers' ports without TLS, or where clients need neither log in nor show certificates
    ///
    /// Whoever reaches those addresses may read and write everything. Where clients speak TLS or have to log in it does not hold for the port of
    /// brokers: that has to speak TLS, too.
    #[arg(long, env = "BELLWETHER_INSECURE", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true, hide_possible_values = true)]
    pub insecure: bool,
}

/// How long things may take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timing")]
pub struct TimingSettings {
    /// Session time-out asked of ZooKeeper: bounds the failover of a broker that hangs
    ///
    /// ZooKeeper may grant another (a warning says so). Shorter is quicker, but a stall of that length costs leaderships. A killed process is noticed
    /// sooner in any case.
    #[arg(long, value_name = "MS", env = "BELLWETHER_SESSION_TIMEOUT_MS",
          default_value_t = u64::try_from(Timing::default().session_timeout.as_millis()).unwrap_or(u64::MAX))]
    pub session_timeout_ms: u64,
    /// A follower that has not caught up for so long leaves the in-sync set
    ///
    /// Confirms wait for it until then: shorter means a shorter stall, but a busy follower is dropped sooner.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_LAG_LIMIT", default_value_t = Span(Timing::default().lag_limit))]
    pub lag_limit: Span,
    /// How long the preferred leader of a queue has to be in sync before the leadership moves to it
    ///
    /// Longer keeps a broker that comes and goes from taking its queues to and fro.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_LEADER_SETTLE", default_value_t = Span(Timing::default().leader_settle))]
    pub leader_settle: Span,
    /// How long a successor waits before its first delivery, and a cut-off leader may still deliver
    ///
    /// Longer forgives longer hiccups between brokers; at most 500 ms. Confirms never wait for it. The same on all brokers.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_PROMISE", default_value_t = Span(Timing::default().promise))]
    pub promise: Span,
    /// How long a stopping broker tries to hand its queues over
    ///
    /// Raise it for brokers that lead very many queues. What is not handed over is taken over when the broker is gone.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_DRAIN_TIMEOUT", default_value_t = Span(Timing::default().drain_timeout))]
    pub drain_timeout: Span,
    /// A broker that is away for so long is replaced: others get copies of what it holds. `off`: never
    ///
    /// Longer than a reboot, and shorter than you would do without a copy.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_REPLACE_AFTER", default_value_t = SpanOrOff(Timing::default().replace_after))]
    pub replace_after: SpanOrOff,
    /// How often clients must be heard; a connection is closed after twice that
    ///
    /// Raise it for clients on bad networks.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_HEARTBEAT", default_value_t = Span(Timing::default().heartbeat))]
    pub heartbeat: Span,
    /// How long a new connection may take for its handshake
    ///
    /// Raise it where connecting takes long; until then a stranger holds a place.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_HANDSHAKE_TIMEOUT", default_value_t = Span(Timing::default().handshake_timeout))]
    pub handshake_timeout: Span,
}

/// How the journal uses disk and memory.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Storage")]
pub struct StorageSettings {
    /// Size of a segment file; space comes back a segment at a time
    ///
    /// Smaller ones give space back sooner, bigger ones mean fewer files.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_SEGMENT_BYTES", default_value_t = ByteSize(Storage::default().segment_bytes))]
    pub segment_bytes: ByteSize,
    /// Dead bytes that may lie about before live messages are moved together
    ///
    /// Lower saves disk, higher saves writing.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_DEAD_BYTES_MAX", default_value_t = ByteSize(Storage::default().dead_bytes_max))]
    pub dead_bytes_max: ByteSize,
    /// Memory for recent records, from which consumers and followers are served
    ///
    /// Raise it when consumers are often seconds behind and the disk is busy.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_CACHE_BYTES", default_value_t = ByteSize(Storage::default().cache_bytes))]
    pub cache_bytes: ByteSize,
    /// Refuse publishes when the file system has less free than this
    ///
    /// Settles and deletes go on. Queues of class `vital` are refused below half of it, those of class `bulk` below `disk-free-warn`
    /// already. Leave room for what else writes to that file system.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_DISK_FREE_MIN", default_value_t = ByteSize(Storage::default().disk_free_min))]
    pub disk_free_min: ByteSize,
    /// What filling an emptied replica may use a second
    ///
    /// For each pair of brokers. Raise it to be whole again sooner, lower it to spare producers meanwhile.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_SNAPSHOT_BYTES_PER_SECOND", default_value_t = ByteSize(Storage::default().snapshot_bytes_per_second))]
    pub snapshot_bytes_per_second: ByteSize,
}

/// What clients and peers may ask for at most.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Largest message, headers and body together
    ///
    /// Lower it to refuse early what consumers could not take; 16 MiB at most.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_MESSAGE_BYTES_MAX", default_value_t = ByteSize(Limits::default().message_bytes_max))]
    pub message_bytes_max: ByteSize,
    /// Longest frame [default: message-bytes-max and 64KiB]
    ///
    /// For clients that put very much around their messages.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_FRAME_BYTES_MAX")]
    pub frame_bytes_max: Option<ByteSize>,
    /// Longest frame before the handshake is done
    ///
    /// Raise it for clients with very long credentials; it bounds what a stranger can make a broker hold.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_HANDSHAKE_BYTES_MAX", default_value_t = ByteSize(Limits::default().handshake_bytes_max))]
    pub handshake_bytes_max: ByteSize,
    /// Client connections at once
    ///
    /// Each costs buffers and a file descriptor.
    #[arg(long, value_name = "N", env = "BELLWETHER_CONNECTIONS_MAX", default_value_t = Limits::default().connections_max)]
    pub connections_max: usize,
    /// Producers on one connection
    ///
    /// Raise it for applications with very many producers; each has credit of its own.
    #[arg(long, value_name = "N", env = "BELLWETHER_PRODUCERS_PER_CONNECTION_MAX", default_value_t = Limits::default().producers_per_connection_max)]
    pub producers_per_connection_max: usize,
    /// Consumers on one connection
    ///
    /// Raise it for applications that take from very many queues.
    #[arg(long, value_name = "N", env = "BELLWETHER_CONSUMERS_PER_CONNECTION_MAX", default_value_t = Limits::default().consumers_per_connection_max)]
    pub consumers_per_connection_max: usize,
    /// Unanswered requests on one connection
    ///
    /// Further ones are refused until answers have come.
    #[arg(long, value_name = "N", env = "BELLWETHER_REQUESTS_IN_FLIGHT_MAX", default_value_t = Limits::default().requests_in_flight_max)]
    pub requests_in_flight_max: usize,
    /// Most unsettled messages that a consumer gets
    ///
    /// A consumer that asks for more gets this. Lower it to spread messages more evenly.
    #[arg(long, value_name = "N", env = "BELLWETHER_PREFETCH_MAX", default_value_t = Limits::default().prefetch_max)]
    pub prefetch_max: u32,
    /// Messages that a producer may have unconfirmed
    ///
    /// Raise it for producers of very small messages far away.
    #[arg(long, value_name = "N", env = "BELLWETHER_PRODUCER_CREDIT_MESSAGES", default_value_t = Limits::default().producer_credit_messages)]
    pub producer_credit_messages: u64,
    /// Bytes that a producer may have unconfirmed
    ///
    /// One message is always let through. With many producers on one broker, lower it to bound memory.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_PRODUCER_CREDIT_BYTES", default_value_t = ByteSize(Limits::default().producer_credit_bytes))]
    pub producer_credit_bytes: ByteSize,
    /// Bytes of unconfirmed publishes that the whole broker holds
    ///
    /// Beyond that it grants no more credit. Raise it where memory allows and disks are slow.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_PUBLISH_BYTES_IN_FLIGHT_MAX", default_value_t = ByteSize(Limits::default().publish_bytes_in_flight_max))]
    pub publish_bytes_in_flight_max: ByteSize,
    /// Bytes waiting to be written to one client
    ///
    /// Its deliveries wait beyond that. Raise it for fast consumers far away.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_OUTBOX_BYTES_MAX", default_value_t = ByteSize(Limits::default().outbox_bytes_max))]
    pub outbox_bytes_max: ByteSize,
    /// Bytes streamed to a follower ahead of its answers
    ///
    /// Raise it for brokers far apart: bandwidth times round trip.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_PEER_WINDOW_BYTES", default_value_t = ByteSize(Limits::default().peer_window_bytes))]
    pub peer_window_bytes: ByteSize,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Whether who does not log in is turned away. For the time of a change-over the operator says twice that clients may be plain,
    /// `tls = "accept"` and `insecure`: who had not to log in before has not to yet.
    pub fn is_login_required(&self) -> bool {
        let tls = self.tls.tls_cert.is_some() && !self.tls.takes_plain_clients();
        self.login.is_required(&self.network, tls)
    }

    /// The broker's own configuration, with the addresses that others are told.
    pub fn broker(&self, id: BrokerId, addresses: Addresses) -> BrokerConfig {
        let mut config = BrokerConfig::new(id, self.data.clone(), addresses);
        config.rack.clone_from(&self.rack);
        config.timing = self.timing.to_timing();
        config.storage = self.storage.to_storage();
        config.limits = self.limits.to_limits();
        config.watch = self.watch.to_watch();
        config.login_required = self.is_login_required();
        config.limits.bounds = self.bounds.to_bounds();
        config.limits.numbers = self.numbers.to_numbers();
        if let Some(shards) = self.shards {
            config.shards = shards;
        }
        config
    }
}

impl TimingSettings {
    fn to_timing(&self) -> Timing {
        Timing {
            session_timeout: std::time::Duration::from_millis(self.session_timeout_ms),
            lag_limit: self.lag_limit.0,
            leader_settle: self.leader_settle.0,
            promise: self.promise.0,
            drain_timeout: self.drain_timeout.0,
            replace_after: self.replace_after.0,
            heartbeat: self.heartbeat.0,
            handshake_timeout: self.handshake_timeout.0,
        }
    }
}

impl StorageSettings {
    fn to_storage(&self) -> Storage {
        Storage {
            segment_bytes: self.segment_bytes.0,
            dead_bytes_max: self.dead_bytes_max.0,
            cache_bytes: self.cache_bytes.0,
            disk_free_min: self.disk_free_min.0,
            snapshot_bytes_per_second: self.snapshot_bytes_per_second.0,
        }
    }
}

impl LimitSettings {
    fn to_limits(&self) -> Limits {
        let message_bytes_max = self.message_bytes_max.0;
        let frame_bytes_max = self
            .frame_bytes_max
            .map_or(message_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES), |size| size.0);
        Limits {
            message_bytes_max,
            frame_bytes_max,
            handshake_bytes_max: self.handshake_bytes_max.0,
            connections_max: self.connections_max,
            producers_per_connection_max: self.producers_per_connection_max,
            consumers_per_connection_max: self.consumers_per_connection_max,
            requests_in_flight_max: self.requests_in_flight_max,
            prefetch_max: self.prefetch_max,
            producer_credit_messages: self.producer_credit_messages,
            producer_credit_bytes: self.producer_credit_bytes.0,
            publish_bytes_in_flight_max: self.publish_bytes_in_flight_max.0,
            outbox_bytes_max: self.outbox_bytes_max.0,
            peer_window_bytes: self.peer_window_bytes.0,
            ..Limits::default()
        }
    }
}
