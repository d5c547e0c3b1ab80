//! The product import: a spreadsheet of any size into `catalog`, in chunks, in the background.
//!
//! Reading is pure but for the file: a reader in [`sheet`] gives rows of cells, [`row`] makes
//! products or row errors of them, and [`sheet::read`] hands them on in [`row::Chunk`]s.
//! [`load`] writes chunks into the catalog, and [`job`] drives both: one transaction per chunk,
//! two of them at a time.
//! Before that, [`submit`] makes a run of a file, and `routes` lets it be uploaded and asked after.

pub mod dealers;
pub mod export;
pub mod job;
mod kept;
pub mod load;
pub mod plan;
mod replace;
pub mod retention;
pub(crate) mod routes;
pub mod row;
pub mod sample;
pub mod saved_map;
mod settle;
pub mod sheet;
pub mod status;
pub mod store;
pub mod submit;
pub mod undo;

pub use job::RunImport;
pub use undo::RollBack;

/// Says whether a run is of a file; of this system there are also those that undo one.
#[must_use]
pub fn is_import(run: &crate::runs::Run) -> bool {
    run.system == submit::SYSTEM && run.params.get("import_id").is_none()
}
