//! Issuers of providers with tenants, as the filter's configuration writes them.

/// Stands for one segment of the path.
pub const PLACEHOLDER: &str = "{tenant}";

/// As the filter compares: byte by byte, or with a tenant of the characters that RFC 3986 section 2.3 calls unreserved.
pub fn is_issuer_or_tenant(known: &str, issuer: &str) -> bool {
    let Some((before, after)) = known.split_once(PLACEHOLDER) else { return known == issuer };
    let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).unwrap_or_default();
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (1..=128).contains(&tenant.len()) && tenant.bytes().all(is_fit) && tenant != "." && tenant != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_of_its_pattern() {
        let pattern = "https://login.example/{tenant}/v2.0";
        for (issuer, is_one) in [
            ("https://login.example/acme/v2.0", true),
            ("https://login.example/a/b/v2.0", false),
            ("https://login.example/../v2.0", false),
            ("https://login.example//v2.0", false),
            ("https://login.example/a%62/v2.0", false),
            ("https://other.example/acme/v2.0", false),
        ] {
            assert_eq!(is_issuer_or_tenant(pattern, issuer), is_one, "{issuer}");
        }
        assert!(is_issuer_or_tenant("i", "i") && !is_issuer_or_tenant("i", "j"));
    }
}
