//! HTTPS.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use wvs_health::{Http, Kind, ProbeError, Tls};

use super::*;

/// An authority, its certificate in a file, and a certificate of its making.
struct Pki {
    folder: TempDir,
    acceptor: TlsAcceptor,
}

impl Pki {
    fn new(names: &[&str]) -> Self {
        let mut of_authority = CertificateParams::default();
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(of_authority, KeyPair::generate().unwrap()).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server that answers every request well, until the test ends.
    async fn serve(&self) -> SocketAddr {
        let (listener, address) = listen().await;
        let acceptor = self.acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 1_000]).await;
                let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(response).await;
                let _ = stream.shutdown().await;
            }
        });
        address
    }
}

fn https(tls: Tls) -> Kind {
    Kind::Http(Http { tls: Some(tls), ..Http::default() })
}

fn by(ca: &Path) -> Tls {
    Tls { ca: Some(ca.to_owned()), ..Tls::default() }
}

fn named(ca: &Path, name: &str) -> Tls {
    Tls { server_name: Some(name.to_owned().try_into().unwrap()), ..by(ca) }
}

#[tokio::test]
async fn certificate_of_a_trusted_authority_for_the_address_is_good() {
    let pki = Pki::new(&["127.0.0.1"]);
    let address = pki.serve().await;
    assert_good(&ask(https(by(&pki.ca())), address).await, "status 200");
}

#[tokio::test]
async fn certificate_must_have_the_name_that_is_asked_for() {
    let pki = Pki::new(&["www.example.org"]);
    let address = pki.serve().await;
    assert_bad(&ask(https(by(&pki.ca())), address).await, "not valid for name");
    assert_good(&ask(https(named(&pki.ca(), "www.example.org")), address).await, "status 200");
    assert_bad(&ask(https(named(&pki.ca(), "example.org")), address).await, "not valid for name");
    // The host of the header is a name, too.
    let http = Http {
        tls: Some(by(&pki.ca())),
        host: Some("www.example.org:8443".parse().unwrap()),
        ..Http::default()
    };
    assert_good(&ask(Kind::Http(http), address).await, "status 200");
}

#[tokio::test]
async fn certificate_of_another_authority_is_bad_unless_nothing_is_verified() {
    let (pki, other) = (Pki::new(&["127.0.0.1"]), Pki::new(&["127.0.0.1"]));
    let address = pki.serve().await;
    assert_bad(&ask(https(by(&other.ca())), address).await, "invalid peer certificate");
    let unverified = Tls { verify: false, ..Tls::default() };
    assert_good(&ask(https(unverified), address).await, "status 200");
    // Not even the system's authorities know this one; where there are none, none is trusted.
    let finding = ask(https(Tls::default()), address).await;
    assert_eq!(finding.outcome, Outcome::Bad, "{}", finding.reason);
}

#[tokio::test]
async fn changed_file_of_authorities_is_read_again() {
    let (pki, other) = (Pki::new(&["127.0.0.1"]), Pki::new(&["127.0.0.1"]));
    let address = pki.serve().await;
    let file = pki.folder.path().join("changing.pem");
    fs::copy(other.ca(), &file).unwrap();
    assert_bad(&ask(https(by(&file)), address).await, "invalid peer certificate");
    // Two certificates, so that the file differs in length as well.
    let both = fs::read_to_string(other.ca()).unwrap() + &fs::read_to_string(pki.ca()).unwrap();
    fs::write(&file, both).unwrap();
    assert_good(&ask(https(by(&file)), address).await, "status 200");
    fs::remove_file(&file).unwrap();
    assert_bad(&ask(https(by(&file)), address).await, "certificates to trust: No such file");
}

#[tokio::test]
async fn server_without_tls_or_one_that_never_shakes_hands_is_bad() {
    let pki = Pki::new(&["127.0.0.1"]);
    let (listener, address) = listen().await;
    let response = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1_000]).await;
        let _ = stream.write_all(&response).await;
    };
    let (finding, ()) = tokio::join!(ask(https(by(&pki.ca())), address), server);
    assert_bad(&finding, "tls: ");

    let (_listener, address) = listen().await;
    assert_bad(&ask_within(https(by(&pki.ca())), address, SHORT).await, "no answer within");
}

#[test]
fn file_without_certificates_is_told_before_any_check() {
    let folder = tempfile::tempdir().unwrap();
    let told = |tls: Tls| match https(tls).probe() {
        Ok(()) => String::new(),
        Err(error @ ProbeError::Ca { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    };
    let file = folder.path().join("ca.pem");
    assert!(told(by(&file)).contains("No such file"));
    for (content, reason) in [
        ("", "no certificate in it"),
        ("hello", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", ""),
        (&"x".repeat(2 << 20), "larger than 1MiB"),
    ] {
        fs::write(&file, content).unwrap();
        let told = told(by(&file));
        assert!(!told.is_empty() && told.contains(reason), "{content:.60}: {told}");
    }
    assert_eq!(told(by(&Pki::new(&["a.example"]).ca())), "");
    assert_eq!(told(Tls { verify: false, ..by(&file) }), "", "the file is not used");
    assert_eq!(told(Tls::default()), "");
}
