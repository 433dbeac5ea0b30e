//! When a key set is fetched again, and by which VM.
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_each_virtual_machine_fetches_for_itself() {
    let good = key("good");
    let provider = Provider::start(&[&good]).await;
    let mut options = options(&provider, &json!({}));
    options.filter.as_object_mut().unwrap().remove("revocation");
    for rule in options.filter["rules"].as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().remove("revocation");
    }
    let mesh = Mesh::start_with("no-secret", options).await;
    until_passes(&mut mesh.connections(1).await, &good).await;
    let age = async || {
        let text = mesh.envoy.prometheus().await;
        let line = text.lines().find(|line| line.starts_with("portcullis_keys_age_seconds{issuer=\""))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    assert!(wait_until(DEADLINE, async || age().await.is_some_and(|age| age >= 1)).await, "the keys do not age");
    let all = wait_until(DEADLINE, async || provider.fetches(KEYS) as u64 >= virtual_machines());
    assert!(all.await, "{}", provider.fetches(KEYS));
    assert_eq!(provider.fetches(KEYS) as u64, virtual_machines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_update_keeps_the_keys_that_are_held() {
    let good = Arc::new(key("good"));
    let provider = Provider::start(&[&good]).await;
    let options = MeshOptions { listener_from_file: true, ..options(&provider, &json!({})) };
    let mesh = Mesh::start_with("update", options).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;

    // A connection for each request: the old listener's stay with the old configuration.
    let (address, stop) = (mesh.envoy.address(), Arc::new(AtomicBool::new(false)));
    let (signer, stopped) = (Arc::clone(&good), Arc::clone(&stop));
    let load = tokio::spawn(async move {
        let mut seen: HashMap<(u16, bool), u64> = HashMap::new();
        while !stopped.load(Ordering::SeqCst) {
            let token = signer.mint(&claims_with(&json!({ "role": "r" })));
            let response = harness::exchange(address, &get(&token)).await.unwrap();
            let is_new = response.upstream_saw("x-new") == ["r"];
            *seen.entry((response.status, is_new)).or_default() += 1;
        }
        seen
    });
    mesh.envoy.update_listener(r#"\"header\":\"x-role\""#, r#"\"header\":\"x-new\""#);
    let updated = wait_until(DEADLINE, async || {
        let token = good.mint(&claims_with(&json!({ "role": "r" })));
        mesh.send(&get(&token)).await.upstream_saw("x-new") == ["r"]
    });
    assert!(updated.await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::SeqCst);
    let seen = load.await.unwrap();
    println!("update: {seen:?}, {} fetches", provider.fetches(KEYS));
    assert!(seen.keys().all(|(status, _)| *status == 200), "{seen:?}");
    assert_eq!(provider.fetches(KEYS), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_not_modified_stays_and_a_changed_one_replaces_it() {
    let (good, next) = (key("good"), key("next"));
    let provider = Provider::start(&[]).await;
    let tagged = |keys: &[&SigningKey], etag: &str| {
        Answer::json(200, &set(keys)).header("etag", etag).header("cache-control", "max-age=1")
    };
    provider.say(KEYS, tagged(&[&good], "\"1\""));
    let mesh = Mesh::start_with("not-modified", options(&provider, &json!({ "min_refresh": "1s" }))).await;
    let mut connections = mesh.connections(1).await;
    until_passes(&mut connections, &good).await;
    assert!(wait_until(DEADLINE, async || provider.unchanged.load(Ordering::SeqCst) >= 1).await, "no 304");
    until_passes(&mut connections, &good).await;
    provider.say(KEYS, tagged(&[&good, &next], "\"2\""));
    until_passes(&mut connections, &next).await;
}
