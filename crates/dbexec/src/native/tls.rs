//! TLS as libpq does it, or stricter: what is asked for by `sslmode`, root and client certificates
//! and revocation lists.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::NativeError;
use crate::creds::{SslMode, TlsOptions};

/// `SSLRequest` of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How TLS is to be spoken with one host.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Whether a server without TLS is refused.
    pub(super) required: bool,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What TLS options mean for a host; `None` for no TLS at all.
pub(super) fn plan(options: &TlsOptions, host: &str) -> Result<Option<Plan>, NativeError> {
    let mode = options.mode.unwrap_or(SslMode::Prefer);
    if mode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let chain = chain(options, mode, &provider)?;
    let verifier = Arc::new(Verifier {
        chain,
        names: mode == SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match client(options)? {
        Some((certificates, key)) => config
            .with_client_auth_cert(certificates, key)
            .map_err(|error| NativeError::unsupported(format!("the client key: {error}")))?,
        None => config.with_no_client_auth(),
    };
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::IpAddress(address.into()),
        Err(_) => ServerName::try_from(host.to_owned())
            .map_err(|_| NativeError::unsupported(format!("TLS with a host called {host:?}")))?,
    };
    Ok(Some(Plan {
        required: matches!(
            mode,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull
        ),
        config: Arc::new(config),
        name,
    }))
}

/// What checks the server's chain. A root certificate that is named is used in every mode, as libpq
/// does; without one the modes that verify cannot be had.
fn chain(
    options: &TlsOptions,
    mode: SslMode,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, NativeError> {
    let Some(path) = &options.root_cert else {
        if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            return Err(failed(format!(
                "sslmode={} without a root certificate",
                mode.as_str()
            )));
        }
        if options.crl.is_some() {
            return Err(NativeError::unsupported(
                "a revocation list without a root certificate",
            ));
        }
        return Ok(None);
    };
    if path.as_os_str() == "system" {
        return Err(NativeError::unsupported("sslrootcert=system"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &options.crl {
        let lists = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(format!("{}: {error}", path.display())))?;
        if lists.is_empty() {
            return Err(failed(format!("{} holds no list", path.display())));
        }
        // As OpenSSL: the whole chain, and a list that is out of date is of no use.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    let verifier = builder
        .build()
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    Ok(Some(verifier))
}

/// Certificate and key of the client.
fn client(
    options: &TlsOptions,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, NativeError> {
    match (&options.cert, &options.key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            private(key)?;
            let certificates = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| {
                NativeError::unsupported(format!(
                    "the client key {} (encrypted, or of an unknown kind)",
                    key.display()
                ))
            })?;
            Ok(Some((certificates, key)))
        }
        _ => Err(NativeError::unsupported(
            "a client certificate without its key, or a key without its certificate",
        )),
    }
}

/// Refuses a key that others may read, as libpq does.
fn private(key: &Path) -> Result<(), NativeError> {
    let about = |what: String| failed(format!("{}: {what}", key.display()));
    let metadata = fs::metadata(key).map_err(|error| about(error.to_string()))?;
    let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
    if metadata.mode() & 0o777 & !(allowed | 0o100) != 0 {
        return Err(about("others may read this key".to_owned()));
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NativeError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    if list.is_empty() {
        return Err(failed(format!("{} holds no certificate", path.display())));
    }
    Ok(list)
}

impl Plan {
    /// Asks the server for TLS and makes the handshake. The plain connection comes back when the
    /// server has no TLS and that is allowed.
    pub(super) async fn negotiate(
        &self,
        mut plain: TcpStream,
    ) -> Result<Result<Box<TlsStream<TcpStream>>, TcpStream>, NativeError> {
        let broken = |source| NativeError::Io {
            operation: "asking for TLS",
            source,
        };
        plain.write_all(&SSL_REQUEST).await.map_err(broken)?;
        // One byte and no more: what follows must have come through the handshake.
        match plain.read_u8().await.map_err(broken)? {
            b'S' => {}
            b'N' if !self.required => return Ok(Err(plain)),
            b'N' => return Err(failed("the server does not speak TLS".to_owned())),
            _ => return Err(failed("the server does not know of TLS".to_owned())),
        }
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaken = connector.connect(self.name.clone(), plain).await;
        shaken
            .map(|stream| Ok(Box::new(stream)))
            .map_err(|error| failed(error.to_string()))
    }
}

/// `tls-server-end-point` of a connection: the hash of the server's certificate, with the hash
/// function of its signature (RFC 5929). `None` where the signature names none.
pub(super) fn end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    end_point_hash(certificate)
}

fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match signature_oid(certificate)? {
        // MD5 and SHA-1 are replaced by SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => Sha256::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => Sha384::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => Sha512::digest(certificate).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1] => Sha224::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// Object identifier of a certificate's signature: `SEQUENCE { tbs, SEQUENCE { OID, … }, … }`.
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    let (whole, _) = element(certificate, 0x30)?;
    let (_, rest) = element(whole, 0x30)?;
    let (algorithm, _) = element(rest, 0x30)?;
    Some(element(algorithm, 0x06)?.0)
}

/// Content of a DER element with this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first & 0x7f);
    if first & 0x80 != 0 {
        let count = length;
        if !(1..=4).contains(&count) || rest.len() < count {
            return None;
        }
        length = rest[..count]
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        rest = &rest[count..];
    }
    (found == tag && rest.len() >= length).then(|| rest.split_at(length))
}

fn failed(message: String) -> NativeError {
    NativeError::Tls { message }
}

/// Checks as much of the server's certificate as `sslmode` asks for. The handshake's signature is
/// always checked: the other side holds the certificate's key.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    names: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let checked =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last: the chain is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_certificates_have_no_signature() {
        // SEQUENCE { SEQUENCE {}, SEQUENCE { OID ecdsa-with-SHA384 } }
        let oid = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
        let mut whole = vec![0x30, 14, 0x30, 0, 0x30, 10];
        whole.extend_from_slice(&oid);
        assert_eq!(signature_oid(&whole), Some(&oid[2..]));
        assert_eq!(end_point_hash(&whole).map(|hash| hash.len()), Some(48));
        for cut in 0..whole.len() {
            assert_eq!(signature_oid(&whole[..cut]), None);
        }
        assert_eq!(element(&[0x30, 0x85, 1, 1, 1, 1, 1], 0x30), None);
    }

    #[test]
    fn what_verifies_needs_a_root() {
        let with = |mode| TlsOptions {
            mode: Some(mode),
            ..TlsOptions::default()
        };
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            assert!(plan(&with(mode), "h").is_err());
        }
        assert!(plan(&with(SslMode::Disable), "h").expect("none").is_none());
        let required = |mode| {
            plan(&with(mode), "h")
                .expect("a plan")
                .map(|plan| plan.required)
        };
        assert_eq!(required(SslMode::Require), Some(true));
        assert_eq!(required(SslMode::Prefer), Some(false));
    }
}
