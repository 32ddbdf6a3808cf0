//! Each guard of the protocol, with bounds in which the history is found that it is there for, and the promise that breaks without it.

use crate::promises::{
    A_COPY_IS_LEFT, DEPOSED, IN_ORDER, LEADER_FOUND, NEVER_CUT, NEVER_REFUSED, NO_COPY_LEFT,
    NOT_INTO_DELETED, ON_EVERY_DISK, ONE_LEADER, ONLY_COMMITTED, SETTLED,
};
use crate::rules::{Bounds, Rules};

/// The protocol without one of its guards.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is done without it, as in [`Rules`].
    pub name: &'static str,
    pub rules: Rules,
    pub bounds: Bounds,
    /// What breaks.
    pub promise: &'static str,
}

const SOUND: Rules = Rules::sound();

const fn mutant(name: &'static str, rules: Rules, promise: &'static str, bounds: Bounds) -> Mutant {
    Mutant { name, rules, bounds, promise }
}

/// Two epochs, one message.
const ELECTION: Bounds = Bounds { epochs: 2, ..Bounds::named("an election") };
const TWO_ELECTIONS: Bounds = Bounds { epochs: 3, ..Bounds::named("two elections") };
const CRASH: Bounds = Bounds { epochs: 2, crashes: 1, ..Bounds::named("a crash") };
const CHANGES: Bounds =
    Bounds { epochs: 1, isr_changes: 2, ..Bounds::named("changes of the in-sync set") };
const LEASES: Bounds =
    Bounds { epochs: 2, deliveries: true, settles: 1, coarse: true, ..Bounds::named("leases") };
const DELETION: Bounds = Bounds { epochs: 1, deletes: true, ..Bounds::named("a deletion") };

/// All of them.
pub const ALL: [Mutant; 27] = [
    mutant(
        "confirm_without_one_isr_member",
        Rules { confirm_without_one_isr_member: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds::named("one epoch"),
    ),
    mutant(
        "answer_old_epoch_after_standing",
        Rules { answer_old_epoch_after_standing: true, ..SOUND },
        DEPOSED,
        ELECTION,
    ),
    mutant(
        "stand_outside_isr",
        Rules { stand_outside_isr: true, ..SOUND },
        ON_EVERY_DISK,
        TWO_ELECTIONS,
    ),
    mutant(
        "skip_store_id",
        Rules { skip_store_id: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds { wipes: 1, ..CRASH },
    ),
    mutant(
        "truncate_to_high_watermark",
        Rules { truncate_to_high_watermark: true, ..SOUND },
        ON_EVERY_DISK,
        ELECTION,
    ),
    mutant(
        "shrink_below_min_isr",
        Rules { shrink_below_min_isr: true, ..SOUND },
        A_COPY_IS_LEFT,
        Bounds { crashes: 1, wipes: 1, ..CHANGES },
    ),
    mutant(
        "expand_before_counted",
        Rules { expand_before_counted: true, ..SOUND },
        ON_EVERY_DISK,
        CHANGES,
    ),
    mutant(
        "expand_before_epoch_start",
        Rules { expand_before_epoch_start: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds { messages: 2, isr_changes: 2, ..ELECTION },
    ),
    mutant(
        "ack_before_sync",
        Rules { ack_before_sync: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds::named("one epoch"),
    ),
    mutant(
        "retry_failed_sync",
        Rules { retry_failed_sync: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds::named("one epoch"),
    ),
    mutant(
        "keep_high_watermark_apart",
        Rules { keep_high_watermark_apart: true, ..SOUND },
        NEVER_CUT,
        CRASH,
    ),
    mutant(
        "adopt_old_ephemeral",
        Rules { adopt_old_ephemeral: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds { messages: 2, epochs: 1, ..CRASH },
    ),
    mutant(
        "adopt_old_ephemeral",
        Rules { adopt_old_ephemeral: true, ..SOUND },
        IN_ORDER,
        Bounds { messages: 2, epochs: 2, ..CRASH },
    ),
    mutant(
        "believe_stale_read",
        Rules { believe_stale_read: true, ..SOUND },
        DEPOSED,
        Bounds { late_answers: 1, isr_changes: 1, ..CRASH },
    ),
    mutant(
        "take_old_read_for_refusal",
        Rules { take_old_read_for_refusal: true, ..SOUND },
        ON_EVERY_DISK,
        CHANGES,
    ),
    mutant(
        "delete_on_not_found",
        Rules { delete_on_not_found: true, ..SOUND },
        ON_EVERY_DISK,
        Bounds { late_answers: 1, ..Bounds::named("one epoch") },
    ),
    mutant(
        "delete_without_stopping",
        Rules { delete_without_stopping: true, ..SOUND },
        NOT_INTO_DELETED,
        DELETION,
    ),
    mutant(
        "strike_off_the_absent",
        Rules { strike_off_the_absent: true, ..SOUND },
        NO_COPY_LEFT,
        Bounds { crashes: 1, ..DELETION },
    ),
    mutant(
        "deliver_without_lease",
        Rules { deliver_without_lease: true, ..SOUND },
        SETTLED,
        LEASES,
    ),
    mutant("deliver_at_once", Rules { deliver_at_once: true, ..SOUND }, SETTLED, LEASES),
    mutant(
        "pass_on_at_once",
        Rules { pass_on_at_once: true, ..SOUND },
        SETTLED,
        Bounds { epochs: 3, moves: 1, ..LEASES },
    ),
    mutant("settle_before_lease", Rules { settle_before_lease: true, ..SOUND }, SETTLED, LEASES),
    mutant(
        "deliver_while_leaving",
        Rules { deliver_while_leaving: true, ..SOUND },
        SETTLED,
        Bounds { moves: 1, isr_changes: 1, ..LEASES },
    ),
    mutant(
        "write_without_version",
        Rules { write_without_version: true, ..SOUND },
        ONE_LEADER,
        ELECTION,
    ),
    mutant(
        "deliver_before_commit",
        Rules { deliver_before_commit: true, ..SOUND },
        ONLY_COMMITTED,
        Bounds { settles: 0, ..LEASES },
    ),
    mutant(
        "refuse_after_append",
        Rules { refuse_after_append: true, ..SOUND },
        NEVER_REFUSED,
        Bounds::named("one epoch"),
    ),
    mutant(
        "never_swap",
        Rules { never_swap: true, ..SOUND },
        LEADER_FOUND,
        Bounds { wipes: 1, isr_changes: 1, calm: true, ..CRASH },
    ),
];
