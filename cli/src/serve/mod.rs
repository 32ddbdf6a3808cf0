//! `bellwether serve`: one broker, from its configuration to its hand-over.

pub mod addresses;
pub mod coordination;
pub mod layers;
mod live;
pub mod logs;
mod notify;
pub mod ready;
mod reload;
pub mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_broker::admin::Health;
use bellwether_broker::config::BrokerConfig;
use bellwether_broker::live::Live;
use bellwether_protocol::ids::BrokerId;
use clap::{ArgMatches, Args};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::outcome::Failure;
use crate::signals::{Signals, Told, starter_gone};
use layers::FileLayer;
use live::Retuner;
use logs::LogDial;
use notify::Notify;
use ready::Ready;
use reload::Reloads;
use settings::Settings;

/// What a stopping broker gets beyond its drain time-out, for closing files and its session.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Flags of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Configuration file (TOML). The environment overrides it, flags override both
    #[arg(long, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force, and where each value is from, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Print every setting as the documentation has it, and exit
    #[arg(long, hide = true)]
    pub print_config_docs: bool,
    /// Print what docs/metrics.md says, and exit
    #[arg(long, hide = true)]
    pub print_metrics: bool,
    #[command(flatten)]
    pub settings: Settings,
    /// Use the coordinator that `dev` or `demo` serves here, in place of ZooKeeper
    #[arg(long, value_name = "HOST:PORT", hide = true, conflicts_with = "zookeeper")]
    pub embedded_coordinator: Option<String>,
    /// Stop at once when standard input ends
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// Runs a broker until it is told to stop.
pub async fn run(
    args: ServeArgs,
    matches: &ArgMatches,
    file: &FileLayer,
    arguments: Vec<OsString>,
) -> Result<(), Failure> {
    layers::check_environment(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
        .map_err(Failure::usage)?;
    if args.print_config {
        std::io::stdout().write_all(layers::print(matches, file).as_bytes())?;
        return Ok(());
    }
    if args.print_config_docs {
        std::io::stdout().write_all(settings::docs::page().as_bytes())?;
        return Ok(());
    }
    if args.print_metrics {
        std::io::stdout().write_all(bellwether_broker::metrics::reference().as_bytes())?;
        return Ok(());
    }
    let log = logs::start(args.settings.log_format, args.settings.log.as_deref())?;

    let mut signals = Signals::catch()?;
    let gone = if args.exit_with_stdin { starter_gone() } else { CancellationToken::new() };
    let starting = start(&args, Retuning { arguments, values: layers::values(matches), log });
    tokio::select! {
        started = starting => supervise(started?, &mut signals, &gone).await,
        () = signals.stop() => Ok(()),
        () = gone.cancelled() => Err(starter_is_gone()),
    }
}

/// A broker that has been started, and the strings on it.
struct Started<Run> {
    broker: Run,
    health: Arc<Health>,
    shutdown: CancellationToken,
    ready: Ready,
    retuner: Arc<Retuner>,
    reloads: Reloads,
    notify: Notify,
}

/// What it takes to change a running broker, beside its configuration.
struct Retuning {
    arguments: Vec<OsString>,
    values: BTreeMap<String, String>,
    log: LogDial,
}

async fn start(
    args: &ServeArgs,
    retuning: Retuning,
) -> Result<
    Started<impl Future<Output = Result<(), bellwether_broker::BrokerError>> + use<>>,
    Failure,
> {
    let settings = &args.settings;
    let Some(id) = settings.id else {
        return Err(Failure::usage(
            "this broker has no number: give --id N, BELLWETHER_ID or `id = N` in the configuration file, unique in the cluster",
        ));
    };
    let connector = coordination::connector(args)?;
    // Everything that can be judged is judged before the first port is bound.
    let unbound =
        bellwether_broker::config::Addresses { client: String::new(), peer: String::new() };
    settings.broker(BrokerId(id), unbound).check().map_err(Failure::usage)?;
    let tls = settings.tls.open(BrokerId(id))?;
    let cluster = settings.tls.cluster(&tls)?;
    let (listeners, addresses) =
        addresses::bind(settings, tls).await.map_err(|error| match error {
            addresses::AddressError::CannotBind { .. } => Failure::not_done(error),
            wrong => Failure::usage(wrong),
        })?;
    let mut config: BrokerConfig = settings.broker(BrokerId(id), addresses);
    config.cluster = cluster;
    let ready = Ready {
        id,
        clients: config.addresses.client.clone(),
        brokers: config.addresses.peer.clone(),
        admin: listeners
            .admin
            .as_ref()
            .and_then(|admin| admin.local_addr().ok())
            .map(|bound| bound.to_string()),
    };
    let (health, shutdown) = (Arc::new(Health::default()), CancellationToken::new());
    let Retuning { arguments, values, log } = retuning;
    let (retuner, config) = Retuner::new(arguments, values, log, config);
    let retuner = Arc::new(retuner);
    let mut reloads = Reloads::default();
    reloads.add("the configuration", {
        let retuner = retuner.clone();
        move || retuner.reload()
    });
    reloads.add("the certificates", {
        let tls = listeners.tls.clone();
        move || {
            tls.reload();
            Ok("the log says what is wrong with them, if anything is".to_owned())
        }
    });
    let (pulse, beats) = watch::channel(0);
    let live = Live { config, settings: retuner.clone(), pulse };
    let broker =
        bellwether_broker::run(live, connector, listeners, health.clone(), shutdown.clone());
    let notify = Notify::new(beats);
    Ok(Started { broker, health, shutdown, ready, retuner, reloads, notify })
}

/// Sees a broker from its start to its end: says when it is ready, and stops it when told to.
async fn supervise<Run>(
    started: Started<Run>,
    signals: &mut Signals,
    gone: &CancellationToken,
) -> Result<(), Failure>
where
    Run: Future<Output = Result<(), bellwether_broker::BrokerError>>,
{
    let Started { broker, health, shutdown, ready, retuner, reloads, mut notify } = started;
    let mut broker = std::pin::pin!(broker);
    let mut announced = false;
    let mut give_up_at = None;
    let mut drain_timeout = Duration::ZERO;
    loop {
        tokio::select! {
            ended = &mut broker => return ended.map_err(Failure::not_done),
            () = health.until_ready(), if !announced => {
                announced = true;
                announce(&ready);
                notify.ready();
            }
            told = signals.told() => {
                if told == Told::Reload {
                    notify.reloading();
                    reloads.run();
                    if announced && give_up_at.is_none() {
                        notify.ready();
                    }
                    continue;
                }
                if give_up_at.is_some() {
                    return Err(Failure::not_done("stopped at once by a second signal, before its queues were handed over"));
                }
                drain_timeout = retuner.config().timing.drain_timeout;
                info!(?drain_timeout, "stopping: handing the queues over");
                give_up_at = Some(Instant::now() + drain_timeout + CLOSING_TIME);
                notify.stopping();
                shutdown.cancel();
            }
            () = notify.beat() => {}
            () = gone.cancelled() => return Err(starter_is_gone()),
            () = sleep_until(give_up_at.unwrap_or_else(Instant::now)), if give_up_at.is_some() => {
                return Err(Failure::NotDone(format!("not all queues were handed over within {drain_timeout:?}")));
            }
        }
    }
}

fn announce(ready: &Ready) {
    // A log line for those who read logs, one line on standard output for those who wait for it.
    info!(
        broker.id = ready.id,
        clients = ready.clients,
        brokers = ready.brokers,
        admin = ready.admin,
        "ready"
    );
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{ready}").and_then(|()| out.flush()) {
        warn!(%error, "nobody reads standard output");
    }
}

fn starter_is_gone() -> Failure {
    Failure::not_done("the process that started this broker is gone")
}
