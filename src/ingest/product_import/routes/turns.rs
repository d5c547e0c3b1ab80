//! Turns at something of which there is little: so many at once, and fewer for one caller.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who waits for a turn of his own takes nobody else's.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    n_each: usize,
    /// Of the callers that have a turn or wait for one.
    own: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Turns {
    /// Makes `n_all` turns, of which one caller has `n_each` at most.
    pub(super) fn new(n_all: usize, n_each: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(n_all)),
            n_each,
            own: Mutex::default(),
        }
    }

    /// Waits for a turn of a caller. `None` never comes: the semaphores are not closed.
    pub(super) async fn take(&self, caller: &str) -> Option<Turn> {
        let own = self.own(caller).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn {
            _own: own,
            _all: all,
        })
    }

    fn own(&self, caller: &str) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = own.entry(caller.to_owned());
        Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(self.n_each))))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_caller_with_all_his_turns_takes_nobody_elses() {
        let turns = Turns::new(3, 2);
        let take = |caller| turns.take(caller).now_or_never().flatten();
        let (first, second) = (take("a"), take("a"));
        assert!(first.is_some() && second.is_some());
        assert!(take("a").is_none());
        let other = take("b");
        assert!(other.is_some());
        assert!(take("b").is_none(), "three in all");
        drop(first);
        assert!(take("a").is_some());
        drop((second, other));
        assert!(take("c").is_some());
        assert_eq!(turns.own.lock().unwrap().len(), 1);
    }
}
