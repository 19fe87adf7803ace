//! Durations, sizes and percentages as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Why a text is no duration, size or percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// A number without a unit.
    #[error("has no unit")]
    DurationWithoutUnit,
    /// Not a duration at all.
    #[error("is not a duration")]
    NoDuration,
    /// Not a size at all.
    #[error("is not a size")]
    NoSize,
    /// Not a percentage at all.
    #[error("is not a percentage")]
    NoPercentage,
    /// Beyond what a 64-bit number can hold, or 100 %.
    #[error("is too large")]
    TooLarge,
}

impl UnitError {
    /// What to write instead.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::DurationWithoutUnit | Self::NoDuration => {
                "write it as 500ms, 300s, 15m, 2h, 1d or 1h30m"
            }
            Self::NoSize => "write it as 64KiB, 16MiB or 1GiB",
            Self::NoPercentage => "write it as 10% or 0.25%",
            Self::TooLarge => "write a smaller one",
        }
    }
}

/// A part of a whole, to hundredths of a percent.
///
/// People write `0.25%`; in JSON it is the number of percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

/// Hundredths of a percent in the whole.
const WHOLE: u16 = 10_000;

/// Milliseconds in each unit of time, the longer name of two with one beginning first.
const TIMES: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Octets in each unit of size.
const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

impl Percent {
    /// The whole.
    pub const ALL: Self = Self(WHOLE);

    /// So many hundredths of a percent, at most the whole.
    #[must_use]
    pub fn of_hundredths(hundredths: u16) -> Self {
        Self(hundredths.min(WHOLE))
    }

    /// `part` of `whole`; nothing of nothing.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        let hundredths = u128::from(part) * u128::from(WHOLE) / u128::from(whole.max(1));
        Self(u16::try_from(hundredths).unwrap_or(WHOLE).min(WHOLE))
    }

    /// In hundredths of a percent.
    #[must_use]
    pub fn hundredths(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        f.pad(&match hundredths {
            0 => format!("{whole}%"),
            _ if hundredths.is_multiple_of(10) => format!("{whole}.{}%", hundredths / 10),
            _ => format!("{whole}.{hundredths:02}%"),
        })
    }
}

/// Reads `10%` or `0.25%`, with at most two decimals.
impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text.strip_suffix('%').ok_or(UnitError::NoPercentage)?;
        let (whole, decimals) = match number.split_once('.') {
            Some((_, "")) => return Err(UnitError::NoPercentage),
            Some((whole, decimals)) => (whole, decimals),
            None => (number, ""),
        };
        let digits = format!("{whole}{decimals:0<2}");
        if whole.is_empty()
            || decimals.len() > 2
            || !digits.bytes().all(|octet| octet.is_ascii_digit())
        {
            return Err(UnitError::NoPercentage);
        }
        match digits.parse() {
            Ok(hundredths @ ..=WHOLE) => Ok(Self(hundredths)),
            Ok(_) | Err(_) => Err(UnitError::TooLarge),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 100.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hundredths = (f64::deserialize(deserializer)? * 100.0).round();
        if !(0.0..=f64::from(WHOLE)).contains(&hundredths) {
            return Err(de::Error::custom("a percentage is a number from 0 to 100"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 10,000, as was seen"
        )]
        Ok(Self(hundredths as u16))
    }
}

/// Reads `300s`, `15m`, `500ms` or a sum such as `1h30m`.
///
/// # Errors
/// [`UnitError`], which knows what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.bytes().all(|octet| octet.is_ascii_digit()) && !text.is_empty() {
        return Err(UnitError::DurationWithoutUnit);
    }
    let mut millis = 0_u64;
    let mut rest = text;
    loop {
        let (amount, after) = leading_number(rest).ok_or(UnitError::NoDuration)??;
        let unit_length = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit_length);
        let (_, in_millis) =
            TIMES.iter().find(|(name, _)| *name == unit).ok_or(UnitError::NoDuration)?;
        millis = amount
            .checked_mul(*in_millis)
            .and_then(|part| millis.checked_add(part))
            .ok_or(UnitError::TooLarge)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
        rest = after;
    }
}

/// Reads `16MiB`, `64KiB`, `1GiB`, `512B` or a plain number of octets.
///
/// # Errors
/// [`UnitError`], which knows what to write instead.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (amount, unit) = leading_number(text).ok_or(UnitError::NoSize)??;
    let octets = match unit {
        "" => 1,
        unit => SIZES.iter().find(|(name, _)| *name == unit).ok_or(UnitError::NoSize)?.1,
    };
    amount.checked_mul(octets).ok_or(UnitError::TooLarge)
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that leaves no remainder.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    format_in(millis, TIMES.iter().rev(), "ms")
}

/// Writes a number of octets as [`parse_size`] reads it, in the largest unit that leaves no
/// remainder.
#[must_use]
pub fn format_size(octets: u64) -> String {
    format_in(octets, SIZES.iter().take(3).rev(), "B")
}

fn format_in<'u>(
    amount: u64,
    mut largest_first: impl Iterator<Item = &'u (&'u str, u64)>,
    smallest: &str,
) -> String {
    match largest_first.find(|(_, unit)| amount > 0 && amount.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", amount / unit),
        None => format!("{amount}{smallest}"),
    }
}

/// The decimal number that a text begins with and what follows; `None` without a number.
fn leading_number(text: &str) -> Option<Result<(u64, &str), UnitError>> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    (length > 0).then(|| match digits.parse() {
        Ok(number) => Ok((number, rest)),
        Err(_) => Err(UnitError::TooLarge),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit_and_in_sums() {
        for (text, millis) in [
            ("500ms", 500),
            ("0s", 0),
            ("300s", 300_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
            ("31d", 2_678_400_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_duration_are_refused() {
        for (text, error) in [
            ("", UnitError::NoDuration),
            ("300", UnitError::DurationWithoutUnit),
            ("s", UnitError::NoDuration),
            ("-1s", UnitError::NoDuration),
            ("1.5h", UnitError::NoDuration),
            ("5 s", UnitError::NoDuration),
            ("5s ", UnitError::NoDuration),
            ("5S", UnitError::NoDuration),
            ("1h30", UnitError::NoDuration),
            ("5µs", UnitError::NoDuration),
            ("99999999999999999999s", UnitError::TooLarge),
            ("9999999999999999999d", UnitError::TooLarge),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_in_binary_units_only() {
        for (text, octets) in
            [("0", 0), ("512B", 512), ("64KiB", 65_536), ("16MiB", 16 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(octets), "{text}");
        }
        for text in ["", "MiB", "16MB", "16mib", "16 MiB", "1.5GiB", "-1"] {
            assert_eq!(parse_size(text), Err(UnitError::NoSize), "{text:?}");
        }
        assert_eq!(parse_size("18446744073709551615GiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn percentages_have_up_to_two_decimals_and_end_at_the_whole() {
        for (text, hundredths) in
            [("0%", 0), ("10%", 1_000), ("0.25%", 25), ("2.5%", 250), ("100.00%", 10_000)]
        {
            assert_eq!(text.parse(), Ok(Percent(hundredths)), "{text}");
        }
        for text in ["", "%", "10", ".5%", "5.%", "0.255%", "-1%", "+1%", "1e1%", "10 %", "1.-1%"] {
            assert_eq!(text.parse::<Percent>(), Err(UnitError::NoPercentage), "{text:?}");
        }
        for text in ["100.01%", "101%", "99999999999%"] {
            assert_eq!(text.parse::<Percent>(), Err(UnitError::TooLarge), "{text}");
        }
    }

    #[test]
    fn percentages_are_numbers_in_json() {
        for hundredths in [0, 1, 25, 250, 3_333, 10_000].map(Percent) {
            let json = serde_json::to_string(&hundredths).unwrap();
            assert_eq!(serde_json::from_str::<Percent>(&json).unwrap(), hundredths, "{json}");
        }
        for json in ["-0.01", "100.01", "\"10%\"", "null"] {
            assert!(serde_json::from_str::<Percent>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for hundredths in [0, 1, 10, 100, 999, 1_050, 10_000].map(Percent) {
            assert_eq!(hundredths.to_string().parse(), Ok(hundredths));
        }
        for millis in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 900_000, 7_200_000, 2_678_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for octets in [0, 1, 1_023, 1_024, 1_536, 16 << 20, 1 << 30] {
            assert_eq!(parse_size(&format_size(octets)), Ok(octets));
        }
        assert_eq!(format_duration(Duration::from_secs(2_678_400)), "31d");
        assert_eq!(format_size(16 << 20), "16MiB");
    }
}
