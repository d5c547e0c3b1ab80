//! Which names of a folder are taken: `*` for any characters, `?` for one.

/// A pattern of file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<char>);

/// Longest pattern, in bytes.
const LONGEST: usize = 200;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that follow its name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let is_fine = (1..=LONGEST).contains(&text.len())
            && !text.contains(|c: char| c == '/' || c.is_control());
        if is_fine {
            return Ok(Self(text.chars().collect()));
        }
        Err("must be 1 to 200 bytes without '/', such as \"*.csv\"".to_owned())
    }

    /// Says whether a whole name fits; case counts.
    ///
    /// Looks at each character of the name at most once for each star's last try: no pattern
    /// makes it slow.
    pub(super) fn fits(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut of, mut star) = (0, 0, None);
        while let Some(character) = name.get(at) {
            match self.0.get(of) {
                Some('*') => {
                    star = Some((of, at));
                    of += 1;
                }
                Some(wanted) if *wanted == '?' || wanted == character => {
                    (at, of) = (at + 1, of + 1);
                }
                _ => {
                    let Some((starred, taken)) = star else {
                        return false;
                    };
                    star = Some((starred, taken + 1));
                    (at, of) = (taken + 1, starred + 1);
                }
            }
        }
        self.0.iter().skip(of).all(|rest| *rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, fits) in [
            ("*", "a.csv", true),
            ("*.csv", "a.csv", true),
            ("*.csv", "a.CSV", false),
            ("*.csv", ".csv", true),
            ("*.csv", "a.csv.part", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("p*-*.csv", "products-2024-01.csv", true),
            ("*a*b", "aab", true),
            ("*ab", "aab", true),
            ("ž*", "žluť", true),
            ("**", "", true),
            ("?", "", false),
            ("a", "ab", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.fits(name), fits, "{pattern} {name}");
        }
        for wrong in ["", "a/b", "a\nb", &"x".repeat(201)] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn many_stars_are_not_slow() {
        let pattern = Pattern::parse(&"*a".repeat(100)).unwrap();
        assert!(!pattern.fits(&format!("{}b", "a".repeat(5000))));
    }
}
