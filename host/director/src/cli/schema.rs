//! `wvs schema`: the configuration's JSON Schema.

use clap::Args;

use super::print_json;
use crate::config::json_schema;

/// Print the configuration's JSON Schema, by which editors complete and check it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs schema > wvs.schema.json

With the YAML language server, which most editors have, the first line of a configuration beside it:
  # yaml-language-server: $schema=wvs.schema.json

What the schema cannot say, `wvs check` does.")]
pub(super) struct SchemaArgs {}

pub(super) fn schema(_: &SchemaArgs) -> u8 {
    print_json(&json_schema())
}
