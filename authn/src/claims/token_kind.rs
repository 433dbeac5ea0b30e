//! What kind of token a claims set is of: an access token, an ID token, or none that may be presented to an API.
//!
//! The signature does not tell: a provider signs all of its kinds with the same keys, and in some of them the audience is
//! the client (RFC 8725 section 3.11, cross-JWT confusion). What tells is the header's `typ`, which `claims` judges first,
//! claims whose value is a word for the kind, and claims that only some kinds have.
use jose::json::{Json, Object};
use jose::plain_type;

use crate::claims::members::optional_string;
use crate::config::TokenKind;
use crate::reject::{Cause, Rejection};

/// What an issuer's tokens may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenKinds {
    pub(crate) accepted: Vec<TokenKind>,
    /// More words for an access token, in lower case.
    pub(crate) access_types: Vec<String>,
    /// An access token has one of these claims; empty: no matter.
    pub(crate) access_claims: Vec<String>,
}

/// The claims that have a word for the kind, with the words for access and for ID tokens: RFC 6749's and RFC 8693's
/// `token_type`, Keycloak's `typ`, Cognito's and Hydra's `token_use`. All in lower case.
const WORDS: [(&str, &[&str], &[&str]); 3] = [
    (
        "token_type",
        &["bearer", "access", "access_token", "at+jwt", "urn:ietf:params:oauth:token-type:access_token"],
        &["id", "id_token", "urn:ietf:params:oauth:token-type:id_token"],
    ),
    ("token_use", &["access", "access_token"], &["id", "id_token"]),
    ("typ", &["bearer", "access", "access_token", "at+jwt"], &["id", "id_token"]),
];
/// A `typ` that says only what everybody sees.
const NO_WORD: &str = "jwt";
/// An access token that is bound to a key (RFC 9449).
const DPOP: &str = "dpop";
/// Hashes of what an ID token was issued with (OpenID Connect Core section 3.3.2.11, FAPI 1.0 part 2 section 5.1.1, CIBA
/// section 10.3.1): no other token has one.
const ID_TOKEN_HASHES: [&str; 4] = ["at_hash", "c_hash", "s_hash", "urn:openid:params:jwt:claim:rt_hash"];

const ACCESS_CLAIMS: &str = "access_claims";

/// Is the client that the token was issued to one of its audiences, as in each ID token (OpenID Connect Core section 2)?
/// Which claim names the client is up to the provider: `cid`, `appid`.
fn is_for_its_client(claims: &Object<'_>, access_claims: &[String]) -> bool {
    let is_client = |audience: &Json<'_>| {
        let mut names = ["azp", "client_id"].into_iter().chain(access_claims.iter().map(String::as_str));
        let is = |name| claims.claim(name).and_then(Json::as_str) == audience.as_str();
        audience.as_str().is_some() && names.any(is)
    };
    match claims.claim("aud") {
        Some(Json::Array(many)) => many.iter().any(is_client),
        Some(one) => is_client(one),
        None => false,
    }
}

impl TokenKinds {
    /// Of a JWT. `typ` is its header's.
    ///
    /// # Errors
    /// [`crate::reject::RejectReason::InvalidClaim`] for a token of another kind.
    pub(crate) fn check(&self, typ: Option<&str>, claims: &Object<'_>) -> Result<(), Rejection> {
        self.judge(typ, claims, &self.access_claims)
    }

    /// Of an introspection response. An opaque token is no ID token, and servers answer with other claims than JWTs have.
    ///
    /// # Errors
    /// `RejectReason::InvalidClaim` for a token of another kind.
    pub(crate) fn check_introspected(&self, response: &Object<'_>) -> Result<(), Rejection> {
        self.judge(None, response, &[])
    }

    fn judge(&self, typ: Option<&str>, claims: &Object<'_>, access_claims: &[String]) -> Result<(), Rejection> {
        // RFC 8417 section 2.2: a security event token, a logout token above all.
        if let Some(Json::Object(_)) = claims.claim("events") {
            return Err(Rejection::new(Cause::SecurityEvent));
        }
        let has_access_claim = access_claims.iter().any(|name| claims.claim(name).is_some());
        let word = match self.word(claims)? {
            // RFC 9068 section 2.1: no other token has this type.
            None if typ.is_some_and(|typ| plain_type(typ) == "at+jwt") => Some((TokenKind::Access, "header.typ")),
            None if has_access_claim => Some((TokenKind::Access, ACCESS_CLAIMS)),
            word => word,
        };
        let hash = ID_TOKEN_HASHES.into_iter().find(|name| claims.claim(name).is_some());
        // Some providers copy the `nonce` into access tokens, and something says that they are such. A claim that ID tokens
        // can have as well (`azp`) does not say it of a token whose audience is its client.
        let says_access = match word {
            Some((_, ACCESS_CLAIMS)) => !is_for_its_client(claims, access_claims),
            Some(_) => true,
            None => false,
        };
        let nonce = (!says_access && claims.claim("nonce").is_some()).then_some("nonce");
        let (kind, mark) = match (word, hash.or(nonce)) {
            (_, Some(mark)) => (TokenKind::Id, format!("it has `{mark}`")),
            (Some((kind, name)), None) => (kind, format!("by `{name}`")),
            // Nothing tells, and it may be either.
            (None, None) if access_claims.is_empty() => return Ok(()),
            (None, None) => (TokenKind::Id, format!("it has none of {}", access_claims.join(", "))),
        };
        if self.accepted.contains(&kind) {
            return Ok(());
        }
        let kind = match kind {
            TokenKind::Access => "an access token",
            TokenKind::Id => "an ID token",
        };
        Err(Rejection::with_detail(Cause::KindRefused, format!("{kind}: {mark}")))
    }

    /// The kind that the token says it is of, and the claim that says so. Where two disagree, it is no access token.
    fn word(&self, claims: &Object<'_>) -> Result<Option<(TokenKind, &'static str)>, Rejection> {
        let mut found = None;
        for (name, access, id) in WORDS {
            let Some(word) = optional_string(claims, name)? else { continue };
            let word = plain_type(word);
            let is = |words: &[&str]| words.contains(&word.as_str());
            let kind = if is(id) {
                TokenKind::Id
            } else if is(access) || self.access_types.contains(&word) {
                TokenKind::Access
            } else if name == "typ" && word == NO_WORD {
                continue;
            } else if word == DPOP && claims.claim("cnf").is_some() {
                // Whether it is bound to this client, the rule's binding judges.
                TokenKind::Access
            } else {
                return Err(Rejection::with_detail(Cause::NotAccessToken, name));
            };
            if !matches!(found, Some((TokenKind::Id, _))) {
                found = Some((kind, name));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(kinds: &TokenKinds, claims: &str) -> bool {
        typed(kinds, None, claims)
    }

    fn typed(kinds: &TokenKinds, typ: Option<&str>, claims: &str) -> bool {
        kinds.check(typ, Json::parse(claims.as_bytes()).unwrap().as_object().unwrap()).is_ok()
    }

    fn kinds(accepted: &[TokenKind]) -> TokenKinds {
        TokenKinds { accepted: accepted.to_vec(), ..TokenKinds::default() }
    }

    const ACCESS: [&str; 9] = [
        r#"{"typ":"Bearer"}"#,
        r#"{"typ":"application/AT+JWT"}"#,
        r#"{"typ":"Bearer","nonce":"n"}"#,
        r#"{"typ":"DPoP","cnf":{"jkt":"x"}}"#,
        r#"{"token_use":"access"}"#,
        r#"{"token_use":"access_token","token_type":"Bearer"}"#,
        r#"{"token_type":"access","typ":"JWT"}"#,
        r#"{"token_type":"urn:ietf:params:oauth:token-type:access_token"}"#,
        r#"{"typ":"Bearer","events":["a"],"at_hash":null}"#,
    ];
    const ID: [&str; 9] = [
        r#"{"typ":"ID"}"#,
        r#"{"token_use":"id"}"#,
        r#"{"token_type":"id_token"}"#,
        r#"{"nonce":"n"}"#,
        r#"{"nonce":""}"#,
        r#"{"at_hash":"x"}"#,
        r#"{"c_hash":1,"typ":"Bearer"}"#,
        r#"{"s_hash":"x","typ":"JWT"}"#,
        r#"{"token_use":"id","token_type":"Bearer"}"#,
    ];
    const NEITHER: [&str; 15] = [
        r#"{"typ":"Refresh"}"#,
        r#"{"typ":"Offline"}"#,
        r#"{"typ":"Logout"}"#,
        r#"{"typ":"Authorization-Response"}"#,
        r#"{"typ":"RegistrationAccessToken"}"#,
        r#"{"typ":"logout+jwt"}"#,
        r#"{"typ":""}"#,
        r#"{"typ":1}"#,
        r#"{"typ":"DPoP"}"#,
        r#"{"token_use":"refresh"}"#,
        r#"{"token_use":"bearer"}"#,
        r#"{"token_type":"refresh_token"}"#,
        r#"{"token_type":["access"]}"#,
        r#"{"events":{"http://schemas.openid.net/event/backchannel-logout":{}}}"#,
        r#"{"typ":"Bearer","events":{}}"#,
    ];

    #[test]
    fn a_token_passes_where_its_kind_is_accepted() {
        let (access, id) = (kinds(&[TokenKind::Access]), kinds(&[TokenKind::Id]));
        let both = kinds(&[TokenKind::Access, TokenKind::Id]);
        for claims in ACCESS {
            assert!(passes(&access, claims) && !passes(&id, claims) && passes(&both, claims), "{claims}");
        }
        for claims in ID {
            assert!(!passes(&access, claims) && passes(&id, claims) && passes(&both, claims), "{claims}");
        }
        for claims in NEITHER {
            assert!(!passes(&access, claims) && !passes(&id, claims) && !passes(&both, claims), "{claims}");
        }
        for claims in [r#"{}"#, r#"{"typ":"JWT","sub":"a"}"#, r#"{"nonce":null,"events":null,"typ":null}"#] {
            assert!(passes(&access, claims) && passes(&id, claims), "{claims}");
        }
    }

    #[test]
    fn the_type_of_the_header_says_that_it_is_an_access_token() {
        let access = kinds(&[TokenKind::Access]);
        for typ in ["at+jwt", "application/AT+JWT"] {
            assert!(typed(&access, Some(typ), r#"{"nonce":"n"}"#), "{typ}");
            assert!(!typed(&kinds(&[TokenKind::Id]), Some(typ), "{}"), "{typ}");
            for claims in [r#"{"token_use":"id"}"#, r#"{"at_hash":"x"}"#, r#"{"typ":"Refresh"}"#] {
                assert!(!typed(&access, Some(typ), claims), "{typ} {claims}");
            }
        }
        assert!(!typed(&access, Some("JWT"), r#"{"nonce":"n"}"#));
    }

    #[test]
    fn an_issuer_may_have_words_of_its_own() {
        let own = TokenKinds { access_types: vec!["user".into()], ..kinds(&[TokenKind::Access]) };
        assert!(passes(&own, r#"{"typ":"User"}"#) && passes(&own, r#"{"token_type":"user","nonce":"n"}"#));
        assert!(!passes(&kinds(&[TokenKind::Access]), r#"{"typ":"User"}"#));
        assert!(!passes(&own, r#"{"typ":"User","at_hash":"x"}"#));
    }

    #[test]
    fn without_any_claim_of_an_access_token_it_is_an_id_token() {
        let access_claims = vec!["azp".to_owned(), "client_id".to_owned(), "cid".to_owned()];
        let own = TokenKinds { access_claims, ..kinds(&[TokenKind::Access]) };
        // Azure AD B2C copies the nonce into access tokens.
        for claims in [
            r#"{"azp":"a"}"#,
            r#"{"client_id":"a"}"#,
            r#"{"azp":"a","nonce":"n"}"#,
            r#"{"cid":"a","nonce":"n","aud":1}"#,
            r#"{"cid":1,"nonce":"n","aud":1}"#,
            r#"{"azp":"a","nonce":"n","aud":"api"}"#,
            r#"{"azp":"a","nonce":"n","aud":["api","other"]}"#,
            r#"{"azp":"a","aud":"a"}"#,
            r#"{"azp":"a","aud":"a","nonce":"n","typ":"Bearer"}"#,
        ] {
            assert!(passes(&own, claims), "{claims}");
        }
        assert!(passes(&own, r#"{"typ":"Bearer"}"#) && typed(&own, Some("at+jwt"), "{}"));
        for claims in [
            r#"{}"#,
            r#"{"azp":null}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"azp":"a","at_hash":"x"}"#,
            r#"{"azp":"a","token_use":"id"}"#,
            // An ID token of a provider that writes `azp` in all of them.
            r#"{"azp":"a","nonce":"n","aud":"a"}"#,
            r#"{"azp":"a","nonce":"n","aud":["a"]}"#,
            r#"{"azp":"a","nonce":"n","aud":["api","a"]}"#,
            r#"{"azp":"b","client_id":"a","nonce":"n","aud":"a"}"#,
            r#"{"cid":"a","nonce":"n","aud":"a"}"#,
        ] {
            assert!(!passes(&own, claims), "{claims}");
        }
        let response = |text: &str| {
            let response = Json::parse(text.as_bytes()).unwrap();
            own.check_introspected(response.as_object().unwrap()).is_ok()
        };
        assert!(response(r#"{"active":true}"#) && !response(r#"{"active":true,"typ":"ID"}"#));
        let both = TokenKinds { accepted: vec![TokenKind::Access, TokenKind::Id], ..own };
        assert!(passes(&both, "{}"));
    }
}
