//! The searches that are made: each exhaustive, each with the bounds that its faults can be given.

use crate::rules::Bounds;

const COARSE: Bounds = Bounds { coarse: true, ..Bounds::named("") };

/// All of them: some minutes on two cores.
pub const ALL: [Bounds; 9] = [
    Bounds { name: "elections", messages: 3, epochs: 3, crashes: 2, ..COARSE },
    Bounds {
        name: "small steps",
        messages: 2,
        epochs: 2,
        crashes: 2,
        isr_changes: 1,
        ..Bounds::named("")
    },
    Bounds { name: "in-sync set", messages: 2, epochs: 2, crashes: 1, isr_changes: 2, ..COARSE },
    Bounds {
        name: "one copy is enough",
        min_isr: 1,
        messages: 1,
        epochs: 3,
        crashes: 1,
        isr_changes: 1,
        ..COARSE
    },
    Bounds {
        name: "lost disk",
        messages: 1,
        epochs: 3,
        crashes: 2,
        wipes: 1,
        isr_changes: 1,
        ..COARSE
    },
    Bounds {
        name: "sessions",
        messages: 1,
        epochs: 3,
        crashes: 1,
        expiries: 1,
        late_answers: 1,
        ..COARSE
    },
    Bounds {
        name: "leases",
        messages: 1,
        epochs: 3,
        settles: 1,
        deliveries: true,
        moves: 1,
        ..COARSE
    },
    Bounds {
        name: "deletion",
        messages: 1,
        epochs: 2,
        crashes: 1,
        late_answers: 1,
        deletes: true,
        ..COARSE
    },
    Bounds {
        name: "calm",
        messages: 1,
        epochs: 2,
        crashes: 1,
        wipes: 1,
        expiries: 1,
        isr_changes: 1,
        calm: true,
        ..COARSE
    },
];

/// As many as each `cargo test` takes.
pub const QUICK: [Bounds; 5] = [
    Bounds { name: "elections", messages: 2, epochs: 2, crashes: 1, ..Bounds::named("") },
    Bounds { name: "in-sync set", epochs: 2, isr_changes: 2, crashes: 1, wipes: 1, ..COARSE },
    Bounds { name: "leases", epochs: 2, settles: 1, deliveries: true, moves: 1, ..COARSE },
    Bounds { name: "deletion", epochs: 2, crashes: 1, deletes: true, ..COARSE },
    Bounds { name: "calm", epochs: 2, crashes: 1, wipes: 1, calm: true, ..COARSE },
];
