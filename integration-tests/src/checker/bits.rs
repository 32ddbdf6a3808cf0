//! A set of small numbers, one bit each: what the checker remembers of a message.

/// A growing set of numbers from zero.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// Puts `number` in; `false` when it was in already.
    pub fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let added = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(added);
        added
    }

    /// Whether `number` is in.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.words.get(word).is_some_and(|held| held & bit != 0)
    }

    /// How many are in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().enumerate().flat_map(|(word, held)| {
            (0..64).filter(move |bit| held & (1 << bit) != 0).map(move |bit| word as u64 * 64 + bit)
        })
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_in_once() {
        let mut bits = Bits::default();
        assert!(bits.insert(3) && bits.insert(200) && !bits.insert(3));
        assert!(
            bits.contains(3) && bits.contains(200) && !bits.contains(4) && !bits.contains(10_000)
        );
        assert_eq!(bits.iter().collect::<Vec<_>>(), [3, 200]);
        assert_eq!(bits.count(), 2);
    }
}
