//! `bellwether queue browse`: what waits in a queue, on standard output, without taking it.

use std::io::Write as _;

use bellwether_client::{BrowsedMessage, Client, QueueName};
use clap::Args;
use serde_json::{Value, json};

use super::consume::{header_json, hex};
use super::table::{grouped, print_line, print_table, table};
use crate::outcome::Failure;

/// Longest part of a body that is shown in the table, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// Flags of `queue browse`.
#[derive(Args, Debug)]
pub struct BrowseArgs {
    /// The queue's name
    pub name: QueueName,
    /// Begin at this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// At most so many messages
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Shows messages, ready and held ones, in the order of their offsets. Nothing is taken, and nothing counts as a delivery.
pub async fn run(client: &Client, args: &BrowseArgs, json: bool) -> Result<(), Failure> {
    let browser = client.browse(args.name.as_str())?.starting_at(args.from);
    let mut browser = browser.page_messages(args.limit);
    let mut left = args.limit as usize;
    let mut rows = table(&["offset", "bytes", "returns", "exchange", "key", "body"]);
    while left > 0 {
        let Some(mut page) = browser.next_page().await? else { break };
        page.truncate(left);
        left -= page.len();
        if json {
            write_json(&args.name, &page)?;
            continue;
        }
        for message in &page {
            rows.add_row([
                message.offset().to_string(),
                message.body().len().to_string(),
                message.returns().to_string(),
                message.exchange().to_owned(),
                message.routing_key().to_owned(),
                shown(message.body()),
            ]);
        }
    }
    if json {
        return Ok(());
    }
    if left == args.limit as usize {
        let counts = client.describe(&args.name).await?.counts;
        return print_line(&nothing(&args.name, args.from, counts.high_watermark.0, counts.ready));
    }
    print_table(&rows)
}

/// Why there is nothing to show from an offset on.
fn nothing(queue: &QueueName, from: u64, end: u64, ready: u64) -> String {
    match (from, ready) {
        (0, _) => format!("nothing waits in queue {queue}"),
        (_, 0) => format!("nothing waits in queue {queue}, which ends at offset {end}"),
        (from, _) if from >= end => format!(
            "nothing waits in queue {queue} from offset {from} on: it ends at offset {end}, before that {} ready",
            if ready == 1 {
                "1 message is".to_owned()
            } else {
                format!("{} messages are", grouped(ready))
            }
        ),
        (from, _) => format!(
            "nothing waits in queue {queue} from offset {from} on, though it ends at offset {end}: what is there is settled"
        ),
    }
}

/// A line for each, so that there may be many.
fn write_json(queue: &QueueName, page: &[BrowsedMessage]) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for message in page {
        serde_json::to_writer(&mut out, &as_json(queue, message)).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn as_json(queue: &QueueName, message: &BrowsedMessage) -> Value {
    let mut value = json!({
        "queue": queue.as_str(),
        "offset": message.offset(),
        "redelivered": message.redelivered(),
        "returns": message.returns(),
        "time_ms": message.time_ms(),
        "exchange": message.exchange(),
        "routing_key": message.routing_key(),
    });
    if let Ok(headers) = message.headers()
        && !headers.0.is_empty()
    {
        value["headers"] =
            headers.0.iter().map(|(name, header)| (name.clone(), header_json(header))).collect();
    }
    // A body that is no text would come out changed.
    match std::str::from_utf8(message.body()) {
        Ok(text) => value["body"] = json!(text),
        Err(_) => value["body_hex"] = json!(hex(message.body())),
    }
    value
}

/// The beginning of a body in one line: a terminal must not be told what to do by a message.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_CHARACTERS)]).into_owned();
    let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut line: String = text.chars().take(SHOWN_CHARACTERS).map(plain).collect();
    if line.len() < body.len() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_end_of_a_queue_it_is_said_where_that_is() {
        let queue = QueueName::new("orders").unwrap();
        assert_eq!(nothing(&queue, 0, 0, 0), "nothing waits in queue orders");
        assert_eq!(
            nothing(&queue, 900, 120, 7),
            "nothing waits in queue orders from offset 900 on: it ends at offset 120, before that 7 messages are ready"
        );
        assert_eq!(
            nothing(&queue, 900, 120, 0),
            "nothing waits in queue orders, which ends at offset 120"
        );
        assert!(nothing(&queue, 100, 120, 7).contains("what is there is settled"));
    }

    #[test]
    fn a_body_is_shown_in_one_line_that_does_nothing_to_the_terminal() {
        assert_eq!(shown(b"42 apples"), "42 apples");
        assert_eq!(shown(b"\x1b[2Ja\nb"), "\u{fffd}[2Ja\u{fffd}b");
        assert_eq!(shown(&[b'x'; 100]).chars().count(), SHOWN_CHARACTERS + 1);
        assert_eq!(shown(b""), "");
    }
}
