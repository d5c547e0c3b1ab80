//! The plans of the hot statements: looked at now and then, judged by a pure function.
//!
//! Each is explained as the queue's sessions run it, with a generic plan, and never executed.

use serde::Serialize;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::super::hot::{HOT, HotStatement};
use crate::{db, observe::PlanSeen};

/// What was found about one statement's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanCheck {
    /// The statement's name.
    pub statement: &'static str,
    /// What is wrong with its plan; nothing as a rule.
    pub faults: Vec<String>,
}

/// Explains each hot statement, in a transaction that can change nothing, and judges its plan.
///
/// Give it a connection that nobody needs afterwards where it fails: a prepared statement may be
/// left on it.
///
/// # Errors
///
/// What Postgres says.
pub async fn plans(conn: &mut PgConnection) -> sqlx::Result<Vec<PlanCheck>> {
    let mut tx = conn.begin_with("BEGIN READ ONLY").await?;
    db::one_plan(&mut tx).await?;
    let mut checks = Vec::with_capacity(HOT.len());
    for hot in HOT {
        let plan = explain(&mut tx, hot).await?;
        checks.push(PlanCheck {
            statement: hot.name,
            faults: faults(&plan, hot),
        });
    }
    tx.rollback().await?;
    Ok(checks)
}

/// Publishes what was found.
pub(super) fn publish(checks: &[PlanCheck]) {
    for check in checks {
        PlanSeen {
            statement: check.statement,
            faults: &check.faults,
        }
        .emit();
    }
}

/// Returns the generic plan of a statement: the top node, as EXPLAIN has it.
async fn explain(conn: &mut PgConnection, hot: &HotStatement) -> sqlx::Result<Value> {
    let nulls = vec!["NULL"; hot.types.len()].join(", ");
    let arguments = if nulls.is_empty() {
        nulls
    } else {
        format!("({nulls})")
    };
    let types = hot.types.join(", ");
    let types = if types.is_empty() {
        types
    } else {
        format!("({types})")
    };
    // Texts of this binary, no values.
    let prepare = format!("PREPARE ingestd_hot {types} AS {}", hot.sql);
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *conn)
        .await?;
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE ingestd_hot {arguments}");
    let row = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_one(&mut *conn)
        .await?;
    sqlx::raw_sql("DEALLOCATE ingestd_hot")
        .execute(&mut *conn)
        .await?;
    let explained: Value = row.try_get(0)?;
    Ok(explained.pointer("/0/Plan").cloned().unwrap_or_default())
}

/// Judges a plan: how each scan of `ingestd.jobs` is done, and whether each index is used that
/// should be.
fn faults(plan: &Value, hot: &HotStatement) -> Vec<String> {
    let mut judge = Judge {
        hot,
        used: Vec::new(),
        faults: Vec::new(),
    };
    judge.visit(plan, None);
    for (index, _) in hot.indexes {
        if !judge.used.contains(index) {
            judge.faults.push(format!("{index} is not used"));
        }
    }
    judge.faults
}

struct Judge<'a> {
    hot: &'a HotStatement,
    used: Vec<&'a str>,
    faults: Vec<String>,
}

impl Judge<'_> {
    /// Visits a node and those below it; `above` is a node on the way up that reads everything
    /// before it hands on the first row.
    fn visit(&mut self, node: &Value, above: Option<&str>) {
        let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
        let node_type = text("Node Type");
        // Other plans than the one above: they stop by themselves or not.
        let is_apart = matches!(text("Parent Relationship"), "InitPlan" | "SubPlan");
        let above = if is_apart { None } else { above };
        if text("Relation Name") == "jobs" && node_type != "ModifyTable" {
            self.judge_scan(node_type, text("Index Name"), text("Index Cond"), above);
        }
        let gathers = matches!(
            node_type,
            "Sort" | "Incremental Sort" | "Hash" | "Hash Join" | "Merge Join" | "Materialize"
        );
        let above = if gathers { Some(node_type) } else { above };
        let below = node.get("Plans").and_then(Value::as_array);
        for node in below.into_iter().flatten() {
            self.visit(node, above);
        }
    }

    fn judge_scan(&mut self, node_type: &str, index: &str, cond: &str, above: Option<&str>) {
        if !matches!(node_type, "Index Scan" | "Index Only Scan") {
            self.faults.push(format!("{node_type} on jobs"));
            return;
        }
        let Some((name, columns)) = self.hot.indexes.iter().find(|(name, _)| *name == index) else {
            self.faults
                .push(format!("{index} is used, which is not the index for it"));
            return;
        };
        self.used.push(name);
        for column in *columns {
            if !cond.contains(&format!("({column} ")) {
                self.faults
                    .push(format!("{index} is read by {cond}, without {column}"));
            }
        }
        if let Some(above) = above.filter(|_| !self.hot.may_gather) {
            self.faults.push(format!("{above} over {index}"));
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
