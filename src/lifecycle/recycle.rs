//! Ends a process whose threads do not come back, from a thread of its own.
//!
//! A handler that blocks its thread past its deadline cannot be ended; its
//! thread is lost to the process, and with it what else was queued there. From
//! a limit on the process stops softly, so that the service manager starts a
//! whole one. Where no thread is left to do so, it is ended from here.

use std::{
    io,
    time::{Duration, Instant},
};

use super::shutdown::{Cause, Shutdown};

/// How often the threads are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When a process is given up.
#[derive(Debug, Clone, Copy)]
pub struct Recycler {
    /// How many slots may be stuck before the process stops; 0 watches them and stops nothing.
    pub limit: usize,
    /// How many threads there are: with that many stuck, nobody is left to stop softly.
    pub n_threads: usize,
    /// How long the soft stop may take before the process is ended all the same.
    pub patience: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Stop,
    End,
}

impl Recycler {
    /// Watches until the process ends, with `look` saying how many slots are stuck. `end` is called
    /// where the process is to end at once, and is expected not to return.
    ///
    /// # Errors
    ///
    /// The operating system has no thread left.
    pub fn start(
        self,
        shutdown: Shutdown,
        mut look: impl FnMut() -> usize + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let watch = move || {
            let mut stopped = None;
            loop {
                std::thread::park_timeout(LOOK_EVERY);
                let n_stuck = look();
                match self.judge(n_stuck, stopped.map(|at: Instant| at.elapsed())) {
                    Verdict::GoOn => {}
                    Verdict::Stop => {
                        stopped = Some(Instant::now());
                        tracing::error!(
                            n_stuck,
                            limit = self.limit,
                            "too many slots are stuck; the process stops, to be started anew"
                        );
                        shutdown.stop(Cause::Stuck);
                    }
                    Verdict::End => {
                        tracing::error!(n_stuck, "no way to stop softly; the process ends");
                        return end();
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("recycle".into());
        thread.spawn(watch).map(drop)
    }

    /// Decides, with the time since the soft stop where it has begun.
    fn judge(&self, n_stuck: usize, stopping_for: Option<Duration>) -> Verdict {
        if self.limit == 0 {
            return Verdict::GoOn;
        }
        match stopping_for {
            _ if n_stuck > 0 && n_stuck >= self.n_threads => Verdict::End,
            Some(stopping_for) if stopping_for > self.patience => Verdict::End,
            None if n_stuck >= self.limit => Verdict::Stop,
            _ => Verdict::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn recycler(limit: usize) -> Recycler {
        Recycler {
            limit,
            n_threads: 4,
            patience: MINUTE,
        }
    }

    #[test]
    fn the_limit_stops_softly_and_nobody_left_ends_at_once() {
        let judge = |n_stuck| recycler(2).judge(n_stuck, None);
        assert_eq!(
            [0, 1, 2, 3, 4].map(judge),
            [
                Verdict::GoOn,
                Verdict::GoOn,
                Verdict::Stop,
                Verdict::Stop,
                Verdict::End
            ]
        );
    }

    #[test]
    fn a_soft_stop_has_its_time_and_no_more() {
        let judge = |waited| recycler(1).judge(1, Some(waited));
        assert_eq!(judge(MINUTE), Verdict::GoOn);
        assert_eq!(judge(MINUTE * 2), Verdict::End);
    }

    #[test]
    fn without_a_limit_nothing_is_stopped() {
        assert_eq!(recycler(0).judge(4, None), Verdict::GoOn);
    }

    #[test]
    fn it_stops_the_process_and_then_ends_it() {
        let (shutdown, (told, ended)) = (Shutdown::new(), mpsc::channel());
        let recycler = Recycler {
            patience: Duration::ZERO,
            ..recycler(1)
        };
        recycler
            .start(shutdown.clone(), || 1, move || told.send(()).unwrap())
            .unwrap();
        ended.recv().unwrap();
        assert_eq!(shutdown.cause(), Some(Cause::Stuck));
    }
}
