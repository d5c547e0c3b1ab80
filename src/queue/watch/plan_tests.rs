use serde_json::json;

use super::*;

const CLAIM: HotStatement = HotStatement {
    name: "claim",
    sql: "",
    types: &[],
    indexes: &[
        ("jobs_ready", &["queue", "priority"]),
        ("jobs_pkey", &["id"]),
    ],
    may_gather: false,
};

/// A claim as it should be planned: the shape that EXPLAIN has, shortened.
fn claim(scan: &Value, update: &Value) -> Value {
    json!({
        "Node Type": "ModifyTable", "Relation Name": "jobs", "Plans": [
            {"Node Type": "Limit", "Parent Relationship": "InitPlan", "Subplan Name": "CTE first",
             "Plans": [{"Node Type": "LockRows", "Plans": [scan]}]},
            {"Node Type": "Sort", "Parent Relationship": "InitPlan", "Plans": [
                {"Node Type": "CTE Scan", "CTE Name": "first"}]},
            update,
        ]
    })
}

fn scan() -> Value {
    json!({"Node Type": "Index Scan", "Relation Name": "jobs", "Index Name": "jobs_ready",
           "Index Cond": "((shard = 0) AND (queue = $1) AND (priority = $3) AND (run_at <= now()))"})
}

fn update() -> Value {
    json!({"Node Type": "Index Scan", "Relation Name": "jobs", "Index Name": "jobs_pkey",
           "Index Cond": "((id = ANY ($4)) AND (shard = 0))"})
}

fn judged(scan: &Value, update: &Value) -> Vec<String> {
    faults(&claim(scan, update), &CLAIM)
}

#[test]
fn the_plan_it_should_have_has_no_faults() {
    assert_eq!(judged(&scan(), &update()), Vec::<String>::new());
}

#[test]
fn a_scan_of_the_table_is_a_fault_and_so_is_the_missing_index() {
    let seq = json!({"Node Type": "Seq Scan", "Relation Name": "jobs", "Filter": "x"});
    assert_eq!(
        judged(&seq, &update()),
        ["Seq Scan on jobs", "jobs_ready is not used"]
    );
    let bitmap = json!({"Node Type": "Bitmap Heap Scan", "Relation Name": "jobs", "Plans": [
        {"Node Type": "Bitmap Index Scan", "Index Name": "jobs_ready", "Index Cond": "(queue = $1)"}]});
    assert_eq!(judged(&bitmap, &update())[0], "Bitmap Heap Scan on jobs");
}

#[test]
fn another_index_is_a_fault() {
    let other = json!({"Node Type": "Index Scan", "Relation Name": "jobs", "Index Name": "jobs_run",
                       "Index Cond": "(shard = 0)"});
    assert_eq!(
        judged(&scan(), &other),
        [
            "jobs_run is used, which is not the index for it",
            "jobs_pkey is not used"
        ]
    );
}

#[test]
fn an_index_read_from_end_to_end_is_a_fault() {
    let whole = json!({"Node Type": "Index Scan", "Relation Name": "jobs",
        "Index Name": "jobs_pkey", "Index Cond": "(shard = 0)", "Filter": "(id = ANY ($4))"});
    assert_eq!(
        judged(&scan(), &whole),
        ["jobs_pkey is read by (shard = 0), without id"]
    );
}

#[test]
fn gathering_before_the_limit_is_a_fault_unless_it_is_meant() {
    let sorted = json!({"Node Type": "Sort", "Plans": [scan()]});
    assert_eq!(judged(&sorted, &update()), ["Sort over jobs_ready"]);
    let hashed = json!({"Node Type": "Hash Join", "Plans": [
        {"Node Type": "CTE Scan"}, {"Node Type": "Hash", "Plans": [update()]}]});
    assert_eq!(judged(&scan(), &hashed), ["Hash over jobs_pkey"]);
    let meant = HotStatement {
        may_gather: true,
        ..CLAIM
    };
    assert_eq!(
        faults(&claim(&sorted, &update()), &meant),
        Vec::<String>::new()
    );
}
