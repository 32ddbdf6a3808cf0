//! Every attack in turn: what the broker's memory and the honest client were like before it, meanwhile and after it.

use std::time::Duration;

use anyhow::Result;

use super::attacks::{ALL, Attack};
use super::besieged::Besieged;
use super::felt::{Felt, Honest};

const MIB: f64 = 1024.0 * 1024.0;

/// What one attack did.
struct Seen {
    attack: Attack,
    /// Without the attack: before it and after it.
    without: Felt,
    meanwhile: Felt,
    /// Bytes before, the most, and after.
    memory: [u64; 3],
    came: u64,
    thrown_out: u64,
}

/// `false` when something was beyond its bounds.
pub async fn run(
    besieged: &mut Besieged,
    attackers: usize,
    time: Duration,
    only: &str,
) -> Result<bool> {
    let honest = Honest::connect(besieged.address()).await?;
    // Caches fill once, whoever comes.
    honest.feels(time / 2).await?;
    let limit = besieged.memory_limit().await?;
    let mut kept = true;
    print_head(attackers, time, limit);
    for attack in ALL.into_iter().filter(|attack| attack.name().contains(only)) {
        let before = honest.feels(time).await?;
        let memory_before = besieged.memory()?;
        let watch = besieged.watch();
        let at_work = attack.begin(besieged.address(), attackers).await?;
        let meanwhile = honest.feels(time).await?;
        let (came, thrown_out) = at_work.end().await?;
        let memory = [memory_before, watch.peak(), besieged.memory()?];
        honest.purge().await?;
        let without = before.and(&honest.feels(time).await?)?;
        let seen = Seen { attack, without, meanwhile, memory, came, thrown_out };
        kept &= seen.print(limit);
    }
    if let Some(refused) = besieged.metric("bellwether_client_connections_refused_total").await? {
        println!("The broker turned {refused} connections away at its door.");
    }
    if let Some((most, killed)) = besieged.group()? {
        println!(
            "The control group used {:.0} MiB at most, cached files included; killed for want of memory: {killed}.",
            most as f64 / MIB
        );
        kept &= killed == 0;
    }
    honest.leave().await?;
    Ok(kept)
}

fn print_head(attackers: usize, time: Duration, limit: Option<u64>) {
    println!(
        "{attackers} attackers of each kind, {} s each; memory: the broker's own.",
        time.as_secs()
    );
    if let Some(limit) = limit {
        println!("The broker's memory limit: {:.0} MiB.", limit as f64 / MIB);
    }
    println!(
        "{:<28} {:>10} {:>7} {:>7} {:>15} {:>10} {:>15} {:>10} {:>7} {:>7} {:>7}",
        "attack",
        "MiB before",
        "most",
        "after",
        "p50 ms without",
        "meanwhile",
        "p99 ms without",
        "meanwhile",
        "ratio",
        "came",
        "thrown"
    );
}

impl Seen {
    fn print(&self, limit: Option<u64>) -> bool {
        let [before, most, after] = self.memory.map(|bytes| bytes as f64 / MIB);
        let close = self.meanwhile.is_close_to(&self.without);
        let small = limit.is_none_or(|limit| self.memory[1] <= limit);
        println!(
            "{:<28} {before:>10.1} {most:>7.1} {after:>7.1} {:>15.2} {:>10.2} {:>15.2} {:>10.2} {:>7.2} {:>7} {:>7}{}{}",
            self.attack.name(),
            self.without.p50_ms(),
            self.meanwhile.p50_ms(),
            self.without.p99_ms(),
            self.meanwhile.p99_ms(),
            self.meanwhile.ratio(&self.without),
            self.came,
            self.thrown_out,
            if close { "" } else { "  p99 BEYOND 2x" },
            if small { "" } else { "  memory BEYOND the limit" },
        );
        close && small
    }
}
