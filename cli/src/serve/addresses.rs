//! Which addresses to bind and which to tell others, and the two ways of getting that wrong: a
//! wildcard that nobody can connect to, and a port open to everyone who can reach it. Each port has its own word for being open.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use bellwether_broker::config::{Addresses, Listeners};
use bellwether_broker::tls::Tls;
use bellwether_tls::ClientCertificates;
use tokio::net::TcpListener;

use super::settings::Settings;

/// Why an address was refused.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error("{flag} {given}: {why}; write it like 127.0.0.1:7400 or host:7400")]
    Malformed { flag: &'static str, given: String, why: String },
    #[error(
        "{flag} {given} is open to other machines, and there is no TLS on it: anyone on the way may read and change what passes. \
         Give it a certificate ({certificate}), or --insecure if the network is yours alone, or listen on 127.0.0.1"
    )]
    NoTls { flag: &'static str, given: String, certificate: &'static str },
    #[error(
        "--peer-listen {given} is open to other machines, and there is no TLS on it: whoever reaches it may pose as a broker, and read and change every queue. \
         --insecure does not hold for it where clients speak TLS or log in, since that would be in vain. Give it a certificate \
         (--peer-tls-cert FILE, --peer-tls-key FILE, --peer-tls-ca FILE), or listen on 127.0.0.1"
    )]
    BrokersUnguarded { given: String },
    #[error(
        "--admin-listen {given} is open to other machines, and there is neither TLS nor a login on it: whoever reaches it may read the metrics, with the names of queues among them. \
         Listen on 127.0.0.1, behind a proxy if others are to see it, or give --admin-insecure"
    )]
    AdminOpen { given: String },
    #[error(
        "{flag} {given} is open to other machines, and nobody has to show there who they are: anyone who reaches it may read and write every queue. \
         Leave --login off away, or ask clients for certificates (--tls-client-ca FILE), or give --insecure if the network is yours alone, or listen on 127.0.0.1"
    )]
    NoLogin { flag: &'static str, given: String },
    #[error(
        "{flag} {given} stands for all addresses of this machine, which nobody can connect to from elsewhere: \
         say which one others are to use with {advertise} HOST[:PORT]"
    )]
    WildcardUnadvertised { flag: &'static str, given: String, advertise: &'static str },
    #[error("cannot listen on {flag} {given}: {source}")]
    CannotBind { flag: &'static str, given: String, source: std::io::Error },
}

/// A listener's flag, the flag of what is told of it, and their values.
struct Door<'a> {
    flag: &'static str,
    listen: &'a str,
    advertise_flag: &'static str,
    advertise: Option<&'a str>,
    guard: Guard,
}

/// What stands between a port and those who can reach it.
#[derive(Clone, Copy, Debug)]
struct Guard {
    /// Nobody on the way can read or change anything.
    tls: bool,
    /// Whoever connects has to show who it is.
    known: bool,
    /// What is open on this port if it is not guarded, and the operator's word that it may be.
    open: Open,
}

/// The ports differ in what an open one gives away, and in the word that lets it be open.
#[derive(Clone, Copy, Debug)]
enum Open {
    Clients {
        insecure: bool,
    },
    /// `insecure` is for clusters without any guard: on this port it would undo those of the other one.
    Brokers {
        insecure: bool,
        clients_guarded: bool,
    },
    Admin {
        insecure: bool,
    },
}

impl Door<'_> {
    /// Checks before anything is bound, so that a mistake leaves no trace.
    fn check(&self) -> Result<SocketAddr, AddressError> {
        let address = resolve(self.flag, self.listen)?;
        if !address.ip().is_loopback() {
            self.check_guarded()?;
        }
        if address.ip().is_unspecified() && self.advertise.is_none() {
            return Err(AddressError::WildcardUnadvertised {
                flag: self.flag,
                given: self.listen.to_owned(),
                advertise: self.advertise_flag,
            });
        }
        self.advertised(address.port())?;
        Ok(address)
    }

    /// A port that other machines can reach needs both, or the operator's word.
    fn check_guarded(&self) -> Result<(), AddressError> {
        let (flag, given) = (self.flag, self.listen.to_owned());
        let Guard { tls, known, open } = self.guard;
        match open {
            _ if tls && known => Ok(()),
            Open::Clients { insecure: true } | Open::Admin { insecure: true } => Ok(()),
            Open::Brokers { insecure: true, clients_guarded: false } => Ok(()),
            Open::Brokers { insecure: true, clients_guarded: true } => {
                Err(AddressError::BrokersUnguarded { given })
            }
            Open::Admin { insecure: false } => Err(AddressError::AdminOpen { given }),
            Open::Clients { insecure: false } if tls => Err(AddressError::NoLogin { flag, given }),
            Open::Clients { insecure: false } => {
                let certificate = "--tls-cert FILE, --tls-key FILE, and not --tls accept";
                Err(AddressError::NoTls { flag, given, certificate })
            }
            Open::Brokers { insecure: false, .. } => {
                let certificate = "--peer-tls-cert FILE, --peer-tls-key FILE, --peer-tls-ca FILE, and not --peer-tls accept";
                Err(AddressError::NoTls { flag, given, certificate })
            }
        }
    }

    async fn bind(&self, address: SocketAddr) -> Result<(TcpListener, String), AddressError> {
        let cannot = |source| AddressError::CannotBind {
            flag: self.flag,
            given: self.listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let port = listener.local_addr().map_err(cannot)?.port();
        let advertised = self.advertised(port)?;
        Ok((listener, advertised))
    }

    /// What others are told when `port` is bound.
    fn advertised(&self, port: u16) -> Result<String, AddressError> {
        let malformed = |given: &str, why: &str| AddressError::Malformed {
            flag: self.advertise_flag,
            given: given.to_owned(),
            why: why.to_owned(),
        };
        let Some(given) = self.advertise else {
            let (host, _) = self.listen.rsplit_once(':').unwrap_or((self.listen, ""));
            return Ok(format!("{host}:{port}"));
        };
        let (host, port) = split_port(given, port).map_err(|why| malformed(given, why))?;
        let unspecified =
            host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
        match unspecified {
            true => Err(malformed(given, "nobody can connect to all addresses")),
            false => Ok(format!("{host}:{port}")),
        }
    }
}

/// Host and port of `given`, with `port` where it names none.
fn split_port(given: &str, port: u16) -> Result<(&str, u16), &'static str> {
    let bracketed = given.starts_with('[');
    match given.rsplit_once(':') {
        Some((host, _)) if !bracketed && host.contains(':') => {
            Err("an IPv6 address needs brackets")
        }
        Some((host, text)) if !bracketed || host.ends_with(']') => {
            let port = text.parse().map_err(|_| "the port is no number up to 65535")?;
            if host.is_empty() { Err("the host is missing") } else { Ok((host, port)) }
        }
        _ if given.is_empty() => Err("the host is missing"),
        _ => Ok((given, port)),
    }
}

fn resolve(flag: &'static str, given: &str) -> Result<SocketAddr, AddressError> {
    let malformed = |why: String| AddressError::Malformed { flag, given: given.to_owned(), why };
    let mut found = given.to_socket_addrs().map_err(|error| malformed(error.to_string()))?;
    found.next().ok_or_else(|| malformed("the name stands for no address".to_owned()))
}

/// Checks all addresses, then binds them.
pub async fn bind(settings: &Settings, tls: Tls) -> Result<(Listeners, Addresses), AddressError> {
    let certificates = settings.tls.client_certificates();
    let secure = tls.client().is_some() && !tls.takes_plain_clients();
    let login = settings.is_login_required();
    let settings = &settings.network;
    let insecure = settings.insecure;
    let known = login || certificates == ClientCertificates::Required;
    let client = Door {
        flag: "--listen",
        listen: &settings.listen,
        advertise_flag: "--advertise",
        advertise: settings.advertise.as_deref(),
        guard: Guard { tls: secure, known, open: Open::Clients { insecure } },
    };
    let peer = Door {
        flag: "--peer-listen",
        listen: &settings.peer_listen,
        advertise_flag: "--peer-advertise",
        advertise: settings.peer_advertise.as_deref(),
        guard: Guard {
            tls: tls.peer().is_some() && !tls.takes_plain_peers(),
            known: tls.peer().is_some() && !tls.takes_plain_peers(),
            // For the time of a change-over the operator says twice that it may be plain: --peer-tls accept, and --insecure.
            open: Open::Brokers {
                insecure,
                clients_guarded: (known || secure) && !tls.takes_plain_peers(),
            },
        },
    };
    // Nobody is told of the admin address, so a wildcard is fine there.
    let admin = settings.admin_listen.as_deref().map(|listen| Door {
        flag: "--admin-listen",
        listen,
        advertise_flag: "--admin-listen",
        advertise: Some("localhost"),
        guard: Guard {
            tls: false,
            known: false,
            open: Open::Admin { insecure: settings.admin_insecure },
        },
    });

    let client_address = client.check()?;
    let peer_address = peer.check()?;
    let admin = match admin {
        Some(door) => Some((door.check()?, door)),
        None => None,
    };

    let (client, client_told) = client.bind(client_address).await?;
    let (peer, peer_told) = peer.bind(peer_address).await?;
    let admin = match admin {
        Some((address, door)) => Some(door.bind(address).await?.0),
        None => None,
    };
    Ok((Listeners { client, peer, admin, tls }, Addresses { client: client_told, peer: peer_told }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door<'a>(listen: &'a str, advertise: Option<&'a str>, open: Open) -> Door<'a> {
        let guard = Guard { tls: false, known: false, open };
        Door { flag: "--listen", listen, advertise_flag: "--advertise", advertise, guard }
    }

    fn clients(insecure: bool) -> Open {
        Open::Clients { insecure }
    }

    fn told(listen: &str, advertise: Option<&str>) -> String {
        door(listen, advertise, clients(false)).advertised(4711).unwrap()
    }

    fn refused(listen: &str, advertise: Option<&str>, insecure: bool) -> String {
        door(listen, advertise, clients(insecure)).check().unwrap_err().to_string()
    }

    const REACHABLE: &str = "192.0.2.7:7400";

    #[test]
    fn only_loopback_is_bound_unless_the_operator_insists() {
        let error = refused(REACHABLE, None, false);
        assert!(error.contains("--insecure") && error.contains("--tls-cert FILE"), "{error}");
        let mut half = door(REACHABLE, None, clients(false));
        half.guard.tls = true;
        let error = half.check().unwrap_err().to_string();
        assert!(error.contains("--login off away, or ask clients for certificates"), "{error}");
        half.guard.known = true;
        half.check().unwrap();
        door(REACHABLE, None, clients(true)).check().unwrap();
        for near in ["127.0.0.1:7400", "[::1]:7400", "localhost:7400"] {
            door(near, None, clients(false)).check().unwrap();
        }
    }

    /// A port for metrics that others had to reach needed `--insecure`, and with that a port for brokers whose certificate was forgotten stood
    /// open without a word.
    #[test]
    fn a_word_for_one_port_opens_no_other() {
        let admin = |insecure| door(REACHABLE, None, Open::Admin { insecure });
        let error = admin(false).check().unwrap_err().to_string();
        assert!(error.contains("--admin-insecure"), "{error}");
        admin(true).check().unwrap();

        let brokers = |insecure, clients_guarded| {
            door(REACHABLE, None, Open::Brokers { insecure, clients_guarded }).check()
        };
        brokers(true, false).unwrap();
        for error in [brokers(true, true), brokers(false, true), brokers(false, false)] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("--peer-tls-cert FILE"), "{error}");
        }
        let mut secured =
            door(REACHABLE, None, Open::Brokers { insecure: false, clients_guarded: true });
        (secured.guard.tls, secured.guard.known) = (true, true);
        secured.check().unwrap();
    }

    #[test]
    fn a_wildcard_that_nobody_could_connect_to_is_refused() {
        for wildcard in ["0.0.0.0:7400", "[::]:7400"] {
            let error = refused(wildcard, None, true);
            assert!(error.contains("--advertise HOST[:PORT]"), "{error}");
        }
        door("0.0.0.0:7400", Some("broker-1.example"), clients(true)).check().unwrap();
        assert!(refused("0.0.0.0:7400", Some("0.0.0.0:7400"), true).contains("nobody can connect"));
    }

    #[test]
    fn a_malformed_address_is_named_with_its_flag() {
        for bad in ["7400", "127.0.0.1", "127.0.0.1:99999", ""] {
            let error = refused(bad, None, true);
            assert!(error.starts_with("--listen") && error.contains("write it like"), "{error}");
        }
        assert!(refused("127.0.0.1:1", Some("fe80::1"), false).contains("brackets"));
        assert!(refused("127.0.0.1:1", Some(":7400"), false).contains("host is missing"));
    }

    #[test]
    fn others_are_told_the_port_that_was_really_bound() {
        assert_eq!(told("127.0.0.1:0", None), "127.0.0.1:4711");
        assert_eq!(told("[::1]:0", None), "[::1]:4711");
        assert_eq!(told("0.0.0.0:0", Some("b1.example")), "b1.example:4711");
        assert_eq!(told("0.0.0.0:0", Some("b1.example:80")), "b1.example:80");
        assert_eq!(told("0.0.0.0:0", Some("[fe80::1]")), "[fe80::1]:4711");
    }
}
