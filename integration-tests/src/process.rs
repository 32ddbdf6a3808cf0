//! A child process: started so that it cannot outlive the test, signalled by its own id only, its output in a file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::eventually;

/// How much of a log is shown when something fails, in bytes.
const TAIL_BYTES: u64 = 12_000;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to the end of `log`. The child dies with this process, however it ends.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Process> {
        let mut output = OpenOptions::new().create(true).append(true).open(log)?;
        writeln!(output, "---- {name}: {command:?}")?;
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            guarded.current_dir(folder);
        }
        guarded.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A group of its own: Ctrl-C in the terminal is for the test, which then ends its children itself.
        guarded.process_group(0);
        let child = spawn(guarded).with_context(|| format!("starting {name}"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: it stands still until [`Process::resume`].
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM: asks it to stop.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, within, async || self.ended()?.context("still running")).await
    }

    /// The end of what it printed.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // Once it was waited for, its id may belong to another process.
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended: {status}", self.name);
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The end of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(no log at {}: {error})", log.display()),
    }
}

type Spawn = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a child from the one thread that lives as long as this process. The system sends a child its parent's death
/// signal when the *thread* that started it ends: from a worker thread it would be killed at random.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<SyncSender<Spawn>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests): (_, Receiver<Spawn>) = sync_channel(16);
        std::thread::spawn(move || {
            for (mut command, reply) in requests {
                reply.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (reply, child) = sync_channel(1);
    spawner.send((command, reply)).context("the spawning thread is gone")?;
    Ok(child.recv().context("the spawning thread is gone")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec sleep 60"]);
        Process::start("sleeper", &command, log).unwrap()
    }

    #[tokio::test]
    async fn a_terminated_child_ends_and_what_it_printed_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = sleeper(&log);
        let printed =
            async || process.tail().ends_with("started\n").then_some(()).context("nothing yet");
        eventually("the first line", Duration::from_secs(5), printed).await.unwrap();
        process.terminate().unwrap();
        assert!(!process.end(Duration::from_secs(5)).await.unwrap().success());
        assert!(process.terminate().is_err(), "an id that was waited for is not signalled");
    }

    #[tokio::test]
    async fn a_child_started_by_a_thread_that_ends_lives_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = std::thread::scope(|scope| scope.spawn(|| sleeper(&log)).join().unwrap());
        process.pause().unwrap();
        process.resume().unwrap();
        assert_eq!(process.ended().unwrap(), None);
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(&folder.path().join("log"));
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
