//! The network of a cluster: a link from each broker to each other broker and to each server of the ensemble, all of which can be
//! broken by themselves. Brokers take them because of the detour shim and know nothing of it. Clients reach brokers without it.

mod link;
mod relay;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use link::{Lane, Link, Weather};

/// Who is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// By its number.
    Broker(u32),
    /// Of the ensemble, from zero.
    Server(usize),
}

/// Which way something goes, seen from one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What it sends.
    Out,
    /// What is sent to it.
    In,
}

/// All the links.
#[derive(Debug)]
pub struct Network {
    folder: PathBuf,
    stations: Vec<(Station, u16)>,
    links: Vec<(Station, Station, Link)>,
}

impl Network {
    /// Nobody yet. What the shims are told lies in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Network {
        Network { folder: folder.to_owned(), stations: Vec::new(), links: Vec::new() }
    }

    /// One more that listens on `port` of loopback: links from all brokers to it, and from it, if it is a broker, to all others.
    pub fn join(&mut self, newcomer: Station, port: u16) -> Result<()> {
        for &(other, at) in &self.stations {
            if matches!(other, Station::Broker(_)) {
                self.links.push((other, newcomer, Link::to(port)?));
            }
            if matches!(newcomer, Station::Broker(_)) {
                self.links.push((newcomer, other, Link::to(at)?));
            }
        }
        self.stations.push((newcomer, port));
        for (station, _) in &self.stations {
            if let Station::Broker(id) = station {
                self.write_detours(*id)?;
            }
        }
        Ok(())
    }

    /// Gone for good.
    pub fn leave(&mut self, gone: Station) {
        self.stations.retain(|(station, _)| *station != gone);
        self.links.retain(|(from, to, _)| *from != gone && *to != gone);
    }

    /// Changes the lane from `broker`, or to it, on every link between it and those that `others` names, whoever of them connects.
    pub fn change(
        &self,
        broker: u32,
        others: impl Fn(Station) -> bool,
        direction: Direction,
        change: impl Fn(&mut Lane),
    ) {
        let broker = Station::Broker(broker);
        for (from, to, link) in &self.links {
            if *from == broker && others(*to) {
                link.change(|weather| match direction {
                    Direction::Out => change(&mut weather.there),
                    Direction::In => change(&mut weather.back),
                });
            } else if *to == broker && others(*from) {
                link.change(|weather| match direction {
                    Direction::Out => change(&mut weather.back),
                    Direction::In => change(&mut weather.there),
                });
            }
        }
    }

    /// Changes every lane there is.
    pub fn change_all(&self, change: impl Fn(&mut Lane)) {
        for (_, _, link) in &self.links {
            link.change(|weather| {
                change(&mut weather.there);
                change(&mut weather.back);
            });
        }
    }

    /// What the detour shim of a broker reads.
    #[must_use]
    pub fn detours(folder: &Path, broker: u32) -> PathBuf {
        folder.join(format!("broker-{broker}.detours"))
    }

    fn write_detours(&self, broker: u32) -> Result<()> {
        let mut lines = String::new();
        for (from, to, link) in &self.links {
            if *from == Station::Broker(broker) {
                let port = self.port(*to).context("a link to a station")?;
                lines += &format!("{port} {}\n", link.port());
            }
        }
        // Renamed into place: a broker may be reading it.
        let file = Network::detours(&self.folder, broker);
        let aside = file.with_extension("detours-aside");
        std::fs::write(&aside, lines)?;
        Ok(std::fs::rename(aside, file)?)
    }

    fn port(&self, of: Station) -> Option<u16> {
        self.stations.iter().find(|(station, _)| *station == of).map(|(_, port)| *port)
    }
}
