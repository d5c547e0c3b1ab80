//! What the tests of the loader share: imports, rows, and the catalog in words.

use ingestd::{
    ingest::product_import::{
        load::{Loaded, Target, Turn, columns::Columns, load_chunk, take_turn},
        plan::{Mode, Plan},
        row::{Chunk, ProductRow, RowError, locale::Locale},
        store::{self, ImportType, NewImport},
    },
    runs::{self, NewRun},
    testing::Database,
};
use sqlx::{PgConnection, PgPool};

use crate::queue_rig::PATIENCE;

/// A catalog of its own for one test.
pub(crate) struct Rig {
    pub(crate) db: Database,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self {
            db: Database::create().await,
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// Makes an import and its run.
    pub(crate) async fn import(&self) -> Target<'static> {
        let new = NewRun {
            system: "product_import",
            job_kind: None,
            tenant: "default".into(),
            triggered_by: "test".into(),
            params: serde_json::json!({}),
            items_total: None,
        };
        let mut tx = self.pool().begin().await.unwrap();
        let id = runs::create(&mut tx, &new).await.unwrap().0;
        let import = NewImport {
            id,
            tenant: "default",
            import_type: ImportType::Parts,
            file_name: "products.xlsx",
            file_size_bytes: 1,
            file_sha256: [7; 32],
            plan: Plan::default(),
            reading_hash: 0,
        };
        store::create(&mut tx, &import).await.unwrap();
        tx.commit().await.unwrap();
        Target {
            import_id: id,
            tenant: "default",
            sheet: Some("Products"),
            columns: Columns::ALL,
            mode: Mode::Upsert,
            mapping: None,
            locale: Locale::default(),
            notes_search: false,
            expects_new: false,
        }
    }

    /// Loads a chunk in a transaction of its own, counted as the job counts it.
    pub(crate) async fn load(&self, target: &Target<'_>, chunk: &Chunk) -> Loaded {
        self.try_load(target, chunk).await.unwrap()
    }

    pub(crate) async fn try_load(
        &self,
        target: &Target<'_>,
        chunk: &Chunk,
    ) -> sqlx::Result<Loaded> {
        let mut tx = self.pool().begin().await?;
        take_turn(&mut tx, target.tenant, Turn::Alone).await?;
        let (written, rejects) = load_chunk(&mut tx, target, chunk).await?;
        rejects.write(&mut tx, target, chunk).await?;
        store::count(&mut tx, target.import_id, &written).await?;
        tx.commit().await?;
        Ok(written.loaded)
    }

    /// Loads rows as an import of their own and returns its id and counts.
    pub(crate) async fn rows(&self, columns: Columns, rows: &[ProductRow]) -> (i64, Loaded) {
        let target = Target {
            columns,
            ..self.import().await
        };
        (
            target.import_id,
            self.load(&target, &chunk(rows.to_vec())).await,
        )
    }

    /// Returns the one text that a statement answers with.
    pub(crate) async fn ask(&self, statement: &'static str) -> String {
        let mut conn = self.pool().acquire().await.unwrap();
        ask(&mut conn, statement).await
    }

    pub(crate) async fn run(&self, statement: &'static str) {
        sqlx::query(statement).execute(self.pool()).await.unwrap();
    }

    /// Says a product's prices in their order, with the imports that wrote them: a live one has a `*`.
    pub(crate) async fn prices(&self) -> String {
        self.ask(
            "SELECT coalesce(string_agg(format('%s %s%s %s%s', p.code, x.price, x.currency, x.import_id,
                      CASE WHEN x.archived_at IS NULL THEN '*' END),
                    ', ' ORDER BY p.code, x.valid_from), '')
             FROM catalog.products p JOIN catalog.product_prices x ON x.product_id = p.id",
        )
        .await
    }

    /// Says the stocks likewise.
    pub(crate) async fn stocks(&self) -> String {
        self.ask(
            "SELECT coalesce(string_agg(format('%s %s %s%s', p.code, x.qty, x.import_id,
                      CASE WHEN x.archived_at IS NULL THEN '*' END),
                    ', ' ORDER BY p.code, x.valid_from), '')
             FROM catalog.products p JOIN catalog.product_stocks x ON x.product_id = p.id",
        )
        .await
    }

    /// Returns a text that changes when any row of the catalog is written, even with what it had.
    pub(crate) async fn fingerprint(&self) -> String {
        self.ask(
            "SELECT md5(string_agg(row, '' ORDER BY row)) FROM (
               SELECT p.ctid || ' ' || p.xmin || ' ' || p FROM catalog.products p UNION ALL
               SELECT p.ctid || ' ' || p.xmin || ' ' || p FROM catalog.product_prices p UNION ALL
               SELECT p.ctid || ' ' || p.xmin || ' ' || p FROM catalog.product_stocks p) t (row)",
        )
        .await
    }
}

/// Asks until the answer is `true`. The server tells nobody when one backend waits for another.
///
/// Not inside a transaction, for one sees the same activity to its end.
pub(crate) async fn until(pool: &PgPool, question: &'static str) {
    let answered = tokio::time::timeout(PATIENCE, async {
        while !sqlx::query_scalar::<_, bool>(question)
            .fetch_one(pool)
            .await
            .unwrap()
        {}
    });
    answered.await.unwrap();
}

/// Returns the one text that a statement answers with.
pub(crate) async fn ask(conn: &mut PgConnection, statement: &'static str) -> String {
    sqlx::query_scalar(statement).fetch_one(conn).await.unwrap()
}

/// Returns a row with a price and a stock; its hash follows its code, price and stock.
pub(crate) fn row(code: &str, price: &str, stock: i64) -> ProductRow {
    ProductRow {
        row_no: 2,
        code: code.into(),
        name: format!("name of {code}").into(),
        price: Some(price.parse().unwrap()),
        currency: Some("EUR".into()),
        stock: Some(stock),
        hash: hash(&format!("{code} {price} {stock}")),
        ..ProductRow::default()
    }
}

/// Returns a hash good enough for tests (FNV-1a).
pub(crate) fn hash(text: &str) -> i64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, mix).cast_signed()
}

/// Returns `n` rows with codes `C00000`, … in their order.
pub(crate) fn many(n: u32) -> Vec<ProductRow> {
    let numbered = |i| ProductRow {
        row_no: i + 2,
        ..row(&format!("C{i:05}"), "1.50", 3)
    };
    (0..n).map(numbered).collect()
}

/// Returns a chunk of good rows.
pub(crate) fn chunk(rows: Vec<ProductRow>) -> Chunk {
    let n_rows = u32::try_from(rows.len()).unwrap();
    Chunk {
        n_rows,
        last_row: n_rows + 1,
        rows,
        ..Chunk::default()
    }
}

/// Returns a row error.
pub(crate) fn row_error(row_no: u32, column: Option<&str>, value: Option<&str>) -> RowError {
    RowError {
        row_no,
        column: column.map(Into::into),
        code: "invalid_number",
        message: "this is no number".into(),
        value: value.map(Into::into),
    }
}
