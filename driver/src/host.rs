//! The interface of a host: clocks, callouts, shared data, metrics and the log ([`Host`]); one request ([`Exchange`]);
//! and what is needed once, at configuration ([`Setup`]).
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use authn::browser;
use authn::config::Engine as EngineChoice;
use authn::decide::{Admission, Asking, Entered, Exposed, Fact, Peer, Verified};
use authn::engine::Engine;
use authn::policy::Targets;
use authn::reject::Rejection;
use authn::request::Pair;
use authn::revocation::RevocationQuery;
use authn::time::Now;

use crate::metrics::Metric;
use crate::wake::Wake;

/// Identifies one request while it lives, unique in the process that a [`crate::Dispatcher`] serves.
pub type StreamId = u64;

/// Identifies one callout while it is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// A host call failed. The number is the host's own status, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostError(pub u32);

/// Why a shared entry was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutError {
    /// It has changed since it was read.
    Changed,
    Host(HostError),
}

/// The version of a shared entry, for a compare-and-set. 0 overwrites any version.
pub type Cas = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// A request to a cluster of the proxy.
#[derive(Debug, Clone, Copy)]
pub struct Callout<'c> {
    pub cluster: &'c str,
    /// Pseudo headers first.
    pub headers: &'c [Pair<'c>],
    pub body: &'c [u8],
    /// Includes the time to connect.
    pub timeout: Duration,
}

/// The reply to a callout. A reply that was cut off, or never came, has no status.
pub trait CalloutReply {
    /// The first value under this name, pseudo headers included.
    fn header(&self, name: &[u8]) -> Option<Vec<u8>>;

    /// At most `max` bytes of the body.
    ///
    /// # Errors
    /// The body cannot be read.
    fn body(&self, max: usize) -> Result<Vec<u8>, HostError>;

    fn status(&self) -> Option<u16> {
        std::str::from_utf8(&self.header(b":status")?).ok()?.parse().ok()
    }
}

/// A reply that the filter itself gives to a client.
#[derive(Debug, Clone, Copy)]
pub struct LocalReply<'r> {
    pub status: u16,
    /// For access logs, as RESPONSE_CODE_DETAILS.
    pub details: &'r str,
    pub headers: &'r [Pair<'r>],
    pub body: &'r [u8],
}

/// One change to a request's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'e> {
    /// Removes all values of this name.
    Remove(&'e [u8]),
    /// Replaces all values of this name with one.
    Set(&'e [u8], &'e [u8]),
    /// The same for a name that the request does not have. It costs less, since nothing is searched.
    Add(&'e [u8], &'e [u8]),
}

/// Host calls that do not depend on a request.
pub trait Host {
    /// Both clocks.
    ///
    /// # Errors
    /// Without them no request can be decided.
    fn now(&mut self) -> Result<Now, HostError>;

    /// Random bytes for one answer.
    ///
    /// # Errors
    /// The host has no randomness.
    fn nonce(&mut self) -> Result<[u8; 16], HostError>;

    /// Sends a callout. Its reply comes to [`crate::Dispatcher::answered`], even if the request that caused it is gone.
    ///
    /// # Errors
    /// It was not sent, and no reply follows.
    fn call(&mut self, callout: &Callout<'_>) -> Result<CallId, HostError>;

    /// A check can be sent. True if the host will call [`crate::Dispatcher::send_waiting`] soon: checks that come before
    /// that call are sent with it.
    fn sends_checks_later(&mut self) -> bool {
        false
    }

    /// An entry that all workers of the process share.
    ///
    /// # Errors
    /// The host has no shared data.
    fn shared_get(&mut self, key: &str) -> Result<Option<(Vec<u8>, Cas)>, HostError>;

    /// # Errors
    /// [`PutError::Changed`] unless `cas` is 0 or the entry is still the one that was read with it.
    fn shared_put(&mut self, key: &str, value: &[u8], cas: Cas) -> Result<(), PutError>;

    /// Adds to a counter, or to a gauge that is the sum over all reporters. `labels` are the values of
    /// [`Metric::labels`], in order. `by` is not 0.
    fn add(&mut self, metric: Metric, labels: &[&str], by: i64);

    /// Sets a gauge, or records into a histogram.
    fn record(&mut self, metric: Metric, labels: &[&str], value: u64);

    fn log(&mut self, level: Level, text: fmt::Arguments<'_>);
}

/// One request, during a callback of the host.
pub trait Exchange: Peer {
    /// The whole header map, while `read` runs. Names are in lower case and include pseudo headers.
    ///
    /// # Errors
    /// The headers cannot be read.
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError>;

    /// # Errors
    /// The headers did not change.
    fn edit(&mut self, edit: Edit<'_>) -> Result<(), HostError>;

    /// Makes the proxy choose the route again from the changed request.
    ///
    /// # Errors
    /// The proxy may use the route that it chose from the original request.
    fn choose_route_anew(&mut self) -> Result<(), HostError>;

    /// The rule that the request's route selects by name. Changed headers can change the route. A host whose routes select
    /// no rules does nothing.
    fn route_rule(&mut self) -> Option<Arc<str>> {
        None
    }

    /// The request has reached this stage. A host that does not explain decisions does nothing.
    fn observe(&self, _stage: Stage<'_>) {}

    /// What became of the request, for the filters and access logs that come after this one. A host that has no place for
    /// it does nothing.
    fn conclude(&mut self, _conclusion: &Conclusion<'_>) {}

    /// Ends the request with a reply of the filter's own. Nothing may be asked of the request afterwards.
    ///
    /// # Errors
    /// Nothing was sent.
    fn reply(&mut self, reply: &LocalReply<'_>) -> Result<(), HostError>;

    /// Ends the request's stream, whose response has begun. Nothing may be asked of the request afterwards.
    ///
    /// # Errors
    /// The stream is still open.
    fn reset(&mut self) -> Result<(), HostError>;
}

/// The answer to a request, during a callback of the host.
pub trait Response {
    /// The whole header map, while `read` runs. Names are in lower case and include `:status`.
    ///
    /// # Errors
    /// The headers cannot be read.
    fn with_headers<T>(&self, read: impl FnOnce(&[Pair<'_>]) -> T) -> Result<T, HostError>;

    /// # Errors
    /// The headers did not change.
    fn edit(&mut self, edit: &browser::Edit) -> Result<(), HostError>;
}

/// How far a request has come: what `portcullis explain` prints.
#[derive(Debug, Clone, Copy)]
pub enum Stage<'s> {
    /// A rule matched, and a token was found.
    Entered(&'s Entered<'s>),
    Verified(&'s Arc<Verified>),
    /// The rule accepts the token.
    Accepted,
    /// The issuer's server is asked about the token.
    Introspecting {
        issuer: usize,
    },
    /// A verdict is needed.
    Asking(&'s Asking),
    /// The service must not have seen the proof before. The verdict about this token is asked for along with that.
    Claiming {
        verified: &'s Verified,
        query: &'s Arc<RevocationQuery>,
    },
    /// The event that the request waited for.
    Woken(&'s Wake),
    /// From here on, edits are those of the admission.
    Admitted(&'s Admission),
    /// It passes without identity. From here on, edits remove tokens that were not checked.
    Open {
        rule: usize,
    },
    /// The filter itself answers.
    Answered {
        rule: usize,
    },
    Refused {
        rule: Option<usize>,
        rejection: &'s Rejection,
    },
    /// It would be refused if its rule were enforced. From here on, edits remove tokens that are not accepted.
    Reported {
        rule: Option<usize>,
        rejection: &'s Rejection,
    },
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy)]
pub struct Conclusion<'c> {
    /// `admitted`, `admitted_unchecked`, `open`, `answered`, `reported`, `refused` or `cannot_tell`, as in the metrics.
    pub outcome: &'c str,
    /// The code of a refusal, or of what is only reported.
    pub code: Option<&'c str>,
    /// Its cause, as in the log.
    pub cause: Option<&'c str>,
    /// The rule's name, where one matched.
    pub rule: Option<&'c str>,
    /// The headers that an admitted request was given, each with what a verified claim says.
    pub headers: &'c [(String, String)],
    /// What is exposed of the verified token. `None` if there is none.
    pub token: Option<&'c Exposed>,
    /// Where it is exposed. `None` if the document exposes nothing.
    pub to: Option<Targets>,
}

impl<'c> Conclusion<'c> {
    /// What the token says and what became of the request, as text by name.
    pub fn texts(&self) -> impl Iterator<Item = (&'c str, &'c str)> + use<'c> {
        self.facts().map(|(name, fact)| (name, fact.text.as_str())).chain(self.verdict())
    }

    /// What the token says.
    pub fn facts(&self) -> impl Iterator<Item = (&'c str, &'c Fact)> + use<'c> {
        self.token.into_iter().flat_map(Exposed::facts)
    }

    /// What became of the request.
    pub fn verdict(&self) -> impl Iterator<Item = (&'c str, &'c str)> + use<'c> {
        let all = [("outcome", Some(self.outcome)), ("code", self.code), ("cause", self.cause), ("rule", self.rule)];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// What is needed once, when a configuration is loaded.
pub trait Setup {
    /// A secret by its name, from the host's source of secrets.
    fn secret(&self, name: &str) -> Option<Vec<u8>>;

    /// Does [`Setup::secret`] know the secrets that the document takes from SDS?
    fn has_sds(&self) -> bool {
        false
    }

    /// # Errors
    /// The host has no randomness.
    fn random(&mut self) -> Result<[u8; 32], HostError>;

    /// The number of shards of the verified tokens: 1 for a single thread, otherwise several for each thread.
    fn token_shards(&self) -> usize {
        1
    }

    /// True if one dispatcher serves all threads of a configuration. Otherwise the dispatchers of a process share the feed
    /// of revocations, of which one of them follows.
    fn is_the_only_dispatcher(&self) -> bool {
        false
    }

    /// The names of all engines that this host can choose.
    fn engines(&self) -> &'static [&'static str];

    /// The engine that checks signatures.
    ///
    /// # Errors
    /// The engine that the configuration requires is not available, as text for the log.
    fn engine(&mut self, choice: EngineChoice) -> Result<ChosenEngine, String>;
}

/// An engine, and its name in logs and metrics.
pub struct ChosenEngine {
    pub engine: Box<dyn Engine>,
    pub name: &'static str,
}
