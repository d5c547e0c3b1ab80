//! Chunks into the catalog: what a row changes, how a refused row is found, what is counted.
//!
//! Not for reading the sheet, and not for the run: the fence, the cursor, the
//! heartbeat and the commit are the caller's. A *slice* is a part of a chunk's
//! rows; a row is *refused* when the database itself will not have it.
//!
//! What a row means for the catalog:
//! * A product is found by its code. A new one is inserted, one whose hash
//!   differs is updated, the rest is not touched. An archived product that
//!   appears again is live again.
//! * A column that the file does not have changes nothing; an empty cell of a
//!   column that it has clears the value.
//! * A price that differs, in amount or currency, ends the live one and starts
//!   another; an empty price cell ends the live one. `1.5` and `1.50` do not
//!   differ. Where the file has no currency column the live currency stays.
//!   Stocks likewise.

pub mod columns;
pub(super) mod commit;
pub(super) mod handover;
pub(super) mod history;
pub mod preview;
mod probe;
pub(super) mod rejected;
mod slice;
pub mod tally;

use std::borrow::Cow;

use sqlx::{Acquire, PgConnection, postgres::PgDatabaseError};

use super::{
    plan::Mode,
    row::{
        Chunk, ProductRow, RejectedRow, RowError,
        fault::Fault,
        field::Field,
        header::{self, Mapping},
        locale::Locale,
    },
};
use crate::db::copy::CopyIn;
use columns::Columns;
use preview::Preview;
use slice::Slice;

/// The code of the row error that stands for a refused row.
pub const REFUSED: &str = "refused_by_database";

/// Slices up to this many rows are not halved any more but tried row by row.
const SMALLEST_SLICE: usize = 32;

/// A row error shows at most this many characters of a code.
const SHOWN_CHARS: usize = 200;

/// Where chunks go.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The import, `catalog.imports.id`.
    pub import_id: i64,
    /// The owner of the products.
    pub tenant: &'a str,
    /// The sheet's name for the row errors; `None` where the file has none, as in CSV.
    pub sheet: Option<&'a str>,
    /// The optional columns that the file has.
    pub columns: Columns,
    /// What becomes of rows that the catalog has, lacks, or has otherwise.
    pub mode: Mode,
    /// The file's columns, to keep rejected rows as it has them; `None` keeps bad rows only.
    pub mapping: Option<&'a Mapping>,
    /// How the file writes numbers.
    pub locale: Locale,
    /// Whether what changes is noted for the search server.
    pub notes_search: bool,
    /// Whether the rows are new as far as anybody knows: they may then be inserted without a look
    /// whether they are there, and where one is, all of the chunk are looked for after all.
    pub expects_new: bool,
}

/// What became of the rows of a chunk; their sum is the number of rows read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows that made a new product.
    pub inserted: u32,
    /// Rows that changed a product, or made an archived one live again.
    pub updated: u32,
    /// Rows that the catalog had already.
    pub unchanged: u32,
    /// Rows that the reader found bad.
    pub bad: u32,
    /// Rows that the database refused, each with a row error of code [`REFUSED`].
    pub refused: u32,
    /// Rows that the mode does not import, each with a row error.
    pub turned_away: u32,
}

/// What became of a chunk, row by row where that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// How many rows came to what.
    pub loaded: Loaded,
    /// `row_no` of the rows that made a new product.
    pub new: Vec<u32>,
    /// `row_no` and product of the rows that changed one.
    pub changed: Vec<(u32, i64)>,
    /// The smallest and the greatest id of the new products.
    pub created: Option<(i64, i64)>,
}

impl Written {
    fn add(&mut self, other: Self) {
        self.loaded.add(&other.loaded);
        self.new.extend(other.new);
        self.changed.extend(other.changed);
        self.created = match (self.created, other.created) {
            (Some((first, last)), Some((low, high))) => Some((first.min(low), last.max(high))),
            (one, other) => one.or(other),
        };
    }
}

impl Loaded {
    /// Returns how many rows are in the catalog as the file has them.
    #[must_use]
    pub const fn n_ok(&self) -> u32 {
        self.inserted + self.updated + self.unchanged
    }

    /// Returns how many rows have an error.
    #[must_use]
    pub const fn n_failed(&self) -> u32 {
        self.bad + self.refused + self.turned_away
    }

    /// Adds the counts of `other`.
    pub const fn add(&mut self, other: &Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.bad += other.bad;
        self.refused += other.refused;
        self.turned_away += other.turned_away;
    }
}

/// Writes one chunk into the catalog, inside the caller's transaction.
///
/// A row that the database refuses is found by halving the chunk under
/// savepoints, becomes a row error of code [`REFUSED`], and the rest lands.
/// The caller [writes the row errors](Rejects::write), chunk by chunk in the
/// order of the file. Product rows may come twice, the second time changes
/// nothing; row errors are written each time, so the caller's cursor must tell
/// committed chunks.
///
/// The caller has [taken his turn](take_turn). The planner's settings are
/// changed for the rest of the transaction, so nothing but small statements
/// should follow.
///
/// # Errors
///
/// Whatever is no fault of a row: a lost connection, a deadlock, a cancelled
/// statement, a missing right. The transaction is then good for a rollback only.
pub async fn load_chunk(
    conn: &mut PgConnection,
    target: &Target<'_>,
    chunk: &Chunk,
) -> sqlx::Result<(Written, Rejects)> {
    settle_plans(conn).await?;
    let mut rejects = Rejects::default();
    let mut written = load_rows(conn, target, &chunk.rows, &mut rejects).await?;
    written.loaded.bad = chunk.n_bad;
    Ok((written, rejects))
}

/// As [`load_chunk`], but nothing stays except the row errors; `preview` is shown what would have.
///
/// # Errors
///
/// As [`load_chunk`].
pub async fn rehearse_chunk(
    conn: &mut PgConnection,
    target: &Target<'_>,
    chunk: &Chunk,
    preview: &mut Preview,
) -> sqlx::Result<Written> {
    settle_plans(conn).await?;
    let mut out = Rejects::default();
    let mut savepoint = conn.begin().await?;
    let mut written = load_rows(&mut savepoint, target, &chunk.rows, &mut out).await?;
    preview
        .take(&mut savepoint, target, chunk, &written)
        .await?;
    savepoint.rollback().await?;
    written.loaded.bad = chunk.n_bad;
    preview.reject(target.sheet, [&chunk.errors, &out.errors]);
    out.write(conn, target, chunk).await?;
    Ok(written)
}

/// Rows that were good until they met the catalog.
#[derive(Debug, Default)]
#[must_use = "or nobody hears of them"]
pub struct Rejects {
    errors: Vec<RowError>,
    rows: Vec<RejectedRow>,
}

impl Rejects {
    pub(super) fn refuse(&mut self, target: &Target<'_>, row: &ProductRow, message: String) {
        self.errors.push(row_error(row, message));
        self.keep(target, row);
    }

    fn turn_away(&mut self, target: &Target<'_>, row: &ProductRow, fault: &Fault) {
        let code = target
            .mapping
            .and_then(|mapping| mapping.header_of(Field::Code));
        let shown = header::cut(&row.code, SHOWN_CHARS);
        self.errors.push(RowError {
            row_no: row.row_no,
            column: code.map(ToOwned::to_owned),
            code: fault.code(),
            message: fault.message("", shown),
            value: Some(shown.to_owned()),
        });
        self.keep(target, row);
    }

    fn keep(&mut self, target: &Target<'_>, row: &ProductRow) {
        let mapping = target.mapping.into_iter();
        self.rows
            .extend(mapping.map(|mapping| rejected::of(row, mapping, target.locale)));
    }

    /// Writes the errors and cells of these rows and of the chunk's bad ones.
    ///
    /// # Errors
    ///
    /// As [`load_chunk`].
    pub async fn write(
        &self,
        conn: &mut PgConnection,
        target: &Target<'_>,
        chunk: &Chunk,
    ) -> sqlx::Result<()> {
        write_errors(conn, target, [&chunk.errors, &self.errors]).await?;
        rejected::write(conn, target, [&chunk.rejected, &self.rows]).await
    }
}

/// Leaves every statement of this transaction one possible plan.
///
/// The tables are empty when the first chunk is planned, and what the planner
/// concludes from that is 20 to 100 times slower once they are not.
pub(super) async fn settle_plans(conn: &mut PgConnection) -> sqlx::Result<()> {
    const SETTLE: &str = "SELECT set_config(name, value, true) FROM (VALUES
        ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'),
        ('enable_bitmapscan', 'off'), ('enable_memoize', 'off'), ('jit', 'off'),
        ('plan_cache_mode', 'force_generic_plan')) AS setting (name, value)";
    sqlx::query(SETTLE).execute(conn).await?;
    Ok(())
}

/// With whom a chunk shares its turn at an owner's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// With nobody.
    Alone,
    /// With other chunks of the same import; no two imports of an owner may share.
    Shared,
}

/// Waits for a turn at the products of a tenant, which lasts until the transaction ends.
///
/// Two imports could otherwise both find a code missing and both insert it, or
/// compare with a price that the other is just replacing. It is an advisory lock.
///
/// # Errors
///
/// What Postgres says.
pub async fn take_turn(conn: &mut PgConnection, tenant: &str, turn: Turn) -> sqlx::Result<()> {
    const ALONE: &str =
        "SELECT pg_advisory_xact_lock(hashtextextended('catalog.products:' || $1, 0))";
    const SHARED: &str =
        "SELECT pg_advisory_xact_lock_shared(hashtextextended('catalog.products:' || $1, 0))";
    let lock = match turn {
        Turn::Alone => ALONE,
        Turn::Shared => SHARED,
    };
    sqlx::query(lock).bind(tenant).execute(conn).await?;
    Ok(())
}

/// Writes what the database takes of `rows`, and adds a row error for each row it refuses.
async fn load_rows(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &[ProductRow],
    out: &mut Rejects,
) -> sqlx::Result<Written> {
    let mut written = Written::default();
    let mut slices = vec![rows];
    let mut expects_new = target.expects_new && target.mode != Mode::UpdateOnly;
    while let Some(slice) = slices.pop() {
        match (try_slice(conn, target, slice, expects_new).await?, slice) {
            (Ok(done), _) => {
                written.add(done.written);
                for (row, fault) in &done.turned_away {
                    out.turn_away(target, row, fault);
                }
            }
            (Err(_), _) if expects_new => {
                expects_new = false;
                slices.push(slice);
            }
            (Err(message), [row]) => {
                written.loaded.refused += 1;
                out.refuse(target, row, message);
            }
            (Err(_), _) => slices.extend(smaller(slice).rev()),
        }
    }
    Ok(written)
}

/// Cuts a slice that was refused: in halves, and a small one in single rows.
pub(super) fn smaller(slice: &[ProductRow]) -> std::slice::Chunks<'_, ProductRow> {
    let size = if slice.len() > SMALLEST_SLICE {
        slice.len().div_ceil(2)
    } else {
        1
    };
    slice.chunks(size)
}

/// Writes a slice under a savepoint; where the database refuses it, nothing of it stays and
/// the message comes back.
async fn try_slice<'a>(
    conn: &mut PgConnection,
    target: &Target<'_>,
    rows: &'a [ProductRow],
    expects_new: bool,
) -> sqlx::Result<Result<Slice<'a>, String>> {
    let mut savepoint = conn.begin().await?;
    match slice::write(&mut savepoint, target, rows, expects_new).await {
        Ok(done) => {
            savepoint.commit().await?;
            Ok(Ok(done))
        }
        Err(error) => {
            let message = refusal(&error).ok_or(error)?;
            savepoint.rollback().await?;
            Ok(Err(message))
        }
    }
}

/// Returns what the database has against the row, or `None` where the error is no row's fault.
///
/// Classes of the manual's appendix A: 22 data exception, 23 integrity
/// constraint violation, 54 program limit exceeded (a key too long for its
/// index), and P0001, raised by a trigger.
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<PgDatabaseError>()?;
    let is_refusal =
        matches!(error.code().get(..2), Some("22" | "23" | "54")) || error.code() == "P0001";
    let column = error.r#where().and_then(copied_column);
    is_refusal.then(|| match column {
        Some(column) => format!("{column}: {}", error.message()),
        None => error.message().to_owned(),
    })
}

/// Returns the column out of a COPY's context: `COPY products, line 1, column name: "…"`.
fn copied_column(context: &str) -> Option<&str> {
    let (_, rest) = context.lines().next()?.split_once(", column ")?;
    rest.split(':').next()
}

/// Makes the row error that stands for a refused row.
fn row_error(row: &ProductRow, message: String) -> RowError {
    RowError {
        row_no: row.row_no,
        column: None,
        code: REFUSED,
        message,
        value: Some(row.code.to_string()),
    }
}

/// Appends row errors to `catalog.import_errors`.
async fn write_errors(
    conn: &mut PgConnection,
    target: &Target<'_>,
    errors: [&[RowError]; 2],
) -> sqlx::Result<()> {
    const COPY: &str = "COPY catalog.import_errors
        (import_id, sheet, row_no, column_name, code, message, value) FROM STDIN (FORMAT binary)";
    if errors.iter().all(|errors| errors.is_empty()) {
        return Ok(());
    }
    let sheet = target.sheet.map(storable);
    let mut copy = CopyIn::begin(conn, COPY).await?;
    for error in errors.into_iter().flatten() {
        copy.row(|row| {
            row.push(target.import_id)
                .push(sheet.as_deref())
                .push(error.row_no.cast_signed());
            row.push(error.column.as_deref().map(storable).as_deref())
                .push(error.code);
            row.push(&*storable(&error.message))
                .push(error.value.as_deref().map(storable).as_deref());
        })
        .await?;
    }
    copy.finish().await?;
    Ok(())
}

/// Replaces the one character that Postgres cannot store, so that an error about it can be stored.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_is_found_by_halving_and_in_the_end_one_by_one() {
        let sizes = |n_rows: usize| -> Vec<usize> {
            let rows = vec![ProductRow::default(); n_rows];
            smaller(&rows).map(<[_]>::len).collect()
        };
        assert_eq!(sizes(10_000), [5_000, 5_000]);
        assert_eq!(sizes(33), [17, 16]);
        assert_eq!(sizes(32), [1; 32]);
        assert_eq!(sizes(2), [1, 1]);
        // one bad row among ten thousand: so many slices are tried, not ten thousand
        let (mut n_tried, mut slices) = (0, vec![(0, 10_000)]);
        while let Some((from, n_rows)) = slices.pop() {
            n_tried += 1;
            if (from..from + n_rows).contains(&7_777) && n_rows > 1 {
                let mut at = from;
                for n in sizes(n_rows) {
                    slices.push((at, n));
                    at += n;
                }
            }
        }
        assert!(n_tried < 60, "{n_tried}");
    }
}
