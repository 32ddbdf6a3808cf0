//! `bellwether dev`: a cluster on this machine, for as long as it is wanted.

use std::io::Write as _;
use std::path::Path;

use bellwether_broker::words::in_shell;
use clap::Args;

use super::{LocalArgs, LocalCluster, with_cluster};
use crate::outcome::Failure;

/// First of the ports that are used unless others are named, so that the client commands find the cluster by themselves.
pub const BASE_PORT: u16 = 7400;

/// Flags of `dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// How many brokers, 1 to 9
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub brokers: u16,
    #[command(flatten)]
    pub local: LocalArgs,
}

/// Runs a cluster until it is told to stop.
pub async fn run(args: DevArgs) -> Result<(), Failure> {
    let mut local = args.local;
    let last_port = BASE_PORT + 3 * args.brokers - 1;
    let mut elsewhere = None;
    match local.base_port {
        Some(_) => {}
        None => match taken_port(BASE_PORT, last_port) {
            None => local.base_port = Some(BASE_PORT),
            Some(taken) => elsewhere = Some(not_the_usual_ports(taken, last_port)),
        },
    }
    if let Some(words) = &elsewhere {
        eprintln!("{words}");
    }
    match args.brokers {
        1 => eprintln!("Starting 1 broker …"),
        many => eprintln!("Starting {many} brokers …"),
    }
    let kept = local.data.clone();
    let ended = with_cluster(args.brokers, &local, async |cluster| {
        introduce(cluster, kept.as_deref())?;
        keep_up(cluster).await
    });
    match ended.await {
        // A signal is how this is meant to end.
        Err(Failure::Interrupted) => {
            eprintln!("Stopped.");
            Ok(())
        }
        ended => ended,
    }
}

/// The first port of these that cannot be bound now.
fn taken_port(first: u16, last: u16) -> Option<u16> {
    (first..=last).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_err())
}

/// Commands that are not told otherwise would speak with another cluster, or with none.
fn not_the_usual_ports(taken: u16, last: u16) -> String {
    format!(
        "Port {taken} is in use, perhaps by another `bellwether dev`: this cluster takes free ports instead of {BASE_PORT} to {last}. Commands find it only with the BELLWETHER_CONNECT that is shown below; without it they go to {BASE_PORT} and the next. --base-port PORT chooses others."
    )
}

/// Starts again what ends, as a service manager would: so one can kill a broker and watch it come back.
async fn keep_up(cluster: &mut LocalCluster) -> Result<(), Failure> {
    loop {
        let (id, how) = cluster.one_ended().await;
        eprintln!("Broker {id} has ended ({how}); starting it again …");
        cluster.restart(id).await?;
        let pid =
            cluster.running().find(|(running, ..)| *running == id).map_or(0, |(_, pid, ..)| pid);
        eprintln!("Broker {id} is back, as process {pid}.");
    }
}

fn introduce(cluster: &LocalCluster, kept: Option<&Path>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "A cluster is running:\n")?;
    for (id, pid, clients, admin) in cluster.running() {
        writeln!(out, "  broker {id}   {clients}   process {pid}   http://{admin}/metrics")?;
    }
    let folder = cluster.folder().display();
    match kept {
        Some(_) => writeln!(out, "\nData and logs are kept in {folder}.")?,
        None => writeln!(
            out,
            "\nData and logs lie in {folder} and are removed at the end; --data DIR keeps them."
        )?,
    }
    let bellwether = binary();
    let export = match cluster.addresses() {
        addresses
            if addresses
                .first()
                .is_some_and(|first| *first == format!("127.0.0.1:{BASE_PORT}")) =>
        {
            String::new()
        }
        addresses => format!(
            "  export BELLWETHER_CONNECT={}   # not the usual ports: without it commands do not find this cluster\n",
            addresses.join(",")
        ),
    };
    writeln!(
        out,
        "
Try this in another terminal:

{export}  {bellwether} exchange declare shop --kind fanout
  {bellwether} queue declare orders
  {bellwether} queue bind orders shop
  {bellwether} publish --exchange shop 'three apples' 'two pears'
  {bellwether} consume orders --count 2
  {bellwether} publish --queue orders --count 100000 --size 1024
  {bellwether} queue describe orders
  {bellwether} cluster status

Kill a broker with `kill -9 PROCESS`: another takes its queues over, and it is started again. Ctrl-C stops the cluster."
    )?;
    out.flush()?;
    Ok(())
}

/// How to call this binary again from the folder that it was called in.
fn binary() -> String {
    let (Ok(binary), Ok(here)) = (std::env::current_exe(), std::env::current_dir()) else {
        return "bellwether".to_owned();
    };
    in_shell(&binary.strip_prefix(&here).unwrap_or(&binary).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_with_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(taken_port(port, port), Some(port));
        let words = not_the_usual_ports(7401, 7408);
        for part in [
            "Port 7401 is in use",
            "another `bellwether dev`",
            "7400 to 7408",
            "BELLWETHER_CONNECT",
            "--base-port",
        ] {
            assert!(words.contains(part), "{words}");
        }
    }
}
