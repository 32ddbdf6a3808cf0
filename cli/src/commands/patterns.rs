//! The two kinds of patterns there are: permissions are regular expressions over whole names, as they are in RabbitMQ; queues to back
//! up are named as files are. Who gives the one where the other is wanted is told.

/// What to say of a pattern of a permission that is more likely one as for files: `orders*` permits `order` and `orderss`.
pub fn not_a_regular_expression(pattern: &str) -> Option<String> {
    let mut before = None;
    for letter in pattern.chars() {
        let repeats_a_letter = before
            .is_some_and(|one: char| one.is_alphanumeric() || matches!(one, '-' | '_' | '/' | ':'));
        if letter == '*' && repeats_a_letter {
            let meant = pattern.replace(".*", "*").replace('*', ".*");
            return Some(format!(
                "{pattern:?} is read as a regular expression over whole names, in which * repeats the letter before it; for anything that begins so write {meant:?}"
            ));
        }
        // What follows a backslash is no letter of a name.
        before = if before == Some('\\') { None } else { Some(letter) };
    }
    None
}

/// What to say of a pattern as for files that is more likely a regular expression.
pub fn not_as_for_files(pattern: &str) -> Option<String> {
    let like_one = [".*", ".+", "^", "$", "\\", "|", "(", "["];
    like_one.iter().any(|part| pattern.contains(part)).then(|| {
        format!(
            "{pattern:?} looks like a regular expression; here * stands for anything, ? for one letter, and every other letter for itself"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_that_was_meant_for_anything_is_noticed_with_what_would_be_right() {
        for (given, meant) in [("orders*", "orders.*"), ("eu-*", "eu-.*"), ("a*b.*", "a.*b.*")] {
            let warning = not_a_regular_expression(given).unwrap();
            assert!(warning.contains(&format!("{meant:?}")), "{warning}");
        }
        for fine in ["", ".*", "orders", "orders.*", "(a|b)*", "[a-z]*", r"a\.b\w*", "orders-.+"] {
            assert_eq!(not_a_regular_expression(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_regular_expression_for_files_is_noticed() {
        for given in ["orders.*", "^a", "a|b", "(a)", "[ab]"] {
            assert!(not_as_for_files(given).is_some(), "{given}");
        }
        for fine in ["orders*", "*", "orders-?", "a.b", "eu.orders"] {
            assert_eq!(not_as_for_files(fine), None, "{fine}");
        }
    }
}
