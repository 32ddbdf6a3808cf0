//! Asks a broker's admin endpoint: a GET over a socket, no more.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status and body of `GET path`.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status =
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status line")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// The value of one metric without labels on a page of `/metrics`.
#[must_use]
pub fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# HELP sent x\nsent_total 3\nsent 4.5\nsent{to=\"2\"} 6\n";
        assert_eq!(metric(page, "sent"), Some(4.5));
        assert_eq!(metric(page, "sent_total"), Some(3.0));
        assert_eq!(metric(page, "received"), None);
    }
}
