//! Statements as they may be shown: without the values in them.

/// Returns the first `most` characters of a statement, each literal replaced by `?` and comments
/// left out.
///
/// Literals are `'…'`, `E'…'`, `$tag$…$tag$` and numbers; what is not closed, because the server cut
/// the text, is a literal to its end. A backslash before a quote means different things by the
/// session's settings, so that nothing is shown from there on, unless the literal is marked `E`.
pub(super) fn without_literals(query: &str, most: usize) -> String {
    let mut shown = String::new();
    let mut rest = query;
    let mut n_shown = 0;
    while let Some(first) = rest.chars().next()
        && n_shown < most
    {
        let (piece, length) = next(rest, first, shown.chars().last());
        let space = piece.starts_with(char::is_whitespace);
        if !(space && shown.ends_with(char::is_whitespace)) {
            n_shown += piece.chars().count();
            shown.push_str(if space { " " } else { piece });
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    if !rest.is_empty() {
        shown.push('…');
    }
    shown.trim().to_owned()
}

/// Returns what is shown for the next piece of a statement, and the piece's length in bytes.
fn next(rest: &str, first: char, before: Option<char>) -> (&str, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let continues = before.is_some_and(is_word);
    let after = |n: usize| rest.get(n..).unwrap_or_default();
    match first {
        '\'' => ("?", quoted(rest, false)),
        'e' | 'E' if !continues && after(1).starts_with('\'') => ("?", 1 + quoted(after(1), true)),
        '$' => match dollar_quoted(rest) {
            Some(length) => ("?", length),
            None => one(rest, first), // a parameter: its digits are a word's, not a number
        },
        '-' if rest.starts_with("--") => (" ", rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => (" ", block_comment(rest)),
        '"' => {
            let length = 1 + after(1).find('"').map_or(after(1).len(), |end| end + 1);
            (rest.get(..length).unwrap_or(rest), length)
        }
        c if c.is_ascii_digit() && !continues && before != Some('$') => {
            let is_number = |c: char| is_word(c) || c == '.';
            ("?", rest.find(|c| !is_number(c)).unwrap_or(rest.len()))
        }
        _ => one(rest, first),
    }
}

fn one(rest: &str, first: char) -> (&str, usize) {
    let length = first.len_utf8();
    (rest.get(..length).unwrap_or_default(), length)
}

/// Returns the length of `'…'` at the beginning; all that is left where it does not end, or where
/// its end is doubtful.
fn quoted(rest: &str, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if escapes => drop(chars.next()),
            '\\' if chars.peek().is_some_and(|(_, c)| *c == '\'') => return rest.len(),
            '\'' if chars.peek().is_some_and(|(_, c)| *c == '\'') => drop(chars.next()),
            '\'' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the length of `$tag$…$tag$` at the beginning, if that is what is there.
fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..tag_end)?;
    let name = tag.trim_matches('$');
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    let body = rest.get(tag_end..)?;
    is_tag.then(|| {
        body.find(tag)
            .map_or(rest.len(), |end| tag_end + end + tag_end)
    })
}

/// Returns the length of the comment at the beginning; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_not_shown() {
        for (query, shown) in [
            ("SELECT 'secret'", "SELECT ?"),
            ("SELECT 'it''s', b FROM t1", "SELECT ?, b FROM t1"),
            (r"SELECT E'it\'s secret', x", "SELECT ?, x"),
            ("SELECT date'2020-01-01', \"a'b\" ", "SELECT date?, \"a'b\""),
            ("SELECT $$it's$$, $a$x$$y$a$, $1", "SELECT ?, ?, $1"),
            ("WHERE a = 42 AND b2 = -1.5e10", "WHERE a = ? AND b2 = -?"),
            ("SELECT 1 -- token abc\n, 2", "SELECT ? , ?"),
            ("SELECT /* a /* b */ 'c' */ 3", "SELECT ?"),
            ("SELECT\n\t  x", "SELECT x"),
            ("ALTER ROLE a PASSWORD 'p'", "ALTER ROLE a PASSWORD ?"),
        ] {
            assert_eq!(without_literals(query, 200), shown, "{query}");
        }
    }

    #[test]
    fn what_is_cut_or_doubtful_is_not_shown() {
        assert_eq!(without_literals("SELECT 'secr", 200), "SELECT ?");
        assert_eq!(without_literals("SELECT $x$secr", 200), "SELECT ?");
        assert_eq!(without_literals("SELECT /* secr", 200), "SELECT");
        assert_eq!(without_literals(r"SELECT 'C:\', 'secret'", 200), "SELECT ?");
        assert_eq!(without_literals(r"SELECT 'a\b', c", 200), "SELECT ?, c");
    }

    #[test]
    fn long_statements_are_cut_between_characters() {
        assert_eq!(without_literals("žžžž", 2), "žž…");
        assert_eq!(without_literals("", 2), "");
    }
}
