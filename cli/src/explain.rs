//! `portcullis explain`: lets the filter's own core judge one request, and says each step. It judges nothing itself.
//!
//! Tokens, signatures and keys are never printed; of claims, only the registered ones (RFC 7519 section 4.1) have their
//! values shown, unless that is asked for.
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use authn::config::{Document, OneOrMany};
use authn::credentials::Source;
use authn::decide::clear::Edit;
use authn::decide::{Admission, Entry, Peer, Removal, RevocationStatus, Unavailable, Verified};
use authn::engine::{Material, Portable};
use authn::introspection::Reply;
use authn::keys::rings::Keyrings;
use authn::reject::{Cause, Rejection};
use authn::request::{Pair, Request};
use authn::revocation::Verdict;
use authn::time::{Monotonic, Now, UnixSeconds};
use clap::Args;
use jose::json::{Json, Number};
use jose::{Family, base64url};
use serde_json::{Value, json};

use crate::document::{self, Compiled, Secrets};
use crate::{Outcome, instant, say, wrong_usage};

#[derive(Args)]
pub struct Explain {
    /// The filter's configuration, as for `check-config`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    secrets: Secrets,
    /// A token, put where the configuration looks first; `-` reads it from the standard input, where no other user of
    /// this machine sees it. Without it, the request is as the other options make it.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// In upper case, as clients send it.
    #[arg(long, default_value = "GET")]
    method: String,
    /// The path with its query, as Envoy hands it to the filter.
    #[arg(long, default_value = "/")]
    path: String,
    /// The host, with or without a port.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// A header of the request. More than once for several.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// When: seconds since 1970, a time as 2026-01-31T23:59:59Z, or now.
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = instant::parse)]
    at: UnixSeconds,
    /// What the session service answers, where it is asked: live, dead, before:TIME (ended, if issued before), or
    /// unavailable.
    #[arg(long, value_name = "ANSWER", default_value = "live")]
    answer: Answer,
    /// What the introspection server answers about the token, where it is asked: a file with its JSON response (RFC 7662 section 2.2).
    /// Without it, the server is taken for unavailable.
    #[arg(long, value_name = "FILE")]
    introspection: Option<PathBuf>,
    /// The client's address, for rules that bind tokens to it.
    #[arg(long, value_name = "ADDRESS")]
    client_address: Option<IpAddr>,
    /// The SHA-256 of the client's certificate in hexadecimal, for rules that bind tokens to it.
    #[arg(long, value_name = "HEX")]
    client_certificate_sha256: Option<String>,
    /// The key set of an issuer whose keys are fetched: its name in the configuration, and a file with what it publishes.
    /// Without it, such an issuer has no keys here.
    #[arg(long, value_name = "ISSUER=FILE")]
    jwks: Vec<String>,
    /// Show the values of all claims, and of the headers made of them.
    #[arg(long)]
    show_claims: bool,
    /// One JSON document: `{"verdict", "rule", "steps", "forward" or "refusal"}`, with neither where the filter itself answers.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Service(wire::Answer),
    Unavailable,
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "live" => Ok(Self::Service(wire::Answer::Live)),
            "dead" => Ok(Self::Service(wire::Answer::Dead)),
            "unavailable" => Ok(Self::Unavailable),
            _ => {
                let time = text.strip_prefix("before:").ok_or("use live, dead, before:TIME or unavailable")?;
                instant::parse(time).map(|time| Self::Service(wire::Answer::Before(time.0)))
            }
        }
    }
}

fn reply(response: &[u8]) -> Reply<'_> {
    Reply { status: 200, content_type: Some(b"application/json"), body: response }
}

impl Explain {
    fn keyrings(&self, compiled: &Compiled) -> Result<Keyrings> {
        let mut keyrings = compiled.policy.keyrings();
        for pair in &self.jwks {
            let Some((name, file)) = pair.split_once('=') else { wrong_usage("--jwks takes ISSUER=FILE") };
            let place =
                (0..compiled.document.issuers.len()).find(|&place| compiled.policy.issuer_name(place) == Some(name));
            let source = place.and_then(|place| keyrings.source_mut(place));
            let source = source.with_context(|| format!("no issuer `{name}` has `jwks` in the configuration"))?;
            let text = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
            let settings = source.settings();
            let parsed = jose::jwks::parse::<Material>(&text, &settings.algorithms, settings.symmetric);
            parsed.with_context(|| format!("{file} is no key set"))?;
            source.adopt(&text, Monotonic(0), Monotonic(0), Monotonic(0), 0);
        }
        Ok(keyrings)
    }

    pub fn run(self) -> Result<Outcome> {
        let headers: Vec<(String, String)> = self.headers.iter().map(|header| name_and_value(header)).collect();
        if self.config == Path::new("-") && self.token.as_deref() == Some("-") {
            wrong_usage("the standard input can be the configuration or the token, not both");
        }
        let token = match self.token.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
                Some(text.trim_ascii().to_owned())
            }
            given => given.map(str::to_owned),
        };
        let compiled = document::read_one(&self.config, &self.secrets)?;
        let sent = Sent::new(&self, headers, token.as_deref(), &compiled.document);
        let keyrings = self.keyrings(&compiled)?;
        let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let response = self.introspection.as_ref().map(read).transpose()?;
        let mut trace = Trace { explain: &self, compiled: &compiled, keyrings, response, steps: Vec::new() };
        for name in &compiled.assumed {
            trace
                .step("note", format!("a placeholder stands for the secret `{name}`: nothing signed with it verifies"));
        }
        let end = trace.judge(&sent);
        let steps = trace.steps;
        let refused = end.is_err();
        match self.json {
            true => say(&self.as_json(&compiled, &steps, end).to_string()),
            false => self.print(&compiled, &steps, end),
        }
        Ok(if refused { Outcome::Refused } else { Outcome::Done })
    }

    fn print(
        &self,
        Compiled { policy, document, .. }: &Compiled,
        steps: &[(&str, String)],
        end: Result<Passed, Refused>,
    ) {
        for (step, says) in steps {
            say(&format!("{step:<12} {says}"));
        }
        match end {
            Ok(passed) if policy.answers(passed.rule) => say("answered"),
            Ok(passed) => {
                say("admitted");
                for change in self.changes(&passed, document) {
                    say(&format!("  {}", change.text()));
                }
            }
            Err(Refused { rule, rejection }) => {
                let refusal = policy.refusal(rejection.reason, rule);
                say(&format!("refused {} {}", rejection.reason.code(), refusal.status));
                say(&format!("  cause: {rejection}"));
                say("  the client sees:");
                for (name, value) in &refusal.headers {
                    say(&format!("    {name}: {value}"));
                }
                say(&format!("    {}", refusal.body));
            }
        }
    }

    fn as_json(
        &self,
        Compiled { policy, document, .. }: &Compiled,
        steps: &[(&str, String)],
        end: Result<Passed, Refused>,
    ) -> Value {
        let steps: Vec<Value> = steps.iter().map(|(step, says)| json!({ "step": step, "says": says })).collect();
        let name = |rule: Option<usize>| rule.and_then(|rule| policy.rules().get(rule)).map(|rule| rule.name.clone());
        match end {
            Ok(passed) if policy.answers(passed.rule) => {
                json!({ "verdict": "answered", "rule": name(Some(passed.rule)), "steps": steps })
            }
            Ok(passed) => {
                let forward: Vec<Value> = self.changes(&passed, document).iter().map(Change::as_json).collect();
                json!({ "verdict": "admitted", "rule": name(Some(passed.rule)), "steps": steps, "forward": forward })
            }
            Err(Refused { rule, rejection }) => {
                let refusal = policy.refusal(rejection.reason, rule);
                let headers: Vec<Value> =
                    refusal.headers.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
                let body = serde_json::from_str(&refusal.body).unwrap_or(Value::String(refusal.body));
                json!({
                    "verdict": "refused", "rule": name(rule), "steps": steps,
                    "code": rejection.reason.code(), "status": refusal.status, "cause": rejection.to_string(),
                    "refusal": { "headers": headers, "body": body },
                })
            }
        }
    }

    /// What is done to the request before the upstream has it.
    fn changes(&self, passed: &Passed, document: &Document) -> Vec<Change> {
        let mut changes = passed.cleared.clone();
        let Some(admission) = &passed.admission else { return changes };
        let written = document.rules.get(passed.rule).and_then(|rule| rule.forward.as_ref());
        let payload_header = written.unwrap_or(&document.forward).payload_header.as_deref().unwrap_or_default();
        for (name, value) in admission.headers() {
            // The payload as it stands in the token is a part of the token.
            changes.push(match name.eq_ignore_ascii_case(payload_header) {
                true => Change::SetPayload(name.clone()),
                false => Change::Set { name: name.clone(), value: self.show_claims.then(|| value.clone()) },
            });
        }
        match admission.removal() {
            Removal::Nothing => {}
            Removal::Header(name) => changes.push(Change::Clear(String::from_utf8_lossy(name).into_owned())),
            Removal::Cookie(_) => changes.push(Change::Cut("the token's cookie")),
            Removal::Subprotocols(_) => changes.push(Change::Cut("the token's WebSocket subprotocol")),
        }
        changes
    }
}

#[derive(Clone)]
enum Change {
    Clear(String),
    Cut(&'static str),
    SetPayload(String),
    /// Without a value, it is not to be shown.
    Set {
        name: String,
        value: Option<String>,
    },
}

impl Change {
    fn of(edit: Edit<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match edit {
            Edit::Remove(name) => Change::Clear(text(name)),
            Edit::Set(":path", _) => Change::Cut("the query parameters for tokens"),
            Edit::Set("cookie", _) => Change::Cut("cookies that could be read as the token's"),
            Edit::Set(name, value) => Change::Set { name: name.to_owned(), value: Some(text(&value)) },
        }
    }

    fn text(&self) -> String {
        match self {
            Change::Clear(name) => format!("removes the header {}", name.escape_debug()),
            Change::Cut(what) => format!("removes {what}"),
            Change::SetPayload(name) => format!("sets {name} (the token's payload, which is never shown)"),
            Change::Set { name, value: Some(value) } => format!("sets {name}: {value}"),
            Change::Set { name, value: None } => format!("sets {name} (its value with --show-claims)"),
        }
    }

    fn as_json(&self) -> Value {
        match self {
            Change::Clear(name) => json!({ "remove_header": name }),
            Change::Cut(what) => json!({ "remove": what }),
            Change::SetPayload(name) => json!({ "set_header": name, "value": null }),
            Change::Set { name, value } => json!({ "set_header": name, "value": value }),
        }
    }
}

struct Passed {
    rule: usize,
    /// What is changed in every request, before anything is judged.
    cleared: Vec<Change>,
    admission: Option<Admission>,
}

struct Refused {
    rule: Option<usize>,
    rejection: Rejection,
}

/// The request as the filter would read it.
struct Sent {
    path: String,
    headers: Vec<(String, String)>,
}

impl Sent {
    fn new(explain: &Explain, mut headers: Vec<(String, String)>, token: Option<&str>, document: &Document) -> Self {
        let mut path = explain.path.clone();
        let sources = &document.tokens;
        match (token, sources.headers.first(), sources.cookies.first(), sources.query.first()) {
            (Some(token), Some(header), _, _) => {
                let scheme = header.scheme.as_ref().map(|scheme| format!("{scheme} ")).unwrap_or_default();
                headers.push((header.name.to_ascii_lowercase(), format!("{scheme}{token}")));
            }
            (Some(token), None, Some(cookie), _) => headers.push(("cookie".into(), format!("{}={token}", cookie.name))),
            (Some(token), None, None, Some(parameter)) => {
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str(&format!("{parameter}={token}"));
            }
            (Some(_), None, None, None) | (None, ..) => {}
        }
        Self { path, headers }
    }
}

struct Trace<'e> {
    explain: &'e Explain,
    compiled: &'e Compiled,
    keyrings: Keyrings,
    /// Of the introspection server.
    response: Option<Vec<u8>>,
    steps: Vec<(&'static str, String)>,
}

impl Trace<'_> {
    fn step(&mut self, step: &'static str, says: impl Into<String>) {
        self.steps.push((step, says.into()));
    }

    fn judge(&mut self, sent: &Sent) -> Result<Passed, Refused> {
        let Explain { method, host, .. } = self.explain;
        let policy = &self.compiled.policy;
        let refused = |rule, rejection| Refused { rule, rejection };
        let pseudo = [(":method", method), (":path", &sent.path), (":authority", host)];
        let mut pairs: Vec<Pair<'_>> =
            pseudo.into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        pairs.push((b":scheme", b"https"));
        pairs.extend(sent.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        // The query is left out: it may hold a token.
        let path = sent.path.split('?').next().unwrap_or_default();
        let at = self.explain.at;
        let text = format!("{method} {path} on {host}, at {} seconds since 1970", at.0);
        self.step("request", text.escape_debug().to_string());

        let request = Request::from_pairs(&pairs).map_err(|rejection| refused(None, rejection))?;
        let cleared = policy.clear(&request).into_iter().map(Change::of).collect();
        let entered = match policy.enter(&request) {
            Entry::Open { rule, .. } => {
                self.rule(rule);
                self.step("token", "none is looked at");
                if policy.answers(rule) {
                    self.step("answer", "200, from the filter itself; nothing is forwarded");
                }
                return Ok(Passed { rule, cleared, admission: None });
            }
            Entry::Denied { rule, rejection } => {
                if let Some(rule) = rule {
                    self.rule(rule);
                }
                return Err(refused(rule, rejection));
            }
            Entry::Token(entered) => entered,
        };
        let rule = entered.rule();
        self.rule(rule);
        self.step("token", format!("{} bytes, in {}", entered.token().len(), self.source(entered.source())));
        let admission = self.judge_token(entered).map_err(|rejection| refused(Some(rule), rejection))?;
        Ok(Passed { rule, cleared, admission: Some(admission) })
    }

    fn judge_token(&mut self, entered: authn::decide::Entered<'_>) -> Result<Admission, Rejection> {
        let Compiled { policy, document, .. } = self.compiled;
        // Freshness does not matter here: an answer comes in the moment in which it is asked for.
        let now = Now { wall: self.explain.at, monotonic: Monotonic(0) };
        let verified = match policy.introspecting(entered.rule(), entered.token()) {
            Some(issuer) => self.introspected(issuer, entered.token(), now)?,
            None => {
                self.signature(entered.token())?;
                let verified = policy.verify(&Portable, &self.keyrings, &entered, now);
                verified.map_err(|unverifiable| unverifiable.rejection)?
            }
        };
        let verified = Arc::new(verified);
        let issuer = document.issuers.get(verified.issuer());
        let lifetime = issuer.map_or_else(String::new, |issuer| {
            format!(
                ", its lifetime is at most {:?} and its clock may differ by {:?}",
                issuer.max_lifetime.0, issuer.skew.0
            )
        });
        let kind = if verified.is_opaque() { "kind" } else { "typ, kind" };
        self.step("claims", format!("{kind}, aud, required claims and times are accepted{lifetime}"));
        let window = verified.window();
        let until = window.until.0.min(window.login_until.0);
        let (from, until) = (self.relative(window.from.0), self.relative(until));
        self.step("window", format!("counts from {from} until {until}, clock skew included"));

        let rule = entered.rule();
        let accepted = policy.accept(Arc::clone(&verified), entered, now, self)?;
        self.accepted(rule);
        let revocation_status = match policy.revocation_status(accepted, now)? {
            RevocationStatus::MustIntrospect(accepted) => {
                self.confirmed(accepted.verified(), now)?;
                policy.revocation_status(accepted, now)?
            }
            revocation_status => revocation_status,
        };
        let admission = match revocation_status {
            // Just now it was introspected.
            RevocationStatus::MustIntrospect(_) => return Err(Rejection::new(Cause::IntrospectionTimeout)),
            RevocationStatus::Admitted(admission) => {
                self.step("revocation", "not asked for");
                admission
            }
            RevocationStatus::MustAsk(asking) => {
                self.revocation_keys(&verified)?;
                match self.explain.answer {
                    Answer::Service(answer) => {
                        let verdict = asking.query().judge(asking.query().keys.iter().map(|_| answer));
                        let answered = match answer {
                            wire::Answer::Live => "live".to_owned(),
                            wire::Answer::Dead => "dead".to_owned(),
                            wire::Answer::Before(time) => format!("before:{time}"),
                        };
                        let means = match verdict {
                            Verdict::Live => "lives",
                            Verdict::Dead => "was ended",
                        };
                        let issued = self.relative(asking.query().issued.0);
                        let says = format!("taken for answered {answered} to each; issued {issued}, the token {means}");
                        self.step("revocation", says);
                        asking.on_verdict(policy, now.monotonic, verdict, now)?
                    }
                    Answer::Unavailable => {
                        self.step("revocation", "taken for unavailable");
                        asking.on_cannot_tell(Unavailable::OutOfReach, Cause::CheckUnanswered)?
                    }
                }
            }
        };
        if admission.mismatch_reported {
            self.step("binding", "a mismatch, which this rule only reports");
        }
        if admission.unchecked {
            self.step("revocation", "this rule lets pass what cannot be checked");
        }
        Ok(admission)
    }

    fn rule(&mut self, place: usize) {
        let Compiled { policy, document, .. } = self.compiled;
        if let (Some(rule), Some(written)) = (policy.rules().get(place), document.rules.get(place)) {
            self.step("rule", format!("{} (rules[{place}]), access {}", rule.name, word(&written.access)));
        }
    }

    fn source(&self, source: Source) -> String {
        let sources = &self.compiled.document.tokens;
        let found = match source {
            Source::Header(place) => sources.headers.get(place).map(|header| match &header.scheme {
                Some(scheme) => format!("the header {}, scheme {scheme}", header.name),
                None => format!("the header {}", header.name),
            }),
            Source::Cookie(place) => sources.cookies.get(place).map(|cookie| format!("the cookie {}", cookie.name)),
            Source::Websocket(place) => sources
                .websocket
                .get(place)
                .map(|websocket| format!("a WebSocket subprotocol that begins with {}", websocket.prefix)),
            Source::Query(place) => sources.query.get(place).map(|name| format!("the query parameter {name}")),
        };
        found.unwrap_or_default()
    }

    /// What the token says and who signed it: the first steps of the core's `verify`, one by one.
    fn signature(&mut self, token: &[u8]) -> Result<(), Rejection> {
        let Compiled { policy, document, .. } = self.compiled;
        let unverified = policy.unverified(token)?;
        let header = unverified.header();
        let quoted =
            |text: &Option<String>| text.as_ref().map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"));
        self.step("header", format!("alg {}, kid {}, typ {}", header.alg, quoted(&header.kid), quoted(&header.typ)));
        let payload = unverified.parse_payload()?;
        let Json::Object(claims) = &payload else { return Ok(()) };
        for (name, value) in claims.iter() {
            let says = self.claim(name, value);
            self.step("says", says);
        }
        let now = Now { wall: self.explain.at, monotonic: Monotonic(0) };
        let signer = policy.signer(&Portable, &self.keyrings, &unverified, claims, now);
        let signer = signer.map_err(|unverifiable| unverifiable.rejection)?;
        let name = policy.issuer_name(signer.issuer).unwrap_or_default();
        let iss = claims.get("iss").and_then(Json::as_str).unwrap_or_default();
        let written = document.issuers.get(signer.issuer).map(|issuer| issuer.issuer.as_str()).unwrap_or_default();
        let tenant = if written == iss { String::new() } else { format!(", a tenant of {written:?}") };
        self.step("issuer", format!("{name}, {iss:?}{tenant}"));
        // The thumbprint of a secret would let others try secrets against it.
        let key = match header.alg.family() {
            Family::Hmac => "a shared secret".to_owned(),
            Family::Rsa | Family::P256 | Family::P384 | Family::P521 | Family::Ed25519 => {
                format!("the key with thumbprint {}", base64url::encode(signer.thumbprint))
            }
        };
        self.step("signature", format!("verified with {key}"));
        Ok(())
    }

    /// An opaque token, by what its issuer's server is said to answer.
    fn introspected(&mut self, issuer: usize, token: &[u8], now: Now) -> Result<Verified, Rejection> {
        let policy = &self.compiled.policy;
        let name = policy.issuer_name(issuer).unwrap_or_default();
        self.step("opaque", format!("looks as {name}'s, and {} is asked about it", self.server(issuer)));
        let response = self.introspection()?;
        policy.introspected(issuer, token, &reply(&response), now.monotonic, now)?
    }

    /// A JWT that is good by itself, by what its issuer's server is said to answer.
    fn confirmed(&mut self, verified: &Verified, now: Now) -> Result<(), Rejection> {
        self.step("introspect", format!("{} is asked about it too", self.server(verified.issuer())));
        let response = self.introspection()?;
        self.compiled.policy.confirm(verified, &reply(&response), now.monotonic, now)??;
        self.step("introspect", "active, and the answer does not contradict the token".to_owned());
        Ok(())
    }

    /// Who is asked about an issuer's tokens.
    fn server(&self, issuer: usize) -> String {
        let asked = self.compiled.document.issuers.get(issuer).and_then(|issuer| issuer.introspection.as_ref());
        asked.map_or_else(String::new, |asked| format!("{} of cluster {}", asked.path, asked.cluster))
    }

    /// The response that was given, and what it says.
    fn introspection(&mut self) -> Result<Vec<u8>, Rejection> {
        let Some(response) = self.response.take() else {
            let detail = "here it is taken for unavailable, give its response by --introspection";
            return Err(Rejection::with_detail(Cause::IntrospectionUnanswered, detail));
        };
        if let Ok(Ok(Json::Object(claims))) = reply(&response).read() {
            for (name, value) in claims.iter() {
                let says = self.claim(name, value);
                self.step("says", says);
            }
        }
        Ok(response)
    }

    fn claim(&self, name: &str, value: &Json<'_>) -> String {
        let shown = match value {
            _ if !REGISTERED.contains(&name) && !TIMES.contains(&name) && !self.explain.show_claims => {
                return format!("{name:?} (its value with --show-claims)");
            }
            Json::Number(Number::Unsigned(seconds)) if TIMES.contains(&name) => self.relative(*seconds),
            Json::String(text) => format!("{text:?}"),
            other => other.to_text().escape_debug().to_string(),
        };
        format!("{name:?} {shown}")
    }

    /// Seconds since 1970, and how far from the moment that is judged.
    fn relative(&self, seconds: u64) -> String {
        let at = self.explain.at.0;
        match seconds.checked_sub(at) {
            Some(0) => format!("{seconds} (now)"),
            Some(ahead) => format!("{seconds} (in {ahead}s)"),
            None => format!("{seconds} ({}s ago)", at.saturating_sub(seconds)),
        }
    }

    /// What a rule asked for and got.
    fn accepted(&mut self, place: usize) {
        let Some(rule) = self.compiled.document.rules.get(place) else { return };
        if !rule.scopes.all.is_empty() || !rule.scopes.any.is_empty() {
            let mut wanted = Vec::new();
            for (how, scopes) in [("all of", &rule.scopes.all), ("one of", &rule.scopes.any)] {
                if !scopes.is_empty() {
                    wanted.push(format!("{how} {}", scopes.join(", ")));
                }
            }
            self.step("scopes", format!("has {}", wanted.join(" and ")));
        }
        for condition in &rule.claims {
            self.step("condition", format!("the claim {} is as the rule wants it", path(&condition.claim)));
        }
        let binding = &rule.binding;
        if let Some(certificate) = &binding.certificate {
            self.step("binding", format!("certificate, {}", word(&certificate.mode)));
        }
        for (what, claim) in [("address", &binding.address), ("user agent", &binding.user_agent)] {
            if let Some(claim) = claim {
                self.step("binding", format!("{what} by the claim {}, {}", path(&claim.claim), word(&claim.mode)));
            }
        }
        self.step("accepted", "the rule accepts the token");
    }

    fn revocation_keys(&mut self, verified: &Verified) -> Result<(), Rejection> {
        let Compiled { policy, document, assumed } = &self.compiled;
        let is_assumed =
            document.revocation.as_ref().is_some_and(|revocation| assumed.contains(&revocation.secret_env));
        for (kind, key) in policy.revocation_keys(verified)? {
            // Keys come of the secret: with a placeholder they would name nothing.
            let key = if is_assumed { String::new() } else { format!(" {key}") };
            self.step("asks", format!("{kind}{key}"));
        }
        for kind in policy.not_revocable_by(verified)? {
            let claims = policy.revocation_claims(verified.issuer(), kind);
            let why = match kind {
                wire::Kind::SigningKey => "no key has signed it".to_owned(),
                _ if claims.is_empty() => "this issuer's tokens have no claim for it".to_owned(),
                _ => format!("the token has none of {}", claims.join(", ")),
            };
            self.step("unreachable", format!("a revocation by {kind} does not end it: {why}"));
        }
        Ok(())
    }
}

impl Peer for Trace<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.explain.client_address
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        self.explain.client_certificate_sha256.as_ref().map(|hex| hex.clone().into_bytes())
    }
}

/// RFC 7519 section 4.1.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];
const TIMES: [&str; 4] = ["exp", "nbf", "iat", "auth_time"];

/// As it is written in a configuration.
fn word(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn path(claim: &OneOrMany<String>) -> String {
    claim.as_slice().join(".")
}

/// A header may hold a token, so that clap, which shows what it cannot read, does not read it.
fn name_and_value(header: &str) -> (String, String) {
    match header.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            let name = name.to_ascii_lowercase();
            if name == "host" {
                wrong_usage("give the host by --host");
            }
            (name, value.trim_ascii().to_owned())
        }
        _ => wrong_usage("write a header as 'name: value'; its name and value are not shown here"),
    }
}
