//! The product import: a spreadsheet of any size into `catalog`, in chunks, in the background.
//!
//! Reading is pure but for the file: a reader in [`sheet`] gives rows of
//! [`cell`]s, [`header`] says what the columns mean, [`check`] makes products
//! or row errors of them with the help of [`value`], [`seen`] and [`hash`],
//! and [`sheet::read`] hands them on in [`row::Chunk`]s. [`load`] writes a chunk
//! into the catalog, and [`job`] drives both: one transaction per chunk, two of
//! them at a time (`commit`).
//! Before that, [`submit`] makes a run of a file, and `routes` lets it be
//! uploaded and asked after.

pub mod attributes;
pub mod cell;
pub mod check;
pub mod columns;
mod commit;
pub mod dealers;
pub mod export;
pub mod fault;
pub mod field;
mod handover;
pub mod hash;
pub mod header;
pub mod header_map;
mod history;
pub mod job;
mod kept;
pub mod load;
pub mod locale;
pub mod plan;
pub mod preview;
mod probe;
mod rejected;
mod replace;
pub mod retention;
pub(crate) mod routes;
pub(crate) mod routes_dealers;
pub(crate) mod routes_export;
pub(crate) mod routes_imports;
pub(crate) mod routes_mappings;
pub mod row;
pub mod sample;
pub mod saved_map;
pub mod seen;
mod seen_codes;
mod settle;
pub mod sheet;
mod slice;
pub mod status;
pub mod store;
pub mod submit;
pub mod tally;
mod turns;
pub mod undo;
pub mod value;

pub use job::RunImport;
pub use undo::RollBack;

/// Says whether a run is of a file; of this system there are also those that undo one.
#[must_use]
pub fn is_import(run: &crate::runs::Run) -> bool {
    run.system == submit::SYSTEM && run.params.get("import_id").is_none()
}
