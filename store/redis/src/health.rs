//! Whether a server may be trusted with revocations, judged from INFO.
use std::time::Duration;

use crate::lease::LEAST_FAILOVER_TIMEOUT;

/// What an operator allows explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allow {
    pub eviction: bool,
    pub replica: bool,
}

/// What we read of INFO. A field that Redis did not send is `None`, which is never taken as good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerHealth {
    pub version: Option<(u32, u32)>,
    pub role: Option<String>,
    pub policy: Option<String>,
    pub evicted: Option<u64>,
    pub aof: bool,
    /// `cluster-node-timeout`, if it may be read.
    pub failover_timeout: Option<Duration>,
}

/// Why the absence of an entry proves nothing on this server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    #[error("its maxmemory-policy is `{0}`, which may evict revocations; set noeviction")]
    Evicts(String),
    #[error("it has evicted {0} keys since it started, perhaps revocations; restore or recreate the store")]
    Evicted(u64),
    #[error("it is a replica, which may lag behind its primary")]
    Replica,
    #[error("it replaces a primary that is silent for {0:?}; set cluster-node-timeout to 2000 or more")]
    FailsOverTooSoon(Duration),
    #[error("INFO does not have its `{0}`")]
    Unsaid(&'static str),
}

impl ServerHealth {
    pub fn parse(info: &str) -> Self {
        let mut health = Self::default();
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match name {
                "redis_version" => health.version = version(value),
                "role" => health.role = Some(value.to_owned()),
                "maxmemory_policy" => health.policy = Some(value.to_owned()),
                "evicted_keys" => health.evicted = value.parse().ok(),
                "aof_enabled" => health.aof = value == "1",
                _ => {}
            }
        }
        health
    }

    /// # Errors
    /// The first reason not to use it.
    pub fn judge(&self, allow: Allow) -> Result<(), HealthError> {
        if !allow.replica {
            match self.role.as_deref() {
                Some("master") => {}
                Some(_) => return Err(HealthError::Replica),
                None => return Err(HealthError::Unsaid("role")),
            }
        }
        if let Some(failover_timeout) =
            self.failover_timeout.filter(|failover_timeout| *failover_timeout < LEAST_FAILOVER_TIMEOUT)
        {
            return Err(HealthError::FailsOverTooSoon(failover_timeout));
        }
        if !allow.eviction {
            match self.policy.as_deref() {
                Some("noeviction") => {}
                Some(policy) => return Err(HealthError::Evicts(policy.to_owned())),
                None => return Err(HealthError::Unsaid("maxmemory_policy")),
            }
            // The policy may have been wrong between two of our checks.
            if let Some(evicted @ 1..) = self.evicted {
                return Err(HealthError::Evicted(evicted));
            }
        }
        Ok(())
    }

    /// WAITAOF reports when a write is on disk; Redis 7.2 introduced it.
    pub fn has_waitaof(&self) -> bool {
        self.aof && self.version.is_some_and(|version| version >= (7, 2))
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
        # Persistence\r\naof_enabled:1\r\n# Stats\r\nevicted_keys:0\r\n# Replication\r\nrole:master\r\n";

    fn judged(info: &str) -> Result<(), HealthError> {
        ServerHealth::parse(info).judge(Allow::default())
    }

    #[test]
    fn a_primary_that_never_evicts_is_fit() {
        assert_eq!(judged(GOOD), Ok(()));
    }

    #[test]
    fn what_may_forget_or_lag_or_does_not_say_is_unfit() {
        for policy in ["allkeys-lru", "volatile-ttl", "volatile-lru"] {
            let info = GOOD.replace("noeviction", policy);
            assert_eq!(judged(&info), Err(HealthError::Evicts(policy.into())));
        }
        assert_eq!(judged(&GOOD.replace("evicted_keys:0", "evicted_keys:3")), Err(HealthError::Evicted(3)));
        assert_eq!(judged(&GOOD.replace("role:master", "role:slave")), Err(HealthError::Replica));
        assert_eq!(judged(&GOOD.replace("maxmemory_policy", "x")), Err(HealthError::Unsaid("maxmemory_policy")));
        assert_eq!(judged(""), Err(HealthError::Unsaid("role")));
    }

    #[test]
    fn a_cluster_that_replaces_primaries_sooner_than_answers_expire_is_unfit() {
        let with = |millis| ServerHealth {
            failover_timeout: Some(Duration::from_millis(millis)),
            ..ServerHealth::parse(GOOD)
        };
        assert_eq!(with(2000).judge(Allow::default()), Ok(()));
        assert_eq!(with(1999).judge(Allow::default()), Err(HealthError::FailsOverTooSoon(Duration::from_millis(1999))));
    }

    #[test]
    fn the_overrides_allow_just_what_they_name() {
        let evicts = Allow { eviction: true, ..Allow::default() };
        let replica = Allow { replica: true, ..Allow::default() };
        let both = GOOD.replace("noeviction", "allkeys-lru").replace("role:master", "role:slave");
        assert_eq!(ServerHealth::parse(&both).judge(evicts), Err(HealthError::Replica));
        assert_eq!(ServerHealth::parse(&both).judge(replica), Err(HealthError::Evicts("allkeys-lru".into())));
    }

    #[test]
    fn waitaof_needs_7_2_and_an_append_only_file() {
        assert!(!ServerHealth::parse(GOOD).has_waitaof());
        let newer = GOOD.replace("7.0.15", "7.2.0");
        assert!(ServerHealth::parse(&newer).has_waitaof());
        assert!(ServerHealth::parse(&newer.replace("7.2.0", "8.0.1")).has_waitaof());
        assert!(!ServerHealth::parse(&newer.replace("aof_enabled:1", "aof_enabled:0")).has_waitaof());
    }
}
