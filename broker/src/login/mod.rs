//! Who may connect, and what they may do: users as the catalog brings them, decisions on their permissions, and the slowing
//! of who guesses passwords.
//!
//! *Invariant:* what is not known to be permitted is refused. A user document that cannot be read, a pattern that is none and
//! a catalog that is not complete permit nothing.

mod access;
mod audit;
mod throttle;
mod users;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwether_protocol::names::UserName;
use bellwether_tls::CertificateIdentity;
use tokio::sync::Semaphore;

pub use access::{Access, Rights};
pub(crate) use audit::{deed_of, write_down_changes};
pub use users::{User, Users};

use crate::seldom::SharedSeldom;
use throttle::{Throttle, Turn};

/// Key derivations at once, for passwords that come in the clear: each keeps a processor busy for tens of milliseconds, and
/// shards and the journal need theirs.
const DERIVATIONS_MAX: usize = 2;

/// How often it is asked whether one of an address's many attempts is over.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Where a connection comes from, as far as that is known.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The other side's address.
    pub address: Option<IpAddr>,
    /// Nobody between can read it: TLS, or loopback.
    pub secured: bool,
    /// Who the client is by its certificate, as TLS has verified it.
    pub certificate: Option<CertificateIdentity>,
}

impl Origin {
    /// A connection without TLS.
    #[must_use]
    pub fn plain(address: IpAddr) -> Origin {
        Origin { address: Some(address), secured: address.is_loopback(), certificate: None }
    }

    /// A connection with TLS, whose client showed this certificate, or none.
    #[must_use]
    pub fn tls(address: IpAddr, certificate: Option<CertificateIdentity>) -> Origin {
        Origin { address: Some(address), secured: true, certificate }
    }
}

/// What all logins of a broker share.
#[derive(Debug)]
pub struct Login {
    /// Whether who does not log in is turned away. If not, they may do everything.
    pub required: bool,
    throttle: Mutex<Throttle>,
    pub(crate) derivations: Arc<Semaphore>,
    /// Strangers fail as often as they like.
    pub(crate) failures_told: SharedSeldom,
    /// And so do TLS handshakes.
    pub(crate) handshakes_told: SharedSeldom,
}

impl Login {
    #[must_use]
    pub fn new(required: bool) -> Login {
        let derivations = Arc::new(Semaphore::new(DERIVATIONS_MAX));
        let (failures_told, handshakes_told) = Default::default();
        Login { required, throttle: Mutex::default(), derivations, failures_told, handshakes_told }
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an attempt may be looked at; it is, for as long as what comes back is held. None: there were too many, and it is not even
    /// looked at.
    pub(crate) async fn turn(
        &self,
        address: Option<IpAddr>,
        user: &UserName,
    ) -> Option<Attempt<'_>> {
        loop {
            let turn = self.throttle().turn(Instant::now(), address, user);
            match turn {
                Turn::Wait(wait) => {
                    let attempt = Attempt { login: self, address };
                    tokio::time::sleep(wait).await;
                    return Some(attempt);
                }
                // The handshake's own time bounds this.
                Turn::Busy => tokio::time::sleep(ASK_AGAIN).await,
                Turn::Refused => return None,
            }
        }
    }

    pub(crate) fn failed(&self, address: Option<IpAddr>, user: &UserName) {
        self.throttle().failed(Instant::now(), address, user);
    }

    pub(crate) fn succeeded(&self, address: Option<IpAddr>, user: &UserName) {
        self.throttle().succeeded(Instant::now(), address, user);
    }
}

/// An attempt that is being looked at.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    login: &'a Login,
    address: Option<IpAddr>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.login.throttle().ended(self.address);
    }
}
