//! Who may have a resource.

/// Who may have a resource, once its evidence was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Whoever attested.
    #[default]
    Allow,
    /// Whoever attested with more than `sample` evidence, as Trustee has it by default.
    DenySample,
    /// Nobody.
    Deny,
}

impl Policy {
    pub(super) fn allows(self, tee: &str) -> bool {
        match self {
            Self::Allow => true,
            Self::DenySample => tee != "sample",
            Self::Deny => false,
        }
    }

    /// A policy in Rego of which nothing but the default remains; there is no interpreter here.
    pub(super) fn parse(rego: &str) -> Option<Self> {
        let mut lines = rego
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(code, _)| code).trim())
            .filter(|line| !line.is_empty() && !line.starts_with("import "));
        if lines.next()? != "package policy" {
            return None;
        }
        let mut words = lines.next()?.split_whitespace();
        let policy = match [words.next()?, words.next()?, words.next()?, words.next()?] {
            ["default", "allow", "=" | ":=", "true"] => Self::Allow,
            ["default", "allow", "=" | ":=", "false"] => Self::Deny,
            _ => return None,
        };
        (words.next().is_none() && lines.next().is_none()).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_without_rules_are_understood() {
        for (text, policy) in [
            ("package policy\ndefault allow = true\n", Some(Policy::Allow)),
            (
                "# why\n\npackage policy\nimport rego.v1\n  default allow := false # no\n",
                Some(Policy::Deny),
            ),
            ("package policy\ndefault allow = maybe", None),
            ("package policy\ndefault allow = false\nallow if { true }", None),
            ("package policy\ndefault allow = true true", None),
            ("default allow = true", None),
            ("package policy", None),
            ("", None),
        ] {
            assert_eq!(Policy::parse(text), policy, "{text}");
        }
        assert!(Policy::DenySample.allows("tdx") && !Policy::DenySample.allows("sample"));
        assert!(Policy::Allow.allows("sample") && !Policy::Deny.allows("tdx"));
    }
}
