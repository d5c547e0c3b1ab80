//! Workbooks that inspections opened, until the imports of the same files read them.
//!
//! Only to spare the import the second reading of the shared strings: whatever
//! is not here, any more or at all, is opened anew, as it is by another process.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, Thread};
use std::time::{Duration, Instant};

use super::sheet::Opened;

/// So many are kept, the latest.
const MOST: usize = 2;
/// For so long: an import that does not wait for another one begins within milliseconds.
const LONGEST: Duration = Duration::from_secs(10);

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept {
    blob: String,
    opened: Opened,
    /// Waits to let it go.
    watch: Thread,
}

/// Keeps the opened workbook of a blob for a while.
pub(super) fn keep(blob: &str, opened: Opened) {
    keep_for(LONGEST, blob, opened);
}

fn keep_for(longest: Duration, blob: &str, opened: Opened) {
    let outdated = {
        let mut kept = kept(); // until it is in, so that its watch does not look before
        let Ok(watch) = watch(longest, blob.to_owned()) else {
            return; // no thread, no keeping
        };
        let outdated = (kept.len() >= MOST).then(|| kept.remove(0));
        kept.push(Kept {
            blob: blob.to_owned(),
            opened,
            watch,
        });
        outdated
    };
    if let Some(outdated) = outdated {
        outdated.watch.unpark();
    }
}

/// Starts a thread that lets a workbook go after a while, and ends once that is gone.
fn watch(longest: Duration, blob: String) -> io::Result<Thread> {
    let until = Instant::now() + longest;
    let watch = Builder::new().name("import-keeps".to_owned());
    let watch = watch.spawn(move || {
        while contains(&blob) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(take(&blob));
            } else {
                thread::park_timeout(left);
            }
        }
    })?;
    Ok(watch.thread().clone())
}

/// Returns the opened workbook of a blob, where it is still kept; it is the caller's then.
pub(super) fn take(blob: &str) -> Option<Opened> {
    let found = {
        let mut kept = kept();
        let at = kept.iter().position(|it| it.blob == blob)?;
        kept.remove(at)
    };
    found.watch.unpark();
    Some(found.opened)
}

fn contains(blob: &str) -> bool {
    kept().iter().any(|it| it.blob == blob)
}

fn kept() -> MutexGuard<'static, Vec<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{
        plan::Wish,
        sheet::{self, Options},
        submit::{self, Accepted},
    };
    use super::*;
    use crate::{blob::Store, config::Config};

    const WORKBOOK: &[u8] = include_bytes!("../../../samples/products.xlsx");

    fn opened() -> Opened {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, WORKBOOK).unwrap();
        let looked = sheet::inspect_and_keep(&path, "", &Options::default());
        looked.unwrap().1.unwrap()
    }

    async fn accepted(store: &Store) -> Accepted {
        let config = Config::default();
        let mut file = store.create().await.unwrap();
        file.write(WORKBOOK).await.unwrap();
        let wish = Wish::from(&config.product_import);
        let accepted = submit::accept(store, &config, file, "a.xlsx", wish).await;
        accepted.unwrap()
    }

    /// The names of the blobs that are there.
    fn blobs(folder: &std::path::Path) -> Vec<String> {
        let names = fs::read_dir(folder.join("blobs")).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// One test, since all of them keep in one place.
    #[tokio::test]
    async fn what_is_kept_is_bounded_and_let_go() {
        keep("a", opened());
        keep("b", opened());
        keep("c", opened());
        assert!(take("a").is_none(), "the oldest went");
        assert!(take("b").is_some());
        assert!(take("b").is_none(), "it is given once");
        assert!(take("c").is_some());

        keep_for(Duration::ZERO, "d", opened());
        while contains("d") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let unwanted = accepted(&store).await;
        let names = blobs(folder.path());
        drop(unwanted);
        assert!(take(&names[0]).is_none(), "nobody will import it");
        accepted(&store).await.keep();
        let names = blobs(folder.path());
        assert!(take(&names[0]).is_some(), "the import goes on with it");
    }
}
