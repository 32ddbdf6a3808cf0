//! Whoever watches sees what is the case: scrapes of real brokers, judged by Prometheus' own tool and by the alert rules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bellwether_integration_tests::eventually::eventually;
use serde_json::{Value, json};

use super::story::{PATIENCE, Story};

const QUEUE: &str = "orders";
/// Minutes of the time that the rules are tried in: how long all is well, and how long a fault lasts.
const WELL: usize = 20;
const AFTER: usize = 40;

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/alerts.yml").canonicalize().unwrap()
}

/// Runs `promtool` (integration-tests/install.sh gets it); what it says when it finds fault is the error.
fn promtool(arguments: &[&str], input: Option<&str>) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running =
        command.spawn().context("promtool is missing: run integration-tests/install.sh")?;
    let mut stdin = running.stdin.take().context("no standard input")?;
    std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes())?;
    drop(stdin);
    let done = running.wait_with_output()?;
    let said = [done.stdout, done.stderr].concat();
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

/// One broker's page: values by name and labels as they stand there, with what Prometheus adds.
fn series(broker: u32, page: &str) -> BTreeMap<String, String> {
    let mut series = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let comma = if labels == "}" { "" } else { "," };
        let scraped = format!("job=\"bellwether\",instance=\"b{broker}\"{comma}");
        series.insert(format!("{name}{{{scraped}{labels}"), value.to_owned());
    }
    series
}

/// What Prometheus would have of one broker: what it scraped while all was well, and after.
struct Scraped {
    broker: u32,
    before: [BTreeMap<String, String>; 2],
    after: Option<BTreeMap<String, String>>,
}

impl Scraped {
    /// For `promtool test rules`: two scrapes, the second one held until the fault, and what came then.
    fn input(&self) -> Vec<Value> {
        let up = format!("up{{job=\"bellwether\",instance=\"b{}\"}}", self.broker);
        let up_after = u8::from(self.after.is_some());
        let mut input = vec![json!({
            "series": up,
            "values": format!("1+0x{WELL} {up_after}+0x{AFTER}"),
        })];
        let [first, second] = &self.before;
        let names =
            first.keys().chain(second.keys()).chain(self.after.iter().flat_map(BTreeMap::keys));
        let names: std::collections::BTreeSet<&String> = names.collect();
        for name in names {
            let or_none = |value: Option<&String>| value.map_or("_".to_owned(), String::clone);
            let held = |value: Option<&String>, minutes: usize| match value {
                Some(value) => format!("{value}+0x{}", minutes - 1),
                None => format!("_x{minutes}"),
            };
            let values = format!(
                "{} {} {}",
                or_none(first.get(name)),
                held(second.get(name), WELL),
                held(self.after.as_ref().and_then(|after| after.get(name)), AFTER),
            );
            input.push(json!({ "series": name, "values": values }));
        }
        input
    }
}

fn firing(at: usize, alerts: &[&str]) -> Value {
    let samples: Vec<Value> = alerts
        .iter()
        .map(|alert| json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }))
        .collect();
    json!({
        "expr": "max by (alertname) (ALERTS{alertstate=\"firing\"})",
        "eval_time": format!("{at}m"),
        "exp_samples": samples,
    })
}

fn try_rules(folder: &Path, tests: &Value) -> Result<()> {
    let file = folder.join("rules-test.json");
    // JSON is YAML, too.
    let all = json!({ "rule_files": [rules()], "evaluation_interval": "1m", "tests": tests });
    std::fs::write(&file, all.to_string())?;
    promtool(&["test", "rules", file.to_str().context("a path")?], None)
}

impl Story {
    async fn pages(&mut self) -> Result<Vec<(u32, String)>> {
        let mut pages = Vec::new();
        for broker in self.cluster.brokers().iter().filter(|broker| broker.is_running()) {
            pages.push((broker.id(), broker.page().await?));
        }
        Ok(pages)
    }

    /// Pages of the running brokers, once `facts` are to be seen on all of them, and one of these is the controller.
    async fn pages_with(&mut self, facts: &[(&str, f64)]) -> Vec<(u32, String)> {
        eventually("the metrics to show it", PATIENCE, async || {
            let pages = self.pages().await?;
            let value = |page: &str, name: &str| {
                bellwether_integration_tests::http::metric(page, name)
                    .with_context(|| name.to_owned())
            };
            let mut controllers = 0.0;
            for (broker, page) in &pages {
                controllers += value(page, "bellwether_controller")?;
                for (name, wanted) in facts {
                    let found = value(page, name)?;
                    ensure!(found == *wanted, "{name} of broker {broker} is {found}");
                }
            }
            ensure!(controllers == 1.0, "{controllers} controllers");
            Ok(pages)
        })
        .await
        .unwrap()
    }
}

const WELL_FACTS: [(&str, f64); 5] = [
    ("bellwether_queues", 1.0),
    ("bellwether_queues_without_leader", 0.0),
    ("bellwether_queues_under_replicated", 0.0),
    ("bellwether_queues_without_lease", 0.0),
    ("bellwether_coordinator_connected", 1.0),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_rules_are_silent_while_all_is_well_and_name_a_broker_that_is_lost() {
    let mut story = Story::begins().await;
    story.queue(QUEUE).await;
    let first = story.pages_with(&WELL_FACTS).await;
    story.publish(QUEUE, 200).await;
    assert_eq!(story.drain(QUEUE).await.len(), 200);
    let second = story.pages_with(&WELL_FACTS).await;
    for (broker, page) in &second {
        promtool(&["check", "metrics"], Some(page))
            .with_context(|| format!("the page of broker {broker}"))
            .unwrap();
    }

    let lost = story.cluster.kill_leader_of(QUEUE).await.unwrap();
    story.led_by_another(QUEUE, lost).await;
    let mut facts = WELL_FACTS;
    facts[2] = ("bellwether_queues_under_replicated", 1.0);
    let after = story.pages_with(&facts).await;

    let mut input = Vec::new();
    for ((broker, first), (_, second)) in first.iter().zip(&second) {
        let after = after.iter().find(|(id, _)| id == broker);
        let scraped = Scraped {
            broker: *broker,
            before: [series(*broker, first), series(*broker, second)],
            after: after.map(|(_, page)| series(*broker, page)),
        };
        input.extend(scraped.input());
    }
    let tests = json!([{
        "interval": "1m",
        "input_series": input,
        "promql_expr_test": [
            firing(WELL - 1, &[]),
            firing(WELL + AFTER - 5, &["BellwetherBrokerDown", "BellwetherQueueUnderReplicated"]),
        ],
    }]);
    try_rules(story.cluster.folder(), &tests).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_shown_by_its_leader_alone_with_all_that_went_through_it() {
    let mut story =
        Story::with_flags(&["--metrics-queues", "ord*", "--metrics-queues-max", "1"]).await;
    for queue in [QUEUE, "ordinary", "audit"] {
        story.queue(queue).await;
    }
    story.publish(QUEUE, 30).await;
    assert_eq!(story.take(QUEUE, 10).await.len(), 10);
    let leader = story.cluster.leader_of(QUEUE).await.unwrap();
    // The last acknowledgement is told after it was counted; what a consumer held returns when it has left.
    let series = eventually("the counts", PATIENCE, async || {
        let mut all = BTreeMap::new();
        for (broker, page) in story.pages().await? {
            all.extend(series(broker, &page));
        }
        let labels = format!(
            "{{job=\"bellwether\",instance=\"b{leader}\",virtual_host=\"/\",queue=\"{QUEUE}\"}}"
        );
        for (name, wanted) in [
            ("bellwether_queue_ready_messages", "20"),
            ("bellwether_queue_published_messages_total", "30"),
            ("bellwether_queue_acked_messages_total", "10"),
            ("bellwether_queue_in_sync_replicas", "3"),
        ] {
            let found = all.get(&format!("{name}{labels}"));
            ensure!(found.is_some_and(|found| found == wanted), "{name}{labels} is {found:?}");
        }
        Ok(all)
    })
    .await
    .unwrap();
    let shown = |queue: &str| {
        let label = format!("queue=\"{queue}\"");
        series
            .keys()
            .filter(|name| {
                name.starts_with("bellwether_queue_ready_messages") && name.contains(&label)
            })
            .count()
    };
    assert_eq!((shown(QUEUE), shown("audit")), (1, 0));
    let left_out: u64 = series
        .iter()
        .filter(|(name, _)| name.starts_with("bellwether_metrics_queues_left_out"))
        .map(|(_, value)| value.parse::<u64>().unwrap())
        .sum();
    assert_eq!(left_out + shown("ordinary") as u64, 1, "either shown or counted");
}

/// What makes each of the rules fire: metrics of a real page with other values. A name may end in a part of its labels.
const FIRES: [(&str, &[(&str, &str)]); 28] = [
    ("BrokerDown", &[("up", "0+0x180")]),
    ("QueueWithoutLeader", &[("bellwether_queues_without_leader", "2+0x180")]),
    ("QueueUnderReplicated", &[("bellwether_queues_under_replicated", "2+0x180")]),
    ("QueueStopped", &[("bellwether_queues_stopped", "1+0x180")]),
    ("JournalFailed", &[("bellwether_journal_failed", "1+0x180")]),
    ("DiskFull", &[("bellwether_disk_full", "1+0x180")]),
    ("DiskLow", &[("bellwether_disk_low", "1+0x180")]),
    ("DiskFillsUp", &[("bellwether_disk_free_bytes", "1000000000000-5000000000x180")]),
    (
        "SlowSyncs",
        &[
            ("bellwether_journal_sync_seconds_bucket", "0+0x180"),
            ("bellwether_journal_sync_seconds_bucket le=\"+Inf\"", "0+60x180"),
        ],
    ),
    (
        "SlowConfirms",
        &[
            ("bellwether_confirm_seconds_bucket", "0+0x180"),
            ("bellwether_confirm_seconds_bucket le=\"+Inf\"", "0+60x180"),
        ],
    ),
    ("FollowerLags", &[("bellwether_follower_lag_seconds", "45+0x180")]),
    ("InSyncSetsFlap", &[("bellwether_isr_shrinks_total", "0+1x180")]),
    ("LeadershipsFlap", &[("bellwether_elections_won_total trigger=\"leader_lost\"", "0+1x180")]),
    ("CoordinatorOutOfReach", &[("bellwether_coordinator_connected", "0+0x180")]),
    ("SessionsLost", &[("bellwether_coordinator_sessions_total", "1+1x180")]),
    (
        "CoordinatorSlow",
        &[
            ("bellwether_coordinator_request_seconds_bucket", "0+0x180"),
            (
                "bellwether_coordinator_request_seconds_bucket request=\"write\",le=\"+Inf\"",
                "0+60x180",
            ),
        ],
    ),
    ("OutcomesUnknown", &[("bellwether_unknown_messages_total", "0+10x180")]),
    ("PublishesRefused", &[("bellwether_refused_messages_total", "0+10x180")]),
    ("DeliveriesHeldBack", &[("bellwether_queues_without_lease", "3+0x180")]),
    ("NoController", &[("bellwether_controller", "0+0x180")]),
    (
        "FileDescriptorsRunOut",
        &[("process_open_fds", "95+0x180"), ("process_max_fds", "100+0x180")],
    ),
    ("ClientsTurnedAway", &[("bellwether_client_connections_refused_total", "0+1x180")]),
    ("HandshakesFail", &[("bellwether_handshakes_failed_total", "0+120x180")]),
    (
        "QueueWithoutConsumers",
        &[
            ("bellwether_queue_ready_messages", "7+0x180"),
            ("bellwether_queue_consumers", "0+0x180"),
        ],
    ),
    ("VersionsDiffer", &[("bellwether_build_info", "1+0x180")]),
    ("QueuesNotShown", &[("bellwether_metrics_queues_left_out", "12+0x180")]),
    ("LimitNear", &[("bellwether_objects kind=\"queues\"", "95000+0x180")]),
    ("ScrapesIncomplete", &[("bellwether_metrics_scrapes_without_queues_total", "0+1x180")]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_rule_fires_when_what_it_is_for_is_to_be_seen_on_a_page() {
    let mut story = Story::begins().await;
    story.queue(QUEUE).await;
    let leader = story.cluster.leader_of(QUEUE).await.unwrap();
    let pages = story.pages_with(&WELL_FACTS).await;
    let (_, page) = pages.iter().find(|(broker, _)| *broker == leader).unwrap();
    let page = format!("{page}up 1\n");
    let mut tests = Vec::new();
    for (alert, changes) in FIRES {
        let mut input = BTreeMap::new();
        for (name, value) in series(leader, &page) {
            let metric = name.split('{').next().unwrap_or_default();
            let change = changes.iter().rev().find(|(changed, _)| {
                let (changed, part) = changed.split_once(' ').unwrap_or((changed, ""));
                changed == metric && name.contains(part)
            });
            let values =
                change.map_or(format!("{value}+0x180"), |(_, values)| (*values).to_owned());
            input.insert(name, values);
        }
        for (changed, _) in changes {
            let metric = changed.split(' ').next().unwrap_or_default();
            assert!(
                input.keys().any(|name| name.starts_with(&format!("{metric}{{"))),
                "{metric} is not on the page"
            );
        }
        if alert == "VersionsDiffer" {
            let other =
                "bellwether_build_info{job=\"bellwether\",instance=\"b9\",version=\"0.0.1\"}";
            input.insert(other.to_owned(), "1+0x180".to_owned());
        }
        let input: Vec<Value> = input
            .iter()
            .map(|(name, values)| json!({ "series": name, "values": values }))
            .collect();
        let fires = format!("max(ALERTS{{alertname=\"Bellwether{alert}\",alertstate=\"firing\"}})");
        tests.push(json!({
            "interval": "1m",
            "input_series": input,
            "promql_expr_test": [{
                "expr": fires,
                "eval_time": "150m",
                "exp_samples": [{ "labels": "{}", "value": 1 }],
            }],
        }));
    }
    try_rules(story.cluster.folder(), &json!(tests)).unwrap();

    let written = std::fs::read_to_string(rules()).unwrap();
    let written: Vec<&str> = written
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: Bellwether"))
        .collect();
    assert_eq!(written, FIRES.map(|(alert, _)| alert), "every rule is tried, in its order");
}
