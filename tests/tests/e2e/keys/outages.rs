//! A provider that is down, refuses, or answers with something else than a key set.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_at_the_start_costs_503_until_it_is_up() {
    let good = key("good");
    let mut provider = Provider::absent();
    provider.publish(KEYS, &[&good]);
    let mesh = Mesh::start_with("down", options(&provider, &json!({}))).await;
    let token = good.mint(&claims());
    let response = mesh.send(&get(&token)).await;
    assert!(is(&response, 503, "KEYS_UNAVAILABLE"), "{}", response.text());
    assert!(response.header("retry-after").is_some());
    provider.come().await;
    assert!(wait_until(DEADLINE, async || mesh.send(&get(&token)).await.status == 200).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_set_survives_whatever_the_provider_says_and_one_issuer_touches_no_other() {
    let (main, other) = (key("main"), key("other"));
    let provider = Provider::start(&[&main]).await;
    provider.publish("/other-keys", &[&other]);
    let document = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": "https://idp.example/other-keys" });
    provider.say(DISCOVERY, Answer::json(200, &document(OTHER_ISSUER)));
    let mut options = options(&provider, &json!({ "cool_down": "1s" }));
    options.filter["issuers"][1].as_object_mut().unwrap().remove("keys");
    options.filter["issuers"][1]["jwks"] = json!({ "cluster": "idp", "discovery": true, "cool_down": "1s" });
    let mesh = Mesh::start_with("garbage", options).await;
    let of_main = main.mint(&claims());
    let of_other = other.mint(&claims_with(&json!({ "iss": OTHER_ISSUER })));
    let mut connections = mesh.connections(1).await;
    for token in [&of_main, &of_other] {
        for connection in &mut connections {
            let passes = wait_until(DEADLINE, async || connection.send(&get(token)).await.unwrap().status == 200);
            assert!(passes.await);
        }
    }
    assert_eq!((provider.fetches(DISCOVERY), provider.fetches("/other-keys")), (1, 1), "discovery leads to the set");
    // A key is its own issuer's alone.
    let crossed = mesh.send(&get(&main.mint(&claims_with(&json!({ "iss": OTHER_ISSUER }))))).await;
    assert!(is(&crossed, 401, "KEY_UNKNOWN"), "{}", crossed.text());

    let intruder = key("intruder");
    let mut huge = set(&[&intruder]);
    huge["padding"] = "x".repeat(1 << 20).into();
    let twice = set(&[&intruder]).to_string().replacen('{', r#"{"keys":[],"#, 1);
    let bad_sets = [
        ("garbage", Answer::new(200, "<html>sign in</html>")),
        ("status 500", Answer::json(500, &set(&[&intruder]))),
        ("a redirect", Answer::new(302, "").header("location", "/elsewhere")),
        ("a huge body", Answer::json(200, &huge)),
        ("a member that is there twice", Answer::new(200, twice)),
        ("nothing", Answer::new(200, "")),
    ];
    let evil = json!({ "issuer": ISSUER, "jwks_uri": "https://idp.example/keys" });
    let bad_documents = [("another issuer's document", Answer::json(200, &evil)), ("none", Answer::new(404, ""))];
    let cases = bad_sets
        .into_iter()
        .map(|(what, answer)| (what, KEYS, ISSUER, answer))
        .chain(bad_documents.into_iter().map(|(what, answer)| (what, DISCOVERY, OTHER_ISSUER, answer)));
    for (what, path, issuer, answer) in cases {
        provider.say(path, answer);
        let before = provider.fetches(path);
        let asked = wait_until(DEADLINE, async || {
            let token = with(&claims(), &json!({ "iss": issuer }));
            let response = mesh.send(&get(&intruder.mint(&token))).await;
            assert!(is(&response, 401, "KEY_UNKNOWN"), "{what}: {}", response.text());
            provider.fetches(path) > before
        });
        assert!(asked.await, "{what}");
        for connection in &mut connections {
            for token in [&of_main, &of_other] {
                let response = connection.send(&get(token)).await.unwrap();
                assert_eq!(response.status, 200, "{what}: {}", response.text());
            }
        }
    }
    let failed = mesh.envoy.stats("portcullis.key_fetches").await;
    println!("bad answers: {failed:?}");
}
