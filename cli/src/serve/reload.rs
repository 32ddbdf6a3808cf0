//! What SIGHUP makes a broker read again. Whatever can be read again while it runs is added here, in one place: `serve` runs all of
//! it, and each says by itself what came of it.

use tracing::{error, info};

/// Reads something again; answers what came of it, in words, or why everything stays as it was.
type Hook = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Everything that is read again.
#[derive(Default)]
pub struct Reloads(Vec<(&'static str, Hook)>);

impl Reloads {
    /// Adds `what` (`the configuration`, `the certificates`). A hook that fails has changed nothing.
    pub fn add(
        &mut self,
        what: &'static str,
        hook: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) {
        self.0.push((what, Box::new(hook)));
    }

    /// Reads everything again. One that fails does not keep the others from it.
    pub fn run(&self) {
        for (what, hook) in &self.0 {
            match hook() {
                Ok(outcome) => info!(what, outcome, "read again"),
                Err(why) => error!(what, why, "could not be read again: all of it stays as it was"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn one_that_fails_does_not_keep_the_others_from_being_read() {
        let read = Arc::new(AtomicUsize::new(0));
        let mut reloads = Reloads::default();
        reloads.add("a broken file", || Err("it is broken".to_owned()));
        let counted = read.clone();
        reloads.add("a good file", move || {
            counted.fetch_add(1, Relaxed);
            Ok("nothing changed".to_owned())
        });
        reloads.run();
        reloads.run();
        assert_eq!(read.load(Relaxed), 2);
    }
}
