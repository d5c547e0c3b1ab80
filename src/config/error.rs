//! What is wrong with a configuration, and where.

use std::fmt;

use super::origin::{Origin, Place};

/// Everything that is wrong with a configuration; at least one [`Mistake`].
///
/// It never holds a secret: values of secret keys are left out of messages and lines.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
pub struct ConfigError {
    /// The mistakes, in the order of the layers.
    pub mistakes: Vec<Mistake>,
}

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self {
            mistakes: vec![mistake],
        }
    }
}

/// One thing that is wrong.
///
/// Displays as `place: message`, then the line of the file with carets, then `hint: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Mistake {
    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place.origin {
            Origin::Default => {}
            Origin::Env(name) => write!(f, "{name}: ")?,
            Origin::File { path, line, column } => {
                write!(f, "{}:{line}:{column}: ", path.display())?;
            }
            origin @ (Origin::Flag | Origin::Credential(_)) => write!(f, "{origin}: ")?,
        }
        f.write_str(&self.message)?;
        if let Some(snippet) = &self.place.snippet {
            write!(f, "\n{snippet}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
