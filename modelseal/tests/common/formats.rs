//! What tests seal in.

use modelseal::gocryptfs::ConfOptions;
use modelseal::sam::{IssuerKey, Terms};
use modelseal::{PackageOptions, SealFormat};

/// Both formats, as cheap as they are allowed to be.
pub(crate) fn formats() -> [(&'static str, SealFormat); 2] {
    let terms = Terms {
        scrypt_log_n: 14,
        ..Terms::new("LD_Test_0001")
    };
    let package = PackageOptions::new(terms, IssuerKey::generate().unwrap());
    let vault = ConfOptions {
        scrypt_log_n: 10,
        ..ConfOptions::default()
    };
    [
        ("vault", SealFormat::Gocryptfs(vault)),
        ("package", SealFormat::Sam(Box::new(package))),
    ]
}
