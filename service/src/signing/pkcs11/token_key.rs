//! A key in a token that signs for us: a bounded number of concurrent signatures, each within its time, each verified
//! before use, and found again after the token was lost.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use jose::PublicKey;
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::error::TokenError;
use super::module::{Context, Module};
use super::object;
use super::uri::Pkcs11Uri;
use crate::base::throttle::Throttle;
use crate::signing::public::Public;

/// Loading a module, logging in and finding the key; modules of network devices connect meanwhile.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Signatures that wait for a session, beside those in progress; further ones are refused at once.
const MAX_WAITING: usize = 64;
/// How often an idle key is tried, so that its loss is seen before a signature is needed.
const TRIED_EVERY: Duration = Duration::from_secs(10);
/// The pauses between tests of a failed key: the first, each twice the one before, and the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// The text that a trial signs. It is no signing input of a JWS (RFC 7515 section 5.1), which has no spaces.
const TRIAL: &[u8] = b"portcullis tries whether this key signs";

/// Of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open sessions with its token: the number of concurrent signatures.
    pub sessions: usize,
    /// For one signature, including the wait.
    pub timeout: Duration,
}

pub struct TokenKey {
    module: Arc<Module>,
    uri: Pkcs11Uri,
    public: Arc<Public>,
    limits: Limits,
    /// Of sessions, held by the thread that uses one: a call that hangs keeps its place, so no more than these can.
    permits: Arc<Semaphore>,
    queue: Semaphore,
    idle: Mutex<Vec<Open>>,
    /// Why the last signature failed, if it did.
    trouble: Mutex<Option<String>>,
    lost: Arc<Notify>,
    said: Throttle,
}

/// Closes nothing when it is dropped: after the module was initialised again, its handle may be another session's.
#[derive(Debug)]
struct Open {
    session: Session,
    key: ObjectHandle,
    epoch: u64,
}

impl TokenKey {
    /// Loads the module, logs in, finds the key and makes a test signature, which must verify with its public half.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn open(uri: Pkcs11Uri, limits: Limits) -> Result<Arc<Self>, TokenError> {
        let opening = spawn_blocking(move || Self::open_now(uri, limits));
        let opened = timeout(OPEN_TIMEOUT, opening).await.map_err(|_| TokenError::TimedOut(OPEN_TIMEOUT))?;
        opened.unwrap_or(Err(TokenError::Unfit("the module panicked"))).map(Arc::new)
    }

    fn open_now(uri: Pkcs11Uri, limits: Limits) -> Result<Self, TokenError> {
        let module = Module::load(&uri.module)?;
        let context = module.context();
        let (open, public) = begin(&module, &context, &uri, |session, key| object::read(session, key, &uri))?;
        drop(context);
        let key = Self {
            module,
            uri,
            public: Arc::new(public),
            limits,
            permits: Arc::new(Semaphore::new(limits.sessions)),
            queue: Semaphore::new(limits.sessions.saturating_add(MAX_WAITING)),
            idle: Mutex::new(vec![open]),
            trouble: Mutex::default(),
            lost: Arc::default(),
            said: Throttle::default(),
        };
        key.sign_now(TRIAL)?;
        Ok(key)
    }

    pub fn public(&self) -> &Arc<Public> {
        &self.public
    }

    /// By the last signature or test.
    pub fn is_well(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// In the JWS form.
    ///
    /// # Errors
    /// See [`TokenError`]; it is also logged.
    pub async fn sign(self: &Arc<Self>, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        let Ok(_queued) = self.queue.try_acquire() else { return Err(TokenError::Busy) };
        let signing = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let (key, input) = (Arc::clone(self), input.to_vec());
            let signed = spawn_blocking(move || {
                let _permit = permit;
                key.sign_now(&input)
            });
            signed.await.unwrap_or(Err(TokenError::Unfit("the module panicked")))
        };
        let signed = timeout(self.limits.timeout, signing).await;
        let signed = signed.unwrap_or(Err(TokenError::TimedOut(self.limits.timeout)));
        self.note(signed.as_ref().err());
        signed
    }

    fn sign_now(&self, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        let context = self.module.context();
        if let Some(open) = self.take_idle(&context) {
            if let Ok(signature) = self.sign_in(&open, input) {
                self.give_back(open);
                return Ok(signature);
            }
            // The session, its login or the key's handle was lost, and then all of them are. A new session shows the cause.
            open.close();
            while let Some(other) = self.take_idle(&context) {
                other.close();
            }
        }
        let (open, ()) = begin(&self.module, &context, &self.uri, |_, _| Ok(()))?;
        match self.sign_in(&open, input) {
            Ok(signature) => {
                self.give_back(open);
                Ok(signature)
            }
            Err(error) => {
                open.close();
                Err(error)
            }
        }
    }

    /// A faulty signature, or one of another key, is never returned: a faulty RSA signature could reveal the key.
    fn sign_in(&self, open: &Open, input: &[u8]) -> Result<Vec<u8>, TokenError> {
        let signature = match self.public.key() {
            PublicKey::Rsa { .. } => open.session.sign(&Mechanism::Sha256RsaPkcs, open.key, input),
            // Not every token hashes for ECDSA.
            PublicKey::Ec { .. } => {
                let hash = digest::digest(&digest::SHA256, input);
                open.session.sign(&Mechanism::Ecdsa, open.key, hash.as_ref())
            }
            PublicKey::Ed25519(_) => {
                let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
                open.session.sign(&pure, open.key, input)
            }
        }?;
        match self.public.verifies(input, &signature) {
            true => Ok(signature),
            false => Err(TokenError::Mismatch),
        }
    }

    fn take_idle(&self, context: &Context) -> Option<Open> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| open.epoch == context.epoch);
        idle.pop()
    }

    fn give_back(&self, open: Open) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(open);
    }

    fn note(&self, error: Option<&TokenError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let kid = self.public.kid();
        match error {
            // It says nothing about the token.
            Some(TokenError::Busy) => return,
            Some(error) => {
                let error = error.to_string();
                if trouble.as_ref() != Some(&error)
                    && let Some(more) = self.said.pass(Instant::now())
                {
                    tracing::error!(kid, error, more, "a token does not sign");
                }
                *trouble = Some(error);
            }
            None => {
                if trouble.take().is_some() {
                    tracing::info!(kid, "the token signs again");
                }
                return;
            }
        }
        drop(trouble);
        self.lost.notify_one();
    }

    async fn begin_anew(self: &Arc<Self>) {
        let key = Arc::clone(self);
        let anew = spawn_blocking(move || key.module.begin_anew());
        // It continues if it takes longer. No other attempt begins meanwhile.
        let _ = timeout(self.limits.timeout, anew).await;
    }
}

/// Tries the key at intervals, and a key that failed until it signs again. Runs as long as the key is in use.
pub async fn tend(key: Weak<TokenKey>) {
    let Some(lost) = key.upgrade().map(|key| Arc::clone(&key.lost)) else { return };
    let mut pause = TRIED_EVERY;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = lost.notified(), if pause == TRIED_EVERY => {
                pause = RETRY_FIRST;
                continue;
            }
        }
        let Some(key) = key.upgrade() else { return };
        let mut tried = key.sign(TRIAL).await;
        if tried.as_ref().is_err_and(TokenError::may_be_lost) {
            key.begin_anew().await;
            tried = key.sign(TRIAL).await;
        }
        pause = match tried {
            Ok(_) => TRIED_EVERY,
            Err(_) if pause == TRIED_EVERY => RETRY_FIRST,
            Err(_) => (pause * 2).min(RETRY_MOST),
        };
    }
}

/// A session in which the key was found, and the result of `look`.
fn begin<T>(
    module: &Module,
    context: &Context,
    uri: &Pkcs11Uri,
    look: impl FnOnce(&Session, ObjectHandle) -> Result<T, TokenError>,
) -> Result<(Open, T), TokenError> {
    let session = module.open(context, uri)?;
    let looked = object::find(&session, uri).and_then(|key| Ok((key, look(&session, key)?)));
    match looked {
        Ok((key, seen)) => Ok((Open { session, key, epoch: context.epoch }, seen)),
        Err(error) => {
            let _ = session.close();
            Err(error)
        }
    }
}

impl Open {
    /// Fails if it is already lost.
    fn close(self) {
        let _ = self.session.close();
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?})", self.public)
    }
}
