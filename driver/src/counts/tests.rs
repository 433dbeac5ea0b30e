use super::*;
use crate::metrics::WaitsFor;

fn counters() -> Vec<Counter> {
    let failures = [CheckFailure::NotSent, CheckFailure::NoAnswer, CheckFailure::NoProof]
        .into_iter()
        .chain(StoreError::ALL.map(CheckFailure::Service))
        .map(Counter::CheckFailed);
    let others = [
        Counter::TokenHit,
        Counter::TokenMiss,
        Counter::SharedHit,
        Counter::SharedMiss,
        Counter::CheckSent,
        Counter::RefreshedAhead,
        Counter::BindingReported,
        Counter::SpoofedHeader,
        Counter::CookieRepaired,
        Counter::CookieRemoved,
        Counter::RegionsExceeded,
    ];
    let polls = [
        FeedResult::Proof,
        FeedResult::News,
        FeedResult::Piece,
        FeedResult::TooLarge,
        FeedResult::NotSent,
        FeedResult::NoAnswer,
        FeedResult::NoProof,
    ];
    let polls = polls.into_iter().chain(Trouble::ALL.map(FeedResult::Trouble)).map(Counter::FeedPoll);
    let answers = [FeedAnswer::Clear, FeedAnswer::Asked, FeedAnswer::Silent].map(Counter::FeedAnswer);
    let settings = Setting::ALL.map(Counter::MissingProxySetting);
    let ends = [EndCause::Revoked, EndCause::Expired, EndCause::CannotTell].map(Counter::StreamEnded);
    let sightings = [SightingResult::Sent, SightingResult::Dropped, SightingResult::Lost].map(Counter::Sighting);
    failures.chain(others).chain(settings).chain(polls).chain(answers).chain(ends).chain(sightings).collect()
}

fn outcomes() -> Vec<Outcome> {
    let rejected = RejectReason::ALL.iter().map(|reason| Outcome::Rejected(*reason));
    let reported = RejectReason::ALL.iter().map(|reason| Outcome::Reported(*reason));
    rejected
        .chain(reported)
        .chain([Outcome::Open, Outcome::Admitted, Outcome::AdmittedUnchecked, Outcome::Answered])
        .collect()
}

#[test]
fn each_counter_has_an_index_of_its_own() {
    let mut indices: Vec<_> = counters().into_iter().map(Counter::index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..Counter::COUNT).collect::<Vec<_>>());
}

#[test]
fn each_outcome_has_an_index_of_its_own_under_each_rule() {
    let mut indices: Vec<_> = outcomes()
        .into_iter()
        .flat_map(|outcome| [None, Some(0), Some(1)].map(|rule| request_index(outcome, rule)))
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..3 * Outcome::COUNT).collect::<Vec<_>>());
}

/// docs/metrics.md is written by hand, and compared with the code here.
#[test]
fn every_metric_and_label_value_is_documented() {
    let docs = include_str!("../../../docs/metrics.md");
    for metric in Metric::ALL {
        let labels = metric.labels().join(",");
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let name = format!("`portcullis_{}{labels}`", metric.name());
        assert!(docs.contains(&name), "{name}");
    }
    let values = counters().into_iter().filter_map(|counter| counter.describe().1);
    let outcomes = outcomes().into_iter().map(Outcome::name);
    let failures = authn::introspection::Failure::ALL.into_iter().map(|failure| failure.name());
    for value in values.chain(outcomes).chain(failures).chain(WaitsFor::ALL.map(WaitsFor::name)) {
        assert!(["`", "."].iter().any(|before| docs.contains(&format!("{before}{value}`"))), "{value}");
    }
}
