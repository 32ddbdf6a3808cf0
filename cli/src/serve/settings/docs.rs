//! docs/configuration.md, written from the settings themselves: what they are called, what they are when nobody sets them, and why one
//! would. The first paragraph of a setting's comment is what it is, what follows is why one would change it.

use std::fmt::Write as _;

use bellwether_broker::live::{CHANGEABLE, Felt};
use clap::{Arg, Args as _, Command};

use super::Settings;

/// How settings are given; then come the tables.
const PREFACE: &str = "\
# Configuration

<!-- Written by `bellwether serve --print-config-docs`; a test compares. Change the comments of the settings instead. -->

Every setting has one name in three forms: the key `session-timeout-ms` of the configuration file is the flag `--session-timeout-ms` and the variable
`BELLWETHER_SESSION_TIMEOUT_MS`. Flags stand above the environment, the environment above the file, the file above what is set for the whole cluster, and that
above the defaults. `bellwether serve --config FILE --print-config` shows what is in force, and where each value is from.

Times are written `300ms`, `30s`, `5m`; sizes `4096`, `64KiB`, `16MiB`. *Changes*: when a running broker feels a change, of the file after SIGHUP, or of what is set for the
whole cluster: *at once*; by *new connections*, while those that exist keep what they were told; or after a *restart*. See
[changing settings while running](operations.md#changing-settings-while-running).
";

/// The page.
pub fn page() -> String {
    let mut page = PREFACE.to_owned();
    let command = Settings::augment_args(Command::new("settings"));
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in command.get_arguments() {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let title = heading.unwrap_or("General");
        write!(page, "\n## {title}\n\n| key | variable | default | unit | changes | what it is, and why one would change it |\n|---|---|---|---|---|---|\n")
            .expect("a String takes everything");
        for arg in command.get_arguments().filter(|arg| arg.get_help_heading() == heading) {
            page.push_str(&row(arg));
        }
    }
    page
}

fn row(arg: &Arg) -> String {
    let key = arg.get_long().unwrap_or_default();
    let variable = arg.get_env().unwrap_or_default().to_string_lossy();
    let text = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let (text, said) = without_default(&text);
    let given: Vec<_> = arg.get_default_values().iter().map(|one| one.to_string_lossy()).collect();
    let default = match said {
        Some(said) => said,
        None if given.is_empty() => "none".to_owned(),
        None => format!("`{}`", given.join(",")),
    };
    let mut paragraphs = text.split("\n\n").map(|one| one.replace('\n', " ").trim().to_owned());
    let mut what = paragraphs.next().unwrap_or_default();
    for paragraph in paragraphs {
        let stop = if what.ends_with(['.', '!', '?']) { "" } else { "." };
        write!(what, "{stop} {paragraph}").expect("a String takes everything");
    }
    let what = what.replace('|', "\\|");
    format!("| `{key}` | `{variable}` | {default} | {} | {} | {what} |\n", unit(arg), changes(key))
}

/// The text without its `[default: …]`, and what that says.
fn without_default(text: &str) -> (String, Option<String>) {
    let Some((before, rest)) = text.split_once("[default: ") else {
        return (text.to_owned(), None);
    };
    let (said, after) = rest.split_once(']').unwrap_or((rest, ""));
    (format!("{}{after}", before.trim_end()), Some(said.to_owned()))
}

/// What a value is, from the name that the help gives it.
fn unit(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    match name.as_deref().unwrap_or_default() {
        "MS" => "milliseconds".to_owned(),
        "TIME" => "time".to_owned(),
        "SIZE" => "bytes".to_owned(),
        "N" => "number".to_owned(),
        "BOOL" => "`true` or `false`".to_owned(),
        "FORMAT" => {
            let values = arg.get_possible_values();
            let values: Vec<String> =
                values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            values.join(" or ")
        }
        other => other.to_lowercase(),
    }
}

fn changes(key: &str) -> &'static str {
    let felt = CHANGEABLE.iter().find(|one| one.key == key).map(|one| one.felt);
    match felt {
        Some(Felt::AtOnce) => "at once",
        Some(Felt::ByNewConnections) => "new connections",
        None if crate::serve::live::is_changeable(key) => "at once",
        None => "restart",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_settings_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap();
        for (line, (is, should)) in written.lines().zip(page().lines()).enumerate() {
            assert_eq!(
                is,
                should,
                "line {}: write it anew: `bellwether serve --print-config-docs > docs/configuration.md`",
                line + 1
            );
        }
        assert_eq!(
            written.lines().count(),
            page().lines().count(),
            "the page has lost its end: write it anew"
        );
    }

    #[test]
    fn every_setting_says_what_it_is_and_why_one_would_change_it() {
        let command = Settings::augment_args(Command::new("settings"));
        for arg in command.get_arguments() {
            let key = arg.get_long().unwrap();
            assert!(arg.get_env().is_some(), "{key} has no variable");
            let long = arg.get_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                long.contains("\n\n"),
                "{key}: a second paragraph says why one would change it"
            );
        }
    }

    #[test]
    fn a_default_that_depends_on_something_is_shown_in_words() {
        assert_eq!(
            without_default("Longest frame [default: this and that]\n\nFor some."),
            ("Longest frame\n\nFor some.".to_owned(), Some("this and that".to_owned()))
        );
    }
}
