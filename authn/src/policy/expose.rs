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
