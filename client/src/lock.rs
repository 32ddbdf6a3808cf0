//! A mutex held for moments, never over an await. A panic while it was held is not hidden by a second one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value behind a mutex.
#[derive(Debug, Default)]
pub(crate) struct Locked<T>(Mutex<T>);

impl<T> Locked<T> {
    pub(crate) fn new(value: T) -> Locked<T> {
        Locked(Mutex::new(value))
    }

    /// The value. A poisoned lock is taken all the same: the machines behind it keep their invariants at each
    /// return, and a client that panics in one task should still be able to say goodbye in another.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
