//! Who hears of what happens to a session: one bounded channel a subscriber, so that a slow one holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::coordinator::{Path, SessionEvent};

/// Events that wait for one subscriber. When there are more it is told that it missed some, and re-reads everything.
const EVENTS_MAX: usize = 4096;

/// All subscribers of one session.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
}

#[derive(Debug)]
struct Subscriber {
    prefixes: Vec<Path>,
    events: mpsc::Sender<SessionEvent>,
    /// Empty unless the channel has been full; then it is emptied by a task, and holds what comes meanwhile, `Overrun` for
    /// any number of changes, and the latest state of the session.
    backlog: Mutex<VecDeque<SessionEvent>>,
}

impl Subscribers {
    /// Adds one that hears of the session and of changes below `prefixes`, and of `first` to begin with.
    pub(crate) fn add(
        &self,
        prefixes: &[Path],
        first: Option<SessionEvent>,
    ) -> mpsc::Receiver<SessionEvent> {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let subscriber =
            Arc::new(Subscriber { prefixes: prefixes.to_vec(), events, backlog: Mutex::default() });
        first.into_iter().for_each(|event| subscriber.tell(event));
        lock(&self.subscribers).push(subscriber);
        receiver
    }

    /// What those who are still there watch, each prefix once.
    pub(crate) fn prefixes(&self) -> Vec<Path> {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| !subscriber.events.is_closed());
        let mut prefixes: Vec<Path> =
            subscribers.iter().flat_map(|subscriber| subscriber.prefixes.iter().cloned()).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    /// Tells everyone.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        for subscriber in lock(&self.subscribers).iter() {
            subscriber.tell(event.clone());
        }
    }

    /// Tells those who watch it.
    pub(crate) fn changed(&self, path: &Path) {
        for subscriber in lock(&self.subscribers).iter() {
            if subscriber.prefixes.iter().any(|prefix| path.is_within(prefix)) {
                subscriber.tell(SessionEvent::Changed(path.clone()));
            }
        }
    }

    /// Nothing follows: receivers end once they have what was told before.
    pub(crate) fn finish(&self) {
        lock(&self.subscribers).clear();
    }
}

impl Subscriber {
    fn tell(self: &Arc<Self>, event: SessionEvent) {
        let mut backlog = lock(&self.backlog);
        if !backlog.is_empty() {
            keep(&mut backlog, event);
            return;
        }
        match self.events.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(event)) => {
                keep(&mut backlog, event);
                tokio::spawn(work_off(Arc::clone(self)));
            }
        }
    }
}

/// Adds to a backlog what must not be lost: that something was missed, and where the session stands now.
fn keep(backlog: &mut VecDeque<SessionEvent>, event: SessionEvent) {
    let is_state = |event: &SessionEvent| match event {
        SessionEvent::Connected | SessionEvent::Disconnected | SessionEvent::Expired => true,
        SessionEvent::Changed(_) | SessionEvent::Overrun => false,
    };
    backlog.push_back(event);
    // What was missed is unknown, and an older state of the session is no news.
    let state = backlog.drain(..).rfind(is_state);
    backlog.push_back(SessionEvent::Overrun);
    backlog.extend(state);
}

/// Hands the backlog over as the receiver makes room.
async fn work_off(subscriber: Arc<Subscriber>) {
    while let Ok(room) = subscriber.events.reserve().await {
        let mut backlog = lock(&subscriber.backlog);
        let Some(event) = backlog.pop_front() else { return };
        room.send(event);
        if backlog.is_empty() {
            return;
        }
    }
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
        let mut queues = subscribers.add(&[path("/queues")], None);
        let mut nothing = subscribers.add(&[], Some(SessionEvent::Disconnected));
        subscribers.changed(&path("/queues/3f/x"));
        subscribers.changed(&path("/names/x"));
        subscribers.tell(&SessionEvent::Connected);
        subscribers.finish();
        let expected = [SessionEvent::Changed(path("/queues/3f/x")), SessionEvent::Connected];
        assert_eq!(all(&mut queues).await, expected);
        assert_eq!(all(&mut nothing).await, [SessionEvent::Disconnected, SessionEvent::Connected]);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_that_it_missed_something_and_still_hears_the_end() {
        let subscribers = Subscribers::default();
        let mut slow = subscribers.add(&[path("/")], None);
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
        assert!(events.len() <= EVENTS_MAX + 2, "{}", events.len());
        assert!(events.contains(&SessionEvent::Overrun));
        assert_eq!(events.last(), Some(&SessionEvent::Expired));
    }

    #[tokio::test]
    async fn changes_after_a_disconnect_do_not_hide_it_from_a_slow_subscriber() {
        let subscribers = Subscribers::default();
        let mut slow = subscribers.add(&[path("/")], None);
        for n in 0..=EVENTS_MAX {
            subscribers.changed(&path(&format!("/{n}")));
        }
        subscribers.tell(&SessionEvent::Disconnected);
        assert_eq!(slow.recv().await, Some(SessionEvent::Changed(path("/0"))));
        tokio::task::yield_now().await;
        subscribers.changed(&path("/late"));
        subscribers.finish();
        let events = all(&mut slow).await;
        assert_eq!(
            events[EVENTS_MAX - 1..],
            [SessionEvent::Overrun, SessionEvent::Overrun, SessionEvent::Disconnected]
        );
    }

    #[tokio::test]
    async fn one_who_left_is_forgotten() {
        let subscribers = Subscribers::default();
        let receiver = subscribers.add(&[path("/queues")], None);
        let kept = subscribers.add(&[path("/brokers"), path("/brokers")], None);
        assert_eq!(subscribers.prefixes(), [path("/brokers"), path("/queues")]);
        drop(receiver);
        assert_eq!(subscribers.prefixes(), [path("/brokers")]);
        drop(kept);
    }
}
