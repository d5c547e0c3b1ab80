//! The product import: a spreadsheet of any size into `catalog`, in chunks, in the background.

pub mod cell;
pub mod check;
pub mod fault;
pub mod field;
pub mod hash;
pub mod header;
pub mod row;
pub mod seen;
pub mod value;
