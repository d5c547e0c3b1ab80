//! Webhooks: an HTTP request for every job or run that ended in a way somebody asked to hear of.
//!
//! A **webhook** is a row: where to POST, which **events**, of which tenant. When an event happens,
//! triggers of the tables where jobs and runs end insert one **delivery** for each webhook that
//! wants it, a job of kind `system.webhook`, in the same transaction: no crash loses or invents
//! one. The queue then does with it what it does with any job: it is tried again, and in the end
//! it is a dead letter that can be replayed. Deliveries are themselves no events.
//!
//! A request follows the Standard Webhooks specification (standardwebhooks.com): the headers
//! `webhook-id`, the same for every attempt, `webhook-timestamp` and `webhook-signature`, and a
//! body `{type, timestamp, data}`. Events are told at least once and in no promised order; a
//! receiver drops a `webhook-id` it has seen.

mod deliver;
mod event;
mod sign;
mod store;

pub use deliver::Deliver;
pub use event::{Event, UnknownEvent};
pub use sign::{KeyError, Keys, is_secret_name, is_secret_of};
pub use store::{
    Delivery, MOST_WEBHOOKS, NewWebhook, Webhook, add, deliveries, get, list, list_of, pause,
    remove, resume, test,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Job as _, delay};

    /// The page of docs/ that receivers read.
    const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md"));

    fn rows(of: &str) -> Vec<String> {
        let (_, table) = PAGE.split_once(&format!("| {of} |")).unwrap();
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned())
            .collect()
    }

    #[test]
    fn the_page_names_every_event() {
        let names = Event::ALL.map(|event| format!("`{}`", event.as_str()));
        assert_eq!(rows("event"), names);
    }

    #[test]
    fn the_page_has_the_times_of_attempts() {
        let waits = 2..=Deliver::RETRY.max_attempts;
        let expected: Vec<String> = waits
            .map(|attempt| {
                let wait = delay(&Deliver::RETRY, attempt - 1, 0.0);
                format!("| {attempt} | {} |\n", humantime::format_duration(wait))
            })
            .collect();
        let expected = expected.concat();
        assert!(PAGE.contains(&expected), "{expected}");
        assert!(PAGE.contains("a quarter") && (Deliver::RETRY.jitter - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn the_migration_knows_the_same_events() {
        let migration = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/migrations/0009_webhooks.sql"
        ));
        for event in Event::ALL {
            assert!(
                migration.contains(&format!("'{}'", event.as_str())),
                "{event:?}"
            );
        }
    }
}
