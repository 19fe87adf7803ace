//! What one check found.

use std::error::Error;
use std::io;
use std::time::Duration;

use nix::errno::Errno;

/// Characters of a reason; a certificate alone can name a hundred hosts.
const REASON_CHARACTERS_MAX: usize = 200;

/// What one check says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers as it should.
    Good {
        /// The weight that a command gives it, 0 to 253; `None` for the configured one.
        weight: Option<u32>,
    },
    /// It does not.
    Bad,
    /// The director's host could not ask, for want of descriptors, ports, memory or processes.
    /// That is no fault of the server's, and would befall all of them at once.
    Unknown,
}

/// The outcome of a check and, for people, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it says of the server.
    pub outcome: Outcome,
    /// In one line of at most 200 characters, without control characters.
    pub reason: String,
}

impl Finding {
    pub(crate) fn good(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Good { weight: None }, reason.into())
    }

    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Bad, reason.into())
    }

    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Self::new(Outcome::Unknown, reason.into())
    }

    pub(crate) fn new(outcome: Outcome, reason: String) -> Self {
        let reason = reason
            .chars()
            .take(REASON_CHARACTERS_MAX)
            .map(|character| if character.is_control() { '\u{fffd}' } else { character })
            .collect();
        Self { outcome, reason }
    }

    pub(crate) fn late(timeout: Duration) -> Self {
        Self::bad(format!("no answer within {timeout:?}"))
    }

    /// That `what` failed: by the server's doing, unless the director's host was short of something.
    pub(crate) fn failed(what: &str, error: &(dyn Error + 'static)) -> Self {
        let mut reason = format!("{what}: {error}");
        let mut is_ours = false;
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<io::Error>();
            is_ours |= io.and_then(io::Error::raw_os_error).is_some_and(is_want_of_means);
            cause = error.source();
            if let Some(cause) = cause {
                let cause = cause.to_string();
                if !reason.ends_with(&cause) {
                    reason = format!("{reason}: {cause}");
                }
            }
        }
        if is_ours { Self::unknown(reason) } else { Self::bad(reason) }
    }
}

/// Whether a system call failed for something that the director's own host ran out of.
fn is_want_of_means(errno: i32) -> bool {
    matches!(
        Errno::from_raw(errno),
        Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::EAGAIN
            | Errno::EADDRNOTAVAIL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_ports_or_memory_is_no_fault_of_the_server() {
        for (errno, outcome) in [
            (Errno::EMFILE, Outcome::Unknown),
            (Errno::EADDRNOTAVAIL, Outcome::Unknown),
            (Errno::ENOMEM, Outcome::Unknown),
            (Errno::ECONNREFUSED, Outcome::Bad),
            (Errno::EHOSTUNREACH, Outcome::Bad),
            (Errno::ENETUNREACH, Outcome::Bad),
        ] {
            let error = io::Error::from_raw_os_error(errno as i32);
            assert_eq!(Finding::failed("connect", &error).outcome, outcome, "{errno}");
        }
    }

    #[test]
    fn reason_is_one_line_of_bounded_length() {
        let reason = Finding::bad(format!("a\r\n\u{1b}[2J{}", "x".repeat(1_000))).reason;
        assert_eq!(reason.chars().count(), REASON_CHARACTERS_MAX);
        assert!(reason.starts_with("a\u{fffd}\u{fffd}\u{fffd}[2J"), "{reason}");
    }
}
