//! Loading alone, one connection, beside the bulk COPY of the same rows.

use std::time::Instant;

use ingestd::{
    ingest::product_import::{
        load::{Loaded, Target, Turn, columns::Columns, load_chunk, take_turn},
        plan::{Mode, Plan},
        row::{Chunk, locale::Locale},
        store::{self, ImportType, NewImport},
    },
    runs::{self, NewRun},
};
use sqlx::{Connection, PgConnection};

use super::{
    Arguments,
    data::{self, Order},
    measure::{Cost, Phase},
    raw,
    report::{Report, median, print_cost, print_head},
    rig::{Rig, checkpoint},
};

/// Rows of the chunks that a refused row is looked for in.
const CHUNK_ROWS: u32 = 10_000;

/// Measures loading alone, of rows made before the clocks run: codes in their order, as an export
/// of a catalog has them, and in none, where every key falls on another page of its index.
pub(crate) async fn measure(rig: &Rig, arguments: &Arguments) -> anyhow::Result<()> {
    for order in [Order::Sorted, Order::Scattered] {
        let mut chunks = data::chunks(arguments.rows, arguments.chunk_rows, order);
        print_head(&format!("loading alone, {order:?} codes"));
        measure_order(rig, arguments.rows, &mut chunks).await?;
    }
    Ok(())
}

async fn measure_order(rig: &Rig, n_rows: u32, chunks: &mut [Chunk]) -> anyhow::Result<()> {
    rig.empty().await?;
    raw(rig, chunks).await?; // makes the WAL's files
    let limit = raw(rig, chunks).await?;
    print_cost("bulk COPY + indexes", n_rows, &limit, "");
    let first = import(rig, n_rows, chunks).await?;
    let against = |name: &str, cost: Cost, other: &str, than: Cost| {
        let times = cost.seconds / than.seconds;
        print_cost(name, n_rows, &cost, &format!("{times:.2} x {other}"));
    };
    against("first import", first, "bulk", limit);
    let same = import(rig, n_rows, chunks).await?;
    against("same rows again", same, "first", first);
    data::change_a_tenth(chunks);
    let changed = import(rig, n_rows, chunks).await?;
    against("10 % changed", changed, "first", first);
    // Whoever comes first to a page with dead rows cleans it up: this import, or a vacuum before.
    let unclean = import(rig, n_rows, chunks).await?;
    against("again, before a vacuum", unclean, "first", first);
    rig.vacuum().await?;
    let clean = import(rig, n_rows, chunks).await?;
    against("again, after a vacuum", clean, "first", first);
    Ok(())
}

async fn raw(rig: &Rig, chunks: &[Chunk]) -> anyhow::Result<Cost> {
    let mut conn = rig.pool.acquire().await?;
    raw::measure(&mut conn, chunks).await
}

/// Imports every chunk over one connection, each in its own transaction.
async fn import(rig: &Rig, n_rows: u32, chunks: &[Chunk]) -> anyhow::Result<Cost> {
    let mut conn = rig.pool.acquire().await?;
    let target = target(&mut conn).await?;
    checkpoint(&mut conn).await?;
    let phase = Phase::begin(&mut conn).await?;
    let mut total = Loaded::default();
    for chunk in chunks {
        total.add(&load(&mut conn, &target, chunk).await?);
    }
    let cost = phase.end(&mut conn).await?;
    anyhow::ensure!(total.n_ok() == n_rows, "not every row landed: {total:?}");
    Ok(cost)
}

/// Loads chunks of new rows in turn, every other one with a row that the database refuses.
pub(crate) async fn refusal(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    rig.empty().await?;
    let mut conn = rig.pool.acquire().await?;
    let target = target(&mut conn).await?;
    let mut seconds = [Vec::new(), Vec::new()];
    let chunks = data::chunks(10 * CHUNK_ROWS, CHUNK_ROWS, Order::Scattered);
    for (nth, mut chunk) in chunks.into_iter().enumerate() {
        let is_spoilt = nth % 2;
        if let (1, Some(row)) = (is_spoilt, chunk.rows.get_mut(nth * 1_111)) {
            row.name = format!("{}\0", row.name).into();
        }
        let began = Instant::now();
        let loaded = load(&mut conn, &target, &chunk).await?;
        anyhow::ensure!(usize::try_from(loaded.refused)? == is_spoilt, "{loaded:?}");
        if let Some(seconds) = seconds.get_mut(is_spoilt) {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    let [good, spoilt] = seconds.map(median);
    println!(
        "\na good chunk of {CHUNK_ROWS} rows takes {good:.3} s, one with a refused row {spoilt:.3} s"
    );
    let times = spoilt / good;
    report.add(
        "a chunk with a row that the database refuses",
        "at most 5 x a good one",
        format!("{times:.2} x"),
        Some(times <= 5.0),
    );
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
        expects_new: false,
    })
}

/// Commits one chunk as the job does, but for the fence and the run's progress.
async fn load(conn: &mut PgConnection, target: &Target<'_>, chunk: &Chunk) -> sqlx::Result<Loaded> {
    let mut tx = conn.begin().await?;
    take_turn(&mut tx, target.tenant, Turn::Alone).await?;
    let (written, rejects) = load_chunk(&mut tx, target, chunk).await?;
    rejects.write(&mut tx, target, chunk).await?;
    store::count(&mut tx, target.import_id, &written).await?;
    tx.commit().await?;
    Ok(written.loaded)
}
