//! Downloads of an import: its rejected rows with what is wrong with them, to be mended and imported
//! again, and the rows that were imported. Written as they are read, page by page.
//!
//! Synchronous, for a thread of its own: [`write`] asks the database on the runtime it is given.
//! The columns of [`ERROR_COLUMNS`] behind the file's own are ignored when the file comes back.

mod columns;
mod page;
mod table;

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
};

use sqlx::{PgConnection, PgPool, types::Json};
use tokio::runtime::Handle;

use columns::Columns;
pub use columns::SHEET_COLUMN;
use table::Table;
pub use table::TableFormat;
pub(super) use table::unescaped;

use super::{
    job::{self, Params},
    load::{rejected, storable},
    retention,
    sheet::{self, Refusal},
};
use crate::{
    blob,
    config::Config,
    runs::{self, RunId, RunState},
};

/// Headers of the columns that say what is wrong with a row.
pub const ERROR_COLUMNS: [&str; 4] = [
    "import_error_row",
    "import_error_columns",
    "import_error_codes",
    "import_errors",
];

/// Which rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those that were rejected, with what is wrong with them.
    Errors,
    /// Those that were imported.
    Results,
}

impl Part {
    /// Returns its word in file names.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Results => "results",
        }
    }
}

/// Where a download's rows come from.
#[derive(Debug)]
pub enum Db<'c> {
    /// A connection of its own.
    Own(&'c mut PgConnection),
    /// A pool, of which it has a connection while it asks, and none while it writes: who reads the
    /// download slowly keeps nobody from the database.
    Pool(&'c PgPool),
}

impl Db<'_> {
    async fn page(&mut self, id: RunId, after: (&str, i32)) -> sqlx::Result<Vec<page::Row>> {
        match self {
            Self::Own(conn) => page::read(conn, id, after, page::BYTES).await,
            Self::Pool(pool) => {
                let mut conn = pool.acquire().await?;
                page::read(&mut conn, id, after, page::BYTES).await
            }
        }
    }

    /// Returns the numbers of the rejected rows of a sheet in order: four bytes each.
    async fn rejected(&mut self, id: RunId, sheet: &str) -> sqlx::Result<Vec<u32>> {
        // the primary key
        const REJECTED: &str = "SELECT row_no FROM catalog.rejected_rows
            WHERE import_id = $1 AND sheet = $2 ORDER BY row_no";
        let rows = sqlx::query_scalar(REJECTED).bind(id).bind(sheet);
        let rows: Vec<i32> = match self {
            Self::Own(conn) => rows.fetch_all(&mut **conn).await?,
            Self::Pool(pool) => rows.fetch_all(*pool).await?,
        };
        Ok(rows.into_iter().map(i32::cast_unsigned).collect())
    }
}

/// Why there is no download.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no import of that id.
    #[error("there is no import {0}")]
    NotFound(RunId),
    /// The uploaded file is needed and not kept any more.
    #[error(
        "the uploaded file is not kept any more; product_import.keep_files and queue.retention_days \
         say how long it is"
    )]
    Gone,
    /// Its rejected rows are deleted.
    #[error(
        "the rejected rows of import {0} are deleted; they are kept for \
         product_import.retention_days after its end"
    )]
    Forgotten(RunId),
    /// The uploaded file cannot be read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Whoever reads the download is gone, or the disk is full.
    #[error("the rows cannot be written: {0}")]
    Output(#[from] io::Error),
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What is downloaded, found out before the first byte is written.
#[derive(Debug)]
pub struct Download {
    id: RunId,
    part: Part,
    params: Params,
    /// The file, and how it is read; for [`Part::Results`].
    file: Option<(PathBuf, sheet::Options)>,
    /// Chunks from this one on are not committed.
    n_chunks: u32,
}

impl Download {
    /// Finds an import and what its download needs.
    ///
    /// # Errors
    ///
    /// [`ExportError::NotFound`], [`ExportError::Gone`], [`ExportError::Forgotten`], or what Postgres says.
    pub async fn find(
        conn: &mut PgConnection,
        blobs: &blob::Store,
        config: &Config,
        id: RunId,
        part: Part,
    ) -> Result<Self, ExportError> {
        let run = runs::get(&mut *conn, id)
            .await?
            .ok_or(ExportError::NotFound(id))?;
        let params = serde_json::from_value::<Params>(run.params);
        // a run of another sort has other params
        let params = params.map_err(|_| ExportError::NotFound(id))?;
        // Without them it could not be told what was imported, either.
        if !retention::is_kept(&mut *conn, id.0).await? {
            return Err(ExportError::Forgotten(id));
        }
        let committed = job::chunks_committed(run.cursor);
        let file = match part {
            Part::Errors => None,
            Part::Results => {
                let path = blobs.path(&params.blob).filter(|path| path.exists());
                let mut options = sheet::Options::from(&config.product_import);
                params.plan.apply(&mut options);
                options.allow_duplicates = true;
                if let Some((_, fingerprint)) = committed {
                    let _knows_ends = params.inspection.go_on(&mut options, fingerprint);
                }
                Some((path.ok_or(ExportError::Gone)?, options))
            }
        };
        let n_chunks = match run.state {
            RunState::Completed => u32::MAX,
            _ => committed.map_or(0, |(n_chunks, _)| n_chunks),
        };
        Ok(Self {
            id,
            part,
            params,
            file,
            n_chunks,
        })
    }

    /// Returns a name for the download: `products.errors.csv`.
    #[must_use]
    pub fn file_name(&self, format: TableFormat) -> String {
        let name = &self.params.file_name;
        let stem = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(stem, _)| stem);
        let kept = |c: char| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        };
        let stem: String = stem.chars().map(kept).take(100).collect();
        format!("{stem}.{}.{}", self.part.word(), format.extension())
    }

    /// Writes the table; returns how many rows it has. Blocks: not on a thread of the runtime.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written until then is no whole file.
    pub fn write(
        &self,
        handle: &Handle,
        mut db: Db<'_>,
        format: TableFormat,
        out: impl Write + Send,
    ) -> Result<u64, ExportError> {
        let columns = Columns::of(&self.params.inspection);
        let mut headers = columns.headers();
        if self.part == Part::Errors {
            headers.extend(ERROR_COLUMNS.map(str::to_owned));
        }
        let mut table = Table::begin(format, out, &headers)?;
        let n_rows = match &self.file {
            None => self.errors(handle, &mut db, &columns, &mut table)?,
            Some((path, options)) => {
                let mut rejected = Vec::new();
                for sheet in self.sheets() {
                    rejected.push(handle.block_on(db.rejected(self.id, &sheet))?);
                }
                self.results(path, options, &columns, &rejected, &mut table)?
            }
        };
        table.finish()?;
        Ok(n_rows)
    }

    /// Returns the names of the sheets that are read, as rejected rows have them.
    fn sheets(&self) -> Vec<String> {
        let heads = self.params.inspection.heads();
        let names = heads.map(|head| storable(head.sheet.unwrap_or_default()).into_owned());
        names.collect()
    }

    fn errors<W: Write>(
        &self,
        handle: &Handle,
        db: &mut Db<'_>,
        columns: &Columns,
        table: &mut Table<W>,
    ) -> Result<u64, ExportError> {
        let mut n_rows = 0;
        for (place, sheet) in self.sheets().iter().enumerate() {
            let mut after = 0;
            loop {
                let page = handle.block_on(db.page(self.id, (sheet, after)))?;
                let of_sheet = page.iter().take_while(|row| row.0 == *sheet);
                let mut last = None;
                for (_, row_no, Json(cells), faulty, codes, messages) in of_sheet {
                    let number = row_no.to_string();
                    let said = [
                        Some(&number),
                        faulty.as_ref(),
                        codes.as_ref(),
                        messages.as_ref(),
                    ];
                    let said = said.into_iter().map(|text| text.map(String::as_str));
                    table.row(columns.row(place, cells).into_iter().chain(said))?;
                    last = Some(*row_no);
                    n_rows += 1;
                }
                match last {
                    Some(row_no) => after = row_no,
                    None => break,
                }
            }
        }
        Ok(n_rows)
    }

    fn results<W: Write + Send>(
        &self,
        path: &std::path::Path,
        options: &sheet::Options,
        columns: &Columns,
        rejected: &[Vec<u32>],
        table: &mut Table<W>,
    ) -> Result<u64, ExportError> {
        let (mut n_rows, mut written) = (0, Ok(()));
        let inspection = &self.params.inspection;
        sheet::read(path, inspection, options, &mut |chunk| {
            if chunk.seq >= self.n_chunks {
                return ControlFlow::Break(());
            }
            let mapping = inspection.head(chunk.sheet).mapping;
            let rejected = rejected.get(chunk.sheet).map_or(&[][..], Vec::as_slice);
            for row in &chunk.rows {
                if rejected.binary_search(&row.row_no).is_ok() {
                    continue;
                }
                let row = rejected::of(row, mapping, self.params.plan.locale);
                written = table.row(columns.row(chunk.sheet, &row.cells).into_iter());
                if written.is_err() {
                    return ControlFlow::Break(());
                }
                n_rows += 1;
            }
            ControlFlow::Continue(())
        })?;
        written?;
        Ok(n_rows)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ingest::product_import::{
        plan::Plan,
        row::{
            field::Field,
            header::{Column, Mapping, Target},
        },
        sheet::{Format, Inspection},
    };
    use crate::{runs::Driver, testing::Database};

    /// What writes only while it gets a connection.
    struct Needy(Handle, PgPool);

    impl Write for Needy {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let got = self.0.block_on(self.1.acquire());
            got.map(|_| bytes.len()).map_err(io::Error::other)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn no_connection_is_held_while_rows_are_written() {
        const ROWS: &str = "INSERT INTO catalog.rejected_rows (import_id, row_no, cells)
            SELECT 7, n, jsonb_build_array(repeat('x', 1000)) FROM generate_series(2, 701) n";
        let db = Database::create().await;
        sqlx::query(ROWS).execute(db.pool()).await.unwrap();
        let pool = sqlx::postgres::PgPoolOptions::new();
        let pool = pool
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(40));
        let pool = pool.connect(db.url()).await.unwrap();
        let column = Column {
            index: 0,
            header: "code".into(),
            target: Target::Field(Field::Code),
        };
        let inspection = Inspection {
            format: Format::Xlsx,
            sheet: None,
            header_row: 1,
            mapping: Mapping {
                columns: vec![column],
            },
            rows_at_most: None,
            more: Vec::new(),
            skipped: Vec::new(),
            left_out: Vec::new(),
        };
        let download = Download {
            id: RunId(7),
            part: Part::Errors,
            params: Params {
                blob: String::new(),
                file_name: "file.xlsx".into(),
                inspection,
                plan: Plan::default(),
                driver: Driver::default(),
            },
            file: None,
            n_chunks: 1,
        };
        let handle = Handle::current();
        let written = tokio::task::spawn_blocking(move || {
            let out = Needy(handle.clone(), pool.clone());
            download.write(&handle, Db::Pool(&pool), TableFormat::Csv, out)
        });
        assert_eq!(written.await.unwrap().unwrap(), 700);
    }
}
