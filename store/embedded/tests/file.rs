//! The file: what is refused at the start, and what is noticed while it is used.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use store::{
    AuditBounds, AuditLog as _, Claim, Durability, Ends, Observer, ReplayGuard as _, Revocation, RevocationStore as _,
    StoreError, Unobserved, WriteError,
};
use store_embedded::{Config, EmbeddedStore, MIN_MAX_BYTES, OpenError, compact, create_store};
use tempfile::TempDir;
use wire::{Answer, RevocationKey};

const HOUR: Duration = Duration::from_secs(3600);

fn config(path: &Path) -> Config {
    Config {
        path: path.to_owned(),
        create: false,
        store_id: None,
        max_bytes: 256 << 20,
        future_iat_tolerance_seconds: 1,
    }
}

fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(&config(path), Arc::new(Unobserved))
}

fn new() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    create_store(&path).unwrap();
    (folder, path)
}

fn key(number: u64) -> RevocationKey {
    // Spread over all shards.
    let mut key = [0x2d; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    RevocationKey(key)
}

fn revocation(number: u64) -> Revocation {
    Revocation { key: key(number), ends: Ends::ForGood, sealed: vec![7; 100], ttl: Some(HOUR) }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_on_disk() {
    let (_folder, path) = new();
    let store = open(&path).unwrap();
    let written = store.revoke(vec![revocation(1)]).await.unwrap();
    assert_eq!(written.durability, Durability { on_disk: true, replicas: 0 });
    drop(store);
    assert_eq!(open(&path).unwrap().check(&[key(1), key(2)]).await, Ok(vec![Answer::Dead, Answer::Live]));
}

#[test]
fn only_one_process_opens_it() {
    let (_folder, path) = new();
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::InUse(_))));
    drop(first);
    assert!(open(&path).is_ok());
}

#[test]
fn only_its_owner_can_read_it() {
    let (_folder, path) = new();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    open(&path).unwrap();
    assert_eq!(mode(), 0o600, "a copy that anybody could read is closed to them");
}

#[test]
fn a_missing_empty_or_foreign_file_is_not_a_store_in_which_nothing_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert!(matches!(open(&path), Err(OpenError::Missing(_))));
    for (content, expected) in [("", "is empty"), ("something else, long enough to be read", "not a store of ours")] {
        fs::write(&path, content).unwrap();
        for create in [false, true] {
            let config = Config { create, ..config(&path) };
            let error = EmbeddedStore::open(&config, Arc::new(Unobserved)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(matches!(create_store(&path), Err(OpenError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), content, "it stays as it is");
    }
    assert!(matches!(open(folder.path()), Err(OpenError::Io { .. } | OpenError::NotAStore(_))));
    let others = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(others, 1, "nothing is left behind");
}

#[test]
fn another_store_than_the_one_that_is_wanted_is_refused() {
    let (_folder, path) = new();
    let id = open(&path).unwrap().id();
    let with = |store_id| EmbeddedStore::open(&Config { store_id, ..config(&path) }, Arc::new(Unobserved));
    assert!(with(Some(id)).is_ok());
    let other = store::StoreId::new([5; 16]);
    assert!(matches!(with(Some(other)), Err(OpenError::Another { found, .. }) if found == id));
}

#[tokio::test]
async fn a_damaged_or_cut_file_is_refused_wherever_the_damage_is() {
    let (_folder, path) = new();
    let store = open(&path).unwrap();
    store.revoke((0..2000).map(revocation).collect()).await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for part in 0..64 {
        let mut damaged = whole.clone();
        let at = damaged.len() / 64 * part + 100;
        damaged[at..at + 32].iter_mut().for_each(|byte| *byte = !*byte);
        fs::write(&path, &damaged).unwrap();
        match open(&path) {
            // A page that nothing refers to.
            Ok(store) => {
                let keys: Vec<_> = (0..2000).map(key).collect();
                assert_eq!(store.check(&keys).await, Ok(vec![Answer::Dead; 2000]), "part {part}");
            }
            Err(OpenError::Damaged { .. } | OpenError::NotAStore(_)) => refused += 1,
            Err(other) => panic!("part {part}: {other}"),
        }
    }
    assert!(refused > 5, "only {refused} were refused");
    for kept in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..kept]).unwrap();
        let error = open(&path).err();
        assert!(matches!(error, Some(OpenError::Damaged { .. } | OpenError::NotAStore(_))), "{kept}: {error:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_used_is_noticed_and_nothing_is_acknowledged() {
    let (folder, path) = new();
    let store = open(&path).unwrap();
    store.revoke(vec![revocation(1)]).await.unwrap();
    let other = folder.path().join("other");
    create_store(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(store.check(&[key(1)]).await, Err(StoreError::StoreChanged));
    assert_eq!(store.health(), Err(StoreError::StoreChanged));
    assert!(store.revoke(vec![revocation(2)]).await.is_err());
}

#[derive(Debug, Default)]
struct Commits {
    commits: AtomicUsize,
    writes: AtomicUsize,
}

impl Observer for Commits {
    fn committed(&self, writes: usize, _: Duration) {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.writes.fetch_add(writes, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_are_committed_together() {
    let (_folder, path) = new();
    let commits = Arc::new(Commits::default());
    let store = Arc::new(EmbeddedStore::open(&config(&path), Arc::clone(&commits) as Arc<dyn Observer>).unwrap());
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..500 {
        let store = Arc::clone(&store);
        writes.spawn(async move { store.revoke(vec![revocation(number)]).await.unwrap() });
    }
    writes.join_all().await;
    let (commits, writes) = (commits.commits.load(Ordering::SeqCst), commits.writes.load(Ordering::SeqCst));
    assert_eq!(writes, 500);
    assert!(commits < 250, "{commits} commits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_takes_revocations_last_and_lifting_makes_room() {
    let (_folder, path) = new();
    let config = Config { max_bytes: MIN_MAX_BYTES, ..config(&path) };
    let store = EmbeddedStore::open(&config, Arc::new(Unobserved)).unwrap();
    let full = WriteError::NotWritten(StoreError::StoreFailed);
    let bounds = AuditBounds { max_age: HOUR, max_entries: 1_000_000 };
    let mut entries = 0;
    while store.append(vec![1; 4000], bounds).await.is_ok() {
        entries += 1;
        assert!(entries < 1000, "it has no bound");
    }
    assert!(entries > 100);
    store.revoke(vec![revocation(0)]).await.expect("the last tenth is for revocations");
    // A logout is claimed before it is carried out. A client with a token can make any number of proofs.
    assert_eq!(store.claim("a-logout", HOUR).await, Ok(Claim::Claimed));
    store.complete("a-logout", HOUR).await.expect("as it was claimed");
    assert_eq!(store.claim("dpop-a-proof", HOUR).await, Err(StoreError::StoreFailed));
    let mut revoked = 0;
    while store.revoke((1..=50).map(|number| revocation(revoked * 50 + number)).collect()).await.is_ok() {
        revoked += 1;
        assert!(revoked < 1000, "it has no bound");
    }
    assert_eq!(store.revoke((0..200).map(|number| revocation(1_000_000 + number)).collect()).await, Err(full));
    assert_eq!(store.check(&[key(0)]).await, Ok(vec![Answer::Dead]), "what is there is answered");
    let lifted = store.lift((1..=revoked * 50).map(key).collect()).await.unwrap();
    assert_eq!(lifted.removed, revoked * 50);
    store.revoke(vec![revocation(9_000_000)]).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_most_is_unused_is_compacted() {
    let (_folder, path) = new();
    let store = open(&path).unwrap();
    for part in 0..40_u64 {
        store.revoke((0..1000).map(|number| revocation(part * 1000 + number)).collect()).await.unwrap();
    }
    for part in 0..39_u64 {
        store.lift((0..1000).map(|number| key(part * 1000 + number)).collect()).await.unwrap();
    }
    drop(store);
    let done = compact(&path).unwrap();
    assert!(done.after < done.before / 2, "{done:?}");
    let store = open(&path).unwrap();
    assert_eq!(store.check(&[key(0), key(39_500)]).await, Ok(vec![Answer::Live, Answer::Dead]));
}

/// docs/stores.md and the help of `--store-max-size` tell the ratio.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_is_at_most_four_times_as_large_as_its_contents() {
    let (_folder, path) = new();
    let max_bytes = 4 << 20;
    let store = EmbeddedStore::open(&Config { max_bytes, ..config(&path) }, Arc::new(Unobserved)).unwrap();
    let mut number = 0;
    while store.revoke((0..100).map(|offset| revocation(number + offset)).collect()).await.is_ok() {
        number += 100;
    }
    // Changes of what is there need no more room for ever.
    for round in 0..50 {
        let some = (0..100).map(|offset| key(round * 100 + offset));
        store.lift(some.collect()).await.unwrap();
        store.revoke((0..100).map(|offset| revocation(round * 100 + offset)).collect()).await.unwrap();
    }
    let size = fs::metadata(&path).unwrap().len();
    println!("{number} revocations, {} bytes of file for each of the contents", size as f64 / max_bytes as f64);
    assert!(size < 4 * max_bytes, "{size} bytes");
    let began = std::time::Instant::now();
    drop(store);
    open(&path).unwrap();
    println!("opened again in {:?}", began.elapsed());
}
