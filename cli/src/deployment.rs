//! Tests of deploy/: what can be known about those files without a container engine. Commands are read by this binary's own parser,
//! variables and configuration files by its own layers, and what has to agree between two places does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use clap::CommandFactory as _;
use serde_yaml_ng::Value;

use crate::args::{self, CommandLine};
use crate::serve::layers::{self, FileLayer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a file, merge keys resolved.
fn documents(path: &str) -> Vec<Value> {
    let text = text(path);
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| {
        let mut value: Value = serde::Deserialize::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        value
    });
    documents.collect()
}

fn words(value: &Value) -> Vec<String> {
    let items = value.as_sequence().unwrap_or_else(|| panic!("{value:?} is no list"));
    items.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

/// The matches of `serve`, if this binary takes the command line.
fn serve(arguments: &[String]) -> clap::ArgMatches {
    let line = std::iter::once("bellwether").chain(arguments.iter().map(String::as_str));
    let matches = CommandLine::command()
        .try_get_matches_from(line)
        .unwrap_or_else(|error| panic!("{arguments:?}: {}", args::words_of(&error)));
    matches.subcommand_matches("serve").expect("it is serve").clone()
}

/// As flags, so that values are judged, too.
fn flags_of_variables<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let keys = layers::keys();
    let flag = |(variable, value): (&str, &str)| {
        let key = keys.iter().find(|key| layers::variable_of(key) == variable);
        let key = key.unwrap_or_else(|| panic!("{variable} is no variable of this binary"));
        format!("--{key}={value}")
    };
    variables.map(flag).collect()
}

fn port(matches: &clap::ArgMatches, id: &str) -> u64 {
    let address: &String = matches.get_one(id).unwrap_or_else(|| panic!("{id} is not set"));
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// What a stopping broker may take, unless told otherwise.
fn drain_timeout() -> Duration {
    bellwether_broker::config::Timing::default().drain_timeout
}

/// `NAME=value` of the image's ENV.
fn image_variables(dockerfile: &str) -> Vec<(String, String)> {
    let assigned = dockerfile.split_whitespace().filter_map(|word| word.split_once('='));
    let ours = assigned.filter(|(name, _)| name.starts_with("BELLWETHER_"));
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_image_starts_a_broker_as_nobody_in_particular_on_the_ports_that_it_exposes() {
    let dockerfile = text("deploy/Dockerfile");
    let variables = image_variables(&dockerfile);
    let mut line = vec!["serve".to_owned()];
    line.extend(flags_of_variables(variables.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
    let matches = serve(&line);
    let ports: BTreeSet<u64> =
        ["listen", "peer_listen", "admin_listen"].map(|id| port(&matches, id)).into();
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    let exposed: BTreeSet<u64> = exposed.split(' ').map(|port| port.parse().unwrap()).collect();
    assert_eq!(exposed, ports);
    let admin = port(&matches, "admin_listen");
    assert!(dockerfile.contains(&format!("http://127.0.0.1:{admin}/readyz")));
    let user = dockerfile.lines().rfind(|line| line.starts_with("USER ")).unwrap();
    assert_eq!(user, "USER 10001:10001");
    let entry = dockerfile.lines().find(|line| line.starts_with("COPY --from=build")).unwrap();
    assert!(entry.ends_with("/usr/bin/bellwether"), "{entry}");
    assert!(dockerfile.contains("ENTRYPOINT [\"/usr/bin/bellwether\"]\nCMD [\"serve\"]"));
}

#[test]
fn compose_names_only_what_there_is_and_publishes_the_ports_that_brokers_listen_on() {
    let compose = documents("deploy/compose.yaml").remove(0);
    let services = compose["services"].as_mapping().unwrap();
    let volumes = compose["volumes"].as_mapping().unwrap();
    let image = image_variables(&text("deploy/Dockerfile"));
    let mut brokers = BTreeSet::new();
    for (name, service) in services {
        let name = name.as_str().unwrap();
        for volume in words(&service["volumes"]) {
            let (source, _) = volume.split_once(':').unwrap();
            assert!(volumes.contains_key(source), "{name}: volume {source}");
        }
        if name.starts_with("zk") {
            continue;
        }
        let context = root().join("deploy").join(service["build"]["context"].as_str().unwrap());
        assert!(context.join(service["build"]["dockerfile"].as_str().unwrap()).is_file());
        for (needed, _) in service["depends_on"].as_mapping().unwrap() {
            assert!(services.contains_key(needed), "{name} depends on {needed:?}");
        }
        // A flag stands above a variable of the same name.
        let mut line = words(&service["command"]);
        let environment = service["environment"].as_mapping().unwrap();
        let given = environment.iter().map(|(n, v)| (n.as_str().unwrap(), v.as_str().unwrap()));
        let image = image.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let flags = flags_of_variables(given.chain(image));
        let said: Vec<String> =
            line.iter().filter(|word| word.starts_with("--")).cloned().collect();
        line.extend(flags.into_iter().filter(|flag| {
            let (flag, _) = flag.split_once('=').unwrap();
            !said.iter().any(|said| said == flag)
        }));
        let matches = serve(&line);
        assert!(brokers.insert(*matches.get_one::<u32>("id").unwrap()), "{name}: a number twice");
        let published = words(&service["ports"]).remove(0);
        let mut parts = published.rsplit(':');
        let inside: u64 = parts.next().unwrap().parse().unwrap();
        let outside: u64 = parts.next().unwrap().parse().unwrap();
        assert_eq!(inside, port(&matches, "listen"), "{name}");
        assert_eq!(outside, port(&matches, "advertise"), "{name}: clients are told this port");
        assert_eq!(matches.get_one::<String>("peer_advertise").unwrap(), name);
        let grace: crate::values::Span =
            service["stop_grace_period"].as_str().unwrap().parse().unwrap();
        assert!(grace.0 > drain_timeout(), "{name} is killed while it hands over");
        let ensemble: &String = matches.get_one("zookeeper").unwrap();
        for server in ensemble.split('/').next().unwrap().split(',') {
            let (host, port) = server.split_once(':').unwrap();
            assert!(services.contains_key(host) && port == "2181", "{server}");
        }
    }
    assert_eq!(brokers, BTreeSet::from([1, 2, 3]));
}

#[test]
fn the_configuration_file_of_the_package_is_understood_also_with_its_examples() {
    let written = text("deploy/bellwether.toml");
    let example =
        |line: &str| line.strip_prefix("# ").filter(|line| line.contains(" = ")).map(str::to_owned);
    let whole: Vec<String> =
        written.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
    for text in [written.clone(), whole.join("\n")] {
        let file = FileLayer::parse(Path::new("bellwether.toml"), &text).unwrap();
        let command = CommandLine::command().mut_subcommand("serve", |serve| file.beneath(serve));
        command.try_get_matches_from(["bellwether", "serve"]).unwrap();
    }
}

fn unit() -> String {
    text("deploy/systemd/bellwether.service")
}

fn unit_value(unit: &str, key: &str) -> String {
    let value = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    value.unwrap_or_else(|| panic!("{key} is not set")).to_owned()
}

#[test]
fn the_unit_starts_what_the_package_installs_and_waits_for_a_hand_over() {
    let unit = unit();
    let start = unit_value(&unit, "ExecStart");
    let mut start = start.split(' ').map(str::to_owned);
    assert_eq!(start.next().unwrap(), "/usr/bin/bellwether");
    let line: Vec<String> = start.collect();
    let matches = serve(&line);
    let config: &PathBuf = matches.get_one("config").unwrap();
    let package = text("cli/Cargo.toml");
    assert!(package.contains(&format!("conf-files = [\"{}\"]", config.display())));
    assert!(package.contains("\"../deploy/bellwether.toml\", \"etc/bellwether/bellwether.toml\""));
    let seconds: u64 = unit_value(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(Duration::from_secs(seconds) > drain_timeout());
    assert_eq!(unit_value(&unit, "Type"), "notify");
    // By the shell itself: /bin/kill is a package's own, which a small Debian does without.
    assert_eq!(unit_value(&unit, "ExecReload"), "/bin/sh -c 'kill -HUP \"$MAINPID\"'");
    // A wrong configuration stays wrong however often it is read.
    assert_eq!(unit_value(&unit, "RestartPreventExitStatus"), "2");
    // The folder that the configuration names is the one that the unit lets it write to.
    assert!(text("deploy/bellwether.toml").contains("data = \"/var/lib/bellwether/"));
    assert_eq!(unit_value(&unit, "StateDirectory"), "bellwether");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if Process::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("there is no systemd-analyze here: the unit is not verified");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The program it names has to be there: the one under test stands for it.
    let program = std::env::current_exe().unwrap();
    let unit = unit().replace("/usr/bin/bellwether", program.to_str().unwrap());
    let path = folder.path().join("bellwether.service");
    std::fs::write(&path, unit).unwrap();
    let verified =
        Process::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    let about_it: Vec<&str> =
        said.lines().filter(|line| line.contains("bellwether.service")).collect();
    assert!(about_it.is_empty(), "{about_it:#?}");
}

#[test]
fn everything_that_goes_into_the_package_is_there_and_its_scripts_are_shell() {
    let manifest: toml::Table = text("cli/Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    for asset in deb["assets"].as_array().unwrap() {
        let from = asset[0].as_str().unwrap();
        if !from.starts_with("target/") {
            assert!(root().join("cli").join(from).is_file(), "{from}");
        }
    }
    let scripts = root().join("cli").join(deb["maintainer-scripts"].as_str().unwrap());
    for script in ["postinst", "postrm"] {
        let checked = Process::new("sh").arg("-n").arg(scripts.join(script)).output().unwrap();
        assert!(checked.status.success(), "{script}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    let units = root().join("cli").join(deb["systemd-units"]["unit-scripts"].as_str().unwrap());
    assert!(units.join("bellwether.service").is_file());
    let changelog = root().join("cli").join(deb["changelog"].as_str().unwrap());
    let changelog = std::fs::read_to_string(changelog).unwrap();
    let newest = format!("bellwether ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&newest), "the package's changelog begins with {newest}");
    // An upgrade of the package on all machines at once would otherwise be a restart of all brokers at once.
    for key in ["start", "restart-after-upgrade", "stop-on-upgrade"] {
        assert_eq!(deb["systemd-units"][key].as_bool(), Some(false), "{key}");
    }
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

#[test]
fn the_brokers_of_the_stateful_set_understand_what_they_are_told_and_every_port_agrees() {
    let all = documents("deploy/kubernetes/bellwether.yaml");
    let config = of_kind(&all, "ConfigMap")[0]["data"]["bellwether.toml"].as_str().unwrap();
    let file = FileLayer::parse(Path::new("bellwether.toml"), config).unwrap();
    let set = of_kind(&all, "StatefulSet")[0];
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(words(&container["command"]), ["/bin/sh", "-c"]);
    let script = words(&container["args"]).remove(0);
    // What the shell of the third pod makes of it.
    let echoed = script.replacen("exec /usr/bin/bellwether", "printf '%s\\n'", 1);
    let bash = Process::new("sh").args(["-c", &echoed]).env("HOSTNAME", "bellwether-2").output();
    let line: Vec<String> =
        String::from_utf8(bash.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
    let command = CommandLine::command().mut_subcommand("serve", |serve| file.beneath(serve));
    let line = std::iter::once("bellwether".to_owned()).chain(line);
    let matches = command.try_get_matches_from(line).unwrap();
    let matches = matches.subcommand_matches("serve").unwrap();
    assert_eq!(matches.get_one::<u32>("id"), Some(&3));

    let ports: Vec<(&str, u64)> =
        [("clients", "listen"), ("peers", "peer_listen"), ("admin", "admin_listen")]
            .map(|(name, id)| (name, port(matches, id)))
            .into();
    let declared: Vec<(&str, u64)> = container["ports"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|port| (port["name"].as_str().unwrap(), port["containerPort"].as_u64().unwrap()))
        .collect();
    assert_eq!(declared, ports);
    assert_eq!(port(matches, "advertise"), ports[0].1);
    assert_eq!(port(matches, "peer_advertise"), ports[1].1);
    for service in of_kind(&all, "Service") {
        for port in service["spec"]["ports"].as_sequence().unwrap() {
            let named = (port["targetPort"].as_str().unwrap(), port["port"].as_u64().unwrap());
            assert!(ports.contains(&named), "{named:?}");
        }
    }
    let policy = of_kind(&all, "NetworkPolicy")[0];
    for rule in policy["spec"]["ingress"].as_sequence().unwrap() {
        for port in rule["ports"].as_sequence().unwrap() {
            assert!(ports.iter().any(|(_, known)| Some(*known) == port["port"].as_u64()));
        }
    }
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    // Waiting before the signal is part of it.
    assert!(Duration::from_secs(grace - 3) > drain_timeout());
    // The journal lies in what is mounted for it.
    let data: &PathBuf = matches.get_one("data").unwrap();
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let mounted = |name: &str| mounts.iter().find(|mount| mount["name"] == name).unwrap();
    assert!(data.starts_with(mounted("data")["mountPath"].as_str().unwrap()));
    let config: &PathBuf = matches.get_one("config").unwrap();
    assert_eq!(config.parent().unwrap().to_str(), mounted("config")["mountPath"].as_str());
}

#[test]
fn what_selects_brokers_in_kubernetes_selects_the_pods_of_the_stateful_set() {
    let all = documents("deploy/kubernetes/bellwether.yaml");
    let set = of_kind(&all, "StatefulSet")[0];
    let labels = set["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(set["spec"]["selector"]["matchLabels"], labels);
    for service in of_kind(&all, "Service") {
        assert_eq!(service["spec"]["selector"], labels);
    }
    assert_eq!(of_kind(&all, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(of_kind(&all, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"], labels);
    let headless = set["spec"]["serviceName"].as_str().unwrap();
    let service =
        of_kind(&all, "Service").into_iter().find(|one| one["metadata"]["name"] == headless);
    let service = service.expect("the set's service is there");
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    let args = set["spec"]["template"]["spec"]["containers"][0]["args"][0].as_str().unwrap();
    let namespace = set["metadata"]["namespace"].as_str().unwrap();
    assert!(args.contains(&format!(".{headless}.{namespace}.svc.cluster.local")));
}
