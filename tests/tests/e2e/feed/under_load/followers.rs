//! Many followers without an Envoy: each is a task that polls with the driver's own follower, keeps its picture, and decides
//! about tokens by it.
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use authn::revocation::{FeedSettings, Known};
use authn::time::Monotonic;
use driver::Following;
use harness::mesh::{ISSUER, unix_now};
use harness::{Connection, Request, Response};
use tokio::time::{MissedTickBehavior, interval, timeout};
use wire::check::Needs;
use wire::feed::{CONTENT_TYPE, PATH, Poll};
use wire::{DerivedKeys, Kind, Secret};

use super::record::{Outcome, Record, name};

/// From one decision of a follower to the next.
const DECIDES: Duration = Duration::from_millis(250);

pub struct Followers {
    settings: FeedSettings,
    address: SocketAddr,
    began: Instant,
    /// Up to when the picture of each is complete.
    complete: Vec<AtomicU64>,
    /// The secret that they use: of these, the one with this number.
    secrets: Vec<DerivedKeys>,
    secret: AtomicUsize,
    nonces: AtomicU64,
}

impl Followers {
    pub fn start(
        count: usize,
        lag: Duration,
        address: SocketAddr,
        secrets: &[&str],
        record: &Arc<Record>,
    ) -> Arc<Self> {
        let derive = |secret: &&str| Secret::new(secret.as_bytes()).expect("long enough").derive();
        let all = Arc::new(Self {
            settings: FeedSettings { lag, max_bytes: 1 << 20 },
            address,
            began: Instant::now(),
            complete: (0..count).map(|_| AtomicU64::new(0)).collect(),
            secrets: secrets.iter().map(derive).collect(),
            secret: AtomicUsize::new(0),
            nonces: AtomicU64::new(1),
        });
        for number in 0..count {
            let (all, record) = (Arc::clone(&all), Arc::clone(record));
            tokio::spawn(async move { all.follow(number, &record).await });
        }
        all
    }

    /// All of them follow with this secret from now on, and begin anew.
    pub fn use_secret(&self, number: usize) {
        self.secret.store(number, Ordering::SeqCst);
    }

    /// How many have no proof now.
    pub fn silent(&self) -> usize {
        let now = self.now();
        let is_silent =
            |complete: &&AtomicU64| Monotonic(complete.load(Ordering::Relaxed)).plus(self.settings.lag) < now;
        self.complete.iter().filter(is_silent).count()
    }

    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.began.elapsed().as_nanos()).expect("a short test") + 1)
    }

    async fn follow(&self, number: usize, record: &Record) {
        let mut ticks = interval(DECIDES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Not all at the same moment.
        tokio::time::sleep(DECIDES.mul_f64(number as f64 / self.complete.len() as f64)).await;
        let mut connection = None;
        let mut secret = self.secret.load(Ordering::SeqCst);
        let mut following = Following::new(self.settings, number as u64 + 1);
        while !record.is_over() {
            let used = self.secret.load(Ordering::SeqCst);
            if used != secret {
                secret = used;
                following = Following::new(self.settings, number as u64 + 1);
            }
            if !following.is_due(self.now()) {
                ticks.tick().await;
                self.decide(&following, secret, record);
                continue;
            }
            let (wait, longest) = following.timing();
            let nonce = u128::from(self.nonces.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
            let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() };
            let poll = Poll::new(&self.secrets[secret], nonce, needs, wait, following.cursor());
            let sent = self.now();
            following.sent(sent);
            let answered = {
                let mut answer = pin!(timeout(longest, self.send(&mut connection, &poll)));
                loop {
                    tokio::select! {
                        answered = &mut answer => break answered.ok().flatten(),
                        _ = ticks.tick() => self.decide(&following, secret, record),
                    }
                }
            };
            let now = self.now();
            let read = answered.and_then(|it| poll.read_reply(&self.secrets[secret], it.status, &it.body).ok());
            match read {
                Some(Ok(reply)) => {
                    following.on_reply(reply, sent, now);
                }
                Some(Err(trouble)) => following.refused(trouble, now),
                None => {
                    connection = None;
                    following.failed(now);
                }
            }
            self.complete[number].store(following.complete().0, Ordering::Relaxed);
        }
    }

    async fn send(&self, connection: &mut Option<Connection>, poll: &Poll) -> Option<Response> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(self.address).await.ok()?,
        };
        let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(poll.bytes());
        let response = open.send(&request).await.ok()?;
        *connection = Some(open);
        Some(response)
    }

    /// A token comes: does the feed alone admit it?
    fn decide(&self, following: &Following, secret: usize, record: &Record) {
        let (session, ended) = record.any();
        let key = self.secrets[secret].revocation_key(Kind::Session, ISSUER, name(session.number).as_bytes());
        let at = Instant::now();
        let known = Known { picture: following.picture(), complete: following.complete() };
        let is_clear = known.is_fresh(self.settings.lag, self.now()) && !known.picture.may_contain(&key);
        let outcome = if is_clear { Outcome::Admitted } else { Outcome::Asks };
        record.note("followers", session.number, ended, at, outcome);
    }
}
