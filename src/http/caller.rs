//! [`Caller`]: who asks, as handlers see them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Problem, trouble::Trouble};
use crate::access::{NO_TENANT, Role, Tenants};

pub(super) use super::once::Once;

/// Who asks, once let in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The audit log's word for them: `token:NAME#ID`, `user:SUBJECT`, `token` for the configured
    /// one, `local` where no credential is.
    pub actor: String,
    /// What they may do; the route's own role was checked.
    pub role: Role,
    /// Whose data they see and change.
    pub tenants: Tenants,
    /// The request's id.
    pub request_id: String,
    /// The request's Idempotency-Key.
    pub(super) once: Option<Arc<Once>>,
}

/// Members that only operators see: what jobs were given and what they returned.
const PRIVATE: [&str; 7] = [
    "args",
    "cursor",
    "meta",
    "output",
    "params",
    "result",
    "unique_key",
];

impl Caller {
    /// Returns who triggers what they ask for, as runs have it: a user by name, so that mail
    /// reaches them, everybody else as `api`.
    #[must_use]
    pub fn asks_as(&self) -> &str {
        if self.actor.starts_with("user:") {
            &self.actor
        } else {
            "api"
        }
    }

    /// Returns the owner of something new: the one that the body asks for, or the only one there
    /// can be.
    ///
    /// # Errors
    ///
    /// 422 at `/tenant` where it is somebody else's, or one of several is to be named; 403 for a
    /// caller who has none.
    pub fn owner(&self, asked: Option<String>) -> Result<Option<String>, Problem> {
        self.tenants.owner(asked).map_err(|mine| {
            if mine.is_empty() {
                return Problem::new(Trouble::Forbidden).detail(NO_TENANT);
            }
            let rule = format!("one of yours: {}", mine.join(", "));
            Problem::new(Trouble::Invalid).at("/tenant", rule)
        })
    }

    /// Writes an answer as this caller may see it: to a viewer, arguments and results are null.
    ///
    /// # Errors
    ///
    /// What cannot be written as JSON, which is a mistake of ours.
    pub fn seen(&self, answer: impl Serialize) -> Result<Value, Problem> {
        let mut answer = serde_json::to_value(answer).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written");
            Problem::new(Trouble::Internal)
        })?;
        if self.role < Role::Operator {
            hide(&mut answer);
        }
        Ok(answer)
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if PRIVATE.contains(&name.as_str()) {
                    *value = Value::Null;
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_viewer_sees_neither_arguments_nor_results() {
        let caller = |role| Caller {
            actor: "token".to_owned(),
            role,
            tenants: Tenants::All,
            request_id: String::new(),
            once: None,
        };
        let answer = json!({ "id": 1, "args": { "key": "canary" },
                             "steps": [{ "name": "a", "result": "canary" }] });
        let seen = caller(Role::Viewer).seen(&answer).unwrap();
        assert!(!seen.to_string().contains("canary"), "{seen}");
        assert_eq!(seen["id"], 1);
        assert_eq!(seen["steps"][0]["name"], "a");
        assert_eq!(caller(Role::Operator).seen(&answer).unwrap(), answer);
    }
}
