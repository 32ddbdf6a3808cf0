//! Bad arguments and bad configurations get a clear error, exit code 2, and nothing is tried.

use std::path::PathBuf;
use std::process::{Command, Output};

fn bellwether(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWETHER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    let output = bellwether(arguments, environment);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} {environment:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

/// A configuration file that is removed at the end.
struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.toml");
        std::fs::write(&path, text).unwrap();
        File { path, _folder: folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

const GOOD: [&str; 5] = ["serve", "--id", "1", "--zookeeper", "127.0.0.1:1"];

fn serve<'a>(more: &[&'a str]) -> Vec<&'a str> {
    GOOD.iter().chain(more).copied().collect()
}

#[test]
fn a_broker_needs_a_number_and_an_ensemble() {
    refused(&["serve", "--zookeeper", "h:1"], &[], &["no number", "--id N", "BELLWETHER_ID"]);
    refused(
        &["serve", "--id", "1"],
        &[],
        &["no ZooKeeper ensemble", "--zookeeper", "bellwether dev"],
    );
    refused(&["serve", "--id", "1", "--zookeeper", "h:x/y"], &[], &["--zookeeper", "no port"]);
}

#[test]
fn addresses_that_would_not_work_or_would_be_open_to_all_are_refused() {
    refused(&serve(&["--listen", "0.0.0.0:7400"]), &[], &["--listen 0.0.0.0:7400", "--insecure"]);
    refused(&serve(&["--listen", "0.0.0.0:7400", "--insecure"]), &[], &["--advertise HOST[:PORT]"]);
    refused(
        &serve(&["--peer-listen", "[::]:7401", "--insecure"]),
        &[],
        &["--peer-advertise HOST[:PORT]"],
    );
    for word in [&[][..], &["--insecure"]] {
        let admin = [&["--admin-listen", "0.0.0.0:7402"], word].concat();
        refused(&serve(&admin), &[], &["--admin-listen 0.0.0.0:7402", "--admin-insecure"]);
    }
    let peer = ["--peer-listen", "0.0.0.0:7401", "--peer-advertise", "h"];
    refused(
        &serve(&[&peer[..], &["--login", "required", "--insecure"]].concat()),
        &[],
        &["--peer-listen 0.0.0.0:7401", "--peer-tls-cert FILE"],
    );
    refused(&serve(&[&peer[..], &["--admin-insecure"]].concat()), &[], &["--peer-tls-cert FILE"]);
    refused(
        &serve(&["--listen", "0.0.0.0:7400", "--advertise", "h", "--login", "off"]),
        &[],
        &["--tls-cert FILE", "--insecure"],
    );
    refused(&serve(&["--listen", "7400"]), &[], &["--listen 7400", "write it like"]);
}

#[test]
fn a_value_out_of_its_bounds_is_named_with_what_is_allowed() {
    refused(&serve(&["--login", "maybe"]), &[], &["--login", "required, off"]);
    refused(&serve(&["--promise", "2s"]), &[], &["promise", "500ms"]);
    refused(&serve(&["--session-timeout-ms", "5"]), &[], &["session-timeout-ms", "400ms"]);
    refused(&serve(&["--segment-bytes", "1MiB"]), &[], &["segment-bytes"]);
    refused(&serve(&["--cache-bytes", "lots"]), &[], &["--cache-bytes", "64KiB"]);
    refused(&serve(&["--drain-timeout", "30"]), &[], &["--drain-timeout", "300ms, 30s"]);
    refused(&serve(&["--log", "wibble=loud"]), &[], &["--log wibble=loud"]);
}

#[test]
fn a_mistake_in_the_file_is_named_with_the_file_and_a_suggestion() {
    let typo = File::new("sesion-timeout-ms = 2000\n");
    refused(
        &serve(&["--config", typo.path()]),
        &[],
        &[typo.path(), "did you mean \"session-timeout-ms\"?"],
    );
    let value = File::new("session-timeout-ms = \"soon\"\n");
    refused(
        &serve(&["--config", value.path()]),
        &[],
        &[value.path(), "soon", "session-timeout-ms"],
    );
    refused(&serve(&["--config", "/nowhere/b.toml"]), &[], &["/nowhere/b.toml", "No such file"]);
}

#[test]
fn a_misspelt_variable_or_flag_is_refused_with_a_suggestion() {
    refused(
        &GOOD,
        &[("BELLWETHER_LISTENS", "x:1")],
        &["BELLWETHER_LISTENS", "did you mean BELLWETHER_LISTEN?"],
    );
    refused(&serve(&["--lissten", "x:1"]), &[], &["--lissten", "--listen"]);
    refused(&GOOD, &[("BELLWETHER_LAG_LIMIT", "1 parsec")], &["--lag-limit", "1 parsec"]);
}

#[test]
fn flags_override_the_environment_and_that_overrides_the_file() {
    let file = File::new(
        "id = 7\nlisten = \"127.0.0.1:1\"\npeer-listen = \"127.0.0.1:2\"\nadmin-listen = \"127.0.0.1:3\"\n",
    );
    let environment =
        [("BELLWETHER_PEER_LISTEN", "127.0.0.1:22"), ("BELLWETHER_ADMIN_LISTEN", "127.0.0.1:33")];
    let arguments = [
        "serve",
        "--config",
        file.path(),
        "--admin-listen",
        "127.0.0.1:333",
        "--print-config",
        "--zookeeper-auth",
        "u:pw",
    ];
    let output = bellwether(&arguments, &environment);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "id = 7 # file",
        "listen = \"127.0.0.1:1\" # file",
        "peer-listen = \"127.0.0.1:22\" # environment",
        "admin-listen = \"127.0.0.1:333\" # flag",
        "session-timeout-ms = 6000 # default",
        "segment-bytes = \"64MiB\" # default",
        "insecure = false # default",
        "# zookeeper is not set",
        "# zookeeper-auth is set and not shown (from the flag)",
    ] {
        assert!(printed.lines().any(|found| found == line), "{line:?} is missing in\n{printed}");
    }
    assert!(!printed.contains("u:pw"));
    // What was printed is a configuration file that says the same.
    let again = File::new(&printed);
    let output = bellwether(&["serve", "--config", again.path(), "--print-config"], &[]);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("admin-listen = \"127.0.0.1:333\" # file")
    );
}

#[test]
fn client_commands_say_what_is_wrong_with_their_arguments() {
    refused(&["publish", "hello"], &[], &["--queue", "--exchange"]);
    refused(&["publish", "--queue", "q", "--exchange", "e", "x"], &[], &["cannot be used with"]);
    refused(&["publish", "--queue", "q", "--header", "novalue", "x"], &[], &["NAME=VALUE"]);
    refused(&["publish", "--queue", "q", "--count", "0x"], &[], &["--count"]);
    refused(&["publish", "--queue", "", "x"], &[], &["queue name may not be empty"]);
    refused(&["consume", "q", "--count", "1", "--follow"], &[], &["cannot be used with"]);
    refused(&["queue", "declare", "q", "--replicas", "9"], &[], &["9 is not in 1..=7"]);
    refused(&["exchange", "declare", "e", "--kind", "topic"], &[], &["direct, fanout"]);
    refused(&["queue", "list", "--connect", "nowhere"], &[], &["host:port"]);
    refused(&["queue", "list", "--password-file", "p"], &[], &["--password-file needs --user"]);
    refused(&["queue", "list", "--user", "u", "--password-file", "/no/p"], &[], &["/no/p"]);
    refused(&["user", "add", "u", "--tag", "king"], &[], &["administrator, monitoring"]);
    refused(&["user", "delete", "u", "--zookeeper", "h:x"], &[], &["--zookeeper", "no port"]);
    refused(&["demo", "--brokers", "2"], &[], &["2 is not in 3..=9"]);
    refused(&[], &[], &["Usage"]);
}

#[test]
fn nobody_there_is_not_done_and_not_unknown() {
    // Port 1 of loopback: nothing listens there, and nobody may without being root.
    let output =
        bellwether(&["queue", "list", "--connect", "127.0.0.1:1", "--timeout", "300ms"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no broker could be reached"));
    let nowhere = ["user", "list", "--zookeeper", "127.0.0.1:1", "--timeout", "300ms"];
    assert_eq!(bellwether(&nowhere, &[]).status.code(), Some(1));
}

#[test]
fn the_help_tells_the_exit_codes() {
    let output = bellwether(&["--help"], &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("Exit codes:") && help.contains("3  unknown"));
}
