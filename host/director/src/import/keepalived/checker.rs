//! keepalived's checkers as checks of ours.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hyper::http::uri::{Authority, PathAndQuery};
use wvs_health::RecordType;

use super::syntax::Statement;
use crate::config::health::{
    ARGUMENT_OCTETS_MAX, ARGUMENTS_MAX, IN_ROW, INTERVAL, TEXT_OCTETS_MAX, TIMEOUT,
};
use crate::config::units::format_duration;
use crate::import::Note;
use crate::import::rules::{Check, Health, HttpCheck, Start};

/// What keepalived does where nothing is said.
const DELAY_LOOP: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: u32 = 1;
const RETRY_DNS: u32 = 3;
const RETRY_MISC: u32 = 0;

/// What is said of checking on the way to a checker: virtual server, real server, checker.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    delay_loop: Option<Duration>,
    connect_timeout: Option<Duration>,
    retry: Option<u32>,
    start: Option<Start>,
    virtual_host: Option<String>,
}

/// The name of a checker's block, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    Https,
    Smtp,
    Dns,
    Misc,
    Udp,
    /// What WVS has nothing like.
    Foreign,
}

const KINDS: [(&str, Kind); 10] = [
    ("TCP_CHECK", Kind::Tcp),
    ("HTTP_GET", Kind::Http),
    ("SSL_GET", Kind::Https),
    ("SMTP_CHECK", Kind::Smtp),
    ("DNS_CHECK", Kind::Dns),
    ("MISC_CHECK", Kind::Misc),
    ("UDP_CHECK", Kind::Udp),
    ("PING_CHECK", Kind::Foreign),
    ("BFD_CHECK", Kind::Foreign),
    ("FILE_CHECK", Kind::Foreign),
];

/// Whether a statement begins a checker.
pub(super) fn is_checker(statement: &Statement) -> bool {
    KINDS.iter().any(|(name, _)| *name == statement.keyword())
}

impl Settings {
    /// Takes a statement that any level can have; `false` when it is none of these.
    pub(super) fn take(&mut self, statement: &Statement, notes: &mut Vec<Note>) -> bool {
        let value = statement.value();
        match statement.keyword() {
            "delay_loop" => self.delay_loop = time(statement, &INTERVAL, notes),
            "connect_timeout" => self.connect_timeout = time(statement, &TIMEOUT, notes),
            "retry" | "nb_get_retry" => match value.parse::<u32>() {
                // One failure more than that.
                Ok(retry) if u64::from(retry) < *IN_ROW.end() => self.retry = Some(retry),
                _ => {
                    let what = format!("no number below {}; left out", IN_ROW.end());
                    notes.push(statement.note(&what));
                }
            },
            "alpha" => self.start = super::is_on(value).then_some(Start::Down),
            "virtualhost" if is_host(value) => self.virtual_host = Some(value.to_owned()),
            "virtualhost" => notes.push(statement.note("no name of a host; left out")),
            "delay_before_retry" => {
                let what = "WVS also checks at `interval` after a failure; left out";
                notes.push(statement.note(what));
            }
            "warmup" => {
                let what = "WVS spreads first checks by itself; left out";
                notes.push(statement.note(what));
            }
            "log_all_failures" => {}
            _ => return false,
        }
        true
    }
}

fn time(
    statement: &Statement,
    range: &RangeInclusive<Duration>,
    notes: &mut Vec<Note>,
) -> Option<Duration> {
    let time = seconds(statement.value()).filter(|time| range.contains(time));
    if time.is_none() {
        let [least, most] = [*range.start(), *range.end()].map(format_duration);
        notes.push(statement.note(&format!("no time from {least} to {most}; left out")));
    }
    time
}

/// Seconds with up to three decimals that count.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let digits: String = decimals.chars().chain("000".chars()).take(3).collect();
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let millis: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(whole.checked_mul(1_000)?.checked_add(millis)?))
}

/// The check that a checker's block stands for; `None` when WVS has nothing like it, which is noted
/// like everything else that cannot come over.
pub(super) fn read(
    block: &Statement,
    settings: &Settings,
    notes: &mut Vec<Note>,
) -> Option<Health> {
    let (_, kind) = KINDS.iter().find(|(name, _)| *name == block.keyword())?;
    let mut reader = Reader {
        settings: settings.clone(),
        address: None,
        port: None,
        timeout: None,
        details: Vec::new(),
        notes,
    };
    reader.take_common(block.statements());
    let check = match kind {
        Kind::Foreign => {
            reader.notes.push(block.note("WVS has no such check; left out"));
            return None;
        }
        Kind::Tcp => {
            reader.note_rest();
            Check::Tcp
        }
        Kind::Smtp => {
            reader.notes.push(block.note("WVS speaks no SMTP; its port is only connected to"));
            reader.note_rest();
            Check::Tcp
        }
        Kind::Http => Check::Http(reader.http(false)),
        Kind::Https => Check::Http(reader.http(true)),
        Kind::Dns => reader.dns(),
        Kind::Misc => match reader.misc() {
            Some(check) => check,
            None => {
                reader.notes.push(block.note("no `misc_path` that could be run; left out"));
                return None;
            }
        },
        Kind::Udp => reader.udp(),
    };
    let Settings { delay_loop, connect_timeout, retry, start, .. } = reader.settings;
    let interval = delay_loop.unwrap_or(DELAY_LOOP);
    let (default_timeout, default_retry) = match kind {
        Kind::Misc => (interval, RETRY_MISC),
        Kind::Dns => (CONNECT_TIMEOUT, RETRY_DNS),
        _ => (CONNECT_TIMEOUT, RETRY),
    };
    let connect_timeout = connect_timeout.filter(|_| *kind != Kind::Misc);
    Some(Health {
        check,
        address: reader.address,
        port: reader.port,
        interval,
        timeout: reader.timeout.or(connect_timeout).unwrap_or(default_timeout).min(*TIMEOUT.end()),
        fall: retry.unwrap_or(default_retry) + 1,
        start,
    })
}

struct Reader<'s, 'n> {
    settings: Settings,
    address: Option<IpAddr>,
    port: Option<u16>,
    timeout: Option<Duration>,
    /// What only this kind of checker has.
    details: Vec<&'s Statement>,
    notes: &'n mut Vec<Note>,
}

impl<'s> Reader<'s, '_> {
    /// Takes what every checker can have, and puts aside the rest.
    fn take_common(&mut self, statements: &'s [Statement]) {
        for statement in statements {
            let value = statement.value();
            match statement.keyword() {
                _ if super::note_dependence(statement, self.notes) => {}
                "connect_ip" => {
                    self.address = value.parse().ok();
                    if self.address.is_none() {
                        self.notes.push(statement.note("no address; left out"));
                    }
                }
                "connect_port" => {
                    self.port = value.parse().ok().filter(|port| *port != 0);
                    if self.port.is_none() {
                        self.notes.push(statement.note("no port; left out"));
                    }
                }
                "bindto" | "bind_if" | "bind_port" | "fwmark" => {
                    self.notes
                        .push(statement.note("checks leave as the kernel routes them; left out"));
                }
                _ if self.settings.take(statement, self.notes) => {}
                _ => self.details.push(statement),
            }
        }
    }

    /// Notes what of the details nobody asked for.
    fn note_rest(&mut self) {
        for statement in std::mem::take(&mut self.details) {
            self.notes.push(statement.note("no equivalent; left out"));
        }
    }

    /// The last detail with this keyword.
    fn detail(&mut self, keyword: &str) -> Option<&'s Statement> {
        let mut found = None;
        self.details.retain(|statement| {
            let is_it = statement.keyword() == keyword;
            if is_it {
                found = Some(*statement);
            }
            !is_it
        });
        found
    }

    fn http(&mut self, is_tls: bool) -> HttpCheck {
        let mut http = HttpCheck { is_tls, ..HttpCheck::default() };
        http.host.clone_from(&self.settings.virtual_host);
        let (urls, details) = std::mem::take(&mut self.details)
            .into_iter()
            .partition::<Vec<_>, _>(|statement| statement.keyword() == "url");
        self.details = details;
        if let Some((first, others)) = urls.split_first() {
            self.url(first, &mut http);
            for other in others {
                let what = "a server has one check; only the first `url` came over";
                self.notes.push(other.note(what));
            }
        }
        if let Some(statement) = self.detail("sni_name") {
            http.server_name = self.good(statement, is_server_name);
        }
        // The name of the site goes along anyway.
        self.detail("enable_sni");
        self.note_rest();
        http
    }

    fn url(&mut self, url: &Statement, http: &mut HttpCheck) {
        for statement in url.statements() {
            let value = statement.value();
            match statement.keyword() {
                _ if super::note_dependence(statement, self.notes) => {}
                "path" => http.path = self.good(statement, is_path),
                "virtualhost" => http.host = self.good(statement, is_host),
                "status_code" => {
                    let codes = statement.values().map(status_codes).collect::<Option<Vec<_>>>();
                    match codes {
                        Some(codes) => http.expect = codes,
                        None => self.notes.push(statement.note("no status codes; left out")),
                    }
                }
                "regex" if is_literal(value) => http.body = self.good(statement, is_short),
                "regex" => {
                    let what = "WVS looks for a text (`body`), not a pattern; left out";
                    self.notes.push(statement.note(what));
                }
                "digest" => {
                    let what = "WVS looks for a text (`body`), not a digest; left out";
                    self.notes.push(statement.note(what));
                }
                _ => self.notes.push(statement.note("no equivalent; left out")),
            }
        }
    }

    fn dns(&mut self) -> Check {
        let name = self.detail("name").and_then(|statement| self.good(statement, is_domain));
        let kind = self.detail("type").and_then(|statement| self.good(statement, is_record));
        self.note_rest();
        Check::Dns {
            name: name.unwrap_or_else(|| ".".to_owned()),
            kind: kind.unwrap_or_else(|| "SOA".to_owned()),
        }
    }

    /// The value of a statement, if it is good.
    fn good(&mut self, statement: &Statement, is_good: impl Fn(&str) -> bool) -> Option<String> {
        let value = statement.value();
        if !is_good(value) {
            self.notes.push(statement.note("WVS takes no such value; left out"));
        }
        is_good(value).then(|| value.to_owned())
    }

    fn misc(&mut self) -> Option<Check> {
        let path = self.detail("misc_path")?;
        let run = match &path.words[..] {
            [_, command] => split_command(command),
            [_, words @ ..] => words.to_vec(),
            [] => Vec::new(),
        };
        if let Some(statement) = self.detail("misc_timeout") {
            self.timeout = time(statement, &TIMEOUT, self.notes);
        }
        let sets_weight =
            self.detail("misc_dynamic").is_some_and(|statement| super::is_on(statement.value()));
        if let Some(statement) = self.detail("user") {
            self.notes.push(statement.note("programs run as the director's own user; left out"));
        }
        self.note_rest();
        let is_good = run.first().is_some_and(|program| !program.is_empty())
            && run.len() <= ARGUMENTS_MAX
            && run.iter().all(|word| word.len() <= ARGUMENT_OCTETS_MAX);
        is_good.then_some(Check::Command { run, sets_weight })
    }

    fn udp(&mut self) -> Check {
        let hex = |reader: &mut Self, keyword| {
            let statement: &Statement = reader.detail(keyword)?;
            let digits: String = statement.values().collect();
            let is_hex = (1..=2 * TEXT_OCTETS_MAX).contains(&digits.len())
                && digits.len().is_multiple_of(2)
                && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
            if !is_hex {
                let what = "not just hexadecimal octets; left out";
                reader.notes.push(statement.note(what));
            }
            is_hex.then_some(digits)
        };
        let send_hex = hex(self, "payload");
        let expect_hex = hex(self, "require_reply");
        self.note_rest();
        Check::Udp { send_hex, expect_hex }
    }
}

/// `200`, or `200-299`.
fn status_codes(written: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
    let (first, last) = (code(first)?, code(last)?);
    (first <= last).then_some(first..=last)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.parse::<PathAndQuery>().is_ok()
}

fn is_host(text: &str) -> bool {
    text.parse::<Authority>().is_ok() && !text.contains('@')
}

fn is_short(text: &str) -> bool {
    text.len() <= TEXT_OCTETS_MAX
}

fn is_record(text: &str) -> bool {
    RecordType::ALL.iter().any(|(name, _)| *name == text)
}

/// The name of a server for TLS: of a domain, or an address.
fn is_server_name(text: &str) -> bool {
    let is_number = |label: &str| label.bytes().all(|octet| octet.is_ascii_digit());
    text.parse::<IpAddr>().is_ok()
        || text != "." && is_domain(text) && !text.rsplit('.').next().is_some_and(is_number)
}

/// The name of a domain, the root's among them.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text == "." || text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether a pattern matches itself and nothing else.
fn is_literal(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.contains(|c: char| r"\.[]{}()*+?|^$".contains(c))
}

/// The words of a command line; those in quotes of either kind are one.
fn split_command(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_decimals() {
        for (written, millis) in [
            ("6", Some(6_000)),
            ("0.5", Some(500)),
            (".25", Some(250)),
            ("1.23456", Some(1_234)),
            ("", Some(0)),
        ] {
            assert_eq!(seconds(written), millis.map(Duration::from_millis), "{written}");
        }
        for written in ["x", "-1", "1.x", "1.2.3", "99999999999999999999"] {
            assert_eq!(seconds(written), None, "{written}");
        }
    }

    #[test]
    fn command_lines_are_split_at_spaces_outside_quotes() {
        assert_eq!(
            split_command("/bin/check -a  'b c' \"d 'e\" ''"),
            ["/bin/check", "-a", "b c", "d 'e", ""]
        );
        assert_eq!(split_command(" "), [""; 0]);
    }
}
