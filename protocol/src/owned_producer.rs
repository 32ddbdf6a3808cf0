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
                "@sha256:{}",
                digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            )
        };
        ProducerName::new(name).expect("short enough, of the characters of two names")
    }
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
        }
    }
}
