//! The rows that the benchmark imports: made here, the same every time.

use chrono::{DateTime, TimeDelta};
use ingestd::ingest::product_import::row::{Chunk, ProductRow};
use rust_decimal::Decimal;

const BRANDS: [&str; 8] = [
    "Acme",
    "Bolt & Sons",
    "Café Nord",
    "Delta",
    "Ésprit",
    "Fabrik",
    "Gamma Tools",
    "Hála",
];
const CATEGORIES: [&str; 6] = [
    "Brakes > Discs",
    "Brakes > Pads",
    "Engine > Filters > Oil",
    "Engine > Belts",
    "Body > Mirrors",
    "Electrics > Bulbs",
];

/// How the codes of a file follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Rising, as an export of a catalog has them.
    Sorted,
    /// In no order.
    Scattered,
}

/// Returns `n_rows` rows in chunks.
pub(crate) fn chunks(n_rows: u32, chunk_rows: u32, order: Order) -> Vec<Chunk> {
    let starts = (0..n_rows).step_by(chunk_rows as usize);
    let ends = |start: u32| (start + chunk_rows).min(n_rows);
    starts
        .zip(0..)
        .map(|(start, seq)| chunk(seq, start..ends(start), order))
        .collect()
}

fn chunk(seq: u32, rows: std::ops::Range<u32>, order: Order) -> Chunk {
    Chunk {
        rejected: Vec::new(),
        seq,
        sheet: 0,
        n_rows: rows.end - rows.start,
        n_bad: 0,
        last_row: rows.end + 1,
        errors: Vec::new(),
        rows: rows.map(|i| row(i, order)).collect(),
    }
}

/// Returns row `i` of the file: the header is row 1.
fn row(i: u32, order: Order) -> ProductRow {
    // An odd factor makes every code once and scatters them over the index.
    let scattered = i.wrapping_mul(2_654_435_761);
    let key = if order == Order::Sorted { i } else { scattered };
    let pick = |from: &[&'static str]| from.get(scattered as usize % from.len()).copied();
    let brand = pick(&BRANDS).unwrap_or_default();
    ProductRow {
        row_no: i + 2,
        code: format!("P{key:010}").into(),
        name: format!("{brand} part {i}, type {}", scattered % 977).into(),
        description: Some(
            format!(
                "Spare part no. {i} for models {} to {}; with mounting kit, two years of warranty",
                1990 + scattered % 20,
                2011 + scattered % 13
            )
            .into(),
        ),
        category: pick(&CATEGORIES).map(Into::into),
        price: Some(Decimal::new(i64::from(scattered % 1_000_000) + 99, 2)),
        currency: Some("EUR".into()),
        stock: Some(i64::from(scattered % 500)),
        ean: Some(format!("859{scattered:010}").into()),
        url: Some(format!("https://shop.example.com/products/{scattered}-part-{i}").into()),
        weight: Some(Decimal::new(i64::from(scattered % 50_000), 3)),
        updated_at: DateTime::from_timestamp(1_700_000_000, 0)
            .map(|t| (t + TimeDelta::seconds(i.into())).naive_utc()),
        attributes: None,
        hash: i64::from(i).wrapping_mul(0x1656_67B1_9E37_79F9),
        brand: Some(brand.into()),
    }
}

/// Changes one row in ten: all of these in price, every other one in stock too.
pub(crate) fn change_a_tenth(chunks: &mut [Chunk]) {
    for row in chunks.iter_mut().flat_map(|chunk| &mut chunk.rows) {
        if row.row_no % 10 == 3 {
            row.price = row.price.map(|price| price + Decimal::ONE);
            row.stock = row
                .stock
                .map(|stock| stock + i64::from(row.row_no / 10 % 2));
            row.hash ^= 1;
        }
    }
}
