//! The nearest known name to a mistyped one. Pure.

/// Returns the candidate that takes the fewest edits to reach from `name`, if that is few enough to
/// be a slip: one edit for each three characters, and at least one.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_slip_and_leaves_a_stranger() {
        let names = ["concurrency", "poll_interval", "url"];
        assert_eq!(nearest("concurency", names), Some("concurrency"));
        assert_eq!(nearest("poll-interval", names), Some("poll_interval"));
        assert_eq!(nearest("uri", names), Some("url"));
        assert_eq!(nearest("colour", names), None);
    }
}
