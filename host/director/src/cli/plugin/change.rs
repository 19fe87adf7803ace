//! What changes the plugins of a running director.

use std::path::{Path, PathBuf};

use clap::{Arg, Args};
use serde_json::Value;

use super::super::socket::SocketArg;
use super::super::{fail, print, print_json, refuse};
use crate::config::units::{Percent, UnitError};
use crate::config::{MODULE_OCTETS_MAX, is_name, read_at_most};
use crate::control::snapshot::ChangeSnapshot;
use crate::control::{self, Message, ModuleQuery, ShareRequest, SwapRequest, scheduler_path};
use crate::output::plugins;

/// The longest configuration that can be sent together with a module.
const CONFIG_OCTETS_MAX: usize = 16 << 10;

/// Give a service to another plugin, between two decisions.
#[derive(Debug, Args)]
#[command(
    mut_arg("config", short_only),
    after_help = "Examples:
  wvs plugin swap web wlc                  a built-in
  wvs plugin swap web latency              one of the configuration's, its file read again
  wvs plugin swap web ./latency.wasm       a file, sent to the director
  wvs plugin swap web ./latency.wasm --config '{\"half_life\": \"5s\"}'

The plugin is loaded and tried with the service's servers first; one that fails there changes nothing. \
It goes on where the old one was, if both understand the same state. For its first decisions, as many as the \
service's `probation` says, the old one is kept at hand and takes over again at a fault. A reload puts \
back what the configuration says. A trial that is on ends: its candidate was compared with the old plugin."
)]
pub(super) struct SwapArgs {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    proposal: ProposalArgs,
}

/// Give a service back to the plugin that had it before.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  wvs plugin rollback web

`wvs plugin list web` shows what can be gone back to, one after the other. A trial that is on ends.")]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    target: Target,
}

/// Start a service's plugin anew, with its faults forgotten.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  wvs plugin reset web

Ends its quarantine, too. What it remembered is lost.")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    target: Target,
}

/// Try out a candidate beside a service's plugin, without obeying it.
#[derive(Debug, Args)]
#[command(
    mut_arg("config", short_only),
    after_help = "Examples:
  wvs plugin shadow web ./latency.wasm
  wvs plugin shadow web sh --skew 100%     however differently it spreads
  wvs plugin list web                      how it goes

It is asked the same as the plugin, whose word counts. `wvs plugin canary` obeys it for some clients, \
`wvs plugin promote` gives it the service, `wvs plugin stop` ends the trial."
)]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    proposal: ProposalArgs,

    /// Faults after which the trial stops by itself [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    faults: Option<u64>,

    /// Skew above which a canary stops by itself: the part of all connections that would go to other
    /// servers [default: 30%].
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    skew: Option<Percent>,
}

/// Obey the candidate for a share of the clients, always the same ones.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wvs plugin canary web 5%
  wvs plugin canary web 0%      only watch it again")]
pub(super) struct CanaryArgs {
    #[command(flatten)]
    target: Target,

    /// The share of the clients, such as 5% or 0.25%.
    #[arg(value_parser = percentage)]
    share: Percent,
}

/// Give a service to its candidate, as it is.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  wvs plugin promote web

The plugin that had the service is kept at hand as after a swap.")]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    target: Target,
}

/// End the trial of a candidate.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  wvs plugin stop web")]
pub(super) struct StopArgs {
    #[command(flatten)]
    target: Target,
}

/// The service that something is changed at.
#[derive(Debug, Args)]
struct Target {
    /// The service, by its name.
    service: String,

    /// Write what changed as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    director: SocketArg,
}

/// A plugin and its configuration.
#[derive(Debug, Args)]
struct ProposalArgs {
    /// A module's file, which has a `/` in its path or ends in `.wasm`, or the name of a plugin.
    #[arg(value_name = "FILE|NAME")]
    plugin: PathBuf,

    /// The plugin's configuration; without it, it gets none.
    #[arg(long = "config", value_name = "JSON")]
    plugin_config: Option<String>,
}

/// Where `--config` is a plugin's, that of the director is `-c` alone.
fn short_only(arg: Arg) -> Arg {
    arg.long(None::<&str>)
}

fn percentage(text: &str) -> Result<Percent, String> {
    text.parse().map_err(|error: UnitError| format!("{error}; {}", error.remedy()))
}

pub(super) fn swap(args: &SwapArgs) -> u8 {
    args.target.propose("swap", &args.proposal, None, None)
}

pub(super) fn rollback(args: &RollbackArgs) -> u8 {
    args.target.tell("rollback", "", Message::Empty)
}

pub(super) fn reset(args: &ResetArgs) -> u8 {
    args.target.tell("reset", "", Message::Empty)
}

pub(super) fn shadow(args: &ShadowArgs) -> u8 {
    args.target.propose("shadow", &args.proposal, args.faults, args.skew)
}

pub(super) fn canary(args: &CanaryArgs) -> u8 {
    match serde_json::to_string(&ShareRequest { share: args.share }) {
        Ok(share) => args.target.tell("canary", "", Message::Json(share)),
        Err(error) => fail(error),
    }
}

pub(super) fn promote(args: &PromoteArgs) -> u8 {
    args.target.tell("promote", "", Message::Empty)
}

pub(super) fn stop(args: &StopArgs) -> u8 {
    args.target.tell("end-trial", "", Message::Empty)
}

impl Target {
    /// Sends a plugin, or its name.
    fn propose(
        &self,
        action: &str,
        proposal: &ProposalArgs,
        faults: Option<u64>,
        skew: Option<Percent>,
    ) -> u8 {
        let ProposalArgs { plugin, plugin_config: config } = proposal;
        let value = match config.as_deref().map(serde_json::from_str::<Value>).transpose() {
            Ok(value) => value,
            Err(error) => return refuse(format_args!("the configuration is not JSON: {error}")),
        };
        if !is_file(plugin) {
            let plugin = plugin.to_string_lossy().into_owned();
            let request = SwapRequest { plugin, config: value, faults, skew };
            return match serde_json::to_string(&request) {
                Ok(request) => self.tell(action, "", Message::Json(request)),
                Err(error) => fail(error),
            };
        }
        if config.as_ref().is_some_and(|config| config.len() > CONFIG_OCTETS_MAX) {
            return refuse(
                "the configuration has more than 16KiB; name the plugin in the director's \
                 configuration, and reload it",
            );
        }
        let octets = match read_at_most(plugin, MODULE_OCTETS_MAX) {
            Ok(octets) if octets.len() <= MODULE_OCTETS_MAX => octets,
            Ok(_) => {
                return refuse(format_args!("{}: larger than any plugin may be", plugin.display()));
            }
            Err(error) => return refuse(format_args!("cannot read {}: {error}", plugin.display())),
        };
        let query = ModuleQuery { name: name_of(plugin), config: config.clone(), faults, skew };
        match serde_urlencoded::to_string(query) {
            Ok(query) => self.tell(action, &format!("?{query}"), Message::Module(octets)),
            Err(error) => fail(error),
        }
    }

    fn tell(&self, action: &str, query: &str, message: Message) -> u8 {
        let service = &self.service;
        // What is no name cannot be part of a path either.
        if !is_name(service) {
            return fail(format_args!(
                "there is no service {service}; `wvs plugin list` shows all"
            ));
        }
        let path = scheduler_path(service, action) + query;
        let answer = self.director.converse(async |socket| {
            control::tell::<ChangeSnapshot>(&socket, &path, message).await
        });
        match answer {
            Ok(change) if self.json => print_json(&change),
            Ok(change) => print(plugins::change(&change).as_bytes()),
            Err(status) => status,
        }
    }
}

/// Whether a file is meant, and not the name of a plugin.
fn is_file(plugin: &Path) -> bool {
    plugin.extension().is_some_and(|ending| ending == "wasm")
        || plugin.as_os_str().as_encoded_bytes().contains(&b'/')
}

/// What to call the plugin in a file: its name without the ending, as far as that can be a name.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-', "-");
    let name: String = name.trim_start_matches('-').chars().take(63).collect();
    if is_name(&name) { name } else { "plugin".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_names_by_how_they_are_written() {
        for file in ["a.wasm", "./a", "../a", "a/b", "/a", "/"] {
            assert!(is_file(Path::new(file)), "{file}");
        }
        for name in ["wlc", "two-choices", "a.b", "wasm"] {
            assert!(!is_file(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn any_file_has_a_name_that_a_plugin_may_have() {
        let long = "x".repeat(100) + ".wasm";
        for (file, name) in [
            ("target/two_choices.wasm", "two-choices"),
            ("a b.wasm", "a-b"),
            ("-é.wasm", "plugin"),
            ("/", "plugin"),
            (&long, &"x".repeat(63)),
        ] {
            assert_eq!(name_of(Path::new(file)), name, "{file}");
        }
    }
}
