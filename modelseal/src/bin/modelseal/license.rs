//! Licenses, for a person and for a program.

use std::fmt::Write as _;

use modelseal::sam::{License, format_time};
use serde_json::{Value, json};

/// What a license says, as lines of text.
pub(crate) fn to_text(license: &License) -> String {
    let terms = license.terms();
    let mut lines = vec![
        (
            "license",
            format!("{}, serial {}", terms.license_id, terms.serial),
        ),
        ("issuer", license.issuer().to_string()),
    ];
    if let Some(company) = &terms.company {
        lines.push(("company", company.clone()));
    }
    let window = match (terms.valid_from, terms.expires) {
        (None, None) => "always".to_owned(),
        (Some(from), None) => format!("from {}", format_time(from)),
        (None, Some(to)) => format!("until {}", format_time(to)),
        (Some(from), Some(to)) => format!("from {} until {}", format_time(from), format_time(to)),
    };
    lines.push(("valid", window));
    if !terms.machines.is_empty() {
        lines.push(("machines", terms.machines.join(", ")));
    }
    if let Some(tdx) = &terms.tdx {
        let named = tdx
            .rtmr
            .iter()
            .enumerate()
            .filter(|(_, values)| !values.is_empty());
        let mut registers: Vec<_> = named.map(|(n, _)| format!("RTMR{n}")).collect();
        if !tdx.mrtd.is_empty() {
            registers.insert(0, "MRTD".to_owned());
        }
        let when = if tdx.required {
            "a TD, with"
        } else {
            "where it is a TD, with"
        };
        lines.push((
            "machine",
            format!("{when} the values given of {}", registers.join(", ")),
        ));
    }
    if let Some(extras) = &terms.extras {
        lines.push(("extras", extras.escape_debug().to_string()));
    }
    lines.push(("content", license.content_id().to_string()));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:8} {value}");
    }
    text
}

/// What a license says, as JSON.
pub(crate) fn to_json(license: &License) -> Value {
    // A license is canonical JSON.
    let mut value: Value = serde_json::from_str(license.as_str()).unwrap_or_else(|_| json!({}));
    if let Some(members) = value.as_object_mut() {
        // Of no use to whoever looks, and best not spread.
        for secret in ["wrapped_key", "kek_commitment"] {
            members.remove(secret);
        }
    }
    value
}
