//! Whether clients have to log in.

use std::net::ToSocketAddrs;

use clap::{Args, ValueEnum};

use super::NetworkSettings;

/// Who is let in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Login")]
pub struct LoginSettings {
    /// Whether clients have to log in [default: off while --listen is a loopback address, or with --insecure and without TLS; else required]
    ///
    /// `required`: who does not log in is turned away, also on loopback. `off`: who does not may do everything; on addresses other than
    /// loopback only where clients have to show certificates, or with `insecure`.
    #[arg(long, value_name = "MODE", env = "BELLWETHER_LOGIN")]
    pub login: Option<LoginMode>,
}

/// Whether clients have to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoginMode {
    /// Who does not is turned away.
    Required,
    /// Who does not may do everything. Who does may do what its permissions say.
    Off,
}

impl LoginSettings {
    /// Whether who does not log in is turned away. Where clients speak TLS, `insecure` alone does not let everybody in.
    pub fn is_required(&self, network: &NetworkSettings, tls: bool) -> bool {
        match self.login {
            Some(mode) => mode == LoginMode::Required,
            None => (tls || !network.insecure) && !is_loopback(&network.listen),
        }
    }
}

/// An address that cannot be looked up is not taken for one.
fn is_loopback(listen: &str) -> bool {
    listen.to_socket_addrs().is_ok_and(|found| {
        let found: Vec<_> = found.collect();
        !found.is_empty() && found.iter().all(|address| address.ip().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(listen: &str, insecure: bool) -> NetworkSettings {
        NetworkSettings {
            listen: listen.to_owned(),
            advertise: None,
            peer_listen: "127.0.0.1:0".to_owned(),
            peer_advertise: None,
            admin_listen: None,
            admin_insecure: false,
            insecure,
        }
    }

    fn required(login: Option<LoginMode>, listen: &str, insecure: bool) -> bool {
        LoginSettings { login }.is_required(&network(listen, insecure), false)
    }

    #[test]
    fn a_login_is_required_wherever_others_can_come_from_unless_the_operator_insists() {
        assert!(!required(None, "127.0.0.1:7400", false));
        assert!(!required(None, "[::1]:7400", false));
        assert!(required(None, "192.0.2.7:7400", false));
        assert!(required(None, "0.0.0.0:7400", false));
        assert!(required(None, "no-such-host.invalid:7400", false), "unknown is not loopback");
        assert!(!required(None, "0.0.0.0:7400", true));
        assert!(required(Some(LoginMode::Required), "127.0.0.1:7400", true));
        assert!(!required(Some(LoginMode::Off), "127.0.0.1:7400", false));
    }

    #[test]
    fn a_port_that_speaks_tls_lets_nobody_in_by_insecure_alone() {
        let login = LoginSettings { login: None };
        assert!(login.is_required(&network("0.0.0.0:7400", true), true));
        assert!(!login.is_required(&network("127.0.0.1:7400", true), true));
    }
}
