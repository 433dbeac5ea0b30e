//! The keys of providers.
use super::*;

#[test]
fn unknown_keys_cause_a_few_fetches_in_a_cool_down_and_known_ones_go_on() {
    let stack = stack_with(json!({ "cool_down": "60s" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    assert_eq!(stack.jwks.asked(), 1);
    let flood: Vec<_> = (0..40).map(|n| forged(&n.to_string())).collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let sending: Vec<_> = flood
            .chunks(10)
            .map(|tokens| {
                let all = || tokens.iter().map(|token| log_out(&stack.service, token).status).collect::<Vec<_>>();
                scope.spawn(all)
            })
            .collect();
        sending.into_iter().flat_map(|sent| sent.join().unwrap()).collect()
    });
    // Refused where the set was fetched for it; else we cannot tell, since the key may be a new one.
    assert!(statuses.iter().all(|status| [400, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&400) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(stack.jwks.asked(), 5);
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 2));
}

#[test]
fn a_new_key_is_found_when_it_is_first_used_and_a_removed_one_ends_with_the_refresh() {
    let stack = stack_with(json!({ "refresh": "1s", "cool_down": "1s" }));
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let next = key_of(Alg::EdDSA, "next");
    stack.jwks.now_says(Says::Body(set(&[&next])));
    assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &logout_claims())).status, 200);
    eventually(NOTICED, || {
        (log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status == 400).then_some(())
    });
}

#[test]
fn a_new_key_is_found_also_for_a_token_that_names_none() {
    let stack = stack_with(json!({ "cool_down": "60s" }));
    let nameless = |key: &SigningKey| key.sign(r#"{"alg":"EdDSA"}"#, &logout_claims().to_string());
    assert_eq!(log_out(&stack.service, &nameless(&stack.key)).status, 200);
    let next = key_of(Alg::EdDSA, "next");
    stack.jwks.now_says(Says::Body(set(&[&next])));
    assert_eq!(log_out(&stack.service, &nameless(&next)).status, 200);
    // What is signed by nobody's key is looked for no more often than what names one.
    let forged = || nameless(&key_of(Alg::EdDSA, "forged"));
    let statuses: Vec<u16> = (0..6).map(|_| log_out(&stack.service, &forged()).status).collect();
    assert_eq!(statuses, [400, 400, 400, 503, 503, 503]);
    assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 2));
}

// The kid may stay, with another key or also another algorithm, and it may go; the logout is sent once.
#[test]
fn a_new_key_is_found_also_under_the_id_of_an_old_one_or_under_none() {
    for (alg, published) in [(Alg::EdDSA, "k"), (Alg::RS256, "k"), (Alg::EdDSA, "")] {
        let stack = stack_with(json!({ "cool_down": "60s" }));
        assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
        let next = key_of(alg, "k");
        let mut jwk = Value::Object(next.public_jwk().unwrap());
        if published.is_empty() {
            jwk.as_object_mut().unwrap().remove("kid");
        }
        stack.jwks.now_says(Says::Body(json!({ "keys": [jwk] }).to_string()));
        let claims = logout_claims();
        assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &claims)).status, 200, "{alg:?} {published}");
        assert_eq!(stack.is(Kind::Session, text(&claims["sid"])), Answer::Dead);
        // Strangers cause no more fetches with the id of a known key than with others, and tokens of that key go on.
        let statuses: Vec<u16> = (0..6).map(|_| log_out(&stack.service, &forged("k")).status).collect();
        assert_eq!(statuses, [400, 400, 400, 503, 503, 503]);
        assert_eq!(log_out(&stack.service, &typed(&next, "logout+jwt", &logout_claims())).status, 200);
        assert_eq!((stack.jwks.asked(), stack.revocations()), (5, 3));
    }
}

#[test]
fn keys_that_are_held_serve_while_the_provider_is_down_until_they_are_stale() {
    let stack = stack_with(json!({ "refresh": "1s", "max_stale": "4s" }));
    let good = || log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status;
    assert_eq!(good(), 200);
    let fetched = Instant::now();
    stack.jwks.now_says(Says::Status(500));
    // Tried and failed: the keys are older than `refresh` by now, and serve.
    eventually(NOTICED, || (stack.jwks.asked() > 1 || good() != 200).then_some(()));
    assert_eq!(good(), 200);
    eventually(NOTICED, || (good() == 503).then_some(()));
    assert!(fetched.elapsed() >= Duration::from_secs(3));
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    eventually(NOTICED, || (good() == 200).then_some(()));
}

#[test]
fn discovery_takes_only_this_issuers_document_and_urls_that_are_safe() {
    let documents: [fn(&str, &str) -> Value; 4] = [
        |_, uri| json!({ "issuer": ISSUER, "jwks_uri": uri }),
        |issuer, _| json!({ "issuer": issuer, "jwks_uri": "http://192.0.2.1/jwks" }),
        |issuer, _| json!({ "issuer": issuer, "jwks_uri": "file:///etc/passwd" }),
        |issuer, _| json!({ "issuer": issuer }),
    ];
    let discover = |document: fn(&str, &str) -> Value| {
        let key = key_of(Alg::EdDSA, "k");
        let jwks = Jwks::publishing(&[&key]);
        let server = Jwks::saying(Says::Status(404));
        let issuer = format!("http://{}", server.at);
        server.now_says(Says::Body(document(&issuer, &jwks.uri()).to_string()));
        let redis = Redis::start();
        let members = json!({ "issuer": issuer, "jwks_uri": null, "discovery": "openid-configuration" });
        let list = providers(&redis, &[with(provider(""), &members)]);
        let service = Running::start(service::Options { providers_file: list, ..options(&redis) });
        let token = typed(&key, "logout+jwt", &with(logout_claims(), &json!({ "iss": issuer })));
        assert_eq!(log_out(&service, &token).status, 503, "{}", document("", ""));
        assert_eq!(jwks.asked(), 0);
        server.now_says(Says::Body(json!({ "issuer": issuer, "jwks_uri": jwks.uri() }).to_string()));
        eventually(NOTICED, || (log_out(&service, &token).status == 200).then_some(()));
    };
    std::thread::scope(|scope| {
        for document in documents {
            scope.spawn(move || discover(document));
        }
    });
}
