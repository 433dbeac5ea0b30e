//! A provider's metadata (OpenID Connect Discovery 1.0), read for one thing: the address of its key set.
use jose::json::Json;
use jose::jwks::{self, JwksError};

/// It is no discovery document of this issuer. The last good one stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    #[error(transparent)]
    Text(#[from] JwksError),
    #[error("the discovery document has no string `{0}`")]
    Member(&'static str),
    #[error("the discovery document is another issuer's")]
    OtherIssuer,
    #[error("`jwks_uri` is not a URL that can be fetched: {0}")]
    Url(&'static str),
}

/// `jwks_uri` of an OpenID Provider's metadata (OpenID Connect Discovery 1.0 section 3; RFC 8414 section 2).
///
/// # Errors
/// [`DiscoveryError::OtherIssuer`] unless `issuer` is this one, byte by byte (section 4.3). Otherwise one provider could
/// publish keys for another.
pub fn parse(text: &[u8], issuer: &str) -> Result<Url, DiscoveryError> {
    let text = jwks::json_text(text)?;
    let document = Json::parse(text).map_err(|error| JwksError::NotJson(error.to_string()))?;
    let member = |name| {
        let value = document.as_object().and_then(|document| document.get(name)?.as_str());
        value.ok_or(DiscoveryError::Member(name))
    };
    if member("issuer")? != issuer {
        return Err(DiscoveryError::OtherIssuer);
    }
    Url::parse(member("jwks_uri")?).map_err(DiscoveryError::Url)
}

/// The address of a document. The cluster decides on the server and on TLS; these two only fill in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub authority: String,
    pub path: String,
}

impl Url {
    /// # Errors
    /// The reason, for the configuration's author.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.ok_or("it begins with neither https:// nor http://")?;
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).ok_or("it is malformed")?,
            None => (rest, "/"),
        };
        let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(host_byte) {
            return Err("its host is malformed");
        }
        if !path.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#') {
            return Err("its path has a character that no request line may have");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path })
    }

    /// `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 section 4).
    ///
    /// # Errors
    /// The issuer is no URL.
    pub fn discovery(issuer: &str) -> Result<Self, &'static str> {
        Self::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }
}

#[cfg(test)]
mod tests;
