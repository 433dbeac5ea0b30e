//! Formats in which providers publish keys: certificates, encodings, sets for several tenants.
use super::*;

/// A self-signed certificate of the key, in PEM, as Google publishes them for Firebase.
fn certificate(key: &SigningKey) -> String {
    let directory = Directory::new("certificate");
    let file = directory.path().join("key.pem");
    std::fs::write(&file, key.private_pem().unwrap()).unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-days",
            "1",
            "-subj",
            "/CN=securetoken",
            "-addext",
            "keyUsage=digitalSignature",
            "-key",
        ])
        .arg(&file)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_by_key_id_are_fetched_and_rotate_as_a_key_set_does() {
    let keys = [Alg::RS256, Alg::ES256, Alg::EdDSA].map(|alg| SigningKey::generate(alg, alg.name()));
    let map = |keys: &[&SigningKey]| -> Value {
        keys.iter()
            .map(|key| (key.kid().unwrap().to_owned(), json!(certificate(key))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let [rsa, p256, ed25519] = keys.each_ref();
    let provider = Provider::start(&[]).await;
    provider.say(KEYS, Answer::json(200, &map(&[rsa, p256])));
    let mut options = options(&provider, &json!({ "cool_down": "1s" }));
    options.filter["issuers"][0]["algorithms"] = json!(["RS256", "ES256", "EdDSA"]);
    let mut mesh = Mesh::start_with("certificates", options).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, rsa).await;
    until_passes(&mut connections, p256).await;

    let mut next = map(&[ed25519]);
    next["broken"] = json!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    provider.say(KEYS, Answer::json(200, &next));
    until_passes(&mut connections, ed25519).await;
    for gone in [rsa, p256] {
        let token = gone.mint(&claims());
        let is_refused = wait_until(DEADLINE, async || is(&mesh.send(&get(&token)).await, 401, "KEY_UNKNOWN")).await;
        assert!(is_refused, "its certificate has left the map");
    }
    assert!(mesh.envoy_log().contains("1 of 2 keys left out: kid broken: it is not a single X.509 certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_order_mark_is_read_over_and_a_compressed_set_is_named() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[]).await;
    let text = set(&[&good]).to_string();
    provider.say(KEYS, Answer::new(200, format!("\u{feff}{text}")));
    let mut mesh = Mesh::start_with("encodings", options(&provider, &json!({ "cool_down": "1s" }))).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;
    let gzip = [b"\x1f\x8b\x08\0".as_slice(), &[7; 60]].concat();
    for (answer, says) in [
        (Answer::new(200, gzip.clone()), "it is compressed by gzip"),
        (Answer::new(200, gzip).header("content-encoding", "br"), "it is encoded as br"),
        (Answer::new(200, "<html>sign in</html>"), "it is HTML or XML"),
        (Answer::new(200, ""), "it is empty"),
        (
            Answer::new(302, "").header("location", "https://elsewhere.example/"),
            "a redirect to https://elsewhere.example/",
        ),
        (Answer::new(403, ""), "status 403: the provider requires credentials"),
    ] {
        provider.say(KEYS, answer);
        let named = wait_until(DEADLINE, async || {
            mesh.send(&get(&unknown(&mint::random_id()))).await;
            mesh.envoy_log().contains(&format!("issuer=main keys not fetched: {says}"))
                || mesh.envoy_log().contains(&format!("issuer=main keys not fetched: status 302, {says}"))
        });
        assert!(named.await, "{says}");
        assert_eq!(mesh.send(&get(&good.mint(&claims()))).await.status, 200);
    }
    provider.publish(KEYS, &[&good, &next]);
    until_passes(&mut connections, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_the_keys_that_are_for_all_of_them() {
    let (common, special) = (key("common"), key("special"));
    let provider = Provider::start(&[]).await;
    let mut document = set(&[&common, &special]);
    document["keys"][0]["issuer"] = "https://login.example/{tenantid}/v2.0".into();
    document["keys"][1]["issuer"] = "https://login.example/special/v2.0".into();
    provider.say(KEYS, Answer::json(200, &document));
    let mut options = options(&provider, &json!({}));
    options.filter["issuers"][0]["issuer"] = "https://login.example/{tenant}/v2.0".into();
    options.filter["issuers"][0]["tenants"] = "any".into();
    let mesh = Mesh::start_with("tenants", options).await;
    let of = |key: &SigningKey, tenant: &str| {
        key.mint(&claims_with(&json!({ "iss": format!("https://login.example/{tenant}/v2.0") })))
    };
    // One worker may have the keys sooner than another.
    let token = of(&common, "acme");
    for connection in &mut mesh.connections(1).await {
        let passes = wait_until(DEADLINE, async || connection.send(&get(&token)).await.unwrap().status == 200);
        assert!(passes.await, "{}", connection.send(&get(&token)).await.unwrap().text());
    }
    let answer = async |key: &SigningKey, tenant: &str| mesh.send(&get(&of(key, tenant))).await;
    assert_eq!(answer(&common, "special").await.status, 200);
    assert_eq!(answer(&special, "special").await.status, 200);
    let crossed = answer(&special, "acme").await;
    assert!(is(&crossed, 403, "SIG_MISMATCH"), "{}", crossed.text());
    let none = answer(&common, "a%2fb").await;
    assert!(is(&none, 401, "INVALID_ISSUER"), "{}", none.text());
}
