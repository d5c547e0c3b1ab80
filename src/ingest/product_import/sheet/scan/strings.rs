//! The shared strings of a workbook, on disk.
//!
//! Strings lie in blocks of 16 in a file without a name; what is held in memory
//! is where each block begins, and the blocks used last: 4,096 places, each for
//! the blocks whose number leaves one remainder. Read by position and not
//! mapped, because page faults in the order of a shuffled table cost many
//! times as much. Blocks that are asked for one behind the other, as they are
//! in nearly every workbook, are read 64 KiB at once. Of a block too big for a
//! place one string is read at a time and held: long ones by turns cost no more
//! than what is taken of them. None is kept longer than shows that it is longer
//! than a cell may be.

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
/// Most strings: 2 million rows of 25 different texts. The offsets of their blocks take 13 MB.
const MAX_STRINGS: u32 = 50_000_000;
/// Bytes gathered before they are written, and how much is never written.
const PENDING_BYTES: usize = 256 * 1024;
/// Bytes of a block before its texts: where each of them ends.
const HEADER: usize = PER_BLOCK * 4;
/// Bytes read at once where blocks are asked for in their order.
const AHEAD_BYTES: u64 = 64 * 1024;
const NO_UTF8: Halt = Halt::Foreign("a text of the table that is no UTF-8");
const TOO_LONG: Halt = Halt::Foreign("texts of 4 GiB");

/// Shared strings while they are gathered.
pub(super) struct Spill<'p> {
    beside: &'p Path,
    /// A longer string is cut behind the sign that goes beyond this.
    max_bytes: usize,
    strings: Strings,
    /// Where each text of the block begun ends.
    ends: Vec<u32>,
    texts: Vec<u8>,
}

/// Shared strings by number.
pub(super) struct Strings {
    n_all: u32,
    /// Where each block begins, and where the last one ends.
    offsets: Vec<u32>,
    file: Option<File>,
    /// Bytes of the blocks that are in the file.
    n_written: u64,
    pending: Vec<u8>,
    places: Vec<Block>,
    /// A string of a block that is too big for a place.
    long: Option<Long>,
    ahead: Ahead,
}

/// A long string in memory.
struct Long {
    number: usize,
    text: String,
}

/// A block in memory.
#[derive(Debug, Clone)]
struct Block {
    /// `usize::MAX` where there is none.
    number: usize,
    ends: [u32; PER_BLOCK],
    texts: String,
}

/// Blocks as they are in the file.
struct Ahead {
    /// The first block that is held, and the one behind the last.
    blocks: Range<usize>,
    /// The block that was read last by itself.
    last: usize,
    bytes: Vec<u8>,
    /// A block by itself.
    single: Vec<u8>,
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
                ahead: Ahead {
                    blocks: 0..0,
                    last: usize::MAX,
                    bytes: Vec::new(),
                    single: Vec::new(),
                },
            },
            ends: Vec::with_capacity(PER_BLOCK),
            texts: Vec::new(),
        }
    }

    /// Adds the next string; whether it is UTF-8 is found out when it is asked for.
    ///
    /// # Errors
    ///
    /// [`Refusal::FILE_TOO_LARGE`] beyond 50 million; [`Refusal::STORAGE_FULL`] when the disk is full.
    pub(super) fn push(&mut self, text: &[u8]) -> Result<(), Halt> {
        if self.strings.n_all == MAX_STRINGS {
            return Err(Halt::Refused(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                format!("the workbook has more than {MAX_STRINGS} texts; split it"),
            )));
        }
        self.strings.n_all += 1;
        self.texts.extend_from_slice(cut(text, self.max_bytes));
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
        strings.pending.extend_from_slice(&self.texts);
        self.texts.clear();
        let end = strings.n_written + strings.pending.len() as u64;
        // a part has 2 GiB at most, so that its texts and where they end have less than four
        let end = u32::try_from(end).map_err(|_| TOO_LONG)?;
        strings.offsets.push(end);
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
    u32::try_from(len).map_err(|_| TOO_LONG)
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
    /// [`Halt::Foreign`] when there is none of this number, or it is no UTF-8.
    #[inline]
    pub(super) fn get(&mut self, number: u32) -> Result<&str, Halt> {
        if number >= self.n_all {
            return Err(Halt::Foreign("a text that the table does not have"));
        }
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let (block, within) = (number / PER_BLOCK, number % PER_BLOCK);
        let place = block % PLACES;
        let is_here = |held: &&Block| held.number == block;
        let is_held = self.places.get(place).as_ref().is_some_and(is_here);
        if !is_held && self.long.as_ref().is_none_or(|long| long.number != number) {
            self.load(number, place)?;
        }
        let text = match self.places.get(place).filter(is_here) {
            Some(held) => held.text(within),
            None => self.long.as_ref().map(|long| long.text.as_str()),
        };
        text.ok_or(Halt::Foreign("a text that is not where it was put"))
    }

    /// Takes the block of a string into its place, or the string alone where the block is too big.
    #[cold]
    fn load(&mut self, number: usize, place: usize) -> Result<(), Halt> {
        if self.places.is_empty() {
            self.places.resize(PLACES, Block::NONE);
        }
        let block = number / PER_BLOCK;
        let (start, end) = (
            begin_of(&self.offsets, block),
            begin_of(&self.offsets, block + 1),
        );
        let header_end = start + HEADER as u64;
        if end.saturating_sub(header_end) > PLACE_BYTES as u64 {
            let mut ends = [0; PER_BLOCK];
            unpack(&mut ends, &self.read(start..header_end)?);
            let (from, to) = bounds(&ends, number % PER_BLOCK).unwrap_or_default();
            let text = self.read(header_end + u64::from(from)..header_end + u64::from(to))?;
            let text = String::from_utf8(text).map_err(|_| NO_UTF8)?;
            self.long = Some(Long { number, text });
            return Ok(());
        }
        let bytes = match &self.file {
            Some(file) => self.ahead.read(file, &self.offsets, block)?,
            None => slice(&self.pending, start..end),
        };
        let (header, texts) = bytes.split_at_checked(HEADER).unwrap_or_default();
        let texts = std::str::from_utf8(texts).map_err(|_| NO_UTF8)?;
        if let Some(held) = self.places.get_mut(place) {
            held.number = block;
            unpack(&mut held.ends, header);
            held.texts.clear();
            held.texts.reserve_exact(texts.len());
            held.texts.push_str(texts);
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Halt> {
        match &self.file {
            Some(file) => {
                let mut bytes = Vec::new();
                fill(&mut bytes, file, range)?;
                Ok(bytes)
            }
            None => Ok(slice(&self.pending, range).to_vec()),
        }
    }
}

/// Returns where a block begins.
fn begin_of(offsets: &[u32], block: usize) -> u64 {
    offsets.get(block).copied().unwrap_or_default().into()
}

/// Returns a part of what was never written to the file.
fn slice(pending: &[u8], range: Range<u64>) -> &[u8] {
    let start = usize::try_from(range.start).unwrap_or(usize::MAX);
    let end = usize::try_from(range.end).unwrap_or(usize::MAX);
    pending.get(start..end).unwrap_or_default()
}

/// Returns a text, or so much of it that shows that it is longer than `max_bytes`.
fn cut(text: &[u8], max_bytes: usize) -> &[u8] {
    let longest = max_bytes.saturating_add(1);
    let Some((_, behind)) = text.split_at_checked(longest) else {
        return text;
    };
    let is_within = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let n_more = behind.iter().take_while(is_within).count();
    text.get(..longest + n_more).unwrap_or(text)
}

/// Reads where each text of a block ends.
fn unpack(ends: &mut [u32; PER_BLOCK], header: &[u8]) {
    for (end, bytes) in ends.iter_mut().zip(header.as_chunks().0) {
        *end = u32::from_le_bytes(*bytes);
    }
}

impl Ahead {
    /// Returns a block's bytes, and reads those behind it where blocks are asked for in their order.
    fn read(&mut self, file: &File, offsets: &[u32], number: usize) -> Result<&[u8], Halt> {
        if !self.blocks.contains(&number) {
            let start = begin_of(offsets, number);
            let is_next = number == self.blocks.end || number == self.last.wrapping_add(1);
            if !is_next {
                self.last = number;
                let end = begin_of(offsets, number + 1);
                return fill(&mut self.single, file, start..end);
            }
            let behind = offsets.get(number + 1..).unwrap_or_default();
            let n_more = behind.partition_point(|end| u64::from(*end) <= start + AHEAD_BYTES);
            let end = number + n_more.max(1);
            let end_at = begin_of(offsets, end);
            self.blocks = 0..0; // until they are read
            fill(&mut self.bytes, file, start..end_at)?;
            self.blocks = number..end;
        }
        let first = begin_of(offsets, self.blocks.start);
        let place = |block: usize| {
            let offset = u64::from(*offsets.get(block)?);
            usize::try_from(offset.checked_sub(first)?).ok()
        };
        let bytes = place(number)
            .zip(place(number + 1))
            .and_then(|(start, end)| self.bytes.get(start..end));
        Ok(bytes.unwrap_or_default())
    }
}

/// Reads a range of the file.
fn fill<'b>(bytes: &'b mut Vec<u8>, file: &File, range: Range<u64>) -> Result<&'b [u8], Halt> {
    let len = range.end.saturating_sub(range.start);
    let len = usize::try_from(len).unwrap_or_default();
    if bytes.len() < len {
        bytes.resize(len, 0);
    }
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    file.read_exact_at(bytes, range.start)?;
    Ok(bytes)
}

impl Block {
    const NONE: Self = Self {
        number: usize::MAX,
        ends: [0; PER_BLOCK],
        texts: String::new(),
    };

    #[inline]
    fn text(&self, within: usize) -> Option<&str> {
        let (start, end) = bounds(&self.ends, within)?;
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        self.texts.get(range)
    }
}

/// Returns where a string begins and ends among the texts of its block.
#[inline]
fn bounds(ends: &[u32; PER_BLOCK], within: usize) -> Option<(u32, u32)> {
    let end = *ends.get(within)?;
    let start = match within.checked_sub(1) {
        Some(before) => *ends.get(before)?,
        None => 0,
    };
    Some((start, end))
}

fn no_room(error: &std::io::Error) -> Halt {
    let what = "the workbook's texts could not be put into a temporary file";
    Halt::Refused(Refusal::unkept(what, error))
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
            spill.push(text.as_bytes()).unwrap();
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
    fn strings_in_their_order_come_back_whatever_is_asked_for_between() {
        let texts: Vec<String> = (0..100_000).map(|n| "x".repeat(n % 90)).collect();
        let (_folder, mut strings) = spilled(&texts);
        let other = |n: u32| n.wrapping_mul(7_919) % 100_000;
        let all = 0..100_000_u32;
        for n in all.clone().flat_map(|n| [n, other(n)]).chain(all.rev()) {
            assert_eq!(strings.get(n), Ok(texts[n as usize].as_str()), "{n}");
        }
        assert!(strings.ahead.bytes.len() < 80 * 1024);
    }

    #[test]
    fn what_is_no_text_is_foreign_when_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let beside = folder.path().join("file");
        let mut spill = Spill::new(&beside, 100);
        for n in 0..40 {
            let text: &[u8] = if n == 20 { b"\xff" } else { b"text" };
            spill.push(text).unwrap();
        }
        let mut strings = spill.finish().unwrap();
        assert_eq!(strings.get(3), Ok("text"));
        assert!(matches!(strings.get(20), Err(Halt::Foreign(_))));
        assert_eq!(strings.get(39), Ok("text"));
    }

    #[test]
    fn few_strings_stay_in_memory_and_long_ones_in_one_place() {
        let texts: Vec<String> = (0..40).map(|n| "ä".repeat(n * 150)).collect();
        let (_folder, mut strings) = spilled(&texts);
        assert!(strings.file.is_none());
        for (n, text) in (0..).zip(&texts) {
            assert_eq!(strings.get(n), Ok(text.as_str()));
        }
        let held = strings.places.iter();
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
        let is_none = |held: &Block| held.number == usize::MAX;
        assert!(strings.places.iter().all(is_none));
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
