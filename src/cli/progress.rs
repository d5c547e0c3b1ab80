//! A run's progress as it happens: a bar on a terminal, plain lines elsewhere, JSON where asked for.

use std::{
    fmt::Write,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use super::{Exit, Failure, Session, interrupt::interrupted, output::Output, runs};
use crate::runs::{Run, RunId, RunState};

/// How often the run is read.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The least time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

const BAR: &str = "{prefix} {wide_bar} {human_pos}/{human_len} {rate} ETA {eta}";
const SPINNER: &str = "{spinner} {prefix} {human_pos} {rate} {elapsed}";

/// Shows a run's progress until it has ended; returns it as it ended.
///
/// # Errors
///
/// Ctrl-C or SIGTERM, which leave the run to itself; the database is gone.
pub(super) async fn follow(id: RunId, session: &mut Session) -> Result<Run, Failure> {
    let mut shown = Shown::new(&session.output);
    let mut interrupted = Box::pin(interrupted());
    loop {
        let run = runs::find(id, session).await?;
        shown.update(&run)?;
        if run.state.is_final() {
            return Ok(run);
        }
        tokio::select! {
            exit = &mut interrupted => {
                shown.clear();
                let failure = Failure::say(exit, format!("run {id} goes on unwatched"));
                return Err(failure.hint(format!(
                    "`ingestd runs watch {id}` watches it, `ingestd runs cancel {id}` stops it"
                )));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Returns the exit code of a run that has ended.
///
/// # Errors
///
/// It failed or was cancelled.
pub(super) fn conclude(run: &Run) -> Result<Exit, Failure> {
    let id = run.id;
    match run.state {
        RunState::Completed => Ok(Exit::Ok),
        RunState::Cancelled => Err(Failure::say(
            Exit::Failed,
            format!("run {id} was cancelled; what it wrote stays"),
        )),
        _ => {
            let error = run.error.as_deref().unwrap_or("no reason given");
            let failure = Failure::say(Exit::Failed, format!("run {id} failed: {error}"));
            Err(failure.hint(format!(
                "`ingestd runs reset {id}` goes on where it stopped"
            )))
        }
    }
}

/// One line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// `progress`, or `finished` in the last line.
    event: &'static str,
    run_id: RunId,
    state: RunState,
    stage: Option<&'a str>,
    items_done: i64,
    items_ok: i64,
    items_failed: i64,
    items_skipped: i64,
    /// Null while it is not known.
    items_total: Option<i64>,
    /// Since the watching began; null at first.
    items_per_sec: Option<f64>,
    /// Null while it is not known.
    eta_secs: Option<f64>,
}

/// How progress is shown.
enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
    Nothing,
}

struct Shown {
    output: Output,
    form: Form,
    began: Instant,
    /// Items when the watching began: those are not of our rate.
    first_done: Option<i64>,
    last: Option<(Instant, i64, RunState)>,
}

impl Shown {
    fn new(output: &Output) -> Self {
        let form = if output.is_json() {
            Form::Json
        } else if output.is_quiet() {
            Form::Nothing
        } else if std::io::stderr().is_terminal() {
            Form::Bar(ProgressBar::with_draw_target(
                None,
                ProgressDrawTarget::stderr(),
            ))
        } else {
            Form::Lines
        };
        Self {
            output: output.clone(),
            form,
            began: Instant::now(),
            first_done: None,
            last: None,
        }
    }

    fn update(&mut self, run: &Run) -> Result<(), Failure> {
        self.first_done.get_or_insert(run.items_done());
        match &self.form {
            Form::Bar(bar) => draw(bar, run),
            Form::Lines => self.line(run),
            Form::Json => self.json(run)?,
            Form::Nothing => {}
        }
        Ok(())
    }

    /// Takes the bar away, so that what follows stands alone.
    fn clear(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, run: &Run) {
        if !self.is_news(run, LINE_EVERY) {
            return;
        }
        let total = run
            .items_total
            .map(|total| format!(" of {total}"))
            .unwrap_or_default();
        let rate = self
            .rate(run)
            .map(|rate| format!(", {rate:.0} per second"))
            .unwrap_or_default();
        let eta = self
            .eta_secs(run)
            .map(|secs| format!(", {secs:.0} s to go"))
            .unwrap_or_default();
        let (word, done, failed) = (run.state.as_str(), run.items_done(), run.items_failed);
        self.output.remark(&format!(
            "{word}: {done}{total} rows, {failed} bad{rate}{eta}"
        ));
    }

    fn json(&mut self, run: &Run) -> Result<(), Failure> {
        if !self.is_news(run, Duration::ZERO) {
            return Ok(());
        }
        self.output.json_line(&Line {
            event: if run.state.is_final() {
                "finished"
            } else {
                "progress"
            },
            run_id: run.id,
            state: run.state,
            stage: run.stage.as_deref(),
            items_done: run.items_done(),
            items_ok: run.items_ok,
            items_failed: run.items_failed,
            items_skipped: run.items_skipped,
            items_total: run.items_total,
            items_per_sec: self.rate(run),
            eta_secs: self.eta_secs(run),
        })?;
        Ok(())
    }

    /// Says whether something changed since the last line, which is old enough or of another state.
    fn is_news(&mut self, run: &Run, interval: Duration) -> bool {
        let now = Instant::now();
        let is_news = self.last.is_none_or(|(at, done, state)| {
            state != run.state || (done != run.items_done() && now - at >= interval)
        });
        if is_news {
            self.last = Some((now, run.items_done(), run.state));
        }
        is_news
    }

    /// Returns items per second since the watching began.
    fn rate(&self, run: &Run) -> Option<f64> {
        let n_items = run.items_done() - self.first_done?;
        let secs = self.began.elapsed().as_secs_f64();
        (n_items > 0 && secs > 0.0).then(|| as_f64(n_items) / secs)
    }

    fn eta_secs(&self, run: &Run) -> Option<f64> {
        let left = run.items_total? - run.items_done();
        (left > 0 && !run.state.is_final())
            .then(|| self.rate(run).map(|rate| as_f64(left) / rate))?
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.clear();
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of rows; a rate needs no 16 digits"
)]
fn as_f64(n: i64) -> f64 {
    n as f64
}

/// Writes the rate of the last seconds.
fn rate(state: &ProgressState, out: &mut dyn Write) {
    // The bar's own buffer takes everything.
    write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
}

fn draw(bar: &ProgressBar, run: &Run) {
    let word = run.state.as_str();
    bar.set_prefix(run.stage.clone().unwrap_or_else(|| word.to_owned()));
    let total = run.items_total.and_then(|total| u64::try_from(total).ok());
    if bar.length() != total || bar.position() == 0 {
        let template = if total.is_some() { BAR } else { SPINNER };
        // The templates are constants, and right.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", rate));
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
    }
    bar.set_position(u64::try_from(run.items_done()).unwrap_or(0));
    bar.tick();
}
