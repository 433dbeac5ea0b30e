//! Keys that are removed, replaced, or named before they are published.
use super::*;

/// Takes a key away and measures until its tokens, verified and cached on both workers, pass nowhere. Returns the
/// longest time from the provider's answer to the last pass.
async fn measure_removal(mesh: &Mesh, provider: &Provider, removed: &SigningKey, kept: &SigningKey) -> Duration {
    let mut connections = mesh.connections(2).await;
    until_passes(&mut connections, removed).await;
    until_passes(&mut connections, kept).await;
    let (bad, good) = (removed.mint(&claims()), kept.mint(&claims()));
    for connection in &mut connections {
        for _ in 0..3 {
            assert_eq!(connection.send(&get(&bad)).await.unwrap().status, 200, "cached");
        }
    }
    let before = provider.fetches(KEYS);
    provider.publish(KEYS, &[kept]);
    // One worker learns of an unknown key; the others must follow.
    connections[0].send(&get(&unknown(&mint::random_id()))).await.unwrap();
    assert!(wait_until(DEADLINE, async || provider.fetches(KEYS) > before).await);
    let fetched = provider.last_fetch();
    let mut last_pass = Duration::ZERO;
    for connection in &mut connections {
        let refused = wait_until(DEADLINE, async || {
            let response = connection.send(&get(&bad)).await.unwrap();
            if response.status == 200 {
                last_pass = last_pass.max(fetched.elapsed());
            }
            is(&response, 401, "KEY_UNKNOWN")
        });
        assert!(refused.await);
        assert_eq!(connection.send(&get(&good)).await.unwrap().status, 200);
    }
    assert_eq!(provider.fetches(KEYS), before + 1, "one virtual machine fetched for all");
    last_pass
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_keys_tokens_stop_on_all_workers_within_a_second_of_the_fetch() {
    let (removed, kept) = (key("removed"), key("kept"));
    let provider = Provider::start(&[&removed, &kept]).await;
    let mesh = Mesh::start_with("removed", options(&provider, &json!({}))).await;
    let lag = measure_removal(&mesh, &provider, &removed, &kept).await;
    println!("removed key: the last token passed {lag:?} after the provider's answer");
    assert!(lag < Duration::from_secs(1), "{lag:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_virtual_machine_fetches_for_all_without_a_vm_id_too() {
    let (removed, kept) = (key("removed"), key("kept"));
    let provider = Provider::start(&[&removed, &kept]).await;
    let mut options = options(&provider, &json!({}));
    options.edit = |bootstrap| {
        assert!(FilterHost::is_native() || bootstrap.contains("vm_id: portcullis"));
        bootstrap.replace("vm_id: portcullis", "vm_id: \"\"")
    };
    let mesh = Mesh::start_with("no-vm-id", options).await;
    let lag = measure_removal(&mesh, &provider, &removed, &kept).await;
    println!("removed key, no vm_id: the last token passed {lag:?} after the provider's answer");
    assert!(lag < Duration::from_secs(1), "{lag:?}");
}

/// In Wasm, the request that finds the keys that another worker fetched wakes those that wait on its own worker. Their
/// refusals must not hold it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_finds_newer_keys_is_not_held_by_the_refusals_of_those_that_waited() {
    const FETCH: Duration = Duration::from_millis(300);
    let (old, next) = (key("old"), key("next"));
    let provider = Provider::start(&[&old]).await;
    let mesh = Mesh::start_with("newer-keys", options(&provider, &json!({ "cool_down": "1s" }))).await;
    // On both workers: some that wait, and many that come one by one while the keys arrive.
    let mut waiting = mesh.connections(2).await;
    let mut coming = mesh.connections(20).await;
    until_passes(&mut waiting, &old).await;

    provider.say(KEYS, Answer::json(200, &set(&[&old, &next])).after(FETCH));
    let waiting: Vec<_> = waiting
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move { connection.send(&get(&unknown(&mint::random_id()))).await.unwrap() })
        })
        .collect();
    assert!(wait_until(DEADLINE, async || provider.fetches(KEYS) > 1).await, "no key was fetched");
    let mut every = tokio::time::interval(2 * FETCH / u32::try_from(coming.len()).unwrap());
    let mut answers = Vec::new();
    for mut connection in coming.drain(..) {
        every.tick().await;
        let token = next.mint(&claims());
        answers.push(tokio::spawn(async move { connection.send(&get(&token)).await.unwrap() }));
    }
    for answer in answers {
        let response = answer.await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    for answer in waiting {
        let response = answer.await.unwrap();
        assert!(is(&response, 401, "KEY_UNKNOWN"), "{}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_one_kid_are_tried_and_what_is_left_out_is_said_once() {
    let keys: Vec<SigningKey> = (0..10).map(|_| key("same")).collect();
    let provider = Provider::start(&[]).await;
    let mut document = set(&keys.iter().collect::<Vec<_>>());
    let mut encrypting = document["keys"][0].clone();
    encrypting["use"] = "enc".into();
    document["keys"].as_array_mut().unwrap().extend([json!({ "kty": "EC", "crv": "P-192", "kid": "odd" }), encrypting]);
    provider.say(KEYS, Answer::json(200, &document).header("cache-control", "max-age=1"));
    let mut mesh = Mesh::start_with("same-kid", options(&provider, &json!({ "min_refresh": "1s" }))).await;
    let mut connections = mesh.connections(1).await;
    for key in &keys[..8] {
        until_passes(&mut connections, key).await;
    }
    for key in &keys[8..] {
        let response = mesh.send(&get(&key.mint(&claims()))).await;
        assert!(is(&response, 403, "SIG_MISMATCH"), "{}", response.text());
    }
    assert!(wait_until(DEADLINE, async || provider.fetches(KEYS) >= 3).await);
    let log = mesh.envoy_log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("left out")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("issuer=main 3 of 11 keys left out: keys[8] (kid same): "), "{said:?}");
    assert!(said[0].contains("keys[10] (kid odd): "), "{said:?}");
}
