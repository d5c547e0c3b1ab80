//! Zip archives: the limits of their directory, and one pass over the parts that will be parsed.
//!
//! A parser sees an archive only after [`open`] has looked at its directory,
//! and a part only after [`scan`] has inflated it once: so sizes are what they
//! say, checksums agree, and no element is so long that buffering it would
//! matter. What a part's *content* can make a parser do is looked at in
//! `xlsx.rs`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem::{self, Finder};
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::refusal::Refusal;

/// Most entries of an archive; a workbook has some dozens.
pub(super) const MAX_ENTRIES: u64 = 10_000;
/// Most bytes that are read to know the entries: each may have 192 KiB of names and comments, and
/// all of them are held in memory.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Most bytes of an entry, inflated. The zip crate ends an entry that grows beyond what it declares.
pub(super) const MAX_ENTRY_BYTES: u64 = 2 << 30;
/// Most bytes of all entries, inflated.
const MAX_TOTAL_BYTES: u64 = 4 << 30;
/// Entries that inflate to less than this may have any ratio.
pub(super) const FREE_BYTES: u64 = 64 << 20;
/// Most inflated bytes for a compressed one.
pub(super) const MAX_RATIO: u64 = 200;
/// Longest piece of XML without a `<`, which a parser must hold in memory: a cell of 32,767
/// characters takes 0.2 MB when every one is written as `&#x1F600;`.
const MAX_RUN_BYTES: usize = 16 << 20;

/// An archive whose directory is within the limits.
pub(super) type Archive = ZipArchive<Source>;
type Source = BufReader<Metered>;

/// A file of which only so many bytes are read before it is said that there may be more.
pub(super) struct Metered {
    file: File,
    left: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n_read = self.file.read(out)?;
        let left = self.left.load(Ordering::Relaxed);
        let left = left.saturating_sub(n_read as u64);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("the archive's directory is too big"));
        }
        Ok(n_read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Opens an archive.
///
/// # Errors
///
/// [`Refusal::ARCHIVE_LIMITS`] beyond the limits of entries, their directory, sizes or ratio, or with
/// two entries of one name; [`Refusal::PASSWORD_PROTECTED`] when any entry is encrypted;
/// [`Refusal::INVALID_FILE_FORMAT`] when it is no archive or a damaged one.
pub(super) fn open(path: &Path) -> Result<Archive, Refusal> {
    let mut file = File::open(path)?;
    let n_declared = count_entries(&mut file)?;
    if n_declared > MAX_ENTRIES {
        return Err(Refusal::archive(format!(
            "the archive has {n_declared} entries; at most {MAX_ENTRIES} are read"
        )));
    }
    let mut archive = open_metered(file)?;
    if archive.len() as u64 != n_declared {
        return Err(Refusal::archive("two entries of the archive have one name"));
    }
    check_names(&archive)?;
    check_sizes(&mut archive)?;
    Ok(archive)
}

/// Reads the directory, and no more of the file than a directory takes.
fn open_metered(file: File) -> Result<Archive, Refusal> {
    let left = Arc::new(AtomicU64::new(MAX_DIRECTORY_BYTES));
    let metered = Metered {
        file,
        left: Arc::clone(&left),
    };
    let opened = ZipArchive::new(BufReader::new(metered));
    // what is read from now on are the entries
    if left.swap(u64::MAX, Ordering::Relaxed) == 0 {
        return Err(Refusal::archive(format!(
            "the directory of the archive is bigger than {MAX_DIRECTORY_BYTES} bytes"
        )));
    }
    opened.map_err(|error| damaged(&error))
}

fn damaged(error: &ZipError) -> Refusal {
    Refusal::damaged("the archive", error)
}

/// Returns the number of entries that the archive's last record declares.
///
/// Read by hand, because opening costs memory for each entry. The record must be the last thing in
/// the file, so that every reader takes the same one.
fn count_entries(file: &mut File) -> Result<u64, Refusal> {
    const RECORD: usize = 22;
    let cut = || Refusal::format("the archive is cut off: its directory is not there");
    let len = file.seek(SeekFrom::End(0))?;
    let tail_len = len.min(RECORD as u64 + u64::from(u16::MAX) + 20);
    file.seek(SeekFrom::Start(len - tail_len))?;
    let mut tail = Vec::new();
    file.take(tail_len).read_to_end(&mut tail)?;
    let at = memmem::rfind(&tail, b"PK\x05\x06").ok_or_else(cut)?;
    let record = tail.get(at..).ok_or_else(cut)?;
    let comment_len = u16_at(record, 20).ok_or_else(cut)?;
    if record.len() != RECORD + usize::from(comment_len) {
        return Err(cut());
    }
    match u16_at(record, 10).ok_or_else(cut)? {
        u16::MAX => count_entries_64(file, tail.get(..at).unwrap_or_default()),
        n_entries => Ok(n_entries.into()),
    }
}

/// Returns the number of entries of a zip64 archive; `before` ends where the short record begins.
fn count_entries_64(file: &mut File, before: &[u8]) -> Result<u64, Refusal> {
    const LOCATOR: usize = 20;
    let at = before.len().saturating_sub(LOCATOR);
    let locator = before.get(at..).unwrap_or_default();
    if !locator.starts_with(b"PK\x06\x07") {
        return Ok(u16::MAX.into());
    }
    let offset = u64_at(locator, 8).unwrap_or_default();
    let mut record = [0; 40];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut record)?;
    u64_at(&record, 32).ok_or_else(|| Refusal::format("the archive's directory is damaged"))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Refuses names that differ only in case or in the sort of slash: parsers take them for one.
fn check_names(archive: &Archive) -> Result<(), Refusal> {
    let mut names = std::collections::HashSet::new();
    for name in archive.file_names() {
        let name = name.map_err(|error| damaged(&error))?;
        if !names.insert(plain(&name)) {
            return Err(Refusal::archive(format!(
                "two entries of the archive have the name {name:.100}"
            )));
        }
    }
    Ok(())
}

/// Returns a name as parsers compare it.
pub(super) fn plain(name: &str) -> String {
    name.replace('\\', "/").to_ascii_lowercase()
}

fn check_sizes(archive: &mut Archive) -> Result<(), Refusal> {
    let mut total = 0_u64;
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|error| damaged(&error))?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        if entry.encrypted() {
            return Err(Refusal::new(
                Refusal::PASSWORD_PROTECTED,
                "the archive is encrypted; save the file without a password",
            ));
        }
        total = total.saturating_add(size);
        let is_bomb = size > FREE_BYTES && size / MAX_RATIO > packed;
        if size > MAX_ENTRY_BYTES || total > MAX_TOTAL_BYTES || is_bomb {
            return Err(Refusal::archive(format!(
                "an entry of the archive inflates from {packed} to {size} bytes, {total} with \
                 those before it; at most {MAX_ENTRY_BYTES} each, {MAX_TOTAL_BYTES} together and \
                 {MAX_RATIO} for one are read"
            )));
        }
    }
    Ok(())
}

/// Returns the name of an entry as the archive has it, whatever its case and slashes.
pub(super) fn find(archive: &Archive, name: &str) -> Option<String> {
    let wanted = plain(name.trim_start_matches('/'));
    let mut names = archive.file_names().filter_map(Result::ok);
    names
        .find(|name| plain(name) == wanted)
        .map(std::borrow::Cow::into_owned)
}

/// Returns the names of all entries as the archive has them, by the ones that [`plain`] makes of
/// them.
pub(super) fn index(archive: &Archive) -> HashMap<String, String> {
    let names = archive.file_names().filter_map(Result::ok);
    names
        .map(|name| (plain(&name), name.into_owned()))
        .collect()
}

/// Returns the names of entries whose last part is `file_name`, whatever its case.
pub(super) fn find_all(archive: &Archive, file_name: &str) -> Vec<String> {
    let names = archive.file_names().filter_map(Result::ok);
    names
        .filter(|name| plain(name).rsplit('/').next() == Some(file_name))
        .map(std::borrow::Cow::into_owned)
        .collect()
}

/// Reads a small part whole.
///
/// # Errors
///
/// [`Refusal::ARCHIVE_LIMITS`] above `max_bytes`; [`Refusal::INVALID_FILE_FORMAT`] when it is not
/// there or damaged.
pub(super) fn read_part(
    archive: &mut Archive,
    name: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, Refusal> {
    let entry = entry(archive, name)?;
    if entry.size() > max_bytes {
        return Err(Refusal::archive(format!(
            "{name} is bigger than {max_bytes} bytes"
        )));
    }
    let mut bytes = Vec::new();
    entry.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Begins to inflate a part.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when it is not there or damaged.
pub(super) fn part<'a>(archive: &'a mut Archive, name: &str) -> Result<impl Read + 'a, Refusal> {
    entry(archive, name)
}

/// Returns an entry, which is stored or deflated.
fn entry<'a>(archive: &'a mut Archive, name: &str) -> Result<ZipFile<'a, Source>, Refusal> {
    let entry = archive.by_name(name).map_err(|error| damaged(&error))?;
    match entry.compression() {
        CompressionMethod::Stored | CompressionMethod::Deflated => Ok(entry),
        other => Err(Refusal::format(format!(
            "{name:.100} is compressed by {}, which is not read; save the file anew, or pack it with \
             deflate, the usual way of zip",
            method_name(other)
        ))),
    }
}

/// Returns what a way to compress is called (APPNOTE.TXT 4.4.5).
fn method_name(method: CompressionMethod) -> String {
    let known = [
        (CompressionMethod::DEFLATE64, "Deflate64"),
        (CompressionMethod::BZIP2, "BZip2"),
        (CompressionMethod::LZMA, "LZMA"),
        (CompressionMethod::ZSTD, "Zstandard"),
        (CompressionMethod::XZ, "XZ"),
        (CompressionMethod::PPMD, "PPMd"),
    ];
    let name = known.iter().find(|(known, _)| *known == method);
    name.map_or_else(
        || "an unknown method".to_owned(),
        |(_, name)| (*name).to_owned(),
    )
}

/// What one pass over a part found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// No fewer than the elements `row` in it.
    pub(super) n_rows: u64,
    /// The largest number in an attribute `uniqueCount`.
    pub(super) unique_count: u64,
    /// Its bytes.
    pub(super) n_bytes: u64,
}

/// Inflates an XML part once: its checksum is verified, its longest run bounded, its rows counted.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged, or is not in an encoding that has no
/// zero bytes; [`Refusal::ARCHIVE_LIMITS`] when a run without `<` is longer than 16 MiB.
pub(super) fn scan(archive: &mut Archive, name: &str) -> Result<Scan, Refusal> {
    scan_part(name, part(archive, name)?)
}

/// As [`scan`], of a part that is being inflated.
///
/// # Errors
///
/// As [`scan`], and when the part cannot be read on.
pub(super) fn scan_part(name: &str, part: impl Read) -> Result<Scan, Refusal> {
    let mut scanner = Scanner::new();
    scanner.run(part).map_err(|refusal| Refusal {
        message: format!("{name}: {}", refusal.message),
        ..refusal
    })
}

/// Inflates a binary part once, verifies its checksum and returns its bytes.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged.
pub(super) fn verify(archive: &mut Archive, name: &str) -> Result<u64, Refusal> {
    let mut entry = entry(archive, name)?;
    Ok(io::copy(&mut entry, &mut io::sink())?)
}

struct Scanner {
    found: Scan,
    run: usize,
    row: Finder<'static>,
    unique_count: Finder<'static>,
    markup: Finder<'static>,
    has_markup: bool,
}

impl Scanner {
    /// Bytes kept from one buffer to the next, so that no match is cut; longer than any match.
    const KEPT: usize = 64;
    const BUFFER: usize = 256 * 1024;

    fn new() -> Self {
        Self {
            found: Scan::default(),
            run: 0,
            row: Finder::new("row"),
            unique_count: Finder::new("uniqueCount"),
            markup: Finder::new("<!"),
            has_markup: false,
        }
    }

    fn run(&mut self, mut part: impl Read) -> Result<Scan, Refusal> {
        let mut buffer = vec![0; Self::BUFFER];
        let mut kept = 0;
        loop {
            let free = buffer.get_mut(kept..).unwrap_or_default();
            let n_read = part.read(free)?;
            let filled = buffer.get(..kept + n_read).unwrap_or_default();
            self.measure(filled.get(kept..).unwrap_or_default())?;
            let is_last = n_read == 0;
            self.refuse_markup(filled)?;
            // a match is counted in the buffer in which all that follows it is at hand
            let end = if is_last {
                filled.len()
            } else {
                filled.len().saturating_sub(Self::KEPT)
            };
            self.count(filled, end);
            if is_last {
                return Ok(self.found);
            }
            // one byte before the end goes along, to see what a match follows
            let from = end.saturating_sub(1);
            let n_filled = filled.len();
            kept = n_filled - from;
            buffer.copy_within(from..n_filled, 0);
        }
    }

    fn measure(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.found.n_bytes += bytes.len() as u64;
        if memchr::memchr(0, bytes).is_some() {
            return Err(Refusal::format("the XML is not in UTF-8"));
        }
        let first = memchr::memchr(b'<', bytes);
        self.run += first.unwrap_or(bytes.len());
        if self.run > MAX_RUN_BYTES {
            return Err(Refusal::archive("one piece of XML is longer than 16 MiB"));
        }
        if let Some(last) = memchr::memrchr(b'<', bytes) {
            self.run = bytes.len() - last;
        }
        Ok(())
    }

    /// Refuses comments and CDATA sections, which may hold any number of `<`, in parts so big that
    /// buffering one would matter. No spreadsheet program writes them.
    fn refuse_markup(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.has_markup |= self.markup.find(bytes).is_some();
        if self.has_markup && self.found.n_bytes > FREE_BYTES {
            return Err(Refusal::archive(
                "comments in XML of this size are not read",
            ));
        }
        Ok(())
    }

    /// Counts matches that begin before `end`. The first byte was there before, but for the first
    /// buffer, where no element can begin with `row`.
    fn count(&mut self, bytes: &[u8], end: usize) {
        for at in self.row.find_iter(bytes).take_while(|at| *at < end) {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + 3);
            let begins = matches!(before, Some(b'<' | b':'));
            let ends = matches!(
                after,
                None | Some(b' ' | b'>' | b'/' | b'\t' | b'\r' | b'\n')
            );
            self.found.n_rows += u64::from(begins && ends);
        }
        for at in self
            .unique_count
            .find_iter(bytes)
            .take_while(|at| *at < end)
        {
            let value = bytes.get(at + "uniqueCount".len()..).unwrap_or_default();
            self.found.unique_count = self.found.unique_count.max(number(value));
        }
    }
}

/// Returns the number in ` = "123"`, 0 when there is none, the largest one when it is too long.
fn number(attribute: &[u8]) -> u64 {
    let skipped = |b: &&u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'=' | b'"' | b'\'' | b'+');
    let digits = attribute.iter().skip_while(skipped);
    digits
        .take_while(|b| b.is_ascii_digit())
        .fold(0_u64, |number, b| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(b - b'0'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a part of which so many bytes went before.
    fn scan_behind(n_before: u64, xml: &[u8]) -> Result<Scan, Refusal> {
        let mut scanner = Scanner::new();
        scanner.found.n_bytes = n_before;
        scanner.run(xml)
    }

    #[test]
    fn comments_are_read_in_small_parts_alone() {
        for comment in ["<a><!-- <row> --></a>", "<a><![CDATA[<row>]]></a>"] {
            assert!(scan_behind(0, comment.as_bytes()).is_ok());
            let refusal = scan_behind(FREE_BYTES, comment.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Refusal::ARCHIVE_LIMITS);
            // it came long before the part was that big
            let long = comment.to_owned() + &"<row/>".repeat(100_000);
            assert!(scan_behind(FREE_BYTES - 500_000, long.as_bytes()).is_err());
            assert!(scan_behind(0, long.as_bytes()).is_ok());
        }
        assert!(scan_behind(FREE_BYTES, b"<a></a>").is_ok());
        // cut by the end of a buffer
        for n_before in Scanner::BUFFER - 3..Scanner::BUFFER + 3 {
            let xml = " ".repeat(n_before) + "<!-- -->";
            assert!(
                scan_behind(FREE_BYTES, xml.as_bytes()).is_err(),
                "{n_before}"
            );
        }
    }

    #[test]
    fn a_part_with_zero_bytes_is_no_xml() {
        let refusal = scan_behind(0, b"<a>\0</a>").unwrap_err();
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
        assert!(refusal.message.contains("UTF-8"), "{refusal}");
    }
}
