//! Bounds of the whole broker: memory, and what strangers may take before they have said hello.

use bellwether_broker::config::Bounds;
use clap::Args;

use crate::values::{ByteSize, Span};

/// What holds for the whole broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Bounds")]
pub struct BoundSettings {
    /// Memory for all that is held for clients, queues and peers; producers wait beyond [default: 40 % of the machine's, or of the control group's]
    ///
    /// Lower it where other programs share the machine, raise it for very many connections or waiting messages. 96 MiB at least.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_MEMORY_LIMIT")]
    pub memory_limit: Option<ByteSize>,
    /// Connections from one address; 0: any number
    ///
    /// Set it where one client could take all connections. Of IPv6 a network of 64 bits is one address.
    #[arg(long, value_name = "N", env = "BELLWETHER_CONNECTIONS_PER_ADDRESS_MAX", default_value_t = Bounds::default().connections_per_address_max)]
    pub connections_per_address_max: usize,
    /// Connections that have not finished their handshake
    ///
    /// They are strangers: more of them than a restart of all clients brings are none of yours.
    #[arg(long, value_name = "N", env = "BELLWETHER_HANDSHAKES_MAX", default_value_t = Bounds::default().handshakes_max)]
    pub handshakes_max: usize,
    /// The same from one address
    ///
    /// Raise it where many clients share one address.
    #[arg(long, value_name = "N", env = "BELLWETHER_HANDSHAKES_PER_ADDRESS_MAX", default_value_t = Bounds::default().handshakes_per_address_max)]
    pub handshakes_per_address_max: usize,
    /// Connections accepted a second; 0: as many as come
    ///
    /// Those beyond wait in the system's queue, so that a storm of them does not disturb who is served. 0: as many as come.
    #[arg(long, value_name = "N", env = "BELLWETHER_ACCEPTS_PER_SECOND_MAX", default_value_t = Bounds::default().accepts_per_second_max)]
    pub accepts_per_second_max: u32,
    /// How long a frame may take to arrive, besides a second for each 256 KiB of it
    ///
    /// Raise it for clients on very slow networks: a frame gets a second more for each 256 KiB.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_FRAME_TIMEOUT", default_value_t = Span(Bounds::default().frame_timeout))]
    pub frame_timeout: Span,
    /// How long a client may take none of what it is owed before it counts as gone
    ///
    /// Raise it for clients that stand still for long and should keep their connection.
    #[arg(long, value_name = "TIME", env = "BELLWETHER_WRITE_TIMEOUT", default_value_t = Span(Bounds::default().write_timeout))]
    pub write_timeout: Span,
    /// Slow producers, and warn, when the file system of the journal has less free than this
    ///
    /// Queues of class `bulk` are refused publishes from here on. Early enough for somebody to do something before `disk-free-min` refuses
    /// those of the others.
    #[arg(long, value_name = "SIZE", env = "BELLWETHER_DISK_FREE_WARN", default_value_t = ByteSize(Bounds::default().disk_free_warn))]
    pub disk_free_warn: ByteSize,
    /// Producers attached on all connections
    ///
    /// Each holds credit: it bounds what all of them may send at once.
    #[arg(long, value_name = "N", env = "BELLWETHER_PRODUCERS_MAX", default_value_t = Bounds::default().producers_max)]
    pub producers_max: usize,
    /// Consumers attached on all connections
    ///
    /// Each is known to a queue and holds messages.
    #[arg(long, value_name = "N", env = "BELLWETHER_CONSUMERS_MAX", default_value_t = Bounds::default().consumers_max)]
    pub consumers_max: usize,
}

impl BoundSettings {
    pub(super) fn to_bounds(&self) -> Bounds {
        Bounds {
            memory_limit: self.memory_limit.map(|size| size.0),
            connections_per_address_max: self.connections_per_address_max,
            handshakes_max: self.handshakes_max,
            handshakes_per_address_max: self.handshakes_per_address_max,
            accepts_per_second_max: self.accepts_per_second_max,
            frame_timeout: self.frame_timeout.0,
            write_timeout: self.write_timeout.0,
            disk_free_warn: self.disk_free_warn.0,
            producers_max: self.producers_max,
            consumers_max: self.consumers_max,
        }
    }
}
