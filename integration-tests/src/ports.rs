//! Ports on loopback that no other test takes, also while the process they were given to is down.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the range from which the system takes the ports of outgoing connections: one of those could otherwise sit on
/// the port of a broker that is being restarted.
const PORTS: std::ops::Range<u16> = 15_000..31_000;

/// A port that is ours until this is dropped. A socket in the abstract namespace says so to other test processes: it
/// leaves no file, and goes with the process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Takes a free port.
    pub fn take() -> Result<Port> {
        static TRIED: AtomicU32 = AtomicU32::new(0);
        let span = u32::from(PORTS.end - PORTS.start);
        // Each process begins elsewhere, so that they seldom meet.
        let begin = std::process::id().wrapping_mul(7919) % span;
        for _ in 0..span {
            let tried = TRIED.fetch_add(1, Ordering::Relaxed);
            let number = PORTS.start + ((begin + tried) % span) as u16;
            let name = SocketAddr::from_abstract_name(format!("bellwether-test-port-{number}"))?;
            let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Port { number, _claim: claim });
            }
        }
        bail!("no free port between {} and {}", PORTS.start, PORTS.end)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:` and its number.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let ports: Vec<Port> = (0..20).map(|_| Port::take().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
        assert!(numbers.iter().all(|&number| TcpListener::bind(("127.0.0.1", number)).is_ok()));
    }
}
