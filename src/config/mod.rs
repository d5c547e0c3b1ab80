//! Configuration: one file per section, each with its struct, defaults and validation.
