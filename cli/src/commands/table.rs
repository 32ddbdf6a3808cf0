//! Answers: tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::outcome::Failure;

/// A table with these columns.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(columns.iter().map(|column| column.to_uppercase()));
    // Only a terminal has a width to fit; a pipe wants one line a row.
    let arrangement = match std::io::stdout().is_terminal() {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    };
    table.set_content_arrangement(arrangement);
    table
}

/// Prints a table without trailing blanks.
pub fn print_table(table: &Table) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
    }
    Ok(out.flush()?)
}

/// Prints one JSON document on one line.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(&value.to_string())
}

/// Prints a line.
pub fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// `values` with commas between, or a dash when there are none.
pub fn listed<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let listed: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    if listed.is_empty() { "-".to_owned() } else { listed.join(",") }
}

/// So many of something: `1 queue`, `2 queues`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `number` with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn one_is_not_many() {
        let queues = [0, 1, 2_000].map(|number| counted(number, "queue", "queues"));
        assert_eq!(queues, ["0 queues", "1 queue", "2,000 queues"]);
    }

    #[test]
    fn an_empty_list_is_a_dash() {
        assert_eq!(listed(Vec::<u32>::new()), "-");
        assert_eq!(listed([1, 2]), "1,2");
    }
}
