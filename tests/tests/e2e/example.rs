//! The configuration that users copy, envoy/filter.yaml, as it stands. The demo loads it with keys of its own.
use harness::{Directory, Envoy, EnvoyOptions, Request, Upstream, exchange, project};

#[tokio::test(flavor = "multi_thread")]
async fn the_example_configuration_loads_as_it_is() {
    let directory = Directory::new("example");
    let filter = std::fs::read_to_string(project().join("envoy/filter.yaml")).unwrap();
    let upstream = Upstream::start().await;
    let nobody = "127.0.0.1:9".parse().unwrap();
    let mut options = EnvoyOptions::new(upstream.address(), nobody, Some(serde_norway::from_str(&filter).unwrap()));
    options.environment.push(("PORTCULLIS_SECRET".to_owned(), "a-shared-secret-of-the-tests-long-enough".to_owned()));
    let envoy = Envoy::start(&directory, options).await;

    let send = async |path: &str| exchange(envoy.address(), &Request::get(path)).await.unwrap();
    assert_eq!(send("/healthz").await.status, 200);
    assert_eq!(send("/api/orders").await.json()["code"], "TOKEN_MISSING");
    assert_eq!(send("/elsewhere").await.json()["code"], "ROUTE_UNMATCHED");
}
