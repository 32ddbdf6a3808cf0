//! Publishes numbered messages to a queue and waits until each is on the disks of a majority.
//!
//! `cargo run -p bellwether-client --example publish -- 127.0.0.1:7400 orders 1000`

use bellwether_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, queue, count] = &arguments[..] else {
        return Err("usage: publish HOST:PORT,… QUEUE COUNT".into());
    };
    let client = Client::connect(brokers.split(',')).await?;
    if let Some(warning) = client.declare(queue).await?.warning {
        eprintln!("{warning}");
    }
    let producer = client.producer().to_queue(queue).start().await?;
    let mut receipts = Vec::new();
    for number in 1..=count.parse::<u64>()? {
        // Waits only while a thousand messages are unconfirmed.
        receipts.push(producer.send(format!("message {number}")).await?);
    }
    let mut confirmed = 0;
    for receipt in receipts {
        match receipt.await {
            Ok(()) => confirmed += 1,
            Err(error) => eprintln!("{:?}: {error}", error.outcome()),
        }
    }
    println!("{confirmed} messages confirmed");
    client.close().await?;
    Ok(())
}
