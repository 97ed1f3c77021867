//! What a broker's errors mean. Their names decide: the two families, and each family's versions, give the same error
//! other statuses.

use crate::error::Error;
use crate::messages::ErrorInformation;
use crate::resource::ResourceUri;
use crate::shown::shown;
use crate::tee_key::TeeKeyKind;

/// What an error in place of a resource means.
pub(super) enum Verdict {
    /// The session has expired, or the broker was restarted: another handshake may help.
    SessionGone { name: String, detail: String },
    /// Nothing that the client does now changes it.
    Final(Error),
}

/// The verdict on a request for a resource.
pub(super) fn of_resource(
    information: &ErrorInformation,
    status: u16,
    resource: &ResourceUri,
    key: TeeKeyKind,
) -> Verdict {
    let name = information.name().to_owned();
    let detail = shown(&information.detail);
    let resource = resource.to_string();
    let broker = |name, detail, hint| {
        Verdict::Final(Error::Broker {
            status,
            name,
            detail,
            hint,
        })
    };
    match name.as_str() {
        "TokenNotFound"
        | "TokenVerifierError"
        | "MissingCookie"
        | "InvalidCookie"
        | "ExpiredCookie"
        | "UnAuthenticatedCookie"
        | "TokenParseFailed" => Verdict::SessionGone { name, detail },
        // Up to 0.1.1: it looked for the token after it had found no session.
        "InvalidRequest" if detail.contains("Authorization header") => Verdict::SessionGone { name, detail },
        "PolicyDeny" | "PolicyReject" => Verdict::Final(Error::PolicyDenied { resource, detail }),
        "PluginInternalError" | "ReadSecretFailed" => Verdict::Final(Error::ResourceNotFound {
            resource,
            name,
            detail,
        }),
        "PolicyEngine" | "PolicyEngineError" | "PolicyEngineFailed" => {
            broker(name, detail, ": its resource policy does not evaluate")
        }
        "PluginNotFound" => broker(name, detail, ": it keeps no resources, or this is not its URL"),
        "JweError" | "JWEFailed" => broker(
            name,
            detail,
            match key {
                TeeKeyKind::P256 => ": it does not seal to a key on P-256; try RSA-OAEP-256",
                TeeKeyKind::P521 => ": it does not seal to a key on P-521; use P-256",
                TeeKeyKind::RsaOaep256 | TeeKeyKind::Rsa1_5 => {
                    ": it does not seal to this kind of RSA key; try P-256"
                }
            },
        ),
        _ => broker(name, detail, ""),
    }
}

/// What mostly is behind an attest request that was refused.
pub(super) const ATTEST_CAUSES: &str = "the broker's verifier does not know this kind of TEE, or takes neither the \
    evidence's signature nor the platform's state; the event log does not match the quote (leave it out); the init \
    data is not what the guest was launched with; the session went to another replica of the broker. The broker's own \
    log names the cause";
/// What mostly is behind an auth request that was refused.
pub(super) const AUTH_CAUSES: &str =
    "the broker does not know this kind of TEE, or its attestation service is down";

/// The version that the broker names in a refusal, `expect =1.2.3` or `expected version: <=1.2.3`.
pub(super) fn expected_version(detail: &str) -> Option<&str> {
    let (_, rest) = detail.split_once("expect")?;
    let rest = rest.strip_prefix("ed version:").unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix("<=").or_else(|| rest.strip_prefix('='))?;
    let end = rest
        .find(|char: char| !(char.is_ascii_digit() || char == '.'))
        .unwrap_or(rest.len());
    let version = rest[..end].trim_end_matches('.');
    (version.len() <= 16
        && version.split('.').count() == 3
        && version.split('.').all(|part| !part.is_empty()))
    .then_some(version)
}

/// Whether the broker refuses the version, even where it does not name its own.
pub(super) fn refuses_version(information: &ErrorInformation) -> bool {
    information.name() == "ProtocolVersion"
        || information.detail.contains("Protocol Version Mismatch")
        || information.detail.contains("Invalid Request version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_brokers_name() {
        for (detail, version) in [
            (
                "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version Mismatch: expect =0.4.0 \
                 while the request is 0.1.0",
                Some("0.4.0"),
            ),
            (
                "KBS Client Protocol Version Mismatch: expected version: =0.1.1, requested version: 0.4.0",
                Some("0.1.1"),
            ),
            (
                "KBS Client Protocol Version Mismatch: expected version: <=0.1.0, requested version: 0.4.0",
                Some("0.1.0"),
            ),
            ("expect =10.20.30", Some("10.20.30")),
            ("expect =0.4.0.", Some("0.4.0")),
            ("expect 0.4.0", None),
            ("expect =0.4", None),
            ("expect =0..4", None),
            ("expect =", None),
            ("expect =0.4.0.1", None),
            ("expect =00000000.00000000.000000", None),
            ("expecting =0.4.0", None),
            ("Auth failed: deserialize Request", None),
            ("", None),
        ] {
            assert_eq!(expected_version(detail), version, "{detail}");
        }
    }
}
