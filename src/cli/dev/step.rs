//! What `ingestd dev` says while it starts, and what to look at next.

use std::{io, net::SocketAddr, path::Path};

use serde_json::json;

use super::sample::TENANT;
use crate::{cli::Output, config::Config};

/// The steps so far, one short line each.
#[derive(Debug)]
pub(super) struct Steps {
    output: Output,
    n_told: u32,
}

impl Steps {
    pub(super) fn new(output: &Output) -> Self {
        let steps = Self {
            output: output.clone(),
            n_told: 0,
        };
        steps.remark(concat!("ingestd ", env!("CARGO_PKG_VERSION"), " dev"));
        steps
    }

    /// Says that a step is done.
    pub(super) fn tell(&mut self, what: &str, text: &str) -> io::Result<()> {
        self.n_told += 1;
        if self.output.is_json() {
            return self
                .output
                .json_line(&json!({ "event": "step", "what": what, "text": text }));
        }
        self.output
            .line(&format!("[{}/5] {what:<9} {text}", self.n_told))
    }

    /// Adds a line to the last step.
    pub(super) fn more(&self, text: &str) -> io::Result<()> {
        if self.output.is_json() {
            return self
                .output
                .json_line(&json!({ "event": "more", "text": text }));
        }
        self.output.line(&format!("                {text}"))
    }

    /// Says something beside the steps.
    pub(super) fn remark(&self, text: &str) {
        self.output.remark(text);
    }

    /// Says what to look at next; `url` is that of the private cluster, where there is one, and
    /// `sample` the workbook, to be imported once more.
    pub(super) fn next(
        &self,
        config: &Config,
        address: SocketAddr,
        url: Option<String>,
        sample: &Path,
    ) -> io::Result<()> {
        let url = url.map_or_else(|| "\"$DATABASE_URL\"".to_owned(), |url| format!("'{url}'"));
        let storage = config.storage.dir.display();
        let alias = alias();
        let text = format!(
            "
What to look at next, in another terminal:

{alias}  export DATABASE_URL={url}
  export INGESTD_STORAGE__DIR='{storage}' INGESTD_HTTP__LISTEN={address}
  ingestd dead ls                     # the job that failed for good; `ingestd dead retry ID`
  ingestd jobs ls                     # one is being retried
  ingestd schedules explain system.recover_runs
  ingestd doctor

  psql \"$DATABASE_URL\" -c \"INSERT INTO ingestd.jobs (kind) VALUES ('system.noop')\"
  psql \"$DATABASE_URL\" -c \"SELECT * FROM catalog.products WHERE tenant = '{tenant}' LIMIT 5\"
  psql \"$DATABASE_URL\" -c 'SELECT * FROM ingestd.all_jobs ORDER BY id DESC LIMIT 5'

  curl http://{address}/api/v1/queues
  curl 'http://{address}/readyz?verbose'
  curl -F 'file=@{sample}' http://{address}/api/v1/import/products
",
            tenant = TENANT,
            sample = sample.display(),
        );
        if self.output.is_json() {
            return self
                .output
                .json_line(&json!({ "event": "next", "text": text }));
        }
        self.output.line(&text)
    }
}

/// Returns the line that makes `ingestd` mean this program, unless the shell finds it already.
fn alias() -> String {
    let Ok(exe) = std::env::current_exe() else {
        return String::new();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("ingestd") == exe) {
        return String::new();
    }
    format!("  alias ingestd='{}'\n", exe.display())
}
