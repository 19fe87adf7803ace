//! Whether a name server answers.
//!
//! One question and the first lines of its answer, so written here: what a resolver library brings
//! along beyond that is many times the size of everything else that checks need.

use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::finding::Finding;
use crate::udp;

const HEADER_OCTETS: usize = 12;
const LABEL_OCTETS_MAX: usize = 63;
const NAME_OCTETS_MAX: usize = 255;
const CLASS_IN: u16 = 1;

/// Recursion desired, and nothing else: a standard query.
const QUERY_FLAGS: u16 = 0x0100;
/// The bits that say response (1) and standard query (0000).
const RESPONSE_MASK: u16 = 0xF800;
const RESPONSE: u16 = 0x8000;

/// The response codes that are told by name (RFC 1035 section 4.1.1).
const RESPONSE_CODES: [&str; 6] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// A question to ask a name server over UDP.
///
/// `NOERROR` and `NXDOMAIN` are good: either way the server has looked, and can say. `SERVFAIL`,
/// `REFUSED` and every other code are bad, and so is anything that does not answer this question.
/// The records of an answer are not read; a truncated answer is an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The name to ask for.
    pub name: DnsName,
    /// The type of its records.
    pub record: RecordType,
}

/// A domain name as it travels: labels with their lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName(Vec<u8>);

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DnsNameError {
    /// Two dots in a row, or nothing at all.
    #[error("has an empty label")]
    Empty,
    /// A label of more than 63 octets.
    #[error("has a label of more than 63 octets")]
    Label,
    /// More than 255 octets on the wire.
    #[error("is longer than 255 octets")]
    Name,
    /// Something else than letters, digits, hyphens and underscores.
    #[error("has characters that are no letters, digits, `-` or `_`")]
    Character,
}

/// The type of DNS records, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordType {
    /// An IPv4 address.
    A = 1,
    /// A name server.
    Ns = 2,
    /// Another name.
    Cname = 5,
    /// The start of a zone; every name server has one for its zones.
    Soa = 6,
    /// A name for an address.
    Ptr = 12,
    /// A mail server.
    Mx = 15,
    /// Text.
    Txt = 16,
    /// An IPv6 address.
    Aaaa = 28,
    /// A service.
    Srv = 33,
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    /// Reads `example.org`, `example.org.` or `.` for the root.
    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        let mut wire = Vec::new();
        if text != "." {
            for label in text.strip_suffix('.').unwrap_or(text).split('.') {
                let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
                match u8::try_from(label.len()) {
                    Ok(0) => return Err(DnsNameError::Empty),
                    _ if !label.bytes().all(is_plain) => return Err(DnsNameError::Character),
                    Ok(length) if usize::from(length) <= LABEL_OCTETS_MAX => wire.push(length),
                    _ => return Err(DnsNameError::Label),
                }
                wire.extend(label.bytes());
            }
        }
        wire.push(0);
        if wire.len() > NAME_OCTETS_MAX {
            return Err(DnsNameError::Name);
        }
        Ok(Self(wire))
    }
}

impl RecordType {
    /// Every one that can be asked for, by its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
    ];
}

impl Default for Dns {
    /// Who is responsible for the root: any name server knows, or says that it will not tell.
    fn default() -> Self {
        Self { name: DnsName(vec![0]), record: RecordType::Soa }
    }
}

impl Dns {
    pub(crate) async fn ask(&self, target: SocketAddr) -> Finding {
        let id = fastrand::u16(..);
        match udp::exchange(target, &self.query(id)).await {
            Ok(answer) => self.judge(id, &answer),
            Err(error) => Finding::failed("dns", &error),
        }
    }

    fn query(&self, id: u16) -> Vec<u8> {
        let questions = 1_u16;
        let mut query = Vec::with_capacity(HEADER_OCTETS + NAME_OCTETS_MAX + 4);
        for number in [id, QUERY_FLAGS, questions, 0, 0, 0] {
            query.extend(number.to_be_bytes());
        }
        query.extend(self.question());
        query
    }

    fn question(&self) -> Vec<u8> {
        let mut question = self.name.0.clone();
        question.extend((self.record as u16).to_be_bytes());
        question.extend(CLASS_IN.to_be_bytes());
        question
    }

    fn judge(&self, id: u16, answer: &[u8]) -> Finding {
        let number = |at: usize| match answer.get(at..at + 2) {
            Some([high, low]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        };
        let (Some(answered), Some(flags), Some(1)) = (number(0), number(2), number(4)) else {
            return Finding::bad("no DNS answer to one question");
        };
        let question = self.question();
        let repeated = answer.get(HEADER_OCTETS..HEADER_OCTETS + question.len());
        if answered != id
            || flags & RESPONSE_MASK != RESPONSE
            || !repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(&question))
        {
            return Finding::bad("no DNS answer to the question asked");
        }
        let code = flags & 0xF;
        let name = RESPONSE_CODES
            .get(usize::from(code))
            .map_or_else(|| format!("response code {code}"), |name| (*name).to_owned());
        if matches!(code, NOERROR | NXDOMAIN) { Finding::good(name) } else { Finding::bad(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Outcome;

    #[test]
    fn name_is_labels_with_their_lengths() {
        let wire = |text: &str| text.parse::<DnsName>().map(|DnsName(wire)| wire);
        assert_eq!(wire("."), Ok(vec![0]));
        assert_eq!(wire("a.bc"), Ok(b"\x01a\x02bc\0".to_vec()));
        assert_eq!(wire("a.bc."), wire("a.bc"));
        assert_eq!(wire("_dns.ex-1.org"), Ok(b"\x04_dns\x04ex-1\x03org\0".to_vec()));
        for (text, error) in [
            ("", DnsNameError::Empty),
            ("..", DnsNameError::Empty),
            ("a..b", DnsNameError::Empty),
            (".a", DnsNameError::Empty),
            ("a b", DnsNameError::Character),
            ("käse.de", DnsNameError::Character),
        ] {
            assert_eq!(wire(text), Err(error), "{text:?}");
        }
        let label = "x".repeat(63);
        assert!(wire(&label).is_ok());
        assert_eq!(wire(&format!("{label}x")), Err(DnsNameError::Label));
        assert_eq!(wire(&"x".repeat(300)), Err(DnsNameError::Label));
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        assert_eq!(wire(&longest).map(|wire| wire.len()), Ok(255));
        assert_eq!(wire(&format!("{longest}x")), Err(DnsNameError::Name));
    }

    /// The query of RFC 1035's making for `a.bc`, type SOA, written out by hand.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x06\0\x01";

    fn dns() -> Dns {
        Dns { name: "a.bc".parse().unwrap(), record: RecordType::Soa }
    }

    #[test]
    fn query_is_the_octets_that_the_standard_says() {
        assert_eq!(dns().query(0x1234), QUERY);
    }

    #[test]
    fn answer_is_judged_by_its_code() {
        for (code, outcome, reason) in [
            (0, Outcome::Good { weight: None }, "NOERROR"),
            (1, Outcome::Bad, "FORMERR"),
            (2, Outcome::Bad, "SERVFAIL"),
            (3, Outcome::Good { weight: None }, "NXDOMAIN"),
            (5, Outcome::Bad, "REFUSED"),
            (9, Outcome::Bad, "response code 9"),
        ] {
            let mut answer = QUERY.to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80 | code;
            let finding = dns().judge(0x1234, &answer);
            assert_eq!((finding.outcome, finding.reason.as_str()), (outcome, reason));
        }
    }

    #[test]
    fn anything_but_an_answer_to_this_question_is_bad() {
        let mut good = QUERY.to_vec();
        good[2] |= 0x80;
        assert_eq!(dns().judge(0x1234, &good).outcome, Outcome::Good { weight: None });
        assert_eq!(dns().judge(0x1234, QUERY).outcome, Outcome::Bad, "the question itself");
        assert_eq!(dns().judge(0x1235, &good).outcome, Outcome::Bad, "another id");
        for length in 0..good.len() {
            assert_eq!(dns().judge(0x1234, &good[..length]).outcome, Outcome::Bad, "{length}");
        }
        for place in [0, 1, 2, 4, 5, 13, 15, 19, 21] {
            let mut answer = good.clone();
            answer[place] ^= 0x08;
            assert_eq!(dns().judge(0x1234, &answer).outcome, Outcome::Bad, "octet {place}");
        }
    }
}
