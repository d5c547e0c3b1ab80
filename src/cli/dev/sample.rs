//! The sample: a workbook with good and bad rows, and jobs that end in every way.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    cli::{Failure, Session, import},
    ingest::{product_import::submit::Origin, system::Noop},
    queue::{self, Job as _, JobId, NewJob},
    runs::RunId,
};

/// The workbook, in the binary so that it alone can show what it does.
const PRODUCTS: &[u8] = include_bytes!("../../../samples/products.xlsx");

/// What the workbook is called.
pub(super) const FILE_NAME: &str = "products.xlsx";

/// The owner of the sample's products, so that they are told from others in a given database.
pub(super) const TENANT: &str = "demo";

/// Submits the workbook as a user would.
pub(super) async fn submit(session: &mut Session) -> Result<RunId, Failure> {
    let origin = Origin {
        tenant: TENANT,
        triggered_by: "dev",
    };
    import::submit(PRODUCTS, FILE_NAME, origin, session).await
}

/// Puts the workbook into the data folder, to be looked at and imported again; returns its path.
pub(super) async fn unpack(dir: &Path) -> std::io::Result<PathBuf> {
    tokio::fs::create_dir_all(dir).await?;
    let path = dir.join(FILE_NAME);
    tokio::fs::write(&path, PRODUCTS).await?;
    Ok(path)
}

/// Enqueues jobs that complete, that are tried again, and that fail for good; describes them.
pub(super) async fn enqueue(session: &mut Session) -> Result<String, Failure> {
    let ok = insert(json!({ "sleep_ms": 200 }), session).await?;
    let retried = insert(json!({ "outcome": "retry" }), session).await?;
    let fatal = insert(json!({ "outcome": "fatal" }), session).await?;
    Ok(format!(
        "{ok} completes, {retried} is tried three times, {fatal} fails: a dead letter"
    ))
}

async fn insert(args: serde_json::Value, session: &mut Session) -> Result<JobId, Failure> {
    let new = NewJob {
        kind: Noop::KIND.to_owned(),
        args,
        max_attempts: Some(3),
        meta: Some(json!({ "enqueued_by": "dev" })),
        ..NewJob::default()
    };
    let enqueued = queue::enqueue_raw(&mut session.conn, &new).await?;
    // There is no unique key that another job could have.
    Ok(enqueued.id.ok_or(sqlx::Error::RowNotFound)?)
}
