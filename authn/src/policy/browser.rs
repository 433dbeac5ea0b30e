//! The section `browser`, compiled.
use crate::browser::{Browser, ContentPolicy, CookieName, CookieRule, FrameOptions};
use crate::config;
use crate::config::{ConfigDuration, Invalid, ReferrerPolicy, whole_seconds};
use crate::request::headers::{CONNECTION, HeaderName, is_safe_value, is_token};

const MAX_COOKIES: usize = 32;
const MAX_REMOVED: usize = 32;
const MAX_HSTS: ConfigDuration = ConfigDuration::from_secs(1000 * DAY);
/// What the lists of browsers ask for: <https://hstspreload.org>.
const PRELOAD_HSTS: u64 = 365 * DAY;
const DAY: u64 = 24 * 60 * 60;

pub(super) fn compile_browser(document: &config::Browser) -> Result<Browser, Invalid> {
    let policy = |field: &'static str, text: &Option<String>| {
        let parse = |text: &String| ContentPolicy::parse(text).map_err(|message| Invalid::new(field, message));
        text.as_ref().map(parse).transpose()
    };
    let own = policy("content_security_policy", &document.content_security_policy)?;
    let report_only = policy("content_security_policy_report_only", &document.content_security_policy_report_only)?;
    let frames = frame_ancestors(&document.frame_ancestors)?;
    let nonce_header = nonce_header(document, own.iter().chain(&report_only))?;
    let frame_options = match document.frame_ancestors.as_slice() {
        [only] if only == "'none'" => Some(FrameOptions::Deny),
        [only] if only == "'self'" => Some(FrameOptions::SameOrigin),
        _ => None,
    };
    if let Some(text) = &document.permissions_policy
        && (text.is_empty() || !is_safe_value(text.as_bytes()))
    {
        let message = "must be printable ASCII without spaces at its ends";
        return Err(Invalid::new("permissions_policy", message));
    }
    Ok(Browser {
        strict_transport_security: document.strict_transport_security.as_ref().map(hsts).transpose()?,
        content_policies: own.into_iter().chain(frames).collect(),
        report_only,
        nonce_header,
        frame_options,
        content_type_options: document.content_type_options,
        referrer_policy: document.referrer_policy.map(ReferrerPolicy::name),
        permissions_policy: document.permissions_policy.clone(),
        cache_control: document.authenticated_cache_control,
        cookies: cookies(&document.cookies)?,
        removed: removed(&document.remove_headers)?,
    })
}

fn hsts(document: &config::StrictTransportSecurity) -> Result<String, Invalid> {
    let at = "strict_transport_security";
    let zero = ConfigDuration::from_secs(0);
    let max_age = whole_seconds(document.max_age, zero, MAX_HSTS, &format!("{at}.max_age"))?;
    if document.preload && !(document.include_subdomains && max_age >= PRELOAD_HSTS) {
        let message = "needs `include_subdomains` and a `max_age` of at least 365d";
        return Err(Invalid::new(format!("{at}.preload"), message));
    }
    let mut header = format!("max-age={max_age}");
    if document.include_subdomains {
        header.push_str("; includeSubDomains");
    }
    if document.preload {
        header.push_str("; preload");
    }
    Ok(header)
}

fn frame_ancestors(sources: &[String]) -> Result<Option<ContentPolicy>, Invalid> {
    if sources.is_empty() {
        return Ok(None);
    }
    for (index, source) in sources.iter().enumerate() {
        let invalid = |message| Err(Invalid::new(format!("frame_ancestors[{index}]"), message));
        if source.is_empty() || !source.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && !b";,".contains(&byte)) {
            return invalid("is not a source, such as `'self'` or `https://app.example`");
        }
        if source == "'none'" && sources.len() > 1 {
            return invalid("`'none'` cannot be beside others");
        }
        if source.starts_with('\'') && !matches!(source.as_str(), "'none'" | "'self'") {
            return invalid("`frame-ancestors` has no such keyword");
        }
    }
    let policy = ContentPolicy::parse(&format!("frame-ancestors {}", sources.join(" ")));
    policy.map(Some).map_err(|message| Invalid::new("frame_ancestors", message))
}

fn nonce_header<'p>(
    document: &config::Browser,
    mut policies: impl Iterator<Item = &'p ContentPolicy>,
) -> Result<Option<HeaderName>, Invalid> {
    let invalid = |message: String| Err(Invalid::new("nonce_header", message));
    match (&document.nonce_header, policies.any(ContentPolicy::has_nonce)) {
        (None, false) => Ok(None),
        (None, true) => invalid("a policy has a nonce: name the header by which the upstream gets it".to_owned()),
        (Some(_), false) => invalid("has no effect: no policy has `'nonce-{nonce}'`".to_owned()),
        (Some(name), true) => match HeaderName::parse(name) {
            Ok(name) => Ok(Some(name)),
            Err(message) => invalid(message.to_owned()),
        },
    }
}

fn cookies(rules: &[config::SetCookieRule]) -> Result<Vec<CookieRule>, Invalid> {
    if rules.len() > MAX_COOKIES {
        return Err(Invalid::new("cookies", format!("at most {MAX_COOKIES}")));
    }
    let compile = |(index, rule): (usize, &config::SetCookieRule)| {
        let (text, name) = match rule.name.strip_suffix('*') {
            Some(beginning) => (beginning, CookieName::Beginning(beginning.to_owned())),
            None => (rule.name.as_str(), CookieName::Whole(rule.name.clone())),
        };
        let is_name = |byte: u8| matches!(byte, 0x21..=0x7e) && !b"=;,".contains(&byte);
        if rule.name.is_empty() || !text.bytes().all(is_name) {
            return Err(Invalid::new(format!("cookies[{index}].name"), "is not the name of a cookie"));
        }
        let config::SetCookieRule { secure, http_only, same_site, otherwise, .. } = *rule;
        Ok(CookieRule { name, secure, http_only, same_site, otherwise })
    };
    rules.iter().enumerate().map(compile).collect()
}

/// Any header may be named but those by which a message is read.
fn removed(names: &[String]) -> Result<Vec<HeaderName>, Invalid> {
    if names.len() > MAX_REMOVED {
        return Err(Invalid::new("remove_headers", format!("at most {MAX_REMOVED}")));
    }
    let compile = |(index, text): (usize, &String)| {
        let invalid = |message| Invalid::new(format!("remove_headers[{index}]"), message);
        let name = HeaderName::of_request(text).filter(|_| is_token(text.as_bytes()));
        let name = name.ok_or_else(|| invalid("is not a header name"))?;
        let frames = CONNECTION.iter().chain(&["content-encoding", "content-type", "grpc-status"]);
        if frames.into_iter().any(|other| name.matches_loosely(other.as_bytes())) {
            return Err(invalid("frames the message, or says how it is read"));
        }
        Ok(name)
    };
    names.iter().enumerate().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(document: &str) -> String {
        compile_browser(&serde_json::from_str(document).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        for (document, error) in [
            (
                r#"{"strict_transport_security":{"max_age":"1001d"}}"#,
                "strict_transport_security.max_age: must be within",
            ),
            (
                r#"{"strict_transport_security":{"max_age":"30d","preload":true,"include_subdomains":true}}"#,
                "strict_transport_security.preload: needs",
            ),
            (r#"{"content_security_policy":"a, b"}"#, "content_security_policy: has a comma"),
            (r#"{"content_security_policy":"script-src 'nonce-{nonce}'"}"#, "nonce_header: a policy has a nonce"),
            (r#"{"nonce_header":"x-nonce"}"#, "nonce_header: has no effect"),
            (r#"{"content_security_policy":"script-src 'nonce-{nonce}'","nonce_header":"cookie"}"#, "nonce_header: "),
            (r#"{"frame_ancestors":["'none'","'self'"]}"#, "frame_ancestors[0]: `'none'` cannot"),
            (r#"{"frame_ancestors":["a; default-src *"]}"#, "frame_ancestors[0]: is not a source"),
            (r#"{"frame_ancestors":["'unsafe-inline'"]}"#, "frame_ancestors[0]: `frame-ancestors` has no"),
            (r#"{"permissions_policy":"camera=()\n"}"#, "permissions_policy: must be"),
            (r#"{"cookies":[{"name":"a"},{"name":"a=b"}]}"#, "cookies[1].name: is not"),
            (r#"{"cookies":[{"name":""}]}"#, "cookies[0].name: is not"),
            (r#"{"remove_headers":["server","Content_Length"]}"#, "remove_headers[1]: frames"),
            (r#"{"remove_headers":[":status"]}"#, "remove_headers[0]: is not a header name"),
        ] {
            let refused = refused(document);
            assert!(refused.starts_with(error), "{document}: {refused}");
        }
    }

    #[test]
    fn a_section_with_everything_compiles() {
        let document = r#"{"strict_transport_security":{"max_age":"365d","include_subdomains":true,"preload":true},
            "content_security_policy":"script-src 'nonce-{nonce}'","nonce_header":"x-csp-nonce",
            "content_security_policy_report_only":"default-src 'self'","frame_ancestors":["'self'"],
            "content_type_options":true,"referrer_policy":"strict-origin","permissions_policy":"camera=()",
            "authenticated_cache_control":"private","cookies":[{"name":"*"}],"remove_headers":["x-powered-by"]}"#;
        let browser = compile_browser(&serde_json::from_str(document).unwrap()).unwrap();
        let hsts = browser.strict_transport_security.as_deref();
        assert_eq!(hsts, Some("max-age=31536000; includeSubDomains; preload"));
        assert_eq!(browser.content_policies.len(), 2);
        assert_eq!(browser.frame_options, Some(FrameOptions::SameOrigin));
    }
}
