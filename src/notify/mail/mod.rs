//! Mail: who uploaded a file, and whoever else wants to know, is written to when its import ended.
//!
//! The mail is a job, enqueued by the transaction that ends the import: no crash loses it. What it
//! says is read when it is sent. Each recipient is a step of the job, so that trouble with one
//! sends nothing twice to the others; a crash between the server's answer and the step's save does,
//! under the same `Message-ID`, by which mail programs know it again.

mod letter;
mod send;

pub use letter::is_address;
pub use send::{SendMail, after_import};
