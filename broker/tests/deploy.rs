//! What deploy/ holds for those who watch: alert rules and a board that name only metrics and labels that there are, and for
//! each alert a place in the handbook.

use std::collections::{BTreeSet, HashMap};

use bellwether_broker::metrics::{Kind, families};
use serde::Deserialize;

const RULES: &str = include_str!("../../deploy/alerts.yml");
const BOARD: &str = include_str!("../../deploy/grafana.json");
const HANDBOOK: &str = include_str!("../../docs/operations.md");

/// What Prometheus itself adds to every series.
const SCRAPED: [&str; 2] = ["job", "instance"];
const FUNCTIONS: [&str; 10] = [
    "sum",
    "max",
    "count",
    "topk",
    "rate",
    "increase",
    "histogram_quantile",
    "predict_linear",
    "label_values",
    "by",
];
const OPERATORS: [&str; 3] = ["and", "or", "unless"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    _lasting: String,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_yaml_ng::from_str(RULES).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Every name that can be asked for, with its labels.
fn series() -> HashMap<String, BTreeSet<&'static str>> {
    let mut series = HashMap::from([("up".to_owned(), BTreeSet::from(SCRAPED))]);
    for family in families() {
        let labels: BTreeSet<_> = family.labels.iter().copied().chain(SCRAPED).collect();
        if family.kind == Kind::Histogram {
            let with_bound = labels.iter().copied().chain(["le"]).collect();
            series.insert(format!("{}_bucket", family.name), with_bound);
            series.insert(format!("{}_sum", family.name), labels.clone());
            series.insert(format!("{}_count", family.name), labels);
        } else {
            series.insert(family.name.to_owned(), labels);
        }
    }
    series
}

/// An expression cut into names and single signs; texts, numbers and ranges of time are dropped.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '"' => while rest.next().is_some_and(|next| next != '"') {},
            '[' => while rest.next().is_some_and(|next| next != ']') {},
            letter if letter.is_ascii_alphabetic() || letter == '_' || letter == '$' => {
                let mut name = letter.to_string();
                while let Some(next) =
                    rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_')
                {
                    name.push(next);
                }
                tokens.push(name);
            }
            space if space.is_whitespace() || space.is_ascii_digit() || space == '.' => {}
            sign => tokens.push(sign.to_string()),
        }
    }
    tokens
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// What an expression asks for that there is not. Says the labels that its result may have, too.
fn judge(expression: &str) -> (Vec<String>, BTreeSet<String>) {
    let known = series();
    let tokens = tokens(expression);
    let (mut wrong, mut labels, mut grouped) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        let next = tokens.get(at + 1).map_or("", String::as_str);
        at += 1;
        if token == "by" {
            while tokens[at] != ")" {
                if is_name(&tokens[at]) {
                    grouped.insert(tokens[at].clone());
                }
                at += 1;
            }
        } else if is_name(token) && next == "(" && !FUNCTIONS.contains(&token) {
            wrong.push(format!("the function {token}"));
        } else if let Some(its) = known.get(token) {
            labels.extend(its.iter().map(ToString::to_string));
            if next == "{" {
                while tokens[at] != "}" {
                    let label = &tokens[at];
                    if is_name(label) && !its.contains(label.as_str()) {
                        wrong.push(format!("the label {label} of {token}"));
                    }
                    at += 1;
                }
            }
        } else if is_name(token) && !FUNCTIONS.contains(&token) && !OPERATORS.contains(&token) {
            wrong.push(format!("the metric {token}"));
        }
    }
    wrong.extend(grouped.difference(&labels).map(|label| format!("a group by {label}")));
    let all_in_one = ["sum(", "max(", "count("].iter().any(|begin| expression.starts_with(begin));
    let result = if grouped.is_empty() && !all_in_one { labels } else { grouped };
    (wrong, result)
}

#[test]
fn what_is_not_there_is_found() {
    let wrong = |expression: &str| judge(expression).0;
    assert_eq!(wrong("bellwether_queues_lead > 0"), ["the metric bellwether_queues_lead"]);
    assert_eq!(
        wrong("sum by (queue) (rate(bellwether_queues_led{broker=\"1\"}[5m]))"),
        ["the label broker of bellwether_queues_led", "a group by queue"]
    );
    assert_eq!(
        wrong("rate(bellwether_confirm_seconds[5m])"),
        ["the metric bellwether_confirm_seconds"]
    );
    assert_eq!(wrong("avg(up)"), ["the function avg"]);
    assert!(
        wrong("max by (le) (bellwether_confirm_seconds_bucket{job=\"x\"}) > 0.5 and up == 1")
            .is_empty()
    );
}

#[test]
fn the_alert_rules_ask_only_for_what_a_broker_shows() {
    for rule in rules() {
        let (wrong, result) = judge(&rule.expr);
        assert!(wrong.is_empty(), "{}: there is not {wrong:?}", rule.alert);
        for text in rule.annotations.values() {
            for named in text.split("$labels.").skip(1) {
                let label: String = named
                    .chars()
                    .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .collect();
                assert!(result.contains(&label), "{} has no label {label}", rule.alert);
            }
        }
    }
}

#[test]
fn the_board_asks_only_for_what_a_broker_shows() {
    let board: serde_json::Value = serde_json::from_str(BOARD).unwrap();
    let mut asked = 0;
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let (wrong, result) = judge(expression);
            assert!(wrong.is_empty(), "{}: {expression}: there is not {wrong:?}", panel["title"]);
            for named in target["legendFormat"].as_str().unwrap().split("{{").skip(1) {
                let label = named.split("}}").next().unwrap();
                assert!(
                    result.contains(label),
                    "{}: {expression} has no label {label}",
                    panel["title"]
                );
            }
            asked += 1;
        }
    }
    assert!(asked > 30, "only {asked} expressions were found on the board");
    for variable in board["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["definition"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        let (wrong, result) = judge(selector);
        assert!(wrong.is_empty() && result.contains(label), "{query}: {wrong:?}");
    }
}

#[test]
fn every_alert_says_what_is_the_matter_and_where_it_stands_what_to_do() {
    let sections: BTreeSet<&str> =
        HANDBOOK.lines().filter_map(|line| line.strip_prefix("### Bellwether")).collect();
    let mut alerts = BTreeSet::new();
    for Rule { alert, labels, annotations, .. } in &rules() {
        let name = alert.strip_prefix("Bellwether").unwrap();
        assert!(alerts.insert(name.to_owned()), "{alert} is there twice");
        assert!(["critical", "warning", "info"].contains(&labels["severity"].as_str()), "{alert}");
        assert!(
            !annotations["summary"].is_empty() && !annotations["description"].is_empty(),
            "{alert}"
        );
        let place = format!("docs/operations.md#{}", alert.to_lowercase());
        assert_eq!(annotations["runbook_url"], place, "{alert}");
    }
    let alerts: BTreeSet<&str> = alerts.iter().map(String::as_str).collect();
    assert_eq!(alerts, sections, "the rules, and the sections of docs/operations.md");
}

/// Links of the handbook to places in itself lead somewhere.
#[test]
fn the_handbooks_links_to_itself_lead_somewhere() {
    let slug = |title: &str| {
        let letters = title.trim_start_matches('#').trim().to_lowercase();
        letters
            .replace(' ', "-")
            .replace(|letter: char| !letter.is_alphanumeric() && letter != '-', "")
    };
    let places: BTreeSet<String> =
        HANDBOOK.lines().filter(|line| line.starts_with('#')).map(slug).collect();
    for link in HANDBOOK.split("](#").skip(1) {
        let place = link.split(')').next().unwrap();
        assert!(places.contains(place), "there is no #{place}");
    }
}
