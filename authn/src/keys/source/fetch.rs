//! One fetch of an issuer's keys: its settings, its occasion, the request and the outcome.
use std::time::Duration;

use jose::Algorithm;

use crate::keys::discovery::Url;
use crate::time::Monotonic;

/// The configuration of the source.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Identifies the issuer and the location of the keys: the same in every configuration with these values.
    pub identity: [u8; 32],
    pub cluster: String,
    /// Of the key set, or of the discovery document that names it.
    pub url: Url,
    /// The issuer that the discovery document must name; `None` without discovery.
    pub discovery: Option<String>,
    pub timeout: Duration,
    pub refresh: Duration,
    pub min_refresh: Duration,
    pub max_stale: Duration,
    pub cool_down: Duration,
    pub symmetric: bool,
    pub algorithms: Vec<Algorithm>,
}

/// Why a fetch is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    Schedule,
    /// Requests arrived while there were no keys to trust, and the pause after the last failure is long.
    Wanted,
    UnknownKid,
}

/// A GET to send to the source's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub url: Url,
    /// The tag of the current set: a 304 means that it is still the newest.
    pub if_none_match: Option<String>,
}

/// The effect of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Fetch the key set that the discovery document named, now or, with a warning, when it was last available.
    Continue {
        fetch: Fetch,
        warning: Option<String>,
    },
    /// A set was installed. Skipped keys are reported if they changed.
    Installed {
        left_out: Option<String>,
    },
    /// The set of this time is still the newest one, and counts as fetched now.
    Unchanged {
        since: Monotonic,
    },
    /// A newer set arrived meanwhile, and stays.
    Overtaken,
    Failed(String),
}

/// The meaning of a token with an unknown key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is not in a recently fetched set: refuse.
    Absent,
    /// A fetch could bring it: fetch, or wait for the one in flight.
    Worthwhile,
}
