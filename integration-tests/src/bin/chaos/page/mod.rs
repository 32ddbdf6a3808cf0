//! A run on one page of HTML that needs nothing else: what flowed, what went wrong meanwhile, who led, and the verdict.

mod chart;

use std::fmt::Write;
use std::time::Duration;

use bellwether_integration_tests::checker::Verdict;
use bellwether_integration_tests::timeline::{Flowed, Timeline};
use chart::{Axis, Line, Scale, colour, escaped};

use crate::leaders::Reign;
use crate::report::{Row, Table};

/// Points of a line: more than that would not be seen.
const POINTS_MAX: usize = 600;

/// A fault, from its beginning until everything flowed again.
#[derive(Clone, Debug)]
pub struct Band {
    pub from: Duration,
    pub to: Duration,
    pub words: String,
}

/// What is shown.
pub struct Page<'a> {
    /// Seed, brokers, faults: in words.
    pub facts: String,
    pub timeline: &'a Timeline,
    pub bands: &'a [Band],
    pub queues: &'a [String],
    pub reigns: &'a [Reign],
    pub table: &'a Table,
    pub verdict: &'a Verdict,
}

impl Page<'_> {
    /// The whole of it.
    pub fn html(&self) -> String {
        let (spans, length) = self.timeline.spans(POINTS_MAX);
        let axis = Axis { seconds: spans.len() as f64 * length as f64 };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Chaos: {title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<h1>Bellwether under chaos</h1>\n<p class=\"facts\">{facts}</p>\n\
             {verdict}{counts}<h2>Messages a second</h2>\n{throughput}{throughput_key}<h2>Time to a confirm</h2>\n{latency}{latency_key}\
             <h2>Who led</h2>\n{leaders}{leaders_key}{faults}{list}</body>\n</html>\n",
            title =
                if self.verdict.is_clean() { "every promise kept" } else { "a promise was broken" },
            style = include_str!("style.css"),
            facts = escaped(&self.facts),
            verdict = self.words(),
            counts = self.counts(),
            throughput =
                chart::lines(axis, self.bands, Scale::FromZero, "/s", &throughput(&spans, length)),
            throughput_key = key(&[
                ("var(--confirm)", "confirmed".to_owned()),
                ("var(--deliver)", "delivered".to_owned()),
                ("var(--edge)", "a fault, until everything flows again".to_owned())
            ]),
            latency =
                chart::lines(axis, self.bands, Scale::Logarithmic, "ms", &latency(&spans, length)),
            latency_key =
                key(&[("var(--p50)", "median".to_owned()), ("var(--p99)", "99 of 100".to_owned())]),
            leaders = chart::rows(axis, self.bands, self.queues, self.reigns),
            leaders_key = self.brokers(),
            faults = self.faults(),
            list = self.list(),
        )
    }

    fn words(&self) -> String {
        if self.verdict.is_clean() {
            return "<p class=\"verdict good\">Every promise was kept.</p>\n".to_owned();
        }
        let kinds: Vec<String> = self
            .verdict
            .violations
            .iter()
            .map(|(kind, times)| format!("{} {times}", kind.replace('_', " ")))
            .collect();
        let mut words =
            format!("<p class=\"verdict bad\">Broken promises: {}.</p>\n<pre>", kinds.join(", "));
        for evidence in self.verdict.evidence.iter().take(20) {
            words += &escaped(evidence);
            words.push('\n');
        }
        words + "</pre>\n"
    }

    fn counts(&self) -> String {
        let verdict = self.verdict;
        let counts = [
            ("published", verdict.published),
            ("confirmed", verdict.confirmed),
            ("refused", verdict.refused),
            ("unknown", verdict.unknown),
            ("delivered", verdict.deliveries),
            ("of them again", verdict.redeliveries),
            ("settled", verdict.settled),
            ("settles not done", verdict.settles_failed),
        ];
        let cells: String = counts
            .iter()
            .map(|(name, count)| format!("<div><b>{count}</b><span>{name}</span></div>"))
            .collect();
        format!("<div class=\"counts\">{cells}</div>\n")
    }

    fn brokers(&self) -> String {
        let mut brokers: Vec<u32> = self.reigns.iter().filter_map(|reign| reign.leader).collect();
        brokers.sort_unstable();
        brokers.dedup();
        let keys: Vec<(&str, String)> =
            brokers.into_iter().map(|id| (colour(id), format!("broker {id}"))).collect();
        key(&keys)
    }

    fn faults(&self) -> String {
        let rows = self.table.rows();
        if rows.is_empty() {
            return String::new();
        }
        let mut table = "<h2>Longest gaps, in milliseconds</h2>\n<table><tr><th>fault</th><th>times</th><th>confirms, median</th><th>worst</th><th>deliveries, median</th><th>worst</th></tr>\n".to_owned();
        for Row {
            fault,
            times,
            confirm_gap_median_ms,
            confirm_gap_worst_ms,
            delivery_gap_median_ms,
            delivery_gap_worst_ms,
        } in rows
        {
            writeln!(table, "<tr><td>{fault}</td><td>{times}</td><td>{confirm_gap_median_ms}</td><td>{confirm_gap_worst_ms}</td><td>{delivery_gap_median_ms}</td><td>{delivery_gap_worst_ms}</td></tr>").expect("a string takes everything");
        }
        table + "</table>\n"
    }

    fn list(&self) -> String {
        if self.bands.is_empty() {
            return String::new();
        }
        let lines: String = self
            .bands
            .iter()
            .map(|band| {
                format!(
                    "<li>{}, {:.1} s to {:.1} s</li>\n",
                    escaped(&band.words),
                    band.from.as_secs_f64(),
                    band.to.as_secs_f64()
                )
            })
            .collect();
        format!("<h2>What went wrong</h2>\n<ol>\n{lines}</ol>\n")
    }
}

fn throughput(spans: &[Flowed], length: u64) -> [Line; 2] {
    let line = |class, of: fn(&Flowed) -> u64| Line {
        class,
        points: over_time(spans, length, |span| Some(of(span) as f64 / length as f64)),
    };
    [line("deliver", |span| span.deliveries), line("confirm", |span| span.confirms)]
}

fn latency(spans: &[Flowed], length: u64) -> [Line; 2] {
    let line = |class, part| Line {
        class,
        points: over_time(spans, length, |span| {
            span.latencies.quantile(part).map(|took| took.as_secs_f64() * 1_000.0)
        }),
    };
    [line("p99", 0.99), line("p50", 0.5)]
}

fn over_time(
    spans: &[Flowed],
    length: u64,
    value: impl Fn(&Flowed) -> Option<f64>,
) -> Vec<(f64, Option<f64>)> {
    let middle = |at: usize| (at as f64 + 0.5) * length as f64;
    spans.iter().enumerate().map(|(at, span)| (middle(at), value(span))).collect()
}

fn key(entries: &[(&str, String)]) -> String {
    let words: String = entries
        .iter()
        .map(|(colour, name)| format!("<i style=\"background:{colour}\"></i>{}", escaped(name)))
        .collect();
    format!("<p class=\"key\">{words}</p>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_faults_leaders_and_verdict_and_what_is_opened_is_closed() {
        let mut timeline = Timeline::default();
        for second in 0..30 {
            timeline.confirmed(Duration::from_secs(second), Duration::from_millis(1 + second));
            timeline.delivered(Duration::from_secs(second));
        }
        let at = Duration::from_secs;
        let bands = [Band { from: at(5), to: at(9), words: "kill 1 & <more>".to_owned() }];
        let reigns = [
            Reign { from: at(0), queue: 0, leader: Some(1) },
            Reign { from: at(5), queue: 0, leader: None },
            Reign { from: at(6), queue: 0, leader: Some(2) },
        ];
        let mut verdict = Verdict { confirmed: 30, ..Verdict::default() };
        verdict.violations.insert("lost", 2);
        let page = Page {
            facts: "seed 7".to_owned(),
            timeline: &timeline,
            bands: &bands,
            queues: &["chaos-steady".to_owned()],
            reigns: &reigns,
            table: &Table::default(),
            verdict: &verdict,
        };
        let html = page.html();
        for part in [
            "seed 7",
            "Broken promises: lost 2",
            "kill 1 &amp; &lt;more&gt;",
            "led by broker 2 from 6.0 s to 30.0 s",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("http"), "nothing is fetched from elsewhere");
        for tag in ["svg", "p", "div", "table", "ol", "li", "text", "rect", "h2", "pre"] {
            let opened = html.matches(&format!("<{tag} ")).count()
                + html.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
