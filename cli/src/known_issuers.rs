//! Recognises well-known providers by their issuer URL, if `provider` is not set.
use authn::config::Issuer;

/// The remarks on one issuer: the field and the message.
pub fn remarks(issuer: &Issuer) -> Vec<(&'static str, String)> {
    let mut remarks = Vec::new();
    if let (None, Some(provider)) = (issuer.provider, provider_of(&issuer.issuer)) {
        let message = format!(
            "looks like {provider}'s: with `provider: {provider}`, its kinds of tokens are told apart, and revocations go by its claims \
             (docs/providers/{provider}.md)"
        );
        remarks.push(("issuer", message));
    }
    if issuer.revocation_claims.as_ref().is_some_and(|claims| claims.token.is_some()) {
        let message = "configure the service too (`serve --token-claims`), or `revoke token` has no effect";
        remarks.push(("revocation_claims.token", message.to_owned()));
    }
    remarks
}

fn provider_of(issuer: &str) -> Option<&'static str> {
    let rest = issuer.strip_prefix("https://").unwrap_or(issuer);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match host {
        "login.microsoftonline.com" | "sts.windows.net" => Some("entra"),
        "accounts.google.com" => Some("google"),
        "securetoken.google.com" => Some("firebase"),
        "kubernetes.default.svc" | "kubernetes.default.svc.cluster.local" => Some("kubernetes"),
        _ if is_below("okta.com") || is_below("oktapreview.com") => Some("okta"),
        _ if is_below("auth0.com") => Some("auth0"),
        _ if host.starts_with("cognito-idp.") && is_below("amazonaws.com") => Some("cognito"),
        _ if path.starts_with("realms/") || path.starts_with("auth/realms/") => Some("keycloak"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_known_by_the_url_of_its_issuer() {
        for (issuer, provider) in [
            ("https://login.microsoftonline.com/t/v2.0", Some("entra")),
            ("https://sts.windows.net/t/", Some("entra")),
            ("https://accounts.google.com", Some("google")),
            ("accounts.google.com", Some("google")),
            ("https://securetoken.google.com/p", Some("firebase")),
            ("https://dev-1.okta.com/oauth2/default", Some("okta")),
            ("https://shop.eu.auth0.com/", Some("auth0")),
            ("https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_X", Some("cognito")),
            ("https://sso.example.com/realms/shop", Some("keycloak")),
            ("https://sso.example.com/auth/realms/shop", Some("keycloak")),
            ("https://kubernetes.default.svc", Some("kubernetes")),
            ("https://notokta.com", None),
            ("https://okta.com.example", None),
            ("https://login.example/realm", None),
            ("https://issuer.example", None),
        ] {
            assert_eq!(provider_of(issuer), provider, "{issuer}");
        }
    }
}
