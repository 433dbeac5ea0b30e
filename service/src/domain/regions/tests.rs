//! Regions in one process, on stores in memory. Their links are calls that can be cut, repeated and bent.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use store::memory::{Contents, MemoryStore};
use store::{AuditFrom, AuditLog as _, Ending, Ends, Revocation, StoreId};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use wire::feed::Cursor;
use wire::join::{Asked, Asking, Content, Entry, Question, Reply, Row};
use wire::{DerivedKeys, RevocationKey, Secret};

use super::exchange::Exchange;
use super::follow::{Follower, Progress};
use super::*;
use crate::domain::feed::{self, Feed};
use crate::model::session_keys::Ring;

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(20);

fn secret() -> DerivedKeys {
    Secret::new(&[7; 32]).unwrap().derive()
}

fn key(number: u64) -> RevocationKey {
    RevocationKey((u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
}

/// What a link does with a reply, after its MAC was checked.
type Bend = Box<dyn Fn(Reply) -> Result<Reply, AskError> + Send + Sync>;

struct Region {
    contents: Contents,
    store: Arc<MemoryStore>,
    serving: Arc<Serving>,
    feed: Arc<Feed>,
    _stop: watch::Sender<bool>,
}

struct Link {
    name: String,
    to: Arc<Serving>,
    is_cut: watch::Receiver<bool>,
    bend: Mutex<Option<Bend>>,
    nonce: Mutex<u8>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Exchange for Arc<Link> {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask_with(&self, _secret: &DerivedKeys) {}

    async fn ask(&self, question: &Question, needs: Needs) -> Result<(Reply, Instant), AskError> {
        let cut = || AskError::Unreachable("cut".into());
        if *self.is_cut.borrow() {
            return Err(cut());
        }
        let nonce = {
            let mut nonce = self.nonce.lock().unwrap();
            *nonce = nonce.wrapping_add(1);
            [*nonce; 16]
        };
        let sent = Instant::now();
        let asking = Asking::new(&secret(), nonce, needs, question);
        let asked = Asked::read(&[secret()], asking.bytes()).unwrap();
        let (status, body) = match self.to.answer(asked.question(), Instant::now()).await {
            Ok(content) => (200, asked.reply(&secret(), &Reply { facts: self.to.facts(), content })),
            Err(trouble) => (503, asked.trouble(&secret(), 503, trouble)),
        };
        if *self.is_cut.borrow() {
            return Err(cut());
        }
        let reply = asking.read_reply(&secret(), status, &body).map_err(AskError::Reply)?.map_err(AskError::Trouble)?;
        let reply = match &*self.bend.lock().unwrap() {
            Some(bend) => bend(reply)?,
            None => reply,
        };
        Ok((reply, sent))
    }
}

fn facts() -> OurFacts {
    OurFacts {
        keeps: Retention { token: 10, login: 20 },
        future_iat_tolerance_seconds: 0,
        secrets: vec![secret().id()],
    }
}

impl Region {
    fn new(number: u8) -> Self {
        let contents = Contents::default();
        contents.create(StoreId::new([number; 16]));
        Self::on(contents)
    }

    /// Another instance of the service, on the same store.
    fn on(contents: Contents) -> Self {
        let store = Arc::new(MemoryStore::open(&contents, Duration::ZERO));
        let config = feed::Config { round: Duration::from_millis(10), max_followers: 0, serves_regions: true };
        let feed = Feed::new(store.clone(), config, feed::Metrics::default());
        let (stop, on_stop) = watch::channel(false);
        feed.start(&on_stop);
        let serving = Arc::new(Serving::new(Arc::clone(&feed), store.clone(), facts()));
        Self { contents, store, serving, feed, _stop: stop }
    }

    fn parts(&self) -> Parts {
        let ring = Arc::new(Ring::new(&[Secret::new(&[1; 32]).unwrap()]));
        Parts {
            store: self.store.clone(),
            facts: Arc::new(facts()).into(),
            feed: self.feed.nudge(),
            audit: Arc::new(Audit::new(self.store.clone(), ring, LONG)).into(),
            metrics: Metrics::default(),
            compare: LONG,
            stores_seen: StoresSeen::default(),
        }
    }

    fn link_to(&self, other: &Region, cut: &watch::Sender<bool>) -> (Arc<Link>, Follower) {
        let link = Arc::new(Link {
            name: "other".into(),
            to: Arc::clone(&other.serving),
            is_cut: cut.subscribe(),
            bend: Mutex::default(),
            nonce: Mutex::default(),
        });
        let follower = Follower::new(Box::new(Arc::clone(&link)), Arc::new(self.parts()));
        (link, follower)
    }

    async fn revoke(&self, numbers: impl IntoIterator<Item = u64>, ends: Ends) {
        let revocation = |number| Revocation { key: key(number), ends, sealed: vec![1], ttl: Some(LONG) };
        self.store.revoke(numbers.into_iter().map(revocation).collect()).await.unwrap();
    }

    /// Everything, without times to live.
    async fn all(&self) -> BTreeMap<RevocationKey, wire::Answer> {
        let page = self.store.list(None, usize::MAX).await.unwrap();
        page.revocations.into_iter().map(|stored| (stored.key, stored.answer.unwrap())).collect()
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, waiting).await.is_ok(), "{what}");
}

/// Steps until everything is here.
async fn catch_up(follower: &Follower, progress: &mut Progress) {
    let began = Instant::now();
    until("it follows", async || {
        let _ = follower.step(progress).await;
        follower.status().complete().is_some_and(|complete| complete > began)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_on_all_after_a_cut_and_nothing_goes_in_circles() {
    let regions = [1, 2, 3].map(Region::new);
    let cut = watch::Sender::new(false);
    let (_stop, on_stop) = watch::channel(false);
    for region in &regions {
        for other in regions.iter().filter(|other| !Arc::ptr_eq(&other.store, &region.store)) {
            let (_, follower) = region.link_to(other, &cut);
            tokio::spawn(Arc::new(follower).run(on_stop.clone()));
        }
    }
    regions[0].revoke(0..10, Ends::ForGood).await;
    until("before the cut", async || regions[2].all().await.len() == 10).await;

    cut.send_replace(true);
    // More than a log keeps, so that one side must compare; the same user on all sides, later and later.
    regions[0].revoke(100..1600, Ends::ForGood).await;
    regions[1].revoke(2000..2100, Ends::IssuedUntil(1000)).await;
    regions[2].revoke(2000..2050, Ends::IssuedUntil(2000)).await;
    regions[2].revoke(5..15, Ends::IssuedUntilNow).await;
    sleep(Duration::from_millis(300)).await;
    assert!(regions[1].all().await.len() == 110);
    cut.send_replace(false);

    let mut expected = BTreeMap::new();
    for region in &regions {
        for (key, answer) in region.all().await {
            let ending = match answer {
                wire::Answer::Before(before) => Ending::Before(before),
                _ => Ending::Dead,
            };
            let known = expected.entry(key).or_insert(ending);
            *known = ending.max(*known);
        }
    }
    let expected: BTreeMap<_, wire::Answer> = expected.into_iter().map(|(key, ending)| (key, ending.into())).collect();
    assert_eq!(expected.len(), 10 + 1500 + 100 + 5);
    for region in &regions {
        until("after the cut", async || region.all().await == expected).await;
    }
    // Then nothing is written any more.
    sleep(Duration::from_millis(300)).await;
    let places = async || {
        let mut places = Vec::new();
        for region in &regions {
            places.push(store::RevocationLog::follow(&*region.store, &[None]).await.unwrap());
        }
        places
            .into_iter()
            .flatten()
            .map(|news| match news {
                store::ShardNews::Whole { place, .. } => place,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let before = places().await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(places().await, before, "something goes in circles");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_lost_acknowledged_entries_gets_them_back() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let (_, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    there.revoke(0..20, Ends::ForGood).await;
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 20);

    // As a failover to a replica that lacked them: for a moment there is no store, then one with less.
    let id = StoreId::new([1; 16]);
    here.contents.lose();
    assert!(matches!(follower.step(&mut progress).await, Err(AskError::OurStore(_))));
    assert_eq!(follower.status().complete(), None, "it is not known any more that all is here");
    here.contents.create(id);
    assert!(here.all().await.is_empty());
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_killed_goes_on_where_the_store_is() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    there.revoke(0..4500, Ends::ForGood).await;
    for _ in 0..3 {
        // Dropped in the middle of a request or a write, as by kill -9.
        let (_, follower) = here.link_to(&there, &cut);
        let mut progress = Progress::new(Instant::now());
        let _ = timeout(Duration::from_millis(120), async {
            loop {
                let _ = follower.step(&mut progress).await;
            }
        })
        .await;
    }
    let (_, follower) = here.link_to(&there, &cut);
    catch_up(&follower, &mut Progress::new(Instant::now())).await;
    assert_eq!(here.all().await, there.all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_a_region_take_turns() {
    let (here, there) = (Region::new(1), Region::new(2));
    let second = Region::on(there.contents.clone());
    let cut = watch::Sender::new(false);
    there.revoke(0..5000, Ends::ForGood).await;
    let (link, _) = here.link_to(&there, &cut);
    let (other, _) = here.link_to(&second, &cut);
    #[derive(Debug)]
    struct Turns(Mutex<bool>, [Arc<Link>; 2]);
    #[async_trait]
    impl Exchange for Turns {
        fn name(&self) -> &str {
            "turns"
        }
        fn ask_with(&self, _secret: &DerivedKeys) {}
        async fn ask(&self, question: &Question, needs: Needs) -> Result<(Reply, Instant), AskError> {
            let first = {
                let mut turn = self.0.lock().unwrap();
                *turn = !*turn;
                *turn
            };
            self.1[usize::from(first)].ask(question, needs).await
        }
    }
    let follower = Follower::new(Box::new(Turns(Mutex::new(false), [link, other])), Arc::new(here.parts()));
    let mut progress = Progress::new(Instant::now());
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 5000);
    there.revoke(5000..5100, Ends::ForGood).await;
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 5100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lift_does_not_travel_and_is_undone_by_a_region_that_has_the_revocation() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let (_, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    there.revoke(0..2, Ends::ForGood).await;
    catch_up(&follower, &mut progress).await;
    there.store.lift(vec![key(0)]).await.unwrap();
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 2, "lifted there, not here");
    here.store.lift(vec![key(0), key(1)]).await.unwrap();
    let mut anew = Progress::new(Instant::now());
    catch_up(&follower, &mut anew).await;
    assert_eq!(here.all().await.into_keys().collect::<Vec<_>>(), [key(1)], "lifted everywhere: gone; only here: back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_breaks_the_protocol_is_not_followed_and_a_comparison_ends() {
    let there = Region::new(2);
    let cut = watch::Sender::new(false);
    there.revoke(0..20, Ends::ForGood).await;
    let row = Row { key: key(3), ends: wire::join::Ends::All, ttl: None };
    let entry = move || Entry { row, sealed: vec![] };
    let bends: Vec<(&str, Bend)> = vec![
        (
            "more without end",
            Box::new(|reply| {
                let content = match reply.content {
                    Content::Changes { cursor, .. } => {
                        Content::Changes { cursor, complete_millis: 0, more: true, entries: vec![] }
                    }
                    other => other,
                };
                Ok(Reply { content, ..reply })
            }),
        ),
        (
            "pages that lead back",
            Box::new(move |reply| {
                let content = match reply.content {
                    Content::Page { rows, .. } => Content::Page { next: rows.first().map(|row| row.key), rows },
                    other => other,
                };
                Ok(Reply { content, ..reply })
            }),
        ),
        (
            "a page out of order",
            Box::new(|mut reply| {
                if let Content::Page { rows, .. } = &mut reply.content {
                    rows.reverse();
                }
                Ok(reply)
            }),
        ),
        (
            "what was not asked for",
            Box::new(move |mut reply| {
                if let Content::Entries(entries) = &mut reply.content {
                    entries.push(Entry { row: Row { key: key(999), ..row }, sealed: vec![] });
                }
                Ok(reply)
            }),
        ),
        ("another answer", Box::new(move |reply| Ok(Reply { content: Content::Entries(vec![entry()]), ..reply }))),
        (
            "our own store",
            Box::new(|mut reply| {
                reply.facts.store = [1; 16];
                Ok(reply)
            }),
        ),
    ];
    for (what, bend) in bends {
        let here = Region::new(1);
        let (link, follower) = here.link_to(&there, &cut);
        *link.bend.lock().unwrap() = Some(bend);
        let mut progress = Progress::new(Instant::now());
        let mut error = None;
        for _ in 0..40 {
            match follower.step(&mut progress).await {
                Err(AskError::Trouble(_)) | Ok(()) => sleep(Duration::from_millis(20)).await,
                Err(other) => {
                    error = Some(other);
                    break;
                }
            }
        }
        assert!(matches!(error, Some(AskError::Protocol(_) | AskError::Ourselves)), "{what}: {error:?}");
        assert_eq!(follower.status().complete(), None, "{what}: nothing is claimed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_lies_costs_a_comparison_and_no_revocation() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let (link, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    there.revoke(0..20, Ends::ForGood).await;
    // For a moment every cursor is nonsense.
    *link.bend.lock().unwrap() = Some(Box::new(|mut reply| {
        if let Content::Changes { cursor, .. } | Content::Anew(cursor) = &mut reply.content {
            *cursor = Cursor::new(vec![9; 40]).unwrap();
        }
        Ok(reply)
    }));
    for _ in 0..20 {
        let _ = follower.step(&mut progress).await;
    }
    *link.bend.lock().unwrap() = None;
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await, there.all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_a_wrong_clock_locks_out_for_minutes_and_not_for_years() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let far = unix_seconds() + 365 * 86_400;
    let entry = store::MergedRevocation { key: key(1), ending: Ending::Before(far), sealed: vec![], ttl: Some(LONG) };
    there.store.merge(vec![entry], Duration::ZERO).await.unwrap();
    let (_, follower) = here.link_to(&there, &cut);
    catch_up(&follower, &mut Progress::new(Instant::now())).await;
    let wire::Answer::Before(before) = here.all().await[&key(1)] else { panic!() };
    assert!(before > unix_seconds() && before <= unix_seconds() + 302, "{before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_told_so_and_an_outage_is_said() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(true);
    let (_, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    assert!(matches!(follower.step(&mut progress).await, Err(AskError::Unreachable(_))));
    assert!(!follower.status().is_cut_off(), "not at once");
    let parts = here.parts();
    let regions = Regions::new(vec![], parts);
    assert_eq!(regions.are_joined(), None);

    let cursor = Cursor::default();
    until("the feed is complete", async || {
        there.serving.answer(&Question::Page { cursor: cursor.clone(), after: None }, Instant::now()).await.is_ok()
    })
    .await;
    let Ok(Content::Anew(cursor)) = there.serving.answer(&Question::Page { cursor, after: None }, Instant::now()).await
    else {
        panic!()
    };
    let question = Question::Changes { cursor, wait: Duration::from_millis(500) };
    let all = futures_util::future::join_all((0..200).map(|_| there.serving.answer(&question, Instant::now()))).await;
    let refused = all.iter().filter(|answer| matches!(answer, Err(wire::feed::Trouble::TooManyFollowers))).count();
    assert_eq!((refused, all.iter().filter(|answer| answer.is_ok()).count()), (72, 128));
    let entries = here.store.page(AuditFrom::Last, 10, LONG).await.unwrap();
    assert!(entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_nobody_saw_is_followed_by_a_comparison() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let (_, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    there.revoke(0..20, Ends::ForGood).await;
    catch_up(&follower, &mut progress).await;
    assert!(follower.proven(secret().id(), Instant::now()).is_some());
    // Over before the next step: at no step is the store unhealthy.
    here.contents.lose();
    here.contents.create(StoreId::new([1; 16]));
    assert_eq!(follower.proven(secret().id(), Instant::now()), None, "it is not known that all is here");
    catch_up(&follower, &mut progress).await;
    assert_eq!(here.all().await.len(), 20);
    assert!(follower.proven(secret().id(), Instant::now()).is_some());

    // During a step: after its request and before its claim.
    let (link, follower) = here.link_to(&there, &cut);
    let mut progress = Progress::new(Instant::now());
    catch_up(&follower, &mut progress).await;
    let contents = here.contents.clone();
    *link.bend.lock().unwrap() = Some(Box::new(move |reply| {
        contents.lose();
        contents.create(StoreId::new([1; 16]));
        Ok(reply)
    }));
    let before = follower.status().complete();
    follower.step(&mut progress).await.unwrap();
    assert_eq!((follower.status().complete(), follower.proven(secret().id(), Instant::now())), (before, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_writes_too_weakly_is_merged_and_proves_nothing() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    there.revoke(0..20, Ends::ForGood).await;
    let bends: Vec<(&str, Bend)> = vec![
        (
            "under another secret",
            Box::new(|mut reply| {
                reply.facts.secrets = vec![wire::SecretId([9; 8])];
                Ok(reply)
            }),
        ),
        (
            "for too short a time",
            Box::new(|mut reply| {
                reply.facts.keeps.login = 19;
                Ok(reply)
            }),
        ),
        (
            "by a clock that is an hour behind",
            Box::new(|mut reply| {
                reply.facts.now_seconds -= 3600;
                Ok(reply)
            }),
        ),
    ];
    for (what, bend) in bends {
        let (link, follower) = here.link_to(&there, &cut);
        *link.bend.lock().unwrap() = Some(bend);
        let mut progress = Progress::new(Instant::now());
        catch_up(&follower, &mut progress).await;
        assert_eq!((here.all().await.len(), follower.proven(secret().id(), Instant::now())), (20, None), "{what}");
        *link.bend.lock().unwrap() = None;
        follower.step(&mut progress).await.unwrap();
        assert!(follower.proven(secret().id(), Instant::now()).is_some(), "{what}: mended");
    }
    // A clock that is ahead revokes too much.
    let (link, follower) = here.link_to(&there, &cut);
    *link.bend.lock().unwrap() = Some(Box::new(|mut reply| {
        reply.facts.now_seconds += 3600;
        Ok(reply)
    }));
    catch_up(&follower, &mut Progress::new(Instant::now())).await;
    assert!(follower.proven(secret().id(), Instant::now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_to_another_region_claims_nothing_for_its_own() {
    let (here, there, third) = (Region::new(1), Region::new(2), Region::new(3));
    let cut = watch::Sender::new(false);
    let parts = Arc::new(here.parts());
    let (to_second, _) = here.link_to(&there, &cut);
    let named = |link: &Arc<Link>, name: &str| {
        let link = Link {
            name: name.into(),
            to: Arc::clone(&link.to),
            is_cut: cut.subscribe(),
            bend: Mutex::default(),
            nonce: Mutex::default(),
        };
        Follower::new(Box::new(Arc::new(link)), Arc::clone(&parts))
    };
    let (second, wrong) = (named(&to_second, "second"), named(&to_second, "third"));
    third.revoke(0..5, Ends::ForGood).await;
    there.revoke(10..15, Ends::ForGood).await;
    catch_up(&second, &mut Progress::new(Instant::now())).await;
    let mut progress = Progress::new(Instant::now());
    for _ in 0..20 {
        let _ = wrong.step(&mut progress).await;
    }
    assert_eq!(
        (wrong.status().complete(), wrong.proven(secret().id(), Instant::now())),
        (None, None),
        "it is the second region"
    );
    let (to_third, _) = here.link_to(&third, &cut);
    let right = named(&to_third, "third");
    catch_up(&right, &mut Progress::new(Instant::now())).await;
    catch_up(&second, &mut Progress::new(Instant::now())).await;
    assert!(
        right.proven(secret().id(), Instant::now()).is_some() && second.proven(secret().id(), Instant::now()).is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_begins_anew_without_end_is_asked_less_and_less() {
    let (here, there) = (Region::new(1), Region::new(2));
    let cut = watch::Sender::new(false);
    let (link, follower) = here.link_to(&there, &cut);
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    *link.bend.lock().unwrap() = Some(Box::new(move |reply| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Reply { content: Content::Anew(Cursor::new(vec![9; 40]).unwrap()), ..reply })
    }));
    let (_stop, on_stop) = watch::channel(false);
    let follower = Arc::new(follower);
    tokio::spawn(Arc::clone(&follower).run(on_stop));
    sleep(Duration::from_secs(2)).await;
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((4..20).contains(&asked), "{asked} requests in 2 s");
    assert_eq!(follower.status().complete(), None);
}
