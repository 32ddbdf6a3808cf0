//! Who hears of what happens to a session: one bounded outbox and one task a subscriber, so that a slow one holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::coordinator::{Path, SessionEvent};

/// Events that wait for one subscriber. When there are more it is told that it missed some, and re-reads everything.
const EVENTS_MAX: usize = 4096;

/// Events handed over but not yet received.
const HANDED_OVER_MAX: usize = 16;

/// All subscribers of one session.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    outboxes: Mutex<Vec<Arc<Outbox>>>,
}

impl Subscribers {
    /// Adds one that hears of the session and of changes below `prefixes`.
    pub(crate) fn add(&self, prefixes: &[Path]) -> mpsc::Receiver<SessionEvent> {
        let outbox = Arc::new(Outbox::new(prefixes));
        let (sender, receiver) = mpsc::channel(HANDED_OVER_MAX);
        tokio::spawn(hand_over(Arc::clone(&outbox), sender));
        lock(&self.outboxes).push(outbox);
        receiver
    }

    /// What those who are still there watch, each prefix once.
    pub(crate) fn prefixes(&self) -> Vec<Path> {
        let mut outboxes = lock(&self.outboxes);
        outboxes.retain(|outbox| !outbox.is_done());
        let mut prefixes: Vec<Path> =
            outboxes.iter().flat_map(|outbox| outbox.prefixes.iter().cloned()).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    /// Tells everyone.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        for outbox in lock(&self.outboxes).iter() {
            outbox.push(event.clone());
        }
    }

    /// Tells those who watch it.
    pub(crate) fn changed(&self, path: &Path) {
        for outbox in lock(&self.outboxes).iter() {
            if outbox.prefixes.iter().any(|prefix| path.is_within(prefix)) {
                outbox.push(SessionEvent::Changed(path.clone()));
            }
        }
    }

    /// Nothing follows: receivers end once they have what was told before.
    pub(crate) fn finish(&self) {
        for outbox in lock(&self.outboxes).drain(..) {
            lock(&outbox.waiting).finished = true;
            outbox.filled.notify_one();
        }
    }
}

#[derive(Debug)]
struct Outbox {
    prefixes: Vec<Path>,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<SessionEvent>,
    /// Nothing more will be pushed.
    finished: bool,
    /// The receiver is gone.
    left: bool,
}

impl Outbox {
    fn new(prefixes: &[Path]) -> Self {
        Self { prefixes: prefixes.to_vec(), waiting: Mutex::default(), filled: Notify::new() }
    }

    fn push(&self, event: SessionEvent) {
        let mut waiting = lock(&self.waiting);
        if waiting.finished || waiting.left || waiting.events.back() == Some(&event) {
            return;
        }
        if waiting.events.len() >= EVENTS_MAX {
            // What was missed is unknown, and an older state of the session is no news: both are covered by `Overrun`.
            let state =
                waiting.events.drain(..).rfind(|event| !matches!(event, SessionEvent::Changed(_)));
            waiting.events.push_back(SessionEvent::Overrun);
            waiting.events.extend(state.filter(|state| *state != SessionEvent::Overrun));
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.filled.notify_one();
    }

    fn is_done(&self) -> bool {
        lock(&self.waiting).left
    }

    /// The next event; `None` when nothing follows.
    async fn pop(&self) -> Option<SessionEvent> {
        loop {
            {
                let mut waiting = lock(&self.waiting);
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
                if waiting.finished {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

async fn hand_over(outbox: Arc<Outbox>, sender: mpsc::Sender<SessionEvent>) {
    loop {
        let event = tokio::select! {
            event = outbox.pop() => event,
            () = sender.closed() => None,
        };
        let Some(event) = event else { break };
        if sender.send(event).await.is_err() {
            break;
        }
    }
    lock(&outbox.waiting).left = true;
}

/// A panic elsewhere leaves these plain lists whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path(text.to_owned())
    }

    async fn all(receiver: &mut mpsc::Receiver<SessionEvent>) -> Vec<SessionEvent> {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    }

    #[tokio::test]
    async fn a_subscriber_hears_of_what_it_watches_and_of_the_session() {
        let subscribers = Subscribers::default();
        let mut queues = subscribers.add(&[path("/queues")]);
        let mut nothing = subscribers.add(&[]);
        subscribers.changed(&path("/queues/3f/x"));
        subscribers.changed(&path("/names/x"));
        subscribers.tell(&SessionEvent::Disconnected);
        subscribers.finish();
        let expected = [SessionEvent::Changed(path("/queues/3f/x")), SessionEvent::Disconnected];
        assert_eq!(all(&mut queues).await, expected);
        assert_eq!(all(&mut nothing).await, [SessionEvent::Disconnected]);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_that_it_missed_something_and_still_hears_the_end() {
        let subscribers = Subscribers::default();
        let mut slow = subscribers.add(&[path("/")]);
        for round in 0..3 {
            for n in 0..EVENTS_MAX {
                subscribers.changed(&path(&format!("/{round}/{n}")));
            }
            subscribers.tell(&SessionEvent::Disconnected);
            subscribers.tell(&SessionEvent::Connected);
        }
        subscribers.tell(&SessionEvent::Expired);
        subscribers.finish();
        let events = all(&mut slow).await;
        assert!(events.len() <= EVENTS_MAX + HANDED_OVER_MAX + 8, "{}", events.len());
        assert!(events.contains(&SessionEvent::Overrun));
        assert_eq!(events.last(), Some(&SessionEvent::Expired));
    }

    #[tokio::test]
    async fn one_who_left_is_forgotten() {
        let subscribers = Subscribers::default();
        let receiver = subscribers.add(&[path("/queues")]);
        let kept = subscribers.add(&[path("/brokers"), path("/brokers")]);
        assert_eq!(subscribers.prefixes(), [path("/brokers"), path("/queues")]);
        drop(receiver);
        while subscribers.prefixes() != [path("/brokers")] {
            tokio::task::yield_now().await;
        }
        drop(kept);
    }
}
