//! Which encoding a text without UTF-8 is in, where it is none of western or central Europe.
//!
//! chardetng tells encodings by how often letters follow one another. It was made for pages, which
//! are full of letters; a product file may have nothing beyond ASCII but one `µ`, which it takes for
//! half a Chinese character. So its guess counts where what it comes to looks written: words of
//! other scripts, or letters of a rarer Latin alphabet within words that the usual ones have not.

use std::collections::HashSet;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_4, SHIFT_JIS, WINDOWS_1250,
    WINDOWS_1252, WINDOWS_1254, WINDOWS_1257, WINDOWS_1258,
};

/// As many bytes of lines with more than ASCII are listened to: a guess does not become better by
/// more, and listening takes 80 ns a byte.
const MOST_BYTES: usize = 128 * 1024;

/// Encodings of Latin letters that are told from the two usual ones by a few, and how many of those
/// it takes.
const LATIN: [(&Encoding, usize); 5] = [
    (ISO_8859_2, 2),
    (ISO_8859_4, 3),
    (WINDOWS_1254, 3),
    (WINDOWS_1257, 2),
    (WINDOWS_1258, 3),
];

/// Encodings in which two bytes are a word already.
const IDEOGRAPHIC: [&Encoding; 6] = [BIG5, EUC_JP, EUC_KR, GB18030, GBK, SHIFT_JIS];

/// The first lines of a text that have more than ASCII, each whole: half a character at the end would
/// rule out every encoding that has characters of two bytes.
#[derive(Debug, Default)]
pub(super) struct Heard {
    lines: Vec<u8>,
    /// What came of a line that has not ended.
    begun: Vec<u8>,
    is_full: bool,
}

impl Heard {
    /// Adds what follows in the text.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| is_line_end(*byte)) {
            if self.is_full {
                return;
            }
            let is_ended = piece.last().is_some_and(|byte| is_line_end(*byte));
            if is_ended && self.begun.is_empty() && piece.is_ascii() {
                continue;
            }
            self.begun.extend_from_slice(piece);
            if is_ended || self.begun.len() > MOST_BYTES {
                self.take_line();
            }
        }
    }

    fn take_line(&mut self) {
        if !self.begun.is_ascii() {
            self.is_full = self.lines.len() + self.begun.len() > MOST_BYTES;
            if !self.is_full {
                self.lines.append(&mut self.begun);
            }
        }
        self.begun.clear();
    }

    /// Returns the encoding, where it is neither of the two usual ones, of which `usual` is the likelier.
    pub(super) fn other(mut self, usual: &'static Encoding) -> Option<&'static Encoding> {
        self.take_line();
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(&self.lines, true);
        let guess = detector.guess(None, Utf8Detection::Deny);
        if [WINDOWS_1250, WINDOWS_1252].contains(&guess) {
            return None;
        }
        let n_own = LATIN.iter().find(|(latin, _)| *latin == guess);
        let looks_written = if let Some((_, n_least)) = n_own {
            // as windows-1250 has them, where ISO-8859-2 has none
            let has_controls = self.lines.iter().any(|byte| (0x80..0xa0).contains(byte));
            n_own_letters(&self.lines, guess, usual) >= *n_least
                && !(has_controls && guess == ISO_8859_2)
        } else {
            let text = guess.decode_without_bom_handling(&self.lines).0;
            let (shortest, n_least) = if IDEOGRAPHIC.contains(&guess) {
                (2, 4)
            } else {
                (3, 6)
            };
            has_words(&text, shortest, n_least)
        };
        looks_written.then_some(guess)
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Counts the letters of an encoding of one byte a character that another reads as something else, and
/// that stand beside a letter of ASCII; each once.
fn n_own_letters(bytes: &[u8], guess: &'static Encoding, usual: &'static Encoding) -> usize {
    let of = |encoding: &'static Encoding, byte: u8| {
        let bytes = [byte];
        let text = encoding.decode_without_bom_handling(&bytes).0;
        text.chars().next().unwrap_or_default()
    };
    let is_own = |byte: u8| {
        let (letter, other) = (of(guess, byte), of(usual, byte));
        // quotes stand beside letters as well
        letter.is_alphabetic() && letter != other && !['«', '»'].contains(&other)
    };
    let mut met = HashSet::new();
    let mut before = b' ';
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let after = rest.peek().copied().unwrap_or(b' ');
        if !byte.is_ascii() && (before.is_ascii_alphabetic() || after.is_ascii_alphabetic()) {
            met.insert(byte);
        }
        before = byte;
    }
    met.into_iter().filter(|byte| is_own(*byte)).count()
}

/// Whether most of what is beyond ASCII stands in words of at least `shortest` letters, and there are
/// so many of those letters, four of them different. One letter again and again is no word: it is a
/// sign that somebody drew a line of.
fn has_words(text: &str, shortest: usize, n_least: usize) -> bool {
    let is_other = |c: char| !c.is_ascii() && c.is_alphabetic();
    let mut letters = HashSet::new();
    let mut in_words = 0;
    for word in text.split(|c| !is_other(c)) {
        let n_letters = word.chars().count();
        let first = word.chars().next();
        if n_letters >= shortest && word.chars().any(|c| Some(c) != first) {
            in_words += n_letters;
            letters.extend(word.chars());
        }
    }
    let n_all = text.chars().filter(|c| !c.is_ascii()).count();
    in_words >= n_least && letters.len() >= 4 && in_words * 2 >= n_all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(encoding: &'static Encoding, text: &str) -> Option<&'static Encoding> {
        let (bytes, _, is_lossy) = encoding.encode(text);
        assert!(!is_lossy, "{text}");
        let mut heard = Heard::default();
        heard.add(&bytes);
        heard.other(encoding)
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
    fn what_somebody_drew_is_no_text() {
        for text in [
            "code;name\n1;Inhalt········5\n2;Tür\n",
            "code;name\n1;••• NEU •••\n",
            "code;name\n1;————————————————————\n2;Größe\n",
            "code;name\n1;»»» Aktion «««\n2;Süßes\n",
        ] {
            assert_eq!(heard(WINDOWS_1252, text), None, "{text}");
        }
    }

    #[test]
    fn letters_that_two_encodings_share_tell_nothing() {
        let (bytes, ..) = WINDOWS_1252.encode("räumé, cíndó, «ýmis», ø");
        assert_eq!(
            n_own_letters(&bytes, WINDOWS_1254, WINDOWS_1252),
            1,
            "ý alone"
        );
        for text in [
            "1;Svätý Martin, ďalší\n",
            "1;TUREČTINA, šéf, místo\n",
            "1;ciągnienia, łódź\n",
        ] {
            assert_eq!(heard(WINDOWS_1250, text), None, "{text}");
        }
        for text in ["1;Føroyar, ýti, á, í, ó\n", "1;Þórður, ýmis\n"] {
            assert_eq!(heard(WINDOWS_1252, text), None, "{text}");
        }
    }

    /// Wherever the hearing ends, it is not within a character.
    #[test]
    fn long_texts_of_two_bytes_a_character_are_heard_whole() {
        for (encoding, line) in [
            (SHIFT_JIS, "1,ハンマーとのこぎり,工具\n"),
            (GBK, "1,锤子和锯子工具\n"),
            (EUC_KR, "1,망치와 톱날 도구\n"),
            (BIG5, "1,錘子和鋸子工具箱\n"),
        ] {
            for n_odd in 0..4 {
                let text = format!("{}{}", "x".repeat(n_odd), line.repeat(12_000));
                let (bytes, ..) = encoding.encode(&text);
                for size in [bytes.len(), 1000, 4097] {
                    let mut heard = Heard::default();
                    bytes.chunks(size).for_each(|piece| heard.add(piece));
                    assert!(heard.lines.len() <= MOST_BYTES);
                    assert_eq!(heard.other(WINDOWS_1252), Some(encoding), "{size}");
                }
            }
        }
    }
}
