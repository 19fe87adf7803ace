//! The program `wvs`, built in this package so that its tests can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    wvs::main()
}
