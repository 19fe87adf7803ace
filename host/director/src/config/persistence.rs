//! Whether the clients of a service come back to the server they had.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use wvs_core::persistence::{Persistence, Quiesced};

use super::document::Value;
use super::keys;
use super::reader::{Fields, Reader};
use super::schema::{number, set};

const TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(31 * 24 * 3_600);

/// As LVS has it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(360);

/// `persistence`: a timeout alone, or a mapping.
pub(super) fn read(
    reader: &mut Reader<'_>,
    service: &Fields<'_>,
    vip: Option<IpAddr>,
    templates_max: usize,
) -> Option<Persistence> {
    let field = service.get("persistence")?;
    let bits: u8 = if vip.is_some_and(|vip| vip.is_ipv6()) { 128 } else { 32 };
    let mut persistence = Persistence {
        timeout: DEFAULT_TIMEOUT,
        prefix: bits,
        quiesced: Quiesced::Honour,
        templates_max,
    };
    if !matches!(field.node.value, Value::Mapping(_)) {
        set(&mut persistence.timeout, reader.duration(&field, TIMEOUT));
        return Some(persistence);
    }
    let fields = reader.fields(&field, &keys::PERSISTENCE)?;
    if let Some(field) = fields.get("timeout") {
        set(&mut persistence.timeout, reader.duration(&field, TIMEOUT));
    }
    if let Some(field) = fields.get("prefix") {
        set(&mut persistence.prefix, number(reader, &field, 1..=bits.into()));
    }
    if let Some(field) = fields.get("quiesced") {
        let choices = [("honour", Quiesced::Honour), ("break", Quiesced::Break)];
        set(&mut persistence.quiesced, reader.choice(&field, &choices));
    }
    Some(persistence)
}
