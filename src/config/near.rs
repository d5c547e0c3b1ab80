//! The nearest known name to a mistyped one. Pure.

/// Returns the candidate that takes the fewest edits to reach from `name`, if that is few enough to
/// be a slip: one edit for each three characters, and at least one.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Counts the insertions, deletions and replacements between two names (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n_before, a) in from.chars().enumerate() {
        let mut diagonal = n_before;
        let mut left = n_before + 1;
        let mut next = vec![left];
        for (b, above) in to.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(a != *b);
            left = replaced.min(left + 1).min(above + 1);
            next.push(left);
            diagonal = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ];
        for (from, to, edits) in cases {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn finds_a_slip_and_leaves_a_stranger() {
        let names = ["concurrency", "poll_interval", "url"];
        assert_eq!(nearest("concurency", names), Some("concurrency"));
        assert_eq!(nearest("poll-interval", names), Some("poll_interval"));
        assert_eq!(nearest("uri", names), Some("url"));
        assert_eq!(nearest("colour", names), None);
    }
}
