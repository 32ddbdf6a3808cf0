//! Fields of a later version *inside* the entries of a document: of a member, an election, a binding. They are written back with the
//! entry that they stood in, as long as it is there as it was. One that is replaced, as a note by a newer one, takes them with it: what
//! they said was said of the former one.

use bellwether_protocol::ids::{BrokerLife, Epoch, Member};

use super::past::Cleared;
use super::{Committed, Election, Resignation, Taint, UnknownFields};

/// Such fields, by entry. Mostly none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later<E>(Vec<(E, UnknownFields)>);

impl<E> Default for Later<E> {
    fn default() -> Later<E> {
        Later(Vec::new())
    }
}

impl<E: PartialEq> Later<E> {
    pub(crate) fn keep(&mut self, entry: E, fields: UnknownFields) {
        if !fields.is_empty() {
            self.0.push((entry, fields));
        }
    }

    pub(crate) fn of(&self, entry: &E) -> UnknownFields {
        let found = self.0.iter().find(|(kept, _)| kept == entry);
        found.map(|(_, fields)| fields.clone()).unwrap_or_default()
    }
}

/// Those of a queue's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaterInState {
    pub(super) isr: Later<Member>,
    pub(super) given_up: Later<Member>,
    pub(super) elections: Later<Election>,
    pub(super) resigned: Later<Resignation>,
    pub(super) committed: Later<Committed>,
    /// By the forced leader's term: a taint that is cleared is still that one.
    pub(super) tainted: Later<(Epoch, BrokerLife)>,
    pub(super) cleared: Later<Cleared>,
}

impl LaterInState {
    pub(super) fn taint(&self, taint: &Taint) -> UnknownFields {
        self.tainted.of(&(taint.epoch, taint.by))
    }
}
