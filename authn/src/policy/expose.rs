//! What the proxy's other filters may read about requests, compiled.
use std::sync::Arc;

use crate::config;
use crate::config::{Invalid, SubjectForm, claim_path};

/// Where facts about requests are exposed: at least in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    pub metadata: bool,
    pub filter_state: bool,
}

#[derive(Debug)]
pub(crate) struct Exposure {
    pub(crate) to: Targets,
    pub(crate) subject: SubjectForm,
    /// With the names under which they are exposed.
    pub(crate) claims: Vec<(Arc<str>, Vec<String>)>,
}

const MAX_CLAIMS: usize = 16;

/// `None` if nothing is exposed.
pub(super) fn compile_exposure(document: &config::Expose) -> Result<Option<Exposure>, Invalid> {
    let to = Targets { metadata: document.metadata, filter_state: document.filter_state };
    if !(to.metadata || to.filter_state) {
        let nowhere = "has no effect: neither `metadata` nor `filter_state` is true";
        if !document.claims.is_empty() {
            return Err(Invalid::new("claims", nowhere));
        }
        if document.subject != SubjectForm::default() {
            return Err(Invalid::new("subject", nowhere));
        }
        return Ok(None);
    }
    if document.claims.len() > MAX_CLAIMS {
        return Err(Invalid::new("claims", format!("at most {MAX_CLAIMS}")));
    }
    let mut claims: Vec<(Arc<str>, Vec<String>)> = Vec::with_capacity(document.claims.len());
    for (index, exposed) in document.claims.iter().enumerate() {
        let path = claim_path(&exposed.claim, &format!("claims[{index}].claim"))?;
        let name = exposed.name.as_deref().or(path.last().map(String::as_str)).unwrap_or_default();
        let invalid = |message: String| Invalid::new(format!("claims[{index}].name"), message);
        if name.is_empty()
            || name.len() > 64
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Err(invalid(format!("`{name}`: use 1 to 64 letters, digits, `-` and `_`")));
        }
        let name: Arc<str> = format!("claim.{name}").into();
        if claims.iter().any(|(other, _)| *other == name) {
            return Err(invalid(format!("two claims are exposed as `{name}`")));
        }
        claims.push((name, path));
    }
    Ok(Some(Exposure { to, subject: document.subject, claims }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(document: &str) -> Result<Option<Exposure>, String> {
        let document = serde_json::from_str(document).map_err(|error| error.to_string())?;
        compile_exposure(&document).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn nothing_is_exposed_by_default() {
        assert!(compiled("{}").unwrap().is_none());
        assert!(compiled(r#"{"metadata":false,"filter_state":false}"#).unwrap().is_none());
    }

    #[test]
    fn a_name_is_the_last_of_the_claims_unless_it_is_given() {
        let text = r#"{"metadata":true,"claims":[{"claim":["a","roles"]},{"claim":"org id","name":"org"}]}"#;
        let names: Vec<_> = compiled(text).unwrap().unwrap().claims.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["claim.roles", "claim.org"]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        let many = vec![r#"{"claim":"a"}"#; 17].join(",");
        for (text, field) in [
            (r#"{"claims":[{"claim":"a"}]}"#, "claims: has no effect"),
            (r#"{"subject":"plain"}"#, "subject: has no effect"),
            (r#"{"metadata":true,"claims":[{"claim":"a b"}]}"#, "claims[0].name: `a b`"),
            (r#"{"metadata":true,"claims":[{"claim":[]}]}"#, "claims[0].claim: name a claim"),
            (r#"{"metadata":true,"claims":[{"claim":"a"},{"claim":["b","a"]}]}"#, "claims[1].name: two claims"),
            (&format!(r#"{{"metadata":true,"claims":[{many}]}}"#), "claims: at most 16"),
            (r#"{"meta":true}"#, "unknown field `meta`"),
        ] {
            let error = compiled(text).unwrap_err();
            assert!(error.starts_with(field), "{text}: {error}");
        }
    }
}
