//! The reader's CPU, beside inflating the same parts and nothing else.

use super::{
    Arguments,
    reading::{Figures, Task, best},
    report::Report,
    workbooks::{Strings, Wanted},
};

/// What the cells may take, in times of the limit.
const GOAL: f64 = 2.7;

/// Reads workbooks of each sort, each in processes that do nothing else.
pub(crate) fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    println!(
        "\n{:<34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "reading, CPU s",
        "limit",
        "cells",
        "rows",
        "inspect",
        "cells/l",
        "rows/l",
        "cells MB",
        "rows MB"
    );
    for (name, strings) in [
        ("ordered strings", Strings::Shared),
        ("inline strings", Strings::Inline),
        ("shuffled strings", Strings::Shuffled),
    ] {
        let file = Wanted {
            strings,
            ..Wanted::ordered(arguments.rows)
        }
        .make()?;
        let of = |task| best(task, &file, arguments.rounds);
        let [limit, cells, rows] = [of(Task::Limit)?, of(Task::Cells)?, of(Task::Rows)?];
        print(name, &limit, &cells, &rows);
        let times = cells.cpu_secs / limit.cpu_secs;
        // The shuffled workbook's limit is of the same parts, but its goal is end to end.
        let is_judged = strings != Strings::Shuffled;
        report.add(
            format!("reading {name}, CPU against inflate + CRC"),
            if is_judged { "at most 2.7 x" } else { "–" },
            format!(
                "{times:.2} x ({:.2} x with checks)",
                rows.cpu_secs / limit.cpu_secs
            ),
            is_judged.then_some(times <= GOAL),
        );
    }
    Ok(())
}

fn print(name: &str, limit: &Figures, cells: &Figures, rows: &Figures) {
    println!(
        "{name:<34} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.1} {:>8.1}",
        limit.cpu_secs,
        cells.cpu_secs,
        rows.cpu_secs,
        rows.inspect_secs,
        cells.cpu_secs / limit.cpu_secs,
        rows.cpu_secs / limit.cpu_secs,
        cells.peak_mb,
        rows.peak_mb,
    );
}
