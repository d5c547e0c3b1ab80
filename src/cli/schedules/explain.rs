//! When a schedule is due, and what became of its ticks.

use super::{find, no_schedule, timetable};
use crate::{
    cli::{
        Exit, Failure, Session,
        output::{Listed, at, or_none},
    },
    queue::{
        DueTime,
        schedule::{
            Definition, Missed, Overlap,
            explain::{self, Explained, Tick},
        },
    },
};

impl Listed for DueTime {
    const HEADERS: &'static [&'static str] =
        &["UTC", "in the schedule's zone", "job due", "remark"];

    fn cells(&self) -> Vec<String> {
        let delayed = self.job_due_at != self.utc;
        vec![
            at(self.utc),
            self.local.clone(),
            if delayed {
                at(self.job_due_at)
            } else {
                String::new()
            },
            self.remark.clone().unwrap_or_default(),
        ]
    }
}

pub(super) async fn next(name: &str, n: usize, session: &mut Session) -> Result<Exit, Failure> {
    let row = find(&mut session.conn, name).await?;
    let timetable = timetable(&row)?;
    let now = session.now().await?;
    let times = explain::due_times(&timetable, &row, now, n);
    session.output.list(&times, "it is not due for decades")?;
    if row.paused_at.is_some() {
        session.output.hint(&format!(
            "it is paused; `ingestd schedules resume {name}` lets it go on"
        ));
    }
    if row.paused_in_config {
        session.output.hint("it is paused by the configuration");
    }
    Ok(Exit::Ok)
}

pub(super) async fn run(name: &str, n: usize, session: &mut Session) -> Result<Exit, Failure> {
    let explained = explain::explain(&mut session.conn, name, n).await?;
    let explained = explained.ok_or_else(|| no_schedule(name))?;
    session.output.record(&explained, &fields(&explained))?;
    if let Some(text) = super::shadowed(&explained.schedule) {
        session.output.hint(&text);
    }
    Ok(Exit::Ok)
}

fn fields(explained: &Explained) -> Vec<(&'static str, String)> {
    let row = &explained.schedule;
    let definition = &row.definition;
    let job = format!(
        "{} {}",
        definition.kind,
        serde_json::Value::from(definition.args.clone())
    );
    let mut fields = vec![
        ("name", row.name.clone()),
        (
            "due",
            format!("{}: {}", explained.description, definition.cron),
        ),
        ("paused", paused(explained)),
        ("overdue", or_none(explained.overdue_since.map(at).as_ref())),
        ("job", job),
        ("queue", or_none(definition.queue.as_ref())),
        ("missed", missed_in_words(definition)),
        ("overlap", overlap_in_words(definition.overlap).to_owned()),
        ("jitter", jitter_in_words(definition)),
        ("due now", explained.if_due_now.clone()),
        ("tenant", or_none(definition.tenant.as_ref())),
        ("origin", origin(explained)),
        ("error", or_none(row.last_error.as_ref())),
    ];
    if let Some(failed) = &explained.last_failure {
        let error = failed.error.as_deref().unwrap_or_default();
        fields.push(("failed", format!("{}: {error}", tick_in_words(failed))));
    }
    let ticks = explained.last_ticks.iter();
    fields.extend(ticks.map(|tick| ("last", tick_in_words(tick))));
    fields.extend(
        explained
            .upcoming
            .iter()
            .map(|time| ("next", time_in_words(time))),
    );
    fields
}

fn paused(explained: &Explained) -> String {
    let row = &explained.schedule;
    let by_person = row
        .paused_at
        .map(|since| format!("by a person since {}", at(since)));
    let by_config = row
        .paused_in_config
        .then(|| "by the configuration".to_owned());
    let by: Vec<_> = by_person.into_iter().chain(by_config).collect();
    by.join(" and ")
}

fn origin(explained: &Explained) -> String {
    let row = &explained.schedule;
    match &row.config_set {
        Some(set) => format!("{} (set {set})", row.origin),
        None => row.origin.clone(),
    }
}

fn tick_in_words(tick: &Tick) -> String {
    let state = tick.job_state.as_deref().map(|state| format!(", {state}"));
    let job = tick.job_id.map(|id| format!(" as job {id}"));
    let job = job.map(|job| job + &state.unwrap_or_default());
    format!("{} {}{}", at(tick.at), tick.result, job.unwrap_or_default())
}

fn time_in_words(time: &DueTime) -> String {
    let delayed =
        (time.job_due_at != time.utc).then(|| format!(", job due {}", at(time.job_due_at)));
    let remark = time.remark.as_ref().map(|remark| format!(" ({remark})"));
    format!(
        "{} UTC, {}{}{}",
        at(time.utc),
        time.local,
        delayed.unwrap_or_default(),
        remark.unwrap_or_default()
    )
}

fn missed_in_words(definition: &Definition) -> String {
    match definition.missed {
        Missed::Skip => "ticks that pass while no daemon runs are left out".to_owned(),
        Missed::All => format!(
            "ticks that pass while no daemon runs are made up for, the last {} of them",
            definition.missed_max
        ),
        Missed::Once => {
            "ticks that pass while no daemon runs are made up for by one job".to_owned()
        }
    }
}

const fn overlap_in_words(overlap: Overlap) -> &'static str {
    match overlap {
        Overlap::Skip => "a tick is left out while an earlier one's job is unfinished",
        Overlap::Queue => "a tick waits until an earlier one's job has finished",
        Overlap::Allow => "a tick makes its job even while an earlier one's is unfinished",
    }
}

fn jitter_in_words(definition: &Definition) -> String {
    if definition.jitter_ms == 0 {
        return String::new();
    }
    let most = std::time::Duration::from_millis(definition.jitter_ms.unsigned_abs().into());
    format!(
        "a job is due up to {} after its tick",
        humantime::format_duration(most)
    )
}
