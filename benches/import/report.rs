//! What is printed: a line for each phase, and at the end each figure with its goal.

use super::measure::Cost;

/// One line of the table.
struct Figure {
    name: String,
    goal: String,
    measured: String,
    is_met: Option<bool>,
}

/// The figures of this run.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure; `is_met` is `None` where this benchmark cannot say.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        goal: impl Into<String>,
        measured: impl Into<String>,
        is_met: Option<bool>,
    ) {
        self.figures.push(Figure {
            name: name.into(),
            goal: goal.into(),
            measured: measured.into(),
            is_met,
        });
    }

    /// Prints the table, if there is anything in it.
    pub(crate) fn print(&self) {
        if self.figures.is_empty() {
            return;
        }
        println!("\n{:<50} {:<34} {:<40} met", "figure", "goal", "measured");
        for figure in &self.figures {
            let met = match figure.is_met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "–",
            };
            println!(
                "{:<50} {:<34} {:<40} {met}",
                figure.name, figure.goal, figure.measured
            );
        }
    }
}

/// Prints the names of what [`print_cost`] prints.
pub(crate) fn print_head(what: &str) {
    println!(
        "\n{what:<34} {:>8} {:>9} {:>14} {:>8} {:>8}",
        "seconds", "rows/s", "CPU s", "WAL MB", "peak MB"
    );
}

/// Prints a phase over `n_rows` rows, and what is to be said of it.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn print_cost(name: &str, n_rows: u32, cost: &Cost, note: &str) {
    println!(
        "{name:<34} {:>8.2} {:>9.0} {:>6.2} + {:>5.2} {:>8.1} {:>8.1}  {note}",
        cost.seconds,
        f64::from(n_rows) / cost.seconds,
        cost.cpu_seconds,
        cost.server_cpu_seconds,
        cost.wal_bytes as f64 / 1e6,
        cost.peak_bytes as f64 / 1e6,
    );
}

/// Returns the value in the middle, the greater one of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}
