//! What can be said on the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bellwether_client::TlsOptions;
use bellwether_integration_tests::driver::{Login, Reach};
use bellwether_integration_tests::faults::FaultKind;
use clap::{Args, Parser};

/// Runs a cluster under load, injects faults, heals, drains, and checks that no promise was broken.
///
/// Exit codes: 0 nothing violated; 2 something violated, evidence kept; 1 the run failed; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub struct Options {
    /// Draws the faults; the same seed gives the same faults in the same order. Default: a new one, printed
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long faults are injected
    #[arg(long, default_value_t = 2.0)]
    pub minutes: f64,
    /// Brokers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub brokers: u32,
    /// Faults to draw from, with commas: kill, pause, term, zk-kill, zk-all, restart-all, rolling-restart, power-loss, wipe, drain,
    /// membership, disk-slow, disk-full, fsync-error, corrupt, partition, slow-link, clock-jump, combo; or all [default: all; with
    /// --attach none, and only drain is possible]
    #[arg(long, value_parser = Kinds::parse)]
    pub faults: Option<Kinds>,
    /// Messages a second of most producers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub rate: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 512)]
    pub size: usize,
    /// Folder for data, logs and history; removed at the end when nothing was violated. Default: chaos-SEED
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Makes the brokers' syncs do nothing once they have started. With power-loss among the faults the run must then end with
    /// violations, or it would prove nothing
    #[arg(long)]
    pub without_syncs: bool,
    /// Writes what happened on one page, for a browser
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Keep the folder in any case
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub attach: AttachArgs,
}

impl Options {
    /// The kinds to draw from.
    pub fn kinds(&self) -> Kinds {
        let unsaid =
            || if self.attach.attach.is_empty() { FaultKind::ALL.to_vec() } else { Vec::new() };
        self.faults.clone().unwrap_or_else(|| Kinds(unsaid()))
    }
}

/// How a cluster that is there already is reached.
#[derive(Args, Debug)]
#[command(next_help_heading = "Against your own cluster")]
pub struct AttachArgs {
    /// Starts no cluster: puts this one under load, with queues of its own that are deleted at the end when nothing was violated
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub attach: Vec<String>,
    /// A fault of your own, a command for sh; it is drawn with the others. Called with `begin` and `heal` behind it; may be given several
    /// times
    #[arg(long, value_name = "COMMAND", requires = "attach")]
    pub fault_command: Vec<String>,
    /// Copies of each queue [default: 3, or as many as brokers are live]
    #[arg(long, value_name = "N", requires = "attach")]
    pub replicas: Option<u8>,
    /// Speak TLS; each option below means it too
    #[arg(long, requires = "attach")]
    tls: bool,
    /// Authorities to trust in place of the system's
    #[arg(long, value_name = "FILE", requires = "attach")]
    tls_ca: Option<PathBuf>,
    /// Brokers' certificates that are not accepted any more
    #[arg(long, value_name = "FILE", requires = "attach")]
    tls_crl: Option<PathBuf>,
    /// Certificate to show to brokers that ask for one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name to expect in the brokers' certificates, where it is not the host that is dialed
    #[arg(long, value_name = "NAME", requires = "attach")]
    tls_server_name: Option<String>,
    /// User to log in as. The password is taken from --password-file or BELLWETHER_PASSWORD
    #[arg(long, value_name = "NAME", requires = "attach", env = "BELLWETHER_USER")]
    user: Option<String>,
    /// File with the password in its first line
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Log in as the user whom the certificate (--tls-cert) names
    #[arg(long, requires = "tls_cert", conflicts_with = "user")]
    external: bool,
    /// Virtual host that all names lie in
    #[arg(long, value_name = "NAME", requires = "attach")]
    vhost: Option<String>,
}

impl AttachArgs {
    /// Where the cluster is, and how it is spoken to.
    pub fn reach(&self) -> Result<Reach> {
        Ok(Reach {
            tls: self.tls(),
            login: self.login()?,
            virtual_host: self.vhost.clone(),
            ..Reach::plain(self.attach.clone())
        })
    }

    fn tls(&self) -> Option<TlsOptions> {
        let mut options = TlsOptions::new();
        if let Some(ca) = &self.tls_ca {
            options = options.ca_file(ca);
        }
        if let Some(crl) = &self.tls_crl {
            options = options.crl_file(crl);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            options = options.certificate(certificate, key);
        }
        if let Some(name) = &self.tls_server_name {
            options = options.server_name(name);
        }
        (self.tls || options != TlsOptions::new()).then_some(options)
    }

    fn login(&self) -> Result<Login> {
        let Some(user) = &self.user else {
            return Ok(if self.external { Login::Certificate } else { Login::Nobody });
        };
        let password = match &self.password_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("reading {}", file.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => match std::env::var("BELLWETHER_PASSWORD") {
                Ok(password) => password,
                Err(_) => bail!(
                    "no password for user {user}: give --password-file FILE, or set BELLWETHER_PASSWORD"
                ),
            },
        };
        Ok(Login::Password(user.clone(), password))
    }
}

/// Kinds of faults to draw from.
#[derive(Clone, Debug)]
pub struct Kinds(pub Vec<FaultKind>);

impl Kinds {
    fn parse(names: &str) -> Result<Kinds, String> {
        if names == "all" {
            return Ok(Kinds(FaultKind::ALL.to_vec()));
        }
        names.split(',').map(str::parse).collect::<Result<_, _>>().map(Kinds)
    }

    /// Whether a run draws one of these: two at once are drawn from all kinds when no others are named.
    pub fn draw(&self, wanted: &[FaultKind]) -> bool {
        let only_two =
            self.0.iter().all(|kind| !kind.lasts()) && self.0.contains(&FaultKind::Combo);
        wanted.iter().any(|kind| self.0.contains(kind) || (only_two && kind.lasts()))
    }

    /// With commas.
    pub fn names(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_line_takes_is_what_its_help_names() {
        use clap::CommandFactory;
        let mut command = Options::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for kind in FaultKind::ALL {
            assert!(help.contains(kind.name()), "{kind}");
        }
        assert!(Kinds::parse("all").unwrap().draw(&[FaultKind::Corrupt]));
        assert!(Kinds::parse("combo").unwrap().draw(&[FaultKind::Corrupt]));
        assert!(!Kinds::parse("combo,kill").unwrap().draw(&[FaultKind::Corrupt]));
        assert!(Kinds::parse("fire").unwrap_err().contains("combo"));
    }
}
