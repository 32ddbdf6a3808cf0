//! Whose producer it is: brokers put the user into the name that goes into the log and to other brokers, so that nobody can publish
//! as another user's producer, and make that one's messages look like retries.

use sha2::{Digest, Sha256};

use crate::names::{NAME_BYTES_MAX, ProducerName, UserName};

impl ProducerName {
    /// The name under which queues know this producer of `user`. No two pairs of user and name come to the same; names of producers
    /// whose client did not log in stay as they are.
    ///
    /// ```text
    /// @<bytes of the user's name>:<user>/<name>
    /// @sha256:<hexadecimal digest of the former>     when that is too long for a name
    /// ```
    #[must_use]
    pub fn owned_by(&self, user: &UserName) -> ProducerName {
        let user = user.as_str();
        let whole = format!("@{}:{user}/{self}", user.len());
        let name = if whole.len() <= NAME_BYTES_MAX {
            whole
        } else {
            let digest = Sha256::digest(whole);
            format!(
                "{DIGESTED}{}",
                digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            )
        };
        ProducerName::new(name).expect("short enough, of the characters of two names")
    }
}

/// What stands before the digest of a name that is too long.
const DIGESTED: &str = "@sha256:";

impl ProducerName {
    /// Whose producer it is, as [`ProducerName::owned_by`] wrote it: what stands before the name, `@7:billing/`. All names that had to be
    /// digested have one owner together, and so have all of clients that did not log in: the empty one.
    #[must_use]
    pub fn owner(&self) -> &str {
        let name = self.as_str();
        if name.starts_with(DIGESTED) {
            return DIGESTED;
        }
        owner_of(name).unwrap_or("")
    }
}

fn owner_of(name: &str) -> Option<&str> {
    let (length, rest) = name.strip_prefix('@')?.split_once(':')?;
    let user = length.parse::<usize>().ok()?;
    let end = user.checked_add(1)?;
    // The name of a user may have slashes of its own: its length says where it ends.
    rest.get(..end)?.ends_with('/').then(|| &name[..name.len() - rest.len() + end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(user: &str, name: &str) -> ProducerName {
        ProducerName::new(name).unwrap().owned_by(&UserName::new(user).unwrap())
    }

    #[test]
    fn the_user_stands_before_the_name() {
        assert_eq!(owned("billing", "p-1").as_str(), "@7:billing/p-1");
    }

    #[test]
    fn the_owner_is_read_from_the_name_and_nothing_of_the_name_is_taken_for_one() {
        assert_eq!(owned("billing", "p/1").owner(), "@7:billing/");
        assert_eq!(owned("a/b:", "p").owner(), "@4:a/b:/");
        assert_eq!(owned("münze", "p").owner(), "@6:münze/");
        assert_eq!(owned("u", &"p".repeat(251)).owner(), "@sha256:");
        for bare in
            ["p-1", "@", "@7", "@7:", "@7:billing", "@x:y/z", "@1:ü/", "@99999999999999999999:a/b"]
        {
            assert_eq!(ProducerName::new(bare).unwrap().owner(), "", "{bare}");
        }
    }

    #[test]
    fn the_longest_names_stay_within_the_limit_and_apart() {
        let (long, other) = ("u".repeat(255), format!("{}v", "u".repeat(254)));
        assert_ne!(owned(&long, &long), owned(&other, &long));
        assert_ne!(owned(&long, &long), owned(&long, &other));
        // To the byte: 1 + 1 + 1 + 1 + 1 + 250 is the most that stays readable.
        assert_eq!(owned("u", &"p".repeat(250)).as_str().len(), 255);
        assert!(owned("u", &"p".repeat(251)).as_str().starts_with("@sha256:"));
    }

    proptest! {
        #[test]
        fn no_two_pairs_come_to_the_same(
            one in ("[ab/:@1]{1,4}", "[ab/:@1]{1,4}"),
            two in ("[ab/:@1]{1,4}", "[ab/:@1]{1,4}"),
        ) {
            let same = owned(&one.0, &one.1) == owned(&two.0, &two.1);
            prop_assert_eq!(same, one == two);
            let same = owned(&one.0, &one.1).owner() == owned(&two.0, &two.1).owner();
            prop_assert_eq!(same, one.0 == two.0);
        }
    }
}
