//! docs/protocol.md says what the code does: its examples are the golden ones, its table of errors is complete.

use std::collections::BTreeMap;

use bellwether_protocol::error::ErrorCode;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");
const GOLDEN: &str = include_str!("golden.txt");

fn vectors(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| {
            let direction = name.split(' ').next();
            matches!(direction, Some("client" | "broker" | "peer")) && name.split(' ').count() == 2
        })
        .collect()
}

#[test]
fn every_frame_is_shown_with_its_golden_bytes() {
    assert_eq!(vectors(DOCUMENT), vectors(GOLDEN));
}

#[test]
fn every_error_code_is_in_the_table_and_nothing_else_is() {
    let rows: Vec<String> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with("| code | name | retry"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').skip(1).take(3).map(str::trim).collect::<Vec<_>>().join(" "))
        .collect();
    let codes: Vec<String> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retry = if code.is_worth_retrying() { "yes" } else { "no" };
            format!("{} {code:?} {retry}", code.number())
        })
        .collect();
    assert_eq!(rows, codes);
}
