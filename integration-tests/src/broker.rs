//! One broker process: its ports, its folder, its log, and what a test may do to it.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::eventually::eventually;
use crate::network::Network;
use crate::ports::Port;
use crate::preload::{Syncs, bad_disk, detour, power_loss, slow_disk, under, wrong_clock};
use crate::process::{Process, tail};
use crate::{binary, http};

/// A broker that has not come up after so long has failed: ensemble, leftovers and recovery included.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// How the brokers of a cluster are started.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Asked of the ensemble.
    pub session_timeout: Duration,
    /// Whether killing the process loses what it had not synced.
    pub power_loss: Option<Syncs>,
    /// Whether its disk can be made slow while it runs: [`Broker::disk_takes`].
    pub slow_disk: bool,
    /// Whether its disk can be made full, or bad, while it runs: [`Broker::disk_fails`].
    pub bad_disk: bool,
    /// Whether its clock of the day can be set while it runs: [`Broker::clock_is_ahead`].
    pub wrong_clock: bool,
    /// Whether it reaches others by the links of a [`Network`].
    pub detours: bool,
    /// The binary; none: the one under test.
    pub binary: Option<PathBuf>,
    /// The folder of the control group that it is to run in.
    pub control_group: Option<PathBuf>,
    /// More arguments of `serve`; `{id}` in them is the broker's number.
    pub arguments: Vec<String>,
    /// What is logged, as for `RUST_LOG`; `BROKER_LOG` in the environment changes the default.
    pub log: String,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            session_timeout: Duration::from_secs(2),
            power_loss: None,
            slow_disk: false,
            bad_disk: false,
            wrong_clock: false,
            detours: false,
            binary: None,
            control_group: None,
            arguments: Vec::new(),
            log: std::env::var("BROKER_LOG").unwrap_or_else(|_| "info".to_owned()),
        }
    }
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Nothing more is allocated.
    Full,
    /// The first sync of each file fails; later ones of that file do nothing and say that all is well.
    Syncs,
}

/// What became of syncs while they failed: paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedSyncs {
    pub failed: Vec<String>,
    pub again: Vec<String>,
}

/// A broker, running or not.
#[derive(Debug)]
pub struct Broker {
    id: u32,
    data: PathBuf,
    log: PathBuf,
    client: Port,
    peer: Port,
    admin: Port,
    zookeeper: String,
    options: BrokerOptions,
    process: Option<Process>,
    paused: bool,
}

impl Broker {
    /// A broker that is not running yet, with its data and its log below `folder`.
    pub fn new(id: u32, folder: &Path, zookeeper: &str, options: BrokerOptions) -> Result<Broker> {
        let data = folder.join(format!("broker-{id}"));
        std::fs::create_dir_all(&data)?;
        Ok(Broker {
            id,
            data,
            log: folder.join(format!("broker-{id}.log")),
            client: Port::take()?,
            peer: Port::take()?,
            admin: Port::take()?,
            zookeeper: zookeeper.to_owned(),
            options,
            process: None,
            paused: false,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> String {
        self.client.address()
    }

    /// The port where other brokers reach it.
    #[must_use]
    pub fn peer_port(&self) -> u16 {
        self.peer.number()
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether the process is there, paused or not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether the process is there and goes on.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    /// Changes what the next start does.
    pub fn options(&mut self) -> &mut BrokerOptions {
        &mut self.options
    }

    /// Another data folder for the next start.
    pub fn use_data(&mut self, data: &Path) {
        self.data = data.to_owned();
    }

    /// Starts the process on its data folder.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "broker {} is running", self.id);
        self.process =
            Some(Process::start(&format!("broker {}", self.id), &self.command()?, &self.log)?);
        self.paused = false;
        Ok(())
    }

    /// The command line it is started with.
    pub fn command(&self) -> Result<Command> {
        let binary = self.options.binary.clone().map_or_else(binary::bellwether, Ok)?;
        let mut command = match &self.options.control_group {
            None => Command::new(binary),
            Some(folder) => {
                // It enters the group before it is what it will be, so that all of its memory counts.
                let mut command = Command::new("sh");
                command
                    .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
                    .arg(folder)
                    .arg(binary);
                command
            }
        };
        command
            .args(["serve", "--id", &self.id.to_string()])
            .args(["--listen", &self.client.address()])
            .args(["--peer-listen", &self.peer.address()])
            .args(["--admin-listen", &self.admin.address()])
            .args(["--zookeeper", &self.zookeeper])
            .args(["--session-timeout-ms", &self.options.session_timeout.as_millis().to_string()])
            .arg("--data")
            .arg(&self.data)
            .args(
                self.options
                    .arguments
                    .iter()
                    .map(|argument| argument.replace("{id}", &self.id.to_string())),
            )
            .env("RUST_LOG", &self.options.log)
            // For the tests only; the broker would take it for a misspelt setting.
            .env_remove("BELLWETHER_BIN")
            .env_remove("BELLWETHER_OLD_BIN");
        let mut shims = Vec::new();
        if self.options.slow_disk {
            shims.push(slow_disk(&self.slow_disk_file())?);
        }
        if self.options.bad_disk {
            shims.push(bad_disk(&self.data.canonicalize()?, &self.bad_disk_file())?);
        }
        if self.options.wrong_clock {
            shims.push(wrong_clock(&self.clock_file())?);
        }
        if self.options.detours {
            let folder = self.log.parent().context("a log lies in a folder")?;
            shims.push(detour(&Network::detours(folder, self.id))?);
        }
        if let Some(syncs) = self.options.power_loss {
            // The shim compares paths as the kernel names them.
            shims.push(power_loss(&self.data.canonicalize()?, syncs)?);
        }
        if !shims.is_empty() {
            command.envs(under(shims));
        }
        Ok(command)
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let admin = self.admin.address();
        let process = self.process.as_mut().context("it is not running")?;
        let name = format!("broker {} to be ready", self.id);
        let ready = eventually(&name, READY_WITHIN, async || {
            if let Some(status) = process.ended()? {
                return Ok(Err(status));
            }
            match http::get(&admin, "/readyz").await? {
                (200, _) => Ok(Ok(())),
                (status, why) => bail!("it answers {status}: {why}"),
            }
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => {
                self.process = None;
                bail!("broker {} ended with {status}:\n{}", self.id, tail(&self.log))
            }
            Err(error) => Err(error.context(tail(&self.log))),
        }
    }

    /// SIGKILL; with the power-loss shim, what was not synced is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("it is not running")?.kill()
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.pause()?;
        self.paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.running()?.resume()?;
        self.paused = false;
        Ok(())
    }

    /// From now on each sync takes so much longer, also those that are under way.
    pub fn disk_takes(&mut self, longer: Duration) -> Result<()> {
        ensure!(self.options.slow_disk, "broker {} was not started for that", self.id);
        put(&self.slow_disk_file(), &longer.as_millis().to_string())
    }

    /// From now on its disk fails like this.
    pub fn disk_fails(&mut self, how: Failing) -> Result<()> {
        ensure!(self.options.bad_disk, "broker {} was not started for that", self.id);
        let word = match how {
            Failing::Full => "full",
            Failing::Syncs => "sync",
        };
        put(&self.bad_disk_file(), word)
    }

    /// It no longer does.
    pub fn disk_is_mended(&mut self) -> Result<()> {
        take_away(&self.bad_disk_file())
    }

    /// The files of which a sync has failed, and those that were synced again although it had. The next call begins anew.
    pub fn failed_syncs(&mut self) -> Result<FailedSyncs> {
        let lines = |ending: &str| -> Result<Vec<String>> {
            let file = self.bad_disk_file().with_extension(format!("bad-disk.{ending}"));
            let told = match std::fs::read_to_string(&file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                told => told?,
            };
            take_away(&file)?;
            Ok(told.lines().map(str::to_owned).collect())
        };
        Ok(FailedSyncs { failed: lines("failed")?, again: lines("again")? })
    }

    /// From now on its clock of the day is ahead by so much; below zero: behind.
    pub fn clock_is_ahead(&mut self, milliseconds: i64) -> Result<()> {
        ensure!(self.options.wrong_clock, "broker {} was not started for that", self.id);
        put(&self.clock_file(), &milliseconds.to_string())
    }

    /// Its clock is right.
    pub fn clock_is_right(&mut self) -> Result<()> {
        take_away(&self.clock_file())
    }

    /// No sync returns until [`Broker::disk_is_well`].
    pub fn disk_stalls(&mut self) -> Result<()> {
        self.disk_takes(FOR_EVER)
    }

    /// Syncs take no longer than they do, also those that waited.
    pub fn disk_is_well(&mut self) -> Result<()> {
        take_away(&self.slow_disk_file())
    }

    fn slow_disk_file(&self) -> PathBuf {
        self.log.with_extension("slow")
    }

    fn bad_disk_file(&self) -> PathBuf {
        self.log.with_extension("bad-disk")
    }

    fn clock_file(&self) -> PathBuf {
        self.log.with_extension("clock")
    }

    /// SIGTERM: asks it to hand over and stop.
    pub fn terminate(&mut self) -> Result<()> {
        self.running()?.terminate()
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let status = self.running()?.end(within).await.with_context(|| tail(&self.log))?;
        self.process = None;
        Ok(status)
    }

    /// Empties its data folder, as a new disk would.
    pub fn wipe(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "broker {} is running", self.id);
        std::fs::remove_dir_all(&self.data)?;
        std::fs::create_dir_all(&self.data)?;
        Ok(())
    }

    /// Turns a bit of this text where it lies in the journal, as a disk that goes bad does. The broker may be running.
    pub fn turn_a_bit_of(&self, text: &[u8]) -> Result<()> {
        for entry in std::fs::read_dir(&self.data)? {
            let path = entry?.path();
            let is_segment =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"));
            if !is_segment {
                continue;
            }
            let stored = std::fs::read(&path)?;
            let found = stored.windows(text.len()).position(|window| window == text);
            if let Some(at) = found {
                let file = std::fs::OpenOptions::new().write(true).open(&path)?;
                file.write_all_at(&[text[0] ^ 1], at as u64)?;
                return Ok(());
            }
        }
        bail!("broker {} has no such text in its journal", self.id)
    }

    /// What it answers to a scrape.
    pub async fn page(&self) -> Result<String> {
        let (status, page) = http::get(&self.admin.address(), "/metrics").await?;
        ensure!(status == 200, "broker {} answers {status}: {page}", self.id);
        Ok(page)
    }

    /// The value of one of its metrics.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let page = self.page().await?;
        http::metric(&page, name).with_context(|| format!("no metric {name}"))
    }

    /// Its process.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it is not running")?.id())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let id = self.process_id()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Bytes that its data folder occupies on the disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        occupied(&self.data)
    }

    /// Processor time that it has used since it was started.
    pub fn cpu_time(&self) -> Result<Duration> {
        let id = self.process_id()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // Behind the name, which may hold anything, in brackets: user and system time are the 14th and 15th field of all.
        let behind = stat.rsplit_once(')').context("no name in stat")?.1;
        let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        // Linux counts them in hundredths of a second, whatever its own clock.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Everything it has logged.
    pub fn logged(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("broker {} is not running", self.id))
    }
}

/// What a shim reads changes at once and as a whole.
fn put(file: &Path, text: &str) -> Result<()> {
    let mut aside = file.as_os_str().to_owned();
    aside.push("-aside");
    std::fs::write(&aside, text)?;
    Ok(std::fs::rename(aside, file)?)
}

fn take_away(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn occupied(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go while the broker cleans up.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { occupied(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
