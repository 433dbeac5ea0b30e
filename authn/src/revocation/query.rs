//! The revocation query of a token, and the meaning of the answers. `checks` decides when it is sent.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jose::json::Object;
use wire::{Answer, DerivedKeys, Kind, Retention, RevocationKey, token_id_from_jti, token_id_from_signing_input};

use crate::claims::identifiers::Identifiers;
use crate::reject::{Cause, Rejection};
use crate::revocation::Revocation;
use crate::time::{Monotonic, UnixSeconds};

/// The keys that could end one token, and the time that `before` answers are compared with.
#[derive(Debug)]
pub struct RevocationQuery {
    /// Rarely more than one of each kind.
    pub keys: Vec<RevocationKey>,
    pub issued: UnixSeconds,
    /// How long revocations must be kept for an answer to count.
    pub needs: Retention,
    digest: Digest,
    /// Names the token's session in reports, or the token if it belongs to none.
    pub(crate) session: Option<(Kind, RevocationKey)>,
    /// Names its user.
    pub(crate) user: Option<RevocationKey>,
    /// When the user logged in, compared with demands for a login; 0 if that is not known.
    login: UnixSeconds,
    /// How many of the keys, before the shared ones, are demands for a login.
    demands: usize,
    /// How many of the keys, at the end of the list, are shared by many tokens: client, signing key, issuer.
    shared: usize,
    /// The newest verdict, and when its check was sent.
    verdict: NewestVerdict,
    /// When it was last refreshed while a verdict was still fresh, in nanoseconds; 0 is never.
    refreshed: AtomicU64,
    /// Where and when it was last reported; 0 is never.
    sighted: AtomicU64,
    /// None of the keys is among those of the feed with a smaller number.
    clear: AtomicU64,
}

/// Identifies exactly one query: all of its keys, `issued` and `login`. Two tokens may share a `jti`, and only the whole shows that
/// they share a verdict.
#[derive(Debug)]
enum Digest {
    Known([u8; 16]),
    /// Computed when it is needed first: never for a token that the feed alone decides about.
    Lazy {
        derived: Arc<DerivedKeys>,
        once: OnceLock<[u8; 16]>,
    },
}

/// Two queries are equal if they ask the same; their verdicts are not compared.
impl PartialEq for RevocationQuery {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
            && self.issued == other.issued
            && self.login == other.login
            && self.needs == other.needs
            && self.shared == other.shared
    }
}

impl Eq for RevocationQuery {}

/// The newest verdict and the time of its check, in one word: the time times 64, a bit for dead, four for the key that
/// ends it, a bit for known.
///
/// The larger word is the newer verdict, and of two with the same time the one that ends the token. So threads that
/// learn verdicts at the same time agree, and an allow never replaces a newer revocation.
#[derive(Debug, Default)]
struct NewestVerdict(AtomicU64);

impl NewestVerdict {
    const KNOWN: u64 = 1;
    const DEAD: u64 = 1 << 5;

    fn get(&self) -> Option<(Monotonic, Verdict)> {
        let word = self.0.load(Ordering::Relaxed);
        let by = KeyPosition(((word >> 1) & u64::from(KeyPosition::BEYOND)) as u8);
        let verdict = if word & Self::DEAD == 0 { Verdict::Live } else { Verdict::Dead { by } };
        (word & Self::KNOWN != 0).then_some((Monotonic(word >> 6), verdict))
    }

    fn learn(&self, sent: Monotonic, verdict: Verdict) {
        let dead = match verdict {
            Verdict::Live => 0,
            Verdict::Dead { by } => Self::DEAD | (u64::from(by.0) << 1),
        };
        // 58 bits of nanoseconds are 9 years.
        self.0.fetch_max((sent.0 << 6) | dead | Self::KNOWN, Ordering::Relaxed);
    }
}

/// The meaning of a complete set of answers for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Live,
    Dead {
        /// The first key of the query that ends the token.
        by: KeyPosition,
    },
}

/// The position of a key in its query, for the log. Keys after the fifteenth are not told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPosition(u8);

impl KeyPosition {
    const BEYOND: u8 = 15;

    pub fn new(position: usize) -> Self {
        Self(u8::try_from(position).map_or(Self::BEYOND, |position| position.min(Self::BEYOND)))
    }

    /// The position; `None` if it is not known.
    pub fn get(self) -> Option<usize> {
        (self.0 < Self::BEYOND).then_some(usize::from(self.0))
    }

    pub fn as_byte(self) -> u8 {
        self.0
    }
}

/// The issuer of a token.
#[derive(Clone, Copy)]
pub(crate) struct Whose<'w> {
    /// Index of the issuer in the document.
    pub index: usize,
    /// The token's `iss`.
    pub issuer: &'w str,
    /// The issuer as in the document: for a tenant, the pattern of its provider.
    pub entry: &'w str,
    pub identifiers: &'w Identifiers,
}

impl RevocationQuery {
    /// # Errors
    /// [`crate::reject::RejectReason::InvalidClaim`] for a token without a usable issue time,
    /// [`crate::reject::RejectReason::ClaimInsufficient`] for one without any identifier to revoke it by.
    pub(crate) fn new(
        revocation: &Revocation,
        whose: Whose<'_>,
        payload: &Object<'_>,
        signing_input: &[u8],
        thumbprint: Option<&[u8; 32]>,
        issued: Option<UnixSeconds>,
    ) -> Result<Self, Rejection> {
        let Some(issued) = issued else {
            return Err(Rejection::new(Cause::IssuedUnknown));
        };
        let index = whose.index;
        let mut keys = keys(revocation, whose, payload, signing_input, thumbprint)?;
        keys.sort_by_key(|(kind, _)| (kind.is_shared(), *kind == Kind::StepUp));
        let demands = keys.iter().filter(|(kind, _)| *kind == Kind::StepUp).count();
        let login = revocation.step_up.as_ref().map_or(UnixSeconds(0), |step_up| step_up.time_of_login(payload));
        let shared = keys.iter().filter(|(kind, _)| kind.is_shared()).count();
        let first = |wanted| keys.iter().copied().find(|(kind, _)| *kind == wanted);
        let session = first(Kind::Session).or_else(|| first(Kind::Token));
        let user = first(Kind::User).map(|(_, user)| user);
        let keys: Vec<RevocationKey> = keys.into_iter().map(|(_, key)| key).collect();
        if keys.is_empty() {
            // Another token of the same issuer would have none either.
            return Err(Rejection::new(Cause::NothingToRevoke));
        }
        let digest = Digest::Lazy { derived: Arc::clone(&revocation.derived), once: OnceLock::new() };
        Ok(Self { session, user, login, demands, ..Self::with(keys, shared, issued, revocation.needs(index), digest) })
    }

    /// With a digest that stands for it.
    pub fn of(
        keys: Vec<RevocationKey>,
        shared: usize,
        issued: UnixSeconds,
        needs: Retention,
        digest: [u8; 16],
    ) -> Self {
        Self::with(keys, shared, issued, needs, Digest::Known(digest))
    }

    fn with(keys: Vec<RevocationKey>, shared: usize, issued: UnixSeconds, needs: Retention, digest: Digest) -> Self {
        let [refreshed, sighted, clear] = [0, 0, 0].map(AtomicU64::new);
        let (verdict, session, user) = (NewestVerdict::default(), None, None);
        let (login, demands) = (UnixSeconds(0), 0);
        Self { keys, login, demands, shared, issued, needs, digest, session, user, verdict, refreshed, sighted, clear }
    }

    /// Two queries with the same digest are the same.
    pub fn digest(&self) -> &[u8; 16] {
        match &self.digest {
            Digest::Known(digest) => digest,
            Digest::Lazy { derived, once } => once.get_or_init(|| digest(derived, &self.keys, self.issued, self.login)),
        }
    }

    /// The keys of this token alone, and those that many tokens share.
    pub fn own_and_shared_keys(&self) -> (&[RevocationKey], &[RevocationKey]) {
        self.keys.split_at_checked(self.keys.len().saturating_sub(self.shared)).unwrap_or((&self.keys, &[]))
    }

    pub fn verdict(&self) -> Option<(Monotonic, Verdict)> {
        self.verdict.get()
    }

    /// Stores a verdict, unless a newer one is known: an allow in flight must not overwrite a later revocation.
    pub fn learn(&self, sent: Monotonic, verdict: Verdict) {
        self.verdict.learn(sent, verdict);
    }

    /// Must a verdict of that time be refreshed before it is stale? True only once in a while, not for every request
    /// until the answer arrives.
    pub(crate) fn begins_refresh(&self, revocation: &Revocation, sent: Monotonic, now: Monotonic) -> bool {
        if !revocation.refreshes_ahead || revocation.is_young(sent, now) {
            return false;
        }
        let last = self.refreshed.load(Ordering::Relaxed);
        if last != 0 && now.since(Monotonic(last)) < revocation.timeout {
            return false;
        }
        // Of several threads at the same moment, one starts.
        self.refreshed.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Takes over the verdict and the mark of the last report of an equal query.
    pub(crate) fn inherit(&self, earlier: &Self) {
        if let Some((sent, verdict)) = earlier.verdict() {
            self.learn(sent, verdict);
        }
        self.sighted.store(earlier.sighted.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Changes the mark of its last report. `None`: `change` keeps it, or another thread has changed it.
    pub(crate) fn sighted(&self, change: impl FnOnce(u64) -> Option<u64>) -> Option<()> {
        let last = self.sighted.load(Ordering::Relaxed);
        let next = change(last)?;
        self.sighted.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed).ok().map(drop)
    }

    /// The number of the first key of the feed that was not yet compared with this token's.
    pub(super) fn clear_until(&self) -> u64 {
        self.clear.load(Ordering::Relaxed)
    }

    /// A thread with an older picture does not undo what one with a newer picture found.
    pub(super) fn is_clear_until(&self, number: u64) {
        self.clear.fetch_max(number, Ordering::Relaxed);
    }

    /// The verdict from one answer for each of [`RevocationQuery::keys`].
    pub fn judge(&self, answers: impl IntoIterator<Item = Answer>) -> Verdict {
        let mut demand = None;
        for (position, answer) in answers.into_iter().enumerate() {
            let is_demand = self.is_demand(position);
            if answer.ends(if is_demand { self.login.0 } else { self.issued.0 }) {
                let dead = Verdict::Dead { by: KeyPosition::new(position) };
                if !is_demand {
                    return dead;
                }
                demand = Some(dead);
            }
        }
        // A login does not help a token that was revoked: the client is told so first.
        demand.unwrap_or(Verdict::Live)
    }

    /// Why a request is refused by a key of this query.
    pub(crate) fn cause(&self, by: KeyPosition) -> Cause {
        match by.get() {
            Some(position) if self.is_demand(position) => Cause::LoginDemanded,
            Some(_) | None => Cause::Revoked,
        }
    }

    fn is_demand(&self, position: usize) -> bool {
        let end = self.keys.len().saturating_sub(self.shared);
        position < end && position >= end.saturating_sub(self.demands)
    }
}

/// The keys that could end one token. An opaque token is its own signing input, and no key has signed it.
pub(crate) fn keys(
    revocation: &Revocation,
    Whose { issuer, entry, identifiers, .. }: Whose<'_>,
    payload: &Object<'_>,
    signing_input: &[u8],
    thumbprint: Option<&[u8; 32]>,
) -> Result<Vec<(Kind, RevocationKey)>, Rejection> {
    let mut keys = Vec::with_capacity(revocation.kinds.len());
    let mut add = |kind: Kind, issuer: &str, id: &[u8]| {
        keys.push((kind, revocation.memo.derive(&revocation.derived, kind, issuer, id)));
    };
    // A provider signs for all of its tenants with the same keys: a revocation of the pattern may end tokens of all
    // tenants.
    let entry = (entry != issuer).then_some(entry);
    for &kind in &revocation.kinds {
        match kind {
            Kind::Token => match identifiers.find(kind, payload)? {
                Some(jti) => add(kind, issuer, &token_id_from_jti(jti)),
                None => add(kind, issuer, &token_id_from_signing_input(signing_input)),
            },
            Kind::Session => identifiers.sessions(payload)?.for_each(|id| add(kind, issuer, id.as_bytes())),
            Kind::User | Kind::Client => {
                if let Some(id) = identifiers.find(kind, payload)? {
                    add(kind, issuer, id.as_bytes());
                }
            }
            Kind::SigningKey => {
                if let Some(id) = thumbprint.map(jose::base64url::encode) {
                    [Some(issuer), entry].into_iter().flatten().for_each(|issuer| add(kind, issuer, id.as_bytes()));
                }
            }
            Kind::Issuer => [Some(issuer), entry].into_iter().flatten().for_each(|issuer| add(kind, issuer, b"")),
            Kind::StepUp => {}
        }
    }
    if revocation.step_up.is_some() {
        let of = |wanted: Kind| keys.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, key)| *key);
        let mut named: Vec<RevocationKey> = of(Kind::Session).collect();
        if named.is_empty() {
            named.extend(of(Kind::Token));
        }
        keys.extend(named.into_iter().map(|key| (Kind::StepUp, revocation.derived.step_up_key(key))));
    }
    Ok(keys)
}

fn digest(derived: &DerivedKeys, keys: &[RevocationKey], issued: UnixSeconds, login: UnixSeconds) -> [u8; 16] {
    let mut parts: Vec<&[u8]> = Vec::with_capacity(keys.len().saturating_add(2));
    let (issued, login) = (issued.0.to_be_bytes(), login.0.to_be_bytes());
    parts.extend([issued.as_slice(), &login]);
    parts.extend(keys.iter().map(|key| key.0.as_slice()));
    derived.cache_mac(&parts)
}
