//! Compound files (OLE2), in which Excel 97–2003 workbooks and encrypted newer ones come.
//!
//! Read here only to see what is inside and to look at the workbook's stream
//! before calamine does: a chain of sectors that runs in a circle would make
//! it fill the memory. The format is \[MS-CFB\].

use std::collections::HashSet;
use std::path::Path;

use super::refusal::Refusal;

/// What a compound file begins with.
pub(super) const MAGIC: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Biggest file that is read: it is held in memory, and 65,536 rows need no more.
const MAX_BYTES: u64 = 128 << 20;
/// Sector numbers from here on mean something else: end of chain, free, part of the FAT.
const SPECIAL: u32 = 0xffff_fffa;
const HEADER: usize = 512;
/// Streams of fewer bytes lie in the mini stream.
const MINI_LIMIT: usize = 4096;
const MINI_SECTOR: usize = 64;

/// A compound file in memory.
#[derive(Debug)]
pub(super) struct Compound {
    bytes: Vec<u8>,
    sector: usize,
    fat: Vec<u32>,
    mini_fat: Vec<u32>,
    mini_stream: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    start: u32,
    len: usize,
}

/// Makes sure that a compound file is a workbook that can be read.
///
/// # Errors
///
/// [`Refusal::PASSWORD_PROTECTED`]; [`Refusal::FILE_TOO_LARGE`]; [`Refusal::INVALID_FILE_FORMAT`]
/// when it is something else or damaged.
pub(super) fn check_contents(path: &Path) -> Result<(), Refusal> {
    let compound = Compound::open(path)?;
    if compound.has("EncryptedPackage") {
        return Err(password_protected());
    }
    if compound.has("Workbook") || compound.has("Book") {
        return Ok(());
    }
    let what = if compound.has("WordDocument") {
        "a Word document"
    } else if compound.has("PowerPoint Document") {
        "a PowerPoint presentation"
    } else {
        "an Office file without a workbook"
    };
    Err(Refusal::format(format!(
        "the file is {what}; upload xlsx, xlsm, xlsb, xls, ods, CSV or TSV, alone or in a gz or zip"
    )))
}

/// Says that the workbook cannot be read without its password.
pub(super) fn password_protected() -> Refusal {
    Refusal::new(
        Refusal::PASSWORD_PROTECTED,
        "the workbook is protected by a password; save it without one",
    )
}

impl Compound {
    /// Reads a compound file and its directory.
    ///
    /// # Errors
    ///
    /// [`Refusal::FILE_TOO_LARGE`] above 128 MiB; [`Refusal::INVALID_FILE_FORMAT`] when it is
    /// damaged.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        if std::fs::metadata(path)?.len() > MAX_BYTES {
            return Err(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                "an xls file of more than 128 MiB is not read; save it as xlsx",
            ));
        }
        let bytes = std::fs::read(path)?;
        Self::parse(bytes).ok_or_else(|| Refusal::format("the Office file is damaged"))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let sector = match u16_at(&bytes, 30)? {
            9 => 512,
            12 => 4096,
            _ => return None,
        };
        let mut file = Self {
            bytes,
            sector,
            fat: Vec::new(),
            mini_fat: Vec::new(),
            mini_stream: Vec::new(),
            entries: Vec::new(),
        };
        file.fat = file.read_fat()?;
        let directory = file.chain(u32_at(&file.bytes, 48)?)?;
        file.entries = directory
            .chunks_exact(128)
            .filter_map(Entry::parse)
            .collect();
        let root = directory.get(..128)?;
        if u32_at(&file.bytes, 64)? > 0 {
            file.mini_stream = file.chain(u32_at(root, 116)?)?;
            let mini_fat = file.chain(u32_at(&file.bytes, 60)?)?;
            file.mini_fat = words(&mini_fat).collect();
        }
        Some(file)
    }

    /// Returns the FAT: 109 of its sectors are named in the header, the others in a chain of their
    /// own whose last word names the next.
    fn read_fat(&self) -> Option<Vec<u32>> {
        let mut sectors: Vec<u32> = words(self.bytes.get(76..HEADER)?).collect();
        let mut next = u32_at(&self.bytes, 68)?;
        let mut visited = HashSet::new();
        while next < SPECIAL {
            if !visited.insert(next) {
                return None;
            }
            let mut more: Vec<u32> = words(self.sector_bytes(next)?).collect();
            next = more.pop()?;
            sectors.extend(more);
        }
        let mut fat = Vec::new();
        let mut visited = HashSet::new();
        for id in sectors.into_iter().filter(|id| *id < SPECIAL) {
            // a FAT sector named twice is a way to make a small file need much memory
            if !visited.insert(id) {
                return None;
            }
            fat.extend(words(self.sector_bytes(id)?));
        }
        Some(fat)
    }

    fn sector_bytes(&self, id: u32) -> Option<&[u8]> {
        let start = (usize::try_from(id).ok()? + 1).checked_mul(self.sector)?;
        let end = (start + self.sector).min(self.bytes.len());
        self.bytes.get(start..end).filter(|bytes| !bytes.is_empty())
    }

    /// Returns the bytes of a chain of sectors; `None` when it runs in a circle or out of the file.
    fn chain(&self, mut id: u32) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut visited = HashSet::new();
        while id < SPECIAL {
            if !visited.insert(id) {
                return None;
            }
            bytes.extend_from_slice(self.sector_bytes(id)?);
            id = *self.fat.get(usize::try_from(id).ok()?)?;
        }
        Some(bytes)
    }

    fn mini_chain(&self, mut id: u32, len: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while id < SPECIAL && bytes.len() < len {
            let at = usize::try_from(id).ok()?;
            let start = at * MINI_SECTOR;
            let end = (start + MINI_SECTOR).min(self.mini_stream.len());
            bytes.extend_from_slice(self.mini_stream.get(start..end)?);
            id = *self.mini_fat.get(at)?;
        }
        Some(bytes)
    }

    fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.name.eq_ignore_ascii_case(name))
    }

    /// Returns the bytes of a stream.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] when there is none or its chain is broken.
    pub(super) fn stream(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let broken = || Refusal::format(format!("the Office file's stream {name} is damaged"));
        let entry = self.entry(name).ok_or_else(broken)?;
        let mut bytes = if entry.len < MINI_LIMIT {
            self.mini_chain(entry.start, entry.len)
        } else {
            self.chain(entry.start)
        }
        .ok_or_else(broken)?;
        bytes.truncate(entry.len);
        Ok(bytes)
    }

    /// Returns the bytes of the workbook.
    ///
    /// # Errors
    ///
    /// As [`Compound::stream`].
    pub(super) fn workbook(&self) -> Result<Vec<u8>, Refusal> {
        let name = if self.has("Workbook") {
            "Workbook"
        } else {
            "Book"
        };
        self.stream(name)
    }
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let units = bytes.get(..64)?.chunks_exact(2);
        let units = units.map(|pair| u16_at(pair, 0).unwrap_or_default());
        let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        Some(Self {
            name: String::from_utf16_lossy(&name),
            start: u32_at(bytes, 116)?,
            len: usize::try_from(u32_at(bytes, 120)?).ok()?,
        })
    }
}

/// Returns the number in two bytes of a file, the low one first.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

/// Returns the number in four bytes of a file, the lowest one first.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).filter_map(|word| u32_at(word, 0))
}
