//! What can be turned off, and how far a search goes.

/// The guards of the protocol, each by the name of what is done without it. All `false` is the protocol as it is.
///
/// Tests turn them on one by one: the checker has to find the history that each of them is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A confirm does without the word of one in-sync member.
    pub confirm_without_one_isr_member: bool,
    /// A candidate goes on following while its request to lead is under way.
    pub answer_old_epoch_after_standing: bool,
    /// A copy that is not in sync stands for election.
    pub stand_outside_isr: bool,
    /// A broker with an emptied disk takes part as the member that it was.
    pub skip_store_id: bool,
    /// A follower cuts its log to its high watermark, instead of asking where the logs part.
    pub truncate_to_high_watermark: bool,
    /// The in-sync set shrinks below `min_isr`.
    pub shrink_below_min_isr: bool,
    /// A copy that joins is counted on by confirms only when its joining is decided.
    pub expand_before_counted: bool,
    /// A copy joins that is durable up to the high watermark, but not past the start of the epoch.
    pub expand_before_epoch_start: bool,
    /// A follower reports what it has written and not synced.
    pub ack_before_sync: bool,
    /// A follower syncs again after a sync that failed, and believes the second one.
    pub retry_failed_sync: bool,
    /// A high watermark gets to the disk ahead of the cuts that were made before it was heard of.
    pub keep_high_watermark_apart: bool,
    /// A restarted broker takes its former life over, with the epoch that it led.
    pub adopt_old_ephemeral: bool,
    /// A restarted broker believes a read that may be stale.
    pub believe_stale_read: bool,
    /// A read that shows the old version is taken for the refusal of a change that is under way.
    pub take_old_read_for_refusal: bool,
    /// A leader answers followers before the start of its epoch is on its own disk.
    pub answer_before_start_synced: bool,
    /// A broker deletes its copy when it does not find the queue's state.
    pub delete_on_not_found: bool,
    /// A queue is deleted while its leader goes on.
    pub delete_without_stopping: bool,
    /// A broker that is off is struck off a tombstone by another.
    pub strike_off_the_absent: bool,
    /// A leader delivers, and lets settle, without the promises of the others.
    pub deliver_without_lease: bool,
    /// A new leader delivers at once, while the one before it may still have its lease.
    pub deliver_at_once: bool,
    /// A leader that may not deliver yet hands over or resigns all the same.
    pub pass_on_at_once: bool,
    /// A new leader lets settle what the one before it may still deliver.
    pub settle_before_lease: bool,
    /// A leader that has named a successor goes on as long as it does not know that it was heard.
    pub deliver_while_leaving: bool,
    /// The coordinator is written to without the version that was read.
    pub write_without_version: bool,
    /// A leader delivers what it has appended.
    pub deliver_before_commit: bool,
    /// A publish is refused after it was appended.
    pub refuse_after_append: bool,
    /// A member that is gone for good is never swapped for another.
    pub never_swap: bool,
}

impl Rules {
    /// The protocol as it is.
    #[must_use]
    pub const fn sound() -> Rules {
        Rules {
            confirm_without_one_isr_member: false,
            answer_old_epoch_after_standing: false,
            stand_outside_isr: false,
            skip_store_id: false,
            truncate_to_high_watermark: false,
            shrink_below_min_isr: false,
            expand_before_counted: false,
            expand_before_epoch_start: false,
            ack_before_sync: false,
            retry_failed_sync: false,
            keep_high_watermark_apart: false,
            adopt_old_ephemeral: false,
            believe_stale_read: false,
            take_old_read_for_refusal: false,
            answer_before_start_synced: false,
            delete_on_not_found: false,
            delete_without_stopping: false,
            strike_off_the_absent: false,
            deliver_without_lease: false,
            deliver_at_once: false,
            pass_on_at_once: false,
            settle_before_lease: false,
            deliver_while_leaving: false,
            write_without_version: false,
            deliver_before_commit: false,
            refuse_after_append: false,
            never_swap: false,
        }
    }
}

/// How far a search goes: what may happen in a run, and how often. Within its bounds a search is exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub name: &'static str,
    pub min_isr: u8,
    /// Messages that are published.
    pub messages: u8,
    /// Epochs, the first included: there is one election less.
    pub epochs: u8,
    /// Changes of the in-sync set that are asked for.
    pub isr_changes: u8,
    /// Crashes, each with and without loss of what was not synced.
    pub crashes: u8,
    /// Disks that are lost, while their broker is down.
    pub wipes: u8,
    /// Sessions of living brokers that expire.
    pub expiries: u8,
    /// Reads and answers that arrive later than what happened after them.
    pub late_answers: u8,
    /// Deliveries under leases; messages that are settled.
    pub deliveries: bool,
    pub settles: u8,
    /// Resignations and hand-overs.
    pub moves: u8,
    /// The queue is deleted.
    pub deletes: bool,
    /// Fewer and larger steps, for wider bounds: a follower syncs and reports together with what it appends, and a leader confirms as soon
    /// as it can. What is confirmed the sooner has to be kept the longer.
    pub coarse: bool,
    /// Every state is also followed through calm weather: is a leader found?
    pub calm: bool,
}

impl Bounds {
    /// Nothing but one epoch, without faults: what others are made of.
    #[must_use]
    pub const fn named(name: &'static str) -> Bounds {
        Bounds {
            name,
            min_isr: 2,
            messages: 1,
            epochs: 1,
            isr_changes: 0,
            crashes: 0,
            wipes: 0,
            expiries: 0,
            late_answers: 0,
            deliveries: false,
            settles: 0,
            moves: 0,
            deletes: false,
            coarse: false,
            calm: false,
        }
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "3 replicas, min_isr {}, {} messages, {} epochs",
            self.min_isr, self.messages, self.epochs
        )?;
        for (how_many, what) in [
            (self.isr_changes, "changes of the in-sync set"),
            (self.crashes, "crashes with or without loss of the tail"),
            (self.wipes, "lost disks"),
            (self.expiries, "expired sessions"),
            (self.late_answers, "stale reads or late answers"),
            (self.settles, "settles"),
            (self.moves, "resignations or hand-overs"),
        ] {
            if how_many > 0 {
                write!(f, ", {how_many} {what}")?;
            }
        }
        for (there, what) in [
            (self.deliveries, "leases"),
            (self.deletes, "a deletion"),
            (self.coarse, "in coarse steps"),
        ] {
            if there {
                write!(f, ", {what}")?;
            }
        }
        write!(f, "; lost answers, frozen brokers and an absent coordinator without bound")
    }
}
