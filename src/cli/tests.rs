//! The shape of the command line; what commands do is tested from outside, in `tests/it/cli.rs`.

use super::*;

/// Calls `check` with every command, the groups' own commands included, and its path.
fn each(command: &clap::Command, path: &str, check: &mut dyn FnMut(&clap::Command, &str)) {
    check(command, path);
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        each(sub, &format!("{path} {}", sub.get_name()), check);
    }
}

#[test]
fn every_command_has_help_with_examples_that_parse() {
    let mut n_examples = 0;
    each(&Cli::command(), "ingestd", &mut |command, path| {
        assert!(
            command.get_about().is_some(),
            "{path} says not what it does"
        );
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("Examples:\n"), "{path} has no examples");
        for line in help
            .lines()
            .filter(|line| line.trim_start().starts_with("ingestd "))
        {
            n_examples += usize::from(parses(line.trim()));
        }
    });
    assert!(n_examples > 30, "only {n_examples} examples were found");
}

/// Panics where an example of plain words does not parse; says whether it was one.
fn parses(line: &str) -> bool {
    let line = line.split("   ").next().unwrap();
    if line.contains(['|', '$', '>', '\'']) {
        return false;
    }
    let parsed = Cli::try_parse_from(line.split_whitespace());
    assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    true
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}
