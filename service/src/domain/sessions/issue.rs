//! The tokens of a session.
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;
use wire::opaque_token::{OpaqueToken, Purpose};

use super::Sessions;
use crate::domain::status_lists::PlaceError;
use crate::model::session::{AccessRecord, Data, Format, SessionClaims};
use crate::model::session_keys::{KeyAt, Sid};
use crate::model::status_list::StatusClaim;
use crate::signing::{ACCESS_TOKEN, SignError};

/// The answer to the creation or refresh of a session: RFC 6749 section 5.1 and members of this service.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Secret.
    pub access_token: String,
    /// `Bearer`, or `DPoP` for a token that is bound to a key (RFC 9449 section 5).
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// Secret. Single use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Identifies the session; not secret.
    pub sid: String,
    /// The access token's id.
    pub jti: String,
    /// Unix seconds: no token of the session is valid after it.
    pub session_ends: u64,
}

/// The claim that names a status list. Without lists, a session may have one of its own.
pub(super) const STATUS: &str = "status";

pub(super) struct Issued {
    token: String,
    /// Empty for a JWT.
    pub(super) record: Vec<u8>,
    expires_in: u64,
    jti: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The token would have no status.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// The payload of a JWT access token (RFC 9068 section 2.2).
#[derive(Serialize)]
struct TokenClaims<'j> {
    #[serde(flatten)]
    claims: SessionClaims,
    iat: u64,
    exp: u64,
    jti: &'j str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusClaim>,
}

impl Sessions {
    pub(super) async fn issue(
        &self,
        at: KeyAt,
        sid: Sid,
        data: &Data,
        scopes: u64,
        jkt: Option<[u8; 32]>,
        now: u64,
    ) -> Result<Issued, IssueError> {
        let expires_in = data.access_lifetime.min(data.ends.saturating_sub(now));
        let exp = now.saturating_add(expires_in);
        if data.format == Format::Opaque {
            let token = self.ring.make_token(at, Purpose::Access, sid).map_err(|_| SignError::Failed)?;
            let record = AccessRecord { mac: self.ring.token_mac(at, &token), exp, scopes, jkt }.to_bytes();
            return Ok(Issued { token: token.write(), record, expires_in, jti: self.ring.token_id(at, &token) });
        }
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| SignError::Failed)?;
        let jti = URL_SAFE_NO_PAD.encode(random);
        let mut claims = TokenClaims { claims: data.to_claims(scopes, jkt), iat: now, exp, jti: &jti, status: None };
        let token = match &self.status_lists {
            None => self.signing.sign(ACCESS_TOKEN, &claims).await?.token,
            Some(lists) => {
                let place = lists.choose(exp).await?;
                // Of a session from before the lists.
                claims.claims.further.remove(STATUS);
                claims.status = Some(lists.claim(place));
                let signed = match self.signing.sign(ACCESS_TOKEN, &claims).await {
                    Ok(signed) => signed,
                    Err(error) => {
                        lists.release(place).await;
                        return Err(error.into());
                    }
                };
                let keys = self.revocation_keys(data, Some((&jti, Some(&signed.thumbprint))));
                lists.enter(place, exp, data.auth_time, keys).await?;
                signed.token
            }
        };
        Ok(Issued { token, record: Vec::new(), expires_in, jti })
    }

    pub(super) fn tokens(
        &self,
        issued: Issued,
        refresh: Option<OpaqueToken>,
        data: &Data,
        scopes: u64,
        jkt: Option<[u8; 32]>,
    ) -> Tokens {
        let scope = data.scopes_of(scopes).join(" ");
        Tokens {
            access_token: issued.token,
            token_type: data.to_claims(scopes, jkt).token_type(),
            expires_in: issued.expires_in,
            refresh_token: refresh.map(|token| token.write()),
            scope: (!scope.is_empty()).then_some(scope),
            sid: data.sid.clone(),
            jti: issued.jti,
            session_ends: data.ends,
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("sid", &self.sid).finish_non_exhaustive()
    }
}
