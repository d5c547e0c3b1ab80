//! One look at a watched folder.
//!
//! Files are imported one at a time, in the order of their names: the next is submitted once the
//! import of the one before has ended, so that what a later file says stands. A file stays where
//! it is until then; after a completed import it is moved to `done`, else to `failed`. While there
//! is more to do, the look is not over: it is put off for a moment, which is no attempt.

use std::{
    collections::HashMap, ffi::OsStr, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration,
};

use anyhow::anyhow;
use tokio::task::spawn_blocking;

use super::{
    Ready,
    file::{self, Unsettled},
    options,
    pattern::Pattern,
    place::{self, Entry},
    store::{self, LookResult, Note, Target},
    take::{self, TakeError},
};
use crate::{
    ingest::{
        Context,
        product_import::submit::{self, Accepted, Origin, SubmitError},
    },
    queue::{Done, JobContext, JobError},
};

/// How soon to look again while a file's import is under way.
const WHILE_IMPORTING: Duration = Duration::from_secs(1);

/// Most files that one look tracks; the others follow as these are done.
const MOST_FILES: usize = 1000;

/// What a file's name gets to say that it is whole.
const MARKER: &str = ".done";

/// Where files go: after a completed import, and after any other end.
const DONE: &str = "done";
const FAILED: &str = "failed";

/// Looks at a watched folder.
pub(super) async fn look(ctx: &JobContext<Context>, target: &Target) -> Result<Done, JobError> {
    let mut look = match Look::begin(ctx, target).await {
        Ok(look) => look,
        Err(error) => {
            note(ctx, target, LookResult::Failed, Some(&error.to_string())).await?;
            return Err(super::job::judged(&target.name, error));
        }
    };
    look.settle().await?;
    let is_young = look.see().await?;
    let (is_busy, next) = look.next(&is_young).await?;
    if is_busy {
        return Err(JobError::Snooze(WHILE_IMPORTING));
    }
    if let Some(next) = next {
        look.take(&next).await?;
        return Err(JobError::Snooze(Duration::ZERO));
    }
    let n_odd = look.n_odd;
    let names =
        (n_odd > 0).then(|| format!("{n_odd} names are no UTF-8; such files are not taken"));
    note(ctx, target, LookResult::Looked, names.as_deref()).await?;
    if is_young.is_empty() || look.ready != Ready::Stable {
        return Ok(Done::new());
    }
    // What was seen for the first time may be whole by then.
    Err(JobError::Snooze(ctx.state().config.sources.settle))
}

async fn note(
    ctx: &JobContext<Context>,
    target: &Target,
    result: LookResult,
    error: Option<&str>,
) -> Result<(), JobError> {
    let note = Note {
        error,
        ..Note::default()
    };
    let mut tx = ctx.state().db.begin().await?;
    ctx.hold(&mut tx).await?;
    store::note(&mut tx, target, result, &note).await?;
    tx.commit().await?;
    Ok(())
}

/// A folder as it was found.
struct Look<'a> {
    ctx: &'a JobContext<Context>,
    target: &'a Target,
    ready: Ready,
    folder: Arc<OwnedFd>,
    /// What is there and fits the pattern, by name.
    entries: HashMap<String, Entry>,
    /// Files with a marker beside them.
    marked: Vec<String>,
    /// Names that are no UTF-8.
    n_odd: usize,
}

impl<'a> Look<'a> {
    async fn begin(ctx: &'a JobContext<Context>, target: &'a Target) -> Result<Self, TakeError> {
        let definition = &target.definition;
        let pattern = definition.pattern.as_deref().unwrap_or_default();
        let pattern = Pattern::parse(pattern).map_err(TakeError::Location)?;
        let allowed = ctx.state().config.sources.allowed_dirs.clone();
        let path = Path::new(&definition.location).to_owned();
        let looked = spawn_blocking(move || {
            let folder = place::open_folder(&allowed, &path)?;
            let (names, n_odd) = place::names(&folder)?;
            let (entries, marked) = fitting(&folder, &pattern, &names)?;
            Ok::<_, TakeError>((folder, entries, marked, n_odd))
        });
        let (folder, entries, marked, n_odd) = looked.await.map_err(io::Error::other)??;
        Ok(Self {
            ctx,
            target,
            ready: definition.ready.unwrap_or_default(),
            folder: Arc::new(folder),
            entries,
            marked,
            n_odd,
        })
    }

    async fn unsettled(&self) -> sqlx::Result<Vec<Unsettled>> {
        let settle = self.ctx.state().config.sources.settle;
        let settle_ms = i64::try_from(settle.as_millis()).unwrap_or(i64::MAX);
        file::unsettled(&self.ctx.state().db, &self.target.name, settle_ms).await
    }

    /// Moves away what is over, and forgets what is gone.
    async fn settle(&mut self) -> Result<(), JobError> {
        for file in self.unsettled().await? {
            let is_gone = !self.entries.contains_key(&file.name);
            let is_settled = match file.state.as_str() {
                // Whoever put it there took it away again; another version is seen below.
                "waiting" if is_gone => {
                    self.write_settled(&file, None).await?;
                    true
                }
                "refused" => self.move_away(&file, FAILED).await?,
                "submitted" if file.has_ended => {
                    let is_completed = file.run_state.as_deref() == Some("completed");
                    let to = if is_completed { DONE } else { FAILED };
                    self.move_away(&file, to).await?
                }
                _ => false,
            };
            // It was there when this look began, and must not be taken for a new one.
            let is_it = |entry: &Entry| entry.stamp == file.stamp;
            if is_settled && self.entries.get(&file.name).is_some_and(is_it) {
                self.entries.remove(&file.name);
            }
        }
        Ok(())
    }

    /// Moves a file away; returns whether it is settled by that.
    async fn move_away(&self, file: &Unsettled, to: &'static str) -> Result<bool, JobError> {
        let (folder, name, stamp) = (
            Arc::clone(&self.folder),
            file.name.clone(),
            file.stamp.clone(),
        );
        let (mark, has_marker) = (file.id, self.ready == Ready::Marker);
        let moved = spawn_blocking(move || {
            let moved = place::move_away(&folder, &name, &stamp, to, mark)?;
            if has_marker && moved.is_some() {
                place::remove(&folder, &format!("{name}{MARKER}"))?;
            }
            Ok::<_, io::Error>(moved)
        });
        match moved.await? {
            Ok(moved) => {
                self.write_settled(file, moved.as_deref()).await?;
                Ok(true)
            }
            Err(error) => {
                // The row says that it was submitted: it stays, and is not imported again.
                let why = format!("cannot be moved to {to}: {error}");
                self.write(async |tx| file::trouble(tx, file, &why).await)
                    .await?;
                Ok(false)
            }
        }
    }

    async fn write_settled(&self, file: &Unsettled, moved: Option<&str>) -> Result<(), JobError> {
        let source = &self.target.name;
        let ended_well = file.run_state.as_deref() == Some("completed");
        let why = match &file.run_error {
            Some(error) if !ended_well => Some(error.as_str()),
            _ => None,
        };
        self.write(async |tx| file::settled(tx, source, file, moved, why).await)
            .await
    }

    /// Writes in a transaction of its own, fenced.
    async fn write(
        &self,
        act: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<()>,
    ) -> Result<(), JobError> {
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        act(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Notes what is new or has changed; returns the names.
    async fn see(&self) -> Result<Vec<String>, JobError> {
        let known: HashMap<String, Unsettled> = self
            .unsettled()
            .await?
            .into_iter()
            .map(|file| (file.name.clone(), file))
            .collect();
        let is_new = |entry: &&Entry| match known.get(&entry.name) {
            None => true,
            Some(file) => file.state == "waiting" && file.stamp != entry.stamp,
        };
        let mut new: Vec<&Entry> = self.entries.values().filter(is_new).collect();
        new.sort_by(|a, b| a.name.cmp(&b.name));
        let source = &self.target.name;
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.hold(&mut tx).await?;
        for entry in &new {
            let odd = (!entry.is_file).then_some("is no regular file, and is not taken");
            file::see(&mut tx, source, entry, odd).await?;
        }
        tx.commit().await?;
        let files = new.iter().filter(|entry| entry.is_file);
        Ok(files.map(|entry| entry.name.clone()).collect())
    }

    /// Says whether an import is under way, and which file is the next.
    async fn next(&self, young: &[String]) -> Result<(bool, Option<Unsettled>), JobError> {
        let files = self.unsettled().await?;
        let is_busy = files
            .iter()
            .any(|file| file.state == "submitted" && !file.has_ended);
        let is_ready = |file: &Unsettled| {
            let is_file = self
                .entries
                .get(&file.name)
                .is_some_and(|entry| entry.is_file && entry.stamp == file.stamp);
            let is_whole = match self.ready {
                Ready::AtOnce => true,
                Ready::Marker => self.marked.contains(&file.name),
                Ready::Stable => file.has_settled && !young.contains(&file.name),
            };
            file.state == "waiting" && is_file && is_whole
        };
        let next = files.into_iter().find(is_ready);
        Ok((is_busy, next))
    }

    /// Takes a file: it is submitted, or refused, or its row says why it is neither.
    async fn take(&self, file: &Unsettled) -> Result<(), JobError> {
        match self.copied(file).await {
            Ok(copy) => {
                let definition = &self.target.definition;
                let (asked, tenant) = (&definition.options, definition.tenant.as_str());
                match options::accept(self.ctx.state(), copy, &file.name, asked, tenant).await {
                    Ok(accepted) => self.submit(file, accepted).await,
                    Err(SubmitError::Refused(refusal)) if !refusal.is_transient() => {
                        let why = refusal.message;
                        self.write(async |tx| file::refused(tx, file, &why).await.map(drop))
                            .await
                    }
                    Err(error) => Err(self.troubled(file, error.into()).await),
                }
            }
            Err(TakeError::Changing) => Ok(()), // the next look sees what it has become
            Err(TakeError::Place(error)) if error.is_gone() => Ok(()), // and so it does here
            Err(error) if error.is_transient() => Err(self.troubled(file, anyhow!(error)).await),
            // Unreadable, or too large: in the way of nobody.
            Err(error) => {
                let why = error.to_string();
                self.write(async |tx| file::refused(tx, file, &why).await.map(drop))
                    .await
            }
        }
    }

    /// Notes what is wrong with a file now; the look is tried again.
    async fn troubled(&self, file: &Unsettled, error: anyhow::Error) -> JobError {
        let why = error.to_string();
        let noted = self.write(async |tx| file::trouble(tx, file, &why).await);
        match noted.await {
            Ok(()) => error.context(file.name.clone()).into(),
            Err(error) => error,
        }
    }

    async fn copied(&self, file: &Unsettled) -> Result<crate::blob::Writer, TakeError> {
        let (folder, name) = (Arc::clone(&self.folder), file.name.clone());
        let opened = spawn_blocking(move || {
            let opened = place::open_file(&folder, OsStr::new(&name))?;
            let stamp = place::entry_stamp(&opened)?;
            Ok::<_, TakeError>((opened, stamp))
        });
        let (opened, stamp) = opened.await.map_err(io::Error::other)??;
        if stamp != file.stamp {
            return Err(TakeError::Changing);
        }
        take::copy(self.ctx.state(), &opened, place::entry_stamp, &stamp).await
    }

    async fn submit(&self, file: &Unsettled, accepted: Accepted) -> Result<(), JobError> {
        let triggered_by = format!("source:{}", self.target.name);
        let origin = Origin {
            tenant: &self.target.definition.tenant,
            triggered_by: &triggered_by,
        };
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        let import = accepted.submit(&mut tx, origin).await?;
        if !file::submitted(&mut tx, file, import).await? {
            return Ok(()); // another look took it; this one's file and import are forgotten
        }
        accepted.keep();
        tx.commit().await?;
        submit::report();
        Ok(())
    }
}

/// What fits, by name, and which of it has a marker.
type Fitting = (HashMap<String, Entry>, Vec<String>);

/// Finds the names that fit the pattern, at most [`MOST_FILES`] in their order, and looks at each.
fn fitting(folder: &OwnedFd, pattern: &Pattern, names: &[String]) -> io::Result<Fitting> {
    let is_ours = |name: &&String| {
        let is_hidden = name.starts_with('.') || name.ends_with(MARKER);
        !is_hidden && ![DONE, FAILED].contains(&name.as_str()) && pattern.fits(name)
    };
    let mut entries = HashMap::new();
    for name in names.iter().filter(is_ours).take(MOST_FILES) {
        if let Some(entry) = place::entry(folder, name)? {
            entries.insert(name.clone(), entry);
        }
    }
    let whole = |name: &String| name.strip_suffix(MARKER).map(str::to_owned);
    let marked = names.iter().filter_map(whole).collect();
    Ok((entries, marked))
}
