//! What imports of a source are asked for: the options that an upload may carry, by name.
//!
//! The one place that knows which there are is the import's; this is where they are handed on.

use std::collections::BTreeMap;

use crate::{
    blob,
    ingest::{
        Context,
        product_import::submit::{self, Accepted, SubmitError},
    },
};

/// Options of an import by name, as an upload's form has them.
pub type Options = BTreeMap<String, String>;

/// Checks options before they are stored.
///
/// # Errors
///
/// What is wrong, in words that follow the name.
pub(super) fn check(options: &Options) -> Result<(), String> {
    match options.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("has \"{name}\", which is no option of an import")),
    }
}

/// Inspects a file that has been taken and gives it its name in the store.
pub(super) async fn accept(
    context: &Context,
    file: blob::Writer,
    name: &str,
    _options: &Options,
) -> Result<Accepted, SubmitError> {
    submit::accept(&context.blobs, &context.config, file, name).await
}
