//! What reading a product file costs, beside inflating the same parts and nothing else.
//!
//! Each figure is of a process of its own: this program, begun again with `--task=`.

use std::{
    fs::File,
    io::{self, BufReader},
    ops::ControlFlow,
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use ingestd::ingest::product_import::{
    row::cell::RowBuf,
    sheet::{self, Inspection, Options},
};
use nix::sys::resource::{UsageWho, getrusage};
use zip::ZipArchive;

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Inflate and checksum its parts: the limit.
    Limit,
    /// Read its cells.
    Cells,
    /// Read its rows: cells, checks, hashes.
    Rows,
}

/// What one process measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Rows of the sheet, or data rows where they are checked.
    pub(crate) n_rows: f64,
    /// CPU seconds of the task.
    pub(crate) cpu_secs: f64,
    /// CPU seconds of the inspection before it.
    pub(crate) inspect_secs: f64,
    /// The most memory the process held, in MiB.
    pub(crate) peak_mb: f64,
}

const TASKS: [(&str, Task); 3] = [
    ("--task=limit", Task::Limit),
    ("--task=cells", Task::Cells),
    ("--task=rows", Task::Rows),
];

/// Does a task where the command line asks for one; says whether it did.
///
/// To be called on the main thread, before there are others.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn serve_if_asked() -> anyhow::Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [task, file] = args.as_slice() else {
        return Ok(false);
    };
    let Some((_, task)) = TASKS.iter().find(|(name, _)| name == task) else {
        return Ok(false);
    };
    let it = run(*task, Path::new(file))?;
    println!(
        "{} {} {} {}",
        it.n_rows, it.cpu_secs, it.inspect_secs, it.peak_mb
    );
    Ok(true)
}

/// Runs a task in `n_runs` processes and returns the fastest one's figures.
pub(crate) fn best(task: Task, file: &Path, n_runs: u32) -> anyhow::Result<Figures> {
    let (name, _) = TASKS.iter().find(|it| it.1 == task).context("a task")?;
    let mut best: Option<Figures> = None;
    for _ in 0..n_runs {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.arg(name).arg(file).output()?;
        let said = String::from_utf8(output.stdout)?;
        let numbers: Result<Vec<f64>, _> = said.split_whitespace().map(str::parse).collect();
        let [n_rows, cpu_secs, inspect_secs, peak_mb] = numbers?[..] else {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::bail!("{}: {why}", file.display());
        };
        if best.is_none_or(|best| cpu_secs < best.cpu_secs) {
            best = Some(Figures {
                n_rows,
                cpu_secs,
                inspect_secs,
                peak_mb,
            });
        }
    }
    best.context("no run")
}

fn run(task: Task, file: &Path) -> anyhow::Result<Figures> {
    let before = cpu_secs()?;
    if task == Task::Limit {
        limit(file)?;
        return Ok(Figures {
            n_rows: 0.0,
            cpu_secs: cpu_secs()? - before,
            inspect_secs: 0.0,
            peak_mb: peak_mb()?,
        });
    }
    let options = Options::default();
    let refused = |refusal: sheet::Refusal| anyhow::anyhow!(refusal);
    let inspection = sheet::inspect(file, "", &options).map_err(refused)?;
    let inspected = cpu_secs()?;
    let n_rows = if task == Task::Cells {
        cells(file, &inspection, &options).map_err(refused)?
    } else {
        let mut take = |chunk| {
            drop(chunk);
            ControlFlow::Continue(())
        };
        let summary = sheet::read(file, &inspection, &options, &mut take).map_err(refused)?;
        u32::try_from(summary.n_rows)?
    };
    Ok(Figures {
        n_rows: n_rows.into(),
        cpu_secs: cpu_secs()? - inspected,
        inspect_secs: inspected - before,
        peak_mb: peak_mb()?,
    })
}

/// Walks over the cells and returns the number of rows.
fn cells(file: &Path, inspection: &Inspection, options: &Options) -> Result<u32, sheet::Refusal> {
    let mut n_rows = 0;
    let mut take = |row: &RowBuf| {
        std::hint::black_box(row.cell(0));
        n_rows += 1;
        ControlFlow::Continue(())
    };
    sheet::walk(file, inspection, options, &mut take)?;
    Ok(n_rows)
}

/// Inflates the last sheet and the shared strings of a workbook; reads any other file.
fn limit(file: &Path) -> anyhow::Result<()> {
    let Ok(mut archive) = ZipArchive::new(BufReader::new(File::open(file)?)) else {
        io::copy(&mut File::open(file)?, &mut io::sink())?;
        return Ok(());
    };
    let mut names = Vec::new();
    for name in archive.file_names() {
        names.push(name?.into_owned());
    }
    let sheets = names.iter();
    let sheet = sheets.filter(|name| name.starts_with("xl/worksheets/sheet"));
    let strings = names.iter().find(|name| *name == "xl/sharedStrings.xml");
    for part in sheet.max().into_iter().chain(strings) {
        io::copy(&mut archive.by_name(part)?, &mut io::sink())?;
    }
    Ok(())
}

/// Returns the CPU seconds of the process, all its threads.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a short run")]
fn cpu_secs() -> anyhow::Result<f64> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let times = [used.user_time(), used.system_time()];
    let secs = times.map(|it| it.tv_sec() as f64 + it.tv_usec() as f64 / 1e6);
    Ok(secs.iter().sum())
}

/// Returns the most memory the process has held, in MiB.
fn peak_mb() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no peak")?.parse::<f64>()? / 1024.0)
}
