//! One broker process of a local cluster. It cannot outlive its starter, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::outcome::Failure;
use crate::serve::ready::Ready;

/// A broker that is not ready after so long has failed: its recovery and the end of its former session included.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How much of a broker's log is shown when it fails, in bytes.
const TAIL_BYTES: u64 = 4_000;
/// What a stopping broker gets to hand its queues over: everything here stops at once, so there may be nobody to take them.
pub const DRAIN: Duration = Duration::from_secs(1);

/// How a broker is started, the first time and after it was killed.
#[derive(Clone, Debug)]
pub struct BrokerSpec {
    pub id: u32,
    pub listen: String,
    pub peer_listen: String,
    pub admin_listen: String,
    pub data: PathBuf,
    pub log: PathBuf,
    pub coordinator: String,
    pub session_timeout: Duration,
}

/// A broker that was started. Dropping it kills it.
#[derive(Debug)]
pub struct BrokerProcess {
    child: Child,
    /// Held open for as long as we live: the broker ends when it closes.
    _lifeline: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl BrokerProcess {
    /// Starts a broker.
    pub fn start(spec: &BrokerSpec) -> Result<BrokerProcess, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::NotDone(format!("cannot start broker {}: {error}", spec.id))
        };
        let mut options = OpenOptions::new();
        let log = options.create(true).append(true).mode(0o600).open(&spec.log).map_err(cannot)?;
        let mut child = command(spec, log).map_err(cannot)?.spawn().map_err(cannot)?;
        let lifeline = child.stdin.take().expect("its standard input is piped");
        let output = child.stdout.take().expect("its standard output is piped");
        Ok(BrokerProcess { child, _lifeline: lifeline, output: BufReader::new(output).lines() })
    }

    /// Waits until it is ready; where it is reached then.
    pub async fn ready(&mut self, spec: &BrokerSpec) -> Result<Ready, Failure> {
        let why = match timeout(READY_WITHIN, self.ready_line()).await {
            Ok(Ok(Some(ready))) => return Ok(ready),
            Ok(Ok(None)) => format!("it ended with {}", self.ended().await),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was not ready within {READY_WITHIN:?}"),
        };
        let (id, log, tail) = (spec.id, spec.log.display(), tail(&spec.log));
        Err(Failure::NotDone(format!(
            "broker {id} did not start: {why}. Its log, {log}, ends:\n{tail}"
        )))
    }

    async fn ready_line(&mut self) -> std::io::Result<Option<Ready>> {
        while let Some(line) = self.output.next_line().await? {
            if let Ok(ready) = line.parse() {
                return Ok(Some(ready));
            }
        }
        Ok(None)
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to stop; kills it when it takes too long.
    pub async fn stop(&mut self) {
        self.terminate();
        // Handing over, closing files and leaving the coordinator.
        if timeout(DRAIN + Duration::from_secs(4), self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            eprintln!("warning: a broker could not be killed: {error}");
        }
    }

    fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // It may be gone already, and that is what was wanted.
        let _gone = pid.map(|pid| kill_process(pid, Signal::TERM));
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

fn command(spec: &BrokerSpec, log: File) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    // Settings meant for a broker of the user's are none for these.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER_") {
            command.env_remove(name);
        }
    }
    command
        .args(["serve", "--exit-with-stdin", "--id", &spec.id.to_string()])
        .args([
            "--listen",
            &spec.listen,
            "--peer-listen",
            &spec.peer_listen,
            "--admin-listen",
            &spec.admin_listen,
        ])
        .args(["--embedded-coordinator", &spec.coordinator])
        .args(["--session-timeout-ms", &spec.session_timeout.as_millis().to_string()])
        .args(["--drain-timeout", &format!("{}ms", DRAIN.as_millis())])
        .arg("--data")
        .arg(&spec.data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // A group of its own: Ctrl-C in the terminal is for the starter, which then stops its brokers itself.
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    read().unwrap_or_else(|error| format!("(cannot be read: {error})"))
}
