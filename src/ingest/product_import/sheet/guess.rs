//! Which encoding a text without UTF-8 is in, where it is none of western or central Europe.
//!
//! chardetng tells encodings by how often letters follow one another. It was made for pages, which
//! are full of letters; a product file may have nothing beyond ASCII but one `µ`, which it takes for
//! half a Chinese character. So its guess counts where what it comes to looks written: words of
//! other scripts, or several letters of a rarer Latin alphabet within words.

use std::collections::HashSet;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_4, SHIFT_JIS, WINDOWS_1250,
    WINDOWS_1252, WINDOWS_1254, WINDOWS_1257, WINDOWS_1258,
};

/// As many bytes of lines with more than ASCII are listened to: a guess does not become better by
/// more, and listening takes 80 ns a byte.
const MOST_BYTES: usize = 128 * 1024;

/// Encodings of Latin letters that are told from the two usual ones by a few.
const LATIN: [&Encoding; 5] = [
    ISO_8859_2,
    ISO_8859_4,
    WINDOWS_1254,
    WINDOWS_1257,
    WINDOWS_1258,
];

/// Encodings in which two bytes are a word already.
const IDEOGRAPHIC: [&Encoding; 6] = [BIG5, EUC_JP, EUC_KR, GB18030, GBK, SHIFT_JIS];

/// The first lines of a text that have more than ASCII.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: Vec<u8>,
}

impl Heard {
    /// Adds what follows in the text.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let n_free = MOST_BYTES - self.bytes.len();
            if n_free == 0 {
                return;
            }
            if !line.is_ascii() {
                self.bytes
                    .extend_from_slice(line.get(..n_free).unwrap_or(line));
            }
        }
    }

    /// Returns the encoding, where it is none of the two usual ones.
    pub(super) fn other(&self) -> Option<&'static Encoding> {
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(&self.bytes, true);
        let guess = detector.guess(None, Utf8Detection::Deny);
        if [WINDOWS_1250, WINDOWS_1252].contains(&guess) {
            return None;
        }
        let text = guess.decode_without_bom_handling(&self.bytes).0;
        let looks_written = if LATIN.contains(&guess) {
            n_letters_in_words(&text) >= 3
        } else if IDEOGRAPHIC.contains(&guess) {
            has_words(&text, 2, 4)
        } else {
            has_words(&text, 3, 6)
        };
        looks_written.then_some(guess)
    }
}

/// Counts the different letters beyond ASCII that stand beside one of ASCII.
fn n_letters_in_words(text: &str) -> usize {
    let mut letters = HashSet::new();
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let after = chars.peek().copied().unwrap_or(' ');
        let is_in_word = before.is_ascii_alphabetic() || after.is_ascii_alphabetic();
        if !c.is_ascii() && c.is_alphabetic() && is_in_word {
            letters.insert(c);
        }
        before = c;
    }
    letters.len()
}

/// Whether most of what is beyond ASCII stands in words of at least `shortest` letters, and there are
/// so many of those letters.
fn has_words(text: &str, shortest: usize, n_least: usize) -> bool {
    let is_other = |c: char| !c.is_ascii() && c.is_alphabetic();
    let in_words: usize = text
        .split(|c| !is_other(c))
        .map(|word| word.chars().count())
        .filter(|n| *n >= shortest)
        .sum();
    let n_all = text.chars().filter(|c| !c.is_ascii()).count();
    in_words >= n_least && in_words * 2 >= n_all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(encoding: &'static Encoding, text: &str) -> Option<&'static Encoding> {
        let (bytes, _, is_lossy) = encoding.encode(text);
        assert!(!is_lossy, "{text}");
        let mut heard = Heard::default();
        heard.add(&bytes);
        heard.other()
    }

    #[test]
    fn a_few_western_signs_are_no_foreign_words() {
        let signs = [
            "10 µm",
            "±5 %",
            "Cable 5 µF",
            "25 µg",
            "«Titre»",
            "ø 12 mm",
            "Ø 12 mm",
            "naïve",
            "ýmis",
            "¡Hola!",
            "ÄÖÜß",
            "¶",
            "¦ pipe",
            "Brand®",
            "Brand™ X",
            "¼ inch",
            "10×20 cm",
            "§ 5",
            "10 £",
            "5 °C – 20 °C",
            "m² m³ ½",
            "Nº 5 ª",
            "STÜCK",
            "GRÖSSE",
            "Zoë",
            "façade",
            "AÑO",
            "¿Qué?",
            "coração",
            "år",
            "ÆØÅ",
            "æøå",
            "Þór",
            "ß",
            "é",
            "“quoted”",
            "it’s",
            "…",
            "• item",
            "‰",
            "Häagen-Dazs",
            "Löwenbräu",
            "L’Oréal",
            "Ñandú",
            "soft\u{ad}hyphen",
            "¨",
            "´",
        ];
        for sign in signs {
            for text in [
                format!("{sign}\n"),
                format!("code;name;price\n1;{sign};5\n2;x;6\n"),
            ] {
                assert_eq!(heard(WINDOWS_1252, &text), None, "{text}");
            }
        }
        let all = signs.join("\n");
        assert_eq!(heard(WINDOWS_1252, &all), None);
    }

    #[test]
    fn hearing_ends_somewhere() {
        let mut heard = Heard::default();
        for _ in 0..3 {
            heard.add("a;Größe\n".repeat(20_000).as_bytes());
            heard.add("plain\n".repeat(20_000).as_bytes());
        }
        assert_eq!(heard.bytes.len(), MOST_BYTES);
    }
}
