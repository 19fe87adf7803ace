//! Who is let in over TCP: whoever knows the token.

use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nix::fcntl::OFlag;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::refused::Refused;
use super::snapshot::AdminSnapshot;

/// The octets of a token. One that is shorter can be guessed.
const TOKEN_OCTETS_MIN: usize = 16;
const TOKEN_OCTETS_MAX: usize = 512;

/// The permissions that everybody has who is neither the owner nor of the group.
const OTHERS: u32 = 0o007;

/// Wrong tokens that an address may try in [`WINDOW`].
const TRIES_MAX: u32 = 10;

/// For how long wrong tokens are counted, and so for how long at most an address is locked out.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose wrong tokens are counted; the one that began first makes way.
const ADDRESSES_MAX: usize = 1_024;

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(
        "the token file {path} cannot be read: {source}; make one by `(umask 077; openssl rand -hex \
         32 > {path})`, and let the director's user read it", path = path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Everybody may read or write it.
    #[error(
        "the token file {path} has mode {mode:04o}, so it is open to everybody on this host: `chmod \
         o= {path}`", path = path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is in it cannot be sent, or guessed too easily.
    #[error(
        "the token file {path} does not hold a token of {TOKEN_OCTETS_MIN} to {TOKEN_OCTETS_MAX} \
         letters, digits and signs without spaces: make one by `(umask 077; openssl rand -hex 32 > \
         {path})`", path = path.display()
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

/// What a client has to know. Only its hash is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads it from a file that not everybody may read. A line's end behind it does not count.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        // What is written to, for ever perhaps, is no secret, and must not hold up a start: not by
        // waiting for a writer either.
        let flags = OFlag::O_NONBLOCK.bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(TokenError::NoToken { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        let mut octets = Vec::new();
        let limit = u64::try_from(TOKEN_OCTETS_MAX).unwrap_or(u64::MAX).saturating_add(2);
        file.take(limit).read_to_end(&mut octets).map_err(failed)?;
        let token = octets.trim_ascii_end();
        let is_token = (TOKEN_OCTETS_MIN..=TOKEN_OCTETS_MAX).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        if !is_token {
            return Err(TokenError::NoToken { path: path.to_owned() });
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Whether `given` is it, in a time that says nothing about where they differ.
    fn is(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.ct_eq(&given).into()
    }
}

/// What happened at the TCP listener.
#[derive(Debug, Default)]
pub struct AccessCounters {
    bad_tokens: AtomicU64,
    locked_out: AtomicU64,
}

impl From<&AccessCounters> for AdminSnapshot {
    fn from(counters: &AccessCounters) -> Self {
        Self {
            bad_tokens: counters.bad_tokens.load(Relaxed),
            locked_out: counters.locked_out.load(Relaxed),
        }
    }
}

/// Lets those in who know the token.
#[derive(Debug)]
pub(super) struct Guard {
    token: Token,
    counters: Arc<AccessCounters>,
    tries: Mutex<HashMap<IpAddr, Tries>>,
}

/// The wrong tokens of one address.
#[derive(Clone, Copy, Debug)]
struct Tries {
    count: u32,
    since: Instant,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// No token came along.
    Missing,
    /// Another one came along.
    Wrong,
    /// Too many wrong ones came from there. Which it was this time was not looked at.
    LockedOut,
}

impl Guard {
    pub(super) fn new(token: Token, counters: Arc<AccessCounters>) -> Self {
        Self { token, counters, tries: Mutex::default() }
    }

    /// Whether a request from this address with this `Authorization` is to be answered.
    pub(super) fn admit(
        &self,
        from: IpAddr,
        authorization: Option<&HeaderValue>,
    ) -> Result<(), Denial> {
        let from = network(from);
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = tries.get(&from).filter(|tries| now.duration_since(tries.since) < WINDOW);
        let before = before.copied().unwrap_or(Tries { count: 0, since: now });
        if before.count >= TRIES_MAX {
            self.counters.locked_out.fetch_add(1, Relaxed);
            return Err(Denial::LockedOut);
        }
        let given =
            authorization.and_then(|value| bearer(value.as_bytes())).ok_or(Denial::Missing)?;
        if self.token.is(given) {
            tries.remove(&from);
            return Ok(());
        }
        if !tries.contains_key(&from) && tries.len() >= ADDRESSES_MAX {
            let first = tries.iter().min_by_key(|(_, tries)| tries.since).map(|(from, _)| *from);
            first.map(|first| tries.remove(&first));
        }
        let count = before.count.saturating_add(1);
        tries.insert(from, Tries { count, since: before.since });
        self.counters.bad_tokens.fetch_add(1, Relaxed);
        if count == TRIES_MAX {
            tracing::warn!(%from, "too many wrong tokens: not listened to for a minute");
        }
        Err(Denial::Wrong)
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let (status, why, header) = match self {
            Self::Missing => (
                StatusCode::UNAUTHORIZED,
                "send the token of `admin.token_file` along, as `Authorization: Bearer TOKEN`"
                    .into(),
                (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            ),
            Self::Wrong => (
                StatusCode::UNAUTHORIZED,
                "this is not the token of `admin.token_file`".into(),
                (
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer error=\"invalid_token\""),
                ),
            ),
            Self::LockedOut => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("{TRIES_MAX} wrong tokens came from your address; wait a minute"),
                (header::RETRY_AFTER, HeaderValue::from(WINDOW.as_secs())),
            ),
        };
        ([header], Refused(status, why)).into_response()
    }
}

/// The token in `Bearer TOKEN` (RFC 6750 section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// What one party has: an IPv4 address, or 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::from(u64::MAX) << 64)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path)
    }

    fn guard() -> Guard {
        Guard::new(read(TOKEN, 0o600).unwrap(), Arc::default())
    }

    fn try_with(guard: &Guard, from: &str, authorization: &str) -> Result<(), Denial> {
        let value = HeaderValue::from_str(authorization).unwrap();
        guard.admit(from.parse().unwrap(), Some(&value))
    }

    #[test]
    fn token_is_what_the_file_holds_without_the_end_of_its_line() {
        for text in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("{TOKEN} \r\n")] {
            assert!(read(&text, 0o640).unwrap().is(TOKEN.as_bytes()));
        }
        assert!(!read(TOKEN, 0o600).unwrap().is(b"0123456789abcdeF"));
        assert!(!read(TOKEN, 0o600).unwrap().is(b""));
    }

    #[test]
    fn file_that_everybody_may_read_or_write_is_refused() {
        for mode in [0o604, 0o602, 0o644, 0o666] {
            let error = read(TOKEN, mode).unwrap_err();
            assert!(matches!(error, TokenError::Open { .. }), "{error}");
            assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
        }
    }

    #[test]
    fn file_without_a_token_is_refused() {
        let long = "x".repeat(TOKEN_OCTETS_MAX + 1);
        for text in ["", "\n", "too short", "0123456789 abcdef", "0123456789abcdé", &long] {
            let error = read(text, 0o600).unwrap_err();
            assert!(matches!(error, TokenError::NoToken { .. }), "{text:?}: {error}");
        }
        assert!(read(&"x".repeat(TOKEN_OCTETS_MAX), 0o600).is_ok());
        let error = Token::read(Path::new("/nowhere/token")).unwrap_err();
        assert!(error.to_string().contains("openssl rand -hex 32 > /nowhere/token"), "{error}");
        assert!(matches!(Token::read(Path::new("/dev")), Err(TokenError::NoToken { .. })));
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("token");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Token::read(&pipe), Err(TokenError::NoToken { .. })));
    }

    #[test]
    fn debugging_does_not_show_the_token() {
        assert_eq!(format!("{:?}", read(TOKEN, 0o600).unwrap()), "Token");
    }

    #[tokio::test(start_paused = true)]
    async fn right_token_is_let_in_in_every_spelling_and_nothing_else() {
        let guard = guard();
        for authorization in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}")] {
            assert_eq!(try_with(&guard, "10.0.0.1", &authorization), Ok(()));
        }
        for (authorization, denial) in [
            (format!("Basic {TOKEN}"), Denial::Missing),
            (TOKEN.to_owned(), Denial::Missing),
            ("Bearer".to_owned(), Denial::Missing),
            ("Bearer ".to_owned(), Denial::Wrong),
            (format!("Bearer {TOKEN}0"), Denial::Wrong),
        ] {
            assert_eq!(
                try_with(&guard, "10.0.0.1", &authorization),
                Err(denial),
                "{authorization}"
            );
        }
        assert_eq!(guard.admit("10.0.0.1".parse().unwrap(), None), Err(Denial::Missing));
        assert_eq!(AdminSnapshot::from(&*guard.counters).bad_tokens, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn address_with_too_many_wrong_tokens_is_locked_out_for_a_minute_and_no_other() {
        let guard = guard();
        for (from, beside, other) in
            [("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2", "fd00:0:0:1::1")]
        {
            for _ in 0..TRIES_MAX {
                assert_eq!(try_with(&guard, from, "Bearer wrong"), Err(Denial::Wrong));
            }
            let right = format!("Bearer {TOKEN}");
            for from in [from, beside] {
                assert_eq!(try_with(&guard, from, &right), Err(Denial::LockedOut));
            }
            assert_eq!(try_with(&guard, other, &right), Ok(()));
            tokio::time::advance(WINDOW).await;
            assert_eq!(try_with(&guard, from, &right), Ok(()));
        }
        let counted = AdminSnapshot::from(&*guard.counters);
        assert_eq!((counted.bad_tokens, counted.locked_out), (2 * u64::from(TRIES_MAX), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn right_token_makes_wrong_ones_forgotten() {
        let guard = guard();
        for _ in 0..3 {
            for _ in 1..TRIES_MAX {
                assert_eq!(try_with(&guard, "10.0.0.1", "Bearer wrong"), Err(Denial::Wrong));
            }
            assert_eq!(try_with(&guard, "10.0.0.1", &format!("Bearer {TOKEN}")), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_are_remembered_are_bounded() {
        let guard = guard();
        for number in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            let from = std::net::Ipv4Addr::from_bits(number).to_string();
            assert_eq!(try_with(&guard, &from, "Bearer wrong"), Err(Denial::Wrong));
        }
        assert_eq!(guard.tries.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
