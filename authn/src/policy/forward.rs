//! The headers that tell the upstream about the token, compiled.
use crate::config;
use crate::config::{Invalid, claim_path};
use crate::request::headers::HeaderName;

#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) claims: Vec<ForwardClaim>,
    pub(crate) payload_header: Option<HeaderName>,
    pub(crate) keep_token: bool,
}

#[derive(Debug)]
pub(crate) struct ForwardClaim {
    pub(crate) claim: Vec<String>,
    pub(crate) header: HeaderName,
    pub(crate) encoding: config::Encoding,
}

pub(super) fn compile_forward(document: &config::Forward, at: &str) -> Result<Forward, Invalid> {
    let mut claims = Vec::new();
    let mut headers: Vec<HeaderName> = Vec::new();
    for (i, claim) in document.claims.iter().enumerate() {
        let field = format!("{at}.claims[{i}].header");
        let header = HeaderName::parse(&claim.header).map_err(|message| Invalid::new(&field, message))?;
        if headers.iter().any(|other| other.matches_loosely(header.as_bytes())) {
            return Err(Invalid::new(
                field,
                format!("`{}`, or a header that backends take for it, is set twice", claim.header),
            ));
        }
        headers.push(header.clone());
        claims.push(ForwardClaim {
            claim: claim_path(&claim.claim, &format!("{at}.claims[{i}].claim"))?,
            header,
            encoding: claim.encoding,
        });
    }
    let payload_header = document
        .payload_header
        .as_deref()
        .map(|name| HeaderName::parse(name).map_err(|message| Invalid::new(format!("{at}.payload_header"), message)))
        .transpose()?;
    if payload_header
        .as_ref()
        .is_some_and(|header| headers.iter().any(|other| other.matches_loosely(header.as_bytes())))
    {
        return Err(Invalid::new(format!("{at}.payload_header"), "is set by a claim as well"));
    }
    Ok(Forward { claims, payload_header, keep_token: document.token == config::TokenForwarding::Keep })
}
