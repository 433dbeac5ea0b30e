//! A second token under another spelling, and tokens in the query.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_token_under_another_spelling_does_not_reach_the_upstream() {
    let mesh = Mesh::start_with("spellings", options()).await;
    let token = mesh.keys.first.mint(&claims());
    let (good, evil) = (format!("Bearer {token}"), "evil-token");
    let queries = [
        "Access_Token=evil-token",
        ";access_token=evil-token",
        "a=b;access_token=evil-token",
        "access.token=evil-token",
        "%20access_token=evil-token",
        "access%5Btoken=evil-token",
        "access_token%5B%5D=evil-token",
        "access%2Etoken=evil-token",
        "ACCESS+TOKEN=evil-token",
        "%u0061ccess_token=evil-token",
        "%25u0061ccess_token=evil-token",
        "%2561ccess_token=evil-token",
        "acc%ess_token=evil-token",
        "acce%C5%BF%C5%BF_token=evil-token",
        "access_to%E2%84%AAen=evil-token",
        "%EF%BD%81ccess_token=evil-token",
        "%uff41ccess_token=evil-token",
        "%c1%a1ccess_token=evil-token",
        "acce%C3%9F_token=evil-token",
        "?access_token=evil-token",
        "access_token%00=evil-token",
        "%0baccess_token%09=evil-token",
    ];
    for query in queries {
        let request = Request::get(&format!("/x?keep=1&{query}"))
            .header("host", "other.example.com")
            .header("authorization", &good);
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, 200, "{query}: {}", response.text());
            assert!(!response.text().contains(evil), "{query}: {}", response.text());
            assert!(response.text().contains("keep=1"), "{query}: {}", response.text());
        }
    }
    let headers: [(&str, &str); 14] = [
        ("cookie", "Session=evil-token; keep=1"),
        ("cookie", "keep=1; %2573ession=evil-token"),
        ("cookie", "keep=1; %u0073ession=evil-token"),
        ("cookie", "keep=1; \u{17f}ession=evil-token"),
        ("cookie", "keep=1; se\u{df}ion=evil-token"),
        ("cookie", "keep=1; \u{ff33}ession=evil-token"),
        ("cookie", "keep=1; SESSION=evil-token"),
        ("cookie", "keep=1; %73ession=evil-token"),
        ("cookie", "keep=1,session=evil-token"),
        ("cookie", "keep=1; session%20=evil-token"),
        ("cookie", "keep=1; sess%69on=evil-token"),
        ("x.session.token", "evil-token"),
        ("x-session.token", "evil-token"),
        ("X.Session-Token", "evil-token"),
    ];
    for (name, value) in headers {
        let request = Request::get("/x")
            .header("host", "other.example.com")
            .header("authorization", &good)
            .header(&name.to_lowercase(), value);
        for response in [mesh.send(&request).await, over_h2(&mesh, &request).await.unwrap()] {
            assert_eq!(response.status, 200, "{name}: {value}: {}", response.text());
            assert!(!response.text().contains(evil), "{name}: {value}: {}", response.text());
            assert!(name != "cookie" || response.upstream_saw("cookie").concat().contains("keep=1"), "{value}");
        }
    }
    for value in ["\u{a0}Bearer evil-token", "\u{2003}Bearer evil-token", "\"Bearer evil-token"] {
        let request = Request::get("/x").header("host", "other.example.com").header("authorization", value);
        let cookie = request.clone().header("cookie", format!("session={token}"));
        for (request, expected) in [(&request, "TOKEN_MALFORMED"), (&cookie, "TOKEN_AMBIGUOUS")] {
            for response in [mesh.send(request).await, over_h2(&mesh, request).await.unwrap()] {
                assert_eq!(code(&response), expected, "{value:?}: {}", response.text());
            }
        }
    }
}

/// Envoy's own default, which has the path.
fn default_access_log(bootstrap: String) -> String {
    let edited = two_virtual_hosts(bootstrap);
    let (start, end) = (
        edited.find("                      log_format:").unwrap(),
        edited.find("                route_config:").unwrap(),
    );
    assert!(start < end);
    format!("{}\n{}", edited[..start].trim_end(), &edited[end..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_query_is_in_no_access_log_whatever_becomes_of_the_request() {
    let mut options = options();
    options.edit = default_access_log;
    let first = options.filter["issuers"][0].clone();
    let mut fetched = first.clone();
    fetched["name"] = json!("fetched");
    fetched["issuer"] = json!("https://fetched.example");
    fetched.as_object_mut().unwrap().remove("keys");
    fetched["jwks"] =
        json!({ "uri": "https://idp.example/keys", "cluster": "idp", "cool_down": "1s", "timeout": "1s" });
    options.filter["issuers"].as_array_mut().unwrap().push(fetched);
    // The second key comes with the second fetch, which a token of that key causes and waits for.
    let has_second = Arc::new(AtomicBool::new(false));
    let keys = Upstream::answering({
        let jwk = |key: &mint::SigningKey| key.public_jwk().unwrap();
        let (first, second) = (jwk(&options.keys.first), jwk(&options.keys.second));
        let has_second = Arc::clone(&has_second);
        move |_| {
            let all = if has_second.load(Ordering::SeqCst) { json!([first, second]) } else { json!([first]) };
            Answer::json(200, &json!({ "keys": all })).after(Duration::from_millis(200))
        }
    })
    .await;
    options.idp = Some(keys.address());
    let mut mesh = Mesh::start_with("query-log", options).await;
    let mint = |members: Value| mesh.keys.first.mint(&claims_with(&members));
    let good = mint(json!({}));
    let fetched = json!({ "iss": "https://fetched.example" });
    let waits_and_passes = mesh.keys.second.mint(&claims_with(&fetched));
    let nobodys = mint::SigningKey::generate(mint::Alg::EdDSA, "nobodys");
    let unknown = nobodys.mint(&claims_with(&fetched));
    let ready = mint(fetched.clone());
    let request = Request::get("/x").header("host", "other.example.com").bearer(&ready);
    for mut connection in mesh.connections(2).await {
        let has_keys = wait_until(DEADLINE, async || connection.send(&request).await.unwrap().status == 200);
        assert!(has_keys.await, "every worker has the first key");
    }
    has_second.store(true, Ordering::SeqCst);
    let expired = mint(json!({ "iat": 1, "exp": 2 }));
    let refused = "not-a-token-but-a-secret".to_owned();
    let mut sent = Vec::new();
    for (token, host) in [
        (&good, "other.example.com"),
        (&waits_and_passes, "other.example.com"),
        (&unknown, "other.example.com"),
        (&expired, "other.example.com"),
        (&refused, "other.example.com"),
        (&good, "public.example.com"),
        (&good, "api.example.com..:x"),
    ] {
        let request = Request::get(&format!("/logged?access_token={token}&b=1")).header("host", host);
        let mut responses = vec![mesh.send(&request).await];
        responses.extend(over_h2(&mesh, &request).await);
        sent.push(responses.iter().map(|response| response.status).collect::<Vec<_>>());
    }
    assert_eq!(sent[0], [200, 200], "{sent:?}");
    assert_eq!(sent[1], [200, 200], "{sent:?}");
    assert_eq!(sent[5], [200, 200], "{sent:?}");
    for at in [2, 3, 4] {
        assert!(sent[at].iter().all(|status| *status == 401), "{at}: {sent:?}");
    }
    let lines = sent.iter().map(Vec::len).sum::<usize>();
    let logged = wait_until(DEADLINE, async || mesh.envoy_log().matches("/logged").count() >= lines);
    assert!(logged.await, "{}", mesh.envoy_log());
    let log = mesh.envoy_log();
    for token in [&good, &waits_and_passes, &unknown, &expired, &refused] {
        assert!(!log.contains(token.as_str()), "{log}");
    }
}
