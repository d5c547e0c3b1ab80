//! What imports of a source are asked for: the options that an upload may carry, by name.
//!
//! The one place that knows which there are is the import's; this is where they are handed on.

use std::{collections::BTreeMap, io};

use crate::{
    blob,
    config::{ProductImport, SameFile},
    ingest::{
        Context,
        product_import::{
            plan::Wish,
            saved_map,
            submit::{self, Accepted, SubmitError},
        },
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
    if wish(&ProductImport::default(), options)?.plan.dry_run {
        // Each version would be remembered as imported, and none would be.
        return Err("has dry_run: a source imports; fetch its file once to try it".to_owned());
    }
    Ok(())
}

/// Returns options without that of a dry run, which may be asked of a file that is fetched once.
pub(super) fn but_dry_run(options: &Options) -> Options {
    let mut options = options.clone();
    options.retain(|name, value| {
        let mut wish = Wish::from(&ProductImport::default());
        wish.set(name, value) != Ok(true) || !wish.plan.dry_run
    });
    options
}

/// Returns what is asked for. A source imports each version of its file once by itself, so a file
/// that somebody imported before is none to refuse.
fn wish(config: &ProductImport, options: &Options) -> Result<Wish, String> {
    let mut wish = Wish::from(config);
    for (name, value) in options {
        let is_known = wish.set(name, value);
        if !is_known.map_err(|bad| format!("has a bad value: {bad}"))? {
            return Err(format!("has \"{name}\", which is no option of an import"));
        }
    }
    wish.same_file = SameFile::Import;
    Ok(wish)
}

/// Inspects a file that has been taken and gives it its name in the store.
pub(super) async fn accept(
    context: &Context,
    file: blob::Writer,
    name: &str,
    options: &Options,
    tenant: &str,
) -> Result<Accepted, SubmitError> {
    let config = &context.config;
    // Checked when they were stored, if not by an older binary or by hand.
    let mut wish = wish(&config.product_import, options)
        .map_err(|text| SubmitError::Storage(io::Error::other(format!("the source {text}"))))?;
    if wish.look.saved_mapping.is_some() {
        let mut conn = context.db.acquire().await?;
        saved_map::resolve(&mut conn, tenant, &mut wish).await??;
    }
    submit::accept(&context.blobs, config, file, name, wish).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_imports_and_does_not_rehearse() {
        let options = |list: &[(&str, &str)]| -> Options {
            let pairs = list.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        for (name, value) in [("dry_run", "true"), ("dryRun", "1"), ("Dry-Run", "")] {
            let asked = options(&[("mode", "replace_all"), (name, value)]);
            let why = check(&asked).unwrap_err();
            assert!(why.contains("dry_run"), "{why}");
            assert_eq!(but_dry_run(&asked), options(&[("mode", "replace_all")]));
        }
        let asked = options(&[("dry_run", "false"), ("mode", "upsert")]);
        assert_eq!(check(&asked), Ok(()));
        assert_eq!(but_dry_run(&asked), asked);
        let bad = options(&[("dry_run", "maybe")]);
        assert!(check(&bad).is_err() && but_dry_run(&bad) == bad);
    }
}
