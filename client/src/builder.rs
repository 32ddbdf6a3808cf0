//! What a client is told before it connects: names, deadlines, heartbeats; and the limits that it sets itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::names::{UserName, VirtualHost};
use bellwether_protocol::scram::Password;
use bellwether_tls::TlsError;

use crate::client::Client;
use crate::error::ConnectError;
use crate::login::{Login, PasswordLogin};
use crate::tls::{Secure, TlsOptions};

/// Default of [`ClientBuilder::deadline`].
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Default of [`ClientBuilder::heartbeat`]: a frozen broker is given up after twice that, which stays below
/// the time in which the cluster itself replaces it.
const HEARTBEAT: Duration = Duration::from_millis(600);

/// Addresses a client will remember, given ones and learnt ones together. Beyond it learnt ones are ignored,
/// so that no broker can fill its clients' memory.
pub(crate) const ADDRESSES_MAX: usize = 128;

/// How a [`Client`] is set up. Made by [`Client::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), bellwether_client::ConnectError> {
/// use std::time::Duration;
/// let client = bellwether_client::Client::builder()
///     .name("billing")
///     .virtual_host("invoices")
///     .deadline(Duration::from_secs(10))
///     .connect(["broker-1:7400", "broker-2:7400"])
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ClientBuilder {
    name: String,
    virtual_host: String,
    deadline: Duration,
    heartbeat: Duration,
    tls: Option<TlsOptions>,
    login: Option<LoginBy>,
}

/// What was said about the login, not checked yet.
#[derive(Clone)]
enum LoginBy {
    Password(String, String),
    Certificate,
}

/// A checked [`ClientBuilder`].
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) virtual_host: VirtualHost,
    pub(crate) deadline: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) tls: Option<Arc<Secure>>,
    pub(crate) login: Option<Login>,
}

/// Without the password.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name", &self.name)
            .field("virtual_host", &self.virtual_host)
            .field("deadline", &self.deadline)
            .field("heartbeat", &self.heartbeat)
            .field("tls", &self.tls)
            .field("user", &self.login.as_ref().map(LoginBy::shown))
            .finish()
    }
}

impl LoginBy {
    /// Without the password.
    fn shown(&self) -> &str {
        match self {
            LoginBy::Password(user, _) => user,
            LoginBy::Certificate => "(whom the certificate names)",
        }
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        ClientBuilder {
            name: "bellwether-client".to_owned(),
            virtual_host: "/".to_owned(),
            deadline: DEADLINE,
            heartbeat: HEARTBEAT,
            tls: None,
            login: None,
        }
    }
}

impl ClientBuilder {
    /// The client's name, shown to operators. Default: `bellwether-client`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The virtual host that all names lie in. Default: `/`.
    #[must_use]
    pub fn virtual_host(mut self, virtual_host: impl Into<String>) -> Self {
        self.virtual_host = virtual_host.into();
        self
    }

    /// How long an operation may take, connecting included, until it answers "not done" or "unknown".
    /// Default: 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How often broker and client let each other know that they are there. A broker that is silent for twice
    /// that is given up, and another is asked. Default: 600 ms.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat.clamp(Duration::from_millis(50), Duration::from_secs(3600));
        self
    }

    /// Speaks TLS with the brokers. Default: it does not.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Logs in, by SCRAM-SHA-256: the password does not cross the connection, and the broker has to prove that it knows the
    /// user. Default: no login.
    #[must_use]
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(LoginBy::Password(user.into(), password.into()));
        self
    }

    /// Logs in as the user whom the certificate names that [`TlsOptions::certificate`] shows (EXTERNAL): no password is needed.
    /// Default: no login.
    #[must_use]
    pub fn login_by_certificate(mut self) -> Self {
        self.login = Some(LoginBy::Certificate);
        self
    }

    /// Connects to any of these brokers, each `host:port`; the others of the cluster are learnt from it.
    ///
    /// # Errors
    /// [`ConnectError`]: nothing was done.
    pub async fn connect<A: AsRef<str>>(
        self,
        brokers: impl IntoIterator<Item = A>,
    ) -> Result<Client, ConnectError> {
        let login = match self.login {
            Some(LoginBy::Password(user, password)) => {
                let (user, password) = (UserName::new(user)?, Password::new(&password)?);
                Some(Login::Password(PasswordLogin::new(user, password)))
            }
            Some(LoginBy::Certificate) => {
                if !self.tls.as_ref().is_some_and(TlsOptions::shows_certificate) {
                    let words = "a login by certificate needs a certificate and its key";
                    return Err(ConnectError::InvalidTls { message: words.to_owned() });
                }
                Some(Login::Certificate)
            }
            None => None,
        };
        let config = Config {
            login,
            name: self.name,
            virtual_host: VirtualHost::new(self.virtual_host)?,
            deadline: self.deadline,
            heartbeat: self.heartbeat,
            tls: match self.tls {
                Some(tls) => Some(Arc::new(tls.open().map_err(unusable)?)),
                None => None,
            },
        };
        let addresses = brokers
            .into_iter()
            .map(|address| checked(address.as_ref()))
            .collect::<Result<Vec<String>, ConnectError>>()?;
        Client::start(config, addresses).await
    }
}

fn unusable(error: TlsError) -> ConnectError {
    ConnectError::InvalidTls { message: error.to_string() }
}

/// An address as it was given, when it is `host:port`.
fn checked(address: &str) -> Result<String, ConnectError> {
    let address = address.trim();
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(address.to_owned())
        }
        _ => Err(ConnectError::InvalidAddress { address: address.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_refused_by_name() {
        assert_eq!(checked(" localhost:5701 "), Ok("localhost:5701".to_owned()));
        assert_eq!(checked("[::1]:5701"), Ok("[::1]:5701".to_owned()));
        for wrong in ["localhost", ":5701", "localhost:", "localhost:http", ""] {
            assert_eq!(
                checked(wrong),
                Err(ConnectError::InvalidAddress { address: wrong.to_owned() })
            );
        }
    }
}
