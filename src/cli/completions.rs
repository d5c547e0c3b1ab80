//! `ingestd completions`: a script for the shell.

use clap::Args;
use clap_complete::Shell;

use super::{Exit, Failure, Output};

/// Prints a completion script.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd completions bash > /etc/bash_completion.d/ingestd
  ingestd completions zsh > ~/.zfunc/_ingestd
  ingestd completions fish > ~/.config/fish/completions/ingestd.fish")]
pub(super) struct CompletionsArgs {
    /// The shell that will read it.
    shell: Shell,
}

pub(super) fn run(
    args: &CompletionsArgs,
    command: &mut clap::Command,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "ingestd", &mut script);
    output.raw(&script)?;
    Ok(Exit::Ok)
}
