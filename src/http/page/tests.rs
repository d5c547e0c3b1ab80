//! The templates as they are written, and problems as pages.

use std::path::Path;

use super::*;

fn templates() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// Returns what of a template is neither its own language nor between quotes.
fn bare(text: &str) -> String {
    let html = text
        .split("{%")
        .map(|part| part.split_once("%}").map_or(part, |(_, rest)| rest));
    let html: String = html.collect();
    html.split('"').step_by(2).collect()
}

#[test]
fn templates_escape_and_have_nothing_inline() {
    let all = templates();
    assert!(all.len() >= 12, "{}", all.len());
    for (name, text) in all {
        // Only what ends so is escaped.
        let (_, extension) = name.rsplit_once('.').unwrap();
        assert_eq!(extension, "html", "{name}");
        for never in [
            "|safe",
            "| safe",
            "escape",
            "<style",
            "javascript:",
            "http:",
        ] {
            assert!(!text.contains(never), "{never:?} in {name}");
        }
        for script in text.split("<script").skip(1) {
            let is_ours = script.starts_with(" src=\"{{ frame.js() }}\" defer></script>");
            assert!(is_ours, "{name}");
        }
        // An attribute without quotes would end at a space of what it shows.
        assert!(
            !bare(&text).contains("={{"),
            "{name} has an attribute without quotes"
        );
        for word in bare(&text).split_ascii_whitespace() {
            let attribute = word.split_once('=').map(|(attribute, _)| attribute);
            let is_inline = attribute.is_some_and(|a| a.starts_with("on") || a == "style");
            assert!(!is_inline, "{word} in {name}");
        }
    }
}

#[test]
fn a_problem_is_told_in_html() {
    let problem = Problem::new(Trouble::Conflict)
        .detail("<b>run</b>")
        .at("/a", "<i>wrong</i>");
    let response = told(problem, "/runs/7", "req-1");
    assert_eq!(response.status(), 409);
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    assert_eq!(response.headers()["content-security-policy"], POLICY);
    let unknown = told(Trouble::Unauthorized.into(), "/runs/7?a=b&c", "req-1");
    assert_eq!(unknown.status(), 303);
    assert_eq!(
        unknown.headers()["location"],
        "/sign-in?next=%2Fruns%2F7%3Fa%3Db%26c"
    );
}
