//! Figures of several rounds.

/// The median of a figure over several rounds, and how far it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Returns the spread of at least one figure; of an even number, the lower median.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_unstable_by(f64::total_cmp);
        Some(Self {
            least: *figures.first()?,
            median: *figures.get((figures.len() - 1) / 2)?,
            most: *figures.last()?,
        })
    }
}
