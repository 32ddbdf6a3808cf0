//! A history told in words: what happened, one line a step.

use crate::protocol::Step;
use crate::world::{BROKERS, Id, Isr, Role, World};

/// What brokers are called in a story.
const NAMES: [&str; BROKERS] = ["A", "B", "C"];

/// A history, its first world and each step with the world after it, as numbered lines with the logs at its end.
#[must_use]
pub fn told(began: &World, steps: &[(Step, World)]) -> String {
    let mut story = String::from("   0. A leads epoch 1, and B and C are in sync.\n");
    let mut before = began;
    for (at, (step, after)) in steps.iter().enumerate() {
        story += &format!("{:4}. {}\n", at + 1, sentence(before, *step, after));
        before = after;
    }
    story += &format!(
        "      In the end the coordinator holds epoch {}, led by {}, in sync {}; committed: {:?}.\n",
        before.state.epoch,
        before.state.leader.map_or("nobody", |life| NAMES[usize::from(life.broker)]),
        set(before.state.isr),
        before.past.committed,
    );
    for (broker, name) in before.brokers.iter().zip(NAMES) {
        let what = match broker.role {
            Role::Down => "is down".to_owned(),
            Role::Idle => "waits".to_owned(),
            Role::Follows { .. } => format!("follows in epoch {}", broker.seen.epoch),
            Role::Stands { .. } => "stands".to_owned(),
            Role::Leads { .. } => format!("leads epoch {}", broker.seen.epoch),
            Role::Halted => "has stopped".to_owned(),
        };
        story += &format!(
            "      {name} {what}; on its disk: {:?}, in its log: {:?}.\n",
            broker.disk, broker.log
        );
    }
    story
}

fn set(isr: Isr) -> String {
    let member = |(id, store): (Id, u8)| {
        if store == 0 {
            NAMES[id].to_owned()
        } else {
            format!("{} (disk {})", NAMES[id], store + 1)
        }
    };
    let names: Vec<String> = isr.members().map(member).collect();
    format!("{{{}}}", names.join(", "))
}

fn sentence(before: &World, step: Step, after: &World) -> String {
    let epoch = |id: Id| before.brokers[id].seen.epoch;
    let log = |id: Id| after.brokers[id].log;
    match step {
        Step::Publish { leader } => format!(
            "{} appends m{} in epoch {}.",
            NAMES[leader],
            after.spent.messages,
            epoch(leader)
        ),
        Step::Refuse { leader } => {
            format!("{} tells a client that its last message was not done.", NAMES[leader])
        }
        Step::Sync { broker } => {
            format!("{} syncs: {:?} is on its disk.", NAMES[broker], log(broker))
        }
        Step::SyncAgain { broker } => format!(
            "A sync fails at {}; it tries again, and believes that {:?} is on its disk.",
            NAMES[broker],
            log(broker)
        ),
        Step::Confirm { leader } => format!(
            "{} confirms {:?} in epoch {}.",
            NAMES[leader],
            log(leader).cut(after.brokers[leader].high_watermark),
            epoch(leader)
        ),
        Step::Agree { follower } => format!(
            "{} agrees with its leader of epoch {} on the log; it keeps {:?}.",
            NAMES[follower],
            epoch(follower),
            log(follower)
        ),
        Step::Fetch { follower } => {
            format!("{} appends what its leader streams: {:?}.", NAMES[follower], log(follower))
        }
        Step::Change { leader, isr } => {
            format!("{} asks for the in-sync set {}.", NAMES[leader], set(isr))
        }
        Step::Stand { candidate } => {
            format!("{} stands for epoch {}.", NAMES[candidate], epoch(candidate) + 1)
        }
        Step::Decide { asked_by } if after.state.deleted.is_some() => format!(
            "The coordinator deletes the queue for {}, and writes its tombstone.",
            NAMES[asked_by]
        ),
        Step::Decide { asked_by } => format!(
            "The coordinator grants what {} asked for: epoch {}, led by {}, in sync {}.",
            NAMES[asked_by],
            after.state.epoch,
            after.state.leader.map_or("nobody", |life| NAMES[usize::from(life.broker)]),
            set(after.state.isr)
        ),
        Step::Read { broker } => {
            format!("{} learns of that, and {}.", NAMES[broker], role(after, broker))
        }
        Step::Say { to } => {
            format!("The coordinator says to {} what it holds; that will arrive late.", NAMES[to])
        }
        Step::HearLate { broker } => format!(
            "{} hears what the coordinator said a while ago, and {}.",
            NAMES[broker],
            role(after, broker)
        ),
        Step::Promise { from } => {
            format!("{} promises its leader not to deliver as a successor.", NAMES[from])
        }
        Step::RunOut { from, to } => {
            format!("The promise of {} to {} runs out.", NAMES[from], NAMES[to])
        }
        Step::Settle { leader, message } => {
            format!("{} has delivered m{message}, and appends its settle.", NAMES[leader])
        }
        Step::HandOver { leader, to } => {
            format!("{} stops, and names {} as its successor.", NAMES[leader], NAMES[to])
        }
        Step::Resign { leader } => format!("{} stops, and resigns.", NAMES[leader]),
        Step::Delete { asked_by } => format!("{} asks for the queue's deletion.", NAMES[asked_by]),
        Step::Drop { broker } => format!("{} drops its copy.", NAMES[broker]),
        Step::StrikeOff { broker } => format!("{} is struck off the tombstone.", NAMES[broker]),
        Step::NotFound { broker } => format!(
            "{} does not find the queue on a server that lags, and deletes its copy.",
            NAMES[broker]
        ),
        Step::Crash { broker, power: true } => {
            format!("{} loses power; {:?} is left.", NAMES[broker], log(broker))
        }
        Step::Crash { broker, power: false } => {
            format!("{} is killed; {:?} is left.", NAMES[broker], log(broker))
        }
        Step::Restart { broker } => format!("{} starts again.", NAMES[broker]),
        Step::Wipe { broker } => format!("{} gets an empty disk.", NAMES[broker]),
        Step::Expire { broker } => format!("The session of {} expires.", NAMES[broker]),
        Step::BeginLife { broker } => {
            format!("{} notices that, and begins another life.", NAMES[broker])
        }
    }
}

fn role(world: &World, id: Id) -> String {
    let broker = &world.brokers[id];
    let leader = || broker.seen.leader.map_or("nobody", |life| NAMES[usize::from(life.broker)]);
    match broker.role {
        Role::Follows { .. } => format!("follows {} in epoch {}", leader(), broker.seen.epoch),
        Role::Leads { .. } => {
            format!("leads epoch {} with {} in sync", broker.seen.epoch, set(broker.seen.isr))
        }
        Role::Stands { .. } => "still stands".to_owned(),
        Role::Idle | Role::Down | Role::Halted => "waits".to_owned(),
    }
}
