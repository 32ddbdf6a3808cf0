//! The commands of users and operators: each connects, does one thing, says how it went, and leaves.

pub mod attention;
pub mod backup;
pub mod bench;
mod browse;
pub mod certs;
pub mod cluster;
pub mod confirms;
pub mod consume;
pub mod elections;
pub mod exchange;
pub mod explain;
pub mod login;
mod numbers;
mod patterns;
pub mod publish;
pub mod queue;
mod rebalance;
pub mod recover;
mod stuck;
pub mod table;
mod tls;
pub mod user;

use bellwether_client::{
    BindError, Client, ConnectError, ConsumeError, DeclareError, DeleteError, DrainError,
    FlushError, Outcome, ProducerError, PublishError, PurgeError, QueryError, RecoverError,
    SettingError, SettleError, UserError,
};
use bellwether_protocol::names::VirtualHost;
use clap::Args;

use crate::outcome::Failure;
use crate::values::Span;
use login::LoginArgs;
use tls::ClientTlsArgs;

/// How a command reaches the cluster, and how it answers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and output")]
pub struct ClientArgs {
    /// Brokers to connect to; one that answers is enough
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        env = "BELLWETHER_CONNECT",
        default_value = "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402"
    )]
    pub connect: Vec<String>,
    #[command(flatten)]
    pub tls: ClientTlsArgs,
    /// Virtual host that all names lie in
    #[arg(long, global = true, value_name = "NAME", default_value = "/")]
    pub vhost: VirtualHost,
    /// How long to try before giving up
    #[arg(long, global = true, value_name = "TIME", default_value = "30s")]
    pub timeout: Span,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub login: LoginArgs,
}

impl ClientArgs {
    /// Connects to the cluster.
    pub async fn client(&self) -> Result<Client, Failure> {
        let builder = Client::builder()
            .name("bellwether-cli")
            .virtual_host(self.vhost.as_str())
            .deadline(self.timeout.0);
        let builder = match self.tls.options()? {
            Some(tls) => builder.tls(tls),
            None => builder,
        };
        let builder = match self.login.credentials()? {
            Some((user, password)) => builder.login(user, password),
            None if self.login.external => builder.login_by_certificate(),
            None => builder,
        };
        Ok(builder.connect(&self.connect).await?)
    }
}

macro_rules! failures {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                match error.outcome() {
                    Outcome::NotDone => Failure::NotDone(error.to_string()),
                    Outcome::Unknown => Failure::Unknown(error.to_string()),
                }
            }
        }
    )*};
}
failures!(
    BindError,
    ConsumeError,
    DeleteError,
    DrainError,
    FlushError,
    ProducerError,
    PublishError,
    PurgeError,
    QueryError,
    RecoverError,
    SettleError
);

/// The same for operations that broker and command line judge alike: what can be asked of no cluster is bad usage, whoever finds it.
macro_rules! judged_failures {
    ($($error:ident $($bad:ident)|+;)*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                match (&error, error.outcome()) {
                    $(($error::$bad { .. }, _) => Failure::usage(error),)+
                    (_, Outcome::NotDone) => Failure::not_done(error),
                    (_, Outcome::Unknown) => Failure::Unknown(error.to_string()),
                }
            }
        }
    )*};
}
judged_failures!(
    DeclareError InvalidOption | InvalidName;
    SettingError Unsuitable;
    UserError InvalidPattern | InvalidName;
);

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match error {
            ConnectError::NoAddress
            | ConnectError::InvalidAddress { .. }
            | ConnectError::InvalidTls { .. }
            | ConnectError::InvalidPassword(_) => Failure::usage(error),
            other => Failure::not_done(other),
        }
    }
}
