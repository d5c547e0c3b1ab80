//! How values are written for people.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::observe::gauge::MOST_COUNTED;

/// A whole number, its thousands apart: `700,000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) i64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// A number that was counted up to a limit: `10,000+` beyond it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capped(pub(super) i64);

impl fmt::Display for Capped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < MOST_COUNTED {
            Count(self.0).fmt(f)
        } else {
            write!(f, "{}+", Count(MOST_COUNTED - 1))
        }
    }
}

/// A time, in UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) DateTime<Utc>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format("%Y-%m-%d %H:%M:%S").fmt(f)
    }
}

impl At {
    pub(super) fn iso(&self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

/// How long something lasts or has lasted, in seconds; roughly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lasting(pub(super) Option<f64>);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("–"),
            Some(secs) if secs < 1.0 => write!(f, "{:.0} ms", secs * 1000.0),
            Some(secs) if secs < 120.0 => write!(f, "{secs:.0} s"),
            Some(secs) if secs < 7_200.0 => write!(f, "{:.0} min", secs / 60.0),
            Some(secs) if secs < 172_800.0 => write!(f, "{:.0} h", secs / 3_600.0),
            Some(secs) => write!(f, "{:.0} d", secs / 86_400.0),
        }
    }
}

/// A size in bytes, in the unit that fits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) i64);

impl fmt::Display for Size {
    #[expect(clippy::cast_precision_loss, reason = "one decimal place for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            ..1024 => write!(f, "{} bytes", self.0),
            1024..0x0010_0000 => write!(f, "{:.1} KiB", bytes / 1024.0),
            0x0010_0000..0x4000_0000 => write!(f, "{:.1} MiB", bytes / 1_048_576.0),
            _ => write!(f, "{:.1} GiB", bytes / 1_073_741_824.0),
        }
    }
}

/// Returns the address of the next page of a list.
pub(super) fn older(path: &str, cursor: Option<super::super::Cursor>) -> Option<String> {
    let sign = if path.contains('?') { '&' } else { '?' };
    Some(format!("{path}{sign}cursor={}", cursor?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (-12_345, "-12,345"),
        ] {
            assert_eq!(Count(number).to_string(), text);
        }
        assert_eq!(Capped(10_000).to_string(), "10,000");
        assert_eq!(Capped(10_001).to_string(), "10,000+");
        for (secs, text) in [
            (None, "–"),
            (Some(0.25), "250 ms"),
            (Some(90.0), "90 s"),
            (Some(600.0), "10 min"),
            (Some(7_200.0), "2 h"),
            (Some(345_600.0), "4 d"),
        ] {
            assert_eq!(Lasting(secs).to_string(), text);
        }
        for (bytes, text) in [
            (12, "12 bytes"),
            (1_536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
