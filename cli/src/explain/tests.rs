//! `explain` against the table of cases: its verdict is the one that the filter must give. Each case goes through the
//! command's own options and files; only the process is missing.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cases::{Case, Expect, Ready, RevokedSpec, Store, Table};
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::check::StoreError;
use wire::{DerivedKeys, Kind, Secret, token_id_from_jti};

use super::Explain;

const NOW: u64 = 1_750_000_000;
/// Cases that its options cannot express, by reason. A new case must not join them unseen.
const NOT_EXPRESSIBLE: [(&str, usize); 7] = [
    ("the introspection server's status is not 200", 15),
    ("the introspection server's response is not application/json", 3),
    ("a header `host` beside the host", 1),
    ("a header's value begins or ends with white space, which HTTP does not transmit", 3),
    ("a proof that a proxy has seen before", 8),
    ("a nonce that was asked for before", 3),
    ("a demand for a login: one answer stands for all keys, and says that the session was revoked", 9),
];

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    explain: Explain,
}

/// The files of one run.
struct Desk {
    table: Table,
    derived: DerivedKeys,
    directory: TempDir,
    configs: BTreeMap<String, PathBuf>,
}

enum Found {
    Agrees,
    Differs(String),
    NotExpressible(&'static str),
}

#[test]
fn it_agrees_with_every_case_of_the_table() {
    let desk = Desk::new();
    let cases = &desk.table.cases;
    let threads = std::thread::available_parallelism().unwrap().get();
    let found: Vec<Found> = std::thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(threads)).map(|part| scope.spawn(|| desk.try_each(part)));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let mut wrong = Vec::new();
    let mut not_expressible = BTreeMap::new();
    for found in found {
        match found {
            Found::Agrees => {}
            Found::Differs(how) => wrong.push(how),
            Found::NotExpressible(reason) => *not_expressible.entry(reason).or_insert(0) += 1,
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(not_expressible, BTreeMap::from(NOT_EXPRESSIBLE));
}

fn not_expressible_because(case: &Case, ready: &Ready) -> Option<&'static str> {
    if case.again {
        return Some(NOT_EXPRESSIBLE[4].0);
    }
    if case.proof.nonce.is_some() {
        return Some(NOT_EXPRESSIBLE[5].0);
    }
    if matches!(&case.expect, Expect::Refuse { code, .. } if code == "STEP_UP_DEMANDED") {
        return Some(NOT_EXPRESSIBLE[6].0);
    }
    if ready.introspection.status != 200 {
        return Some(NOT_EXPRESSIBLE[0].0);
    }
    if ready.introspection.content_type != "application/json" {
        return Some(NOT_EXPRESSIBLE[1].0);
    }
    if ready.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        return Some(NOT_EXPRESSIBLE[2].0);
    }
    let has_space = ready.headers.iter().any(|(_, value)| value.trim_ascii() != value);
    has_space.then_some(NOT_EXPRESSIBLE[3].0)
}

impl Desk {
    fn new() -> Self {
        let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases")).unwrap();
        let directory = TempDir::new().unwrap();
        // As a WasmPlugin, which has the secrets too.
        let secrets: Vec<Value> =
            table.environment().into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let write = |(name, document): (&String, &Value)| {
            let plugin = json!({
                "kind": "WasmPlugin", "spec": { "pluginConfig": document, "vmConfig": { "env": secrets } },
            });
            let file = directory.path().join(format!("{name}.json"));
            std::fs::write(&file, plugin.to_string()).unwrap();
            (name.clone(), file)
        };
        let configs = table.configs.iter().map(write).collect();
        let derived = Secret::new(cases::SHARED_SECRET.as_bytes()).unwrap().derive();
        Self { table, derived, directory, configs }
    }

    fn try_each(&self, cases: &[Case]) -> Vec<Found> {
        // One file for each thread.
        let introspection = tempfile::NamedTempFile::new_in(self.directory.path()).unwrap();
        let attempt = |case: &Case| {
            let ready = self.table.ready(case, NOW).unwrap();
            if let Some(reason) = not_expressible_because(case, &ready) {
                return Found::NotExpressible(reason);
            }
            std::fs::write(introspection.path(), &ready.introspection.body).unwrap();
            let said = self.explain(case, &ready, introspection.path());
            match difference(case, &ready, &said) {
                Some(difference) => Found::Differs(format!("{}: {difference}\n    {said}", case.name)),
                None => Found::Agrees,
            }
        };
        cases.iter().map(attempt).collect()
    }

    fn explain(&self, case: &Case, ready: &Ready, introspection: &Path) -> Value {
        // One answer stands for all keys: that of the revoked one, if it is asked about.
        let answer = match case.store {
            Store::Up => {
                let live = self.run(case, ready, introspection, "live");
                let Some(revoked) = case.revoked.iter().find(|revoked| asks_about(&live, &self.key(revoked))) else {
                    return live;
                };
                answer(revoked)
            }
            Store::Refused => StoreError::StoreRefused.name().to_owned(),
            Store::Slow => StoreError::StoreSlow.name().to_owned(),
            Store::Flushed => StoreError::StoreChanged.name().to_owned(),
        };
        self.run(case, ready, introspection, &answer)
    }

    fn run(&self, case: &Case, ready: &Ready, introspection: &Path, answer: &str) -> Value {
        let mut words = vec![
            "explain".to_owned(),
            format!("--config={}", self.configs[&case.config].display()),
            format!("--introspection={}", introspection.display()),
            format!("--method={}", ready.method),
            format!("--path={}", ready.path),
            format!("--host={}", ready.authority),
            format!("--at={NOW}"),
            format!("--answer={answer}"),
            // The address of every client of the table.
            "--client-address=127.0.0.1".to_owned(),
            "--show-claims".to_owned(),
        ];
        words.extend(ready.headers_in_envoy().iter().map(|(name, value)| format!("--header={name}: {value}")));
        let command = Command::try_parse_from(words).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        command.explain.judge().unwrap_or_else(|error| panic!("{}: {error:#}", case.name)).as_json()
    }

    /// As the service derives it, and as `explain` prints it.
    fn key(&self, revoked: &RevokedSpec) -> String {
        let kind: Kind = revoked.kind.parse().unwrap();
        let id = self.table.revoked_id(revoked).unwrap();
        let id = if kind == Kind::Token { token_id_from_jti(&id) } else { id.into_bytes() };
        format!("{kind} {}", self.derived.revocation_key(kind, &revoked.issuer, &id))
    }
}

fn asks_about(said: &Value, key: &str) -> bool {
    said["steps"].as_array().unwrap().iter().any(|step| step["step"] == "asks" && step["says"] == key)
}

fn answer(revoked: &RevokedSpec) -> String {
    let kind: Kind = revoked.kind.parse().unwrap();
    match kind.is_simply_dead() {
        true => "dead".to_owned(),
        false => format!("before:{}", NOW.checked_add_signed(revoked.before).unwrap()),
    }
}

fn difference(case: &Case, ready: &Ready, said: &Value) -> Option<String> {
    match (&case.expect, said["verdict"].as_str().unwrap()) {
        (Expect::Refuse { code, status, .. }, "answered") => {
            (code != "PROBE_ANSWERED" || *status != 200).then(|| format!("expected {code} {status}"))
        }
        (Expect::Refuse { code, status, .. }, "refused") => {
            let seen = (&said["code"], &said["status"], &said["refusal"]["body"]["code"]);
            (seen != (&code.as_str().into(), &(*status).into(), &code.as_str().into()))
                .then(|| format!("expected {code} {status}"))
        }
        (Expect::Pass { headers, absent, .. }, "admitted" | "admitted_unchecked" | "reported") => {
            let forwarded = forwarded(ready, said);
            // Of these, what is removed is printed in words.
            let is_cut = |name: &str| matches!(name, "cookie" | "sec-websocket-protocol");
            let of = |name: &String| -> Vec<&Option<String>> {
                forwarded.iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect()
            };
            for (name, value) in headers.iter().filter(|(name, _)| !is_cut(name)) {
                let found = of(name);
                // Of the payload header the name alone is printed.
                if found != [&Some(value.clone())] && found != [&None] {
                    return Some(format!("expected {name}: {value}, found {found:?}"));
                }
            }
            absent.iter().find(|name| !is_cut(name) && !of(name).is_empty()).map(|name| format!("{name} is forwarded"))
        }
        (expected, _) => Some(format!("expected {expected:?}")),
    }
}

/// The request's headers after the printed changes. No value: it is not printed.
fn forwarded(ready: &Ready, said: &Value) -> Vec<(String, Option<String>)> {
    let mut headers: Vec<(String, Option<String>)> =
        ready.headers.iter().map(|(name, value)| (name.to_lowercase(), Some(value.clone()))).collect();
    for change in said["forward"].as_array().unwrap() {
        if let Some(name) = change["remove_header"].as_str() {
            headers.retain(|(other, _)| other != name);
        }
        if let Some(name) = change["set_header"].as_str() {
            headers.retain(|(other, _)| other != name);
            headers.push((name.to_owned(), change["value"].as_str().map(str::to_owned)));
        }
    }
    headers
}

/// A configuration whose issuer publishes its keys, by a fixed URL or by discovery, and the published set.
struct Published {
    directory: TempDir,
    key: mint::SigningKey,
}

impl Published {
    fn new(jwks: &Value) -> Self {
        let directory = TempDir::new().unwrap();
        let config = json!({
            "issuers": [{
                "name": "main", "issuer": cases::ISSUER, "audiences": ["api"], "algorithms": ["ES256"], "jwks": jwks,
            }],
            "tokens": { "headers": [{ "name": "authorization", "scheme": "Bearer" }] },
            "rules": [{ "name": "api", "match": { "path": { "prefix": "/" } }, "access": "required" }],
        });
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let key = mint::SigningKey::generate(mint::Alg::ES256, "published");
        let set = json!({ "keys": [key.public_jwk().unwrap()] });
        std::fs::write(directory.path().join("set.json"), set.to_string()).unwrap();
        Self { directory, key }
    }

    fn explain(&self, jwks: Option<(&str, &str)>, token: &str) -> anyhow::Result<Value> {
        let path = |file: &str| self.directory.path().join(file).display().to_string();
        let mut words =
            vec!["explain".to_owned(), format!("--config={}", path("config.json")), format!("--token={token}")];
        words.extend([format!("--at={NOW}"), "--assume-secrets".to_owned()]);
        words.extend(jwks.map(|(issuer, file)| format!("--jwks={issuer}={}", path(file))));
        Ok(Command::try_parse_from(words)?.explain.judge()?.as_json())
    }

    /// The verdict or the code.
    fn verdict(&self, jwks: Option<(&str, &str)>, token: &str) -> String {
        let said = self.explain(jwks, token).unwrap();
        let verdict = if said["verdict"] == "refused" { &said["code"] } else { &said["verdict"] };
        verdict.as_str().unwrap().to_owned()
    }
}

#[test]
fn published_keys_decide_as_if_they_had_been_fetched() {
    let set = Some(("main", "set.json"));
    let claims = json!({ "iss": cases::ISSUER, "aud": "api", "sub": "alice", "iat": NOW, "exp": NOW + 60 });
    for jwks in [
        json!({ "cluster": "idp", "uri": "https://issuer.example/keys" }),
        json!({ "cluster": "idp", "discovery": true }),
    ] {
        let published = Published::new(&jwks);
        let good = published.key.mint(&claims);
        assert_eq!(published.verdict(set, &good), "admitted", "{jwks}");
        assert_eq!(published.verdict(None, &good), "KEYS_UNAVAILABLE", "{jwks}");

        let other_kid = mint::SigningKey::generate(mint::Alg::ES256, "other").mint(&claims);
        assert_eq!(published.verdict(set, &other_kid), "KEY_UNKNOWN", "{jwks}");
        let other_key = mint::SigningKey::generate(mint::Alg::ES256, "published").mint(&claims);
        assert_eq!(published.verdict(set, &other_key), "SIG_MISMATCH", "{jwks}");
    }
}

#[test]
fn a_key_set_that_cannot_be_used_is_an_error_that_names_it() {
    let published = Published::new(&json!({ "cluster": "idp", "discovery": true }));
    let error = |jwks| format!("{:#}", published.explain(Some(jwks), "a.b.c").unwrap_err());
    assert!(error(("nobody", "set.json")).contains("no issuer `nobody`"));
    assert!(error(("main", "absent.json")).contains("absent.json"));
    let says = error(("main", "config.json"));
    assert!(says.contains("config.json is no key set"), "{says}");
}

#[test]
fn what_the_feed_would_save_is_said_where_it_is_followed() {
    let published = Published::new(&json!({ "cluster": "idp", "uri": "https://issuer.example/keys" }));
    let claims = json!({ "iss": cases::ISSUER, "aud": "api", "sub": "alice", "iat": NOW, "exp": NOW + 60 });
    let path = published.directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (feed, is_said) in [(None, false), (Some(json!({ "lag": "750ms" })), true)] {
        config["revocation"] = json!({ "cluster": "sessions", "secret_env": "SECRET" });
        if let Some(feed) = feed {
            config["revocation"]["feed"] = feed;
        }
        std::fs::write(&path, config.to_string()).unwrap();
        let said = published.explain(Some(("main", "set.json")), &published.key.mint(&claims)).unwrap();
        assert_eq!(said["verdict"], "admitted_unless_revoked", "{said}");
        assert_eq!(said["steps"].to_string().contains("with a proof that is not older than 750ms"), is_said, "{said}");
    }
}

#[test]
fn what_ends_an_open_stream_is_said_where_the_rule_ends_it() {
    let published = Published::new(&json!({ "cluster": "idp", "uri": "https://issuer.example/keys" }));
    let claims = json!({ "iss": cases::ISSUER, "aud": "api", "sub": "alice", "iat": NOW, "exp": NOW + 60 });
    let path = published.directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["revocation"] = json!({ "cluster": "sessions", "secret_env": "SECRET" });
    let mut says = |streams: Value| {
        config["rules"][0]["streams"] = streams;
        std::fs::write(&path, config.to_string()).unwrap();
        published.explain(Some(("main", "set.json")), &published.key.mint(&claims)).unwrap()["steps"].to_string()
    };
    assert!(!says(Value::Null).contains("still open"));
    let both = says(json!({ "end_on": ["revoked", "expired"], "cannot_tell_for": "20s" }));
    let words = "when it is revoked or it or its login expires, or nobody can tell for 20s whether it was revoked";
    assert!(both.contains(words), "{both}");
}

#[test]
fn what_is_only_reported_is_not_called_admitted() {
    let published = Published::new(&json!({ "cluster": "idp", "uri": "https://issuer.example/keys" }));
    let path = published.directory.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["rules"][0]["mode"] = "report".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let set = Some(("main", "set.json"));
    let token = |age: u64| {
        let claims =
            json!({ "iss": cases::ISSUER, "aud": "api", "sub": "alice", "iat": NOW - age, "exp": NOW - age + 60 });
        published.key.mint(&claims)
    };
    assert_eq!(published.verdict(set, &token(0)), "admitted");
    let said = published.explain(set, &token(1000)).unwrap();
    assert_eq!((&said["verdict"], &said["code"]), (&json!("reported"), &json!("JWT_EXPIRED")), "{said}");
    assert!(!said["forward"].to_string().contains("set_header"), "{said}");
}
