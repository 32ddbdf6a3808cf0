//! A few places for those who have not shown yet what they want: where one is needed, the oldest goes.

use tokio::sync::oneshot;

/// Who is there, the oldest first.
#[derive(Debug)]
pub(crate) struct Places<W> {
    taken: Vec<Place<W>>,
}

#[derive(Debug)]
struct Place<W> {
    who: W,
    /// Dropped, it tells whoever has the place to go.
    end: oneshot::Sender<()>,
}

impl<W> Default for Places<W> {
    fn default() -> Places<W> {
        Places { taken: Vec::new() }
    }
}

impl<W> Places<W> {
    /// Somebody comes, whether there is room or not. What comes back is over when the place is needed; dropped, it makes room.
    pub fn enter(&mut self, who: W) -> oneshot::Receiver<()> {
        let (end, ended) = oneshot::channel();
        self.taken.push(Place { who, end });
        ended
    }

    /// How many of these are there. Who has gone takes no place.
    pub fn count(&mut self, which: impl Fn(&W) -> bool) -> usize {
        self.taken.retain(|one| !one.end.is_closed());
        self.taken.iter().filter(|one| which(&one.who)).count()
    }

    /// The oldest of these has to go; `false`: there is none.
    pub fn end_oldest(&mut self, which: impl Fn(&W) -> bool) -> bool {
        let Some(oldest) = self.taken.iter().position(|one| which(&one.who)) else { return false };
        self.taken.remove(oldest);
        true
    }
}
