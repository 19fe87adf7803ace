//! TLS of checks: whom a server's certificate must come from.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use hyper::http::uri::Authority;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::check::ProbeError;
use crate::finding::Finding;

/// The longest file of certificates that is read, in octets. Those of a whole system take a quarter.
pub const CA_OCTETS_MAX: u64 = 1 << 20;

/// Whom to trust. Each check makes a full handshake: a resumed one would show no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether the certificate is verified: its chain, its time and its name.
    pub verify: bool,
    /// PEM certificates that alone are trusted; `None` for those of the system. The file is read
    /// again when it has changed.
    pub ca: Option<PathBuf>,
    /// The name that is asked for and that the certificate must have; `None` for the host of the
    /// `Host` header, or else the address that is checked.
    pub server_name: Option<ServerName<'static>>,
}

impl Default for Tls {
    /// With verification by the certificates of the system.
    fn default() -> Self {
        Self { verify: true, ca: None, server_name: None }
    }
}

impl Tls {
    pub(crate) fn probe(&self) -> Result<(), ProbeError> {
        let Some(file) = self.ca.as_deref().filter(|_| self.verify) else { return Ok(()) };
        match read_roots(file) {
            Ok(_) => Ok(()),
            Err(error) => Err(ProbeError::Ca { file: file.to_owned(), reason: error.to_string() }),
        }
    }

    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        target: SocketAddr,
        host: Option<&Authority>,
    ) -> Result<TlsStream<TcpStream>, Finding> {
        let name = self.name(target, host);
        let config = self.config().await?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| Finding::failed("tls", &error))
    }

    fn name(&self, target: SocketAddr, host: Option<&Authority>) -> ServerName<'static> {
        let of_host = || {
            let host = host?.host();
            // An IPv6 address in a header stands in brackets.
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            ServerName::try_from(bare.unwrap_or(host).to_owned()).ok()
        };
        let given = self.server_name.clone().or_else(of_host);
        given.unwrap_or_else(|| ServerName::from(target.ip()))
    }

    /// Reads files where waiting for them delays no other check.
    async fn config(&self) -> Result<Arc<ClientConfig>, Finding> {
        static UNVERIFIED: OnceLock<Arc<ClientConfig>> = OnceLock::new();

        if !self.verify {
            return Ok(Arc::clone(UNVERIFIED.get_or_init(unverified)));
        }
        let ca = self.ca.clone();
        let read = spawn_blocking(move || match ca {
            Some(file) => of_file(&file),
            None => of_system(),
        });
        match read.await {
            Ok(Ok(config)) => Ok(config),
            Ok(Err(error)) => Err(Finding::failed("certificates to trust", &error)),
            Err(error) => Err(Finding::unknown(format!("certificates to trust: {error}"))),
        }
    }
}

/// By the system's certificates, as they were at the first such check.
fn of_system() -> io::Result<Arc<ClientConfig>> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();

    if let Some(config) = SYSTEM.get() {
        return Ok(Arc::clone(config));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that no verifier takes any more.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(io::Error::other("this system has none; name a file with `ca`"));
    }
    Ok(Arc::clone(SYSTEM.get_or_init(|| verifying(roots))))
}

/// By the certificates of a file, as it is now. Checks with the same file share what was read.
fn of_file(file: &Path) -> io::Result<Arc<ClientConfig>> {
    type Known = HashMap<PathBuf, (SystemTime, u64, Arc<ClientConfig>)>;
    static FILES: OnceLock<Mutex<Known>> = OnceLock::new();

    let meta = fs::metadata(file)?;
    let (modified, length) = (meta.modified()?, meta.len());
    let mut known =
        FILES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, octets, config)) = known.get(file)
        && (*of, *octets) == (modified, length)
    {
        return Ok(Arc::clone(config));
    }
    let config = verifying(read_roots(file)?);
    known.insert(file.to_owned(), (modified, length, Arc::clone(&config)));
    Ok(config)
}

fn read_roots(file: &Path) -> io::Result<RootCertStore> {
    let mut pem = Vec::new();
    fs::File::open(file)?.take(CA_OCTETS_MAX + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > CA_OCTETS_MAX {
        return Err(io::Error::other("larger than 1MiB"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| io::Error::other(error.to_string()))?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("no certificate in it"));
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();

    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn verifying(roots: RootCertStore) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the versions that it was built with");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn unverified() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the versions that it was built with");
    let trust = Arc::new(AnyCertificate(provider()));
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(trust).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Takes every certificate, as long as the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
