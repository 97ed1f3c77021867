//! The broker's certificate: given, or made for loopback addresses.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// What the broker shows, and whom to trust so as to believe it.
pub(super) struct Identity {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// PEM of the authority, where one was made.
    pub(super) ca: Option<String>,
}

/// A certificate with its chain, and its key, both PEM.
pub(super) fn given(chain: &[u8], key: &[u8]) -> Result<Identity> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::dev_kbs(format!("the certificate is not PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| Error::dev_kbs(format!("the certificate's key is not PEM: {error}")))?;
    Ok(Identity {
        config: config(chain, key)?,
        ca: None,
    })
}

/// A certificate for this machine's own addresses, and an authority that has signed it and nothing else ever will:
/// its key is gone.
pub(super) fn made() -> Result<Identity> {
    make().map_err(|error| Error::dev_kbs(format!("no certificate can be made: {error}")))?
}

fn make() -> Result<Result<Identity>, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "dev-kbs CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?;
    let authority = Issuer::new(authority, authority_key);

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "dev-kbs");
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(config(vec![leaf.der().clone()], key).map(|config| Identity {
        config,
        ca: Some(pem("CERTIFICATE", ca.der())),
    }))
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>> {
    let bad = |error: rustls::Error| Error::dev_kbs(format!("the certificate cannot be used: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(bad)?;
    // It is built without HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// RFC 7468. It may be a private key: nothing of it is left behind.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 2 * label.len() + 64);
    pem += "-----BEGIN ";
    pem += label;
    pem += "-----\n";
    for (index, letter) in text.char_indices() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(letter);
    }
    pem += "\n-----END ";
    pem += label;
    pem += "-----\n";
    pem
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_is_spoken_is_offered() {
        let identity = super::made().unwrap();
        assert_eq!(identity.config.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
