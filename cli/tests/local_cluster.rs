//! `demo` and `dev` do what they promise with real processes, and leave nothing behind.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Far more than any of this takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn bellwether(arguments: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env("TMPDIR", temporary).kill_on_drop(true);
    command
}

async fn output(arguments: &[&str], temporary: &Path) -> Output {
    tokio::time::timeout(PATIENCE, bellwether(arguments, temporary).output())
        .await
        .expect("it takes too long")
        .unwrap()
}

async fn done(arguments: &[&str], temporary: &Path) -> String {
    let output = output(arguments, temporary).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gone, or dead and waiting for its parent to notice.
fn is_gone(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

/// A running `dev`.
struct Dev {
    process: Child,
    /// For `--connect`.
    addresses: String,
    brokers: Vec<u32>,
}

impl Dev {
    /// Starts it and reads its introduction.
    async fn start(arguments: &[&str], temporary: &Path) -> Dev {
        let mut process = bellwether(arguments, temporary).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut addresses, mut brokers) = (Vec::new(), Vec::new());
        while let Some(line) =
            tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap()
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["broker", _, address, "process", pid, ..] = words[..] {
                addresses.push(address.to_owned());
                brokers.push(pid.parse().unwrap());
            }
            if line.contains("Ctrl-C stops the cluster") {
                break;
            }
        }
        assert!(!brokers.is_empty(), "it has not introduced itself");
        Dev { process, addresses: addresses.join(","), brokers }
    }

    /// SIGTERM, and waits for its end.
    async fn stop(mut self) {
        signal(self.process.id().unwrap(), Signal::TERM);
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        assert!(self.brokers.iter().all(|pid| is_gone(*pid)), "a broker was left behind");
    }
}

#[tokio::test]
async fn the_demo_loses_nothing_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let printed = done(&["demo", "--json", "--count", "5000"], temporary.path()).await;
    let last: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!((&last["confirmed"], &last["lost"]), (&5000.into(), &0.into()));
    assert_eq!(last["received"], 5000);
    assert!(last["duplicates"].is_u64() && last["failover_ms"].is_u64(), "{last}");
    assert_eq!(last.as_object().unwrap().len(), 5, "{last}");
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the folder was left behind"
    );
}

#[tokio::test]
async fn with_a_data_folder_everything_is_there_again_after_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("kept");
    let start = ["dev", "--base-port", "0", "--data", data.to_str().unwrap()];

    let dev = Dev::start(&start, temporary.path()).await;
    let connect = dev.addresses.clone();
    done(
        &["exchange", "declare", "shop", "--kind", "fanout", "--connect", &connect],
        temporary.path(),
    )
    .await;
    done(&["queue", "declare", "orders", "--connect", &connect], temporary.path()).await;
    done(&["queue", "bind", "orders", "shop", "--connect", &connect], temporary.path()).await;
    done(
        &["publish", "--exchange", "shop", "apples", "pears", "plums", "--connect", &connect],
        temporary.path(),
    )
    .await;
    let first =
        done(&["consume", "orders", "--count", "1", "--connect", &connect], temporary.path()).await;
    assert_eq!(first, "apples\n");
    dev.stop().await;

    let dev = Dev::start(&start, temporary.path()).await;
    let connect = dev.addresses.clone();
    let rest = done(&["consume", "orders", "--connect", &connect], temporary.path()).await;
    assert_eq!(rest, "pears\nplums\n");
    let bound =
        done(&["queue", "describe", "orders", "--json", "--connect", &connect], temporary.path())
            .await;
    let bound: serde_json::Value = serde_json::from_str(&bound).unwrap();
    assert_eq!(bound["bindings"][0]["exchange"], "shop");
    dev.stop().await;
}

#[tokio::test]
async fn brokers_die_with_the_process_that_started_them_even_when_it_is_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("kept");
    let mut dev = Dev::start(
        &["dev", "--base-port", "0", "--data", data.to_str().unwrap()],
        temporary.path(),
    )
    .await;
    dev.process.kill().await.unwrap();
    eventually("the end of every broker", || dev.brokers.iter().all(|pid| is_gone(*pid))).await;
}

#[tokio::test]
async fn a_killed_broker_of_dev_is_started_again_and_nothing_is_lost() {
    let temporary = tempfile::tempdir().unwrap();
    let dev = Dev::start(&["dev", "--base-port", "0"], temporary.path()).await;
    let connect = dev.addresses.clone();
    done(&["queue", "declare", "orders", "--connect", &connect], temporary.path()).await;
    done(
        &["publish", "--queue", "orders", "--count", "500", "--size", "100", "--connect", &connect],
        temporary.path(),
    )
    .await;
    signal(dev.brokers[0], Signal::KILL);
    eventually("the end of the broker", || is_gone(dev.brokers[0])).await;
    let received =
        done(&["consume", "orders", "--count", "500", "--connect", &connect], temporary.path())
            .await;
    assert_eq!(received.lines().count(), 500);
    dev.stop().await;
}
