//! The replies to the driver's callouts: those of the real servers, or what the options say, and no reply where they say
//! nothing.

use anyhow::{Context as _, Result};
use authn::config::Document;
use authn::engine::Material;
use authn::introspection::Reply;
use authn::keys::source::Settings;
use authn::policy::Policy;
use driver::fake::{FakeHost, FakeReply, FakeService, InFlight};
use driver::{CalloutReply, Core, Dispatcher};
use serde_json::json;
use wire::DerivedKeys;
use wire::check::{self, Asked};
use wire::feed;

use super::steps::Steps;
use super::{Answer, Explain};
use crate::outcome::wrong_usage;
use crate::peers::Peers;

pub struct Callouts {
    answer: Answer,
    /// The introspection server's response.
    pub introspection: Option<Vec<u8>>,
    key_sets: Vec<KeySet>,
    /// The real servers, if they are to be asked.
    pub live: Option<Peers>,
    /// Of the URLs of key sets.
    schemes: Vec<(String, &'static str)>,
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
    pub fn new(explain: &Explain, document: &Document, policy: &Policy, live: Option<Peers>) -> Result<Self> {
        let mut key_sets = Vec::new();
        for pair in &explain.jwks {
            let Some((name, file)) = pair.split_once('=') else { wrong_usage("--jwks takes ISSUER=FILE") };
            key_sets.push(KeySet::read(policy, name, file)?);
        }
        let file = explain.introspection.as_ref();
        let read =
            |file: &std::path::PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        if let Some([missing, ..]) = live.as_ref().map(|peers| peers.missing(document)).as_deref() {
            wrong_usage(&format!(
                "--live needs the server of the cluster {missing}: --cluster {missing}=URL, or --envoy"
            ));
        }
        let schemes = document.issuers.iter().filter_map(|issuer| {
            let jwks = issuer.jwks.as_ref()?;
            let url = jwks.uri.as_deref().unwrap_or(&issuer.issuer);
            Some((jwks.cluster.clone(), if url.starts_with("http://") { "http" } else { "https" }))
        });
        Ok(Self {
            answer: explain.answer.unwrap_or(Answer::Service(wire::Answer::Live)),
            introspection: file.map(read).transpose()?,
            key_sets,
            live,
            schemes: schemes.collect(),
        })
    }

    /// Answers all callouts, those included that an answer causes.
    pub fn answer_all(&self, core: &Core, host: &mut FakeHost, dispatcher: &mut Dispatcher, steps: &mut Steps<'_>) {
        while !host.in_flight.is_empty() {
            let call = host.in_flight.remove(0);
            let reply = match &self.live {
                Some(peers) => self.live_reply(core, peers, &call, steps),
                None => self.reply(core, &call, steps).unwrap_or_else(FakeReply::broken_off),
            };
            dispatcher.answered(host, call.id, &reply);
        }
    }

    fn live_reply(&self, core: &Core, peers: &Peers, call: &InFlight, steps: &mut Steps<'_>) -> FakeReply {
        let kind = call.header("content-type");
        if kind == feed::CONTENT_TYPE {
            // Without a proof of the feed, the filter asks about each token.
            return FakeReply::broken_off();
        }
        if kind == check::CONTENT_TYPE && is_announcement(core, call) {
            // Only proxies report their issuers.
            return self.check(core, &call.body).unwrap_or_else(FakeReply::broken_off);
        }
        let scheme = self.schemes.iter().find(|(cluster, _)| *cluster == call.cluster).map_or("https", |(_, it)| it);
        match peers.send(call, scheme) {
            Ok(reply) => {
                if call.header(":method") != "GET" && kind != check::CONTENT_TYPE {
                    let content_type = CalloutReply::header(&reply, b"content-type");
                    let status = reply.status().unwrap_or_default();
                    let content_type = content_type.as_deref();
                    steps.introspected(&Reply { status, content_type, body: &reply.body });
                }
                reply
            }
            Err(why) => {
                steps.step("unreachable", format!("the cluster {}: {why}", call.cluster));
                // As Envoy answers for a server that it cannot reach.
                FakeReply::new(503, "text/plain", "")
            }
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
        let mut service = FakeService::new(DerivedKeys::clone(&core.policy.revocation()?.derived));
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

fn is_announcement(core: &Core, call: &InFlight) -> bool {
    let Some(revocation) = core.policy.revocation() else { return false };
    Asked::read(std::slice::from_ref(&*revocation.derived), &call.body).is_ok_and(|asked| asked.keys().is_empty())
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
