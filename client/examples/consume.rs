//! Prints the messages of a queue and acknowledges them, through failovers, until the queue is deleted.
//!
//! `cargo run -p bellwether-client --example consume -- 127.0.0.1:7400 orders`

use bellwether_client::{Client, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, queue] = &arguments[..] else {
        return Err("usage: consume HOST:PORT,… QUEUE".into());
    };
    let client = Client::connect(brokers.split(',')).await?;
    let mut consumer = client.consumer(queue).prefetch(100).start().await?;
    while let Some(delivery) = consumer.next().await.transpose()? {
        let again = if delivery.redelivered() { " (perhaps seen before)" } else { "" };
        let body = String::from_utf8_lossy(delivery.body());
        println!("{}{again}: {body}", delivery.offset());
        match delivery.ack().await {
            Ok(()) => {}
            Err(error) if error.outcome() == Outcome::NotDone => println!("comes again: {error}"),
            Err(error) => println!("may come again: {error}"),
        }
    }
    Ok(())
}
