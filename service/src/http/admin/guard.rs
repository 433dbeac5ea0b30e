//! What every admin call passes: who is it, is it too much, and what is to be remembered of it.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::app::server::Shared;
use crate::base::connections::{Certificate, Proof};
use crate::base::throttle::Throttle;
use crate::domain::audit::Event;

/// Whoever has the one bearer secret.
const BEARER: &str = "admin";
/// Callers that are told apart; more share one allowance. Only who is authenticated counts.
const MAX_CALLERS: usize = 1024;
/// Refused calls in a second, from everybody; more are not even told why.
const MAX_REFUSED: u32 = 50;
/// How often a refusal is written to the audit stream. Strangers cause them, and at one a second they would push out of it
/// what is to be kept for months.
pub const TOLD: Duration = Duration::from_secs(60);

/// Who calls, after it was checked.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<str>);

/// What the audit entry of this call says; handlers add what they know.
#[derive(Debug, Clone)]
pub struct Record(Arc<Mutex<Option<Event>>>);

/// How many calls each caller may make: so many at once, and as many more in each second.
#[derive(Debug)]
pub struct Rates {
    per_second: u32,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
    refused: Mutex<Bucket>,
    /// Refused calls, as they are written to the audit stream.
    pub told: Throttle,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Record {
    pub fn about(&self, say: impl FnOnce(&mut Event)) {
        if let Some(event) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            say(event);
        }
    }

    /// This call leaves no entry.
    pub fn nothing(&self) {
        self.take();
    }

    fn take(&self) -> Option<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Rates {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let refused = Bucket { left: f64::from(MAX_REFUSED), at: now };
        Self { per_second, buckets: Mutex::default(), refused: Mutex::new(refused), told: Throttle::every(TOLD) }
    }

    fn take(&self, caller: &Arc<str>, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = match buckets.len() >= MAX_CALLERS && !buckets.contains_key(caller) {
            true => Arc::from(""),
            false => Arc::clone(caller),
        };
        let full = Bucket { left: f64::from(self.per_second), at: now };
        buckets.entry(caller).or_insert(full).take(self.per_second, now)
    }

    fn take_refused(&self, now: Instant) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take(MAX_REFUSED, now)
    }
}

impl Bucket {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let most = f64::from(per_second);
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * most).min(most);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// Middleware of every route that needs a caller.
pub async fn guard(
    State(shared): State<Arc<Shared>>,
    Extension(proof): Extension<Proof>,
    mut request: Request,
    next: Next,
) -> Response {
    let now = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", |path| path.as_str());
    let action = format!("{} {route}", request.method());
    let certificate = request.extensions().get::<Certificate>();
    let Some(caller) = caller(&shared, certificate, request.headers()) else {
        return refuse(&shared, proof.address(), &action, now).await;
    };
    proof.given();
    let mut event = Event::new(&caller, &action, "");
    event.from = Some(proof.address().to_string());
    if !shared.rates.take(&caller, now) {
        if let Some(more) = shared.rates.told.pass(now) {
            event.reason = left_out(more);
            event.outcome = StatusCode::TOO_MANY_REQUESTS.as_str().to_owned();
            shared.audit.write(event).await;
        }
        return too_many();
    }
    let record = Record(Arc::new(Mutex::new(Some(event))));
    request.extensions_mut().insert(Caller(Arc::clone(&caller)));
    request.extensions_mut().insert(record.clone());
    // A task of its own: who hangs up neither undoes what was begun nor keeps it from being remembered.
    let task = Arc::clone(&shared).work.spawn(async move {
        let response = next.run(request).await;
        if let Some(mut event) = record.take() {
            if event.outcome.is_empty() {
                let status = response.status();
                event.outcome = if status.is_success() { "done".to_owned() } else { status.as_str().to_owned() };
            }
            shared.audit.write(event).await;
        }
        response
    });
    task.await.unwrap_or_else(|_| Problem::internal().into_response())
}

/// By certificate where the connection has a good one, else by the bearer secret where that is enough.
fn caller(shared: &Shared, certificate: Option<&Certificate>, headers: &HeaderMap) -> Option<Arc<str>> {
    let tls = shared.options.admin_tls.as_ref();
    if let (Some(Certificate(names)), Some(tls)) = (certificate, tls)
        && let Some(name) = tls.allowed(names)
    {
        return Some(format!("certificate:{name}").into());
    }
    if tls.is_some_and(|tls| tls.require_certificate) {
        return None;
    }
    bearer(headers).filter(|token| shared.options.admin_token.is(token)).map(|_| BEARER.into())
}

async fn refuse(shared: &Shared, peer: IpAddr, action: &str, now: Instant) -> Response {
    if !shared.rates.take_refused(now) {
        return too_many();
    }
    if let Some(more) = shared.rates.told.pass(now) {
        let (from, reason) = (Some(peer.to_string()), left_out(more));
        shared.audit.write(Event { from, reason, ..Event::new("nobody", action, "401") }).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis admin\"")];
    (challenge, Problem::new(StatusCode::UNAUTHORIZED, "unauthorized")).into_response()
}

fn left_out(more: u64) -> Option<String> {
    (more > 0).then(|| format!("and {more} more since the last such entry"))
}

fn too_many() -> Response {
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests").into_response();
    let second = HeaderValue::from(Duration::from_secs(1).as_secs());
    response.headers_mut().insert(header::RETRY_AFTER, second);
    response
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    // Two credentials: which one was checked is anybody's guess.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_calls_at_once_and_in_each_second() {
        let start = Instant::now();
        let rates = Rates::new(2, start);
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let at = |millis| start + Duration::from_millis(millis);
        let taken = [at(0), at(0), at(0), at(499), at(500), at(999), at(1000)].map(|now| rates.take(&one, now));
        assert_eq!(taken, [true, true, false, false, true, false, true]);
        assert!(rates.take(&other, at(0)));
        assert_eq!([at(9000), at(9000), at(9000)].map(|now| rates.take(&one, now)), [true, true, false]);
    }

    #[test]
    fn callers_beyond_the_bound_share_one_allowance() {
        let start = Instant::now();
        let rates = Rates::new(1, start);
        for n in 0..MAX_CALLERS {
            assert!(rates.take(&n.to_string().into(), start));
        }
        assert!(rates.take(&"late".into(), start));
        assert!(!rates.take(&"later".into(), start));
        assert_eq!(rates.buckets.lock().unwrap().len(), MAX_CALLERS + 1);
    }
}
