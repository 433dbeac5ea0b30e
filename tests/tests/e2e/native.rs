//! The dynamic module in a real Envoy: that it loads, and what it refuses.
use harness::{Directory, Envoy, EnvoyOptions, FilterHost, MeshOptions, Request, Upstream, exchange};

async fn options(upstream: &Upstream) -> EnvoyOptions {
    let mesh = MeshOptions::default();
    let mut options = EnvoyOptions::new(upstream.address(), upstream.address(), Some(mesh.filter));
    options.host = FilterHost::Native;
    let shared = mint::to_base64url(mesh.keys.shared.secret().unwrap_or_default());
    options.environment =
        vec![("PORTCULLIS_SECRET".to_owned(), MeshOptions::secret()), ("KEY_SHARED".to_owned(), shared)];
    options
}

#[tokio::test]
async fn the_module_loads_and_lets_nothing_pass_undecided() {
    let directory = Directory::new("native_loads");
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(&directory, options(&upstream).await).await;
    let response = exchange(envoy.address(), &Request::get("/api")).await.expect("Envoy answers");
    assert!(response.status >= 400, "{}", response.status);
}

#[tokio::test]
async fn a_document_that_is_not_right_keeps_envoy_from_starting_and_says_why() {
    let directory = Directory::new("native_refuses");
    let upstream = Upstream::start().await;
    let mut options = options(&upstream).await;
    options.filter.as_mut().expect("a filter")["rules"][0]["acess"] = "public".into();
    let log = Envoy::try_start(&directory, options).await.err().expect("Envoy does not start");
    assert!(log.contains("portcullis: the configuration is refused: rules[0].acess"), "{log}");
}
