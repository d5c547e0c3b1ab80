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

/// The receiving end of one queue's claimer, which sends what it claimed at once.
pub(super) struct ClaimedJobs {
    claims: mpsc::Receiver<Vec<Claimed>>,
    next: std::vec::IntoIter<Claimed>,
}

impl ClaimedJobs {
    pub(super) fn new(claims: mpsc::Receiver<Vec<Claimed>>) -> Self {
        let next = Vec::new().into_iter();
        Self { claims, next }
    }
}

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
        loop {
            if let Some(claimed) = self.next.next() {
                return Poll::Ready(Some(Ok(Task::new(claimed))));
            }
            let Some(claimed) = std::task::ready!(self.claims.poll_recv(cx)) else {
                // apalis does not end a worker because its source has ended: it waits to be told.
                // It only refuses a worker that has not started, and that one is not polled.
                drop(worker.stop());
                return Poll::Ready(None);
            };
            self.next = claimed.into_iter();
        }
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
