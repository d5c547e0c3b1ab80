//! The dashboards: what they name exists, and they are as Grafana provisions them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ingestd::observe::metric::{self, Shape};
use serde_json::Value;

use crate::prometheus::promtool;

const BOARDS: [&str; 3] = ["ingestd-overview", "ingestd-queues", "ingestd-runtime"];

fn board(uid: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/dashboards");
    let text = std::fs::read_to_string(folder.join(format!("{uid}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    let panels = board["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

/// Returns the queries of a board: those of its panels and those of its variables.
fn exprs(board: &Value) -> Vec<&str> {
    let targets = panels(board).flat_map(|panel| panel["targets"].as_array().unwrap());
    let exprs = targets.map(|target| target["expr"].as_str().unwrap());
    let variables = board["templating"]["list"].as_array().unwrap().iter();
    let queries = variables.filter(|variable| variable["type"] == "query");
    exprs
        .chain(queries.map(|variable| variable["query"].as_str().unwrap()))
        .collect()
}

/// Returns the names in a query that look like metrics of ours.
fn names(expr: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expr.split(move |c| !is_part(c));
    words.filter(|word| word.starts_with("ingestd_") || word.starts_with("process_"))
}

/// Returns the metric whose series has this name.
fn metric_of(name: &str) -> Option<&'static metric::Metric> {
    metric::ALL.iter().find(|m| {
        let part = name.strip_prefix(m.name);
        match m.shape {
            Shape::Histogram(_) => matches!(part, Some("_bucket" | "_sum" | "_count")),
            Shape::Counter | Shape::Gauge => part == Some(""),
        }
    })
}

#[test]
fn every_metric_that_is_shown_exists() {
    for uid in BOARDS {
        let board = board(uid);
        for expr in exprs(&board) {
            for name in names(expr) {
                // A variable may be read from a counter that is not shown.
                assert!(metric_of(name).is_some(), "{uid}: {name} in {expr}");
            }
        }
    }
}

#[test]
fn every_label_that_is_named_exists() {
    let builtin: BTreeSet<&str> = ["job", "instance", "le"].into();
    for uid in BOARDS {
        for expr in exprs(&board(uid)) {
            let labels: BTreeSet<&str> = names(expr)
                .filter_map(metric_of)
                .flat_map(|m| m.labels.iter().copied())
                .collect();
            // What stands in braces before an operator, and what is grouped by.
            let matchers = expr.split(['{', ',']).filter_map(|part| {
                let (name, _) = part.split_once(['=', '!'])?;
                Some(name).filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            });
            let grouped = expr.split("by (").skip(1);
            let grouped = grouped.flat_map(|rest| {
                let (list, _) = rest.split_once(')').unwrap();
                list.split(", ")
            });
            for label in matchers.chain(grouped).filter(|label| !label.is_empty()) {
                let known = labels.contains(label) || builtin.contains(label);
                assert!(known, "{uid}: {label} in {expr}");
            }
        }
    }
}

#[test]
fn figures_of_the_database_are_not_summed_over_instances() {
    for uid in BOARDS {
        for expr in exprs(&board(uid)) {
            for name in names(expr) {
                let is_shared = metric_of(name).unwrap().scope == metric::Scope::Database;
                let summed = expr
                    .split(name)
                    .next()
                    .unwrap()
                    .trim_end_matches('(')
                    .trim_end();
                let summed = summed.ends_with("sum") || summed.contains("rate(");
                assert!(!(is_shared && summed), "{uid}: {expr}");
            }
        }
    }
}

#[test]
fn boards_are_as_grafana_provisions_them() {
    for uid in BOARDS {
        let board = board(uid);
        assert_eq!(board["uid"], uid);
        assert_eq!(board["id"], Value::Null);
        assert_eq!(board["editable"], false);
        assert_eq!(board["tags"], serde_json::json!(["ingestd"]));
        assert!(board["schemaVersion"].as_i64().unwrap() <= 39 && board.get("version").is_none());
        assert_eq!(board["links"].as_array().unwrap().len(), BOARDS.len() - 1);
        assert_eq!(board["templating"]["list"][0]["type"], "datasource");
        let mut places: BTreeMap<i64, &Value> = BTreeMap::new();
        for panel in panels(&board) {
            assert!(
                places
                    .insert(panel["id"].as_i64().unwrap(), panel)
                    .is_none()
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
            assert!(
                panel["description"].as_str().unwrap().ends_with('.'),
                "{panel}"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string());
            let end =
                panel["gridPos"]["x"].as_i64().unwrap() + panel["gridPos"]["w"].as_i64().unwrap();
            assert!(end <= 24, "{panel}");
        }
        assert!(places.len() > 5);
    }
}

#[test]
fn every_query_parses() {
    let mut rules = String::from("groups:\n- name: boards\n  rules:\n");
    for uid in BOARDS {
        let board = board(uid);
        let targets = panels(&board).flat_map(|panel| panel["targets"].as_array().unwrap());
        for (n, target) in targets.enumerate() {
            let expr = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "1m");
            let record = format!("{}_{n}", uid.replace('-', "_"));
            let expr = Value::from(expr); // JSON's strings are YAML's, too
            let rule = format!("  - record: {record}\n    expr: {expr}\n");
            rules.push_str(&rule);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boards.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", &file.to_string_lossy()], "");
}
