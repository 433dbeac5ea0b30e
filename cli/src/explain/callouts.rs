//! The replies to the driver's callouts: what the options say, and no reply where they say nothing.

use anyhow::{Context as _, Result};
use authn::engine::Material;
use authn::introspection::Reply;
use authn::keys::source::Settings;
use authn::policy::Policy;
use driver::fake::{FakeHost, FakeReply, FakeService, InFlight};
use driver::{Core, Dispatcher};
use serde_json::json;
use wire::check::{self, Asked};
use wire::feed;

use super::steps::Steps;
use super::{Answer, Explain};
use crate::outcome::wrong_usage;

pub struct Callouts {
    answer: Answer,
    /// The introspection server's response.
    pub introspection: Option<Vec<u8>>,
    key_sets: Vec<KeySet>,
}

/// A document of `--jwks`.
struct KeySet {
    settings: Settings,
    text: Vec<u8>,
    /// Where a discovery document says that the set is.
    discovered: String,
}

const JSON: &str = "application/json";
/// No issuer's own (RFC 2606).
const DISCOVERED_HOST: &str = "jwks.invalid";

impl Callouts {
    /// # Errors
    /// A file that cannot be read, or is not what it should be.
    pub fn new(explain: &Explain, policy: &Policy) -> Result<Self> {
        let mut key_sets = Vec::new();
        for pair in &explain.jwks {
            let Some((name, file)) = pair.split_once('=') else { wrong_usage("--jwks takes ISSUER=FILE") };
            key_sets.push(KeySet::read(policy, name, file)?);
        }
        let file = explain.introspection.as_ref();
        let read =
            |file: &std::path::PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        Ok(Self { answer: explain.answer, introspection: file.map(read).transpose()?, key_sets })
    }

    /// Answers all callouts, those included that an answer causes.
    pub fn answer_all(&self, core: &Core, host: &mut FakeHost, dispatcher: &mut Dispatcher, steps: &mut Steps<'_>) {
        while !host.in_flight.is_empty() {
            let call = host.in_flight.remove(0);
            let reply = self.reply(core, &call, steps).unwrap_or_else(FakeReply::broken_off);
            dispatcher.answered(host, call.id, &reply);
        }
    }

    fn reply(&self, core: &Core, call: &InFlight, steps: &mut Steps<'_>) -> Option<FakeReply> {
        if call.header(":method") == "GET" {
            return self.key_sets.iter().find_map(|set| set.reply(call));
        }
        if call.header("content-type") == check::CONTENT_TYPE {
            return self.check(core, &call.body);
        }
        if call.header("content-type") == feed::CONTENT_TYPE {
            return None;
        }
        let body = self.introspection.as_ref()?;
        steps.introspected(&Reply { status: 200, content_type: Some(JSON.as_bytes()), body });
        Some(FakeReply::new(200, JSON, body.clone()))
    }

    /// The same answer about each key.
    fn check(&self, core: &Core, question: &[u8]) -> Option<FakeReply> {
        let mut service = FakeService::new(core.policy.revocation()?.derived.clone());
        match self.answer {
            Answer::Service(answer) => {
                let asked = Asked::read(std::slice::from_ref(&service.keys), question).ok()?;
                service.revoked = asked.keys().iter().map(|key| (*key, answer)).collect();
            }
            Answer::Fails(error) => service.fails = Some(error),
            Answer::Unavailable => return None,
        }
        Some(service.answer(question))
    }
}

impl KeySet {
    fn read(policy: &Policy, name: &str, file: &str) -> Result<Self> {
        let keyrings = policy.keyrings();
        let place = keyrings.fetched().find(|place| policy.issuer_name(*place) == Some(name));
        let source = place.and_then(|place| keyrings.source(place));
        let source = source.with_context(|| format!("no issuer `{name}` has `jwks` in the configuration"))?;
        let settings = source.settings().clone();
        let text = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        let parsed = jose::jwks::parse::<Material>(&text, &settings.algorithms, settings.symmetric);
        parsed.with_context(|| format!("{file} is no key set"))?;
        Ok(Self { settings, text, discovered: format!("/{}", place.unwrap_or_default()) })
    }

    fn reply(&self, call: &InFlight) -> Option<FakeReply> {
        let Settings { cluster, url, discovery, .. } = &self.settings;
        let is_for = |authority: &str, path: &str| {
            call.cluster == *cluster && call.header(":authority") == authority && call.header(":path") == path
        };
        match discovery {
            None => is_for(&url.authority, &url.path).then(|| FakeReply::new(200, JSON, self.text.clone())),
            Some(_) if is_for(DISCOVERED_HOST, &self.discovered) => Some(FakeReply::new(200, JSON, self.text.clone())),
            Some(issuer) => is_for(&url.authority, &url.path).then(|| {
                let jwks_uri = format!("https://{DISCOVERED_HOST}{}", self.discovered);
                FakeReply::new(200, JSON, json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string())
            }),
        }
    }
}
