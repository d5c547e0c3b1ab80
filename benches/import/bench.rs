//! The phases of the benchmark.

use std::time::Instant;

use ingestd::{
    ingest::product_import::{
        columns::Columns,
        load::{Loaded, Target, load_chunk},
        locale::Locale,
        plan::{Mode, Plan},
        row::Chunk,
        store::{self, ImportType, NewImport},
    },
    runs::{self, NewRun},
};
use sqlx::{Connection, PgConnection, PgPool};

use super::{Cost, Order, Phase, data, raw};

/// Rows of the chunks that a refused row is looked for in.
const CHUNK_ROWS: u32 = 10_000;

/// What the phases share.
pub(crate) struct Bench {
    pub(crate) pool: PgPool,
    pub(crate) n_rows: u32,
}

impl Bench {
    /// Empties the catalog.
    pub(crate) async fn empty(&self) -> sqlx::Result<()> {
        const EMPTY: &str = "TRUNCATE catalog.products, catalog.product_prices,
            catalog.product_stocks, catalog.imports, catalog.import_errors";
        sqlx::query(EMPTY).execute(&self.pool).await?;
        Ok(())
    }

    /// Does what autovacuum does within a minute.
    pub(crate) async fn vacuum(&self) -> sqlx::Result<()> {
        sqlx::query("VACUUM catalog.products")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Copies the rows in bulk and builds the indexes.
    pub(crate) async fn raw(&self, chunks: &[Chunk]) -> anyhow::Result<Cost> {
        let mut conn = self.pool.acquire().await?;
        raw::prepare(&mut conn).await?;
        checkpoint(&mut conn).await?;
        let phase = Phase::begin(&mut conn).await?;
        raw::load(&mut conn, chunks).await?;
        let cost = phase.end(&mut conn).await?;
        raw::clear(&mut conn).await?;
        Ok(cost)
    }

    /// Imports every chunk over one connection, each in its own transaction.
    pub(crate) async fn import(&self, chunks: &[Chunk]) -> anyhow::Result<Cost> {
        let mut conn = self.pool.acquire().await?;
        let target = target(&mut conn).await?;
        checkpoint(&mut conn).await?;
        let phase = Phase::begin(&mut conn).await?;
        let mut total = Loaded::default();
        for chunk in chunks {
            total.add(&load(&mut conn, &target, chunk).await?);
        }
        let cost = phase.end(&mut conn).await?;
        anyhow::ensure!(
            total.n_ok() == self.n_rows,
            "not every row landed: {total:?}"
        );
        Ok(cost)
    }

    /// Loads a chunk of new rows and one with a row that the database refuses, and returns the
    /// seconds that each took.
    pub(crate) async fn refusal(&self) -> anyhow::Result<(f64, f64)> {
        let mut conn = self.pool.acquire().await?;
        let target = Target {
            tenant: "other",
            ..target(&mut conn).await?
        };
        let mut seconds = [0.0; 2];
        let chunks = data::chunks(8 * CHUNK_ROWS, CHUNK_ROWS, Order::Scattered);
        for (nth, mut chunk) in chunks.into_iter().enumerate() {
            let is_spoilt = nth % 2;
            if let (1, Some(row)) = (is_spoilt, chunk.rows.get_mut(nth * 1_111)) {
                row.name.push('\0');
            }
            let began = Instant::now();
            load(&mut conn, &target, &chunk).await?;
            if let Some(sum) = seconds.get_mut(is_spoilt) {
                *sum += began.elapsed().as_secs_f64();
            }
        }
        let [good, refused] = seconds;
        Ok((good, refused))
    }

    /// Prints a phase, and its time against another's.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn print(&self, name: &str, cost: Cost, against: Option<(&str, Cost)>) -> Cost {
        let ratio = against
            .map(|(other, than)| format!("{:.2} x {other}", cost.seconds / than.seconds))
            .unwrap_or_default();
        println!(
            "{name:<26} {:>9.2} {:>9.0} {:>6.2} + {:>5.2} {:>9.1} {:>8.1}  {ratio}",
            cost.seconds,
            f64::from(self.n_rows) / cost.seconds,
            cost.cpu_seconds,
            cost.server_cpu_seconds,
            cost.wal_bytes as f64 / 1e6,
            cost.peak_bytes as f64 / 1e6,
        );
        cost
    }
}

/// Phases are not to pay for each other.
async fn checkpoint(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("CHECKPOINT").execute(conn).await?;
    Ok(())
}

/// Makes a run and its import.
async fn target(conn: &mut PgConnection) -> sqlx::Result<Target<'static>> {
    let new = NewRun {
        system: "product_import",
        job_kind: None,
        tenant: "default".into(),
        triggered_by: "bench".into(),
        params: serde_json::json!({}),
        items_total: None,
    };
    let id = runs::create(conn, &new).await?.0;
    let import = NewImport {
        id,
        tenant: "default",
        import_type: ImportType::Parts,
        file_name: "bench.xlsx",
        file_size_bytes: 0,
        file_sha256: [0; 32],
        plan: Plan::default(),
        reading_hash: 0,
    };
    store::create(conn, &import).await?;
    Ok(Target {
        import_id: id,
        tenant: "default",
        sheet: None,
        columns: Columns::ALL,
        mode: Mode::Upsert,
        mapping: None,
        locale: Locale::default(),
        notes_search: false,
    })
}

/// Commits one chunk as the job does, but for the fence and the run's progress.
async fn load(conn: &mut PgConnection, target: &Target<'_>, chunk: &Chunk) -> sqlx::Result<Loaded> {
    let mut tx = conn.begin().await?;
    let written = load_chunk(&mut tx, target, chunk).await?;
    store::count(&mut tx, target.import_id, &written).await?;
    tx.commit().await?;
    Ok(written.loaded)
}
