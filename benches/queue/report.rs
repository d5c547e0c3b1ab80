//! The final table: each figure with its goal.

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) goal: String,
    pub(crate) measured: String,
    /// `None` where this benchmark cannot say.
    pub(crate) is_met: Option<bool>,
}

/// The figures of this run.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    /// WAL of a job's way in, the dearest measured.
    pub(crate) enqueue_wal_bytes: Option<f64>,
    /// WAL of a job's way from the table into the history.
    pub(crate) drain_wal_bytes: Option<f64>,
}

impl Report {
    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds the WAL of a job's whole way, where both halves were measured.
    pub(crate) fn add_wal(&mut self) {
        if let (Some(enqueue), Some(drain)) = (self.enqueue_wal_bytes, self.drain_wal_bytes) {
            self.add(Figure {
                name: "WAL a job, enqueue to history".into(),
                goal: "at most 1,229 B".into(),
                measured: format!("{enqueue:.0} + {drain:.0} = {:.0} B", enqueue + drain),
                is_met: Some(enqueue + drain <= 1_229.0),
            });
        }
    }

    /// Prints the table, if there is anything in it.
    pub(crate) fn print(&self) {
        if self.figures.is_empty() {
            return;
        }
        println!("\n{:<50} {:<50} {:<26} met", "figure", "goal", "measured");
        for figure in &self.figures {
            let met = match figure.is_met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "–",
            };
            println!(
                "{:<50} {:<50} {:<26} {met}",
                figure.name, figure.goal, figure.measured
            );
        }
    }
}
