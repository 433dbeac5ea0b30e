//! The session of a token: found, checked against revocations, and its use noted.
use std::sync::Arc;
use std::time::Duration;

use jose::base64url;
use serde_json::Value;
use wire::check::StoreError;
use wire::opaque_token::{OpaqueToken, Purpose};
use wire::{DerivedKeys, Kind, RevocationKey, token_id_from_jti};

use super::Sessions;
use super::records::{SessionRecords, StoredSession, step};
use crate::base::clock::{unix_millis, unix_seconds};
use crate::model::session::{AccessRecord, Data, SessionClaims};
use crate::model::session_keys::Sid;

/// Seconds for which an answer about a session without an idle timeout may be kept.
const LONGEST_KEPT: u64 = 60;

/// An access token that is good. Times are Unix seconds.
pub struct ActiveToken {
    pub claims: SessionClaims,
    pub jti: String,
    pub exp: u64,
    pub iat: u64,
    /// For so many seconds a filter may keep this answer, while it knows of every revocation. Uses in this time are not seen.
    pub keep_for: u64,
}

/// An access token and its session.
pub(super) struct Found {
    kept: StoredSession,
    jti: String,
    iat: Option<u64>,
    exp: u64,
    scopes: u64,
    /// The key that this token is bound to, apart from its session.
    jkt: Option<[u8; 32]>,
    /// The key that signed it.
    thumbprint: Option<String>,
}

impl Sessions {
    /// The claims of an active access token. `None`: it is not active.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn introspect(&self, token: &str) -> Result<Option<ActiveToken>, StoreError> {
        let Some(found) = self.find(token).await?.filter(|found| found.kept.ended.is_none()) else {
            self.tell_ended(token);
            return Ok(None);
        };
        let kept = &found.kept;
        if self.revoked(&kept.data, Some((&found.jti, found.thumbprint.as_deref()))).await? {
            return Ok(None);
        }
        self.note_use(kept);
        Ok(Some(ActiveToken {
            claims: kept.data.to_claims(found.scopes, found.jkt),
            iat: found.iat.unwrap_or(kept.data.created),
            jti: found.jti,
            exp: found.exp,
            keep_for: keep_for(kept.data.idle),
        }))
    }

    /// The session that a token belongs to, as RFC 7009 needs it: also by a refresh token, current or not, and also if it is
    /// marked as ended, since its revocation may have failed.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn session_of(&self, token: &str) -> Result<Option<StoredSession>, StoreError> {
        if let Some(token) = OpaqueToken::parse(Purpose::Refresh, token.as_bytes()) {
            let Some(at) = self.ring.maker_of(&token) else { return Ok(None) };
            return self.store().read(at, Sid(token.sid)).await;
        }
        Ok(self.find(token).await?.map(|found| found.kept))
    }

    /// An unexpired access token of ours, and its session, which may be marked as ended. Revocations are not checked.
    async fn find(&self, token: &str) -> Result<Option<Found>, StoreError> {
        let (store, now) = (self.store(), unix_seconds());
        let found = match OpaqueToken::parse(Purpose::Access, token.as_bytes()) {
            Some(token) => {
                // A token of others causes no read of the store.
                let Some(at) = self.ring.maker_of(&token) else { return Ok(None) };
                let Some(kept) = store.read(at, Sid(token.sid)).await? else { return Ok(None) };
                let mac = self.ring.token_mac(at, &token);
                let Some(record) = AccessRecord::find(&kept.access, mac) else { return Ok(None) };
                let jti = self.ring.token_id(at, &token);
                Found {
                    kept,
                    jti,
                    iat: None,
                    exp: record.exp,
                    scopes: record.scopes,
                    jkt: record.jkt,
                    thumbprint: None,
                }
            }
            None => {
                let Some(verified) = self.signing.verify(token) else { return Ok(None) };
                let text = |name: &str| verified.claims.get(name).and_then(Value::as_str);
                let number = |name: &str| verified.claims.get(name).and_then(Value::as_u64);
                let (Some(jti), Some(exp)) = (text("jti"), number("exp")) else { return Ok(None) };
                let Some(sid) = text("sid").and_then(|sid| sid.parse().ok()) else { return Ok(None) };
                if text("iss") != Some(&self.config.issuer) || exp <= now {
                    return Ok(None);
                }
                let Some(kept) = store.find(sid).await? else { return Ok(None) };
                let scope = text("scope").unwrap_or_default();
                let scopes = kept.data.mask_of(scope.split(' ').filter(|word| !word.is_empty())).unwrap_or(0);
                let iat = number("iat");
                let jkt = verified.claims.get("cnf").and_then(|cnf| cnf.get("jkt")?.as_str());
                let jkt = jkt.and_then(|jkt| base64url::decode(jkt).ok()?.try_into().ok());
                let thumbprint = Some(verified.thumbprint);
                Found { kept, jti: jti.to_owned(), iat, exp, scopes, jkt, thumbprint }
            }
        };
        let lives = found.exp > now && found.kept.data.ends > now;
        Ok(lives.then_some(found))
    }

    /// Has a revocation ended the session, or the token with this jti that was signed by this key?
    pub(super) async fn revoked(&self, data: &Data, token: Option<(&str, Option<&str>)>) -> Result<bool, StoreError> {
        let answers = self.revocation_store.check(&self.revocation_keys(data, token)).await?;
        Ok(answers.into_iter().any(|answer| answer.ends(data.auth_time)))
    }

    /// The revocations that end the session, or the token with this jti that was signed by this key.
    pub(super) fn revocation_keys(&self, data: &Data, token: Option<(&str, Option<&str>)>) -> Vec<RevocationKey> {
        let mut keys: Vec<RevocationKey> = Vec::new();
        // While secrets rotate, earlier revocations are under the old secret alone, wherever it stands in the list.
        for derived in self.secrets.iter() {
            let mut name = |kind, id: &[u8]| keys.push(derived.revocation_key(kind, &data.iss, id));
            name(Kind::Session, data.sid.as_bytes());
            name(Kind::User, data.sub.as_bytes());
            name(Kind::Issuer, b"");
            if let Some(client_id) = &data.client_id {
                name(Kind::Client, client_id.as_bytes());
            }
            if let Some((jti, thumbprint)) = token {
                name(Kind::Token, &token_id_from_jti(jti));
                if let Some(thumbprint) = thumbprint {
                    name(Kind::SigningKey, thumbprint.as_bytes());
                }
            }
        }
        keys
    }

    /// An ended session is gone before its revocation is read, and the answer reports the end all the same: the store measures
    /// the lag.
    fn tell_ended(&self, token: &str) {
        let Some(token) = OpaqueToken::parse(Purpose::Access, token.as_bytes()) else { return };
        if self.ring.maker_of(&token).is_none() {
            return;
        }
        let sid = Sid(token.sid).to_string();
        let name = |derived: &DerivedKeys| derived.revocation_key(Kind::Session, &self.config.issuer, sid.as_bytes());
        let keys: Vec<_> = self.secrets.iter().map(name).collect();
        self.revocation_store.told_revoked(&keys);
    }

    /// Notes the use of a session with an idle timeout, in the background.
    fn note_use(&self, kept: &StoredSession) {
        let Some(idle) = kept.data.idle else { return };
        let step = step(Duration::from_secs(idle)) / 2;
        if u128::from(unix_millis().abs_diff(kept.used)) < step.as_millis() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.touches).try_acquire_owned() else { return };
        let (store, ring, at, sid) = (Arc::clone(&self.session_store), Arc::clone(&self.ring), kept.at, kept.sid);
        tokio::spawn(async move {
            let _permit = permit;
            let sessions = SessionRecords { store: &*store, ring: &ring };
            if let Err(error) = sessions.touch(at, sid, step).await {
                tracing::debug!(%error, "a use was not recorded");
            }
        });
    }
}

/// Half of a step of the idle timeout: the last use that is recorded is at most one step before the last use.
fn keep_for(idle: Option<u64>) -> u64 {
    idle.map_or(LONGEST_KEPT, |idle| (step(Duration::from_secs(idle)) / 2).as_secs())
}
