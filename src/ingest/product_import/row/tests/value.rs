//! Tests of the values; the tables of the design's "cells" in code.

use proptest::prelude::*;

use super::*;

fn number(value: f64) -> Cell<'static> {
    Cell::Number { value, digits: 0 }
}

fn code_of(cell: Cell<'_>) -> Result<Option<String>, Fault> {
    code(cell, Epoch::Y1900, 100).map(|text| text.map(Cow::into_owned))
}

fn amount_of(text: &str) -> Result<Option<String>, Fault> {
    amount(Cell::Text(text)).map(|value| value.map(|value| value.to_string()))
}

fn date_of(text: &str) -> Result<String, Fault> {
    let moment = datetime(Cell::Text(text), Epoch::Y1900)?;
    Ok(moment.map(|m| m.to_string()).unwrap_or_default())
}

#[test]
fn a_code_is_text_whatever_the_cell() {
    for (cell, expected) in [
        (Cell::Text("00123"), "00123"),
        (Cell::Text("\u{a0} A-1\t"), "A-1"),
        (number(123.0), "123"),
        (number(7.92e12), "7920000000000"),
        (number(4_006_381_333_931.0), "4006381333931"),
        (number(999_999_999_999_999.0), "999999999999999"),
        (number(12.5), "12.5"),
        (number(0.1 + 0.2), "0.3"),
        (number(-7.0), "-7"),
        (
            Cell::Number {
                value: 123.0,
                digits: 5,
            },
            "00123",
        ),
        (
            Cell::Number {
                value: 123_456.0,
                digits: 5,
            },
            "123456",
        ),
        (Cell::Bool(true), "TRUE"),
        (Cell::Text("12E5"), "12E5"),
        (Cell::Text("E00000012"), "E00000012"),
    ] {
        assert_eq!(code_of(cell), Ok(Some(expected.to_owned())), "{cell:?}");
    }
    assert_eq!(code_of(Cell::Text(" \u{a0}")), Ok(None));
}

#[test]
fn a_code_that_lost_its_digits_is_refused() {
    for text in ["7.92E+12", "1,23457E+12", "4E+10", "7.92e+12"] {
        assert_eq!(
            code_of(Cell::Text(text)),
            Err(Fault::PrecisionLost),
            "{text}"
        );
    }
    assert_eq!(
        code_of(number(1_234_567_890_123_456.0)),
        Err(Fault::PrecisionLost)
    );
    assert_eq!(code_of(number(f64::INFINITY)), Err(Fault::PrecisionLost));
    assert_eq!(code_of(Cell::Serial(45_000.0)), Err(Fault::DateInCode));
    assert_eq!(code_of(Cell::Error("#N/A")), Err(Fault::CellError));
}

#[test]
fn errors_are_errors_also_as_text() {
    for error in [
        Cell::Error("#N/A"),
        Cell::Text("#N/A"),
        Cell::Text(" #WERT! "),
        Cell::Text("#N/D"),
        Cell::Text("#DIV/0!"),
    ] {
        assert_eq!(code_of(error), Err(Fault::CellError));
        assert_eq!(amount(error), Err(Fault::CellError));
        assert_eq!(datetime(error, Epoch::Y1900), Err(Fault::CellError));
        assert_eq!(attribute(error, Epoch::Y1900, 10), Err(Fault::CellError));
    }
    assert_eq!(code_of(Cell::Text("#1")), Ok(Some("#1".to_owned())));
}

#[test]
fn text_is_trimmed_counted_and_free_of_zeros() {
    let text_of = |cell| text(cell, Epoch::Y1900, 4).map(|t| t.map(Cow::into_owned));
    assert_eq!(text_of(Cell::Text("  äöüß ")), Ok(Some("äöüß".to_owned())));
    assert_eq!(text_of(Cell::Text("12345")), Err(too_long(4)));
    assert_eq!(text_of(Cell::LongText("12")), Err(too_long(4)));
    assert_eq!(text_of(Cell::Text("a\0b")), Err(Fault::InvalidCharacter));
    assert_eq!(text_of(number(2.5e-10)), Err(too_long(4)));
}

#[test]
fn amounts_are_plain_numbers() {
    for (text, expected) in [
        ("1234.56", "1234.56"),
        ("1118.2700000000001", "1118.27"),
        (" 5 ", "5"),
        ("+5.50", "5.5"),
        ("-0", "0"),
        ("0.0000000000014", "0.000000000001"),
        ("999999999999999", "999999999999999"),
        ("0000000000000000000000012", "12"),
    ] {
        assert_eq!(amount_of(text), Ok(Some(expected.to_owned())), "{text}");
    }
    for text in [
        "1.234,56 €",
        "1,5",
        "1 234.56",
        "abc",
        "1e5",
        "5.",
        ".5",
        "--1",
        "1.2.3",
        "٣",
    ] {
        assert_eq!(amount_of(text), Err(Fault::InvalidNumber), "{text}");
    }
    assert_eq!(amount_of("-3.5"), Err(Fault::NegativeNumber));
    assert_eq!(amount_of("1000000000000000"), Err(Fault::NumberTooLarge));
    assert_eq!(amount_of(&"9".repeat(40)), Err(Fault::NumberTooLarge));
    assert_eq!(amount_of("\u{a0}"), Ok(None));
}

#[test]
fn number_cells_lose_their_binary_noise() {
    for (value, expected) in [
        (1_118.270_000_000_000_1, "1118.27"),
        (0.1 + 0.2, "0.3"),
        (19.99, "19.99"),
        (1e-7, "0.0000001"),
        (123_456_789_012.345, "123456789012.345"),
        (0.0, "0"),
        (-0.0, "0"),
    ] {
        let amount = amount(number(value)).unwrap().unwrap();
        assert_eq!(amount.to_string(), expected, "{value}");
    }
    assert_eq!(amount(number(-1.0)), Err(Fault::NegativeNumber));
    assert_eq!(amount(number(1e15)), Err(Fault::NumberTooLarge));
    assert_eq!(amount(number(f64::NAN)), Err(Fault::InvalidNumber));
    assert_eq!(amount(Cell::Bool(true)), Err(Fault::InvalidNumber));
    assert_eq!(amount(Cell::Serial(1.0)), Err(Fault::InvalidNumber));
}

#[test]
fn stocks_are_whole() {
    assert_eq!(count(Cell::Text("5.00")), Ok(Some(5)));
    assert_eq!(count(number(12.0)), Ok(Some(12)));
    assert_eq!(count(number(1.5)), Err(Fault::NotWholeNumber));
    assert_eq!(count(Cell::Text("-1")), Err(Fault::NegativeNumber));
    assert_eq!(count(Cell::Text("many")), Err(Fault::InvalidNumber));
    assert_eq!(count(Cell::Text("9223372036854775807")), Ok(Some(i64::MAX)));
    assert_eq!(
        count(Cell::Text("9223372036854775808")),
        Err(Fault::NumberTooLarge)
    );
}

#[test]
fn dates_are_iso_text_or_serial_days() {
    for (text, expected) in [
        ("2026-01-31", "2026-01-31 00:00:00"),
        ("2026-01-31T14:30", "2026-01-31 14:30:00"),
        ("2026-01-31 14:30:05.25", "2026-01-31 14:30:05.250"),
        ("2026-01-31T14:30:05Z", "2026-01-31 14:30:05"),
        ("2026-01-31T14:30:05+02:00", "2026-01-31 12:30:05"),
        ("2026-01-31T24:00:00", "2026-02-01 00:00:00"),
        ("2024-02-29", "2024-02-29 00:00:00"),
    ] {
        assert_eq!(date_of(text).as_deref(), Ok(expected), "{text}");
    }
    for text in [
        "2026-02-30",
        "31.01.2026",
        "01/31/2026",
        "26-01-31",
        "2026-01-31T25:00:00",
        "soon",
        "2026-01-31T10:00:60",
        "20260131",
    ] {
        assert_eq!(date_of(text), Err(Fault::InvalidDate), "{text}");
    }
}

#[test]
fn serial_days_follow_the_epoch() {
    let day = |days, epoch| serial(days, epoch).map(|m| m.to_string());
    let shown = |text: &str| Some(text.to_owned());
    assert_eq!(day(1.0, Epoch::Y1900), shown("1900-01-01 00:00:00"));
    assert_eq!(day(59.0, Epoch::Y1900), shown("1900-02-28 00:00:00"));
    assert_eq!(day(60.0, Epoch::Y1900), None);
    assert_eq!(day(60.5, Epoch::Y1900), None);
    assert_eq!(day(61.0, Epoch::Y1900), shown("1900-03-01 00:00:00"));
    assert_eq!(
        day(45_943.541, Epoch::Y1900),
        shown("2025-10-13 12:59:02.400")
    );
    assert_eq!(day(0.0, Epoch::Y1904), shown("1904-01-01 00:00:00"));
    assert_eq!(day(44_481.0, Epoch::Y1904), shown("2025-10-13 00:00:00"));
    for days in [0.0, 0.5, -1.0, 2_958_466.0, f64::NAN, f64::INFINITY, 1e300] {
        assert_eq!(day(days, Epoch::Y1900), None, "{days}");
    }
    assert_eq!(day(2_958_465.5, Epoch::Y1900), shown("9999-12-31 12:00:00"));
}

#[test]
fn attributes_keep_their_sort() {
    let json = |cell| attribute(cell, Epoch::Y1900, 100).unwrap().unwrap();
    assert_eq!(json(number(3.0)), Value::from(3));
    assert_eq!(json(number(0.1 + 0.2)), Value::from(0.3));
    assert_eq!(
        json(Cell::Number {
            value: 7.0,
            digits: 3
        }),
        Value::from("007")
    );
    assert_eq!(json(Cell::Bool(false)), Value::from(false));
    assert_eq!(json(Cell::Serial(45_943.0)), Value::from("2025-10-13"));
    assert_eq!(json(Cell::Text(" red ")), Value::from("red"));
}

proptest! {
    #[test]
    fn what_was_typed_comes_back(cents in 0_i64..10_000_000_000_000, scale in 0_u32..5) {
        let typed = Decimal::new(cents, scale).normalize();
        let stored: f64 = typed.to_string().parse().unwrap();
        prop_assert_eq!(amount(number(stored)), Ok(Some(typed)));
        prop_assert_eq!(amount(Cell::Text(&typed.to_string())), Ok(Some(typed)));
    }

    #[test]
    fn no_cell_panics(value in any::<f64>(), text in ".{0,60}", digits in any::<u8>()) {
        for cell in [
            Cell::Number { value, digits }, Cell::Serial(value), Cell::Text(&text),
            Cell::IsoDate(&text), Cell::Duration(&text), Cell::Error(&text), Cell::LongText(&text),
        ] {
            for epoch in [Epoch::Y1900, Epoch::Y1904] {
                drop((code(cell, epoch, 10), amount(cell), count(cell), datetime(cell, epoch)));
                drop((attribute(cell, epoch, 10), shown(cell, epoch)));
            }
        }
    }
}
