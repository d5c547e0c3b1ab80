//! Prices and stocks: what is live, what ends, what begins.
//!
//! The rule is a pure function of what is live and what the row says; the
//! statements below it only carry it out.

use rust_decimal::Decimal;
use smol_str::SmolStr;
use sqlx::PgConnection;

use super::super::row::ProductRow;
use super::columns::Columns;
use crate::db::copy::CopyIn;

/// What is live of a product.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Live {
    /// Price and currency.
    pub(super) price: Option<(Decimal, Option<SmolStr>)>,
    /// Stock in pieces.
    pub(super) qty: Option<i64>,
}

/// The prices and stocks that a slice ends and begins.
#[derive(Debug)]
pub(super) struct History {
    columns: Columns,
    /// Products whose live price ends.
    ended_prices: Vec<i64>,
    /// Product, price, currency.
    new_prices: Vec<(i64, Decimal, Option<SmolStr>)>,
    /// Products whose live stock ends.
    ended_stocks: Vec<i64>,
    /// Product, pieces.
    new_stocks: Vec<(i64, i64)>,
}

impl History {
    /// Starts with nothing to write, for a file that has `columns`.
    pub(super) const fn new(columns: Columns) -> Self {
        Self {
            columns,
            ended_prices: Vec::new(),
            new_prices: Vec::new(),
            ended_stocks: Vec::new(),
            new_stocks: Vec::new(),
        }
    }

    /// Takes in a product that was just inserted: what its row says begins.
    pub(super) fn added(&mut self, product_id: i64, row: &ProductRow) {
        self.changed(product_id, row, &Live::default());
    }

    /// Takes in a product that was there: what differs ends and begins anew.
    pub(super) fn changed(&mut self, product_id: i64, row: &ProductRow, live: &Live) {
        if self.columns.has(Columns::PRICE) {
            self.price(product_id, row, live.price.as_ref());
        }
        if self.columns.has(Columns::STOCK) && row.stock != live.qty {
            self.ended_stocks.extend(live.qty.map(|_| product_id));
            self.new_stocks
                .extend(row.stock.map(|qty| (product_id, qty)));
        }
    }

    fn price(
        &mut self,
        product_id: i64,
        row: &ProductRow,
        live: Option<&(Decimal, Option<SmolStr>)>,
    ) {
        let live_currency = || live.and_then(|(_, currency)| currency.clone());
        let given = row.price.map(|price| {
            let has_currency = self.columns.has(Columns::CURRENCY);
            (
                price,
                if has_currency {
                    row.currency.clone()
                } else {
                    live_currency()
                },
            )
        });
        if given.as_ref() == live {
            return;
        }
        self.ended_prices.extend(live.map(|_| product_id));
        self.new_prices
            .extend(given.map(|(price, currency)| (product_id, price, currency)));
    }
}

/// Ends and begins prices and stocks as `history` says.
///
/// # Errors
///
/// The database refuses a value; or, as [`sqlx::Error::RowNotFound`], a live
/// row has ended between the probe and now.
pub(super) async fn write(
    conn: &mut PgConnection,
    import_id: i64,
    history: &History,
) -> sqlx::Result<()> {
    // product_prices_live and product_stocks_live
    const END_PRICES: &str = "UPDATE catalog.product_prices SET archived_at = now()
        WHERE product_id = ANY ($1) AND archived_at IS NULL";
    const END_STOCKS: &str = "UPDATE catalog.product_stocks SET archived_at = now()
        WHERE product_id = ANY ($1) AND archived_at IS NULL";
    end(conn, END_PRICES, &history.ended_prices).await?;
    end(conn, END_STOCKS, &history.ended_stocks).await?;
    begin_prices(conn, import_id, &history.new_prices).await?;
    begin_stocks(conn, import_id, &history.new_stocks).await
}

/// Archives the live row of each product.
async fn end(
    conn: &mut PgConnection,
    statement: &'static str,
    product_ids: &[i64],
) -> sqlx::Result<()> {
    if product_ids.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(statement)
        .bind(product_ids)
        .execute(conn)
        .await?;
    all_there(done.rows_affected(), product_ids.len())
}

/// Makes an error of a row that is gone since the probe, by a writer that takes no turns.
pub(crate) fn all_there(n_affected: u64, n_expected: usize) -> sqlx::Result<()> {
    if usize::try_from(n_affected) == Ok(n_expected) {
        Ok(())
    } else {
        Err(sqlx::Error::RowNotFound)
    }
}

async fn begin_prices(
    conn: &mut PgConnection,
    import_id: i64,
    prices: &[(i64, Decimal, Option<SmolStr>)],
) -> sqlx::Result<()> {
    const COPY: &str = "COPY catalog.product_prices (product_id, price, currency, import_id)
        FROM STDIN (FORMAT binary)";
    if prices.is_empty() {
        return Ok(());
    }
    let mut copy = CopyIn::begin(conn, COPY).await?;
    for (product_id, price, currency) in prices {
        copy.row(|row| {
            row.push(*product_id)
                .push(*price)
                .push(currency.as_deref())
                .push(import_id);
        })
        .await?;
    }
    copy.finish().await?;
    Ok(())
}

async fn begin_stocks(
    conn: &mut PgConnection,
    import_id: i64,
    stocks: &[(i64, i64)],
) -> sqlx::Result<()> {
    const COPY: &str = "COPY catalog.product_stocks (product_id, qty, import_id)
        FROM STDIN (FORMAT binary)";
    if stocks.is_empty() {
        return Ok(());
    }
    let mut copy = CopyIn::begin(conn, COPY).await?;
    for (product_id, qty) in stocks {
        copy.row(|row| {
            row.push(*product_id).push(*qty).push(import_id);
        })
        .await?;
    }
    copy.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Product 1 with the given live price and stock meets a row of a file with `columns`.
    fn meet(
        live: (Option<(&str, Option<&str>)>, Option<i64>),
        row: &ProductRow,
        columns: Columns,
    ) -> History {
        let price = live
            .0
            .map(|(price, currency)| (price.parse().unwrap(), currency.map(Into::into)));
        let mut history = History::new(columns);
        history.changed(1, row, &Live { price, qty: live.1 });
        history
    }

    fn row(price: Option<&str>, currency: Option<&str>, stock: Option<i64>) -> ProductRow {
        ProductRow {
            row_no: 2,
            code: "A".into(),
            name: "a".into(),
            description: None,
            brand: None,
            category: None,
            price: price.map(|price| price.parse().unwrap()),
            currency: currency.map(Into::into),
            stock,
            ean: None,
            url: None,
            weight: None,
            updated_at: None,
            attributes: None,
            hash: 0,
        }
    }

    /// Says what a history does to product 1's price: `-` ends, `+…` begins.
    fn prices(history: &History) -> String {
        let ended = history.ended_prices.iter().map(|_| "-".to_owned());
        let new = history.new_prices.iter();
        let new = new
            .map(|(_, price, currency)| format!("+{price}{}", currency.as_deref().unwrap_or("")));
        ended.chain(new).collect()
    }

    fn stocks(history: &History) -> String {
        let ended = history.ended_stocks.iter().map(|_| "-".to_owned());
        ended
            .chain(history.new_stocks.iter().map(|(_, qty)| format!("+{qty}")))
            .collect()
    }

    #[test]
    fn a_price_that_differs_ends_the_live_one() {
        let eur = Some("EUR");
        for (live, given, expected) in [
            (None, (Some("1.50"), eur), "+1.50EUR"),
            (None, (None, eur), ""),
            (Some(("1.5", eur)), (Some("1.50"), eur), ""),
            (Some(("1.5", eur)), (Some("1.51"), eur), "-+1.51EUR"),
            (Some(("1.5", eur)), (Some("1.5"), Some("CZK")), "-+1.5CZK"),
            (Some(("1.5", eur)), (Some("1.5"), None), "-+1.5"),
            (Some(("1.5", None)), (Some("1.5"), None), ""),
            (Some(("1.5", eur)), (None, eur), "-"),
        ] {
            let history = meet((live, None), &row(given.0, given.1, None), Columns::ALL);
            assert_eq!(prices(&history), expected, "{live:?} meets {given:?}");
        }
    }

    #[test]
    fn an_absent_price_column_changes_nothing() {
        let columns = Columns::ALL.without(Columns::PRICE);
        let history = meet(
            (Some(("1.5", None)), None),
            &row(None, Some("EUR"), None),
            columns,
        );
        assert_eq!(prices(&history), "");
    }

    #[test]
    fn an_absent_currency_column_keeps_the_live_currency() {
        let columns = Columns::ALL.without(Columns::CURRENCY);
        let live = (Some(("1.5", Some("EUR"))), None);
        assert_eq!(
            prices(&meet(live, &row(Some("1.5"), None, None), columns)),
            ""
        );
        assert_eq!(
            prices(&meet(live, &row(Some("2"), None, None), columns)),
            "-+2EUR"
        );
    }

    #[test]
    fn a_stock_that_differs_ends_the_live_one() {
        for (live, given, expected) in [
            (None, Some(3), "+3"),
            (None, None, ""),
            (Some(3), Some(3), ""),
            (Some(3), Some(0), "-+0"),
            (Some(3), None, "-"),
        ] {
            let history = meet((None, live), &row(None, None, given), Columns::ALL);
            assert_eq!(stocks(&history), expected, "{live:?} meets {given:?}");
        }
        let absent = Columns::ALL.without(Columns::STOCK);
        assert_eq!(
            stocks(&meet((None, Some(3)), &row(None, None, None), absent)),
            ""
        );
    }
}
