//! Bounds of the whole broker: memory, and what strangers may take of it before they have said hello.

use std::time::Duration;

use super::{InvalidSetting, KIB, MIB, between, lasting};
use crate::memory::{MEMORY_LIMIT_MIN, MEMORY_LIMIT_PERCENT, machine_memory};

/// Taken for the machine's memory where the system does not say.
const MACHINE_BYTES_UNKNOWN: u64 = 1024 * MIB;

/// See the module. Each is a setting of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What all pools of memory may hold together; producers get no credit beyond. `None`: 40 % of the machine, or of the
    /// control group around this process.
    pub memory_limit: Option<u64>,
    /// Connections from one address; 0: any number. Set it where no address stands for many clients. Default: 0.
    pub connections_per_address_max: usize,
    /// Connections that have not said hello yet. Default: 512.
    pub handshakes_max: usize,
    /// The same from one address, so that one cannot keep all others out. Default: 128.
    pub handshakes_per_address_max: usize,
    /// Connections accepted a second, over time; those beyond wait in the system's queue. 0: as many as come. Default: 2,000.
    pub accepts_per_second_max: u32,
    /// How long a frame may take from its first byte to its last, besides a second for each 256 KiB of it. Raise it for
    /// clients on bad networks. Default: 10 s.
    pub frame_timeout: Duration,
    /// How long a client may take none of what it is owed before it counts as gone. Default: 15 s.
    pub write_timeout: Duration,
    /// Producers are slowed, and operators warned, when the file system of the journal has less free than this; `disk-free-min` is
    /// where publishes are refused. Default: 1 GiB.
    pub disk_free_warn: u64,
    /// Producers attached on all connections. Default: 100,000.
    pub producers_max: usize,
    /// Consumers attached on all connections. Default: 100,000.
    pub consumers_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            memory_limit: None,
            connections_per_address_max: 0,
            handshakes_max: 512,
            handshakes_per_address_max: 128,
            accepts_per_second_max: 2_000,
            frame_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(15),
            disk_free_warn: 1024 * MIB,
            producers_max: 100_000,
            consumers_max: 100_000,
        }
    }
}

impl Bounds {
    /// The memory limit in force, and where it is from.
    #[must_use]
    pub fn memory_limit_in_force(&self) -> (u64, String) {
        if let Some(limit) = self.memory_limit {
            return (limit, "the setting".to_owned());
        }
        let (bytes, source) = match machine_memory() {
            Some(memory) => (memory.bytes, memory.source.display().to_string()),
            None => (MACHINE_BYTES_UNKNOWN, "1 GiB, for want of a better number".to_owned()),
        };
        let share = bytes / 100 * MEMORY_LIMIT_PERCENT;
        (share.max(MEMORY_LIMIT_MIN), format!("{MEMORY_LIMIT_PERCENT} % of {source}"))
    }

    pub(super) fn check(&self, connections_max: usize) -> Result<(), InvalidSetting> {
        let ms = Duration::from_millis;
        if let Some(limit) = self.memory_limit {
            between("memory-limit", limit, MEMORY_LIMIT_MIN, 1024 * 1024 * MIB)?;
        }
        let connections = connections_max as u64;
        let per_address = self.connections_per_address_max as u64;
        between("connections-per-address-max", per_address, 0, connections)?;
        between("handshakes-max", self.handshakes_max as u64, 1, 64 * KIB)?;
        let per_address = self.handshakes_per_address_max as u64;
        between("handshakes-per-address-max", per_address, 1, self.handshakes_max as u64)?;
        let accepts = u64::from(self.accepts_per_second_max);
        between("accepts-per-second-max", accepts, 0, 1_000_000)?;
        lasting("frame-timeout", self.frame_timeout, ms(100), ms(600_000))?;
        lasting("write-timeout", self.write_timeout, ms(100), ms(600_000))?;
        between("disk-free-warn", self.disk_free_warn, 0, 1024 * 1024 * MIB)?;
        between("producers-max", self.producers_max as u64, 1, 10_000_000)?;
        between("consumers-max", self.consumers_max as u64, 1, 10_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_no_message_fits_under_is_refused_by_name() {
        let bounds = Bounds { memory_limit: Some(MIB), ..Bounds::default() };
        let error = bounds.check(10).unwrap_err().to_string();
        assert!(error.starts_with("memory-limit = 1048576: allowed is 100663296 to"), "{error}");
    }

    #[test]
    fn one_address_may_not_be_allowed_more_than_all() {
        let bounds = Bounds { handshakes_per_address_max: 600, ..Bounds::default() };
        assert_eq!(bounds.check(10).unwrap_err().key, "handshakes-per-address-max");
    }

    #[test]
    fn the_limit_in_force_says_where_it_is_from() {
        let set = Bounds { memory_limit: Some(200 * MIB), ..Bounds::default() };
        assert_eq!(set.memory_limit_in_force(), (200 * MIB, "the setting".to_owned()));
        let (limit, source) = Bounds::default().memory_limit_in_force();
        assert!(limit >= MEMORY_LIMIT_MIN && source.contains("40 % of"), "{limit} {source}");
    }
}
