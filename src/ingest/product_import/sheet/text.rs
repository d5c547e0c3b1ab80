//! Delimited text: its encoding, and the same text in UTF-8.

use std::io::{self, Read};

use encoding_rs::{CoderResult, Decoder, DecoderResult, Encoding};

use super::{charset::Charset, guess::Heard};

/// Returns the UTF-16 of a text that begins with its mark, or whose every other byte is mostly 0.
///
/// Western text in UTF-16 is known without the mark; text in other scripts needs it.
pub(super) fn utf16_of(head: &[u8]) -> Option<Charset> {
    match head {
        [0xff, 0xfe, ..] => return Some(Charset::UTF_16LE),
        [0xfe, 0xff, ..] => return Some(Charset::UTF_16BE),
        _ => {}
    }
    let zeros = |from: usize| {
        head.iter()
            .skip(from)
            .step_by(2)
            .filter(|b| **b == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let mostly = |n: usize| head.len() >= 8 && n * 2 * 10 > head.len() * 7;
    match (mostly(even), mostly(odd)) {
        (false, true) if even == 0 => Some(Charset::UTF_16LE),
        (true, false) if odd == 0 => Some(Charset::UTF_16BE),
        _ => None,
    }
}

/// What one pass over a text found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TextScan {
    /// Its encoding.
    pub(super) charset: Charset,
    /// Whether that is a guess by which the text has control characters, as no text has.
    pub(super) is_unlikely: bool,
    /// No fewer than its lines.
    pub(super) n_lines: u64,
}

/// Reads a text once: tells its encoding and counts its lines.
///
/// The whole text is looked at, because one accented letter in row 400,000 decides. A few broken
/// characters make no other encoding of UTF-8, and none do behind its mark. What is no UTF-8 is
/// guessed by the letters in it: other scripts by `guess.rs`, west from east of Europe by marks that
/// product files are full of (`m³`, `½`, `ű`).
///
/// # Errors
///
/// Any error of reading.
pub(super) fn scan(mut text: impl Read) -> io::Result<TextScan> {
    let mut buffer = vec![0; 256 * 1024];
    let mut kept = 0;
    let mut utf16 = None;
    let mut sequences = Sequences::default();
    let mut has_mark = false;
    let mut is_first = true;
    let (mut n_feeds, mut n_returns) = (0, 0);
    let mut last = None;
    let mut letters = Letters::default();
    let mut heard = Heard::default();
    loop {
        let n_read = fill(&mut text, buffer.get_mut(kept..).unwrap_or_default())?;
        let filled = buffer.get(..kept + n_read).unwrap_or_default();
        if is_first {
            utf16 = utf16_of(filled);
            has_mark = filled.starts_with(b"\xef\xbb\xbf");
            is_first = false;
        }
        let new = filled.get(kept..).unwrap_or_default();
        last = new.last().copied().or(last);
        n_feeds += memchr::memchr_iter(b'\n', new).count() as u64;
        n_returns += memchr::memchr_iter(b'\r', new).count() as u64;
        // a character that is cut by the end of the buffer is looked at with the next
        let rest = if n_read > 0 { cut_bytes(filled) } else { 0 };
        let whole = filled.get(..filled.len() - rest).unwrap_or_default();
        sequences.add(whole);
        if sequences.n_invalid > 0 {
            letters.add(whole);
            heard.add(whole);
        }
        if n_read == 0 {
            break;
        }
        let n_filled = filled.len();
        kept = rest;
        buffer.copy_within(n_filled - kept..n_filled, 0);
    }
    let charset = match utf16 {
        Some(charset) => charset,
        None if has_mark || sequences.is_utf8() => Charset::UTF_8,
        None => {
            let usual = letters.charset();
            heard.other(usual.encoding()).map_or(usual, Charset::of)
        }
    };
    // `\r` alone ends lines only where there is no `\n` at all; in UTF-16 both are counted by a
    // byte of theirs, which other characters may share: still no fewer
    let n_ends = if n_feeds == 0 { n_returns } else { n_feeds };
    // The last line may have no end; in UTF-16 the last byte does not tell.
    let is_ended = utf16.is_none() && matches!(last, Some(b'\n' | b'\r'));
    Ok(TextScan {
        charset,
        is_unlikely: letters.has_controls(charset),
        n_lines: n_ends + u64::from(!is_ended),
    })
}

/// The characters beyond ASCII of a text, as UTF-8.
#[derive(Debug, Default)]
struct Sequences {
    n_valid: u64,
    n_invalid: u64,
}

impl Sequences {
    /// Adds bytes that end with a whole character.
    fn add(&mut self, bytes: &[u8]) {
        let n_valid = |bytes: &[u8]| bytes.iter().filter(|b| **b >= 0xc0).count() as u64;
        let (valid, rest) = bytes.split_at(Encoding::utf8_valid_up_to(bytes));
        self.n_valid += n_valid(valid);
        for chunk in rest.utf8_chunks() {
            self.n_valid += n_valid(chunk.valid().as_bytes());
            self.n_invalid += u64::from(!chunk.invalid().is_empty());
        }
    }

    /// Whether it is UTF-8, but perhaps for a few characters that were cut: bytes of other encodings
    /// hardly ever make a sequence, and never four of five.
    fn is_utf8(&self) -> bool {
        self.n_valid >= self.n_invalid * 4
    }
}

/// Returns how many bytes at the end are the begin of a character.
fn cut_bytes(bytes: &[u8]) -> usize {
    let is_cut = |n_bytes: &usize| {
        let start = bytes.len().checked_sub(*n_bytes);
        let tail = start
            .and_then(|start| bytes.get(start..))
            .unwrap_or_default();
        std::str::from_utf8(tail)
            .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=3).find(is_cut).unwrap_or(0)
}

/// How often the bytes occur by which two code pages that share most letters are told apart.
///
/// German is written with the same bytes in both. Š, ž and ť are letters of the east in both, ł and
/// ą are `³` and `¹` in the west, which stand in no word; à, ã, ç and å are of the west.
#[derive(Debug, Default)]
struct Letters {
    east: u64,
    west: u64,
    /// ő and ű, which are õ and û in the west.
    hungarian: u64,
    /// á, í, ó and ú, of which neither French nor Estonian have any.
    acute: u64,
    /// Bytes that are control characters in windows-1252.
    controls_1252: u64,
    /// Bytes that are control characters in windows-1250.
    controls_1250: u64,
}

impl Letters {
    fn add(&mut self, bytes: &[u8]) {
        if bytes.is_ascii() {
            return;
        }
        let is_letter = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphabetic() || *b >= 0xc0);
        for (at, byte) in bytes.iter().enumerate() {
            if byte.is_ascii() {
                continue;
            }
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            let after = bytes.get(at + 1);
            self.controls_1252 += u64::from(matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d));
            self.controls_1250 += u64::from(matches!(byte, 0x81 | 0x83 | 0x88 | 0x90 | 0x98));
            match byte {
                0x8a | 0x8d | 0x8e | 0x9a | 0x9d | 0x9e => self.east += 1,
                // ź ł ą ż where they are inside a word
                0x9f | 0xb3 | 0xb9 | 0xbf => {
                    let is_inside = is_letter(before) && is_letter(after);
                    self.east += u64::from(is_inside);
                }
                0xd5 | 0xdb | 0xf5 | 0xfb => self.hungarian += 1,
                0xe1 | 0xed | 0xf3 | 0xfa => self.acute += 1,
                0xc0 | 0xc3 | 0xc5 | 0xc7 | 0xe0 | 0xe3 | 0xe5 | 0xe7 => self.west += 1,
                _ => {}
            }
        }
    }

    fn has_controls(&self, charset: Charset) -> bool {
        charset == Charset::WINDOWS_1252 && self.controls_1252 > 0
            || charset == Charset::WINDOWS_1250 && self.controls_1250 > 0
    }

    fn charset(&self) -> Charset {
        let is_hungarian = self.hungarian > 0 && self.acute > 0 && self.west == 0;
        if self.east > self.west || is_hungarian {
            Charset::WINDOWS_1250
        } else {
            Charset::WINDOWS_1252
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n_filled = 0;
    while let Some(free) = buffer.get_mut(n_filled..).filter(|free| !free.is_empty()) {
        match from.read(free)? {
            0 => break,
            n_read => n_filled += n_read,
        }
    }
    Ok(n_filled)
}

/// A text in UTF-8, without byte order mark; what cannot be decoded becomes U+0000, which no cell may
/// have, or U+FFFD where it is not to be told.
pub(super) struct Utf8Text<R> {
    from: R,
    decoder: Decoder,
    input: Piece,
    output: Piece,
    is_strict: bool,
    is_done: bool,
}

/// A buffer of which a part is still to be used.
struct Piece {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Piece {
    fn new() -> Self {
        Self {
            bytes: vec![0; 64 * 1024],
            start: 0,
            end: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl<R: Read> Utf8Text<R> {
    /// Reads `from` as text of an encoding.
    pub(super) fn new(from: R, charset: Charset, is_strict: bool) -> Self {
        Self {
            from,
            decoder: charset.encoding().new_decoder_with_bom_removal(),
            input: Piece::new(),
            output: Piece::new(),
            is_strict,
            is_done: false,
        }
    }

    /// Decodes the next piece; nothing is left to decode when it stays empty.
    ///
    /// Into a buffer of its own, because the decoder makes no progress in one that is shorter than
    /// a character, and callers do come with such.
    fn decode(&mut self) -> io::Result<()> {
        while !self.is_done && self.output.rest().is_empty() {
            let mut is_last = false;
            if self.input.rest().is_empty() {
                let n_read = self.from.read(&mut self.input.bytes)?;
                (self.input.start, self.input.end) = (0, n_read);
                is_last = n_read == 0;
            }
            let (is_empty, n_in, n_out) = if self.is_strict {
                self.decode_strictly(is_last)
            } else {
                let output = &mut self.output.bytes;
                let (result, n_in, n_out, _) =
                    self.decoder
                        .decode_to_utf8(self.input.rest(), output, is_last);
                (result == CoderResult::InputEmpty, n_in, n_out)
            };
            self.input.start += n_in;
            (self.output.start, self.output.end) = (0, n_out);
            self.is_done = is_last && is_empty;
        }
        Ok(())
    }

    /// Decodes up to the next bytes that cannot be, with U+0000 in their place. Returns whether the
    /// input is used up, and how many bytes were read and written.
    fn decode_strictly(&mut self, is_last: bool) -> (bool, usize, usize) {
        let output = &mut self.output.bytes;
        // there is room for the U+0000 behind what is decoded
        let (n_room, input) = (
            output.len() - 1,
            self.input.bytes.get(self.input.start..self.input.end),
        );
        let room = output.get_mut(..n_room).unwrap_or_default();
        let input = input.unwrap_or_default();
        let (result, n_in, n_out) = self
            .decoder
            .decode_to_utf8_without_replacement(input, room, is_last);
        match result {
            DecoderResult::InputEmpty => (true, n_in, n_out),
            DecoderResult::OutputFull => (false, n_in, n_out),
            DecoderResult::Malformed(..) => {
                if let Some(place) = output.get_mut(n_out) {
                    *place = 0;
                }
                (false, n_in, n_out + 1)
            }
        }
    }
}

impl<R: Read> Read for Utf8Text<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.decode()?;
        let n_read = self.output.rest().read(out)?;
        self.output.start += n_read;
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn charset(bytes: &[u8]) -> Charset {
        scan(bytes).unwrap().charset
    }

    fn decoded(bytes: &[u8]) -> String {
        let mut text = String::new();
        let charset = charset(bytes);
        Utf8Text::new(bytes, charset, true)
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    fn utf16(text: &str, mark: bool, big: bool) -> Vec<u8> {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        let bytes = |unit: u16| {
            if big {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        };
        units.flat_map(bytes).collect()
    }

    #[test]
    fn encodings_are_told_by_mark_and_content() {
        let text = "code;name\n1;Größe €\n";
        assert_eq!(decoded(text.as_bytes()), text);
        assert_eq!(decoded(format!("\u{feff}{text}").as_bytes()), text);
        for (mark, big) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(decoded(&utf16(text, mark, big)), text, "{mark} {big}");
        }
        let (windows, _, _) = encoding_rs::WINDOWS_1252.encode(text);
        assert_eq!(charset(&windows), Charset::WINDOWS_1252);
        assert_eq!(decoded(&windows), text);
    }

    #[test]
    fn central_european_letters_are_told_from_western_ones() {
        use encoding_rs::{WINDOWS_1250, WINDOWS_1252};
        for text in [
            "Příliš žluťoučký kůň",
            "Zażółć gęślą jaźń",
            "árvíztűrő tükörfúrógép",
            "košček, žlica",
        ] {
            let (bytes, _, is_lossy) = WINDOWS_1250.encode(text);
            assert!(!is_lossy);
            assert_eq!(charset(&bytes), Charset::WINDOWS_1250, "{text}");
            assert_eq!(decoded(&bytes), text);
        }
        for text in [
            "Größe 3 m³, ½ Zoll, 20 °C",
            "pièce à l'œuvre, ça coûte",
            "São João, corações",
            "Ångström, rød grød",
            "año, señal",
        ] {
            let (bytes, _, is_lossy) = WINDOWS_1252.encode(text);
            assert!(!is_lossy);
            assert_eq!(charset(&bytes), Charset::WINDOWS_1252, "{text}");
        }
    }

    #[test]
    fn the_scripts_of_the_world_are_told_by_their_letters() {
        for (name, text) in [
            ("windows-1251", "code;name\n1;Молоток\n2;Пила\n"),
            ("koi8-u", "code;name\n1;Молоток\n2;Пила большая\n"),
            ("windows-1253", "code;name\n1;Σφυρί\n2;Πριόνι\n"),
            (
                "windows-1254",
                "code;name\n1;Çekiç\n2;Testere ağır şey\n3;İğne\n",
            ),
            (
                "windows-1257",
                "code;name\n1;Plaktukas ąžuolinis\n2;Pjūklas\n3;Šėša\n",
            ),
            ("iso-8859-2", "code;name\n1;Šroubovák žlutý\n2;Kůň\n"),
            ("shift_jis", "code,name\n1,ハンマー\n2,のこぎり\n"),
            ("gbk", "code,name\n1,锤子\n2,锯子工具\n"),
            ("big5", "code,name\n1,錘子\n2,鋸子工具\n"),
            ("euc-kr", "code,name\n1,망치\n2,톱날\n"),
            ("windows-1256", "code,name\n1,مطرقة\n2,منشار\n"),
        ] {
            let (bytes, _, is_lossy) = Charset::by_name(name).unwrap().encoding().encode(text);
            assert!(!is_lossy, "{name}");
            assert_eq!(decoded(&bytes), text, "{name}");
            // whatever stands before them
            let mut late = b"0;plain\n".repeat(100_000);
            late.extend_from_slice(&bytes);
            assert_eq!(charset(&late), Charset::by_name(name).unwrap(), "{name}");
        }
    }

    #[test]
    fn one_late_byte_decides() {
        let mut text = vec![b'a'; 1_000_000];
        assert_eq!(charset(&text), Charset::UTF_8);
        *text.last_mut().unwrap() = 0xe4;
        assert_eq!(charset(&text), Charset::WINDOWS_1252);
        let mut cut = vec![b'a'; 256 * 1024 - 1];
        cut.extend("ä".as_bytes());
        assert_eq!(charset(&cut), Charset::UTF_8);
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        for (text, n_lines) in [("a", 1), ("a\nb\n", 2), ("a\r\nb", 2), ("a\rb\rc", 3)] {
            assert_eq!(scan(text.as_bytes()).unwrap().n_lines, n_lines, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_text(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decoded(&bytes);
        }

        #[test]
        fn small_reads_give_the_same_text(text in "\\PC{0,80}", big in any::<bool>()) {
            let bytes = utf16(&text, true, big);
            let mut small = Utf8Text::new(bytes.as_slice(), charset(&bytes), true);
            let mut out = Vec::new();
            let mut one = [0; 1];
            while let n @ 1.. = small.read(&mut one).unwrap() {
                out.extend(&one[..n]);
            }
            prop_assert_eq!(String::from_utf8(out).unwrap(), text.trim_start_matches('\u{feff}'));
        }
    }
}
