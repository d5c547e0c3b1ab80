//! A workbook that an inspection opened, for the reading that follows it.

use std::fmt;
use std::path::Path;

use super::options::Options;
use super::rows::Workbook;
use super::scan::Scanned;
use super::unpack::Source;

/// A workbook of which the shared strings were read: whoever reads its rows need not do that again.
///
/// It holds two open files, one of them the strings' without a name, and a quarter of a byte in
/// memory for each string.
pub struct Opened {
    workbook: Scanned,
    source: Source,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

impl Opened {
    /// Keeps a workbook, where that holds little.
    pub(super) fn keep(workbook: Box<dyn Workbook>, source: Source) -> Option<Self> {
        let workbook = workbook.keep()?;
        Some(Self { workbook, source })
    }

    /// Returns what reads the rows, under options that may be others than those it was opened under;
    /// `None` where it has to be opened anew for them. `path` is where the file lies by now.
    pub(super) fn go_on(
        self,
        path: &Path,
        options: &Options,
    ) -> Option<(Source, Box<dyn Workbook>)> {
        let Self { workbook, source } = self;
        if !workbook.is_fit_for(options) {
            return None;
        }
        let path = if source.is_unpacked() {
            source.path()
        } else {
            path
        };
        let workbook = Box::new(workbook.moved(path, options));
        Some((source, workbook))
    }
}
