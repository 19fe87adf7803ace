//! `plugins` and each service's `scheduler`: which plugins there are, what they may take, and where
//! they work.

use std::ops::RangeInclusive;
use std::path::Path;

use wvs_plugin::{Limits, TrialLimits, builtin};

use super::document::Value;
use super::key_path::KeyPath;
use super::problem::Place;
use super::reader::{Field, Fields, Reader, list_names, nearest};
use super::schema::{is_name, number, set};
use super::units::Percent;
use super::{PluginConfig, SchedulerConfig, ShadowConfig, keys};

/// The largest module that the configuration can allow.
pub(crate) const MODULE_OCTETS_MAX: usize = 16 << 20;

/// The scheduler of a service that names none.
pub(super) const DEFAULT_SCHEDULER: &str = "wlc";

const DEFAULT_PROBATION: u64 = 1_000;

const PLUGINS_MAX: usize = 256;
const MEMORY: RangeInclusive<u64> = (64 << 10)..=(1 << 30);
const FUEL: RangeInclusive<u64> = 1_000..=100_000_000;
const SETUP_FUEL: RangeInclusive<u64> = 1_000..=1_000_000_000;
const MODULE: RangeInclusive<u64> = (1 << 10)..=MODULE_OCTETS_MAX as u64;
const FUNCTION: RangeInclusive<u64> = (1 << 10)..=(1 << 20);
const CONFIG_OCTETS_MAX: usize = 64 << 10;
const PROBATION: RangeInclusive<u64> = 0..=1_000_000_000;
const RECORD: RangeInclusive<u64> = (64 << 10)..=(32 << 20);
const TRIAL_FAULTS: RangeInclusive<u64> = 1..=1_000_000;

/// Nothing to everything.
fn any_share() -> RangeInclusive<Percent> {
    Percent::default()..=Percent::ALL
}

impl SchedulerConfig {
    /// A plugin of this name, and nothing else said.
    #[must_use]
    pub fn of(plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            config: None,
            probation: DEFAULT_PROBATION,
            record: None,
            shadow: None,
        }
    }
}

/// The plugins from files, and which of them are used.
#[derive(Default)]
pub(super) struct Plugins {
    read: Vec<PluginConfig>,
    /// Every name that was given, also of plugins that could not be read.
    names: Vec<(String, Place, bool)>,
}

impl Plugins {
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, field: &Field<'_>, folder: &Path) {
        let named = reader.named(field);
        if named.len() > PLUGINS_MAX {
            let message = format!("{} plugins; use at most {PLUGINS_MAX}", named.len());
            reader.error(&field.path, field.node.place, message);
            return;
        }
        for (key, field) in named {
            if !is_name(&key.name) {
                let message = format!("no name for a plugin; use {}", keys::SERVICE.values("name"));
                reader.error(&field.path, key.place, message);
            } else if builtin::NAMES.contains(&key.name.as_str()) {
                reader.error(&field.path, key.place, "the name of a built-in; choose another");
            }
            self.names.push((key.name.clone(), key.place, false));
            if let Some(plugin) = read_plugin(reader, &key.name, &field, folder) {
                self.read.push(plugin);
            }
        }
    }

    /// What was read.
    pub(super) fn into_configs(self) -> Vec<PluginConfig> {
        self.read
    }

    /// A service's `scheduler`: a name, or a mapping.
    pub(super) fn read_scheduler(
        &mut self,
        reader: &mut Reader<'_>,
        field: &Field<'_>,
    ) -> Option<SchedulerConfig> {
        if !matches!(field.node.value, Value::Mapping(_)) {
            return Some(SchedulerConfig::of(&self.read_name(reader, field)?));
        }
        let fields = reader.fields(field, &keys::SCHEDULER)?;
        let plugin = self.read_use(reader, &fields);
        let mut probation = DEFAULT_PROBATION;
        if let Some(field) = fields.get("probation") {
            set(&mut probation, reader.integer(&field, PROBATION));
        }
        let record =
            fields.get("record").and_then(|field| reader.size(&field, RECORD)?.try_into().ok());
        let mut shadow = match fields.get("shadow") {
            Some(field) => Some(self.read_shadow(reader, &field)?),
            None => None,
        };
        if let Some(field) = fields.get("canary") {
            let share = reader.percentage(&field, any_share());
            match &mut shadow {
                Some(shadow) => set(&mut shadow.share, share),
                None => {
                    let message = "there is no candidate; name one under `shadow`, or remove this";
                    reader.error(&field.path, field.node.place, message);
                }
            }
        }
        let (plugin, config) = plugin?;
        Some(SchedulerConfig { plugin, config, probation, record, shadow })
    }

    /// `shadow`: a name, or a mapping.
    fn read_shadow(&mut self, reader: &mut Reader<'_>, field: &Field<'_>) -> Option<ShadowConfig> {
        let (share, mut limits) = (Percent::default(), TrialLimits::default());
        if !matches!(field.node.value, Value::Mapping(_)) {
            let plugin = self.read_name(reader, field)?;
            return Some(ShadowConfig { plugin, config: None, share, limits });
        }
        let fields = reader.fields(field, &keys::SHADOW)?;
        let plugin = self.read_use(reader, &fields);
        if let Some(field) = fields.get("faults") {
            set(&mut limits.faults, reader.integer(&field, TRIAL_FAULTS));
        }
        if let Some(field) = fields.get("skew") {
            let skew = reader.percentage(&field, any_share());
            set(&mut limits.skew, skew.map(Percent::hundredths));
        }
        let (plugin, config) = plugin?;
        Some(ShadowConfig { plugin, config, share, limits })
    }

    /// `plugin` and `config`.
    fn read_use(
        &mut self,
        reader: &mut Reader<'_>,
        fields: &Fields<'_>,
    ) -> Option<(String, Option<String>)> {
        let plugin =
            fields.required(reader, "plugin").and_then(|field| self.read_name(reader, &field));
        let config = match fields.get("config") {
            Some(field) => Some(read_config(reader, &field)?),
            None => None,
        };
        Some((plugin?, config))
    }

    fn read_name(&mut self, reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
        let name = reader.text(field)?;
        if self.take(name) {
            return Some(name.to_owned());
        }
        let known = list_names(self.known());
        let remedy = match nearest(name, self.known()) {
            Some(near) => format!("did you mean \"{near}\"? Use {known}"),
            None => format!("use {known}, or name a plugin of your own under `plugins`"),
        };
        reader.refuse(field, "is no scheduler", &remedy);
        None
    }

    /// Notes that a service uses `name`; `false` when there is no such plugin.
    fn take(&mut self, name: &str) -> bool {
        let mut is_known = builtin::NAMES.contains(&name);
        for (known, _, is_used) in &mut self.names {
            if known == name {
                *is_used = true;
                is_known = true;
            }
        }
        is_known
    }

    /// Every name that a scheduler may have.
    fn known(&self) -> impl Iterator<Item = &str> + Clone {
        let from_files = self.names.iter().map(|(name, ..)| name.as_str());
        builtin::NAMES.iter().copied().chain(from_files)
    }

    pub(super) fn warn_of_unused(&self, reader: &mut Reader<'_>) {
        for (name, place, is_used) in &self.names {
            if !is_used {
                let path = KeyPath::default().key("plugins").chosen_key(name);
                reader.warn(&path, *place, "no service uses this plugin");
            }
        }
    }
}

fn read_plugin(
    reader: &mut Reader<'_>,
    name: &str,
    field: &Field<'_>,
    folder: &Path,
) -> Option<PluginConfig> {
    let fields = reader.fields(field, &keys::PLUGIN)?;
    let file = fields.required(reader, "file").and_then(|field| {
        let text = reader.text(&field)?;
        if text.is_empty() {
            reader.refuse(&field, "is no path", "give that of a WebAssembly module");
        }
        Some(folder.join(text))
    });
    let mut plugin = PluginConfig {
        name: name.to_owned(),
        file: file?,
        sha256: None,
        watch: false,
        limits: Limits::default(),
    };
    if let Some(field) = fields.get("sha256")
        && let Some(text) = reader.text(&field)
    {
        plugin.sha256 = parse_sha256(text);
        if plugin.sha256.is_none() {
            let remedy = "use the 64 hexadecimal digits that sha256sum prints";
            reader.refuse(&field, "is not a SHA-256 hash", remedy);
        }
    }
    if let Some(field) = fields.get("watch") {
        set(&mut plugin.watch, reader.choice(&field, &[("true", true), ("false", false)]));
        if plugin.watch && fields.get("sha256").is_some() {
            let message = "no other file than that of `sha256` can be put to work; remove one";
            reader.error(&field.path, field.node.place, message);
        }
    }
    if let Some(field) = fields.get("limits") {
        read_limits(reader, &field, &mut plugin.limits);
    }
    Some(plugin)
}

fn read_limits(reader: &mut Reader<'_>, field: &Field<'_>, limits: &mut Limits) {
    let Some(fields) = reader.fields(field, &keys::PLUGIN_LIMITS) else { return };
    for (name, slot, range) in [
        ("memory", &mut limits.memory, MEMORY),
        ("module", &mut limits.module, MODULE),
        ("function", &mut limits.function_body, FUNCTION),
    ] {
        if let Some(field) = fields.get(name) {
            let size = reader.size(&field, range).and_then(|size| size.try_into().ok());
            set(slot, size);
        }
    }
    for (name, slot, range) in [
        ("fuel", &mut limits.fuel, FUEL),
        ("setup_fuel", &mut limits.setup_fuel, SETUP_FUEL),
        ("start_fuel", &mut limits.start_fuel, SETUP_FUEL),
    ] {
        if let Some(field) = fields.get(name) {
            set(slot, number(reader, &field, range));
        }
    }
}

/// Any value, as JSON text.
fn read_config(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    refuse_repeated_keys(reader, field);
    let problem = match serde_json::to_string(field.node) {
        Ok(json) if json.len() <= CONFIG_OCTETS_MAX => return Some(json),
        Ok(json) => format!("{} octets as JSON; use at most 64KiB", json.len()),
        Err(error) => format!("cannot be written as JSON: {error}"),
    };
    reader.error(&field.path, field.node.place, problem);
    None
}

/// Reports keys that a mapping has twice, at any depth: what they mean would be up to the plugin.
fn refuse_repeated_keys(reader: &mut Reader<'_>, field: &Field<'_>) {
    match &field.node.value {
        Value::Mapping(_) => {
            for (_, field) in reader.named(field) {
                refuse_repeated_keys(reader, &field);
            }
        }
        Value::List(_) => {
            for field in reader.list(field).unwrap_or_default() {
                refuse_repeated_keys(reader, &field);
            }
        }
        _ => {}
    }
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0; 32];
    for (octet, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::super::units::parse_size;
    use super::*;

    fn documented(table: &keys::Table, name: &str) -> &'static str {
        table.find(name).and_then(|key| key.default).unwrap().trim_matches('`')
    }

    #[test]
    fn documented_limits_are_those_of_the_plugin_host() {
        let Limits { memory, fuel, setup_fuel, start_fuel, module, function_body } =
            Limits::default();
        for (name, limit) in [("memory", memory), ("module", module), ("function", function_body)] {
            let documented = parse_size(documented(&keys::PLUGIN_LIMITS, name)).unwrap();
            assert_eq!(usize::try_from(documented), Ok(limit), "{name}");
        }
        for (name, limit) in
            [("fuel", fuel), ("setup_fuel", setup_fuel), ("start_fuel", start_fuel)]
        {
            assert_eq!(documented(&keys::PLUGIN_LIMITS, name).parse(), Ok(limit), "{name}");
        }
    }

    #[test]
    fn documented_defaults_of_schedulers_are_the_ones_used() {
        assert_eq!(documented(&keys::SERVICE, "scheduler"), DEFAULT_SCHEDULER);
        assert_eq!(documented(&keys::SCHEDULER, "probation").parse(), Ok(DEFAULT_PROBATION));
        assert_eq!(documented(&keys::SCHEDULER, "canary").parse(), Ok(Percent::default()));
        let TrialLimits { faults, skew } = TrialLimits::default();
        assert_eq!(documented(&keys::SHADOW, "faults").parse(), Ok(faults));
        let documented = documented(&keys::SHADOW, "skew").parse().map(Percent::hundredths);
        assert_eq!(documented, Ok(skew));
    }
}
