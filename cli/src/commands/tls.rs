//! How commands speak TLS with the brokers.

use std::path::PathBuf;

use bellwether_client::TlsOptions;
use clap::Args;

use crate::outcome::Failure;

/// The variables begin like that of `--connect`, and not like the settings of `serve`: a broker's own certificate, in the
/// environment of its container, is not what a command there should show.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection and output")]
pub struct ClientTlsArgs {
    /// Speak TLS; each option below means it too
    #[arg(long, global = true, env = "BELLWETHER_CONNECT_TLS", value_name = "BOOL", default_value = "false",
          default_missing_value = "true", num_args = 0..=1, require_equals = true, hide_possible_values = true)]
    pub tls: bool,
    /// Authorities to trust in place of the system's
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_CONNECT_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Brokers' certificates that are not accepted any more: lists that their authorities have signed
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_CONNECT_TLS_CRL")]
    pub tls_crl: Option<PathBuf>,
    /// Certificate to show to brokers that ask for one
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_CONNECT_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_CONNECT_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Name to expect in the brokers' certificates, where it is not the host that is dialed
    #[arg(long, global = true, value_name = "NAME", env = "BELLWETHER_CONNECT_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
}

impl ClientTlsArgs {
    /// What was said about TLS; `None`: nothing, and connections are plain.
    pub fn options(&self) -> Result<Option<TlsOptions>, Failure> {
        let mut options = TlsOptions::new();
        if let Some(ca) = &self.tls_ca {
            options = options.ca_file(ca);
        }
        if let Some(crl) = &self.tls_crl {
            options = options.crl_file(crl);
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => options = options.certificate(certificate, key),
            (Some(_), None) => return Err(Failure::usage("--tls-cert needs --tls-key FILE too")),
            (None, Some(_)) => return Err(Failure::usage("--tls-key needs --tls-cert FILE too")),
            (None, None) => {}
        }
        if let Some(name) = &self.tls_server_name {
            options = options.server_name(name);
        }
        Ok((self.tls || options != TlsOptions::new()).then_some(options))
    }
}
