use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mint::{Alg, SigningKey as Minted};
use serde_json::Value;
use store::memory::{Contents, MemoryStore};
use store::{Ends, Revocation, StoreId};
use wire::Secret;

use super::*;
use crate::signing::{Metrics, SigningKey};

const HOUR: u64 = 3600;

struct Stack {
    contents: Contents,
    store: Arc<MemoryStore>,
    lists: StatusLists,
}

fn stack(lists: u16, ttl: Duration) -> Stack {
    let contents = Contents::default();
    contents.create(StoreId::new([7; 16]));
    let store = Arc::new(MemoryStore::open(&contents, Duration::ZERO));
    let lists = StatusLists::new(config(lists, ttl), parts(&store, &[1]));
    Stack { contents, store, lists }
}

fn config(lists: u16, ttl: Duration) -> Config {
    Config { issuer: "https://sessions.example".into(), url: "https://sessions.example/status".into(), lists, ttl }
}

fn parts(store: &Arc<MemoryStore>, secrets: &[u8]) -> Parts {
    let secrets: Vec<Secret> = secrets.iter().map(|byte| Secret::new(&[*byte; 32]).unwrap()).collect();
    let key = SigningKey::from_pem(&Minted::generate(Alg::ES256, "x").private_pem().unwrap()).unwrap();
    let signing = Signing::new(vec![Arc::new(key)], Duration::ZERO, Metrics::default(), Instant::now());
    Parts {
        ring: Arc::new(Ring::new(&secrets)),
        signing: Arc::new(signing),
        session_store: Arc::clone(store) as _,
        replay_guard: Arc::clone(store) as _,
        revocation_store: Arc::clone(store) as _,
        events: event_counters(),
    }
}

fn key(byte: u8) -> RevocationKey {
    RevocationKey([byte; 16])
}

impl Stack {
    /// A token of a user who logged in at `auth_time`.
    async fn issue(&self, token: u8, user: u8, auth_time: u64) -> Place {
        let exp = unix_seconds() + HOUR;
        let place = self.lists.choose(exp).await.unwrap();
        self.lists.enter(place, exp, auth_time, vec![key(token), key(user)]).await.unwrap();
        place
    }

    async fn revoke(&self, revoked: u8, ends: Ends) {
        let revocation = Revocation { key: key(revoked), ends, sealed: Vec::new(), ttl: None };
        self.store.revoke(vec![revocation]).await.unwrap();
    }
}

fn claims(published: &Published) -> Value {
    let payload = published.token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// As a reader would find it.
fn status(published: &Published, index: u32) -> u8 {
    let list = &claims(published)["status_list"];
    assert_eq!(list["bits"], 1);
    let compressed = URL_SAFE_NO_PAD.decode(list["lst"].as_str().unwrap()).unwrap();
    let bits = miniz_oxide::inflate::decompress_to_vec_zlib(&compressed).unwrap();
    assert_eq!(bits.len(), 8192);
    bits[index as usize / 8] >> (index % 8) & 1
}

async fn publish(lists: &StatusLists, list: u16) -> Published {
    lists.publish(list).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_token_is_invalid_once_it_or_an_earlier_login_of_its_user_was_revoked() {
    let stack = stack(1, Duration::ZERO);
    let now = unix_seconds();
    let revoked = stack.issue(1, 100, now).await;
    let of_user = stack.issue(2, 101, now - 10).await;
    let later_login = stack.issue(3, 101, now + 10).await;
    let other = stack.issue(4, 102, now).await;
    let all = [revoked, of_user, later_login, other];
    let before = publish(&stack.lists, 0).await;
    assert!(all.iter().all(|place| status(&before, place.index) == 0));
    stack.revoke(1, Ends::ForGood).await;
    stack.revoke(101, Ends::IssuedUntilNow).await;
    let after = publish(&stack.lists, 0).await;
    assert_eq!(all.map(|place| status(&after, place.index)), [1, 1, 0, 0]);
}

#[tokio::test]
async fn a_list_says_whose_it_is_and_how_long_it_counts() {
    let stack = stack(2, Duration::from_secs(60));
    let now = unix_seconds();
    let published = publish(&stack.lists, 1).await;
    let claims = claims(&published);
    assert_eq!(claims["iss"], "https://sessions.example");
    assert_eq!(claims["sub"], "https://sessions.example/status/1");
    assert_eq!(claims["ttl"], 30);
    let iat = claims["iat"].as_u64().unwrap();
    assert!((now..now + 5).contains(&iat));
    assert_eq!(claims["exp"], iat + 60);
    let header = published.token.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header["typ"], "statuslist+jwt");
    assert!(stack.lists.publish(2).await.unwrap().is_none());
    let claim = serde_json::to_value(stack.lists.claim(Place { list: 1, index: 9 })).unwrap();
    assert_eq!(claim["status_list"]["uri"], claims["sub"]);
    assert_eq!(claim["status_list"]["idx"], 9);
}

#[tokio::test]
async fn a_list_is_built_once_for_all_readers_of_half_its_time() {
    let stack = stack(1, Duration::from_secs(60));
    let place = stack.issue(1, 100, 0).await;
    let first = publish(&stack.lists, 0).await;
    stack.revoke(1, Ends::ForGood).await;
    let second = publish(&stack.lists, 0).await;
    assert_eq!((&second.token, status(&second, place.index)), (&first.token, 0));
    assert!(second.left() <= Duration::from_secs(30));
}

#[tokio::test]
async fn an_instance_publishes_what_others_issued_also_under_an_older_secret() {
    let stack = stack(1, Duration::ZERO);
    let place = stack.issue(1, 100, 0).await;
    stack.revoke(1, Ends::ForGood).await;
    let rotated = StatusLists::new(config(1, Duration::ZERO), parts(&stack.store, &[2, 1]));
    assert_eq!(status(&publish(&rotated, 0).await, place.index), 1);
    let other_issuer = Config { issuer: "https://other.example".into(), ..config(1, Duration::ZERO) };
    let other = StatusLists::new(other_issuer, parts(&stack.store, &[1]));
    assert_eq!(status(&publish(&other, 0).await, place.index), 0);
}

/// Gives so many claims.
#[derive(Debug)]
struct Guard {
    left: AtomicUsize,
    claimed: std::sync::Mutex<HashSet<String>>,
}

#[async_trait]
impl ReplayGuard for Guard {
    async fn claim(&self, digest: &str, _: Duration) -> Result<Claim, StoreError> {
        let is_left = self.left.load(Ordering::Relaxed) > 0;
        if !is_left || !self.claimed.lock().unwrap().insert(digest.to_owned()) {
            return Ok(Claim::Pending);
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        Ok(Claim::Claimed)
    }

    async fn complete(&self, _: &str, _: Duration) -> Result<(), StoreError> {
        unreachable!("a place is claimed for as long as it is needed");
    }

    async fn release(&self, digest: &str) -> Result<(), StoreError> {
        if self.claimed.lock().unwrap().remove(digest) {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_index_is_given_twice_and_a_full_list_gives_none() {
    let stack = stack(3, Duration::ZERO);
    let guard = Arc::new(Guard { left: 2000.into(), claimed: std::sync::Mutex::default() });
    let parts = Parts { replay_guard: guard, ..parts(&stack.store, &[1]) };
    let lists = StatusLists::new(config(3, Duration::ZERO), parts);
    let mut places = HashSet::new();
    for _ in 0..2000 {
        let place = lists.choose(HOUR).await.unwrap();
        assert!(place.list < 3 && place.index < LIST_SIZE && places.insert((place.list, place.index)));
    }
    assert_eq!(lists.choose(HOUR).await, Err(PlaceError::Full));
    lists.release(Place { list: 3, index: 0 }).await;
    assert_eq!(lists.choose(HOUR).await, Err(PlaceError::Full));
    let (list, index) = *places.iter().next().unwrap();
    lists.release(Place { list, index }).await;
    assert!(lists.choose(HOUR).await.is_ok());
}

#[tokio::test]
async fn an_expired_token_does_not_speak_for_the_next_one_at_its_index() {
    let stack = stack(1, Duration::ZERO);
    stack.revoke(1, Ends::ForGood).await;
    let place = Place { list: 0, index: 5 };
    let long_ago = unix_seconds() - 301;
    stack.lists.enter(place, long_ago, 0, vec![key(1)]).await.unwrap();
    stack.lists.enter(place, unix_seconds() + HOUR, 0, vec![key(2)]).await.unwrap();
    assert_eq!(status(&publish(&stack.lists, 0).await, 5), 0);
    // A reader's clock may be behind.
    stack.lists.enter(place, unix_seconds() - 299, 0, vec![key(1)]).await.unwrap();
    assert_eq!(status(&publish(&stack.lists, 0).await, 5), 1);
}

#[tokio::test]
async fn nothing_is_published_of_a_store_that_was_lost_or_has_what_we_cannot_read() {
    let stack = stack(1, Duration::ZERO);
    let place = stack.issue(1, 100, 0).await;
    let ring = &stack.lists.parts.ring;
    let name = ring.status_page_name(ring.first(), "https://sessions.example", 0, place.page());
    let entry = IndexEntry { sid: "of a later version".into(), lifetime: Duration::from_secs(HOUR) };
    stack.store.index(SubjectName(name.0), entry, MAX_PAGE).await.unwrap();
    assert_eq!(stack.lists.publish(0).await.unwrap_err(), PublishError::Store(StoreError::StoreFailed));
    stack.contents.lose();
    assert_eq!(stack.lists.publish(0).await.unwrap_err(), PublishError::Store(StoreError::StoreChanged));
    assert_eq!(stack.lists.choose(0).await, Err(PlaceError::Store(StoreError::StoreChanged)));
}
