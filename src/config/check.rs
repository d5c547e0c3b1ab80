//! Validation: each section says what its values must be, this gathers what is not so.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::Mistake;
use super::origin::Origins;

/// Gathers the mistakes of one section after the other.
#[derive(Debug)]
pub(super) struct Check<'a> {
    section: String,
    origins: &'a Origins,
    pub(super) mistakes: Vec<Mistake>,
}

impl<'a> Check<'a> {
    pub(super) fn new(origins: &'a Origins) -> Self {
        Self {
            section: String::new(),
            origins,
            mistakes: Vec::new(),
        }
    }

    /// Goes on to a section: keys are named within it.
    pub(super) fn section(&mut self, section: impl Into<String>) -> &mut Self {
        self.section = section.into();
        self
    }

    /// Demands a number within limits.
    pub(super) fn range<N>(&mut self, key: &str, value: N, limits: RangeInclusive<N>)
    where
        N: Copy + PartialOrd + Display,
    {
        if !limits.contains(&value) {
            let (from, to) = limits.into_inner();
            let why = format!("must be from {from} to {to}, is {value}");
            self.fail(&[key], &why);
        }
    }

    /// Demands a duration above zero.
    pub(super) fn positive(&mut self, key: &str, value: Duration) {
        if value.is_zero() {
            self.fail(&[key], "must be longer than 0s");
        }
    }

    /// Notes that the first of `keys` is wrong, together with the others.
    ///
    /// The blame is laid where the strongest layer sets one of them: a default is not the one to
    /// change.
    pub(super) fn fail(&mut self, keys: &[&str], why: &str) {
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        let blamed = keys.iter().rev().max_by_key(|key| self.origins.layer(key));
        let place = blamed
            .map(|key| self.origins.place(key))
            .unwrap_or_default();
        let key = keys.first().map(String::as_str).unwrap_or_default();
        self.mistakes
            .push(Mistake::at(place, format!("{key} {why}")));
    }

    /// Notes that a key which must be set is not; the blame is laid on what is set beside it.
    pub(super) fn missing(&mut self, key: &str) {
        let place = self.origins.below(&self.section);
        let place = place.map(|(_, place)| place).unwrap_or_default();
        let message = format!("{} is missing", self.key(key));
        self.mistakes.push(Mistake::at(place, message));
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.section)
    }
}
