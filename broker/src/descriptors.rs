//! File descriptors: the limit of the process is raised to what the system allows, and clients get no more connections than
//! leave enough for the journal, the other brokers, the coordinator and the operator.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// Kept back at least: segments of the journal, a connection or two for each other broker, snapshots, ZooKeeper, scrapes.
const RESERVED_MIN: u64 = 64;

/// Kept back at most: a journal of so many segments holds 256 GiB.
const RESERVED_MAX: u64 = 4_096;

/// Of a small limit a quarter is kept back.
const RESERVED_PART: u64 = 4;

/// Raises the limit, and answers how many connections fit: `wanted` at most.
#[must_use]
pub(crate) fn fit_connections(wanted: usize) -> usize {
    let limit = raise();
    let fit = connections_within(limit);
    if wanted as u64 <= fit {
        return wanted;
    }
    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
    warn!(
        limit,
        connections_max = fit,
        wanted,
        "fewer connections are taken than configured: the limit of open files is too low for them; raise it (ulimit -n, LimitNOFILE)"
    );
    fit
}

/// The soft limit becomes the hard one; answers what is in force.
fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current.unwrap_or(u64::MAX);
    }
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => {
            info!(?before, now = ?limit.current, "the limit of open files was raised");
            limit.current.unwrap_or(u64::MAX)
        }
        Err(error) => {
            warn!(%error, ?before, "the limit of open files cannot be raised");
            before.unwrap_or(u64::MAX)
        }
    }
}

/// How many connections leave enough for all else.
fn connections_within(limit: u64) -> u64 {
    let reserved = (limit / RESERVED_PART).clamp(RESERVED_MIN, RESERVED_MAX);
    limit.saturating_sub(reserved).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_back_within_bounds() {
        assert_eq!(connections_within(1_024), 768);
        assert_eq!(connections_within(1_048_576), 1_048_576 - 4_096);
        assert_eq!(connections_within(100), 36);
        assert_eq!(connections_within(10), 1, "it starts, and says so");
    }

    #[test]
    fn what_fits_is_what_was_asked_for() {
        assert_eq!(fit_connections(3), 3);
    }
}
