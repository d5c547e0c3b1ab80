//! One page of an undoing: what can be put back, what is to stay and why, and the putting back.
//!
//! Three stages, each by product id: rows that the import *changed* or archived get back what they
//! were; products that it *created* are archived; and what later imports *wrote again* is named.
//! Reading and writing are apart, so that a preview reads what the run will read.

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::ingest::product_import::load::history::all_there;

/// Products of one transaction.
const PAGE: i64 = 2_000;

/// What an undoing is about.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The import that is undone.
    pub(super) import_id: i64,
    /// The owner of its products.
    pub(super) tenant: String,
    /// The smallest and the greatest id of the products that it created.
    pub(super) created: Option<(i64, i64)>,
}

/// The parts of an undoing, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// What it changed or archived.
    #[default]
    Changed,
    /// What it created.
    Created,
    /// What later imports wrote again.
    Named,
}

impl Stage {
    /// Returns the stage behind it.
    pub(super) const fn next(self) -> Option<Self> {
        match self {
            Self::Changed => Some(Self::Created),
            Self::Created => Some(Self::Named),
            Self::Named => None,
        }
    }

    /// Returns its word, as the run shows it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Changed => "restoring",
            Self::Created => "archiving",
            Self::Named => "naming",
        }
    }
}

/// A product that stays as it is, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Kept {
    /// The product.
    pub product_id: i64,
    /// Its code; `None` where it was deleted.
    pub code: Option<String>,
    /// `edited`, `imported_again` or `deleted`.
    pub reason: String,
}

/// One page, as the database has it now.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The last product of it; `None`: the stage is over.
    pub(super) last: Option<i64>,
    /// Products to be put back or archived.
    pub(super) undoable: Vec<i64>,
    /// Of those, the ones whose price is to be put back.
    prices: Vec<i64>,
    /// Of those, the ones whose stock is to be put back.
    stocks: Vec<i64>,
    /// Products that stay.
    pub(super) kept: Vec<Kept>,
}

impl Page {
    /// Reads the next page of a stage.
    pub(super) async fn read(
        conn: &mut PgConnection,
        subject: &Subject,
        stage: Stage,
        after: i64,
    ) -> sqlx::Result<Self> {
        match stage {
            Stage::Changed => Self::changed(conn, subject, after).await,
            Stage::Created => Self::created(conn, subject, after).await,
            Stage::Named => Self::named(conn, subject, after).await,
        }
    }

    async fn changed(conn: &mut PgConnection, subject: &Subject, after: i64) -> sqlx::Result<Self> {
        // product_changes_pkey
        const IDS: &str = "SELECT product_id FROM catalog.product_changes
            WHERE import_id = $1 AND product_id > $2 ORDER BY product_id LIMIT $3";
        type Judged = (i64, Option<String>, bool, bool, Option<String>);
        let ids: Vec<i64> = sqlx::query_scalar(IDS)
            .bind(subject.import_id)
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *conn)
            .await?;
        let mut page = Self {
            last: ids.last().copied(),
            ..Self::default()
        };
        let judged: Vec<Judged> = sqlx::query_as(include_str!("judge.sql"))
            .bind(subject.import_id)
            .bind(&ids)
            .fetch_all(conn)
            .await?;
        for (product_id, reason, has_price, has_stock, code) in judged {
            if let Some(reason) = reason {
                page.kept.push(Kept {
                    product_id,
                    code,
                    reason,
                });
                continue;
            }
            page.undoable.push(product_id);
            page.prices.extend(has_price.then_some(product_id));
            page.stocks.extend(has_stock.then_some(product_id));
        }
        Ok(page)
    }

    async fn created(conn: &mut PgConnection, subject: &Subject, after: i64) -> sqlx::Result<Self> {
        type Found = (i64, String, bool, Option<String>);
        let Some((first, last)) = subject.created else {
            return Ok(Self::default());
        };
        let found: Vec<Found> = sqlx::query_as(include_str!("created.sql"))
            .bind(subject.import_id)
            .bind(&subject.tenant)
            .bind(after.max(first - 1))
            .bind(last)
            .bind(PAGE)
            .fetch_all(conn)
            .await?;
        let mut page = Self {
            last: found.last().map(|(id, ..)| *id),
            ..Self::default()
        };
        for (product_id, code, is_ours, reason) in found {
            match reason {
                _ if !is_ours => {}
                None => page.undoable.push(product_id),
                Some(reason) => page.kept.push(Kept {
                    product_id,
                    code: Some(code),
                    reason,
                }),
            }
        }
        Ok(page)
    }

    /// What another import found that this one had written last. Where this one had changed it, it
    /// was named before.
    async fn named(conn: &mut PgConnection, subject: &Subject, after: i64) -> sqlx::Result<Self> {
        // product_changes_before
        const AGAIN: &str = "SELECT k.product_id, p.code, 'imported_again' AS reason
            FROM (SELECT DISTINCT product_id FROM catalog.product_changes
                  WHERE was_import_id = $1 AND product_id > $2 ORDER BY product_id LIMIT $3) k
            LEFT JOIN LATERAL (
              SELECT code FROM catalog.products WHERE id = k.product_id LIMIT 1) p ON true
            ORDER BY k.product_id";
        let again: Vec<Kept> = sqlx::query_as(AGAIN)
            .bind(subject.import_id)
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *conn)
            .await?;
        let last = again.last().map(|kept| kept.product_id);
        let ids: Vec<i64> = again.iter().map(|kept| kept.product_id).collect();
        let named: Vec<i64> = sqlx::query_scalar(
            "SELECT product_id FROM catalog.product_changes
             WHERE import_id = $1 AND product_id = ANY ($2)",
        )
        .bind(subject.import_id)
        .bind(&ids)
        .fetch_all(conn)
        .await?;
        let is_new = |kept: &Kept| !named.contains(&kept.product_id);
        Ok(Self {
            last,
            kept: again.into_iter().filter(is_new).collect(),
            ..Self::default()
        })
    }

    /// Puts back or archives what can be, and names what stays.
    ///
    /// # Errors
    ///
    /// What Postgres says; [`sqlx::Error::RowNotFound`] where a product changed since it was read,
    /// by a writer that takes no turns: roll back and try again.
    pub(super) async fn write(
        &self,
        conn: &mut PgConnection,
        subject: &Subject,
        stage: Stage,
        run_id: i64,
    ) -> sqlx::Result<()> {
        match stage {
            Stage::Changed => self.restore(&mut *conn, subject.import_id).await?,
            Stage::Created => self.archive(&mut *conn, subject.import_id).await?,
            Stage::Named => {}
        }
        self.keep(conn, run_id).await
    }

    async fn restore(&self, conn: &mut PgConnection, import_id: i64) -> sqlx::Result<()> {
        const END_PRICES: &str = "UPDATE catalog.product_prices SET archived_at = now()
            WHERE product_id = ANY ($1) AND archived_at IS NULL";
        const END_STOCKS: &str = "UPDATE catalog.product_stocks SET archived_at = now()
            WHERE product_id = ANY ($1) AND archived_at IS NULL";
        const BEGIN_PRICES: &str = "INSERT INTO catalog.product_prices
              (product_id, price, currency, import_id)
            SELECT product_id, price, currency, price_import_id FROM catalog.product_changes
            WHERE product_id = ANY ($1) AND import_id = $2 AND price IS NOT NULL";
        const BEGIN_STOCKS: &str = "INSERT INTO catalog.product_stocks (product_id, qty, import_id)
            SELECT product_id, qty, qty_import_id FROM catalog.product_changes
            WHERE product_id = ANY ($1) AND import_id = $2 AND qty IS NOT NULL";
        const FORGET: &str = "DELETE FROM catalog.product_changes
            WHERE product_id = ANY ($1) AND import_id = $2";
        if self.undoable.is_empty() {
            return Ok(());
        }
        let restored = sqlx::query(include_str!("restore.sql"))
            .bind(import_id)
            .bind(&self.undoable)
            .execute(&mut *conn)
            .await?;
        all_there(restored.rows_affected(), self.undoable.len())?;
        for (statement, ids) in [(END_PRICES, &self.prices), (END_STOCKS, &self.stocks)] {
            sqlx::query(statement).bind(ids).execute(&mut *conn).await?;
        }
        for (statement, ids) in [
            (BEGIN_PRICES, &self.prices),
            (BEGIN_STOCKS, &self.stocks),
            (FORGET, &self.undoable),
        ] {
            sqlx::query(statement)
                .bind(ids)
                .bind(import_id)
                .execute(&mut *conn)
                .await?;
        }
        Ok(())
    }

    async fn archive(&self, conn: &mut PgConnection, import_id: i64) -> sqlx::Result<()> {
        const ARCHIVE: &str = "UPDATE catalog.products SET archived_at = now(), updated_at = now()
            WHERE id = ANY ($1) AND import_id = $2 AND archived_at IS NULL AND row_hash IS NOT NULL";
        let archived = sqlx::query(ARCHIVE)
            .bind(&self.undoable)
            .bind(import_id)
            .execute(conn)
            .await?;
        all_there(archived.rows_affected(), self.undoable.len())
    }

    async fn keep(&self, conn: &mut PgConnection, run_id: i64) -> sqlx::Result<()> {
        const KEEP: &str = "INSERT INTO catalog.kept_products (run_id, product_id, code, reason)
            SELECT $1, * FROM unnest($2::int8[], $3::text[], $4::text[])";
        if self.kept.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = self.kept.iter().map(|kept| kept.product_id).collect();
        let codes: Vec<_> = self.kept.iter().map(|kept| kept.code.as_deref()).collect();
        let reasons: Vec<_> = self.kept.iter().map(|kept| kept.reason.as_str()).collect();
        sqlx::query(KEEP)
            .bind(run_id)
            .bind(ids)
            .bind(codes)
            .bind(reasons)
            .execute(conn)
            .await?;
        Ok(())
    }
}
