//! Reads the configuration of a scheduler plugin, beside `wvs-sdk`, for plugins that take one.
//!
//! The SDK itself depends on nothing, and a plugin that takes no configuration needs no more than its
//! `no_config`. This crate adds some 5 KB to a module, and needs no standard library. The price:
//! strings are taken as they stand between their quotation marks, escapes and all, and types that ask
//! what the text holds (`serde_json::Value`, untagged enums) are refused.
//!
//! A plugin without the standard library wants serde without it:
//! `serde = { version = "1", default-features = false, features = ["derive"] }`, and the feature
//! `alloc` for a `String` or `Vec` in its configuration.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

/// The configuration that `text` holds, as JSON for serde; the default when it is empty.
///
/// `takes` is for the person who wrote it: the names of the scheduler and of what it takes, such as
/// "sh takes `fallback` and `port`, each true or false". A type that denies unknown fields and has
/// defaults for all of them makes a configuration strict and short:
///
/// ```
/// #[derive(Default, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Config {
///     port: bool,
/// }
///
/// let config = |text| wvs_config::read::<Config>("by-port takes `port`, true or false", text);
/// assert!(config(r#"{ "port": true }"#).unwrap().port);
/// assert!(!config("").unwrap().port);
/// assert_eq!(
///     config(r#"{"prot":true}"#).err().unwrap(),
///     r#"by-port takes `port`, true or false; this is {"prot":true}"#
/// );
/// ```
///
/// # Errors
/// When the text is not what the type takes: `takes`, and the text.
pub fn read<T: Default + serde::de::DeserializeOwned>(
    takes: &str,
    text: &str,
) -> Result<T, String> {
    if text.is_empty() {
        return Ok(T::default());
    }
    match serde_json_core::from_str(text) {
        Ok((config, _octets)) => Ok(config),
        Err(_) => Err([takes, "; this is ", text].concat()),
    }
}
