//! `ingestd openapi`: the HTTP interface, for programs that make clients and tests.

use clap::Args;

use super::{Exit, Failure, Output};
use crate::http;

/// Prints the HTTP interface as an OpenAPI 3.1 document, as `/openapi.json` has it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd openapi > openapi.json
  ingestd openapi | jq '.paths | keys'")]
pub(super) struct OpenapiArgs {}

pub(super) fn run(output: &Output) -> Result<Exit, Failure> {
    let text = format!("{:#}\n", http::openapi());
    output.raw(text.as_bytes())?;
    Ok(Exit::Ok)
}
