//! `check-config`, `explain` and the generated documents, as their users run them.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const SECRET: (&str, &str) = ("TEST_SHARED_SECRET", "a secret of at least thirty-two bytes");

struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A configuration with a key that `mint key` made, changed by `change`.
    fn configuration(&self, change: impl FnOnce(&mut Value)) -> String {
        let key = self.path("k1.pem");
        if !key.exists() {
            ok(&["mint", "key", "--alg", "ES256", "--out", key.to_str().unwrap(), "--json"], |answer| {
                self.write("k1.json", &answer["jwk"].to_string());
            });
        }
        let jwk: Value = serde_json::from_str(&std::fs::read_to_string(self.path("k1.json")).unwrap()).unwrap();
        let mut document = json!({
            "issuers": [{
                "issuer": "https://login.test", "audiences": ["api.test"], "algorithms": ["ES256"], "keys": [{ "jwk": jwk }],
            }],
            "revocation": { "cluster": "service", "secret_env": SECRET.0 },
            "forward": { "claims": [{ "claim": "sub", "header": "x-user-id" }, { "claim": "plan", "header": "x-plan" }] },
            "rules": [
                { "name": "open", "access": "public", "match": { "path": { "exact": "/open" } } },
                { "name": "admin", "access": "required", "match": { "path": { "prefix": "/admin" } }, "scopes": { "all": ["admin"] } },
                { "name": "rest", "access": "required" },
            ],
        });
        change(&mut document);
        self.write("config.json", &document.to_string())
    }

    fn token(&self, more: &[&str]) -> String {
        let key = self.path("k1.pem");
        let mut words = vec!["mint", "token", "--key", key.to_str().unwrap(), "--alg", "ES256"];
        words.extend(["--iss", "https://login.test", "--aud", "api.test", "--sub", "alice"]);
        words.extend(more);
        let out = portcullis(&words, &[]);
        assert!(out.status.success(), "{}", stderr(&out));
        stdout(&out).trim().to_owned()
    }

    /// The exit code and the answer.
    fn explain(&self, config: &str, more: &[&str]) -> (i32, Value) {
        let mut words = vec!["explain", "--config", config, "--json"];
        words.extend(more);
        let out = portcullis(&words, &[SECRET]);
        let answer = serde_json::from_str(&stdout(&out)).unwrap_or_else(|_| panic!("{}", stderr(&out)));
        (out.status.code().unwrap(), answer)
    }
}

fn portcullis(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(words).env_remove(SECRET.0).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

fn ok(words: &[&str], read: impl FnOnce(Value)) {
    let out = portcullis(words, &[]);
    assert!(out.status.success(), "{words:?}: {}", stderr(&out));
    read(serde_json::from_str(&stdout(&out)).unwrap());
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn stderr(out: &Output) -> String {
    String::from_utf8(out.stderr.clone()).unwrap()
}

/// The field and the message of the error.
fn error(file: &str) -> (String, String) {
    let out = portcullis(&["check-config", file, "--json"], &[SECRET]);
    assert_eq!(out.status.code(), Some(1), "{}", stdout(&out));
    let answer: Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(answer["ok"], false);
    let error = &answer["configurations"][0]["error"];
    (error["field"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

#[test]
fn a_good_configuration_is_ok_in_json_and_yaml() {
    let desk = Desk::new();
    let file = desk.configuration(|_| {});
    let out = portcullis(&["check-config", &file], &[SECRET]);
    assert_eq!((out.status.code(), stderr(&out).as_str()), (Some(0), ""));
    assert_eq!(stdout(&out), format!("{file}: ok: 1 issuers, 1 keys, 3 rules, revocation\n"));
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let yaml = desk.write("config.yaml", &serde_norway::to_string(&document).unwrap());
    let out = portcullis(&["check-config", &yaml], &[SECRET]);
    assert_eq!(stderr(&out), "");
    assert_eq!(stdout(&out), format!("{yaml}: ok: 1 issuers, 1 keys, 3 rules, revocation\n"));
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    let desk = Desk::new();
    let wrong = |change: fn(&mut Value)| error(&desk.configuration(change));
    let (field, message) = wrong(|document| document["issuers"][0]["audience"] = json!(["a"]));
    assert!(field.starts_with("issuers[0]") && message.contains("unknown field `audience`"), "{field}: {message}");
    let (field, message) = wrong(|document| document["issuers"][0]["skew"] = json!("30"));
    assert_eq!(field, "issuers[0].skew");
    assert!(message.contains("a whole number and a unit"), "{message}");
    let (field, message) = wrong(|document| document["issuers"][0]["audiences"] = json!("api.test"));
    assert_eq!(field, "issuers[0].audiences");
    assert!(message.contains("the word `any`, or a list"), "{message}");
    let (field, message) = wrong(|document| {
        document["issuers"][0]["algorithms"] = json!(["RS256"]);
        // 1024 bits.
        document["issuers"][0]["keys"][0]["jwk"] =
            json!({ "kty": "RSA", "e": "AQAB", "n": format!("{}w", "v".repeat(170)) });
    });
    assert_eq!(field, "issuers[0].keys[0].jwk");
    assert!(message.contains("at least 2048"), "{message}");
    let header = |name: &str, value: Value| {
        let file = desk.configuration(|_| {});
        let mut document: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        document["issuers"][0]["required_header"] = json!({ name: value });
        error(&desk.write("required.json", &document.to_string()))
    };
    for (name, value, says) in
        [("alg", json!("ES256"), "`algorithms`"), ("typ", json!("JWT"), "`types`"), ("signer", json!([]), "one value")]
    {
        let (field, message) = header(name, value);
        assert_eq!(field, format!("issuers[0].required_header.{name}"));
        assert!(message.contains(says), "{message}");
    }
    let (field, message) = wrong(|document| document["tokens"] = json!({ "websocket": [{ "prefix": "a b" }] }));
    assert_eq!(field, "tokens.websocket[0].prefix");
    assert!(message.contains("RFC 6455"), "{message}");
    let (field, _) = wrong(|document| {
        document["tokens"] = json!({ "cookies": [{ "name": "s", "chunks": "dot" }, { "name": "s_1" }] });
    });
    assert_eq!(field, "tokens.cookies[1].name");
    let (field, message) =
        wrong(|document| document["tokens"] = json!({ "cookies": [{ "name": "s", "chunks": "comma" }] }));
    assert_eq!(field, "tokens.cookies[0].chunks");
    assert!(message.contains("`dot` or `underscore`"), "{message}");
}

#[test]
fn yaml_errors_have_field_and_line_and_no_key_counts_twice() {
    let desk = Desk::new();
    let file = desk.write("a.yaml", "issuers:\n  - issuer: i\n    skew: 30\nrules: []\n");
    let (field, message) = error(&file);
    assert_eq!(field, "issuers[0].skew");
    assert!(message.starts_with("`30` is not a duration") && message.contains("line 3 column 11"), "{message}");
    let file = desk.write("e.yaml", "issuers: []\nrules:\n  - match:\n      path:\n        exact: [a]\n");
    let (field, message) = error(&file);
    assert_eq!(field, "rules[0].match.path.exact", "{message}");
    assert!(message.contains("line 5 column 16"), "{message}");
    // YAML would take a number for text; the filter, which has JSON, does not.
    let (field, message) =
        error(&desk.write("d.yaml", "issuers:\n  - { issuer: 1, audiences: any, algorithms: [] }\nrules: []\n"));
    assert_eq!(
        (field.as_str(), message.as_str()),
        ("issuers[0].issuer", "invalid type: integer `1`, expected a string")
    );
    let (_, message) =
        error(&desk.write("b.yaml", "issuers: []\nrules: []\nfaults: { overrides: { A: 401, A: 403 } }\n"));
    assert!(message.contains("duplicate entry"), "{message}");
    let (_, message) = error(&desk.write("c.yaml", "issuers: []\n---\nissuers: []\n"));
    assert!(message.contains("2 documents"), "{message}");
}

#[test]
fn a_missing_secret_is_an_error_unless_it_is_assumed() {
    let desk = Desk::new();
    let file = desk.configuration(|_| {});
    let out = portcullis(&["check-config", &file], &[]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    assert!(said.contains("revocation.secret_env") && said.contains(SECRET.0) && said.contains("--assume"), "{said}");
    let out = portcullis(&["check-config", &file, "--assume-secrets"], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(stdout(&out).contains(&format!("the secret `{}` is a placeholder", SECRET.0)));
    // One that is there is not replaced.
    let out = portcullis(&["check-config", &file, "--assume-secrets"], &[(SECRET.0, "short")]);
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn what_the_filter_takes_and_somebody_should_look_at_is_a_warning() {
    let desk = Desk::new();
    let file = desk.configuration(|document| {
        document["issuers"][0]["audiences"] = json!("any");
        document["tokens"] = json!({ "query": ["access_token"] });
        document["rules"][0]["match"]["path"] = json!({ "prefix": "/" });
        document["rules"][2]["revocation"] = json!("dangerously_pass_when_unavailable");
    });
    let out = portcullis(&["check-config", &file, "--json"], &[SECRET]);
    assert_eq!(out.status.code(), Some(0));
    let answer: Value = serde_json::from_str(&stdout(&out)).unwrap();
    let warnings = answer["configurations"][0]["warnings"].as_array().unwrap();
    let fields: Vec<&str> = warnings.iter().map(|warning| warning["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["issuers[0].audiences", "tokens.query", "rules[1]", "rules[2]", "rules[2].revocation"]);
}

#[test]
fn an_issuer_that_looks_like_a_provider_s_is_a_warning() {
    let desk = Desk::new();
    let fields = |change: &dyn Fn(&mut Value)| {
        let file = desk.configuration(|document| change(&mut document["issuers"][0]));
        let out = portcullis(&["check-config", &file, "--json"], &[SECRET]);
        assert_eq!(out.status.code(), Some(0), "{}", stdout(&out));
        let answer: Value = serde_json::from_str(&stdout(&out)).unwrap();
        answer["configurations"][0]["warnings"].clone()
    };
    let warnings = fields(&|issuer| issuer["issuer"] = json!("https://login.microsoftonline.com/t/v2.0"));
    assert_eq!(warnings[0]["field"], "issuers[0].issuer");
    assert!(warnings[0]["message"].as_str().unwrap().contains("provider: entra"), "{warnings}");
    let warnings = fields(&|issuer| {
        issuer["issuer"] = json!("https://login.microsoftonline.com/t/v2.0");
        issuer["provider"] = json!("entra");
    });
    assert_eq!(warnings, json!([]));
    let warnings = fields(&|issuer| issuer["revocation_claims"] = json!({ "token": "id" }));
    assert!(warnings[0]["message"].as_str().unwrap().contains("--token-claims"), "{warnings}");
}

#[test]
fn a_configuration_inside_a_file_for_envoy_is_found_with_the_environment_that_it_will_have() {
    let desk = Desk::new();
    let text = std::fs::read_to_string(desk.configuration(|_| {})).unwrap();
    let bootstrap = |value: Value, kind: &str, variables: &[&str]| {
        let bootstrap = json!({ "static_resources": { "listeners": [{ "http_filters": [
            { "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {
                "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "other" } } } },
            { "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {
                "configuration": { "@type": format!("type.googleapis.com/google.protobuf.{kind}"), "value": value },
                "vm_config": { "environment_variables": { "host_env_keys": variables } } } } },
        ] }] } });
        desk.write("envoy.yaml", &serde_norway::to_string(&bootstrap).unwrap())
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    for (value, kind) in [(json!(text), "StringValue"), (document, "Struct")] {
        let file = bootstrap(value, kind, &[SECRET.0]);
        let out = portcullis(&["check-config", &file], &[SECRET]);
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        assert!(stdout(&out).contains("listeners[0].http_filters[1].typed_config.config.configuration: ok: 1 issuers"));
    }
    let (field, _) = error(&bootstrap(json!(text), "StringValue", &[]));
    assert_eq!(field, "revocation.secret_env");
}

#[test]
fn a_configuration_for_the_dynamic_module_is_found_and_a_module_that_lets_requests_pass_is_an_error() {
    let desk = Desk::new();
    let document: Value = serde_json::from_str(&std::fs::read_to_string(desk.configuration(|_| {})).unwrap()).unwrap();
    let check = |name: &str, file: &Value| {
        let file = desk.write(name, &serde_norway::to_string(file).unwrap());
        let out = portcullis(&["check-config", &file], &[SECRET]);
        (out.status.code(), format!("{}{}", stdout(&out), stderr(&out)))
    };
    let filter = |module: Value| {
        json!({ "http_filters": [{ "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": module, "filter_name": "portcullis",
            "filter_config": { "@type": "type.googleapis.com/google.protobuf.Struct", "value": document } } }] })
    };
    let (code, said) = check("module.yaml", &filter(json!({ "name": "portcullis" })));
    assert!(code == Some(0) && said.contains("typed_config.filter_config: ok: 1 issuers"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let (code, said) = check("module.yaml", &filter(json!({ "module": { "remote": {} } })));
    assert!(code == Some(1) && said.contains("module.remote") && said.contains("unchecked"), "{said}");

    let policy = |spec: Value| json!({ "kind": "EnvoyExtensionPolicy", "spec": spec });
    let module = |name: &str| policy(json!({ "dynamicModule": [{ "filterName": name, "config": document }] }));
    let (code, said) = check("policy.yaml", &module("portcullis"));
    assert!(code == Some(0) && said.contains("spec.dynamicModule[0].config: ok: 1 issuers"), "{said}");
    assert!(check("policy.yaml", &module("")).1.contains("spec.dynamicModule[0].filterName"));
    let wasm = |open: bool, keys: &[&str]| {
        policy(json!({ "wasm": [{ "failOpen": open, "env": { "hostKeys": keys }, "config": document }] }))
    };
    assert_eq!(check("policy.yaml", &wasm(false, &[SECRET.0])).0, Some(0));
    assert!(check("policy.yaml", &wasm(true, &[SECRET.0])).1.contains("error: spec.wasm[0].failOpen"));
    // Wasm has only the variables that the policy passes on.
    assert!(check("policy.yaml", &wasm(false, &[])).1.contains("revocation.secret_env"));
}

#[test]
fn explains_an_admitted_request_without_showing_the_token() {
    let desk = Desk::new();
    let config = desk.configuration(|_| {});
    let token = desk.token(&["--sid", "s-1", "--claims", r#"{"plan":"gold"}"#]);
    let (code, answer) = desk.explain(&config, &["--token", &token, "--path", "/x?y", "--header", "X-User-Id: root"]);
    assert_eq!(
        (code, &answer["verdict"], &answer["rule"]),
        (0, &json!("admitted_unless_revoked"), &json!("rest")),
        "{answer:#}"
    );
    let said = answer.to_string();
    for part in token.split('.') {
        assert!(!said.contains(part), "{answer:#}");
    }
    assert!(said.contains("alice") && !said.contains("gold") && !said.contains("s-1"), "{answer:#}");
    let steps: Vec<&str> =
        answer["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    for step in ["request", "rule", "token", "header", "says", "issuer", "signature", "claims", "window", "asks"] {
        assert!(steps.contains(&step), "{step}: {answer:#}");
    }
    let forward = answer["forward"].as_array().unwrap();
    assert!(forward.contains(&json!({ "remove_header": "x-user-id" })), "{answer:#}");
    assert!(forward.contains(&json!({ "remove_header": "authorization" })), "{answer:#}");
    assert!(forward.contains(&json!({ "set_header": "x-user-id", "value": null })), "{answer:#}");
    // A revocation of its client would not end it, and that is said.
    let unreachable = answer["steps"].as_array().unwrap().iter().find(|step| step["step"] == "unreachable").unwrap();
    let says = unreachable["says"].as_str().unwrap();
    assert!(says.contains("by client") && says.contains("client_id, azp, cid, appid"), "{says}");
    let (_, answer) = desk.explain(&config, &["--token", &token, "--show-claims"]);
    assert!(answer["forward"].as_array().unwrap().contains(&json!({ "set_header": "x-plan", "value": "gold" })));
    let config = desk.configuration(|document| document["forward"]["payload_header"] = json!("x-payload"));
    let (_, answer) = desk.explain(&config, &["--token", &token, "--show-claims"]);
    assert!(answer["forward"].as_array().unwrap().contains(&json!({ "set_header": "x-payload", "value": null })));
    assert!(token.split('.').all(|part| !answer.to_string().contains(part)), "{answer:#}");
    let header = format!("authorization: Bearer {token}");
    assert_eq!(desk.explain(&config, &["--header", &header]).0, 0);
}

#[test]
fn explains_refusals_with_code_status_and_cause() {
    let desk = Desk::new();
    let config = desk.configuration(|_| {});
    let token = desk.token(&[]);
    let forged = format!("{}A.{}", token.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().1);
    let expired = desk.token(&["--lifetime=-1m"]);
    let refused = |more: &[&str]| {
        let (code, answer) = desk.explain(&config, more);
        assert_eq!((code, &answer["verdict"]), (1, &json!("refused")), "{more:?}: {answer:#}");
        assert_eq!(answer["refusal"]["body"]["code"], answer["code"]);
        assert!(!answer.to_string().contains(token.rsplit_once('.').unwrap().1), "{answer:#}");
        (answer["code"].as_str().unwrap().to_owned(), answer["status"].as_u64().unwrap())
    };
    let is = |code: &str, status| (code.to_owned(), status);
    assert_eq!(refused(&[]), is("TOKEN_MISSING", 401));
    assert_eq!(refused(&["--path", "/a//b"]), is("PATH_SUSPICIOUS", 400));
    assert_eq!(refused(&["--token", &expired]), is("JWT_EXPIRED", 401));
    assert_eq!(refused(&["--token", &forged]).1 / 100, 4);
    assert_eq!(refused(&["--token", &token, "--path", "/admin/x"]), is("SCOPE_INSUFFICIENT", 403));
    assert_eq!(refused(&["--token", &token, "--answer", "dead"]), is("SESSION_REVOKED", 403));
    assert_eq!(refused(&["--token", &token, "--answer", "before:2099-01-01T00:00:00Z"]), is("SESSION_REVOKED", 403));
    assert_eq!(refused(&["--token", &token, "--answer", "unavailable"]), is("STORE_UNAVAILABLE", 503));
    assert_eq!(refused(&["--token", &token, "--answer", "store_slow"]), is("SESSION_STORE_LATENCY", 503));
    assert_eq!(refused(&["--token", &token, "--at", "1750000000"]), is("JWT_NOT_YET_VALID", 401));
    let (code, _) = desk.explain(&config, &["--token", &token, "--answer", "before:1750000000"]);
    assert_eq!(code, 0);
}

#[test]
fn explains_a_jwt_that_is_introspected_by_what_its_server_would_answer() {
    let desk = Desk::new();
    let config = desk.configuration(|document| {
        document["issuers"][0]["introspection"] = json!({
            "of": "jwt", "cluster": "keycloak", "path": "/introspect", "client_id": "gateway", "client_secret_env": SECRET.0,
        });
    });
    let token = desk.token(&[]);
    let (code, answer) = desk.explain(&config, &["--token", &token]);
    assert_eq!((code, &answer["code"]), (1, &json!("STORE_UNAVAILABLE")), "{answer:#}");
    assert!(answer["cause"].as_str().unwrap().contains("--introspection"), "{answer:#}");
    let with = |response: &str| {
        let file = desk.write("response.json", response);
        desk.explain(&config, &["--token", &token, "--introspection", &file])
    };
    let (code, answer) = with(r#"{"active":true}"#);
    assert_eq!(code, 0, "{answer:#}");
    assert!(answer.to_string().contains("/introspect of cluster keycloak is asked about it too"), "{answer:#}");
    // The service is asked at the same time.
    let steps = answer["steps"].as_array().unwrap();
    let of = |name: &str| steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{answer:#}"));
    assert!(of("asks")["says"].as_str().is_some(), "{answer:#}");
    assert!(of("revocation")["says"].as_str().unwrap().starts_with("the service was not asked"), "{answer:#}");
    assert_eq!(with(r#"{"active":false}"#).1["code"], "SESSION_UNKNOWN");
    let (_, answer) = with(r#"{"active":true,"iss":"https://other.test"}"#);
    assert_eq!(answer["cause"], "the introspection answer contradicts the token: iss", "{answer:#}");
}

#[test]
fn explains_an_opaque_token_by_what_its_server_would_answer() {
    let desk = Desk::new();
    let config = desk.configuration(|document| {
        let introspection = json!({
            "cluster": "hydra", "path": "/oauth2/introspect", "client_id": "gateway", "client_secret_env": SECRET.0,
            "format": { "shape": { "prefix": "op_" } },
        });
        let issuer = json!({ "issuer": "https://opaque.test", "audiences": "any", "introspection": introspection });
        document["issuers"].as_array_mut().unwrap().push(issuer);
    });
    let token = "op_0123456789abcdefghij";
    let (code, answer) = desk.explain(&config, &["--token", token]);
    assert_eq!((code, &answer["code"]), (1, &json!("STORE_UNAVAILABLE")), "{answer:#}");
    assert!(answer["cause"].as_str().unwrap().contains("--introspection"), "{answer:#}");
    let with = |response: &str, more: &[&str]| {
        let file = desk.write("response.json", response);
        let (_, answer) = desk.explain(&config, &[&["--token", token, "--introspection", &file], more].concat());
        assert!(!answer.to_string().contains(token), "{answer:#}");
        answer
    };
    let answer = with(r#"{"active":true,"sub":"alice","sid":"s-1"}"#, &[]);
    assert_eq!(answer["verdict"], "admitted_unless_revoked", "{answer:#}");
    assert!(answer["forward"].as_array().unwrap().contains(&json!({ "set_header": "x-user-id", "value": null })));
    for (response, code) in [
        (r#"{"active":false}"#, "SESSION_UNKNOWN"),
        (r#"{"active":"true"}"#, "STORE_UNAVAILABLE"),
        (r#"{"active":true,"token_use":"refresh_token"}"#, "INVALID_CLAIM"),
    ] {
        assert_eq!(with(response, &[])["code"], code, "{response}");
    }
    assert_eq!(with(r#"{"active":true,"sub":"a"}"#, &["--answer", "dead"])["code"], "SESSION_REVOKED");
    // A mistyped one looks like no token at all.
    assert_eq!(desk.explain(&config, &["--token", "op_0123456789abcdef.hij"]).1["code"], "TOKEN_MALFORMED");
    let out = portcullis(&["check-config", &config], &[SECRET]);
    assert!(stdout(&out).contains("2 issuers, 1 keys, 1 introspection servers, 3 rules"), "{}", stdout(&out));
}

#[test]
fn wrong_usage_of_explain_is_2_and_shows_no_header() {
    let desk = Desk::new();
    let config = desk.configuration(|_| {});
    let out = portcullis(&["explain", "--config", &config, "--header", "eyJhbGciOi"], &[SECRET]);
    assert_eq!(out.status.code(), Some(2));
    assert!(!stderr(&out).contains("eyJ"), "{}", stderr(&out));
    for words in [&["--answer", "maybe"], &["--at", "soon"], &["--client-address", "here"]] {
        assert_eq!(portcullis(&[&["explain", "--config", &config], &words[..]].concat(), &[]).status.code(), Some(2));
    }
}

#[test]
fn a_file_that_holds_a_secret_and_no_configuration_is_not_shown() {
    let desk = Desk::new();
    for name in ["secret", "secret.json", "secret.yaml"] {
        let file = desk.directory.path().join(name);
        std::fs::write(&file, "\"2ff78b68e05ba016\"\n").unwrap();
        let out = portcullis(&["check-config", file.to_str().unwrap()], &[]);
        assert_eq!(out.status.code(), Some(1));
        let said = format!("{}{}", stderr(&out), String::from_utf8_lossy(&out.stdout));
        assert!(said.contains("must be an object") && !said.contains("2ff78b"), "{name}: {said}");
    }
}

#[test]
fn the_files_in_docs_are_what_the_code_generates() {
    let desk = Desk::new();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let out =
        portcullis(&["docs", "--dir", desk.directory.path().to_str().unwrap()], &[("PORTCULLIS_LISTEN", "[::1]:1")]);
    assert!(out.status.success(), "{}", stderr(&out));
    let mut count = 0;
    for entry in std::fs::read_dir(desk.directory.path()).unwrap() {
        let entry = entry.unwrap();
        let kept = std::fs::read_to_string(docs.join(entry.file_name())).unwrap_or_default();
        let made = std::fs::read_to_string(entry.path()).unwrap();
        assert!(kept == made, "docs/{} is not what the code generates: run `make docs`", entry.file_name().display());
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn the_examples_in_the_documentation_are_taken() {
    let desk = Desk::new();
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/configuration.md")).unwrap();
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 8);
    for example in examples {
        // Some show `tokens` only.
        let rest = "issuers: [{ issuer: i, audiences: any, algorithms: [HS256], keys: [{ secret_env: S }] }]\n\
                    rules: [{ access: required }]\n";
        let whole = if example.contains("issuers:") { example.to_owned() } else { format!("{example}{rest}") };
        let file = desk.write("example.yaml", &whole);
        let out = portcullis(&["check-config", &file, "--assume-secrets"], &[]);
        assert!(out.status.success() && stdout(&out).contains(": ok: "), "{}{}", stdout(&out), stderr(&out));
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_what_was_probably_meant() {
    let desk = Desk::new();
    let file = desk.configuration(|document| {
        document["issuers"][0]["audience"] = json!("x");
        document["revocation"]["freshnes"] = json!("2s");
        document["limits"] = json!({ "token_bytes": "many" });
        document["rules"][1]["match"]["methods"] = json!(["get"]);
    });
    let out = portcullis(&["check-config", &file], &[SECRET]);
    assert_eq!(out.status.code(), Some(1));
    let said = stderr(&out);
    for part in [
        "issuers[0].audience: unknown field",
        "did you mean `audiences`?",
        "revocation.freshnes: unknown field",
        "did you mean `freshness`?",
        "limits.token_bytes:",
        "rules[1].match.methods[0]:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches(": error: ").count(), 4, "{said}");
    assert!(!said.contains("struct ") && !said.contains(".?"), "{said}");
    let out = portcullis(&["check-config", &file, "--json"], &[SECRET]);
    let answer: Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(answer["configurations"][0]["more_errors"].as_array().map(Vec::len), Some(3), "{answer}");
}

#[test]
fn what_stands_round_a_configuration_is_judged_too() {
    let desk = Desk::new();
    let file = desk.configuration(|document| document["rules"][1]["match"]["hosts"] = json!(["a.test"]));
    let document: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let bootstrap = |manager: Value, config: Value, cluster: &str| {
        let mut wasm =
            json!({ "configuration": { "@type": "type.googleapis.com/google.protobuf.Struct", "value": document } });
        wasm.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let filter = json!({ "name": "portcullis", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": wasm } });
        let mut typed = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "http_filters": [filter],
        });
        typed.as_object_mut().unwrap().extend(manager.as_object().unwrap().clone());
        let listener = json!({ "filter_chains": [{ "filters": [{ "typed_config": typed }] }] });
        json!({ "static_resources": { "listeners": [listener], "clusters": [{ "name": cluster }] } })
    };
    let vm = |id: &str| json!({ "vm_id": id, "environment_variables": { "host_env_keys": [SECRET.0] } });
    let good_manager = json!({
        "normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": { "headers_with_underscores_action": "DROP_HEADER" },
        "strip_any_host_port": true, "strip_trailing_host_dot": true, "stream_idle_timeout": "30s",
    });
    let good_config = json!({ "name": "p", "failure_policy": "FAIL_RELOAD", "vm_config": vm("p") });
    let check = |bootstrap: Value| {
        let file = desk.write("bootstrap.json", &bootstrap.to_string());
        portcullis(&["check-config", &file], &[SECRET])
    };

    let good = check(bootstrap(good_manager.clone(), good_config.clone(), "service"));
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(!stdout(&good).contains("warning"), "{}", stdout(&good));

    let bare = check(bootstrap(json!({ "stream_idle_timeout": "0s" }), json!({ "vm_config": vm("") }), "service"));
    assert_eq!(bare.status.code(), Some(0), "{}", stderr(&bare));
    for field in [
        "failure_policy",
        "vm_config.vm_id",
        "root_id",
        "normalize_path",
        "merge_slashes",
        "path_with_escaped_slashes_action",
        "headers_with_underscores_action",
        "stream_idle_timeout",
        "strip_any_host_port",
        "strip_trailing_host_dot",
    ] {
        assert!(stdout(&bare).contains(&format!("{field}: is ")), "{field}: {}", stdout(&bare));
    }

    let mut open = good_config.clone();
    open["failure_policy"] = json!("FAIL_OPEN");
    let open = check(bootstrap(good_manager.clone(), open, "service"));
    assert_eq!((open.status.code(), stderr(&open).contains("FAIL_OPEN")), (Some(1), true), "{}", stderr(&open));

    let other = check(bootstrap(good_manager, good_config, "servce"));
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("no cluster `service`; did you mean `servce`?"), "{}", stderr(&other));

    let spec = json!({
        "failStrategy": "FAIL_OPEN", "pluginconfig": document,
        "vmConfig": { "env": [{ "name": SECRET.0, "valueFrom": "HOST" }] },
    });
    let plugin = json!({ "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "spec": spec });
    let out = check(plugin);
    assert_eq!(out.status.code(), Some(1), "{}{}", stdout(&out), stderr(&out));
    assert!(stderr(&out).contains("spec.failStrategy: FAIL_OPEN"), "{}", stderr(&out));
    assert!(stderr(&out).contains("did you mean `pluginConfig`?"), "{}", stderr(&out));
}

#[test]
fn a_traffic_extension_of_istio_is_judged_as_a_wasm_plugin_is() {
    let desk = Desk::new();
    let document: Value = serde_json::from_str(&std::fs::read_to_string(desk.configuration(|_| {})).unwrap()).unwrap();
    let good = json!({
        "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway" }], "phase": "AUTHN",
        "wasm": {
            "url": "oci://registry.example/filter:1", "pluginName": "portcullis", "failStrategy": "FAIL_RELOAD",
            "vmConfig": { "env": [{ "name": SECRET.0, "valueFrom": "HOST" }] }, "pluginConfig": document,
        },
    });
    let check = |change: &dyn Fn(&mut Value)| {
        let mut spec = good.clone();
        change(&mut spec);
        let kind = json!({ "apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension", "spec": spec });
        let file = desk.write("extension.yaml", &serde_norway::to_string(&kind).unwrap());
        let out = portcullis(&["check-config", &file], &[SECRET]);
        (out.status.code(), format!("{}{}", stdout(&out), stderr(&out)))
    };

    let (code, said) = check(&|_| {});
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("spec.wasm.pluginConfig: ok: ") && !said.contains("warning: spec"), "{said}");

    type Change = fn(&mut Value);
    let errors: [(Change, &str); 10] = [
        (|spec| spec["wasm"]["failStrategy"] = json!("FAIL_OPEN"), "spec.wasm.failStrategy: FAIL_OPEN"),
        (|spec| spec["wasm"]["failstrategy"] = json!("FAIL_RELOAD"), "spec.wasm.failstrategy: is not a field"),
        (
            |spec| spec["failStrategy"] = json!("FAIL_RELOAD"),
            "spec.failStrategy: is not a field of a TrafficExtension, and",
        ),
        (|spec| spec["failStrategy"] = json!("FAIL_RELOAD"), "it belongs in `spec.wasm.failStrategy`"),
        (|spec| spec["targetRef"] = json!({}), "did you mean `targetRefs`?"),
        (|spec| spec["wasm"]["type"] = json!("NETWORK"), "spec.wasm.type: NETWORK"),
        (|spec| spec["lua"] = json!({ "inlineCode": "" }), "spec.lua: is present beside"),
        (|spec| spec["selector"] = json!({ "matchLabels": {} }), "spec.selector: is present beside"),
        (|spec| spec["wasm"]["vmConfig"] = json!({}), "revocation.secret_env"),
        (|spec| spec["wasm"]["pluginConfig"]["rules"] = json!([{}]), "spec.wasm.pluginConfig: error: rules[0]"),
    ];
    for (change, part) in errors {
        let (code, said) = check(&change);
        assert!(code == Some(1) && said.contains(part), "{part}: {said}");
    }
    // In the place, or the spelling, of another resource: nobody would read it, and it is judged all the same.
    let moved =
        check(&|spec| spec["pluginConfig"] = spec["wasm"].as_object_mut().unwrap().remove("pluginConfig").unwrap());
    assert!(moved.0 == Some(1) && moved.1.contains("it belongs in `spec.wasm.pluginConfig`"), "{}", moved.1);
    let renamed = check(&|spec| {
        spec["wasm"]["plugin_config"] = spec["wasm"].as_object_mut().unwrap().remove("pluginConfig").unwrap()
    });
    assert!(renamed.0 == Some(1) && renamed.1.contains("did you mean `pluginConfig`?"), "{}", renamed.1);

    let warnings: [(Change, &str); 3] = [
        (|spec| drop(spec["wasm"].as_object_mut().unwrap().remove("failStrategy")), "spec.wasm.failStrategy: is not"),
        (|spec| spec["phase"] = json!("AUTHZ"), "spec.phase: is not AUTHN"),
        (|spec| spec["match"] = json!([{ "ports": [{ "number": 8080 }] }]), "spec.match[0].ports: names ports"),
    ];
    for (change, part) in warnings {
        let (code, said) = check(&change);
        assert!(code == Some(0) && said.contains(&format!("warning: {part}")), "{part}: {said}");
    }
}

#[test]
fn a_probe_rule_needs_an_exact_path_and_no_condition_and_is_answered_for_whoever_asks() {
    let desk = Desk::new();
    let with =
        |rule: Value| desk.configuration(|document| document["rules"].as_array_mut().unwrap().insert(0, rule.clone()));
    for (rule, field) in [
        (json!({ "access": "probe" }), "rules[0].match.path"),
        (json!({ "match": { "path": { "prefix": "/ready" } }, "access": "probe" }), "rules[0].match.path"),
        (json!({ "match": { "methods": ["GET"] }, "access": "probe" }), "rules[0].match.path"),
        (
            json!({ "match": { "path": { "exact": "/r" } }, "access": "probe", "scopes": { "all": ["a"] } }),
            "rules[0].scopes",
        ),
        (json!({ "match": { "path": { "exact": "/r" } }, "access": "probe", "forward": {} }), "rules[0].forward"),
        (
            json!({ "match": { "path": { "exact": "/r" } }, "access": "probe", "revocation": "off" }),
            "rules[0].revocation",
        ),
        (json!({ "match": { "path": { "exact": "/r" } }, "access": "prob" }), "rules[0].access"),
    ] {
        let (seen, message) = error(&with(rule));
        assert_eq!(seen, field, "{message}");
    }
    let config = with(json!({ "name": "ready", "match": { "path": { "exact": "/ready" } }, "access": "probe" }));
    let token = desk.token(&[]);
    for more in [&[][..], &["--token", &token], &["--token", "garbage"]] {
        let (code, answer) = desk.explain(&config, &[&["--path", "/ready?a=b"], more].concat());
        assert_eq!((code, &answer["verdict"], &answer["rule"]), (0, &json!("answered"), &json!("ready")), "{answer:#}");
        assert!(answer["forward"].is_null(), "{answer:#}");
    }
    let (code, answer) = desk.explain(&config, &["--path", "/ready/x"]);
    assert_eq!((code, &answer["code"]), (1, &json!("TOKEN_MISSING")), "{answer:#}");
}
