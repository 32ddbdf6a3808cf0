//! Users made with the command line, directly at the ensemble: how the first ones of a cluster are.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::binary;

/// Runs `bellwether` as somebody who logs in at these brokers: whether it was done, and what it said.
pub async fn run_as(
    (user, password): (&str, &str),
    brokers: &[String],
    arguments: &[&str],
) -> Result<(bool, String)> {
    let mut command = Command::new(binary::bellwether()?);
    command.args(arguments).args(["--user", user, "--connect", &brokers.join(",")]);
    command.env_remove("BELLWETHER_BIN").env("BELLWETHER_PASSWORD", password).kill_on_drop(true);
    let output = command.stdin(std::process::Stdio::null()).output().await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Runs `bellwether user` with these arguments; gives what it says. A password goes in by standard input.
pub async fn user(arguments: &[&str], password: Option<&str>) -> Result<String> {
    let mut command = Command::new(binary::bellwether()?);
    command.arg("user").args(arguments).env_remove("BELLWETHER_BIN").kill_on_drop(true);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    if let Some(password) = password {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{password}\n").as_bytes()).await?;
    }
    drop(stdin);
    let output = child.wait_with_output().await?;
    let (said, errors) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "user {arguments:?}: {}: {said}{errors}", output.status);
    Ok(said)
}
