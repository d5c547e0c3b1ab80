//! A client for tests: answers as told and notes what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{FetchError, Request, Response};

#[derive(Debug, Default)]
struct Inner {
    answers: VecDeque<Result<Response, FetchError>>,
    seen: Vec<Request>,
}

/// Answers in the order it was told to; out of answers, it says 200. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<Inner>>);

impl Fake {
    /// Adds an answer.
    pub fn answer(&self, answer: Result<Response, FetchError>) {
        self.with(|inner| inner.answers.push_back(answer));
    }

    /// Returns what it was asked so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.with(|inner| inner.seen.clone())
    }

    pub(super) fn send(&self, request: Request) -> Result<Response, FetchError> {
        self.with(|inner| {
            inner.seen.push(request);
            let next = inner.answers.pop_front();
            next.unwrap_or_else(|| Ok(Response::of(200)))
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
