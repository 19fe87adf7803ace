//! `wvs plugin new`: a project for a scheduler.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::{fail, print, refuse};
use crate::scaffold::{self, Language, ScaffoldError};

/// Make a project for a scheduler: a working one, to be changed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin new mine --lang c           in the folder mine
  wvs plugin new mine --lang rust --path .
                                         in this folder, which is empty

`sh build.sh` in the project builds the module, `sh test.sh` tries it. All that this needs besides \
the language's compiler is in the project.")]
pub(super) struct NewArgs {
    /// The scheduler's name: lower-case letters, digits and `-`.
    name: String,

    /// The language.
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    lang: Language,

    /// The folder to make it in, new or empty [default: NAME].
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

pub(super) fn new(args: &NewArgs) -> u8 {
    let name = &args.name;
    let folder = args.path.as_deref().unwrap_or(Path::new(name));
    match scaffold::create(name, args.lang, folder) {
        Ok(()) => print(
            format!(
                "Made the scheduler {name} in {folder}. There,\n\n  \
                 sh build.sh     builds {name}.wasm\n  \
                 sh test.sh      builds it and tries it as the director will\n\n\
                 README.md says how to use it.\n",
                folder = folder.display(),
            )
            .as_bytes(),
        ),
        Err(error @ ScaffoldError::Write { .. }) => fail(error),
        Err(error) => refuse(error),
    }
}
