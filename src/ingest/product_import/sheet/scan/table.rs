//! The part of shared strings, into the file they are looked up in.

use std::io::Read;
use std::path::Path;

use super::cursor::{Place, Stop};
use super::strings::{Spill, Strings};
use super::text::item;
use super::window::{Halt, Window, root};

/// Reads the shared strings of a part; their file is made beside `beside`. What is longer than
/// `max_bytes` is cut, and one sign longer than that.
///
/// # Errors
///
/// When the part is not in the dialect, damaged, or has too many strings.
pub(super) fn read(part: impl Read, beside: &Path, max_bytes: usize) -> Result<Strings, Halt> {
    let mut window = Window::new(part);
    let mut spill = Spill::new(beside, max_bytes);
    let mut text = String::new();
    root(&mut window, b"sst")?;
    loop {
        text.clear();
        let is_string = window.parse(|cursor| {
            text.clear();
            let tag = cursor.tag()?;
            match (tag.name, tag.place) {
                (b"si", Place::Start) => item(cursor, b"si", &mut text).map(|()| true),
                (b"si", Place::Empty) => Ok(true),
                (b"sst", Place::End) => Ok(false),
                _ => Err(Stop::Foreign("an unknown element among the shared strings")),
            }
        })?;
        if !is_string {
            return spill.finish();
        }
        spill.push(&text)?;
    }
}

/// Makes the strings of a workbook that has none.
///
/// # Errors
///
/// None that can happen.
pub(super) fn none(beside: &Path) -> Result<Strings, Halt> {
    Spill::new(beside, 0).finish()
}
