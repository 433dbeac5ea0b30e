//! Sends the request through the driver, and answers its callouts at once: no time passes.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use authn::config::Document;
use authn::policy::Policy;
use authn::reject::{Cause, Rejection};
use authn::time::Now;
use driver::fake::{FakeHost, SharedData};
use driver::{Action, Configured, Worker};

use super::callouts::Callouts;
use super::exchange::{ExplainedRequest, Seen};
use super::report::{How, Judged, Verdict};
use super::steps::{NOW, Steps};
use super::{Explain, Sent};
use crate::instant::date;
use crate::outcome::printable;

const STREAM: driver::StreamId = 1;

pub fn judge(
    explain: &Explain,
    document: &Document,
    assumed: &[String],
    policy: Policy,
    sent: &Sent,
    callouts: Callouts,
) -> Result<Judged> {
    let now = Now { wall: explain.at, monotonic: NOW };
    // The nonces of real checks must not repeat.
    let seed = std::hash::RandomState::new().build_hasher().finish();
    let mut host = FakeHost::new(now, BTreeMap::new(), SharedData::default(), seed);
    let Configured { core, mut dispatcher } =
        driver::activate(&mut host, policy).map_err(|error| anyhow!("the configuration is not usable: {error}"))?;
    let mut request = ExplainedRequest {
        headers: sent.pairs(),
        address: explain.client_address,
        certificate_sha256: explain.client_certificate_sha256.as_ref().map(|hex| hex.clone().into_bytes()),
        reply: None,
        changes: Vec::new(),
        seen: RefCell::new(Seen::new(Steps::new(explain, Arc::clone(&core), document, assumed))),
    };
    let steps = &mut request.seen.get_mut().steps;
    for name in assumed {
        steps.step("note", format!("the secret `{name}` is a placeholder: no real token verifies with it"));
    }
    // Without the query, which may contain a token.
    let path = sent.path.split('?').next().unwrap_or_default();
    let text = format!("{} {path} on {}, at {}", sent.method, sent.host, date(explain.at.0));
    steps.step("request", printable(&text));

    // Keys are fetched before the first request, as in a proxy that has just started.
    dispatcher.tick(&mut host);
    callouts.answer_all(&core, &mut host, &mut dispatcher, &mut request.seen.get_mut().steps);
    let mut worker = Worker::new(Arc::clone(&core));
    let mut action = worker.begin(STREAM, true, &mut host, &mut request, &mut dispatcher);
    while action == Action::Pause {
        callouts.answer_all(&core, &mut host, &mut dispatcher, &mut request.seen.get_mut().steps);
        let stream = dispatcher.poll_wake().context("the request waits for nothing")?;
        action = worker.resume(stream, &mut host, &mut request, &mut dispatcher);
    }

    let ExplainedRequest { reply, changes, seen, .. } = request;
    let Seen { steps, rule, rejection, admitted, is_open, reported, .. } = seen.into_inner();
    let verdict = match (rejection, reply, reported) {
        (Some(rejection), Some(reply), _) => Verdict::Refused { rejection: hinted(rejection, &callouts), reply },
        (None, Some(_), _) => Verdict::Answered,
        (_, None, Some(rejection)) => Verdict::Reported { rejection, changes },
        (_, None, None) => Verdict::Admitted { how: if is_open { How::Open } else { how(admitted, &steps) }, changes },
    };
    let rule = rule.and_then(|rule| core.policy.rules().get(rule)).map(|rule| rule.name.clone());
    Ok(Judged { rule, steps: steps.taken, verdict })
}

/// Only an answer of the service, given or real, says that a session was not revoked.
fn how(admission: Option<bool>, steps: &Steps<'_>) -> How {
    match admission {
        Some(true) => How::Unchecked,
        Some(false) if steps.asked_in_vain() => How::UnlessRevoked,
        Some(false) | None => How::Plainly,
    }
}

/// Names the option that would have changed the verdict.
fn hinted(rejection: Rejection, callouts: &Callouts) -> Rejection {
    match rejection.cause {
        Cause::IntrospectionUnanswered if callouts.introspection.is_none() && callouts.live.is_none() => {
            let detail = "here it counts as unavailable; give its response by --introspection";
            Rejection { detail: Some(detail.into()), ..rejection }
        }
        _ => rejection,
    }
}
