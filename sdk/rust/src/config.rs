//! A service's `config` where there is none to be.

use alloc::string::String;

/// The configuration of a scheduler called `name` that takes none.
///
/// # Errors
/// When there is one: that this scheduler takes none.
pub fn no_config(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { Err([name, " takes no configuration"].concat()) }
}
