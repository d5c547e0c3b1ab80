//! The codes of a file so far, and the first row of each, in 9 to 12 bytes of memory for a code.
//!
//! The codes themselves lie in a file without a name, in the order in which they
//! came. In memory is a table of 32 bits of each one's hash and of its number. A
//! code whose bits are there already is compared with the one of that number:
//! whether it was seen is known and not guessed. That costs a look into the file
//! for each duplicate, and for one of a million codes or so that are none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use twox_hash::XxHash3_64;

use super::super::sheet::nameless_file;

const SHARDS: usize = 64;
/// Places of the smallest table of a shard.
const LEAST_PLACES: usize = 16;
/// Codes of a group, which is read as one.
const PER_GROUP: u32 = 64;
/// Bytes gathered before they are written, and how much is never written.
const PENDING_BYTES: usize = 128 * 1024;
/// Bytes before a code: its row and its length.
const HEAD: usize = 4 + 4;

/// A set of codes that remembers the first row of each, for as long as [`SeenCodes::fault`] has
/// nothing to say.
#[derive(Debug)]
pub(super) struct SeenCodes {
    shards: Vec<Shard>,
    codes: Codes,
    /// Drawn anew for each file, so that nobody writes one whose codes have all one hash.
    seed: u64,
    fault: Option<io::Error>,
}

impl SeenCodes {
    /// Makes an empty set that hashes by `seed`; its file is made in the folder of `beside`, else in
    /// the one for temporary files, once there are many codes.
    pub(super) fn new(beside: PathBuf, seed: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            codes: Codes {
                beside,
                ..Codes::default()
            },
            seed,
            fault: None,
        }
    }

    /// Makes room for about so many codes; there may be more, for which a shard grows by a quarter.
    #[must_use]
    pub(super) fn with_room(mut self, n_codes: u64) -> Self {
        let n_codes = usize::try_from(n_codes).unwrap_or(usize::MAX);
        let mean = n_codes / SHARDS;
        // A shard gets the mean and, hardly ever, four deviations more; it grows at seven eighths.
        let most = mean.saturating_add(4 * mean.isqrt() + 1);
        let n_places = most.saturating_mul(8) / 7;
        if n_places >= LEAST_PLACES {
            self.shards = (0..SHARDS).map(|_| Shard::empty(n_places)).collect();
        }
        self
    }

    /// Remembers a code, or returns the row in which it was first.
    pub(super) fn insert(&mut self, code: &str, row_no: u32) -> Option<u32> {
        if self.fault.is_some() {
            return None;
        }
        self.try_insert(code, row_no).unwrap_or_else(|fault| {
            self.fault = Some(fault);
            None
        })
    }

    /// Takes out why codes are not remembered any more: what was said of the last ones may be wrong.
    pub(super) fn fault(&mut self) -> Option<io::Error> {
        self.fault.take()
    }

    #[cfg(test)]
    pub(super) fn fail(&mut self, fault: io::Error) {
        self.fault = Some(fault);
    }

    fn try_insert(&mut self, code: &str, row_no: u32) -> io::Result<Option<u32>> {
        let hash = XxHash3_64::oneshot_with_seed(self.seed, code.as_bytes());
        let place = usize::try_from(hash >> 32).unwrap_or_default() % SHARDS;
        let print = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
        let (shards, codes) = (&mut self.shards, &mut self.codes);
        let Some(shard) = shards.get_mut(place) else {
            return Ok(None); // cannot be
        };
        shard.make_room();
        let mut at = shard.home(print);
        loop {
            match shard.places.get(at).copied() {
                None => at = 0,
                Some(0) => break,
                Some(taken) => {
                    if print_of(taken) == print
                        && let Some(first) = codes.row_of(number_of(taken), code)?
                    {
                        return Ok(Some(first));
                    }
                    at += 1;
                }
            }
        }
        let number = codes.push(code, row_no)?;
        shard.put(at, print, number);
        Ok(None)
    }
}

/// Open addressing with linear probing. A place holds 32 bits of a hash and, below them, one more
/// than the code's number; 0 is an empty one.
#[derive(Debug, Default)]
struct Shard {
    places: Vec<u64>,
    n_taken: usize,
}

fn print_of(place: u64) -> u32 {
    u32::try_from(place >> 32).unwrap_or_default()
}

fn number_of(place: u64) -> u32 {
    u32::try_from(place & u64::from(u32::MAX)).map_or(0, |above| above.saturating_sub(1))
}

impl Shard {
    fn empty(n_places: usize) -> Self {
        Self {
            places: vec![0; n_places],
            n_taken: 0,
        }
    }

    /// Returns the place a print belongs to: its share of the 32-bit range, so that a table of any
    /// length is filled evenly without a division.
    fn home(&self, print: u32) -> usize {
        let scaled = (u128::from(print) * self.places.len() as u128) >> 32;
        usize::try_from(scaled).unwrap_or(0)
    }

    fn put(&mut self, at: usize, print: u32, number: u32) {
        if let Some(place) = self.places.get_mut(at) {
            *place = u64::from(print) << 32 | u64::from(number.saturating_add(1));
            self.n_taken += 1;
        }
    }

    /// Grows where the next code would fill more than seven eighths: a look then takes some 30
    /// places, four cache lines in a row.
    fn make_room(&mut self) {
        if self.n_taken * 8 < self.places.len() * 7 {
            return;
        }
        let n_places = (self.places.len() + self.places.len() / 4).max(LEAST_PLACES);
        let old = std::mem::replace(self, Self::empty(n_places));
        for taken in old.places.into_iter().filter(|place| *place != 0) {
            let mut at = self.home(print_of(taken));
            loop {
                match self.places.get(at).copied() {
                    None => at = 0,
                    Some(0) => break,
                    Some(_) => at += 1,
                }
            }
            self.put(at, print_of(taken), number_of(taken));
        }
    }
}

/// Codes by number, in groups: those of the last groups in memory, the others in the file.
#[derive(Debug, Default)]
struct Codes {
    beside: PathBuf,
    n_all: u32,
    /// Where each group begins.
    groups: Vec<u64>,
    file: Option<File>,
    /// Bytes of the groups that are in the file.
    n_written: u64,
    pending: Vec<u8>,
    /// The group of the file that was read last, and its bytes.
    held: Option<usize>,
    bytes: Vec<u8>,
}

impl Codes {
    /// Adds a code and returns its number.
    fn push(&mut self, code: &str, row_no: u32) -> io::Result<u32> {
        let number = self.n_all;
        if number >= u32::MAX - 1 {
            return Err(io::Error::other("more codes than can be counted"));
        }
        if number.is_multiple_of(PER_GROUP) {
            if self.pending.len() >= PENDING_BYTES {
                self.write()?;
            }
            let begin = self.n_written + self.pending.len() as u64;
            self.groups.push(begin);
        }
        let n_bytes = u32::try_from(code.len()).map_err(io::Error::other)?;
        self.pending.extend(row_no.to_le_bytes());
        self.pending.extend(n_bytes.to_le_bytes());
        self.pending.extend_from_slice(code.as_bytes());
        self.n_all += 1;
        Ok(number)
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(nameless_file(&self.beside)?),
        };
        file.write_all_at(&self.pending, self.n_written)?;
        self.n_written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Returns the row of a code by its number, where it is this one.
    fn row_of(&mut self, number: u32, code: &str) -> io::Result<Option<u32>> {
        let broken = || io::Error::other("the codes seen are not where they were put");
        let group = usize::try_from(number / PER_GROUP).map_err(io::Error::other)?;
        let begin = *self.groups.get(group).ok_or_else(broken)?;
        let mut rest = match begin.checked_sub(self.n_written) {
            Some(at) => usize::try_from(at)
                .ok()
                .and_then(|at| self.pending.get(at..)),
            None => Some(self.load(group, begin)?),
        };
        for _ in 0..number % PER_GROUP {
            rest = rest.and_then(split).map(|(_, _, rest)| rest);
        }
        let (row_no, found, _) = rest.and_then(split).ok_or_else(broken)?;
        Ok((found == code.as_bytes()).then_some(row_no))
    }

    /// Reads a group of the file, where it is not the one read last.
    fn load(&mut self, group: usize, begin: u64) -> io::Result<&[u8]> {
        if self.held != Some(group) {
            self.held = None; // until it is read
            let next = self.groups.get(group + 1).copied();
            let end = next.unwrap_or(self.n_written).min(self.n_written);
            let n_bytes = usize::try_from(end.saturating_sub(begin)).map_err(io::Error::other)?;
            self.bytes.resize(n_bytes, 0);
            if let Some(file) = &self.file {
                file.read_exact_at(&mut self.bytes, begin)?;
            }
            self.held = Some(group);
        }
        Ok(&self.bytes)
    }
}

/// Parts the first code from those behind it: its row, its bytes, the rest.
fn split(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (row_no, n_bytes) = head.split_at_checked(4)?;
    let row_no = u32::from_le_bytes(row_no.try_into().ok()?);
    let n_bytes = u32::from_le_bytes(n_bytes.try_into().ok()?);
    let (code, rest) = rest.split_at_checked(usize::try_from(n_bytes).ok()?)?;
    Some((row_no, code, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn empty() -> SeenCodes {
        SeenCodes::new(std::env::temp_dir().join("codes"), 7)
    }

    fn code(n: u32) -> String {
        format!("SKU-{n:07}")
    }

    #[test]
    fn names_the_first_row_of_a_code() {
        let mut seen = empty();
        assert_eq!(seen.insert("A-1", 2), None);
        assert_eq!(seen.insert("A-2", 3), None);
        assert_eq!(seen.insert("A-1", 4), Some(2));
        assert_eq!(seen.insert("A-1", 5), Some(2));
        assert_eq!(seen.insert("a-1", 6), None);
    }

    #[test]
    fn holds_many_in_little_memory() {
        for seen in [empty(), empty().with_room(200_000)] {
            let mut seen = seen;
            for n in 0..200_000 {
                assert_eq!(seen.insert(&code(n), n), None);
            }
            for n in (0..200_000).step_by(997) {
                assert_eq!(seen.insert(&code(n), u32::MAX), Some(n));
            }
            let n_places: usize = seen.shards.iter().map(|shard| shard.places.len()).sum();
            let codes = &seen.codes;
            let held = n_places * 8 + codes.groups.len() * 8 + codes.pending.len();
            assert!(held / 200_000 <= 12, "{held} bytes");
            assert!(codes.file.is_some(), "the codes are in a file");
            assert!(seen.fault().is_none());
        }
    }

    #[test]
    fn room_for_a_known_number_is_made_once() {
        let mut seen = empty().with_room(200_000);
        let places = |seen: &SeenCodes| -> Vec<usize> {
            seen.shards.iter().map(|shard| shard.places.len()).collect()
        };
        let before = places(&seen);
        for n in 0..200_000 {
            assert_eq!(seen.insert(&code(n), n), None);
        }
        assert_eq!(places(&seen), before, "a shard has grown");
        assert!(before.iter().sum::<usize>() * 8 / 200_000 <= 10);
        for n in 200_000..300_000 {
            assert_eq!(seen.insert(&code(n), n), None, "beyond what was said");
        }
        assert_eq!(seen.insert(&code(7), 1), Some(7));
        assert_eq!(empty().with_room(3).insert("A", 1), None);
    }

    /// All codes have one hash as far as the table goes: what is compared decides.
    #[test]
    fn codes_of_one_hash_are_told_apart() {
        let mut seen = empty();
        let mut codes = Codes {
            beside: std::env::temp_dir().join("codes"),
            ..Codes::default()
        };
        let mut shard = Shard::empty(400);
        for n in 0..300_u32 {
            let number = codes.push(&code(n), n + 2).unwrap();
            shard.put(usize::try_from(n).unwrap(), 5, number);
        }
        for n in 0..300 {
            assert_eq!(codes.row_of(n, &code(n)).unwrap(), Some(n + 2));
            assert_eq!(codes.row_of(n, &code(n + 1)).unwrap(), None);
        }
        // and by way of the set: whatever the hash of a new code is, it meets the prints of others
        for shard in &mut seen.shards {
            *shard = Shard::empty(64);
        }
        let hash = XxHash3_64::oneshot_with_seed(7, b"new");
        let at = usize::try_from(hash >> 32).unwrap() % SHARDS;
        let print = u32::try_from(hash & 0xffff_ffff).unwrap();
        let other = seen.codes.push("other", 9).unwrap();
        let shard = &mut seen.shards[at];
        shard.put(shard.home(print), print, other);
        assert_eq!(seen.insert("new", 10), None, "another code of its hash");
        assert_eq!(seen.insert("new", 11), Some(10));
    }

    #[test]
    fn where_there_is_no_room_for_the_codes_that_is_said() {
        let mut seen = empty();
        for n in 0..50_000 {
            assert_eq!(seen.insert(&code(n), n), None);
        }
        assert!(seen.fault().is_none());
        // a file that cannot be read and not be written
        let full = File::options().write(true).open("/dev/full").unwrap();
        seen.codes.file = Some(full);
        seen.codes.held = None;
        assert_eq!(seen.insert(&code(1), 50_000), None, "not known");
        assert!(seen.fault().is_some());
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(codes in prop::collection::vec("[a-c]{0,3}", 0..300)) {
            let mut seen = empty();
            let mut model: HashMap<&str, u32> = HashMap::new();
            for (row_no, code) in (0..).zip(&codes) {
                prop_assert_eq!(seen.insert(code, row_no), model.get(code.as_str()).copied());
                model.entry(code).or_insert(row_no);
            }
        }
    }
}
