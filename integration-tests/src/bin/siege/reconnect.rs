//! Many clients that are served by one of two brokers when it is killed and started again: how long until all of them are served
//! again, and what a client of the other broker feels meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bellwether_client::{Client, Producer, QueueOptions};
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::eventually::eventually;
use tokio::task::JoinSet;

use super::felt::Honest;

/// Queues that the clients publish to: that of a client goes with its number.
const QUEUES: usize = 20;

/// Clients that connect at once at the beginning.
const AT_ONCE: usize = 50;

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(2);

/// A client that is not served after so long never will be.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// `false` when something was beyond its bounds.
pub async fn run(clients: usize, time: Duration) -> Result<bool> {
    let setup = Setup { brokers: 2, servers: 1, ..Setup::default() };
    let mut cluster = Cluster::start_with(setup).await?;
    let addresses = cluster.addresses();
    let operator = Client::connect(addresses.iter()).await?;
    let (served, killed) = queues(&operator).await?;
    println!("{clients} clients publish to queues of broker 2, one to a queue of broker 1.");

    let honest = Client::connect([&addresses[0]]).await?;
    let producer = honest.producer().to_queue(&served).start().await?;
    let crowd = connect_all(&addresses, &killed, clients).await?;
    let honest = Honest::of(honest, producer);
    let before = honest.feels(time).await?;
    let (meanwhile, back) = honest.feels_during(storm(&mut cluster, &crowd)).await?;
    let before = before.and(&honest.feels(time).await?)?;
    println!(
        "All {clients} were served again {:.2} s after the broker was started again. The other client's p99: {:.2} ms before and after, {:.2} ms meanwhile ({:.2}x, {} confirms).",
        back.as_secs_f64(),
        before.p99_ms(),
        meanwhile.p99_ms(),
        meanwhile.ratio(&before),
        meanwhile.confirms(),
    );
    Ok(meanwhile.is_close_to(&before))
}

/// A queue that broker 1 leads, and those that broker 2 leads, each with one copy.
async fn queues(operator: &Client) -> Result<(String, Vec<String>)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for number in 0..20 * QUEUES {
        let name = format!("siege-{number}");
        let options = QueueOptions { replicas: 1, ..QueueOptions::default() };
        operator.declare_with(&name, options).await?;
        let led = eventually("a leader", BACK_WITHIN, async || {
            let leader = operator.describe(&name).await?.queue.leader;
            leader.context("nobody leads it yet")
        });
        match led.await?.0 {
            1 => first.push(name),
            _ => second.push(name),
        }
        if second.len() >= QUEUES && !first.is_empty() {
            return Ok((first.swap_remove(0), second));
        }
    }
    bail!("all queues are led by one broker")
}

type Crowd = Vec<(Client, Producer)>;

async fn connect_all(addresses: &[String], queues: &[String], clients: usize) -> Result<Crowd> {
    let mut crowd = Vec::with_capacity(clients);
    let mut coming = JoinSet::new();
    for number in 0..clients {
        let (addresses, queue) = (addresses.to_owned(), queues[number % queues.len()].clone());
        coming.spawn(async move {
            let client = Client::connect(addresses.iter()).await?;
            let producer = client.producer().to_queue(queue).deadline(BACK_WITHIN).start().await?;
            producer.send_and_confirm("before").await?;
            anyhow::Ok((client, producer))
        });
        if coming.len() >= AT_ONCE
            && let Some(connected) = coming.join_next().await
        {
            crowd.push(connected??);
        }
    }
    while let Some(connected) = coming.join_next().await {
        crowd.push(connected??);
    }
    Ok(crowd)
}

/// Kills broker 2, starts it again, and waits until everybody's message is confirmed; answers how long that took from the start.
async fn storm(cluster: &mut Cluster, crowd: &Crowd) -> Result<Duration> {
    cluster.broker(2).kill()?;
    tokio::time::sleep(AWAY).await;
    cluster.broker(2).start()?;
    let began = Instant::now();
    let served = crowd.iter().map(|(_, producer)| producer.send_and_confirm("after"));
    futures::future::try_join_all(served).await?;
    Ok(began.elapsed())
}
