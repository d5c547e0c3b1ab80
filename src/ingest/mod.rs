//! The built-in systems. Adding a kind touches its folder and one line here.

pub mod product_import;
