//! Reads. One task keeps the connection: it alone connects, judges the server and learns which store it holds.
//! Requests use what it keeps and never wait for a connection, so a Redis that is gone costs them nothing.
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use redis::Cmd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use wire::check::Trouble;
use wire::{Answer, RevocationKey};

use super::Pin;
use super::connect::{self, Connected, Target, within};
use super::entry::{self, Entry, PATTERN, SENTINEL, StoreId};
use super::standing::Unfit;
use crate::Options;
use crate::metrics::Metrics;

/// How often a good connection's server is judged again: its policy and role can change at any time.
const RECHECK: Duration = Duration::from_secs(2);
/// How long to wait after a failure, or for a sentinel to appear.
const RETRY: Duration = Duration::from_millis(200);
/// How long a connection may show no sentinel of ours before it is made anew: the name may lead elsewhere by now.
const ASTRAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Reader {
    line: watch::Receiver<Line>,
    /// The generation of a connection that failed a request, and how.
    broken: watch::Sender<(u64, Trouble)>,
    keeper: JoinHandle<()>,
    pin: Pin,
    limit: Duration,
    metrics: Arc<Metrics>,
}

/// An entry as an operator sees it, its note still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub key: RevocationKey,
    /// `None`: the value is none of ours; checks of this key cannot be answered.
    pub answer: Option<Answer>,
    pub sealed: Vec<u8>,
    /// `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

#[derive(Debug)]
pub struct Page {
    pub stored: Vec<Stored>,
    /// `None` at the end.
    pub cursor: Option<u64>,
}

#[derive(Debug, Clone)]
enum Line {
    Up(Arc<Up>),
    Down(Trouble),
}

#[derive(Debug)]
struct Up {
    generation: u64,
    connected: Connected,
    fit: Result<(), Unfit>,
}

impl Reader {
    pub async fn open(target: Target, pin: Pin, options: Arc<Options>, metrics: Arc<Metrics>) -> Self {
        let (say, mut line) = watch::channel(Line::Down(Trouble::StoreRefused));
        line.mark_unchanged();
        let (broken, on_broken) = watch::channel((0, Trouble::StoreRefused));
        let limit = options.redis_timeout;
        let keeper = Keeper {
            target,
            pin: pin.clone(),
            options,
            metrics: Arc::clone(&metrics),
            say,
            on_broken,
            settled: false,
            said: None,
        };
        let keeper = tokio::spawn(keeper.run());
        // An error would mean that the keeper ended, and it does not.
        let _ = line.changed().await;
        Self { line, broken, keeper, pin, limit, metrics }
    }

    pub async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, Trouble> {
        // One command and not a pipeline: no flush can come between the sentinel and the answers. MGET shows an entry
        // of another type than string as absent, but who can write such a thing can delete ours as well.
        let mut ask = Cmd::with_capacity(keys.len() + 2, 64 + keys.len() * 48);
        ask.arg("MGET").arg(SENTINEL);
        for key in keys {
            ask.arg(entry::name(*key));
        }
        let values: Vec<Option<Vec<u8>>> = self.ask(ask).await?;
        let Some((sentinel, values)) = values.split_first() else { return Err(Trouble::StoreFailed) };
        if !self.pin.is(sentinel.as_deref()) {
            return Err(Trouble::StoreChanged);
        }
        if values.len() != keys.len() {
            return Err(Trouble::StoreFailed);
        }
        let answers = values.iter().map(|value| match value {
            None => Ok(Answer::Live),
            Some(value) => Entry::parse(value).map(|entry| entry.ending.into()).ok_or(Trouble::StoreFailed),
        });
        answers.collect()
    }

    pub async fn show(&self, key: RevocationKey) -> Result<Option<Stored>, Trouble> {
        Ok(self.stored(&[key]).await?.pop())
    }

    pub async fn list(&self, cursor: u64, limit: usize) -> Result<Page, Trouble> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(PATTERN).arg("COUNT").arg(limit);
        let (next, names): (u64, Vec<Vec<u8>>) = self.ask(scan).await?;
        let keys: Vec<_> = names.iter().filter_map(|name| entry::key_of(name)).collect();
        Ok(Page { stored: self.stored(&keys).await?, cursor: (next != 0).then_some(next) })
    }

    /// Whether checks can be answered at all, as far as is known without asking.
    pub fn standing(&self) -> Result<(), Trouble> {
        self.up().map(|_| ())
    }

    /// Those of `keys` that are there.
    async fn stored(&self, keys: &[RevocationKey]) -> Result<Vec<Stored>, Trouble> {
        let up = self.up()?;
        let mut ask = redis::pipe();
        ask.get(SENTINEL);
        for key in keys {
            ask.get(entry::name(*key)).pttl(entry::name(*key));
        }
        let mut connection = up.connected.connection.clone();
        let asked = within(self.limit, ask.query_async::<Vec<redis::Value>>(&mut connection)).await;
        let values = self.noting(&up, asked)?;
        let mut values = values.into_iter();
        let sentinel: Option<Vec<u8>> = values.next().and_then(|value| redis::from_redis_value(value).ok().flatten());
        if !self.pin.is(sentinel.as_deref()) {
            return Err(Trouble::StoreChanged);
        }
        let mut stored = Vec::with_capacity(keys.len());
        for key in keys {
            let (Some(value), Some(pttl)) = (values.next(), values.next()) else { return Err(Trouble::StoreFailed) };
            let value: Option<Vec<u8>> = redis::from_redis_value(value).map_err(|_| Trouble::StoreFailed)?;
            let pttl: i64 = redis::from_redis_value(pttl).map_err(|_| Trouble::StoreFailed)?;
            let Some(value) = value else { continue };
            let entry = Entry::parse(&value);
            stored.push(Stored {
                key: *key,
                answer: entry.map(|entry| entry.ending.into()),
                sealed: entry.map(|entry| entry.sealed.to_vec()).unwrap_or_default(),
                expires_in: u64::try_from(pttl).ok().map(Duration::from_millis),
            });
        }
        Ok(stored)
    }

    async fn ask<T: redis::FromRedisValue>(&self, ask: Cmd) -> Result<T, Trouble> {
        let up = self.up()?;
        let mut connection = up.connected.connection.clone();
        let sent = Instant::now();
        let asked = within(self.limit, ask.query_async(&mut connection)).await;
        self.metrics.redis_seconds.observe(sent.elapsed().as_secs_f64());
        self.noting(&up, asked)
    }

    fn up(&self) -> Result<Arc<Up>, Trouble> {
        let up = match &*self.line.borrow() {
            Line::Up(up) => Arc::clone(up),
            Line::Down(trouble) => return Err(*trouble),
        };
        match up.fit {
            Ok(()) => Ok(up),
            Err(_) => Err(Trouble::StoreUnsafe),
        }
    }

    /// Has the connection replaced when it failed: a late reply can then reach nobody.
    fn noting<T>(&self, up: &Up, asked: Result<T, Trouble>) -> Result<T, Trouble> {
        if let Err(trouble @ (Trouble::StoreRefused | Trouble::StoreSlow)) = asked {
            self.broken.send_replace((up.generation, trouble));
        }
        asked
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    target: Target,
    pin: Pin,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    say: watch::Sender<Line>,
    on_broken: watch::Receiver<(u64, Trouble)>,
    /// Our store was there once, and is not made again.
    settled: bool,
    /// What was logged last, so that only changes are.
    said: Option<String>,
}

impl Keeper {
    async fn run(mut self) {
        let mut generation = 0;
        loop {
            generation += 1;
            let trouble = match self.target.connect().await {
                Ok(connected) => self.keep(generation, connected).await,
                Err(trouble) => trouble,
            };
            // `keep` said these two itself, and why.
            if !matches!(trouble, Trouble::StoreUnsafe | Trouble::StoreChanged) {
                self.log(&format!("not usable: {}", trouble.name()), false);
            }
            self.say.send_replace(Line::Down(trouble));
            sleep(jittered(RETRY)).await;
        }
    }

    /// Ends when the connection must be left, with the reason.
    async fn keep(&mut self, generation: u64, mut connected: Connected) -> Trouble {
        let mut astray = None;
        loop {
            let fit = connected.standing.judge(&self.options);
            let sentinel = match self.sentinel(&mut connected, fit.is_ok()).await {
                Ok(sentinel) => sentinel,
                Err(trouble) => return trouble,
            };
            let ours = self.pin.is(sentinel.as_deref());
            match (&fit, ours, &sentinel) {
                (Err(unfit), ..) => self.log(&format!("store_unsafe: {unfit}"), false),
                (Ok(()), true, _) => self.log("usable", true),
                (Ok(()), false, None) => self.log(
                    "store_changed: no sentinel. If this store is meant to be new, start with --create-store; \
                     else revocations were lost, restore them first",
                    false,
                ),
                (Ok(()), false, Some(_)) => self.log("store_changed: the sentinel is another store's", false),
            }
            // After a failover the demoted primary keeps our connection. Only a new one resolves the name again.
            if fit == Err(Unfit::Replica) {
                return Trouble::StoreUnsafe;
            }
            if ours {
                astray = None;
            } else if astray.get_or_insert_with(Instant::now).elapsed() >= ASTRAY {
                return Trouble::StoreChanged;
            }
            let up = Up { generation, connected: connected.clone(), fit };
            self.say.send_replace(Line::Up(Arc::new(up)));
            let pause = if ours { RECHECK } else { RETRY };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                trouble = self.broken(generation) => return trouble,
            }
            connected.standing = match connect::ask_info(&mut connected.connection, self.options.redis_timeout).await {
                Ok(standing) => standing,
                Err(trouble) => return trouble,
            };
        }
    }

    /// Reads the sentinel; learns it, or makes it, while no store is known.
    async fn sentinel(&mut self, connected: &mut Connected, fit: bool) -> Result<Option<Vec<u8>>, Trouble> {
        let limit = self.options.redis_timeout;
        let connection = &mut connected.connection;
        let read = || redis::cmd("GET").arg(SENTINEL).to_owned();
        let mut found: Option<Vec<u8>> = within(limit, read().query_async(connection)).await?;
        // A store that we knew and that lost its sentinel is never made again by us: that would say "nobody revoked".
        if found.is_none() && self.options.create_store && fit && !self.settled {
            let id = match self.options.store_id {
                Some(id) => id,
                None => StoreId::random().ok_or(Trouble::StoreFailed)?,
            };
            let mut create = redis::cmd("SET");
            create.arg(SENTINEL).arg(id.to_string()).arg("NX");
            let made: Option<String> = within(limit, create.query_async(connection)).await?;
            if made.is_some() {
                tracing::info!(store = %id, "created the store");
            }
            found = within(limit, read().query_async(connection)).await?;
        }
        if self.pin.id().is_none()
            && let Some(id) =
                found.as_deref().and_then(|found| std::str::from_utf8(found).ok()?.parse::<StoreId>().ok())
        {
            tracing::info!(store = %id, "answering from this store only, until restarted");
            self.pin.set(id);
        }
        self.settled |= found.is_some();
        Ok(found)
    }

    /// Waits until a request reports that this connection failed.
    async fn broken(&mut self, generation: u64) -> Trouble {
        loop {
            let (broken, trouble) = *self.on_broken.borrow_and_update();
            if broken == generation {
                return trouble;
            }
            if self.on_broken.changed().await.is_err() {
                // The reader is gone, and with it this task's purpose.
                std::future::pending::<()>().await;
            }
        }
    }

    fn log(&mut self, state: &str, ready: bool) {
        self.metrics.store_ready(ready);
        if self.said.as_deref() == Some(state) {
            return;
        }
        if ready {
            tracing::info!(state, "store");
        } else {
            tracing::warn!(state, "store");
        }
        self.said = Some(state.to_owned());
    }
}

/// Within a quarter of `pause`, so that many services do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness they ask in step, and no harm is done.
    let _ = rand::fill(&mut byte);
    let [byte] = byte;
    pause.mul_f64(0.75 + f64::from(byte) / 512.0)
}
