//! What users see of a panic: one line, never a backtrace.

use std::{
    io::Write as _,
    panic::{self, PanicHookInfo},
};

/// Where to take a mistake of this program.
const REPORT: &str = "this is a mistake of ingestd; please report it with the lines above";

/// Sees to it that a panic is one log line and not a backtrace; on the main thread, where nothing
/// catches it, it also ends the process with `error: …` and code 70.
pub fn catch_panics() {
    panic::set_hook(Box::new(|info| {
        let (text, place) = (message(info), location(info));
        tracing::error!(panic = text, place, "panic");
        if std::thread::current().name() == Some("main") {
            let mut err = std::io::stderr().lock();
            // There is nobody left to tell where stderr cannot be written.
            drop(writeln!(
                err,
                "error: internal error: {text} ({place})\nhint: {REPORT}"
            ));
            std::process::exit(i32::from(super::Exit::Software as u8));
        }
    }));
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

fn location(info: &PanicHookInfo<'_>) -> String {
    info.location()
        .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()))
}
