//! What can be told.

use std::{fmt, str::FromStr};

/// Something that a webhook may ask to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A job did its work.
    JobCompleted,
    /// The queue gave a job up.
    JobDead,
    /// Somebody cancelled a job.
    JobCancelled,
    /// Every item of a run was dealt with.
    RunCompleted,
    /// A run was given up.
    RunFailed,
    /// Somebody cancelled a run.
    RunCancelled,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::JobCompleted,
        Self::JobDead,
        Self::JobCancelled,
        Self::RunCompleted,
        Self::RunFailed,
        Self::RunCancelled,
    ];

    /// Returns the name under which it is asked for and told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobCompleted => "job.completed",
            Self::JobDead => "job.dead",
            Self::JobCancelled => "job.cancelled",
            Self::RunCompleted => "run.completed",
            Self::RunFailed => "run.failed",
            Self::RunCancelled => "run.cancelled",
        }
    }
}

/// A name that is no event's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEvent(String);

impl fmt::Display for UnknownEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Event::ALL.map(Event::as_str).join(", ");
        write!(f, "\"{}\" is no event; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownEvent {}

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let found = Self::ALL.into_iter().find(|event| event.as_str() == name);
        found.ok_or_else(|| UnknownEvent(name.chars().take(80).collect()))
    }
}
