//! The servers of the store.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use authn::reject::Cause;
use service::{Effort, Inspection, RedisOptions, ServerReport, inspect, inspect_sentinels};

use super::finding::{Finding, Report, Severity};
use super::{machine, sentinels};

const EFFORT_PINGS: usize = 50;
const EFFORT_NAMES: u64 = 50_000;
/// Of `maxmemory`, in percent.
const MEMORY_WARNING: u64 = 80;
/// Seconds since a replica last acknowledged; it does so every second.
const REPLICA_LAG: u64 = 10;

/// What the service is started with.
pub struct Expected {
    /// For a round trip.
    pub limit: Duration,
    pub min_replicas: usize,
    /// For clocks.
    pub tolerance: Duration,
}

pub fn look(report: &mut Report, redis: &RedisOptions, expected: &Expected) -> Result<()> {
    let limit = expected.limit;
    let effort = Effort { pings: EFFORT_PINGS, names: EFFORT_NAMES, limit };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    sentinels::look(report, &runtime.block_on(inspect_sentinels(redis, limit))?);
    for Inspection { address, state } in runtime.block_on(inspect(redis, effort))? {
        match state {
            Ok(server) => look_at(report, &address, &server, expected),
            Err((error, reason)) => {
                let cause = Cause::from(error);
                report.found(Finding {
                    name: cause.reason().code(),
                    severity: Severity::Error,
                    what: format!("Redis at {address}: {}: {reason}", error.name()),
                    why: "the service asks it about each check; without it every request with a check gets 503",
                    mend: cause.advice().to_owned(),
                    link: link(cause.reason().code()),
                });
            }
        }
    }
    Ok(())
}

fn look_at(report: &mut Report, address: &str, server: &ServerReport, expected: &Expected) {
    let info = &server.info;
    let text = |name: &str| info.get(name).map_or("", String::as_str);
    let mut found = |name, severity, what: String, why, mend: &str, link: &str| {
        let what = format!("Redis at {address}: {what}");
        report.found(Finding { name, severity, what, why, mend: mend.to_owned(), link: link.to_owned() });
    };
    if text("maxmemory_policy") != "noeviction" {
        let what = format!("maxmemory-policy is `{}`", text("maxmemory_policy"));
        let mend = "CONFIG SET maxmemory-policy noeviction, and set it in redis.conf";
        let why = "it may evict revocations, and revoked tokens would pass again";
        found("redis_evicts", Severity::Error, what, why, mend, "docs/operations.md#store-not-ready");
    }
    if number(info, "evicted_keys") > 0 {
        let what = format!("it has evicted {} keys", text("evicted_keys"));
        let why = "some of them may have been revocations, so the service refuses to answer from it";
        let mend = "restore the store, or revoke again what must stay revoked";
        found("redis_evicts", Severity::Error, what, why, mend, "docs/operations.md#store-not-ready");
    }
    if text("aof_enabled") != "1" {
        let why = "a restart loses revocations that were acknowledged";
        let mend = "set appendonly yes, and serve with --require-disk";
        found("redis_not_durable", Severity::Warning, "appendonly is off".to_owned(), why, mend, "docs/operations.md");
    } else if text("aof_last_write_status") != "ok" {
        let what = format!("the last write of its append-only file ended with `{}`", text("aof_last_write_status"));
        let why = "it refuses writes: nothing can be revoked";
        found("redis_not_durable", Severity::Error, what, why, "look at its log and its disk", "docs/operations.md");
    }
    if text("role") != "master" {
        let why = "a replica may lag behind its primary, and says that a revoked token is live";
        let mend = "name the primary, or use redis-mode sentinel or cluster";
        found("redis_replica", Severity::Error, "it is a replica".to_owned(), why, mend, "docs/faults.md");
    }
    let is_online = |(_, replica): &(&String, &String)| replica.split(',').any(|part| part == "state=online");
    let online = info.iter().filter(|(name, _)| is_replica(name)).filter(is_online).count();
    if text("role") == "master" && online < expected.min_replicas {
        let what = format!("{online} of its replicas are online, and the service waits for {}", expected.min_replicas);
        let why = "no revocation is acknowledged";
        let mend = "start the replicas, or lower --min-replicas of the service";
        found("redis_few_replicas", Severity::Error, what, why, mend, "docs/operations.md");
    }
    for (name, replica) in info.iter().filter(|(name, _)| is_replica(name)) {
        let field = |field: &str| replica.split(',').find_map(|part| part.strip_prefix(field)).unwrap_or("");
        let lag = field("lag=").parse::<u64>().unwrap_or(u64::MAX);
        if field("state=") != "online" || lag > REPLICA_LAG {
            let what = format!("{name} is {}, and last answered {} s ago", field("state="), field("lag="));
            let why = "a failover to it loses revocations, and writes that wait for it fail";
            let mend = "look at the replica's log and at the network between";
            found("redis_replica_lags", Severity::Warning, what, why, mend, "docs/operations.md");
        }
    }
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    let refused = info.get("errorstat_OOM").and_then(|text| text.strip_prefix("count=")).is_some();
    let percent = used.saturating_mul(100).checked_div(most);
    if percent.is_some_and(|percent| percent >= MEMORY_WARNING) {
        let is_full = used >= most || refused;
        let severity = if is_full { Severity::Error } else { Severity::Warning };
        let more = if refused { ", and it has refused writes" } else { "" };
        let what = format!("it uses {used} of {most} bytes{more}");
        let why = "at its limit it refuses writes: nothing can be revoked, and no session begins";
        let mend = "raise maxmemory, or lower --max-session, or add servers";
        found("redis_out_of_memory", severity, what, why, mend, "docs/operations.md#capacity");
    }
    if server.names.without_expiry > 0 {
        let names = server.names.examples.join(", ");
        let what = format!("{} names should expire and do not, such as {names}", server.names.without_expiry);
        let why = "they stay for ever, and fill its memory";
        let mend = "look at what wrote them; delete those that are not needed";
        found("redis_names_stay", Severity::Warning, what, why, mend, "docs/operations.md#capacity");
    }
    latency(report, address, server, expected.limit);
    machine::clock(report, &format!("Redis at {address}"), server.clock_ahead_millis, expected.tolerance);
    let seen = if server.names.is_cut { "more than " } else { "" };
    report.passed(
        "redis",
        format!(
            "{address}: version {}, {used} bytes used, {seen}{} names, {} of other programs",
            text("redis_version"),
            server.names.seen,
            server.names.foreign
        ),
    );
}

/// A service gives up a round trip after `limit`.
fn latency(report: &mut Report, address: &str, server: &ServerReport, limit: Duration) {
    let at = |percent: usize| {
        let position = server.round_trips.len().saturating_sub(1) * percent / 100;
        server.round_trips.get(position).copied().unwrap_or_default()
    };
    let (median, high, longest) = (at(50), at(90), at(100));
    let says = format!("{address}: half of the round trips in {median:?}, nine of ten in {high:?}, all in {longest:?}");
    if high.saturating_sub(median) > limit / 4 || high > limit / 2 {
        report.found(Finding {
            name: "latency_jitter",
            severity: Severity::Warning,
            what: format!("Redis at {says}"),
            why: "checks that take longer than --redis-timeout are refused with SESSION_STORE_LATENCY",
            mend: "look at its load, SLOWLOG, fork times and disk, and at the network between".to_owned(),
            link: link("SESSION_STORE_LATENCY"),
        });
    } else {
        report.passed("latency", says);
    }
}

fn number(info: &BTreeMap<String, String>, name: &str) -> u64 {
    info.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn is_replica(name: &str) -> bool {
    name.strip_prefix("slave").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The part of docs/faults.md about a code.
pub fn link(code: &str) -> String {
    format!("docs/faults.md#{}", code.to_ascii_lowercase())
}
