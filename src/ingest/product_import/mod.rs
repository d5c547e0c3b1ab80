//! The product import: a spreadsheet of any size into `catalog`, in chunks, in the background.

pub mod row;
