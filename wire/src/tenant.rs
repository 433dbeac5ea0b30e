//! Issuers of providers with tenants: the configuration writes one pattern, `https://login.example/{tenant}/v2.0`, and each
//! tenant's tokens have an `iss` that fits it. Filter and service must read a pattern alike.

/// Stands in a pattern for the one segment of the path that differs.
pub const TENANT_PLACEHOLDER: &str = "{tenant}";
/// The longest tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 128;

/// Whether this may stand for the placeholder: characters that RFC 3986 section 2.3 calls unreserved. No `/`, no
/// percent-encoding, nothing that has two spellings.
pub fn is_tenant(text: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (1..=MAX_TENANT_BYTES).contains(&text.len()) && text.bytes().all(is_unreserved) && text != "." && text != ".."
}

/// Whether `issuer` is the one that `configured` names, byte by byte, or a tenant's issuer where that is a pattern.
pub fn issuer_matches(configured: &str, issuer: &str) -> bool {
    let Some((before, after)) = configured.split_once(TENANT_PLACEHOLDER) else { return configured == issuer };
    issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(is_tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_segment_of_its_pattern() {
        let pattern = "https://login.example/{tenant}/v2.0";
        for (issuer, matches) in [
            ("https://login.example/acme/v2.0", true),
            ("https://login.example/a/b/v2.0", false),
            ("https://login.example/../v2.0", false),
            ("https://login.example//v2.0", false),
            ("https://login.example/a%62/v2.0", false),
            ("https://other.example/acme/v2.0", false),
        ] {
            assert_eq!(issuer_matches(pattern, issuer), matches, "{issuer}");
        }
        assert!(issuer_matches("i", "i") && !issuer_matches("i", "j"));
    }

    #[test]
    fn a_tenant_has_a_bound() {
        assert!(is_tenant(&"t".repeat(MAX_TENANT_BYTES)) && !is_tenant(&"t".repeat(MAX_TENANT_BYTES + 1)));
        assert!(!is_tenant("") && !is_tenant(TENANT_PLACEHOLDER));
    }
}
