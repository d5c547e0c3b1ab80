//! Bodies, pointers, cursors and pages without a server.

use serde_json::json;

use super::{super::problem::Fault, *};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    #[serde(default)]
    a: Vec<std::collections::BTreeMap<String, u8>>,
}

/// Returns the pointer that the problem of a body has.
fn refused(body: &str) -> String {
    let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
    assert_eq!(problem.trouble(), Trouble::BadJson, "{body}");
    let Some(Fault::Body { pointer, .. }) = problem.errors().first() else {
        panic!("no pointer for {body}")
    };
    pointer.clone()
}

#[test]
fn a_problem_points_to_the_wrong_value() {
    assert_eq!(
        refused(r#"{"a":[{"x/y~z":1},{"x/y~z":300}]}"#),
        "/a/1/x~1y~0z"
    );
    assert_eq!(refused(r#"{"a":7}"#), "/a");
    assert_eq!(refused(r#"{"b":7}"#), "/b");
    for broken in [
        "",
        "{",
        "nonsense",
        "{} {}",
        "{\"a\":[]",
        "\u{0}",
        "[1",
        "{'a':1}",
    ] {
        assert_eq!(refused(broken), "", "{broken}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(refused(&format!("{{\"a\":{deep}")), "/a/0");
    assert!(parse::<Sample>(br#" {"a":[{"x":1}]} "#).unwrap().a[0]["x"] == 1);
}

#[test]
fn only_json_is_json() {
    let typed = |value: &str| HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
    assert!(is_json(&typed("application/json")));
    assert!(is_json(&typed("Application/JSON; charset=utf-8")));
    assert!(!is_json(&typed("text/plain")));
    assert!(!is_json(&typed("application/jsonp")));
    assert!(!is_json(&HeaderMap::new()));
}

#[test]
fn a_cursor_comes_back_as_it_went() {
    for id in [0, 1, 255, i64::MAX] {
        let text = serde_json::to_value(Cursor(id)).unwrap();
        assert_eq!(serde_json::from_value::<Cursor>(text).unwrap(), Cursor(id));
    }
    for wrong in ["", "c", "1", "cg", "c1 ", "cffffffffffffffffff"] {
        assert!(
            serde_json::from_value::<Cursor>(json!(wrong)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_cursor_by_name_comes_back_as_it_went() {
    for name in ["", "a", "žluť", &"x".repeat(LONGEST_CURSOR / 2)] {
        let cursor = TextCursor(name.to_owned());
        let text = serde_json::to_value(&cursor).unwrap();
        let back = serde_json::from_value::<TextCursor>(text).unwrap();
        assert_eq!(back, cursor);
    }
    let longer = TextCursor("x".repeat(LONGEST_CURSOR / 2 + 1)).to_string();
    // the last two: no text, and a text that Postgres would refuse
    for wrong in ["", "61", "c61", "t6", "t6g", &longer, "tff", "t6100"] {
        let read = serde_json::from_value::<TextCursor>(json!(wrong));
        assert!(read.is_err(), "{wrong:.20}");
    }
}

#[test]
fn a_page_knows_whether_another_follows() {
    let limit = serde_json::from_value::<Limit>(json!(2)).unwrap();
    assert_eq!(limit.n_read(), 3);
    let more = serde_json::to_value(Page::new(vec![9, 8, 7], limit, |id| *id)).unwrap();
    assert_eq!(more, json!({ "items": [9, 8], "next_cursor": "c8" }));
    let last = serde_json::to_value(Page::new(vec![7, 6], limit, |id| *id)).unwrap();
    assert_eq!(last, json!({ "items": [7, 6], "next_cursor": null }));
    for wrong in [0, -1, 201] {
        assert!(
            serde_json::from_value::<Limit>(json!(wrong)).is_err(),
            "{wrong}"
        );
    }
}
