//! The promises, tried on real broker processes, a real ensemble and real faults. Needs the `bellwether` binary
//! (`cargo build`, or `BELLWETHER_BIN`).

mod asking;
mod backups;
mod damage;
mod deposed;
mod durability;
mod failover;
mod inputs;
mod login;
mod moves;
mod outage;
mod restored;
mod secured;
mod stalls;
mod story;
mod tls_rolls;
mod topology;
mod traced;
mod upgrade;
mod watching;
