//! The records of the parts of an xlsb, one after the other (\[MS-XLSB\] 2.1.4).

use std::io::{self, BufReader, Read};

use super::super::refusal::Refusal;

/// The records of a part.
pub(in super::super) struct Records<R> {
    part: BufReader<R>,
    /// Bytes of the record at hand that were not read.
    n_left: u64,
    data: Vec<u8>,
}

impl<R: Read> Records<R> {
    /// Begins before the first record.
    pub(in super::super) fn new(part: R) -> Self {
        Self {
            part: BufReader::new(part),
            n_left: 0,
            data: Vec::new(),
        }
    }

    /// Goes on to the next record and returns its kind; `None` behind the last one that is whole.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] where its kind or its length is cut off.
    pub(in super::super) fn next(&mut self) -> Result<Option<u16>, Refusal> {
        let mut rest = self.part.by_ref().take(self.n_left);
        if io::copy(&mut rest, &mut io::sink())? < self.n_left {
            return Ok(None);
        }
        self.n_left = 0;
        let head = head(&mut self.part)?;
        Ok(head.map(|(kind, len)| {
            self.n_left = len;
            kind
        }))
    }

    /// Returns the next bytes of the record at hand, so many at most.
    ///
    /// # Errors
    ///
    /// What reading the part fails of.
    pub(in super::super) fn data(&mut self, n_bytes: u64) -> Result<&[u8], Refusal> {
        self.data.clear();
        let n_bytes = n_bytes.min(self.n_left);
        self.n_left -= n_bytes;
        let mut wanted = self.part.by_ref().take(n_bytes);
        wanted.read_to_end(&mut self.data)?;
        Ok(&self.data)
    }
}

/// Reads the kind and the length of the next record, each in bytes of seven bits; `None` behind the
/// last one.
fn head(part: &mut impl Read) -> Result<Option<(u16, u64)>, Refusal> {
    let cut = |_| Refusal::format("a record of the workbook is cut off");
    let mut byte = [0_u8; 1];
    if part.read(&mut byte)? == 0 {
        return Ok(None);
    }
    let [low] = byte;
    let mut kind = u16::from(low & 0x7f);
    if low & 0x80 != 0 {
        part.read_exact(&mut byte).map_err(cut)?;
        kind |= u16::from(byte[0] & 0x7f) << 7;
    }
    let mut len = 0_u64;
    for place in 0..4 {
        part.read_exact(&mut byte).map_err(cut)?;
        len |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    Ok(Some((kind, len)))
}

/// Returns the text that begins at a place, and where it ends.
pub(in super::super) fn text_at(data: &[u8], at: usize) -> Option<(String, usize)> {
    let n_units = usize::try_from(super::super::ole::u32_at(data, at)?).ok()?;
    let (from, to) = (at + 4, (at + 4).checked_add(n_units.checked_mul(2)?)?);
    let (units, _) = data.get(from..to)?.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    Some((String::from_utf16_lossy(&units), to))
}
