//! `COPY … FROM STDIN (FORMAT binary)`: the fastest way to bring rows into a table.
//!
//! Not for reading, and not for text formats. A *field* is one value in the
//! wire format of its column's type; a row is a count and its fields. The
//! server converts nothing: a field of another type than its column is refused.

use chrono::{DateTime, NaiveDateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{PgConnection, postgres::PgCopyIn};

/// Bytes gathered before they are sent; the server works on them while the next are encoded.
const BLOCK_BYTES: usize = 128 * 1024;

/// Signature, flags and length of the header's extension (PostgreSQL manual, COPY, Binary Format).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A value that can stand in a binary COPY.
pub trait Field {
    /// Appends the value's length in bytes and its bytes; the length −1 stands for null.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A value as a JSON document, for a `jsonb` column.
#[derive(Debug, Clone, Copy)]
pub struct Jsonb<T>(pub T);

/// The fields of one row, in the order of the statement's columns.
#[derive(Debug)]
pub struct Row<'b> {
    out: &'b mut Vec<u8>,
    n_fields: i16,
}

impl Row<'_> {
    /// Appends the next field.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "fields are numbers and borrowed text"
    )]
    pub fn push(&mut self, field: impl Field) -> &mut Self {
        field.encode(self.out);
        self.n_fields += 1;
        self
    }
}

/// One running COPY; dropping it before [`CopyIn::finish`] makes the server refuse the whole.
///
/// # Cancel safety
///
/// None: a future dropped half-way leaves the connection good for nothing but
/// being closed, which the pool does on its next use.
pub struct CopyIn<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    block: Vec<u8>,
}

impl std::fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyIn").finish_non_exhaustive()
    }
}

impl<'c> CopyIn<'c> {
    /// Starts `statement`, a `COPY … FROM STDIN (FORMAT binary)`.
    ///
    /// # Errors
    ///
    /// The server refuses the statement, or the connection is lost.
    pub async fn begin(conn: &'c mut PgConnection, statement: &str) -> sqlx::Result<Self> {
        let copy = conn.copy_in_raw(statement).await?;
        let mut block = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8);
        block.extend_from_slice(HEADER);
        Ok(Self { copy, block })
    }

    /// Adds the row that `fill` makes, and sends what was gathered once it is a block.
    ///
    /// # Errors
    ///
    /// The connection is lost. What the server refuses shows in [`CopyIn::finish`].
    pub async fn row(&mut self, fill: impl FnOnce(&mut Row<'_>)) -> sqlx::Result<()> {
        encode_row(&mut self.block, fill);
        if self.block.len() >= BLOCK_BYTES {
            self.copy.send(self.block.as_slice()).await?;
            self.block.clear();
        }
        Ok(())
    }

    /// Ends the COPY and returns how many rows the server took.
    ///
    /// # Errors
    ///
    /// The server refuses a row, and with it all of them; or the connection is lost.
    pub async fn finish(mut self) -> sqlx::Result<u64> {
        self.block.extend_from_slice(&(-1_i16).to_be_bytes());
        self.copy.send(self.block.as_slice()).await?;
        self.copy.finish().await
    }
}

/// Appends one row; the count in front of its fields is filled in afterwards.
fn encode_row(out: &mut Vec<u8>, fill: impl FnOnce(&mut Row<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    let mut row = Row { out, n_fields: 0 };
    fill(&mut row);
    let n_fields = row.n_fields.to_be_bytes();
    if let Some(count) = out.get_mut(start..start + 2) {
        count.copy_from_slice(&n_fields);
    }
}

/// Appends a field of `parts`, one after the other, under their common length.
fn bytes(out: &mut Vec<u8>, parts: [&[u8]; 2]) {
    let [first, second] = parts;
    // Postgres takes no value over 1 GiB, so a length that does not fit is refused there.
    let length = i32::try_from(first.len() + second.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(first);
    out.extend_from_slice(second);
}

impl<T: Field> Field for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.encode(out),
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
}

impl Field for &str {
    fn encode(&self, out: &mut Vec<u8>) {
        bytes(out, [self.as_bytes(), &[]]);
    }
}

impl Field for i32 {
    fn encode(&self, out: &mut Vec<u8>) {
        bytes(out, [&self.to_be_bytes(), &[]]);
    }
}

impl Field for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        bytes(out, [&self.to_be_bytes(), &[]]);
    }
}

impl<T: Serialize> Field for Jsonb<T> {
    /// A version byte, 1, goes before the text. The text of a value that is no JSON breaks off, so
    /// that the server refuses it.
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, 1]);
        drop(serde_json::to_writer(&mut *out, &self.0));
        let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Field for NaiveDateTime {
    /// For a `timestamp` column.
    fn encode(&self, out: &mut Vec<u8>) {
        (self.and_utc().timestamp_micros() - EPOCH_MICROS).encode(out);
    }
}

impl Field for DateTime<Utc> {
    /// For a `timestamptz` column.
    fn encode(&self, out: &mut Vec<u8>) {
        self.naive_utc().encode(out);
    }
}

impl Field for Decimal {
    /// For a `numeric` column: digits of base 10,000, highest first.
    fn encode(&self, out: &mut Vec<u8>) {
        // 96 bits and the padding are at most 32 decimal places: 8 digits.
        let mut digits = [0_u8; 16];
        let (n_digits, weight) = base_10_000(*self, &mut digits);
        let sign = if self.is_sign_negative() { 0x4000 } else { 0 };
        let scale = u16::try_from(self.scale()).unwrap_or(0); // at most 28
        let mut head = [0_u8; 8];
        let fields = [n_digits, weight, sign, scale];
        for (place, value) in head.chunks_exact_mut(2).zip(fields) {
            place.copy_from_slice(&value.to_be_bytes());
        }
        let digits = digits.get(..usize::from(n_digits) * 2).unwrap_or_default();
        bytes(out, [&head, digits]);
    }
}

/// Writes the digits of base 10,000 in front of `out` and returns how many, and the
/// weight of the first as 16 bits of two's complement.
///
/// Zeros at either end are left out; zero itself has no digits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "at most 8 digits, each under 10,000, and 28 decimals"
)]
fn base_10_000(value: Decimal, out: &mut [u8; 16]) -> (u16, u16) {
    // The decimals are padded to whole digits of base 10,000.
    let padding = 10_u128.pow((4 - value.scale() % 4) % 4);
    let mut rest = value.mantissa().unsigned_abs() * padding;
    let mut reversed = [0_u16; 8];
    let mut n_digits = 0_usize;
    for place in &mut reversed {
        if rest == 0 {
            break;
        }
        // Most mantissas fit 64 bits, where a division is many times cheaper.
        if let Ok(small) = u64::try_from(rest) {
            *place = (small % 10_000) as u16;
            rest = u128::from(small / 10_000);
        } else {
            *place = (rest % 10_000) as u16;
            rest /= 10_000;
        }
        n_digits += 1;
    }
    if n_digits == 0 {
        return (0, 0);
    }
    let weight = n_digits as i16 - value.scale().div_ceil(4) as i16 - 1;
    let n_trailing = reversed.iter().take_while(|digit| **digit == 0).count();
    let kept = n_digits.saturating_sub(n_trailing);
    let digits = reversed.iter().take(n_digits).rev().take(kept);
    for (place, digit) in out.chunks_exact_mut(2).zip(digits) {
        place.copy_from_slice(&digit.to_be_bytes());
    }
    (kept as u16, weight.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "reads better where it is called"
    )]
    fn field(value: impl Field) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    /// Reads a numeric back by the manual's rules, with none of the code under test.
    fn decode(field: &[u8]) -> String {
        let word = |at: usize| i16::from_be_bytes([field[at], field[at + 1]]);
        let (n_digits, weight, sign, scale) = (word(4), word(6), word(8), word(10));
        let digit = |exponent: i16| {
            let nth = weight - exponent;
            let is_there = (0..n_digits).contains(&nth);
            let at = 12 + 2 * usize::from(nth.unsigned_abs());
            format!("{:04}", if is_there { word(at) } else { 0 })
        };
        let whole = (0..=weight.max(0))
            .rev()
            .map(digit)
            .collect::<Vec<_>>()
            .concat();
        let part = (1..=8).map(|n| digit(-n)).collect::<Vec<_>>().concat();
        let whole = whole.trim_start_matches('0');
        let sign = if sign == 0x4000 { "-" } else { "" };
        let dot = if scale > 0 { "." } else { "" };
        let part = part.get(..usize::try_from(scale).unwrap()).unwrap();
        format!(
            "{sign}{}{dot}{part}",
            if whole.is_empty() { "0" } else { whole }
        )
    }

    #[test]
    fn numerics_read_back_as_written() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "10000",
            "9999.9999",
            "0.0001",
            "0.00010",
            "12345.67890",
            "-0.5",
            "100.00",
            "1118.27",
            "0.0000000000000000000000000001",
            "79228162514264337593543950335",
            "-7.9228162514264337593543950335",
            "18446744073709551616.5",
            "120000000",
        ] {
            let value: Decimal = text.parse().unwrap();
            assert_eq!(decode(&field(value)), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_numeric_reads_back(mantissa in -(1_i128 << 96) + 1..(1_i128 << 96), scale in 0_u32..=28) {
            let value = Decimal::from_i128_with_scale(mantissa, scale);
            proptest::prop_assert_eq!(decode(&field(value)), value.to_string());
        }
    }

    #[test]
    fn numerics_have_no_zero_digits_at_the_ends() {
        let value: Decimal = "120000000.5000".parse().unwrap();
        assert_eq!(
            field(value)[4..],
            [0, 4, 0, 2, 0, 0, 0, 4, 0, 1, 0x07, 0xd0, 0, 0, 0x13, 0x88]
        );
        assert_eq!(field(Decimal::ZERO)[4..], [0; 8]);
    }

    #[test]
    fn integers_text_json_and_null_have_their_length_in_front() {
        assert_eq!(
            field(-2_i64),
            [0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 254]
        );
        assert_eq!(field(1_i32), [0, 0, 0, 4, 0, 0, 0, 1]);
        assert_eq!(field("é"), [0, 0, 0, 2, 0xc3, 0xa9]);
        assert_eq!(field(""), [0, 0, 0, 0]);
        assert_eq!(
            field(Jsonb([("a", 1)])),
            [&[0, 0, 0, 10, 1][..], br#"[["a",1]]"#].concat()
        );
        let no_json = std::collections::BTreeMap::from([([1], 2)]);
        assert_eq!(field(Jsonb(no_json)), [0, 0, 0, 2, 1, b'{']);
        assert_eq!(field(None::<i64>), [255; 4]);
        assert_eq!(field(Some("a")), [0, 0, 0, 1, b'a']);
    }

    #[test]
    fn times_count_microseconds_from_2000() {
        let time: NaiveDateTime = "2000-01-01T00:00:01.000002".parse().unwrap();
        assert_eq!(field(time), field(1_000_002_i64));
        let before: NaiveDateTime = "1999-12-31T23:59:59".parse().unwrap();
        assert_eq!(field(before.and_utc()), field(-1_000_000_i64));
    }

    #[test]
    fn a_row_counts_its_fields() {
        let mut out = vec![9];
        encode_row(&mut out, |row| {
            row.push(1_i32).push(None::<&str>);
        });
        assert_eq!(out, [9, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255]);
    }

    #[test]
    fn the_header_is_nineteen_bytes() {
        assert_eq!(HEADER.len(), 19);
    }
}
