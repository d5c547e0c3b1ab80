//! From cells to values: text, decimals, whole numbers, dates. Pure.
//!
//! Nothing is guessed: a number is `1234.56` and a date is a date cell or ISO
//! 8601 text; everything else is a [`Fault`], because a wrong price is worse
//! than a refused row.

use std::borrow::Cow;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};
use rust_decimal::Decimal;
use serde_json::Value;

use super::cell::{Cell, Epoch};
use super::fault::Fault;
use super::header::trim;

/// Spreadsheets keep 15 significant digits; the 16th and later are noise of binary fractions.
const SIGNIFICANT_DIGITS: u32 = 15;
/// Whole numbers from here on have lost digits in a spreadsheet's number cell.
const EXACT_LIMIT: f64 = 1e15;
/// Prices and weights are below this: what the catalog's columns hold.
const DECIMAL_LIMIT: i64 = 1_000_000_000_000_000;
/// Decimals after the point that the catalog's columns hold.
const MAX_SCALE: u32 = 12;
/// Last serial day of either epoch: 9999-12-31.
const LAST_DAY_1900: f64 = 2_958_466.0;
const DAYS_1900_TO_1904: f64 = 1462.0;

/// Returns a cell's text, trimmed; `None` when there is none.
///
/// Numbers become their plain digits, without exponent and without the noise
/// behind the 15th; dates become ISO text.
///
/// # Errors
///
/// [`Fault::CellError`], [`Fault::TooLong`] above `max_chars` characters, [`Fault::InvalidCharacter`].
pub fn text(cell: Cell<'_>, epoch: Epoch, max_chars: usize) -> Result<Option<Cow<'_, str>>, Fault> {
    let text = match cell {
        Cell::Empty => return Ok(None),
        Cell::Error(_) => return Err(Fault::CellError),
        Cell::Uncalculated => return Err(Fault::Uncalculated),
        Cell::LongText(_) => return Err(too_long(max_chars)),
        Cell::Text(text) if is_error(text) => return Err(Fault::CellError),
        Cell::Text(text) | Cell::IsoDate(text) | Cell::Duration(text) => Cow::Borrowed(trim(text)),
        Cell::Number { value, digits } => Cow::Owned(number_text(value, digits)),
        Cell::Bool(true) => Cow::Borrowed("TRUE"),
        Cell::Bool(false) => Cow::Borrowed("FALSE"),
        Cell::Serial(days) => Cow::Owned(serial_text(days, epoch)),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(too_long(max_chars));
    }
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Fault::InvalidCharacter);
    }
    Ok(Some(text))
}

/// Whether a text is what a spreadsheet writes into CSV for a cell with an error, in the language of
/// whoever saved it: workbooks have the English words, CSV has what was shown.
fn is_error(text: &str) -> bool {
    #[rustfmt::skip]
    const ERRORS: &[&str] = &[
        "#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#SPILL!",
        "#NV", "#BEZUG!", "#WERT!", "#ZAHL!", "#ÜBERLAUF!", // German
        "#N/D", "#VALEUR!", "#NOM?", "#NUL!", "#NOMBRE!", // French
        "#VALORE!", "#RIF!", "#NOME?", "#NULLO!", // Italian
        "#VALOR!", "#¡VALOR!", "#¡REF!", "#¡NUM!", "#¡DIV/0!", "#¿NOMBRE?", "#¡NULO!", // Spanish
        "#NÚM!", "#NULO!", // Portuguese
        "#N/B", "#WAARDE!", "#VERW!", "#GETAL!", "#NAAM?", "#LEEG!", "#DEEL/0!", // Dutch
        "#N/D!", "#ARG!", "#ADR!", "#LICZBA!", "#NAZWA?", "#ZERO!", "#DZIEL/0!", // Polish
        "#NENÍ_K_DISPOZICI", "#HODNOTA!", "#ODKAZ!", "#ČÍSLO!", "#NÁZEV?", "#DĚLENÍ_NULOU!", // Czech
        "#SAKNAS!", "#VÄRDEFEL!", "#REFERENS!", "#OGILTIGT!", "#NAMN?", "#DIVISION/0!", // Swedish
    ];
    let text = trim(text);
    text.starts_with('#') && ERRORS.contains(&text)
}

fn too_long(max: usize) -> Fault {
    Fault::TooLong {
        max,
        unit: "characters",
    }
}

/// Returns a code or bar code: text whatever the cell is.
///
/// Zeros in front stay where the cell is text or its number format asks for them (`00000`).
///
/// # Errors
///
/// As [`text`]; [`Fault::PrecisionLost`] for text such as `7.92E+12` and for number cells of more
/// than 15 digits; [`Fault::DateInCode`] for date cells.
pub fn code(cell: Cell<'_>, epoch: Epoch, max_chars: usize) -> Result<Option<Cow<'_, str>>, Fault> {
    match cell {
        Cell::Serial(_) | Cell::IsoDate(_) | Cell::Duration(_) => return Err(Fault::DateInCode),
        Cell::Number { value, .. } if value.abs() >= EXACT_LIMIT => {
            return Err(Fault::PrecisionLost);
        }
        _ => {}
    }
    let text = text(cell, epoch, max_chars)?;
    match text {
        Some(text) if is_scientific(&text) => Err(Fault::PrecisionLost),
        text => Ok(text),
    }
}

/// Whether a text is what a spreadsheet shows for a long number: `7.92E+12`, `1,23457E+12`.
///
/// The plus sign is required: `12E5` and `E00000012` are codes of their own right.
fn is_scientific(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once('+') else {
        return false;
    };
    let Some(mantissa) = mantissa.strip_suffix(['E', 'e']) else {
        return false;
    };
    let mut digits = mantissa.bytes();
    let leads = digits.next().is_some_and(|b| b.is_ascii_digit());
    let point = digits.next().is_none_or(|b| b == b'.' || b == b',');
    let rest = digits.all(|b| b.is_ascii_digit());
    let exponent_ok =
        (1..=3).contains(&exponent.len()) && exponent.bytes().all(|b| b.is_ascii_digit());
    leads && point && rest && exponent_ok
}

/// Returns a number's plain text.
fn number_text(value: f64, digits: u8) -> String {
    if value.fract() == 0.0 && value.abs() < EXACT_LIMIT {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number below 10^15"
        )]
        let whole = value as i64;
        let width = usize::from(digits) + usize::from(whole < 0);
        return format!("{whole:0width$}");
    }
    let clean = significant(value);
    if clean.abs() < 1e21 && clean.abs() >= 1e-9 {
        clean.to_string()
    } else {
        format!("{clean:e}")
    }
}

/// Returns a number rounded to 15 significant digits.
fn significant(value: f64) -> f64 {
    format!("{value:.14e}").parse().unwrap_or(value)
}

/// Returns a decimal of at least 0 for prices and weights; `None` when the cell is empty.
///
/// The value has at most 15 significant digits and 12 decimals, so `1118.2700000000001` is 1118.27.
///
/// # Errors
///
/// [`Fault::InvalidNumber`] for everything but number cells and text as `1234.56`,
/// [`Fault::NegativeNumber`], [`Fault::NumberTooLarge`] from 10^15 on, [`Fault::CellError`].
pub fn amount(cell: Cell<'_>) -> Result<Option<Decimal>, Fault> {
    let Some(value) = decimal(cell)? else {
        return Ok(None);
    };
    if value.is_sign_negative() && !value.is_zero() {
        return Err(Fault::NegativeNumber);
    }
    let mut rounded = value;
    if value.mantissa().unsigned_abs() >= 10_u128.pow(SIGNIFICANT_DIGITS) {
        let significant = value.round_sf(SIGNIFICANT_DIGITS);
        rounded = significant.ok_or(Fault::NumberTooLarge)?;
    }
    let rounded = rounded.round_dp(MAX_SCALE).normalize();
    if rounded >= Decimal::from(DECIMAL_LIMIT) {
        return Err(Fault::NumberTooLarge);
    }
    Ok(Some(rounded))
}

/// Returns a whole number of at least 0 for stocks; `None` when the cell is empty.
///
/// # Errors
///
/// As [`amount`], and [`Fault::NotWholeNumber`] for fractions.
pub fn count(cell: Cell<'_>) -> Result<Option<i64>, Fault> {
    let Some(value) = decimal(cell)? else {
        return Ok(None);
    };
    if !value.fract().is_zero() {
        return Err(Fault::NotWholeNumber);
    }
    if value.is_sign_negative() && !value.is_zero() {
        return Err(Fault::NegativeNumber);
    }
    let whole = i64::try_from(value).map_err(|_| Fault::NumberTooLarge)?;
    Ok(Some(whole))
}

fn decimal(cell: Cell<'_>) -> Result<Option<Decimal>, Fault> {
    match cell {
        Cell::Empty => Ok(None),
        Cell::Error(_) => Err(Fault::CellError),
        Cell::Uncalculated => Err(Fault::Uncalculated),
        Cell::Text(text) if is_error(text) => Err(Fault::CellError),
        Cell::Number { value, .. } => decimal_of_number(value).map(Some),
        Cell::Text(text) => match trim(text) {
            "" => Ok(None),
            text => decimal_of_text(text).map(Some),
        },
        _ => Err(Fault::InvalidNumber),
    }
}

fn decimal_of_number(value: f64) -> Result<Decimal, Fault> {
    if !value.is_finite() {
        return Err(Fault::InvalidNumber);
    }
    if value.abs() >= EXACT_LIMIT {
        return Err(Fault::NumberTooLarge);
    }
    // Most prices have at most four decimals. If the decimal so made is the very number stored,
    // it is the one that was typed, and the slow way over text is not needed.
    if value.abs() < 1e11 {
        #[expect(clippy::cast_possible_truncation, reason = "below 10^15")]
        let scaled = (value * 1e4).round() as i64;
        #[expect(clippy::cast_precision_loss, reason = "below 10^15, exact in a double")]
        let back = scaled as f64 / 1e4;
        #[expect(clippy::float_cmp, reason = "asks whether it is the same double")]
        if back == value {
            return Ok(normal(scaled, 4));
        }
    }
    let text = format!("{value:.14e}");
    Decimal::from_scientific(&text).map_err(|_| Fault::InvalidNumber)
}

/// Returns a decimal without zeros at its end, which the type itself strips by long division.
fn normal(mut mantissa: i64, mut scale: u32) -> Decimal {
    while scale > 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    Decimal::new(mantissa, scale)
}

fn decimal_of_text(text: &str) -> Result<Decimal, Fault> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return Err(Fault::InvalidNumber);
    }
    if whole.trim_start_matches('0').len() > 19 {
        return Err(Fault::NumberTooLarge);
    }
    text.parse().map_err(|_| Fault::InvalidNumber)
}

/// Returns a date and time, to the microsecond; `None` when the cell is empty.
///
/// Read are date cells, plain numbers as days since `epoch`, and ISO 8601 text: `2026-01-31`,
/// `2026-01-31T14:30`, `2026-01-31 14:30:05.5`. Text that names an offset (`Z`, `+02:00`) becomes
/// UTC; all else stays the file's own wall clock.
///
/// # Errors
///
/// [`Fault::InvalidDate`] for days that are not in the calendar, years beyond 1900–9999 in number
/// cells, and text of any other form; [`Fault::CellError`].
pub fn datetime(cell: Cell<'_>, epoch: Epoch) -> Result<Option<NaiveDateTime>, Fault> {
    match cell {
        Cell::Empty => Ok(None),
        Cell::Error(_) => Err(Fault::CellError),
        Cell::Uncalculated => Err(Fault::Uncalculated),
        Cell::Text(text) if is_error(text) => Err(Fault::CellError),
        Cell::Serial(days) | Cell::Number { value: days, .. } => {
            serial(days, epoch).ok_or(Fault::InvalidDate).map(Some)
        }
        Cell::Text(text) | Cell::IsoDate(text) => match trim(text) {
            "" => Ok(None),
            text => iso(text).ok_or(Fault::InvalidDate).map(Some),
        },
        _ => Err(Fault::InvalidDate),
    }
}

/// Returns the moment of a serial day, to the millisecond; `None` when there is no such day.
///
/// Day 60 of the 1900 epoch is the 1900-02-29 that never was; days below 1 there are times of day.
#[must_use]
pub fn serial(days: f64, epoch: Epoch) -> Option<NaiveDateTime> {
    let days = match epoch {
        Epoch::Y1900 if (1.0..60.0).contains(&days) => days + 1.0,
        Epoch::Y1900 if days >= 61.0 => days,
        Epoch::Y1904 if days >= 0.0 => days + DAYS_1900_TO_1904,
        _ => return None,
    };
    if days >= LAST_DAY_1900 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 2.6 * 10^14")]
    let millis = (days * 86_400_000.0).round() as i64;
    NaiveDate::from_ymd_opt(1899, 12, 30)?
        .and_time(NaiveTime::MIN)
        .checked_add_signed(TimeDelta::milliseconds(millis))
}

fn serial_text(days: f64, epoch: Epoch) -> String {
    match serial(days, epoch) {
        Some(moment) if moment.time() == NaiveTime::MIN => moment.format("%Y-%m-%d").to_string(),
        Some(moment) => moment.format("%Y-%m-%dT%H:%M:%S%.f").to_string(),
        None => number_text(days, 0),
    }
}

/// Reads ISO 8601 text. By hand, because a format string is interpreted anew for every cell, which
/// took a tenth of the time of a whole CSV file.
fn iso(text: &str) -> Option<NaiveDateTime> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (iso_date(date)?, time),
        None => return Some(iso_date(text)?.and_time(NaiveTime::MIN)),
    };
    if time == "24:00:00" || time == "24:00" {
        return Some(
            date.checked_add_days(Days::new(1))?
                .and_time(NaiveTime::MIN),
        );
    }
    let moment = match iso_time(time) {
        Some(time) => date.and_time(time),
        None => DateTime::parse_from_rfc3339(text).ok()?.naive_utc(),
    };
    // a 60th second is kept by chrono as more than 10^9 nanoseconds, which no timestamp column is
    (moment.nanosecond() < 1_000_000_000).then(|| whole_micros(moment))
}

/// Reads `2026-01-31`.
fn iso_date(text: &str) -> Option<NaiveDate> {
    let (year, rest) = text.split_at_checked(4)?;
    let (month, day) = rest.strip_prefix('-')?.split_once('-')?;
    let year = i32::try_from(digits(year, 4)?).ok()?;
    NaiveDate::from_ymd_opt(year, digits(month, 2)?, digits(day, 2)?)
}

/// Reads `14:30`, `14:30:05` and `14:30:05.123456789`.
fn iso_time(text: &str) -> Option<NaiveTime> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, second) = rest.split_once(':').unwrap_or((rest, "0"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let scale = u32::try_from(9_usize.checked_sub(fraction.len())?).ok()?;
    let nanos = digits(fraction, 9)?.checked_mul(10_u32.pow(scale))?;
    let [hour, minute, second] = [hour, minute, second].map(|part| digits(part, 2));
    NaiveTime::from_hms_nano_opt(hour?, minute?, second?, nanos)
}

/// Reads a number of at most this many decimal digits and nothing else.
fn digits(text: &str, max_len: usize) -> Option<u32> {
    let is_number = (1..=max_len).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn whole_micros(moment: NaiveDateTime) -> NaiveDateTime {
    let micros = moment.nanosecond() / 1000 * 1000;
    moment.with_nanosecond(micros).unwrap_or(moment)
}

/// Returns the value of an extra column as JSON: numbers and truth values as such, the rest text.
///
/// # Errors
///
/// As [`text`].
pub fn attribute(cell: Cell<'_>, epoch: Epoch, max_chars: usize) -> Result<Option<Value>, Fault> {
    match cell {
        Cell::Bool(value) => Ok(Some(Value::Bool(value))),
        Cell::Number { value, digits: 0 } => Ok(number_json(value)),
        _ => Ok(text(cell, epoch, max_chars)?.map(|text| Value::String(text.into_owned()))),
    }
}

fn number_json(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() < EXACT_LIMIT {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number below 10^15"
        )]
        return Some(Value::from(value as i64));
    }
    serde_json::Number::from_f64(significant(value)).map(Value::Number)
}

/// Returns the cell as an error report shows it.
#[must_use]
pub fn shown(cell: Cell<'_>, epoch: Epoch) -> Cow<'_, str> {
    match cell {
        Cell::Error(text) | Cell::LongText(text) | Cell::Text(text) => Cow::Borrowed(trim(text)),
        Cell::Number { value, digits } => Cow::Owned(number_text(value, digits)),
        // an error to who imports the report as it is
        Cell::Uncalculated => Cow::Borrowed("#N/A"),
        cell => text(cell, epoch, usize::MAX)
            .ok()
            .flatten()
            .unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "tests/value.rs"]
mod tests;
