//! Random histories of events against what must always hold: no request is admitted whose token was not verified or whose
//! session was known to be ended for longer than freshness allows; each is decided once, by its deadline; every bound is
//! kept; no wake is lost; no proof of possession admits two requests; a stream whose session was ended is ended, also when nobody can tell. `FakeProxy` itself fails on a second decision, on a reply after a reply, and on a wake of a
//! request that is gone.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::{Fixture, NOW, bearer, bound_token, dpop, proof, token};
use authn::time::Monotonic;
use driver::StreamId;
use driver::fake::{FakeReply, InFlight, Request, Seen};
use proptest::prelude::*;
use wire::Kind;
use wire::check::StoreError;

/// `revocation.freshness`, and `revocation.feed.lag`: a request is admitted by one or the other.
const FRESHNESS: Duration = Duration::from_secs(1);
/// The longest fetch of keys, `revocation.timeout` for a proof and for a verdict, and a tick for each of the waits.
const DEADLINE: Duration = Duration::from_millis(1500 + 2 * 500 + 400);
const WAITING: usize = 8;
/// `limits.open_streams`, and `streams.cannot_tell_for` of the rule.
const OPEN: usize = 6;
const CANNOT_TELL_FOR: Duration = Duration::from_secs(5);
const SUBJECTS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Debug, Clone)]
enum Event {
    /// A request with the subject's token, signed by the published key, the next one, or one that nobody publishes.
    Send {
        subject: usize,
        jti: u8,
        signer: Signer,
    },
    Anonymous,
    /// A request with the token and the proof of an earlier one.
    Again(usize),
    Reset(usize),
    /// The upstream begins to respond, or the client leaves an open stream.
    Respond(usize),
    Leave(usize),
    /// One callout in flight is answered, well or badly.
    Answer(usize, Quality),
    /// The host loses a callout: it never answers.
    Lose(usize),
    Revoke(usize),
    Pass(u16),
    Rotate,
    Break(bool),
    Deaf(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signer {
    Published,
    Next,
    Forged,
}

#[derive(Debug, Clone, Copy)]
enum Quality {
    Good,
    BrokenOff,
    Unavailable,
    Forged,
}

fn event() -> impl Strategy<Value = Event> {
    let signer = prop_oneof![6 => Just(Signer::Published), 2 => Just(Signer::Next), 1 => Just(Signer::Forged)];
    let quality = prop_oneof![
        8 => Just(Quality::Good), 1 => Just(Quality::BrokenOff), 1 => Just(Quality::Unavailable), 1 => Just(Quality::Forged)
    ];
    prop_oneof![
        8 => (0..SUBJECTS.len(), 0..3u8, signer).prop_map(|(subject, jti, signer)| Event::Send { subject, jti, signer }),
        1 => Just(Event::Anonymous),
        2 => any::<usize>().prop_map(Event::Again),
        2 => any::<usize>().prop_map(Event::Reset),
        2 => any::<usize>().prop_map(Event::Respond),
        1 => any::<usize>().prop_map(Event::Leave),
        8 => (any::<usize>(), quality).prop_map(|(call, quality)| Event::Answer(call, quality)),
        1 => any::<usize>().prop_map(Event::Lose),
        1 => (0..SUBJECTS.len()).prop_map(Event::Revoke),
        6 => (1..700u16).prop_map(Event::Pass),
        1 => Just(Event::Rotate),
        1 => any::<bool>().prop_map(Event::Break),
        1 => any::<bool>().prop_map(Event::Deaf),
    ]
}

/// What the test knows of a request, without asking the driver.
struct Known {
    subject: Option<usize>,
    signer: Signer,
    sent: Monotonic,
    /// Its number among all proofs.
    proof: Option<usize>,
}

/// A request with a proof.
struct Proved {
    subject: usize,
    signer: Signer,
    token: String,
    proof: String,
}

struct History {
    at: Fixture,
    requests: BTreeMap<StreamId, Known>,
    /// The subjects of the streams that are open, if streams are watched.
    open: Option<BTreeMap<StreamId, usize>>,
    /// Streams of subjects that were ended, and that the filter ended.
    rightly_ended: i64,
    /// When each subject was ended.
    ended: [Option<Monotonic>; SUBJECTS.len()],
    rotated: bool,
    /// Tokens are bound to a key. All proofs, and those that have admitted a request.
    proofs: Option<Vec<Proved>>,
    used: BTreeSet<usize>,
}

impl History {
    fn new(document: impl FnOnce(&mut serde_json::Value)) -> Self {
        let mut at = Fixture::with_published_keys();
        at.edit(|config| {
            config["limits"]["waiting_requests"] = WAITING.into();
            config["revocation"]["freshness"] = "1s".into();
            document(config);
        });
        at.publish(&["one"]);
        at.proxy.tick();
        at.answer_all();
        Self {
            at,
            requests: BTreeMap::new(),
            open: None,
            rightly_ended: 0,
            ended: [None; SUBJECTS.len()],
            rotated: false,
            proofs: None,
            used: BTreeSet::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        let at = &mut self.at;
        match event {
            Event::Send { subject, jti, signer } => {
                let kid = if *signer == Signer::Next { "two" } else { "one" };
                let mint = if self.proofs.is_some() { bound_token } else { token };
                let mut text = mint(kid, &format!("{subject} {jti}"), SUBJECTS[*subject], NOW);
                if *signer == Signer::Forged {
                    let end = text.len() - 20;
                    let other = if text.as_bytes()[end] == b'A' { "B" } else { "A" };
                    text.replace_range(end..=end, other);
                }
                if let Some(proofs) = &mut self.proofs {
                    let proof = proof(at, &text, None);
                    proofs.push(Proved { subject: *subject, signer: *signer, token: text, proof });
                    let last = proofs.len() - 1;
                    return self.prove(last);
                }
                let sent = at.proxy.host.now.monotonic;
                let stream = at.proxy.send(0, Request::get("/api", &[("authorization", &bearer(&text))]));
                self.requests.insert(stream, Known { subject: Some(*subject), signer: *signer, sent, proof: None });
            }
            Event::Again(number) => {
                let count = self.proofs.as_ref().map_or(0, Vec::len);
                if let Some(number) = pick(0..count, *number) {
                    return self.prove(number);
                }
            }
            Event::Anonymous => {
                let sent = at.proxy.host.now.monotonic;
                let stream = at.proxy.send(0, Request::get("/api", &[]));
                self.requests.insert(stream, Known { subject: None, signer: Signer::Forged, sent, proof: None });
            }
            Event::Reset(number) => {
                if let Some(stream) = pick(self.requests.keys().copied(), *number) {
                    self.at.proxy.reset(stream);
                    self.requests.remove(&stream);
                }
            }
            Event::Respond(number) => {
                let open: Vec<StreamId> = self.open.iter().flatten().map(|(stream, _)| *stream).collect();
                if let Some(stream) = pick(open.into_iter(), *number) {
                    at.proxy.respond(stream);
                }
            }
            Event::Leave(number) => {
                let open: Vec<StreamId> = self.open.iter().flatten().map(|(stream, _)| *stream).collect();
                if let Some(stream) = pick(open.into_iter(), *number) {
                    at.proxy.reset(stream);
                    self.open.as_mut().map(|open| open.remove(&stream));
                }
            }
            Event::Answer(number, quality) => {
                if let Some(call) = pick(at.proxy.host.in_flight.iter().cloned(), *number) {
                    let reply = reply(at, &call, *quality);
                    at.proxy.answer(call.id, &reply);
                }
            }
            Event::Lose(number) => {
                if let Some(call) = pick(at.proxy.host.in_flight.iter().map(|call| call.id), *number) {
                    at.proxy.host.take(call);
                }
            }
            Event::Revoke(subject) => {
                at.revoke(Kind::User, SUBJECTS[*subject]);
                self.ended[*subject].get_or_insert(at.proxy.host.now.monotonic);
            }
            Event::Pass(millis) => at.proxy.advance(Duration::from_millis(u64::from(*millis))),
            Event::Rotate => {
                at.publish(&["one", "two"]);
                self.rotated = true;
            }
            Event::Break(broken) => at.service.fails = broken.then_some(StoreError::StoreSlow),
            Event::Deaf(deaf) => at.proxy.host.refuses_calls = *deaf,
        }
        self.judge();
    }

    /// A request with this proof.
    fn prove(&mut self, number: usize) {
        let Some(Proved { subject, signer, token, proof }) = self.proofs.as_ref().and_then(|all| all.get(number))
        else {
            return;
        };
        let sent = self.at.proxy.host.now.monotonic;
        let headers = [("authorization", &*format!("DPoP {token}")), ("dpop", proof.as_str())];
        let stream = self.at.proxy.send(0, Request::get("/api", &headers));
        let known = Known { subject: Some(*subject), signer: *signer, sent, proof: Some(number) };
        self.requests.insert(stream, known);
        self.judge();
    }

    fn judge(&mut self) {
        let now = self.at.proxy.host.now.monotonic;
        let mut waiting = 0;
        let (mut decided, mut opened) = (Vec::new(), Vec::new());
        for (stream, known) in &self.requests {
            match self.at.proxy.seen(*stream) {
                Seen::Waiting => {
                    waiting += 1;
                    assert!(now.since(known.sent) <= DEADLINE, "{stream} waits for {:?}", now.since(known.sent));
                }
                Seen::Forwarded(exchange) => {
                    let subject = known.subject.expect("a request without a token is forwarded");
                    assert_ne!(known.signer, Signer::Forged, "a forged token is admitted");
                    assert!(known.signer != Signer::Next || self.rotated, "a key that nobody has published");
                    assert_eq!(exchange.header("x-user"), Some(SUBJECTS[subject].as_bytes()));
                    assert!(exchange.header("authorization").is_none(), "the token is kept");
                    assert!(exchange.header("dpop").is_none(), "the proof is kept");
                    if let Some(proof) = known.proof {
                        assert!(self.used.insert(proof), "a proof admits two requests");
                    }
                    // Of a subject that was ended before: only by an answer that was asked for before, and is still fresh.
                    if let Some(ended) = self.ended[subject] {
                        assert!(now.since(ended) < FRESHNESS, "admitted {:?} after its end", now.since(ended));
                    }
                    if let Some(open) = &mut self.open {
                        opened.push(*stream);
                        open.insert(*stream, subject);
                    } else {
                        decided.push(*stream);
                    }
                }
                Seen::Replied(_) => decided.push(*stream),
                Seen::Unanswered => panic!("a reply was not sent"),
                // Admitted and ended within one event.
                Seen::Ended(_) => {
                    let ended = known.subject.and_then(|subject| self.ended[subject]);
                    self.rightly_ended += i64::from(ended.is_some());
                    decided.push(*stream);
                }
            }
        }
        // Each kind of waiting has its own room.
        assert!(waiting <= 3 * WAITING, "{waiting} requests wait");
        assert_eq!(self.at.proxy.workers[0].waiting(), waiting, "a phase is left behind");
        assert!(self.at.proxy.host.in_flight.len() <= 2 + 2 + 2 + 1, "{} callouts", self.at.proxy.host.in_flight.len());
        for stream in decided {
            self.at.proxy.reset(stream);
            self.requests.remove(&stream);
        }
        for stream in &opened {
            self.requests.remove(stream);
        }
        self.judge_streams(now);
    }

    fn judge_streams(&mut self, now: Monotonic) {
        let Some(open) = &mut self.open else { return };
        assert!(open.len() <= OPEN + 1, "{} streams are open", open.len());
        open.retain(|stream, subject| match (self.at.proxy.seen(*stream), self.ended[*subject]) {
            (Seen::Forwarded(_), None) => true,
            (Seen::Forwarded(_), Some(ended)) => {
                // It may have been admitted by an answer that was still fresh.
                let longest = FRESHNESS + CANNOT_TELL_FOR + Duration::from_millis(200);
                assert!(now.since(ended) <= longest, "open {:?} after its end", now.since(ended));
                true
            }
            (Seen::Ended(_), ended) => {
                self.rightly_ended += i64::from(ended.is_some());
                self.at.proxy.reset(*stream);
                false
            }
            (seen, _) => panic!("{seen:?}"),
        });
        let revoked = self.at.proxy.metric("streams_ended{revoked}");
        assert!(revoked <= self.rightly_ended, "a stream of a session that lives was ended");
    }
}

fn pick<T>(mut items: impl ExactSizeIterator<Item = T>, number: usize) -> Option<T> {
    let count = items.len();
    if count == 0 { None } else { items.nth(number % count) }
}

fn reply(at: &Fixture, call: &InFlight, quality: Quality) -> FakeReply {
    match quality {
        // The service may answer a poll that it could hold.
        Quality::Good if call.header(":path") == wire::feed::PATH => {
            let held = at.proxy.host.now.monotonic.since(call.sent);
            at.service.poll(&call.body, held).unwrap_or_else(|| at.service.poll_now(&call.body, held))
        }
        Quality::Good => at.reply(call),
        Quality::BrokenOff => FakeReply::broken_off(),
        Quality::Unavailable => FakeReply::new(503, "text/plain", "no healthy upstream"),
        Quality::Forged => {
            FakeReply::new(200, wire::check::CONTENT_TYPE, at.service.answer(&at.question_about_nothing()).body)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_passes_that_must_not_and_all_are_answered(
        events in proptest::collection::vec(event(), 1..80),
        refresh_ahead in any::<bool>(),
        feed in any::<bool>(),
        streams in any::<bool>(),
        bound in any::<bool>(),
    ) {
        let mut history = History::new(|config| {
            config["revocation"]["refresh_ahead"] = refresh_ahead.into();
            if feed {
                config["revocation"]["feed"] = serde_json::json!({ "lag": "1s" });
            }
            if bound {
                config["dpop"] = dpop();
                config["rules"][0]["dpop"] = serde_json::json!({ "replay": "fleet" });
            }
            if streams {
                config["rules"][0]["streams"] = serde_json::json!({ "end_on": ["revoked"], "cannot_tell_for": "5s" });
                config["limits"]["open_streams"] = OPEN.into();
            }
        });
        history.open = streams.then(BTreeMap::new);
        history.proofs = bound.then(Vec::new);
        for event in &events {
            history.happen(event);
        }
        // When nothing more comes, everything ends.
        history.at.proxy.advance(DEADLINE + Duration::from_secs(1));
        history.judge();
        prop_assert!(history.requests.is_empty(), "requests without an end");
        // And when all is well again, a good token passes.
        history.at.service.fails = None;
        history.at.service.revoked.clear();
        history.at.proxy.host.refuses_calls = false;
        history.at.run(Duration::from_secs(120));
        for stream in history.open.take().into_iter().flatten().map(|(stream, _)| stream) {
            history.at.proxy.reset(stream);
        }
        history.at.run(Duration::from_millis(100));
        prop_assert_eq!(history.at.proxy.metric("streams_open"), 0);
        let stream = history.at.send("afterwards");
        history.at.answer_all();
        let passes = matches!(history.at.proxy.seen(stream), Seen::Forwarded(_));
        prop_assert!(passes, "{:?}", history.at.proxy.seen(stream));
    }
}
