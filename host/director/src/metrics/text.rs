//! Prometheus' text format 0.0.4, as far as it is written here.
//!
//! Read first: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Arguments, Display, Write};

use super::families::{Family, Kind};

/// A text that grows family by family.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// A value of a sample.
pub(super) trait Value {
    /// Writes it at the end of `text`.
    fn put(self, text: &mut String);
}

impl Value for f64 {
    fn put(self, text: &mut String) {
        put(text, format_args!("{self}"));
    }
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {
        $(impl Value for $number {
            // Most of a large scrape's time goes by here.
            fn put(self, text: &mut String) {
                text.push_str(itoa::Buffer::new().format(self));
            }
        })+
    };
}

whole_numbers!(u8, u16, u64, usize);

/// Labels with their values as they are written, for those that many families share.
#[derive(Debug)]
pub(super) struct Labels(String);

impl Labels {
    /// These labels; `names` and `values` are equally many.
    pub(super) fn new(names: &[&str], values: &[&str]) -> Self {
        let mut text = String::new();
        put_labels(&mut text, names, values);
        Self(text)
    }
}

/// The samples of one family.
#[derive(Debug)]
pub(super) struct Samples<'t> {
    text: &'t mut String,
    family: &'static Family,
}

impl Text {
    /// An empty text with room for about so many samples.
    pub(super) fn with_room(samples: usize) -> Self {
        const SAMPLE_OCTETS: usize = 96;
        Self(String::with_capacity(samples * SAMPLE_OCTETS))
    }

    /// Begins the next family. All its samples follow.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, help, .. } = family;
        let text = &mut self.0;
        put(text, format_args!("# HELP {name} "));
        for character in help.chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        put(text, format_args!("\n# TYPE {name} {kind}\n"));
        Samples { text, family }
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// A sample; `labels` are the values of the family's labels, in its order.
    pub(super) fn put(&mut self, labels: &[&str], value: impl Value) {
        self.sample("", labels, None, value);
    }

    /// A sample with labels that were written before.
    pub(super) fn put_with(&mut self, labels: &Labels, value: impl Value) {
        self.text.push_str(self.family.name);
        self.text.push('{');
        self.text.push_str(&labels.0);
        self.text.push_str("} ");
        value.put(self.text);
        self.text.push('\n');
    }

    /// A histogram: how many observations there were up to each limit, but above the one before, and
    /// the rest; and what all of them are together.
    pub(super) fn put_histogram(
        &mut self,
        labels: &[&str],
        limits: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        debug_assert_eq!(self.family.kind, Kind::Histogram);
        debug_assert_eq!(limits.len() + 1, counts.len());
        let mut count = 0;
        for (limit, of_bucket) in limits.iter().zip(counts) {
            count += of_bucket;
            self.sample("_bucket", labels, Some(limit), count);
        }
        count += counts.last().copied().unwrap_or_default();
        self.sample("_bucket", labels, Some(&"+Inf"), count);
        self.sample("_sum", labels, None, sum);
        self.sample("_count", labels, None, count);
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: &[&str],
        limit: Option<&dyn Display>,
        value: impl Value,
    ) {
        let Family { name, labels: names, .. } = self.family;
        debug_assert_eq!(labels.len(), names.len(), "{name}");
        let text = &mut *self.text;
        text.push_str(name);
        text.push_str(suffix);
        if !labels.is_empty() || limit.is_some() {
            text.push('{');
            put_labels(text, names, labels);
            if let Some(limit) = limit {
                let comma = if labels.is_empty() { "" } else { "," };
                put(text, format_args!("{comma}le=\"{limit}\""));
            }
            text.push('}');
        }
        text.push(' ');
        value.put(text);
        text.push('\n');
    }
}

/// As in `name="value",other="value"`.
fn put_labels(text: &mut String, names: &[&str], values: &[&str]) {
    for (place, (name, value)) in names.iter().zip(values).enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        put_escaped(text, value);
        text.push('"');
    }
}

fn put(text: &mut String, what: Arguments<'_>) {
    text.write_fmt(what).expect("memory takes everything");
}

/// A label's value. Most have nothing to escape.
fn put_escaped(text: &mut String, value: &str) {
    if !value.bytes().any(|octet| matches!(octet, b'\\' | b'"' | b'\n')) {
        text.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str(r"\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: Family =
        Family { name: "wvs_plain", kind: Kind::Gauge, labels: &[], help: "One \\ and\ntwo." };
    static LABELLED: Family =
        Family { name: "wvs_l_total", kind: Kind::Counter, labels: &["a", "b"], help: "H." };
    static TIMES: Family =
        Family { name: "wvs_t_seconds", kind: Kind::Histogram, labels: &["a"], help: "T." };

    #[test]
    fn samples_follow_their_family_and_are_escaped() {
        let mut text = Text::default();
        text.family(&PLAIN).put(&[], 0.5);
        let mut samples = text.family(&LABELLED);
        samples.put(&["x", "y"], u64::MAX);
        samples.put_with(&Labels::new(LABELLED.labels, &["\"", "\\\n"]), 0_u64);
        assert_eq!(
            text.into_string(),
            "# HELP wvs_plain One \\\\ and\\ntwo.\n# TYPE wvs_plain gauge\nwvs_plain 0.5\n\
             # HELP wvs_l_total H.\n# TYPE wvs_l_total counter\n\
             wvs_l_total{a=\"x\",b=\"y\"} 18446744073709551615\n\
             wvs_l_total{a=\"\\\"\",b=\"\\\\\\n\"} 0\n"
        );
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut text = Text::default();
        text.family(&TIMES).put_histogram(&["x"], &[0.000_000_064, 1.0], &[3, 0, 2], 7.5);
        assert_eq!(
            text.into_string(),
            "# HELP wvs_t_seconds T.\n# TYPE wvs_t_seconds histogram\n\
             wvs_t_seconds_bucket{a=\"x\",le=\"0.000000064\"} 3\n\
             wvs_t_seconds_bucket{a=\"x\",le=\"1\"} 3\n\
             wvs_t_seconds_bucket{a=\"x\",le=\"+Inf\"} 5\n\
             wvs_t_seconds_sum{a=\"x\"} 7.5\nwvs_t_seconds_count{a=\"x\"} 5\n"
        );
    }
}
