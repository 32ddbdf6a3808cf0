//! Patterns of permissions: regular expressions over whole names.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Most memory of one compiled pattern, in bytes: thousands of users, three patterns each for every virtual host.
const COMPILED_BYTES_MAX: usize = 128 * 1024;

/// A pattern that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{pattern:?} is no pattern of a permission ({reason}); write a regular expression over whole names, such as orders-.* or .*"
)]
pub struct InvalidPattern {
    pattern: String,
    reason: String,
}

/// A regular expression that is matched against the whole of a name: `orders` permits `orders` and not `orders-eu`. The empty
/// pattern permits nothing but the empty name. Matching takes time linear in the name, whatever the pattern.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    whole: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`InvalidPattern`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, InvalidPattern> {
        let invalid = |reason: String| InvalidPattern { pattern: text.to_owned(), reason };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(invalid(format!("it has over {PATTERN_BYTES_MAX} bytes")));
        }
        // By itself first: `a)|(b` is none, but would be one between the brackets below, and not of whole names.
        compile(text).map_err(&invalid)?;
        let whole = compile(&format!(r"\A(?:{text})\z")).map_err(&invalid)?;
        Ok(Pattern { text: text.to_owned(), whole })
    }

    /// Whether the whole of `name` matches.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        self.whole.is_match(name)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build();
    // The last line of the library's words names the mistake; those before it draw where it is.
    built.map_err(|error| {
        let words = error.to_string();
        words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn permits(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().permits(name)
    }

    #[test]
    fn a_pattern_is_of_the_whole_name() {
        assert!(permits("orders", "orders"));
        for other in ["orders-eu", "my-orders", "orders\n", "", "Orders"] {
            assert!(!permits("orders", other), "{other:?}");
        }
        assert!(permits("a|b", "b") && !permits("a|b", "ab") && !permits("a|b", "bx"));
        assert!(permits(".*", "") && permits(".*", "ünter/orders"));
        assert!(permits("(?m)^a$", "a") && !permits("(?m)^a$", "a\nb"));
    }

    #[test]
    fn the_empty_pattern_permits_no_queue_and_no_named_exchange() {
        assert!(!permits("", "orders") && permits("", ""));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_an_example() {
        for wrong in ["(", "*", "a)|(b", "(?x)a # b", "[", r"\1", "(?x)a)#"] {
            let error = Pattern::new(wrong).unwrap_err().to_string();
            assert!(error.contains("orders-.*"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_much_memory_or_is_long_is_refused() {
        for wrong in [r"\w{1000}", "(a{100}){100}", &"a".repeat(PATTERN_BYTES_MAX + 1)] {
            assert!(Pattern::new(wrong).is_err(), "{}", &wrong[..6]);
        }
    }

    #[test]
    fn a_pattern_that_takes_others_for_ever_takes_no_time() {
        assert!(!permits("(a*)*b", &"a".repeat(255)));
        assert!(!permits("(a|aa)+$b", &"a".repeat(255)));
    }
}
