//! Who is trusted to be a broker, and what to do about one that is not.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use crate::error::{Error, Result};

/// Loading them takes milliseconds, and clients may be many.
static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Certificates from PEM.
pub(super) fn parse_ca(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::Config {
            what: "the CA certificate is not one or more PEM blocks of CERTIFICATE",
        }),
    }
}

/// Trusts the system's roots and the given ones besides.
pub(super) fn config(added: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    // Systems ship certificates that rustls cannot use; what the user gave it must.
    roots.add_parsable_certificates(SYSTEM.iter().cloned());
    for certificate in added {
        roots.add(certificate.clone()).map_err(|_| Error::Config {
            what: "the CA certificate is no X.509 certificate (version 3)",
        })?;
    }
    if roots.is_empty() {
        return Err(Error::Config {
            what: "the system has no CA certificates (install ca-certificates), and none was given",
        });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites of both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What an error of TLS mostly comes from.
pub(super) fn advice(error: &rustls::Error) -> String {
    let advice = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what answers there does not speak TLS; is its address http:// ?"
        }
        // A bad signature is that of another CA of the same name.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "its certificate is of an unknown issuer; give the certificate of the CA that signed it (not the \
             broker's own)"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "its certificate is for another name; use a name that it lists, or have one made that lists this name or \
             address (subjectAltName DNS: or IP:)"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired, or this machine's clock is ahead",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet, or this machine's clock is behind",
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "its certificate is that of a CA (openssl req -x509 makes those); have the broker use one with CA:FALSE, \
             signed by a CA whose certificate is given here"
        }
        rustls::Error::InvalidCertificate(_) => "its certificate is not accepted",
        rustls::Error::AlertReceived(_) => "the other side refused it",
        _ => "TLS failed",
    };
    advice.to_owned()
}
