use std::path::Path;
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey};
use serde_json::json;
use store::memory::{Contents, MemoryStore};
use tokio_util::task::TaskTracker;
use wire::Secret;

use super::*;
use crate::base::clock::unix_seconds;
use crate::domain::audit::Audit;
use crate::domain::feed::Nudge;
use crate::domain::issuers::Issuers;
use crate::domain::provider_events::{Endpoint, Metrics, Parts, Providers};
use crate::domain::revocations::{self, Policy, Revocations};
use crate::model::note::NoteCipher;
use crate::model::session_keys::Ring;

const ISSUER: &str = "https://op.example";
const OLD: &[u8] = b"the-old-secret-of-a-client-32-byte";
const NEW: &[u8] = b"the-new-secret-of-a-client-32-byte";

fn provider(secret_file: &Path, secret: &[u8], audience: &str) -> LoadedProviders {
    std::fs::write(secret_file, secret).unwrap();
    let provider = json!({
        "issuer": ISSUER, "audiences": [audience], "algorithms": ["HS256"], "secret_file": secret_file, "logout": {},
    });
    let providers: Providers = serde_json::from_value(json!({ "providers": [provider] })).unwrap();
    LoadedProviders::load(&providers).unwrap()
}

fn events(providers: LoadedProviders) -> Arc<ProviderEvents> {
    let store = Arc::new(MemoryStore::open(&Contents::default(), Duration::ZERO));
    let secret = Secret::new(&[1; 32]).unwrap();
    let secrets: Arc<[_]> = [secret.derive()].into();
    let revocations = Revocations::new(revocations::Parts {
        store: store.clone(),
        cipher: NoteCipher::new(&secrets).unwrap(),
        secrets,
        issuers: Arc::new(Issuers::new(store.clone(), vec![ISSUER.into()])),
        policy: Policy::default(),
        written: revocations::counters(),
        feed: Nudge::default(),
        transmitter: Arc::default(),
    });
    let parts = Parts {
        replay_guard: store.clone(),
        revocations: Arc::new(revocations),
        audit: Arc::new(Audit::new(store, Arc::new(Ring::new(&[secret])), Duration::from_secs(60))),
        work: TaskTracker::new(),
        metrics: Metrics::default(),
    };
    Arc::new(ProviderEvents::new(providers, Duration::from_secs(5), parts))
}

fn logout(secret: &[u8]) -> String {
    let claims = json!({
        "iss": ISSUER, "aud": "client", "iat": unix_seconds(), "jti": "j", "sid": "s",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let key = SigningKey::from_secret(Alg::HS256, None, secret).unwrap();
    key.sign(r#"{"alg":"HS256","typ":"logout+jwt"}"#, &claims.to_string())
}

#[tokio::test]
async fn a_verified_logout_that_waits_for_the_store_outlasts_a_rotation_of_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let events = events(provider(&file, OLD, "client"));
    events.work.close();
    let (former, text) = (events.state(ISSUER).unwrap(), logout(OLD));
    let (endpoint, arrived, arrived_at) = (Endpoint::Logout, Instant::now(), unix_seconds());
    let token =
        PendingToken { endpoint, text: text.clone(), body: None, arrived, arrived_at, judged: None, waiter: None };
    events.hold(&former, PendingFor::Store, token);

    events.replace(provider(&file, NEW, "client"));
    events.work.wait().await;
    let now = events.state(ISSUER).unwrap();
    assert!(!now.is_like(&former) && now.source.is_like(&former.source));
    assert_eq!((former.pending(PendingFor::Store).len(), now.pending(PendingFor::Store).len()), (0, 1));
    assert!(events.judge(endpoint, &text, None, arrived).is_err(), "the old secret is over for new tokens");

    // It is for an audience that is ours no longer.
    events.replace(provider(&file, NEW, "another"));
    events.work.wait().await;
    assert!(now.pending(PendingFor::Store).is_empty());
    assert!(events.state(ISSUER).unwrap().pending(PendingFor::Store).is_empty());
}
