//! Which codes a file has, for plans that must know before the first row is written. Pure.
//!
//! Which row has a code first is [`super::seen_codes`]'s.

use twox_hash::XxHash3_128;

use super::super::sheet::Inspection;

const SHARDS: usize = 64;
/// Places of the smallest table of a shard.
const LEAST_PLACES: usize = 16;

/// Bits of a row number where there are several sheets; the sheet's place is above them.
const ROW_BITS: u32 = 24;

/// The last row of a sheet that can be told from those of other sheets.
pub const LAST_ROW: u32 = (1 << ROW_BITS) - 1;

/// Rows of several sheets as single numbers, in the order of the sheets; a row of a file with one
/// sheet is its row number.
///
/// A hundred sheets and rows up to [`LAST_ROW`] leave the highest bit free.
#[derive(Debug, Clone, Default)]
pub struct Spots {
    /// The sheets' names; none where there is one sheet.
    names: Vec<String>,
    sheet: usize,
    above: u32,
}

impl Spots {
    /// Begins with the first of the sheets that are read.
    #[must_use]
    pub fn of_sheets(inspection: &Inspection) -> Self {
        let names = inspection.heads().filter(|_| !inspection.more.is_empty());
        let names = names.map(|head| head.sheet.unwrap_or_default().to_owned());
        Self {
            names: names.collect(),
            ..Self::default()
        }
    }

    /// Goes to a sheet by its place, from 0.
    pub fn turn_to(&mut self, sheet: usize) {
        self.sheet = sheet;
        self.above = u32::try_from(sheet).unwrap_or_default() << ROW_BITS;
    }

    /// Returns the number of a row of the sheet.
    #[must_use]
    pub fn of(&self, row_no: u32) -> u32 {
        self.above | row_no
    }

    /// Returns the row of a number, and the name of its sheet where it is another one.
    #[must_use]
    pub fn read(&self, spot: u32) -> (u32, Option<String>) {
        if self.names.is_empty() {
            return (spot, None);
        }
        let sheet = usize::try_from(spot >> ROW_BITS).unwrap_or(usize::MAX);
        let other = self.names.get(sheet).filter(|_| sheet != self.sheet);
        (spot & LAST_ROW, other.cloned())
    }
}

/// The last row of each code of a file, and whether it has others: known once the file was read.
///
/// The codes themselves are not kept, only 80 bits of their XXH3-128 hash, in 16 to 20 bytes with the
/// row. Among two million codes two different ones agree in all of them with a chance of n²⁄2⁸¹, one
/// in 600 thousand million files.
#[derive(Debug)]
pub struct FileCodes {
    shards: Vec<Shard>,
}

impl Default for FileCodes {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

/// Bit of a row number that says that the code is in several rows; row numbers are below it.
const SEVERAL: u32 = 1 << 31;

impl FileCodes {
    /// Notes that a row has a code; rows come in the sheet's order.
    pub fn note(&mut self, code: &str, row_no: u32) {
        let (shard, mut entry) = place(code, row_no & !SEVERAL);
        let Some(shard) = self.shards.get_mut(shard) else {
            return; // cannot be
        };
        if shard.find(entry).is_some() {
            entry.row_no |= SEVERAL;
            shard.replace(entry);
        } else {
            shard.insert(entry);
        }
    }

    /// Returns the last row that has a code, and whether others have it too; `None`: none has it.
    #[must_use]
    pub fn last(&self, code: &str) -> Option<(u32, bool)> {
        let (shard, entry) = place(code, 0);
        let row_no = self.shards.get(shard)?.find(entry)?;
        Some((row_no & !SEVERAL, row_no & SEVERAL != 0))
    }
}

/// Returns the shard that a code belongs to, and what is kept of it.
fn place(code: &str, row_no: u32) -> (usize, Entry) {
    let hash = XxHash3_128::oneshot(code.as_bytes());
    let [print, other] = [hash, hash >> 64].map(low_half);
    let entry = Entry {
        print: print.max(1),
        check: u16::try_from(other & 0xffff).unwrap_or_default(),
        row_no,
    };
    let shard = usize::try_from(other >> 16).unwrap_or_default() % SHARDS;
    (shard, entry)
}

/// Open addressing with linear probing. The parts of a place lie apart, to save padding.
#[derive(Debug, Default)]
struct Shard {
    prints: Vec<u64>,
    checks: Vec<u16>,
    rows: Vec<u32>,
    n_taken: usize,
}

/// What is kept of a code. A `print` of 0 is an empty place, so it is never 0 here.
#[derive(Debug, Clone, Copy)]
struct Entry {
    print: u64,
    check: u16,
    row_no: u32,
}

fn low_half(hash: u128) -> u64 {
    u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default()
}

impl Shard {
    fn empty(n_places: usize) -> Self {
        Self {
            prints: vec![0; n_places],
            checks: vec![0; n_places],
            rows: vec![0; n_places],
            n_taken: 0,
        }
    }

    /// Keeps an entry that is not there.
    fn insert(&mut self, entry: Entry) {
        // at seven eighths a look takes some 30 places, four cache lines in a row
        if self.n_taken * 8 >= self.prints.len() * 7 {
            self.grow();
        }
        if let Some((at, false)) = self.seek(entry) {
            self.put(at, entry);
        }
    }

    /// Returns where an entry is, or else the free place where it belongs; `None` in a table of none.
    fn seek(&self, entry: Entry) -> Option<(usize, bool)> {
        let mut at = self.home(entry.print);
        // a table that is not empty has free places, so this ends
        for _ in 0..=self.prints.len() {
            match self.prints.get(at).copied() {
                None => at = 0,
                Some(0) => return Some((at, false)),
                Some(print)
                    if print == entry.print && self.checks.get(at) == Some(&entry.check) =>
                {
                    return Some((at, true));
                }
                Some(_) => at += 1,
            }
        }
        None
    }

    /// Returns the row that is kept of an entry.
    fn find(&self, entry: Entry) -> Option<u32> {
        let (at, found) = self.seek(entry)?;
        self.rows.get(at).copied().filter(|_| found)
    }

    /// Keeps another row of an entry that is there.
    fn replace(&mut self, entry: Entry) {
        if let Some((at, true)) = self.seek(entry)
            && let Some(row_no) = self.rows.get_mut(at)
        {
            *row_no = entry.row_no;
        }
    }

    /// Returns the place a print belongs to: its share of the 64-bit range, so that a table of any
    /// length is filled evenly without a division.
    fn home(&self, print: u64) -> usize {
        let scaled = (u128::from(print) * self.prints.len() as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }

    fn put(&mut self, at: usize, entry: Entry) {
        let place = (
            self.prints.get_mut(at),
            self.checks.get_mut(at),
            self.rows.get_mut(at),
        );
        if let (Some(print), Some(check), Some(row_no)) = place {
            *print = entry.print;
            *check = entry.check;
            *row_no = entry.row_no;
            self.n_taken += 1;
        }
    }

    fn grow(&mut self) {
        let n_places = (self.prints.len() + self.prints.len() / 4).max(LEAST_PLACES);
        let old = std::mem::replace(self, Self::empty(n_places));
        for ((print, check), row_no) in old.prints.into_iter().zip(old.checks).zip(old.rows) {
            if print != 0 {
                self.insert(Entry {
                    print,
                    check,
                    row_no,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_of_several_sheets_have_numbers_of_their_own() {
        let mut spots = Spots {
            names: ["A", "B"].map(str::to_owned).to_vec(),
            ..Spots::default()
        };
        let first = spots.of(LAST_ROW);
        assert_eq!(spots.read(first), (LAST_ROW, None));
        spots.turn_to(1);
        assert!(spots.of(1) > first);
        assert_eq!(spots.read(first), (LAST_ROW, Some("A".to_owned())));
        assert_eq!(spots.read(spots.of(7)), (7, None));
        spots.turn_to(99);
        assert_eq!(spots.of(LAST_ROW) & SEVERAL, 0);
        // rows of one sheet are as they are
        assert_eq!(Spots::default().of(1 << 30), 1 << 30);
        assert_eq!(Spots::default().read(1 << 30), (1 << 30, None));
    }

    #[test]
    fn the_last_row_of_a_code_is_known() {
        let mut codes = FileCodes::default();
        assert_eq!(codes.last("A"), None);
        for row_no in 0..5_000_u32 {
            codes.note(&format!("C{}", row_no % 4_000), row_no + 2);
        }
        assert_eq!(codes.last("C0"), Some((4_002, true)));
        assert_eq!(codes.last("C999"), Some((5_001, true)));
        assert_eq!(codes.last("C1000"), Some((1_002, false)));
        assert_eq!(codes.last("C4000"), None);
    }

    #[test]
    fn holds_many_in_little_memory() {
        let mut codes = FileCodes::default();
        for n in 0..200_000_u32 {
            codes.note(&format!("SKU-{n:07}"), n);
        }
        for n in (0..200_000_u32).step_by(997) {
            assert_eq!(codes.last(&format!("SKU-{n:07}")), Some((n, false)));
        }
        let places: usize = codes.shards.iter().map(|shard| shard.prints.len()).sum();
        assert!(places * 14 / 200_000 <= 20, "{places} places");
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(list in prop::collection::vec("[a-c]{0,3}", 0..300)) {
            let mut codes = FileCodes::default();
            let mut model: HashMap<&str, (u32, bool)> = HashMap::new();
            for (row_no, code) in (0..).zip(&list) {
                codes.note(code, row_no);
                let several = model.contains_key(code.as_str());
                model.insert(code, (row_no, several));
            }
            for code in &list {
                prop_assert_eq!(codes.last(code), model.get(code.as_str()).copied());
            }
        }
    }
}
