//! The workbooks that are imported: made once for each build of this benchmark, into target/.

use std::{fs, path::PathBuf, time::SystemTime};

use super::{product::Sample, workbook};

pub(crate) use super::workbook::Strings;

/// One row in a thousand is bad, as in files that people send.
const GOOD_FOR_ONE_BAD: u32 = 1000;

/// A workbook to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Data rows, good and bad.
    pub(crate) n_rows: u32,
    /// Where the texts are.
    pub(crate) strings: Strings,
    /// 0, or a later one with other prices in a tenth of the rows.
    pub(crate) edition: u32,
}

impl Wanted {
    /// A workbook as spreadsheet programs write it, in its first edition.
    pub(crate) const fn ordered(n_rows: u32) -> Self {
        Self {
            n_rows,
            strings: Strings::Shared,
            edition: 0,
        }
    }

    /// Returns its bad rows.
    pub(crate) const fn n_bad(self) -> u32 {
        self.n_rows / GOOD_FOR_ONE_BAD
    }

    /// Returns the row errors of its bad rows.
    pub(crate) fn n_errors(self) -> u32 {
        self.sample().n_errors()
    }

    fn sample(self) -> Sample {
        Sample {
            n_rows: self.n_rows.into(),
            n_bad: self.n_bad().into(),
            seed: 1,
            edition: self.edition,
        }
    }

    /// Returns where it is, made before where it was not there or is older than this program.
    pub(crate) fn make(self) -> anyhow::Result<PathBuf> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("import-bench");
        fs::create_dir_all(&folder)?;
        let strings = match self.strings {
            Strings::Shared => "ordered",
            Strings::Inline => "inline",
            Strings::Shuffled => "shuffled",
        };
        let name = format!("{}-{strings}-{}.xlsx", self.n_rows, self.edition);
        let path = folder.join(name);
        let program = fs::metadata(std::env::current_exe()?)?.modified()?;
        let made = fs::metadata(&path).and_then(|it| it.modified());
        if made.unwrap_or(SystemTime::UNIX_EPOCH) > program {
            return Ok(path);
        }
        let unfinished = path.with_extension("unfinished");
        workbook::write(&self.sample(), self.strings, &unfinished)?;
        fs::rename(unfinished, &path)?;
        Ok(path)
    }
}
