//! Where results are kept: below the target folder, or in the documentation.

use std::fs;
use std::path::{Path, PathBuf};

use crate::results::Results;
use crate::{Fallible, picture, table};

/// The picture's file in the documentation.
const PICTURE: &str = "docs/peers.svg";

/// What stands between a document's own text and the part that is written here.
const BEGIN: &str =
    "<!-- peers: written by `cargo bench -p wvs-tests --bench peers -- --write-docs` -->\n";
const END: &str = "<!-- end of peers -->\n";

/// Files of the latest run, which are nobody's but the user's.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers")
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Writes the picture and the tables into `folder`, and returns its path.
pub(crate) fn write(results: &Results, machine: &str, versions: &str) -> Fallible<PathBuf> {
    let folder = folder();
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("peers.svg"), picture::draw(results, machine))?;
    fs::write(folder.join("peers.md"), performance(results, machine, versions))?;
    Ok(folder)
}

/// Puts the picture and the tables into the documentation.
pub(crate) fn write_docs(results: &Results, machine: &str, versions: &str) -> Fallible<()> {
    fs::write(workspace().join(PICTURE), picture::draw(results, machine))?;
    replace_part("docs/PERFORMANCE.md", &performance(results, machine, versions))?;
    let short = table::markdown(&table::short(results));
    replace_part("README.md", &format!("{machine}; {versions}.\n\n{short}"))
}

fn performance(results: &Results, machine: &str, versions: &str) -> String {
    let full = table::markdown(&table::full(results));
    format!("{machine}; {versions}.\n\n{full}")
}

/// Replaces what is between the marks.
fn replace_part(name: &str, part: &str) -> Fallible<()> {
    let path = workspace().join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| rest.split_once(END).map(|(_, after)| (before, after)));
    let (before, after) =
        parts.ok_or_else(|| format!("{name} lacks the lines {BEGIN}and {END}"))?;
    fs::write(&path, format!("{before}{BEGIN}{part}{END}{after}"))?;
    Ok(())
}
