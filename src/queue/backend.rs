//! The queue as apalis sees it: a source of claimed jobs for one worker.
//!
//! Claiming, completing and heartbeats have tasks of their own; what is left
//! for the [`Backend`] is to hand over what was claimed, and to stop the worker
//! when the claimer ends, whereupon apalis lets the running jobs finish.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, task_id::RandomId},
    worker::context::WorkerContext,
};
use tokio::sync::mpsc;
use tower::layer::util::Identity;

use super::execute::Claimed;

/// The receiving end of one queue's claimer.
pub(super) struct ClaimedJobs(pub(super) mpsc::Receiver<Claimed>);

impl Backend for ClaimedJobs {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Infallible>>> {
        let claimed = std::task::ready!(self.0.poll_recv(cx));
        if claimed.is_none() {
            // apalis does not end a worker because its source has ended: it waits to be told.
            // It only refuses a worker that has not started, and that one is not polled.
            drop(worker.stop());
        }
        Poll::Ready(claimed.map(|claimed| Ok(Task::new(claimed))))
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for ClaimedJobs {
    type Args = Claimed;
    type Id = RandomId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
