//! `portcullis doctor`: looks at this machine, the store, the service, the issuers, a token and a running Envoy, and says
//! what is wrong, why it matters and how to mend it. It changes nothing.
//!
//! Exit codes: 0 nothing found; 1 an error was found, or it cannot look; 2 wrong usage; 4 only warnings were found.
use std::path::PathBuf;
use std::time::Duration;

use ::service::{InspectedRedis, RedisOptions};
use anyhow::{Result, bail};
use authn::reject::{Cause, RejectReason};
use authn::time::UnixSeconds;
use clap::{ArgGroup, Args};
use serde_json::Value;
use wire::parse_duration;

use crate::document::{self, Compiled, Secrets};
use crate::explain::{self, TokenVerdict};
use crate::loaded;
use crate::outcome::{Outcome, say, url};
use crate::peers::{PeerArgs, Peers};
use crate::question;
use crate::standard_input;
use crate::suggest::closest;

mod envoy;
mod finding;
mod machine;
mod redis;
mod sentinels;
mod service_checks;
mod service_metrics;
mod tls;

use finding::{Finding, Report, Severity};

#[derive(Args)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["config", "envoy"]))]
pub struct Doctor {
    /// The filter's configuration, as for `check-config`. Default: the one that --envoy has loaded.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    peers: PeerArgs,
    /// The service's admin listener. Its version and its metrics are looked at.
    #[arg(long, value_name = "URL", value_parser = url)]
    service: Option<String>,
    /// The service's --redis-timeout: slower answers of Redis are faults.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    redis_timeout: Duration,
    /// The service's --min-replicas: fewer replicas that are online are a fault.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_replicas: usize,
    /// A token that is refused; `-` reads it from standard input. It is judged as by `explain --live`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// The path of a request with that token.
    #[arg(long, default_value = "/")]
    path: String,
    /// Certificates that expire sooner are a warning.
    #[arg(long, value_name = "TIME", default_value = "21d", value_parser = parse_duration)]
    expiry: Duration,
    /// One JSON document: `{"ok", "findings": [{"name", "severity", "what", "why", "mend", "link"}], "passed",
    /// "skipped"}`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    redis: InspectedRedis,
}

/// For a key set.
const FETCH: Duration = Duration::from_secs(10);

impl Doctor {
    pub fn run(self) -> Result<Outcome> {
        let json = self.json;
        let mut report = self.look()?;
        report.sort();
        match json {
            true => say(&report.as_json().to_string()),
            false => report.lines().iter().for_each(|line| say(line)),
        }
        Ok(match report.worst() {
            None => Outcome::Done,
            Some(Severity::Warning) => Outcome::Warned,
            Some(Severity::Error) => Outcome::Refused,
        })
    }

    fn look(self) -> Result<Report> {
        let mut report = Report::default();
        machine::entropy(&mut report);
        let redis = self.redis.options();
        let peers = match self.peers.peers() {
            Ok(peers) => peers,
            Err(error) => bail!("{error:#}"),
        };
        let dump =
            peers.envoy.as_deref().map(|url| loaded::dump(&peers, url)).transpose().map_err(anyhow::Error::msg)?;
        let source = Source { file: self.config.as_deref(), dump: dump.as_ref(), secrets: &self.secrets };
        let Compiled { document, policy, assumed } = source.compiled()?;
        let now = UnixSeconds(u64::try_from(machine::millis() / 1000).unwrap_or_default());
        let tolerance = policy.revocation().map_or(5, |revocation| revocation.future_iat_tolerance);
        let tolerance = Duration::from_secs(tolerance);
        if assumed.is_empty() {
            service_checks::look(&mut report, &document, &policy, &peers, now);
        } else {
            report.skipped("service", format!("the secret {}, which is a placeholder", assumed.join(", ")));
        }
        match &self.service {
            Some(url) => service_metrics::look(&mut report, &peers, url.trim_end_matches('/'), now),
            None => report.skipped("metrics", "--service"),
        }
        match &redis {
            // As `serve` takes it.
            Some(redis) if redis.urls.iter().any(|url| url.starts_with("file:")) => {
                report.skipped("redis", "the store is a file");
            }
            Some(redis) => {
                let (limit, min_replicas) = (self.redis_timeout, self.min_replicas);
                redis::look(&mut report, redis, &redis::Expected { limit, min_replicas, tolerance })?;
            }
            None => report.skipped("redis", "--redis"),
        }
        let token = self.token.as_deref().map(standard_input::argument).transpose()?;
        let presented = token.as_ref().map(|token| policy.summary_of_unverified(token.as_bytes(), now));
        let token_issuer = presented.as_ref().and_then(|it| it.issuer.as_deref());
        let kid = presented.as_ref().and_then(|it| it.kid.as_deref());
        for (index, issuer) in document.issuers.iter().enumerate() {
            let is_of_token = token_issuer.is_some_and(|name| policy.issuer_index(name) == Some(index));
            issuer_keys(&mut report, issuer, &peers, kid.filter(|_| is_of_token), tolerance);
        }
        for url in tls_urls(&document, &peers, redis.as_ref()) {
            tls::look(&mut report, &url, self.expiry);
        }
        if let (Some(dump), None) = (&dump, &self.config)
            && loaded::differ(dump)
        {
            report.skipped(
                "configurations",
                "--config: filters of this Envoy have different ones, and the first was taken",
            );
        }
        if let (Some(dump), Some(url)) = (&dump, &peers.envoy) {
            envoy::look(&mut report, dump, &document, source.written()?.as_ref());
            envoy::version(&mut report, &peers, url);
            envoy::certificates(&mut report, &peers, url, self.expiry);
        } else {
            report.skipped("envoy", "--envoy");
        }
        match (token, &presented) {
            (Some(token), Some(presented)) => {
                if let Some(age @ ..0) = presented.age {
                    machine::clock(
                        &mut report,
                        "the token's issuer",
                        age.saturating_neg().saturating_mul(1000),
                        tolerance,
                    );
                }
                let unknown = presented.issuer.as_deref().filter(|name| policy.issuer_index(name).is_none());
                if let Some(name) = unknown {
                    let names = document.issuers.iter().map(|issuer| issuer.issuer.as_str());
                    if let Some(other) = closest(name, names) {
                        report.found(typo(name, other));
                    }
                }
                if !assumed.is_empty() {
                    report.skipped("token", format!("the secret {}, which is a placeholder", assumed.join(", ")));
                } else if let Some(missing) = peers.missing(&document).first() {
                    report.skipped("token", format!("--cluster {missing}=URL, or --envoy"));
                } else {
                    let verdict = explain::verdict_on(source.compiled()?, peers, &token, &self.path)?;
                    judged(&mut report, verdict, &self.path);
                }
            }
            _ => report.skipped("token", "--token"),
        }
        Ok(report)
    }
}

/// Where the configuration comes from.
struct Source<'s> {
    file: Option<&'s std::path::Path>,
    dump: Option<&'s Value>,
    secrets: &'s Secrets,
}

impl Source<'_> {
    fn compiled(&self) -> Result<Compiled> {
        match (self.file, self.dump) {
            (Some(file), _) => document::read_one(file, self.secrets),
            (None, Some(dump)) => loaded::compiled(dump, self.secrets),
            (None, None) => bail!("give --config or --envoy"),
        }
    }

    /// The file as JSON, to compare.
    fn written(&self) -> Result<Option<Value>> {
        self.file.map(document::tree).transpose()
    }
}

fn issuer_keys(
    report: &mut Report,
    issuer: &authn::config::Issuer,
    peers: &Peers,
    kid: Option<&str>,
    tolerance: Duration,
) {
    let name = &issuer.issuer;
    match question::key_set(issuer, peers, FETCH) {
        None => {}
        Some(Err(why)) => report.found(Finding {
            name: RejectReason::KeysUnavailable.code(),
            severity: Severity::Error,
            what: format!("the keys of {name} cannot be fetched: {why}"),
            why: "once the last good set is older than max_stale, its tokens get 503",
            mend: "check the URL and the issuer with `portcullis jwks`, and the cluster in Envoy".to_owned(),
            link: redis::link("KEYS_UNAVAILABLE"),
        }),
        Some(Ok(found)) => {
            machine::date(report, &format!("the issuer {name}"), found.date, tolerance);
            match kid {
                Some(kid) if !found.kids.iter().any(|other| other == kid) => report.found(Finding {
                    name: RejectReason::KeyUnknown.code(),
                    severity: Severity::Error,
                    what: format!(
                        "{name} does not publish the token's key {kid:?}; it publishes {}",
                        found.kids.join(", ")
                    ),
                    why: "its signature cannot be verified",
                    mend: Cause::KidUnknown.advice().to_owned(),
                    link: redis::link("KEY_UNKNOWN"),
                }),
                _ => report.passed("keys", format!("{name}: {} keys", found.kids.len())),
            }
        }
    }
}

fn typo(name: &str, other: &str) -> Finding {
    Finding {
        name: "issuer_typo",
        severity: Severity::Error,
        what: format!("the token's issuer is {name:?}, and the configuration has {other:?}"),
        why: "issuers are compared byte by byte; a slash at the end counts",
        mend: "write the issuer in the configuration as its tokens have it".to_owned(),
        link: redis::link("INVALID_ISSUER"),
    }
}

fn judged(report: &mut Report, verdict: TokenVerdict, path: &str) {
    match verdict {
        TokenVerdict::Admitted => report.passed("token", "the filter would admit it"),
        TokenVerdict::NotLookedAt(rule) => {
            let rule = rule.unwrap_or_default();
            report.skipped("token", format!("--path: the rule {rule}, which has {path}, looks at no token"));
        }
        TokenVerdict::Unchecked => report.found(Finding {
            name: "token_unchecked",
            severity: Severity::Warning,
            what: "the filter admits the token, and cannot tell whether it was revoked".to_owned(),
            why: "its rule has `dangerously_pass_when_unavailable`, and the service does not answer",
            mend: "look at the service and its store: `explain --live` has each step".to_owned(),
            link: "docs/operations.md#the-doctor".to_owned(),
        }),
        TokenVerdict::Reported { rejection, advice } => report.found(Finding {
            name: rejection.reason.code(),
            severity: Severity::Warning,
            what: format!("the filter would refuse the token, and only reports it: {rejection}"),
            why: "its rule is in report mode: the request is forwarded without identity",
            mend: advice,
            link: redis::link(rejection.reason.code()),
        }),
        TokenVerdict::Refused { rejection, advice } => report.found(Finding {
            name: rejection.reason.code(),
            severity: Severity::Error,
            what: format!("the filter refuses the token: {rejection}"),
            why: rejection.reason.text(),
            mend: advice,
            link: redis::link(rejection.reason.code()),
        }),
    }
}

/// Each server that is reached over TLS, once.
fn tls_urls(document: &authn::config::Document, peers: &Peers, redis: Option<&RedisOptions>) -> Vec<String> {
    let mut urls: Vec<String> = peers.urls().filter(|url| url.starts_with("https://")).map(str::to_owned).collect();
    for issuer in &document.issuers {
        let Some(jwks) = issuer.jwks.as_ref().filter(|jwks| peers.url(&jwks.cluster).is_none()) else { continue };
        let url = jwks.uri.as_deref().unwrap_or(&issuer.issuer);
        urls.extend(Some(url.to_owned()).filter(|url| url.starts_with("https://")));
    }
    urls.extend(redis.iter().flat_map(|redis| &redis.urls).filter(|url| url.starts_with("rediss://")).cloned());
    urls.sort();
    urls.dedup();
    urls
}
