//! What `serve` does when it cannot start at once: it says so, goes on trying, and can be stopped.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// Far more than any of this takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker whose ensemble is not there: port 1 of loopback, where nobody listens.
fn serve(id: u32, data: &std::path::Path, more: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER_") {
            command.env_remove(name);
        }
    }
    command.args([
        "serve",
        "--id",
        &id.to_string(),
        "--zookeeper",
        "127.0.0.1:1/none",
        "--log",
        "info",
    ]);
    command
        .args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(more);
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, lines)
}

async fn says(lines: &mut Lines<BufReader<ChildStderr>>, words: &str) -> String {
    let mut said = String::new();
    let line = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return Some(line);
            }
            said.push_str(&line);
            said.push('\n');
        }
        None
    };
    let found = tokio::time::timeout(PATIENCE, line).await.ok().flatten();
    found.unwrap_or_else(|| panic!("{words:?} was not said:\n{said}"))
}

async fn ends_with(child: &mut Child, code: i32) {
    let status =
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(status.code(), Some(code));
}

#[tokio::test]
async fn a_broker_waits_for_its_ensemble_says_so_and_can_be_stopped_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut lines) = serve(1, &folder.path().join("1"), &[]);
    let line = says(&mut lines, "the coordinator cannot be reached").await;
    assert!(line.contains("127.0.0.1:1"), "{line}");
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    ends_with(&mut child, 0).await;
}

#[tokio::test]
async fn a_data_folder_in_use_or_of_another_broker_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("1");
    let (mut first, mut lines) = serve(1, &data, &[]);
    says(&mut lines, "the coordinator cannot be reached").await;

    let (mut second, mut errors) = serve(1, &data, &[]);
    let line = says(&mut errors, "error: ").await;
    assert!(line.contains("is in use") && line.contains(data.to_str().unwrap()), "{line}");
    ends_with(&mut second, 1).await;

    first.kill().await.unwrap();
    let (mut other, mut errors) = serve(2, &data, &[]);
    let line = says(&mut errors, "error: ").await;
    assert!(line.contains("belongs to broker 1, this is broker 2"), "{line}");
    ends_with(&mut other, 1).await;
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn a_hang_up_makes_a_broker_read_its_file_again_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.toml");
    std::fs::write(&file, "heartbeat = \"11s\"").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let (mut child, mut lines) = serve(1, &folder.path().join("1"), &config);
    says(&mut lines, "the coordinator cannot be reached").await;

    std::fs::write(&file, "heartbeat = \"12s\"\ndata = \"elsewhere\"\nshards = 3").unwrap();
    signal(&child, Signal::HUP);
    let line = says(&mut lines, "read again").await;
    assert!(line.contains("changed: heartbeat from 11s to 12s"), "{line}");
    // The flag for the folder stands above the file; the shards need a restart.
    assert!(line.contains("needs a restart: shards from (not set) to 3"), "{line}");
    assert!(!line.contains("elsewhere"), "{line}");

    std::fs::write(&file, "heartbeat = \"13s\"\nprefetch-max = 0").unwrap();
    signal(&child, Signal::HUP);
    let line = says(&mut lines, "could not be read again").await;
    assert!(line.contains("prefetch-max = 0: allowed is 1 to 1000000"), "{line}");

    signal(&child, Signal::TERM);
    ends_with(&mut child, 0).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (mut child, mut errors) = serve(1, folder.path(), &["--admin-listen", &address]);
    let line = says(&mut errors, "error: ").await;
    assert!(
        line.contains(&format!("--admin-listen {address}")) && line.contains("in use"),
        "{line}"
    );
    ends_with(&mut child, 1).await;
}

#[tokio::test]
async fn logs_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let (_child, mut lines) = serve(1, folder.path(), &["--log-format", "json"]);
    let line = says(&mut lines, "the coordinator cannot be reached").await;
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["level"], "WARN");
}
