//! The daemon and its command line.

use std::process::ExitCode;

use ingestd::{
    cli::{self, Cli, Exit, Failure},
    ingest::product_import::sheet,
};

/// Handlers of many threads allocate and free at once, which the system's allocator serializes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for pages of 2 MiB, of which a thread that needs a few KiB holds the whole:
    // half of what an idle daemon takes. A system that has none to give need not be told so.
    nix::sys::prctl::set_thp_disable(true).ok();
    if let Some(code) = sheet::serve_if_asked(std::env::args_os()) {
        return ExitCode::from(code);
    }
    sheet::read_in_children("/proc/self/exe");
    cli::catch_panics();
    let ended = match Cli::from_command_line() {
        Ok(cli) => run(cli),
        Err(exit) => Ok(exit),
    };
    ended.unwrap_or_else(|failure| failure.report()).into()
}

/// Loads the configuration, starts the log, and carries the command out.
fn run(cli: Cli) -> Result<Exit, Failure> {
    let provider = rustls::crypto::ring::default_provider();
    // Refused only where there is one already, which is as good.
    drop(provider.install_default());
    let loaded = cli.load();
    cli.init_log(loaded.as_ref().ok())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(Box::pin(cli.run(loaded)));
    runtime.shutdown_timeout(cli::LEFTOVER_TIMEOUT);
    ended
}
