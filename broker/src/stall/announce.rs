//! Says to the other brokers whether the disk here stalls: in the record under which this broker is live, which all of them watch.
//! Asked to lead meanwhile it would decline, and each queue that is handed to it would have no leader for a moment.

use std::time::Duration;

use bellwether_coordinator::coordinator::{ReadError, Write, WriteError};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::BrokerRecord;
use bellwether_protocol::ids::BrokerLife;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::session::Life;

/// How long to wait before another attempt after a passing fault of the coordinator.
const RETRY: Duration = Duration::from_millis(200);

/// Brings every change of `stalls` into the record of the present life, until `stop`.
pub(crate) async fn announce(
    mut stalls: watch::Receiver<bool>,
    mut lives: watch::Receiver<Option<Life>>,
    stop: CancellationToken,
) {
    // A life begins with a record that says nothing of the disk.
    let mut said: Option<BrokerLife> = None;
    loop {
        let stalling = *stalls.borrow_and_update();
        let life = lives.borrow_and_update().clone().filter(|life| life.connected);
        let mut again = None;
        if let Some(life) = life.filter(|life| stalling != (said == Some(life.life))) {
            match write(&life, stalling).await {
                Ok(()) => said = stalling.then_some(life.life),
                Err(why) => {
                    debug!(%why, "the other brokers do not know yet how the disk does");
                    again = Some(RETRY);
                }
            }
        }
        tokio::select! {
            changed = stalls.changed() => if changed.is_err() { return },
            changed = lives.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Written again after an answer that was lost it says the same.
async fn write(life: &Life, disk_stalls: bool) -> Result<(), String> {
    let path = paths::live_broker(life.life);
    let words = |error: ReadError| error.to_string();
    life.coordinator.sync().await.map_err(words)?;
    let Some(document) = life.coordinator.read(&path).await.map_err(words)? else {
        return Err("this life is not registered any more".to_owned());
    };
    let record = BrokerRecord::parse(&document.bytes).map_err(|error| error.to_string())?;
    if record.disk_stalls == disk_stalls {
        return Ok(());
    }
    let bytes = BrokerRecord { disk_stalls, ..record }.to_bytes();
    let set = Write::Set { path, bytes, version: document.version };
    let written = life.coordinator.write(vec![set]).await;
    written.map(drop).map_err(|error: WriteError| error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::catalog::doubles::{Surroundings, life};

    use super::*;

    /// Waits until the brokers are told that the disk of broker 1 stalls, or that it does not.
    async fn told(world: &Surroundings, stalls: bool) {
        use crate::shard::input::ShardInput;
        let says = |input: ShardInput| match input {
            ShardInput::Brokers(live) => {
                let one = live.brokers.iter().find(|record| record.life == life(1))?;
                (one.disk_stalls == stalls).then_some(())
            }
            _ => None,
        };
        world.shard.next(says).await;
    }

    #[tokio::test]
    async fn the_other_brokers_hear_that_the_disk_stalls_and_that_it_is_fine_again() {
        let world = Surroundings::new().await;
        let (stalls, watched) = watch::channel(false);
        let stop = CancellationToken::new();
        let announcing = tokio::spawn(announce(watched, world.lives.subscribe(), stop.clone()));
        stalls.send_replace(true);
        told(&world, true).await;
        // Not while nobody can be told.
        world.set_connected(false);
        stalls.send_replace(false);
        world.set_connected(true);
        told(&world, false).await;
        stop.cancel();
        announcing.await.unwrap();
    }
}
