//! Takes jobs from one queue and publishes their results to another. A job is acknowledged only when its result is
//! confirmed, so that no failover loses one; a job that fails goes back for another worker.
//!
//! `cargo run -p bellwether-client --example work_queue -- 127.0.0.1:7400 jobs results`

use bellwether_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, jobs, results] = &arguments[..] else {
        return Err("usage: work_queue HOST:PORT,… JOBS RESULTS".into());
    };
    let client = Client::connect(brokers.split(',')).await?;
    client.declare(jobs).await?;
    client.declare(results).await?;
    let producer = client.producer().to_queue(results).start().await?;
    // One job at a time: whoever is free takes the next.
    let mut consumer = client.consumer(jobs).prefetch(1).start().await?;
    while let Some(job) = consumer.next().await.transpose()? {
        let Some(result) = work(job.body()) else {
            eprintln!("returned job {} for the {}th time", job.offset(), job.returns() + 1);
            drop(job); // back to its place in the queue
            continue;
        };
        // Stored once, however often a failover makes the client send it again.
        producer.send_and_confirm(result).await?;
        if let Err(error) = job.ack().await {
            eprintln!("the job may come again: {error}");
        }
    }
    Ok(())
}

fn work(job: &[u8]) -> Option<String> {
    let job = std::str::from_utf8(job).ok()?;
    Some(job.chars().rev().collect())
}
