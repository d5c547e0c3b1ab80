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
pub use sign::{KeyError, Keys, is_secret_name};
pub use store::{
    Delivery, MOST_WEBHOOKS, NewWebhook, Webhook, add, deliveries, get, list, pause, remove,
    resume, test,
};
