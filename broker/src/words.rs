//! Names in words for people.

/// A name as it is written in a command: quoted where a shell would read something else in it, and behind `--` where it would
/// be taken for a flag. It goes last in the command for that, or before other names.
#[must_use]
pub fn in_shell(name: &str) -> String {
    // Only NUL cannot be quoted, and names hold no control characters.
    let quoted = shlex::try_quote(name).map_or_else(|_| format!("{name:?}"), String::from);
    if name.starts_with('-') { format!("-- {quoted}") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_to_a_shell_whatever_is_in_it() {
        assert_eq!(in_shell("orders-eu.1"), "orders-eu.1");
        for name in ["two words", "a;rm -rf ~", "$(x)", "it's", "*", "a&b", ""] {
            let line = format!("bellwether queue delete {}", in_shell(name));
            assert_eq!(shlex::split(&line).unwrap(), ["bellwether", "queue", "delete", name]);
        }
        assert_eq!(in_shell("--all"), "-- --all");
    }
}
