//! Chunks from the thread that makes them to the task that loads them, and back once they are spent.
//!
//! One chunk waits at most, and none is made while it does: each takes some 7 MB, and the reader is
//! several times as fast. A spent chunk is freed by the thread that made it, before it makes the next
//! one. The allocator has its memory at hand then; freed elsewhere it would be kept for a while, and
//! two chunks loaded at a time would hold half as much again.

use std::{ops::ControlFlow, sync::mpsc as std_mpsc};

use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::SendError},
};

use super::super::row::Chunk;

/// The end of the thread that makes chunks.
pub(crate) struct MakerEnd {
    runtime: Handle,
    chunks: mpsc::Sender<Chunk>,
    spent: std_mpsc::Receiver<Chunk>,
}

/// The end of the task that loads them.
pub(crate) struct LoaderEnd {
    chunks: mpsc::Receiver<Chunk>,
    spent: std_mpsc::Sender<Chunk>,
}

/// Makes both ends, within a runtime.
pub(crate) fn handover() -> (MakerEnd, LoaderEnd) {
    let (give, take) = mpsc::channel(1);
    let (give_back, spent) = std_mpsc::channel();
    let maker = MakerEnd {
        runtime: Handle::current(),
        chunks: give,
        spent,
    };
    let loader = LoaderEnd {
        chunks: take,
        spent: give_back,
    };
    (maker, loader)
}

impl MakerEnd {
    /// Hands a chunk over, waits until it is taken, and frees what is spent. Not for a runtime's own
    /// threads, since it blocks. Breaks once nobody takes chunks any more.
    pub(crate) fn give(&mut self, chunk: Chunk) -> ControlFlow<()> {
        let given = self.runtime.block_on(async {
            self.chunks.reserve().await?.send(chunk);
            let is_taken = self.chunks.reserve().await?;
            drop(is_taken);
            Ok::<_, SendError<()>>(())
        });
        self.spent.try_iter().for_each(drop);
        match given {
            Ok(()) => ControlFlow::Continue(()),
            Err(SendError(())) => ControlFlow::Break(()),
        }
    }
}

impl LoaderEnd {
    /// Waits for the next chunk; `None` behind the last one. Cancel safe.
    pub(crate) async fn take(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
    }

    /// Returns the way back for spent chunks; one that finds nobody there any more is freed.
    pub(crate) fn way_back(&self) -> std_mpsc::Sender<Chunk> {
        self.spent.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn chunk(seq: u32) -> Chunk {
        Chunk {
            seq,
            ..Chunk::default()
        }
    }

    #[tokio::test]
    async fn a_chunk_is_given_once_it_is_taken_and_the_spent_ones_are_gone_then() {
        let (mut maker, mut loader) = handover();
        let back = loader.way_back();
        back.send(chunk(0)).unwrap();
        let thread = thread::spawn(move || (maker.give(chunk(1)), maker));
        assert_eq!(loader.take().await.unwrap().seq, 1);
        let (gave, mut maker) = thread.join().unwrap();
        assert_eq!(gave, ControlFlow::Continue(()));
        assert_eq!(maker.spent.try_iter().count(), 0);

        let thread = thread::spawn(move || maker.give(chunk(2)));
        while loader.chunks.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(loader);
        let gave = thread.join().unwrap();
        assert_eq!(gave, ControlFlow::Break(()), "nobody took it");
        assert!(back.send(chunk(2)).is_err());
    }
}
