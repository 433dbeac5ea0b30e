//! Revocation, compiled.
use std::sync::Arc;

use wire::Kind;
use wire::Secret;

use super::Issuer;
use super::step_up::compile_demanded;
use crate::config;
use crate::config::{ConfigDuration, Environment, Invalid, check_range, secret_from, whole_seconds};
use crate::request::authority::authority_or;
use crate::revocation::{FeedSettings, KeyCache, RegionSettings, Revocation, retention};

const ZERO: ConfigDuration = ConfigDuration::from_secs(0);

/// A proof must make the way from the store to the filter in this time, again and again.
const SHORTEST_FEED_LAG: ConfigDuration = ConfigDuration::from_millis(250);

/// In quiet times another region is asked once a second.
const SHORTEST_REGIONS_LAG: ConfigDuration = ConfigDuration::from_secs(1);
const LONGEST_REGIONS_LAG: ConfigDuration = ConfigDuration::from_secs(86_400);

const MAX_FUTURE_IAT_TOLERANCE: ConfigDuration = ConfigDuration::from_secs(60);

pub(super) fn compile_revocation(
    document: &config::Revocation,
    issuers: &[Issuer],
    limits: &config::Limits,
    environment: Environment<'_>,
) -> Result<Revocation, Invalid> {
    let at = |field: &str| format!("revocation.{field}");
    if document.cluster.is_empty() {
        return Err(Invalid::new(at("cluster"), "must not be empty"));
    }
    let authority = authority_or(document.authority.as_deref(), &document.cluster, &at("authority"))?;
    check_range(document.timeout, ConfigDuration::from_millis(10), ConfigDuration::from_secs(5), &at("timeout"))?;
    check_range(document.freshness, ConfigDuration::from_secs(1), ConfigDuration::from_secs(5), &at("freshness"))?;
    // An answer that takes longer than it counts could never be used.
    if document.timeout > document.freshness {
        return Err(Invalid::new(at("timeout"), "must not be longer than `freshness`"));
    }
    let future_iat_tolerance =
        whole_seconds(document.future_iat_tolerance, ZERO, MAX_FUTURE_IAT_TOLERANCE, &at("future_iat_tolerance"))?;
    let secret = secret_from(environment, &document.secret_env, config::SecretEncoding::Raw, &at("secret_env"))?;
    let secret = Secret::new(&secret).map_err(|error| Invalid::new(at("secret_env"), error.to_string()))?;
    let mut kinds = Vec::new();
    for kind in document.kinds.iter().map(|kind| kind_of(*kind)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Err(Invalid::new(at("kinds"), "name at least one kind"));
    }
    let step_up = document.step_up.as_ref().map(compile_demanded).transpose();
    let step_up = step_up.map_err(|invalid| invalid.within("revocation"))?;
    if step_up.is_some() {
        if !kinds.contains(&Kind::Session) {
            return Err(Invalid::new(at("step_up"), "needs `session` in `kinds`: a login is demanded of a session"));
        }
        kinds.push(Kind::StepUp);
    }
    let feed = match &document.feed {
        None => None,
        Some(feed) => {
            check_range(feed.lag, SHORTEST_FEED_LAG, ConfigDuration::from_secs(5), &at("feed.lag"))?;
            Some(FeedSettings { lag: feed.lag.0, max_bytes: limits.feed_bytes })
        }
    };
    let regions = match &document.regions {
        None => None,
        Some(regions) => {
            check_range(regions.max_lag, SHORTEST_REGIONS_LAG, LONGEST_REGIONS_LAG, &at("regions.max_lag"))?;
            let closes = regions.on_exceeded == config::OnExceeded::Close;
            Some(RegionSettings { max_lag: regions.max_lag.0, closes })
        }
    };
    Ok(Revocation {
        feed,
        regions,
        cluster: document.cluster.clone(),
        authority,
        timeout: document.timeout.0,
        freshness: document.freshness.0,
        refreshes_ahead: document.refresh_ahead,
        derived: Arc::new(secret.derive()),
        needs: issuers
            .iter()
            .map(|issuer| retention::needed(&issuer.lifetimes(), future_iat_tolerance, &kinds))
            .collect(),
        kinds,
        step_up,
        memo: KeyCache::default(),
        future_iat_tolerance,
    })
}

pub(super) fn kind_of(kind: config::RevocationKind) -> Kind {
    match kind {
        config::RevocationKind::Token => Kind::Token,
        config::RevocationKind::Session => Kind::Session,
        config::RevocationKind::User => Kind::User,
        config::RevocationKind::Client => Kind::Client,
        config::RevocationKind::Key => Kind::SigningKey,
        config::RevocationKind::Issuer => Kind::Issuer,
    }
}
