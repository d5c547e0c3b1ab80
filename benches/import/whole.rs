//! Whole imports by the daemon, beside the bulk COPY of the same rows.

use std::{ops::ControlFlow, path::Path};

use ingestd::ingest::product_import::{row::Chunk, sheet};

use super::{
    Arguments,
    daemon::{Daemon, Imported},
    measure::Cost,
    raw,
    report::{Report, median, print_cost, print_head},
    rig::Rig,
    workbooks::{Strings, Wanted},
};

/// An import writes by one connection instead of two.
const BY_ONE: [(&str, &str); 1] = [("INGESTD_PRODUCT_IMPORT__CONNECTIONS", "1")];

/// What was measured of a phase, round by round.
#[derive(Default)]
struct Rounds(Vec<Imported>);

impl Rounds {
    fn seconds(&self) -> f64 {
        median(self.0.iter().map(|it| it.cost.seconds).collect())
    }

    fn first_rows_secs(&self) -> f64 {
        median(self.0.iter().map(|it| it.first_rows_secs).collect())
    }

    fn wal_bytes(&self) -> i64 {
        let wal = self.0.iter().map(|it| it.cost.wal_bytes);
        wal.max().unwrap_or_default()
    }
}

/// The phases of a round.
#[derive(Default)]
struct Phases {
    bulk: Vec<f64>,
    first_by_one: Rounds,
    same_by_one: Rounds,
    first: Rounds,
    same: Rounds,
    changed: Rounds,
    shuffled: Rounds,
}

/// Imports a workbook for the first time, again, with a tenth changed, and shuffled.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ordered = Wanted::ordered(arguments.rows);
    let shuffled = Wanted {
        strings: Strings::Shuffled,
        ..ordered
    };
    let changed = Wanted {
        edition: 1,
        ..ordered
    };
    let (n_ok, n_errors) = (ordered.n_rows - ordered.n_bad(), ordered.n_errors());
    let [ordered, changed, shuffled] = [ordered.make()?, changed.make()?, shuffled.make()?];
    let chunks = read(&ordered)?;
    bulk(rig, &chunks).await?; // makes the WAL's files
    let mut phases = Phases::default();
    print_head("the daemon, workbook to catalog");
    for _ in 0..arguments.rounds {
        let limit = bulk(rig, &chunks).await?;
        print_cost("bulk COPY + indexes, no reading", n_ok, &limit, "");
        phases.bulk.push(limit.seconds);
        rig.empty().await?;
        let daemon = Daemon::start_with(rig, &BY_ONE).await?;
        for (name, rounds) in [
            ("first import, one connection", &mut phases.first_by_one),
            ("same file again, one connection", &mut phases.same_by_one),
        ] {
            rounds.0.push(import(&daemon, name, &ordered, n_ok).await?);
        }
        daemon.stop()?;
        rig.empty().await?;
        let daemon = Daemon::start(rig).await?;
        for (name, file, rounds) in [
            ("first import", &ordered, &mut phases.first),
            ("same file again", &ordered, &mut phases.same),
            ("10 % changed", &changed, &mut phases.changed),
        ] {
            rounds.0.push(import(&daemon, name, file, n_ok).await?);
        }
        daemon.stop()?;
        let n_found = rig.n_row_errors().await?;
        anyhow::ensure!(n_found == 3 * i64::from(n_errors), "{n_found} row errors");
        rig.empty().await?;
        let daemon = Daemon::start(rig).await?;
        let name = "first import, shuffled strings";
        let shuffled = import(&daemon, name, &shuffled, n_ok).await?;
        phases.shuffled.0.push(shuffled);
        daemon.stop()?;
    }
    judge(phases, report);
    Ok(())
}

/// Returns the rows of a workbook.
fn read(file: &Path) -> anyhow::Result<Vec<Chunk>> {
    let options = sheet::Options::default();
    let mut chunks = Vec::new();
    let inspection = sheet::inspect(file, "", &options);
    let inspection = inspection.map_err(|refusal| anyhow::anyhow!(refusal))?;
    let read = sheet::read(file, &inspection, &options, &mut |chunk| {
        chunks.push(chunk);
        ControlFlow::Continue(())
    });
    read.map_err(|refusal| anyhow::anyhow!(refusal))?;
    Ok(chunks)
}

/// Copies the rows in bulk and builds the indexes.
async fn bulk(rig: &Rig, chunks: &[Chunk]) -> anyhow::Result<Cost> {
    let mut conn = rig.pool.acquire().await?;
    raw::measure(&mut conn, chunks).await
}

async fn import(daemon: &Daemon, name: &str, file: &Path, n_ok: u32) -> anyhow::Result<Imported> {
    let imported = daemon.import(file).await?;
    anyhow::ensure!(imported.n_ok == n_ok, "{name}: {} of {n_ok}", imported.n_ok);
    let note = format!(
        "answered after {:.2} s, first rows {:.2} s later",
        imported.accepted_secs, imported.first_rows_secs
    );
    print_cost(name, n_ok, &imported.cost, &note);
    Ok(imported)
}

/// Compares medians.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn judge(phases: Phases, report: &mut Report) {
    let (bulk, first) = (median(phases.bulk), phases.first.seconds());
    for (by, seconds, most) in [
        ("one connection", phases.first_by_one.seconds(), 2.0),
        ("two", first, 1.4),
    ] {
        let times = seconds / bulk;
        report.add(
            format!("first import against bulk COPY, by {by}"),
            format!("at most {most:.1} x"),
            format!("{times:.2} x ({seconds:.2} s to {bulk:.2} s)"),
            Some(times <= most),
        );
    }
    let changed = phases.changed.seconds() / first;
    report.add(
        "10 % changed against the first import",
        "at most 0.8 x",
        format!("{changed:.2} x"),
        Some(changed <= 0.8),
    );
    for (by, again, first) in [
        ("one connection", &phases.same_by_one, &phases.first_by_one),
        ("two", &phases.same, &phases.first),
    ] {
        let (faster, wal) = (
            first.seconds() / again.seconds(),
            again.wal_bytes() as f64 / 1e6,
        );
        report.add(
            format!("same file again, by {by}"),
            "3 x the rate, less than 5 MB WAL",
            format!("{faster:.2} x, {wal:.2} MB"),
            Some(faster >= 3.0 && wal < 5.0),
        );
    }
    let shuffled = phases.shuffled.seconds() / first;
    report.add(
        "shuffled strings end to end, against ordered ones",
        "at most 1.3 x",
        format!("{shuffled:.2} x"),
        Some(shuffled <= 1.3),
    );
    let soon = phases.first.first_rows_secs();
    report.add(
        "first rows committed, from the upload's answer",
        "at most 1 s",
        format!("{soon:.2} s"),
        Some(soon <= 1.0),
    );
}
