//! The life of a session: made, introspected, refreshed, ended. Who may ask for what is for `admin` and `oauth2`.
pub mod ask;
pub mod options;
pub mod records;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use wire::check::StoreError;
use wire::opaque_token::{OpaqueToken, Purpose};
use wire::{DerivedKeys, Kind, RevocationKey, token_id_from_jti};

use self::records::{SessionRecords, StoredSession, step};
use crate::app::options::MAX_SKEW;
use crate::app::server::Shared;
use crate::base::clock::{unix_millis, unix_seconds};
use crate::base::throttle::Throttle;
use crate::domain::audit::Event;
use crate::http::admin::guard::TOLD;
use crate::http::admin::problem::Problem;
use crate::http::admin::revoke_session;
use crate::http::oauth2::client::{Client, Clients};
use crate::http::oauth2::error::OAuthError;
use crate::model::session::{AccessRecord, Data, Format};
use crate::model::session_keys::{KeyAt, Ring, Sid};
use crate::signing::{SignError, Signing};

use ask::NewSession;
use options::SessionOptions;
use store::{Rotated, WriteError};

/// Notes of use under way at once; one more is left out, and the next use makes up for it.
const MAX_TOUCHES: usize = 64;
/// How often, and after what pauses, the end of a stolen session is tried again while Redis is in trouble.
const END_RETRIES: u32 = 30;
const END_PAUSE: Duration = Duration::from_secs(2);
/// Sessions whose end is tried again at once, and as many of which it is not known whether they were stolen.
const MAX_ENDING: usize = 64;
/// Sessions that are looked at, or ended, at once.
pub const AT_ONCE: usize = 16;

#[derive(Debug)]
pub struct Sessions {
    pub options: SessionOptions,
    pub ring: Arc<Ring>,
    pub signing: Arc<Signing>,
    pub clients: Arc<Clients>,
    touches: Arc<Semaphore>,
    ending: Arc<Semaphore>,
    doubted: Arc<Semaphore>,
    /// Tokens in another client's hands, as they are written to the audit stream.
    told: Throttle,
}

/// What a session's maker or client gets: RFC 6749 section 5.1, and what this service adds.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Secret.
    pub access_token: String,
    /// `Bearer`
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// Secret. Good for one use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Names the session; no secret.
    pub sid: String,
    /// The access token's id.
    pub jti: String,
    /// Unix seconds: no token of the session is good after it.
    pub session_ends: u64,
}

/// A session as an operator sees it. Times are Unix seconds.
#[derive(Serialize, ToSchema)]
pub struct View {
    pub sid: String,
    pub issuer: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub audience: Vec<String>,
    pub scope: String,
    pub format: Format,
    pub created: u64,
    pub auth_time: u64,
    pub ends: u64,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
    pub last_used: u64,
    pub refresh: bool,
    pub binding: Map<String, Value>,
    pub claims: Map<String, Value>,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

struct Issued {
    token: String,
    /// Empty for a JWT.
    record: Vec<u8>,
    expires_in: u64,
    jti: String,
}

/// Whether a session is marked as stolen, as far as Redis's answer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stolen {
    Yes,
    Perhaps,
}

/// What a token turned out to be.
struct Found {
    kept: StoredSession,
    jti: String,
    iat: Option<u64>,
    exp: u64,
    scopes: u64,
    /// Of the key that signed it.
    thumbprint: Option<String>,
}

impl Sessions {
    pub fn new(options: SessionOptions, ring: Arc<Ring>, signing: Arc<Signing>, clients: Arc<Clients>) -> Self {
        let places = |most| Arc::new(Semaphore::new(most));
        let (touches, ending, doubted) = (places(MAX_TOUCHES), places(MAX_ENDING), places(MAX_ENDING));
        Self { options, ring, signing, clients, touches, ending, doubted, told: Throttle::every(TOLD) }
    }

    pub fn store<'a>(&'a self, shared: &'a Shared) -> SessionRecords<'a> {
        SessionRecords { store: &*shared.stores.sessions, ring: &self.ring }
    }

    /// # Errors
    /// A field that cannot be, or that the store could not take it.
    pub async fn create(&self, shared: &Shared, new: NewSession, by: &str) -> Result<Tokens, Problem> {
        if new.format == Format::Jwt && !self.signing.has_key() {
            return Err(Problem::field("format", "cannot be `jwt`: the service has no --signing-key"));
        }
        if new.refresh && !new.client_id.as_deref().is_some_and(|id| self.clients.may_refresh(id)) {
            return Err(Problem::field("client_id", "must be a client that may refresh"));
        }
        let (now, at) = (unix_seconds(), self.ring.first());
        let sid = Sid::random().map_err(|_| Problem::internal())?;
        let data = Data {
            sid: sid.to_string(),
            iss: self.options.issuer.clone(),
            sub: new.sub,
            client_id: new.client_id,
            aud: new.aud,
            scopes: new.scopes,
            claims: new.claims,
            binding: new.binding,
            format: new.format,
            created: now,
            auth_time: new.auth_time,
            ends: new.ends,
            idle: new.idle.map(|idle| idle.as_secs()),
            access_lifetime: new.access_lifetime.as_secs(),
            refresh: new.refresh,
            by: by.to_owned(),
            reason: new.reason,
        };
        let life = Duration::from_secs(data.ends.saturating_sub(now));
        let issued = self.issue(at, sid, &data, u64::MAX, now).await?;
        let refresh = match data.refresh {
            true => Some(self.ring.make_token(at, Purpose::Refresh, sid).map_err(|_| Problem::internal())?),
            false => None,
        };
        let store = self.store(shared);
        let refresh_mac = refresh.map(|token| self.ring.token_mac(at, &token));
        // The list last: else whoever prunes it meanwhile takes this one for gone. Until it is there nobody has the tokens, so
        // who ends all of a subject's sessions finds each that can be used.
        store.create(at, sid, &data, &issued.record, refresh_mac, life).await?;
        if let Err(problem) = self.enlist(shared, at, &data, life).await {
            // If it stays, it ends by itself.
            let _ = store.forget(at, sid, &data).await;
            return Err(problem);
        }
        Ok(self.tokens(issued, refresh, &data, u64::MAX))
    }

    /// What introspection says of an active access token: its claims. `None`: it is not active.
    ///
    /// # Errors
    /// It cannot be told.
    pub async fn introspect(&self, shared: &Shared, token: &str) -> Result<Option<Map<String, Value>>, StoreError> {
        let Some(found) = self.find(shared, token).await?.filter(|found| found.kept.ended.is_none()) else {
            self.tell_ended(shared, token);
            return Ok(None);
        };
        let kept = &found.kept;
        if self.revoked(shared, &kept.data, Some((&found.jti, found.thumbprint.as_deref()))).await? {
            return Ok(None);
        }
        self.note_use(shared, kept);
        let mut claims = kept.data.to_claims(found.scopes);
        claims.insert("active".into(), true.into());
        claims.insert("token_type".into(), "Bearer".into());
        claims.insert("jti".into(), found.jti.into());
        claims.insert("exp".into(), found.exp.into());
        claims.insert("iat".into(), found.iat.unwrap_or(kept.data.created).into());
        Ok(Some(claims))
    }

    /// # Errors
    /// As RFC 6749 section 5.2 has them.
    pub async fn refresh(
        &self,
        shared: &Arc<Shared>,
        client: &Client,
        text: &str,
        scope: Option<&str>,
    ) -> Result<Tokens, OAuthError> {
        const GONE: OAuthError = OAuthError::InvalidGrant("the refresh token is not good, or its session has ended");
        let token = OpaqueToken::parse(Purpose::Refresh, text.as_bytes()).ok_or(GONE)?;
        // Only who has had a token of ours gets further, and can make us end the session for its reuse.
        let at = self.ring.maker_of(&token).ok_or(GONE)?;
        let sid = Sid(token.sid);
        let store = self.store(shared);
        let kept = store.read(at, sid).await?.ok_or(GONE)?;
        if kept.data.client_id.as_deref() != Some(&client.id) {
            // It can be tried without end.
            if self.told.pass(Instant::now()).is_some() {
                self.tell(shared, &kept, "refresh", "refused", client, "the refresh token is another client's").await;
            }
            return Err(OAuthError::InvalidGrant("the refresh token was issued to another client"));
        }
        if kept.ended.is_some() {
            // It was ended here, and something came between that and its revocation.
            self.end(shared, &kept, Some("refresh token reused"), "service").await?;
            return Err(GONE);
        }
        let mask = match scope {
            None => u64::MAX,
            Some(scope) => {
                let scopes = ask::scopes(scope).map_err(|_| OAuthError::InvalidScope)?;
                kept.data.mask_of(scopes.iter().map(String::as_str)).ok_or(OAuthError::InvalidScope)?
            }
        };
        if self.revoked(shared, &kept.data, None).await? {
            return Err(GONE);
        }
        let issued = self.issue(at, sid, &kept.data, mask, unix_seconds()).await?;
        let new = self.ring.make_token(at, Purpose::Refresh, sid).map_err(|_| OAuthError::Internal)?;
        let new_mac = self.ring.token_mac(at, &new);
        let rotated = store.rotate(at, &token, new_mac, &issued.record, self.options.refresh_grace).await;
        match rotated {
            Ok(Rotated::Done) => Ok(self.tokens(issued, Some(new), &kept.data, mask)),
            Ok(Rotated::Gone | Rotated::Ended) => Err(GONE),
            Ok(Rotated::Raced) => Err(OAuthError::InvalidGrant(
                "the refresh token was used a moment ago, perhaps by a request at the same time: use the token that it got",
            )),
            Ok(Rotated::Reused) => {
                tracing::warn!(sid = %sid, client = client.id, "a refresh token was used again: its session is ended");
                self.tell(shared, &kept, "refresh.reuse", "session ended", client, "a refresh token was used again")
                    .await;
                shared.metrics.session("reused");
                if let Err(error) = self.end(shared, &kept, Some("refresh token reused"), "service").await {
                    tracing::error!(%error, sid = %sid, "the end of the session will be tried again");
                    self.end_later(shared, sid, Stolen::Yes);
                }
                Err(GONE)
            }
            Err(error) => {
                // Redis may have found it to be stolen, and nobody heard.
                if !matches!(error, WriteError::NotWritten(_)) {
                    self.end_later(shared, sid, Stolen::Perhaps);
                }
                Err(error.into())
            }
        }
    }

    /// The session that a token belongs to, as RFC 7009 needs it: also by a refresh token, current or not, and also if it is
    /// marked as ended, since its revocation may have failed.
    ///
    /// # Errors
    /// It cannot be told.
    pub async fn session_of(&self, shared: &Shared, token: &str) -> Result<Option<StoredSession>, StoreError> {
        if let Some(token) = OpaqueToken::parse(Purpose::Refresh, token.as_bytes()) {
            let Some(at) = self.ring.maker_of(&token) else { return Ok(None) };
            return self.store(shared).read(at, Sid(token.sid)).await;
        }
        Ok(self.find(shared, token).await?.map(|found| found.kept))
    }

    /// Ends a session here and in every filter.
    ///
    /// # Errors
    /// It may not be ended everywhere; it gives nothing more all the same, if Redis could be told at all.
    pub async fn end(
        &self,
        shared: &Shared,
        kept: &StoredSession,
        reason: Option<&str>,
        by: &str,
    ) -> Result<(), WriteError> {
        let store = self.store(shared);
        let marked = store.mark_ended(kept, "ended").await;
        // Also if that failed: this is what filters see. Its tokens do not outlive it, so neither need this.
        let left = kept.data.ends.saturating_sub(unix_seconds());
        let ttl = Duration::from_secs(left) + shared.options.future_iat_tolerance + MAX_SKEW;
        revoke_session(shared, &kept.data.iss, &kept.data.sid, reason, by, ttl).await?;
        marked?;
        // What is left is marked, and goes away by itself.
        if let Err(error) = store.forget(kept.at, kept.sid, &kept.data).await {
            tracing::debug!(%error, "an ended session stays in Redis until its time is over");
        }
        Ok(())
    }

    /// Ends in the background a session that is marked as ended, until [`Sessions::end`] can. One that is not is left.
    fn end_later(&self, shared: &Arc<Shared>, sid: Sid, stolen: Stolen) {
        // Many may be in doubt while Redis is slow; they must not take the places of those that are not.
        let places = if stolen == Stolen::Yes { &self.ending } else { &self.doubted };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            // One in doubt ends when one of its refresh tokens is next seen.
            if stolen == Stolen::Yes {
                tracing::error!(%sid, "too many sessions wait for their end: end this one by hand");
            }
            return;
        };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let _place = place;
            let Some(sessions) = &shared.sessions else { return };
            for _ in 0..END_RETRIES {
                tokio::time::sleep(END_PAUSE).await;
                match sessions.store(&shared).find(sid).await {
                    Ok(None) => return,
                    Ok(Some(kept)) if kept.ended.is_none() => return,
                    Ok(Some(kept)) => {
                        if sessions.end(&shared, &kept, Some("refresh token reused"), "service").await.is_ok() {
                            tracing::info!(%sid, "ended at last");
                            return;
                        }
                    }
                    Err(_) => {}
                }
            }
            if stolen == Stolen::Yes {
                tracing::error!(%sid, "could not be ended: end it by hand");
            }
        });
    }

    pub fn view(&self, kept: StoredSession) -> View {
        let data = kept.data;
        View {
            sid: data.sid,
            issuer: data.iss,
            subject: data.sub,
            client_id: data.client_id,
            audience: data.aud,
            scope: data.scopes.join(" "),
            format: data.format,
            created: data.created,
            auth_time: data.auth_time,
            ends: data.ends,
            idle_timeout: data.idle,
            last_used: kept.used / 1000,
            refresh: data.refresh,
            binding: data.binding,
            claims: data.claims,
            by: data.by,
            reason: data.reason,
        }
    }

    /// Adds it to its subject's.
    async fn enlist(&self, shared: &Shared, at: KeyAt, data: &Data, life: Duration) -> Result<(), Problem> {
        let store = self.store(shared);
        if store.index(at, data, life).await? {
            return Ok(());
        }
        self.prune(shared, &data.sub).await?;
        match store.index(at, data, life).await? {
            true => Ok(()),
            false => Err(Problem::too_many_sessions(records::MAX_SESSIONS_PER_SUBJECT)),
        }
    }

    /// Takes out of a subject's list what is no longer there.
    async fn prune(&self, shared: &Shared, subject: &str) -> Result<(), Problem> {
        let store = self.store(shared);
        let mut gone: Vec<(Sid, KeyAt)> = Vec::new();
        for some in store.sids_of(&self.options.issuer, subject).await?.chunks(AT_ONCE) {
            let found = join_all(some.iter().map(|(sid, at)| store.read(*at, *sid))).await;
            let absent = some.iter().zip(found).filter(|(_, found)| matches!(found, Ok(None)));
            gone.extend(absent.map(|(place, _)| *place));
        }
        for at in self.ring.all() {
            let sids: Vec<Sid> = gone.iter().filter(|(_, of)| *of == at).map(|(sid, _)| *sid).collect();
            store.unindex(at, &self.options.issuer, subject, &sids).await?;
        }
        Ok(())
    }

    /// An access token of ours that has not expired, and its session, which may be marked as ended. Nothing is said of
    /// revocations.
    async fn find(&self, shared: &Shared, token: &str) -> Result<Option<Found>, StoreError> {
        let (store, now) = (self.store(shared), unix_seconds());
        let found = match OpaqueToken::parse(Purpose::Access, token.as_bytes()) {
            Some(token) => {
                // What is not ours never reaches Redis.
                let Some(at) = self.ring.maker_of(&token) else { return Ok(None) };
                let Some(kept) = store.read(at, Sid(token.sid)).await? else { return Ok(None) };
                let mac = self.ring.token_mac(at, &token);
                let Some(record) = AccessRecord::find(&kept.access, mac) else { return Ok(None) };
                let jti = self.ring.token_id(at, &token);
                Found { kept, jti, iat: None, exp: record.exp, scopes: record.scopes, thumbprint: None }
            }
            None => {
                let Some(verified) = self.signing.verify(token) else { return Ok(None) };
                let text = |name: &str| verified.claims.get(name).and_then(Value::as_str);
                let number = |name: &str| verified.claims.get(name).and_then(Value::as_u64);
                let (Some(jti), Some(exp)) = (text("jti"), number("exp")) else { return Ok(None) };
                let Some(sid) = text("sid").and_then(|sid| sid.parse().ok()) else { return Ok(None) };
                if text("iss") != Some(&self.options.issuer) || exp <= now {
                    return Ok(None);
                }
                let Some(kept) = store.find(sid).await? else { return Ok(None) };
                let scope = text("scope").unwrap_or_default();
                let scopes = kept.data.mask_of(scope.split(' ').filter(|word| !word.is_empty())).unwrap_or(0);
                let iat = number("iat");
                Found { kept, jti: jti.to_owned(), iat, exp, scopes, thumbprint: Some(verified.thumbprint) }
            }
        };
        let lives = found.exp > now && found.kept.data.ends > now;
        Ok(lives.then_some(found))
    }

    /// Has a revocation ended the session, or the token with this jti that was signed by this key?
    async fn revoked(
        &self,
        shared: &Shared,
        data: &Data,
        token: Option<(&str, Option<&str>)>,
    ) -> Result<bool, StoreError> {
        let mut keys: Vec<RevocationKey> = Vec::new();
        // While secrets rotate, what was revoked before is under the old one alone, wherever that stands.
        for derived in &shared.secrets {
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
        let answers = shared.stores.revocations.check(&keys).await?;
        Ok(answers.into_iter().any(|answer| answer.ends(data.auth_time)))
    }

    /// An ended session is gone before its revocation is read, and the answer tells of it all the same.
    fn tell_ended(&self, shared: &Shared, token: &str) {
        let Some(token) = OpaqueToken::parse(Purpose::Access, token.as_bytes()) else { return };
        if self.ring.maker_of(&token).is_none() {
            return;
        }
        let sid = Sid(token.sid).to_string();
        let name = |derived: &DerivedKeys| derived.revocation_key(Kind::Session, &self.options.issuer, sid.as_bytes());
        let keys: Vec<_> = shared.secrets.iter().map(name).collect();
        shared.stores.revocations.told_revoked(&keys);
    }

    /// Keeps a session alive that would end by lying unused. Nobody waits for it.
    fn note_use(&self, shared: &Shared, kept: &StoredSession) {
        let Some(idle) = kept.data.idle else { return };
        let step = step(Duration::from_secs(idle));
        if u128::from(unix_millis().abs_diff(kept.used)) < step.as_millis() {
            return;
        }
        let Ok(place) = Arc::clone(&self.touches).try_acquire_owned() else { return };
        let (store, ring, at, sid) = (Arc::clone(&shared.stores.sessions), Arc::clone(&self.ring), kept.at, kept.sid);
        tokio::spawn(async move {
            let _place = place;
            let sessions = SessionRecords { store: &*store, ring: &ring };
            if let Err(error) = sessions.touch(at, sid, step).await {
                tracing::debug!(%error, "a use was not noted");
            }
        });
    }

    async fn issue(&self, at: KeyAt, sid: Sid, data: &Data, scopes: u64, now: u64) -> Result<Issued, SignError> {
        let expires_in = data.access_lifetime.min(data.ends.saturating_sub(now));
        let exp = now.saturating_add(expires_in);
        if data.format == Format::Opaque {
            let token = self.ring.make_token(at, Purpose::Access, sid).map_err(|_| SignError::Failed)?;
            let record = AccessRecord { mac: self.ring.token_mac(at, &token), exp, scopes }.to_bytes();
            return Ok(Issued { token: token.write(), record, expires_in, jti: self.ring.token_id(at, &token) });
        }
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| SignError::Failed)?;
        let jti = URL_SAFE_NO_PAD.encode(random);
        let mut claims = data.to_claims(scopes);
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), exp.into());
        claims.insert("jti".into(), jti.as_str().into());
        Ok(Issued { token: self.signing.sign(&claims).await?, record: Vec::new(), expires_in, jti })
    }

    fn tokens(&self, issued: Issued, refresh: Option<OpaqueToken>, data: &Data, scopes: u64) -> Tokens {
        let scope = data.scopes_of(scopes).join(" ");
        Tokens {
            access_token: issued.token,
            token_type: "Bearer",
            expires_in: issued.expires_in,
            refresh_token: refresh.map(|token| token.write()),
            scope: (!scope.is_empty()).then_some(scope),
            sid: data.sid.clone(),
            jti: issued.jti,
            session_ends: data.ends,
        }
    }

    async fn tell(
        &self,
        shared: &Shared,
        kept: &StoredSession,
        action: &str,
        outcome: &str,
        client: &Client,
        reason: &str,
    ) {
        let event = Event {
            iss: Some(kept.data.iss.clone()),
            sub: Some(kept.data.sub.clone()),
            sid: Some(kept.data.sid.clone()),
            client_id: kept.data.client_id.clone(),
            reason: Some(reason.to_owned()),
            ..Event::new(&format!("client:{}", client.id), action, outcome)
        };
        shared.audit.write(event).await;
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("sid", &self.sid).finish_non_exhaustive()
    }
}
