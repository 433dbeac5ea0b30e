//! The entry of the document for an `iss`: one written in full, or one of a provider's tenants, whose issuers differ in
//! one segment of the path. Each tenant's `iss` is treated as an issuer of its own.
use std::collections::{HashMap, HashSet};

use wire::{MAX_TENANT_BYTES, TENANT_PLACEHOLDER as PLACEHOLDER, is_tenant};

use crate::config;
use crate::config::Invalid;

/// As Entra ID writes it in the `issuer` of a key.
const ENTRA_PLACEHOLDER: &str = "{tenantid}";
const MAX_TENANTS: usize = 1024;

/// The entries of a document by the issuers that they are for.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    exact: HashMap<String, usize>,
    patterns: Vec<(Pattern, usize)>,
}

/// The issuers of one provider's tenants.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    before: String,
    after: String,
    /// `None`: all tenants.
    tenants: Option<HashSet<String>>,
}

impl Issuers {
    /// An issuer written in full takes precedence over matching patterns, and no two patterns match one issuer.
    pub(crate) fn find(&self, iss: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(iss) {
            return Some(*index);
        }
        self.patterns.iter().find(|(pattern, _)| pattern.fits(iss)).map(|(_, index)| *index)
    }

    /// # Errors
    /// Two entries would match one issuer.
    pub(crate) fn add(&mut self, issuer: &str, pattern: Option<&Pattern>, index: usize) -> Result<(), String> {
        let Some(pattern) = pattern else {
            let listed = |(pattern, _): &&(Pattern, usize)| pattern.tenants.is_some() && pattern.fits(issuer);
            if let Some((_, other)) = self.patterns.iter().find(listed) {
                return Err(format!("this issuer is among the `tenants` of issuers[{other}] too"));
            }
            return match self.exact.insert(issuer.to_owned(), index) {
                None => Ok(()),
                Some(_) => Err("this issuer is listed twice: put all of its keys under one entry".to_owned()),
            };
        };
        if pattern.tenants.is_some()
            && let Some((_, other)) = self.exact.iter().find(|(iss, _)| pattern.fits(iss))
        {
            return Err(format!("one of its `tenants` is also written in full in issuers[{other}]"));
        }
        if let Some((_, other)) = self.patterns.iter().find(|(other, _)| other.overlaps(pattern)) {
            return Err(format!("a tenant's issuer could match this entry or issuers[{other}]"));
        }
        self.patterns.push((pattern.clone(), index));
        Ok(())
    }
}

impl Pattern {
    /// `None` for an issuer written in full.
    ///
    /// # Errors
    /// What is wrong, under `at`.
    pub(crate) fn compile(document: &config::Issuer, at: &str) -> Result<Option<Self>, Invalid> {
        let issuer = document.issuer.as_str();
        let invalid = |message: &str| Invalid::new(format!("{at}.issuer"), message);
        if issuer.contains('*') {
            return Err(invalid(
                "`*` matches nothing here: write `{tenant}` for the one segment of the path that differs, and the `tenants`",
            ));
        }
        let Some((before, after)) = issuer.split_once(PLACEHOLDER) else {
            if issuer.contains(['{', '}']) {
                return Err(invalid("the only placeholder is `{tenant}`"));
            }
            return match document.tenants {
                None => Ok(None),
                Some(_) => Err(Invalid::new(format!("{at}.tenants"), "`issuer` has no `{tenant}`")),
            };
        };
        if before.contains(['{', '}']) || after.contains(['{', '}']) {
            return Err(invalid("may have one `{tenant}`, and no other placeholder"));
        }
        let rest = before.strip_prefix("https://").or_else(|| before.strip_prefix("http://")).unwrap_or_default();
        let is_in_path = rest.find('/').is_some_and(|host| host > 0) && !rest.contains(['?', '#']);
        if !is_in_path || !before.ends_with('/') || !(after.is_empty() || after.starts_with('/')) {
            return Err(invalid("`{tenant}` must be a whole segment of the path of an http or https URL"));
        }
        let needless = [
            ("jwks.discovery", document.jwks.as_ref().is_some_and(|jwks| jwks.discovery)),
            ("introspection", document.introspection.is_some()),
        ];
        if let Some((field, _)) = needless.iter().find(|(_, is_there)| *is_there) {
            let message = match *field {
                "introspection" => "needs one issuer: an answer without `iss` would belong to no tenant",
                _ => "needs one issuer: give the `uri` of the keys that all tenants share",
            };
            return Err(Invalid::new(format!("{at}.{field}"), message));
        }
        let tenants = tenants(document.tenants.as_ref(), &format!("{at}.tenants"))?;
        Ok(Some(Self { before: before.to_owned(), after: after.to_owned(), tenants }))
    }

    /// The issuers of the listed tenants; `None` for all tenants.
    pub(crate) fn issuers(&self) -> Option<impl Iterator<Item = String>> {
        let tenants = self.tenants.as_ref()?.iter();
        Some(tenants.map(|tenant| format!("{}{tenant}{}", self.before, self.after)))
    }

    fn fits(&self, iss: &str) -> bool {
        self.tenant(iss).is_some()
    }

    fn tenant<'i>(&self, iss: &'i str) -> Option<&'i str> {
        let tenant = iss.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let is_ours = match &self.tenants {
            Some(tenants) => tenants.contains(tenant),
            None => is_tenant(tenant),
        };
        is_ours.then_some(tenant)
    }

    /// Could one `iss` match both?
    fn overlaps(&self, other: &Self) -> bool {
        if self.before == other.before && self.after == other.after {
            return match (&self.tenants, &other.tenants) {
                (Some(ours), Some(theirs)) => !ours.is_disjoint(theirs),
                _ => true,
            };
        }
        // Placeholders in two positions: each is where the other one has a literal, so only one `iss` is possible.
        let segment = |pattern: &Self| pattern.before.matches('/').count();
        let written = format!("{}{PLACEHOLDER}{}", other.before, other.after);
        let Some(literal) = written.split('/').nth(segment(self)) else { return false };
        let only = format!("{}{literal}{}", self.before, self.after);
        self.fits(&only) && other.fits(&only)
    }

    /// May a key that is restricted to some issuers (`issuer` of a JWK, as Entra ID writes it) sign for this tenant? A
    /// provider that shares keys among tenants need not share all of them.
    pub(crate) fn may_sign(&self, key_issuer: &str, iss: &str) -> bool {
        let Some(tenant) = self.tenant(iss) else { return false };
        key_issuer.replace(ENTRA_PLACEHOLDER, tenant).replace(PLACEHOLDER, tenant) == iss
    }
}

fn tenants(document: Option<&config::Tenants>, at: &str) -> Result<Option<HashSet<String>>, Invalid> {
    let names = match document {
        None => {
            let message = "name the tenants, or write `any` to accept users of all tenants";
            return Err(Invalid::new(at, message));
        }
        Some(config::Tenants::Any(_)) => return Ok(None),
        Some(config::Tenants::These(names)) => names,
    };
    if names.is_empty() || names.len() > MAX_TENANTS {
        return Err(Invalid::new(at, format!("name 1 to {MAX_TENANTS} tenants, or write `any`")));
    }
    let mut tenants = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if !is_tenant(name) {
            let message = format!("must be 1 to {MAX_TENANT_BYTES} characters of A-Z, a-z, 0-9, `-`, `.`, `_`, `~`");
            return Err(Invalid::new(at, message));
        }
        if !tenants.insert(name.clone()) {
            return Err(Invalid::new(at, format!("`{name}` is listed twice")));
        }
    }
    Ok(Some(tenants))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(issuer: &str, tenants: serde_json::Value) -> Result<Option<Pattern>, String> {
        let document = serde_json::from_value(serde_json::json!({
            "issuer": issuer, "audiences": ["api"], "tenants": tenants,
        }));
        Pattern::compile(&document.unwrap(), "issuers[0]").map_err(|invalid| invalid.to_string())
    }

    fn fitting(issuer: &str, tenants: serde_json::Value) -> Pattern {
        pattern(issuer, tenants).unwrap().unwrap()
    }

    const ENTRA: &str = "https://login.example/{tenant}/v2.0";

    #[test]
    fn a_tenant_is_one_plain_segment() {
        let any = fitting(ENTRA, "any".into());
        let longest = format!("https://login.example/{}/v2.0", "t".repeat(MAX_TENANT_BYTES));
        for iss in ["https://login.example/9188040d-6c67/v2.0", "https://login.example/A.b_c~/v2.0", &longest] {
            assert!(any.fits(iss), "{iss}");
        }
        let longer = format!("https://login.example/{}/v2.0", "t".repeat(MAX_TENANT_BYTES + 1));
        for iss in [
            "https://login.example//v2.0",
            "https://login.example/a/b/v2.0",
            "https://login.example/a%2fb/v2.0",
            "https://login.example/%61/v2.0",
            "https://login.example/../v2.0",
            "https://login.example/./v2.0",
            "https://login.example/{tenant}/v2.0",
            "https://login.example/{tenantid}/v2.0",
            "https://login.example/a/v2.0/",
            "https://login.example/a/v2.0/v2.0",
            "https://login.example/a/V2.0",
            "https://login.example/a?/v2.0",
            "https://login.example/a#/v2.0",
            "https://login.example/a@evil.example/v2.0",
            "https://login.example/\u{430}/v2.0",
            "https://login.example/a b/v2.0",
            "https://login.example/a\0/v2.0",
            "https://login.example.evil/a/v2.0",
            "http://login.example/a/v2.0",
            "https://login.example/v2.0",
            "https://evil.example/https://login.example/a/v2.0",
            "",
            &longer,
        ] {
            assert!(!any.fits(iss), "{iss}");
        }
        // Where nothing follows it.
        let last = fitting("https://kc.example/realms/{tenant}", "any".into());
        assert!(last.fits("https://kc.example/realms/a"));
        for iss in ["https://kc.example/realms/", "https://kc.example/realms/a/", "https://kc.example/realms/a/b"] {
            assert!(!last.fits(iss), "{iss}");
        }
    }

    #[test]
    fn listed_tenants_are_compared_byte_by_byte() {
        let two = fitting(ENTRA, serde_json::json!(["a", "b"]));
        assert!(two.fits("https://login.example/a/v2.0") && two.fits("https://login.example/b/v2.0"));
        for iss in ["https://login.example/A/v2.0", "https://login.example/c/v2.0", "https://login.example/ab/v2.0"] {
            assert!(!two.fits(iss), "{iss}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said_by_field() {
        let any = || serde_json::json!("any");
        for (issuer, tenants, says) in [
            ("https://login.example/*/v2.0", any(), "issuers[0].issuer: `*` matches nothing here: write `{tenant}`"),
            ("https://*.example.com", serde_json::Value::Null, "issuers[0].issuer: `*` matches nothing here"),
            ("https://login.example/{tenantid}/v2.0", any(), "issuers[0].issuer: the only placeholder is `{tenant}`"),
            ("https://login.example/{tenant}/{x}", any(), "issuers[0].issuer: may have one `{tenant}`"),
            ("https://login.example/{tenant}/{tenant}", any(), "issuers[0].issuer: may have one `{tenant}`"),
            ("https://{tenant}.example/v2.0", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https://{tenant}/v2.0", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https:///{tenant}/v2.0", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https://login.example/x-{tenant}", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https://login.example/{tenant}-x", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https://login.example/?t=/{tenant}", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("{tenant}", any(), "issuers[0].issuer: `{tenant}` must be a whole segment"),
            ("https://login.example", any(), "issuers[0].tenants: `issuer` has no `{tenant}`"),
            (ENTRA, serde_json::Value::Null, "issuers[0].tenants: name the tenants, or write `any`"),
            (ENTRA, serde_json::json!([]), "issuers[0].tenants: name 1 to 1024"),
            (ENTRA, serde_json::json!(["a", "a"]), "issuers[0].tenants[1]: `a` is listed twice"),
            (ENTRA, serde_json::json!(["a/b"]), "issuers[0].tenants[0]: must be 1 to 128"),
            (ENTRA, serde_json::json!(["*"]), "issuers[0].tenants[0]: must be 1 to 128"),
            (ENTRA, serde_json::json!([".."]), "issuers[0].tenants[0]: must be 1 to 128"),
        ] {
            let error = pattern(issuer, tenants).unwrap_err();
            assert!(error.starts_with(says), "{issuer}: {error}");
        }
        assert!(pattern("https://login.example", serde_json::Value::Null).unwrap().is_none());
    }

    #[test]
    fn no_issuer_belongs_to_two_entries() {
        let add = |entries: &[(&str, Option<Pattern>)]| {
            let mut issuers = Issuers::default();
            for (index, (issuer, pattern)) in entries.iter().enumerate() {
                issuers.add(issuer, pattern.as_ref(), index)?;
            }
            Ok::<_, String>(issuers)
        };
        let of = |tenants: serde_json::Value| (ENTRA, Some(fitting(ENTRA, tenants)));
        let in_full = ("https://login.example/a/v2.0", None);
        let found = add(&[of("any".into()), in_full.clone()]).unwrap();
        assert_eq!(found.find("https://login.example/a/v2.0"), Some(1), "the one in full comes first");
        assert_eq!(found.find("https://login.example/b/v2.0"), Some(0));
        assert_eq!(found.find("https://login.example/b"), None);
        let found = add(&[of(serde_json::json!(["b"])), of(serde_json::json!(["c"])), in_full.clone()]).unwrap();
        assert_eq!(found.find("https://login.example/c/v2.0"), Some(1));
        let listed = || of(serde_json::json!(["a", "b"]));
        for twice in [
            vec![in_full.clone(), in_full.clone()],
            vec![listed(), in_full.clone()],
            vec![in_full.clone(), listed()],
            vec![of("any".into()), of("any".into())],
            vec![of("any".into()), listed()],
            vec![listed(), of(serde_json::json!(["b", "c"]))],
            vec![
                ("x", Some(fitting("https://login.example/a/{tenant}", "any".into()))),
                ("y", Some(fitting("https://login.example/{tenant}/b", "any".into()))),
            ],
        ] {
            assert!(add(&twice).is_err(), "{twice:?}");
        }
        for apart in [
            ("https://login.example/a/{tenant}", "https://login.example/{tenant}/v2.0/x"),
            ("https://login.example/a/{tenant}", "https://login.example/b/{tenant}"),
            ("https://login.example/{tenant}/v1", "https://login.example/{tenant}/v2"),
        ] {
            let entries = [apart.0, apart.1].map(|issuer| (issuer, Some(fitting(issuer, "any".into()))));
            assert!(add(&entries).is_ok(), "{apart:?}");
        }
        let (left, right) = ("https://login.example/a/{tenant}", "https://login.example/{tenant}/b");
        let entries =
            [(left, Some(fitting(left, serde_json::json!(["c"])))), (right, Some(fitting(right, "any".into())))];
        assert!(add(&entries).is_ok(), "c is not b");
    }

    #[test]
    fn a_key_signs_for_the_tenants_that_it_is_for() {
        let any = fitting(ENTRA, "any".into());
        let iss = "https://login.example/a/v2.0";
        for good in ["https://login.example/{tenantid}/v2.0", ENTRA, iss] {
            assert!(any.may_sign(good, iss), "{good}");
        }
        for bad in ["https://login.example/b/v2.0", "https://other.example/{tenantid}/v2.0", "", "{tenantid}"] {
            assert!(!any.may_sign(bad, iss), "{bad}");
        }
    }
}
