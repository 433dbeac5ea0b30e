use super::*;
use serde_json::{Value, json};

fn whole() -> Value {
    json!({
        "issuer": "https://op.example", "audiences": ["client"], "jwks_uri": "https://op.example/jwks",
        "logout": {}, "events": {},
    })
}

fn read(provider: Value) -> Result<Providers, String> {
    let providers: Providers =
        serde_json::from_value(json!({ "providers": [provider] })).map_err(|error| error.to_string())?;
    providers.check(&[]).map_err(|error| error.to_string())?;
    Ok(providers)
}

fn with(name: &str, value: Value) -> Value {
    let mut provider = whole();
    provider[name] = value;
    provider
}

#[test]
fn what_is_left_out_has_a_default() {
    let providers = read(whole()).unwrap();
    let [provider] = providers.providers.as_slice() else { panic!() };
    assert_eq!(provider.algorithms, [Algorithm::RS256]);
    assert_eq!(provider.logout.as_ref().unwrap().max_age, Duration::from_secs(120));
    assert_eq!(provider.events.as_ref().unwrap().max_age(), Duration::from_secs(3600));
    let polled = read(with("events", json!({ "poll": { "url": "https://op.example/poll" } }))).unwrap();
    assert_eq!(polled.providers[0].events.as_ref().unwrap().max_age(), DAY);
    assert_eq!((provider.cool_down, provider.refresh), (Duration::from_secs(5), Duration::from_secs(300)));
}

#[test]
fn a_wrong_field_is_named() {
    for (field, provider) in [
        ("issuer", with("issuer", json!(""))),
        ("audiences", with("audiences", json!([]))),
        ("audiences[0]", with("audiences", json!([""]))),
        ("jwks_uri", with("jwks_uri", json!("http://op.example/jwks"))),
        ("jwks_uri", with("jwks_uri", json!("ftp://op.example/jwks"))),
        ("jwks_uri", with("jwks_uri", json!("https://user:word@op.example/jwks"))),
        ("jwks_uri", with("jwks_uri", json!("/jwks"))),
        ("discovery", with("discovery", json!("openid-configuration"))),
        ("algorithms", with("algorithms", json!([]))),
        ("HS256", with("algorithms", json!(["HS256"]))),
        ("none", with("algorithms", json!(["none"]))),
        ("skew", with("skew", json!("301s"))),
        ("cool_down", with("cool_down", json!("0s"))),
        ("secret_file", with("secret_file", json!("/secret"))),
        ("secret_file", with("algorithms", json!(["HS256"]))),
        ("cool_down", with("cool_down", json!("61s"))),
        ("max_stale", with("max_stale", json!("299s"))),
        ("timeout", with("timeout", json!("11s"))),
        ("logout.max_age", with("logout", json!({ "max_age": "25h" }))),
        ("events.subject_issuer", with("events", json!({ "subject_issuer": "" }))),
        ("events.subject_issuer_names[0]", with("events", json!({ "subject_issuer_names": [""] }))),
        ("events.actions.other", with("events", json!({ "actions": { "other": { "action": "refuse" } } }))),
        ("end_subject", with("events", json!({ "actions": { "session-revoked": { "action": "end" } } }))),
        ("null", with("events", json!({ "max_age": null }))),
        ("url", with("events", json!({ "poll": {} }))),
        ("events.poll.url", with("events", json!({ "poll": { "url": "http://op.example/poll" } }))),
        ("events.poll.wait", with("events", json!({ "poll": { "url": "https://op.example/", "wait": "61s" } }))),
        ("events.poll.interval", with("events", json!({ "poll": { "url": "https://op.example/", "interval": "0s" } }))),
        (
            "events.poll.max_events",
            with("events", json!({ "poll": { "url": "https://op.example/", "max_events": 101 } })),
        ),
        ("subjects.email", with("subjects", json!({ "email": {} }))),
        ("subjects.uri", with("subjects", json!({ "uri": { "is_sub": true, "file": "/users" } }))),
        ("iss_sub", with("subjects", json!({ "iss_sub": { "is_sub": true } }))),
        ("global_revocation.audiences", with("global_revocation", json!({ "audiences": [] }))),
        ("global_revocation.audiences[0]", with("global_revocation", json!({ "audiences": ["client"] }))),
        ("global_revocation.max_age", with("global_revocation", json!({ "audiences": ["x"], "max_age": "2h" }))),
        ("global_revocation.subject", with("global_revocation", json!({ "audiences": ["x"], "subject": "" }))),
        ("colour", with("colour", json!("red"))),
        ("null", with("logout", Value::Null)),
    ] {
        let error = read(provider.clone()).map(drop).expect_err(field);
        assert!(error.contains(field), "{field}: {error}");
    }
    let neither = json!({
        "issuer": "https://op.example", "audiences": ["client"], "jwks_uri": "https://op.example/jwks",
    });
    assert!(read(neither).unwrap_err().contains("providers[0].logout"));
}

#[test]
fn keys_come_over_tls_from_elsewhere() {
    for (uri, allowed) in [
        ("http://127.0.0.1:1/jwks", true),
        ("http://[::1]:1/jwks", true),
        ("http://localhost/jwks", true),
        ("http://127.0.0.1.example/jwks", false),
        ("http://localhost.example/jwks", false),
        ("http://10.0.0.1/jwks", false),
    ] {
        assert_eq!(read(with("jwks_uri", json!(uri))).is_ok(), allowed, "{uri}");
    }
    let mut told = with("jwks_uri", json!("http://op.internal/jwks"));
    told["dangerously_allow_http"] = json!(true);
    assert!(read(told).is_ok());
}

#[test]
fn a_secret_and_keys_stand_where_they_are_of_use() {
    let provider = |algorithms: &[&str], members: Value| {
        let mut provider = json!({
            "issuer": "https://op.example", "audiences": ["client"], "algorithms": algorithms,
            "secret_file": "/secret",
        });
        provider.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        read(provider).map(|_| ())
    };
    let keys = "https://op.example/jwks";
    assert_eq!(provider(&["HS256"], json!({ "logout": {} })), Ok(()));
    assert_eq!(provider(&["HS512", "ES256"], json!({ "logout": {}, "events": {}, "jwks_uri": keys })), Ok(()));
    for (field, algorithms, members) in [
        ("jwks_uri", ["HS256", "HS384"], json!({ "logout": {}, "jwks_uri": keys })),
        ("discovery", ["HS256", "HS384"], json!({ "logout": {}, "discovery": "openid-configuration" })),
        ("jwks_uri", ["HS256", "RS256"], json!({ "logout": {} })),
        ("events", ["HS256", "HS384"], json!({ "logout": {}, "events": {} })),
        ("algorithms", ["HS256", "RS256"], json!({ "events": {}, "jwks_uri": keys })),
    ] {
        let error = provider(&algorithms, members.clone()).unwrap_err();
        assert!(error.contains(&format!("providers[0].{field}`")), "{field} {members}: {error}");
    }
}

#[test]
fn a_provider_stands_once_and_for_issuers_that_are_taken() {
    let twice = json!({ "providers": [whole(), whole()] });
    let twice: Providers = serde_json::from_value(twice).unwrap();
    assert_eq!(twice.check(&[]).unwrap_err().field, "providers[1].issuer");
    let one: Providers = serde_json::from_value(json!({ "providers": [whole()] })).unwrap();
    assert_eq!(one.check(&["https://other.example".into()]).unwrap_err().field, "providers[0].issuer");
    assert_eq!(one.check(&["https://op.example".into()]), Ok(()));
    let mut elsewhere = with("events", json!({ "subject_issuer": "https://tokens.example" }));
    elsewhere.as_object_mut().unwrap().remove("logout");
    let elsewhere: Providers = serde_json::from_value(json!({ "providers": [elsewhere] })).unwrap();
    assert_eq!(elsewhere.check(&["https://tokens.example".into()]), Ok(()));
}

// Every field must be documented on the page.
#[test]
fn the_page_explains_each_field() {
    let page = include_str!("../../../../../docs/logout.md");
    let mut provider = whole();
    for (name, value) in
        [("discovery", json!("ssf-configuration")), ("ca_file", json!("/ca.pem")), ("secret_file", json!("/secret"))]
    {
        provider[name] = value;
    }
    provider["events"] =
        json!({ "subject_issuer": "x", "max_age": "1h", "poll": { "url": "x", "token_file": "/token" } });
    provider["global_revocation"] = json!({ "audiences": ["x"], "subject": "x", "subject_issuer": "x" });
    let events = include_str!("../../../../../docs/events.md");
    let provider: Provider = serde_json::from_value(provider).unwrap();
    let shown = serde_json::to_value(&provider).unwrap();
    for (name, value) in shown.as_object().unwrap() {
        let inner = value.as_object().into_iter().flatten().map(|(inner, _)| format!("{name}.{inner}"));
        for field in std::iter::once(name.clone()).chain(inner) {
            let row = format!("| `{field}` |");
            assert!(page.contains(&row) || events.contains(&row), "{field}");
        }
    }
    for field in shown["events"]["poll"].as_object().unwrap().keys() {
        assert!(events.contains(&format!("| `{field}` |")), "{field}");
    }
}
