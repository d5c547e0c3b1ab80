//! The shared strings of a workbook, on disk.
//!
//! Strings lie in blocks of 16 in a file without a name; what is held in memory
//! is where each block begins, and the blocks used last: 4,096 places, each for
//! the blocks whose number leaves one remainder. Read by position and not
//! mapped, because page faults in the order of a shuffled table cost many
//! times as much. Of a block too big for a place one string is read at a time
//! and held: long ones by turns cost no more than what is taken of them. None is
//! kept longer than shows that it is longer than a cell may be.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::super::refusal::Refusal;
use super::super::temporary;
use super::window::Halt;

/// Strings of a block.
const PER_BLOCK: usize = 16;
/// Blocks that are held.
const PLACES: usize = 4096;
/// Biggest block that is held in a place, in bytes: all of them take 8 MiB.
const PLACE_BYTES: usize = 2048;
/// Most strings: 2 million rows of 25 different texts. The offsets of their blocks take 25 MB.
const MAX_STRINGS: u32 = 50_000_000;
/// Bytes gathered before they are written, and how much is never written.
const PENDING_BYTES: usize = 256 * 1024;
/// Bytes of a block before its texts: where each of them ends.
const HEADER: usize = PER_BLOCK * 4;

/// Shared strings while they are gathered.
pub(super) struct Spill<'p> {
    beside: &'p Path,
    /// A longer string is cut behind the sign that goes beyond this.
    max_bytes: usize,
    strings: Strings,
    /// Where each text of the block begun ends.
    ends: Vec<u32>,
    texts: String,
}

/// Shared strings by number.
pub(super) struct Strings {
    n_all: u32,
    /// Where each block begins, and where the last one ends.
    offsets: Vec<u64>,
    file: Option<File>,
    /// Bytes of the blocks that are in the file.
    n_written: u64,
    pending: Vec<u8>,
    places: Vec<Option<Box<Block>>>,
    /// A string of a block that is too big for a place.
    long: Option<Long>,
}

/// A long string in memory.
struct Long {
    number: usize,
    text: String,
}

/// A block in memory.
struct Block {
    number: usize,
    ends: [u32; PER_BLOCK],
    texts: Box<str>,
}

impl<'p> Spill<'p> {
    /// Begins without strings. A file is made in the folder of `beside` once they are many, else in
    /// the folder for temporary files; it has no name and is gone with the process. Of a string no
    /// more is kept than shows that it is longer than `max_bytes`.
    pub(super) fn new(beside: &'p Path, max_bytes: usize) -> Self {
        Self {
            beside,
            max_bytes,
            strings: Strings {
                n_all: 0,
                offsets: vec![0],
                file: None,
                n_written: 0,
                pending: Vec::new(),
                places: Vec::new(),
                long: None,
            },
            ends: Vec::with_capacity(PER_BLOCK),
            texts: String::new(),
        }
    }

    /// Adds the next string.
    ///
    /// # Errors
    ///
    /// [`Refusal::FILE_TOO_LARGE`] beyond 50 million; [`Refusal::READ_FAILED`] when the disk is full.
    pub(super) fn push(&mut self, text: &str) -> Result<(), Halt> {
        if self.strings.n_all == MAX_STRINGS {
            return Err(Halt::Refused(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                format!("the workbook has more than {MAX_STRINGS} texts; split it"),
            )));
        }
        self.strings.n_all += 1;
        let end = text.ceil_char_boundary(self.max_bytes.saturating_add(1));
        self.texts.push_str(text.get(..end).unwrap_or(text));
        self.ends.push(length(self.texts.len())?);
        if self.ends.len() == PER_BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Halt> {
        let strings = &mut self.strings;
        self.ends.resize(PER_BLOCK, length(self.texts.len())?);
        for end in self.ends.drain(..) {
            strings.pending.extend(end.to_le_bytes());
        }
        strings.pending.extend(self.texts.as_bytes());
        self.texts.clear();
        strings
            .offsets
            .push(strings.n_written + strings.pending.len() as u64);
        if strings.pending.len() >= PENDING_BYTES {
            strings.write(self.beside)?;
        }
        Ok(())
    }

    /// Ends the last block.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub(super) fn finish(mut self) -> Result<Strings, Halt> {
        if !self.ends.is_empty() {
            self.end_block()?;
        }
        if self.strings.file.is_some() {
            self.strings.write(self.beside)?;
            self.strings.pending = Vec::new();
        }
        self.strings.offsets.shrink_to_fit();
        Ok(self.strings)
    }
}

fn length(len: usize) -> Result<u32, Halt> {
    u32::try_from(len).map_err(|_| Halt::Foreign("texts of 4 GiB"))
}

impl Strings {
    fn write(&mut self, beside: &Path) -> Result<(), Halt> {
        if self.file.is_none() {
            self.file = Some(temporary::file(beside).map_err(|error| no_room(&error))?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(&self.pending, self.n_written)
                .map_err(|error| no_room(&error))?;
        }
        self.n_written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Returns a string by its number, from 0.
    ///
    /// # Errors
    ///
    /// [`Halt::Foreign`] when there is none of this number.
    #[inline]
    pub(super) fn get(&mut self, number: u32) -> Result<&str, Halt> {
        if number >= self.n_all {
            return Err(Halt::Foreign("a text that the table does not have"));
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let (block, within) = (number / PER_BLOCK, number % PER_BLOCK);
        let place = block % PLACES;
        let is_here = |held: &&Option<Box<Block>>| held.as_ref().is_some_and(|b| b.number == block);
        let is_held = self.places.get(place).as_ref().is_some_and(is_here);
        if !is_held && self.long.as_ref().is_none_or(|long| long.number != number) {
            self.load(number, place)?;
        }
        let text = match self.places.get(place).filter(is_here) {
            Some(held) => held.as_ref().and_then(|block| block.text(within)),
            None => self.long.as_ref().map(|long| long.text.as_str()),
        };
        text.ok_or(Halt::Foreign("a text that is not where it was put"))
    }

    /// Takes the block of a string into its place, or the string alone where the block is too big.
    #[cold]
    fn load(&mut self, number: usize, place: usize) -> Result<(), Halt> {
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || None);
        }
        let block = number / PER_BLOCK;
        let start = self.offsets.get(block).copied().unwrap_or_default();
        let end = self.offsets.get(block + 1).copied().unwrap_or_default();
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
        let is_small = len <= HEADER + PLACE_BYTES;
        let bytes = self.read(start, if is_small { len } else { HEADER })?;
        let (header, texts) = bytes.split_at_checked(HEADER).unwrap_or_default();
        let mut ends = [0; PER_BLOCK];
        for (end, bytes) in ends.iter_mut().zip(header.as_chunks().0) {
            *end = u32::from_le_bytes(*bytes);
        }
        if !is_small {
            let range = range(&ends, number % PER_BLOCK).unwrap_or_default();
            let text = self.read(start + (HEADER + range.start) as u64, range.len())?;
            let text = String::from_utf8(text).map_err(|_| changed())?;
            self.long = Some(Long { number, text });
            return Ok(());
        }
        let texts = std::str::from_utf8(texts).map_err(|_| changed())?;
        let block = Block {
            number: block,
            ends,
            texts: texts.into(),
        };
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(Box::new(block));
        }
        Ok(())
    }

    fn read(&self, start: u64, len: usize) -> Result<Vec<u8>, Halt> {
        if let Some(file) = &self.file {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, start)?;
            return Ok(bytes);
        }
        let from = usize::try_from(start).unwrap_or(usize::MAX);
        let bytes = self.pending.get(from..from.saturating_add(len));
        Ok(bytes.unwrap_or_default().to_vec())
    }
}

impl Block {
    fn text(&self, within: usize) -> Option<&str> {
        self.texts.get(range(&self.ends, within)?)
    }
}

/// Returns where a string lies among the texts of its block.
fn range(ends: &[u32; PER_BLOCK], within: usize) -> Option<Range<usize>> {
    let end = *ends.get(within)?;
    let start = match within.checked_sub(1) {
        Some(before) => *ends.get(before)?,
        None => 0,
    };
    Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn changed() -> Refusal {
    Refusal::new(Refusal::READ_FAILED, "the temporary file was changed")
}

fn no_room(error: &std::io::Error) -> Halt {
    Halt::Refused(Refusal::new(
        Refusal::READ_FAILED,
        format!("the workbook's texts could not be put into a temporary file: {error}"),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spilled(texts: &[String]) -> (tempfile::TempDir, Strings) {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("file");
        let mut spill = Spill::new(&beside, 100_000);
        for text in texts {
            spill.push(text).unwrap();
        }
        let strings = spill.finish().unwrap();
        (folder, strings)
    }

    #[test]
    fn many_strings_go_to_disk_and_come_back_in_any_order() {
        let texts: Vec<String> = (0..200_000).map(|n| format!("text {n}")).collect();
        let (folder, mut strings) = spilled(&texts);
        assert!(strings.file.is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for n in (0..200_000_u32).map(|n| n.wrapping_mul(7_919) % 200_000) {
            assert_eq!(strings.get(n), Ok(format!("text {n}").as_str()));
        }
        assert!(matches!(strings.get(200_000), Err(Halt::Foreign(_))));
    }

    #[test]
    fn few_strings_stay_in_memory_and_long_ones_in_one_place() {
        let texts: Vec<String> = (0..40).map(|n| "ä".repeat(n * 150)).collect();
        let (_folder, mut strings) = spilled(&texts);
        assert!(strings.file.is_none());
        for (n, text) in (0..).zip(&texts) {
            assert_eq!(strings.get(n), Ok(text.as_str()));
        }
        let held = strings.places.iter().flatten();
        assert!(held.map(|block| block.texts.len()).sum::<usize>() <= PLACES * PLACE_BYTES);
    }

    #[test]
    fn one_long_string_is_held_and_no_more_of_it_than_a_cell_may_have() {
        let mut texts: Vec<String> = (0..32).map(|n| "ä".repeat(30_000 + n)).collect();
        texts.extend([String::new(), "b".repeat(100_000), "c".repeat(100_002)]);
        texts.extend(["ä".repeat(400_000), "last".to_owned()]);
        let (_folder, mut strings) = spilled(&texts);
        assert!(strings.file.is_some());
        let by_turns = (0..32).map(|n| n % 2 * 16 + n / 2);
        for (n, text) in by_turns.chain(32..37).map(|n| (n, &texts[n])) {
            let cut = match n {
                34 => text.get(..100_001).unwrap(),
                35 => text.get(..100_002).unwrap(),
                _ => text,
            };
            let is_cut = strings.get(u32::try_from(n).unwrap()) == Ok(cut);
            assert!(is_cut, "string {n}");
            assert_eq!(strings.long.as_ref().unwrap().text.len(), cut.len());
        }
        assert!(strings.places.iter().all(Option::is_none));
    }

    proptest! {
        #[test]
        fn any_strings(texts in prop::collection::vec("\\PC{0,20}", 0..70)) {
            let (_folder, mut strings) = spilled(&texts);
            for (n, text) in (0..).zip(&texts) {
                prop_assert_eq!(strings.get(n), Ok(text.as_str()));
            }
            prop_assert!(strings.get(u32::try_from(texts.len()).unwrap()).is_err());
        }
    }
}
