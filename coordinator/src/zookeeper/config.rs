//! Where the ensemble is and how to log in: `h1:2181,h2:2181/chroot`.

use std::fmt;
use std::time::Duration;

use super::tls::ZooKeeperTls;

/// The port taken when a server is named without one.
const PORT: u16 = 2181;

/// How to reach an ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `host:port` each.
    servers: Vec<String>,
    /// Empty, or `/…` without a slash at its end.
    chroot: String,
    session_timeout: Duration,
    digest: Option<Digest>,
    tls: Option<ZooKeeperTls>,
}

/// Name and password. With them every document that is made can be read and changed by their holders alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What is wrong with a list of servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no list of ZooKeeper servers ({reason}); it should look like h1:2181,h2:2181,h3:2181/bellwether"
)]
pub struct InvalidEnsemble {
    given: String,
    reason: String,
}

impl ZooKeeperConfig {
    /// Reads `h1:2181,h2:2181/chroot`. The chroot is where everything of one cluster lies; it is made when it is missing.
    ///
    /// # Errors
    /// [`InvalidEnsemble`] says what is wrong.
    pub fn new(ensemble: &str, session_timeout: Duration) -> Result<Self, InvalidEnsemble> {
        let invalid = |reason: String| InvalidEnsemble { given: ensemble.to_owned(), reason };
        let (servers, chroot) = match ensemble.find('/') {
            Some(at) => ensemble.split_at(at),
            None => (ensemble, ""),
        };
        let servers = servers.split(',').map(|server| parse_server(server.trim()));
        let servers = servers.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
        let chroot = parse_chroot(chroot).map_err(invalid)?;
        Ok(Self { servers, chroot, session_timeout, digest: None, tls: None })
    }

    /// Logs in.
    #[must_use]
    pub fn with_digest(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }

    /// Speaks TLS with every server.
    #[must_use]
    pub fn with_tls(self, tls: ZooKeeperTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    #[must_use]
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    #[must_use]
    pub fn chroot(&self) -> &str {
        &self.chroot
    }

    #[must_use]
    pub fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    pub(crate) fn tls(&self) -> Option<&ZooKeeperTls> {
        self.tls.as_ref()
    }

    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for ZooKeeperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.servers.join(","), self.chroot)
    }
}

fn parse_server(server: &str) -> Result<String, String> {
    let (host, port) = match server.rsplit_once(':') {
        // An IPv6 address stands in brackets; a colon within them is none before a port.
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            (host, port)
        }
        _ => (server, PORT),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err("a host is missing".to_owned());
    }
    Ok(format!("{host}:{port}"))
}

fn parse_chroot(chroot: &str) -> Result<String, String> {
    let chroot = chroot.strip_suffix('/').unwrap_or(chroot);
    if chroot.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!("{chroot:?} is no path"));
    }
    if chroot == "/zookeeper" || chroot.starts_with("/zookeeper/") {
        return Err("/zookeeper belongs to ZooKeeper itself".to_owned());
    }
    Ok(chroot.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn read(ensemble: &str) -> String {
        ZooKeeperConfig::new(ensemble, TIMEOUT)
            .map_or_else(|error| error.to_string(), |config| config.to_string())
    }

    #[test]
    fn servers_and_chroot_are_read_as_zookeeper_users_write_them() {
        assert_eq!(read("h1:2181,h2:2182/a/b"), "h1:2181,h2:2182/a/b");
        assert_eq!(read("h1, h2:1"), "h1:2181,h2:1");
        assert_eq!(read("h1/"), "h1:2181");
        assert_eq!(read("[::1],[::1]:7/x/"), "[::1]:2181,[::1]:7/x");
    }

    #[test]
    fn what_is_wrong_is_said_with_an_example() {
        for (given, reason) in [
            ("", "a host is missing"),
            ("h1,,h2", "a host is missing"),
            ("h1:port", "\"port\" is no port"),
            ("h1:99999", "\"99999\" is no port"),
            ("h1/a//b", "is no path"),
            ("h1/..", "is no path"),
            ("h1/zookeeper", "belongs to ZooKeeper itself"),
        ] {
            let said = read(given);
            assert!(
                said.contains(reason) && said.contains("h1:2181,h2:2181,h3:2181/bellwether"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let digest = Digest { user: "bellwether".into(), password: "s3cret".into() };
        let config = ZooKeeperConfig::new("h1", TIMEOUT).unwrap().with_digest(digest);
        assert!(!format!("{config:?} {config}").contains("s3cret"));
    }
}
