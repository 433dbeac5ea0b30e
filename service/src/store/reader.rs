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
use super::create;
use super::entry::{self, Bucket, Entry, PATTERN, SENTINEL, StoreId};
use super::standing::Unfit;
use crate::Options;
use crate::metrics::Metrics;

/// How often a good connection's server is judged again: its policy and role can change at any time.
const RECHECK: Duration = Duration::from_secs(2);
/// How long to wait after a failure, or for a sentinel to appear.
const RETRY: Duration = Duration::from_millis(200);
/// How long a connection may lead to another store, or to none, before the name is resolved again.
const CHANGED: Duration = Duration::from_secs(5);
const USABLE: &str = "usable";

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
    /// Our sentinel was there when it was last read.
    ours: bool,
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
        if self.up()?.ours { Ok(()) } else { Err(Trouble::StoreChanged) }
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

    pub async fn read(&self, _bucket: Bucket, asks: &[Cmd]) -> Result<Vec<redis::Value>, Trouble> {
        let up = self.up()?;
        let mut all = redis::pipe();
        for ask in asks {
            all.add_command(ask.clone());
        }
        // After the others: what a flush took from them, it took from here too.
        all.get(SENTINEL);
        let mut connection = up.connected.connection.clone();
        let asked = within(self.limit, all.query_async::<Vec<redis::Value>>(&mut connection)).await;
        let mut values = self.noting(&up, asked)?;
        let sentinel: Option<Vec<u8>> = values.pop().and_then(|value| redis::from_redis_value(value).ok().flatten());
        if self.pin.is(sentinel.as_deref()) { Ok(values) } else { Err(Trouble::StoreChanged) }
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

/// Why a connection was left, in short and for the log.
struct Left {
    trouble: Trouble,
    why: String,
}

impl From<Trouble> for Left {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, why: format!("not usable: {}", trouble.name()) }
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
            // Each attempt resolves the name again: it may lead to another server since.
            let left = match self.target.connect().await {
                Ok(connected) => self.keep(generation, connected).await,
                Err(trouble) => Left::from(trouble),
            };
            self.log(&left.why, false);
            self.say.send_replace(Line::Down(left.trouble));
            sleep(jittered(RETRY)).await;
        }
    }

    /// Ends when the connection must be left, with the reason.
    async fn keep(&mut self, generation: u64, mut connected: Connected) -> Left {
        let mut changed_since: Option<Instant> = None;
        loop {
            let fit = connected.standing.judge(self.options.allow());
            if let Err(unfit @ Unfit::Replica) = &fit {
                // After a failover our name leads elsewhere, and this connection for ever to what was the primary.
                return Left { trouble: Trouble::StoreUnsafe, why: format!("store_unsafe: {unfit}") };
            }
            let sentinel = match self.sentinel(&mut connected, fit.is_ok()).await {
                Ok(sentinel) => sentinel,
                Err(trouble) => return trouble.into(),
            };
            let ours = self.pin.is(sentinel.as_deref());
            let state = match (&fit, ours, &sentinel) {
                (Err(unfit), ..) => format!("store_unsafe: {unfit}"),
                (Ok(()), true, _) => USABLE.to_owned(),
                (Ok(()), false, None) => "store_changed: no sentinel. If this store is meant to be new, make it with \
                     `portcullis store create`; else revocations were lost, restore them first"
                    .to_owned(),
                (Ok(()), false, Some(_)) => "store_changed: the sentinel is another store's".to_owned(),
            };
            self.log(&state, state == USABLE);
            let up = Up { generation, connected: connected.clone(), fit, ours };
            self.say.send_replace(Line::Up(Arc::new(up)));
            if ours {
                changed_since = None;
            } else if changed_since.get_or_insert_with(Instant::now).elapsed() > CHANGED {
                return Left { trouble: Trouble::StoreChanged, why: state };
            }
            let pause = if ours { RECHECK } else { RETRY };
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                trouble = self.broken(generation) => return trouble.into(),
            }
            connected.standing = match connect::ask_info(&mut connected.connection, self.options.redis_timeout).await {
                Ok(standing) => standing,
                Err(trouble) => return trouble.into(),
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
            if let Some(id) = create::write_sentinel(connection, limit).await? {
                tracing::warn!(
                    store = %id,
                    "wrote a new sentinel, since --create-store is given and there was none: revocations made before \
                     are gone if this store is not new"
                );
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
