//! The revocation service, asked as a filter asks it.
use std::time::Duration;

use authn::config::Document;
use authn::policy::Policy;
use authn::reject::Cause;
use authn::time::UnixSeconds;
use driver::CalloutReply;

use super::finding::{Finding, Report, Severity};
use super::redis::link;
use super::{machine, redis};
use crate::peers::Peers;
use crate::question::{self, Said};

/// Checks to time.
const CHECKS: usize = 20;

pub fn look(report: &mut Report, document: &Document, policy: &Policy, peers: &Peers, now: UnixSeconds) {
    let (Some(written), Some(revocation)) = (&document.revocation, policy.revocation()) else {
        return report.skipped("service", "the configuration checks no revocations");
    };
    let cluster = written.cluster.as_str();
    let Some(url) = peers.url(cluster) else {
        return report.skipped("service", format!("--cluster {cluster}=URL, or --envoy"));
    };
    let tolerance = Duration::from_secs(revocation.future_iat_tolerance);
    let whose = format!("the service at {url}");
    if let Ok(reply) = peers.get(&format!("{url}/healthz"), revocation.timeout.max(Duration::from_secs(2))) {
        machine::date(report, &whose, CalloutReply::header(&reply, b"date"), tolerance);
    }
    let mut times = Vec::new();
    for _ in 0..CHECKS {
        match question::ask(document, policy, peers, &[], now) {
            Said::Answered { keeps, took, .. } => {
                times.push(took);
                if times.len() == 1 {
                    retention(report, policy, keeps);
                }
            }
            said => return report.found(no_answer(&whose, &said)),
        }
    }
    times.sort_unstable();
    latency(report, &whose, &times, revocation.timeout);
    if written.feed.is_some() {
        feed(report, document, policy, peers, now);
    }
}

fn no_answer(whose: &str, said: &Said) -> Finding {
    let (cause, what) = match said {
        Said::Fails(error) => (Cause::from(*error), format!("{whose} cannot tell: {}", error.name())),
        Said::NoProof { .. } => {
            (Cause::CheckUnproven, format!("{whose} gives no proof that it is our service: {}", said.trouble()))
        }
        Said::Answered { .. } | Said::Unreachable(_) => {
            (Cause::CheckUnanswered, format!("{whose} does not answer: {}", said.trouble()))
        }
    };
    let mend = match said {
        Said::NoProof { .. } => "compare the secret of this environment, the filter's and the service's --secret-file",
        _ => cause.advice(),
    };
    Finding {
        name: cause.reason().code(),
        severity: Severity::Error,
        what,
        why: "without its answer, requests that need one get 503",
        mend: mend.to_owned(),
        link: link(cause.reason().code()),
    }
}

/// As long as the longest lifetime of the issuers' tokens?
fn retention(report: &mut Report, policy: &Policy, keeps: wire::Retention) {
    let short = policy.issuers_asked_about().into_iter().find(|issuer| !keeps.covers(issuer.needs));
    match short {
        None => report.passed(
            "retention",
            format!("revocations are kept for {} s for a token, {} s for a login", keeps.token, keeps.login),
        ),
        Some(issuer) => report.found(Finding {
            name: "retention_too_short",
            severity: Severity::Error,
            what: format!(
                "the service keeps revocations for {} s for a token and {} s for a login; {} needs {} s and {} s",
                keeps.token, keeps.login, issuer.issuer, issuer.needs.token, issuer.needs.login
            ),
            why: "a token could outlive its revocation, so the filter refuses all of this issuer's tokens",
            mend: "raise the service's --max-lifetime and --max-session, or lower max_lifetime and max_session"
                .to_owned(),
            link: redis::link("STORE_UNAVAILABLE"),
        }),
    }
}

fn latency(report: &mut Report, whose: &str, times: &[Duration], timeout: Duration) {
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    let (median, high, longest) = (at(50), at(90), at(100));
    let says = format!("{whose}: half of the checks in {median:?}, nine of ten in {high:?}, all in {longest:?}");
    if high > timeout / 2 || high.saturating_sub(median) > timeout / 4 {
        report.found(Finding {
            name: "latency_jitter",
            severity: Severity::Warning,
            what: format!("{says}; revocation.timeout is {timeout:?}"),
            why: "a check that is slower than revocation.timeout costs the request a 503",
            mend: "look at the service's load, at Redis, and at the network between Envoy and the service".to_owned(),
            link: link("SESSION_STORE_LATENCY"),
        });
    } else {
        report.passed("latency", says);
    }
}

fn feed(report: &mut Report, document: &Document, policy: &Policy, peers: &Peers, now: UnixSeconds) {
    match question::poll_feed(document, policy, peers, now) {
        Ok(says) => report.passed("feed", says),
        Err(why) => report.found(Finding {
            name: "feed",
            severity: Severity::Warning,
            what: format!("the service has no feed for a follower: {why}"),
            why: "filters then ask about each token: more load, and no less safety",
            mend: "look at --max-followers of the service, and at its metric portcullis_feed_troubles_total".to_owned(),
            link: "docs/feed.md".to_owned(),
        }),
    }
}
