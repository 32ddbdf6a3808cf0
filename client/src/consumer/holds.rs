//! What the application holds, by the attachment that it came on: a leader that is gone has delivered some of it, and as long as
//! the next one agrees the consumer keeps it. Pure.

use bellwether_protocol::ids::{Offset, OffsetRange};

use super::ranges::Ranges;
use super::settles::one;

/// Counts attachments of one consumer: which one a delivery came on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(u64);

/// Offsets that are held, unsettled.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    serial: Serial,
    /// Delivered on the present attachment.
    present: Ranges,
    /// Kept from earlier ones, ascending; none is empty. Their number is bounded by that of the messages.
    earlier: Vec<(Serial, Ranges)>,
}

impl Holds {
    /// The present attachment.
    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    /// Offsets, of this attachment and of earlier ones.
    pub(crate) fn count(&self) -> u64 {
        let earlier: u64 = self.earlier.iter().map(|(_, ranges)| ranges.count()).sum();
        self.present.count() + earlier
    }

    /// The application has got this.
    pub(crate) fn insert(&mut self, range: OffsetRange) {
        self.present.insert(range);
    }

    /// Takes one out that came on this attachment. Whether it was held.
    pub(crate) fn remove(&mut self, serial: Serial, offset: Offset) -> bool {
        if serial == self.serial {
            return self.present.remove(offset);
        }
        let Some(at) = self.earlier.iter().position(|(of, _)| *of == serial) else { return false };
        let removed = self.earlier[at].1.remove(offset);
        self.earlier.retain(|(_, ranges)| ranges.len() > 0);
        removed
    }

    fn has(&self, serial: Serial, offset: Offset) -> bool {
        let earlier = || self.earlier.iter().find(|(of, _)| *of == serial).map(|(_, kept)| kept);
        let came_with = if serial == self.serial { Some(&self.present) } else { earlier() };
        came_with.is_some_and(|ranges| ranges.within(one(offset)).next().is_some())
    }

    /// Takes everything up to and with this one out, whenever it came; nothing when this one is not held any more.
    pub(crate) fn take_up_to(&mut self, serial: Serial, offset: Offset) -> Vec<OffsetRange> {
        if !self.has(serial, offset) {
            return Vec::new();
        }
        let end = offset.plus(1);
        let mut taken = Ranges::default();
        let earlier = self.earlier.iter_mut().map(|(_, ranges)| ranges);
        for range in earlier.chain([&mut self.present]).flat_map(|ranges| ranges.take_below(end)) {
            taken.insert(range);
        }
        self.earlier.retain(|(_, ranges)| ranges.len() > 0);
        taken.into_vec()
    }

    /// The attachment is over. What it delivered is kept for the next one.
    pub(crate) fn attachment_over(&mut self) {
        let present = std::mem::take(&mut self.present);
        if present.len() > 0 {
            self.earlier.push((self.serial, present));
        }
        self.serial.0 += 1;
    }

    /// What is held from earlier attachments.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.earlier.iter().flat_map(|(_, ranges)| ranges.iter())
    }

    /// The leader has said which of the earlier ones this consumer has: the others are not its own any more.
    pub(crate) fn keep(&mut self, held: &Ranges) {
        for (_, ranges) in &mut self.earlier {
            let mut kept = Ranges::default();
            for range in ranges.iter().flat_map(|range| held.within(range)) {
                kept.insert(range);
            }
            *ranges = kept;
        }
        self.earlier.retain(|(_, ranges)| ranges.len() > 0);
    }

    /// Nothing is held any more.
    pub(crate) fn clear(&mut self) {
        self.present.clear();
        self.earlier.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, end: u64) -> OffsetRange {
        OffsetRange::new(Offset(first), Offset(end))
    }

    /// 10 and 50 came from a leader that was lost. The next one lets this consumer keep 10; 50 is another's. "Everything up to 50"
    /// must not settle 10 and say that 50 was.
    #[test]
    fn nothing_is_taken_up_to_a_delivery_that_is_another_consumers_now() {
        let mut holds = Holds::default();
        let before = holds.serial();
        holds.insert(range(10, 11));
        holds.insert(range(50, 51));
        holds.attachment_over();
        holds.keep(&[range(10, 11)].into_iter().collect());
        assert_eq!(holds.take_up_to(before, Offset(50)), []);
        assert_eq!(holds.take_up_to(before, Offset(10)), [range(10, 11)]);
    }

    #[test]
    fn what_came_before_and_now_is_taken_together() {
        let mut holds = Holds::default();
        holds.insert(range(10, 12));
        holds.attachment_over();
        holds.keep(&[range(10, 12)].into_iter().collect());
        holds.insert(range(12, 20));
        assert_eq!(holds.take_up_to(holds.serial(), Offset(14)), [range(10, 15)]);
        assert_eq!(holds.count(), 5);
    }
}
