//! docs/protocol.md is enough to write a client in another language: one in Python, written from it and sharing no code,
//! holds every broker of a real cluster to that page.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::users::user;
use tokio::process::Command;

/// The checks take seconds.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_written_from_the_protocols_page_finds_every_broker_as_described()
-> Result<()> {
    let cluster = Cluster::start().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/conformance.py");
    let ensemble = ["--zookeeper", &cluster.zookeeper()];
    user(&[&["add", "python"][..], &ensemble[..]].concat(), Some("3.14 and more")).await?;
    let all = ["permit", "python", "--configure", ".*", "--write", ".*", "--read", ".*"];
    user(&[&all[..], &ensemble[..]].concat(), None).await?;
    for address in cluster.addresses() {
        let mut checks = Command::new("python3");
        checks.arg("-B").arg(&script).arg(&address).args(["python", "3.14 and more"]);
        checks.kill_on_drop(true);
        let done = tokio::time::timeout(PATIENCE, checks.output())
            .await
            .with_context(|| format!("the checks of {address} did not end within {PATIENCE:?}"))?
            .context("python3 could not be started; ./test.sh installs it")?;
        let said = String::from_utf8_lossy(&done.stdout);
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{address} is not as described:\n{said}{errors}");
    }
    Ok(())
}
