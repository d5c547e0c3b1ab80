//! Fills an empty data folder by `initdb`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::{Binaries, ClusterError, Options, owner::Owner, url::USER};

/// Fills the data folder unless it is filled. It is made beside and put in place by a rename, so
/// that an interrupted `initdb` leaves nothing that looks like a cluster.
pub(crate) async fn init(
    owner: &Owner,
    binaries: &Binaries,
    options: &Options,
) -> Result<(), ClusterError> {
    let data_dir = &options.data_dir;
    if data_dir.join("PG_VERSION").exists() {
        return Ok(());
    }
    let fresh = data_dir.with_extension("initdb");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(ClusterError::io("cannot remove", &fresh))?;
    }
    owner.make_private(&fresh)?;
    let ctype = if cfg!(target_os = "linux") {
        "C.UTF-8"
    } else {
        "UTF-8"
    };
    let mut command = owner.command(binaries.initdb());
    command
        .arg("--pgdata")
        .arg(&fresh)
        .args(["--username", USER, "--auth", "trust"]);
    command.args(["--encoding", "UTF8", "--locale", "C", "--lc-ctype", ctype]);
    command.args(["--no-instructions", "--no-sync"]);
    run_initdb(command, data_dir).await?;
    fs::rename(&fresh, data_dir).map_err(ClusterError::io("cannot fill", data_dir))
}

async fn run_initdb(mut command: Command, data_dir: &Path) -> Result<(), ClusterError> {
    let failed = |output| ClusterError::Initdb {
        data_dir: data_dir.into(),
        output,
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(String::from_utf8_lossy(&said).trim().to_owned()))
}
