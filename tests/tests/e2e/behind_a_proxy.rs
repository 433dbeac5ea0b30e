//! The service behind an Envoy of its own, as in a mesh: the requests of the filter must be acceptable to a proxy.
use harness::{Directory, Envoy, EnvoyOptions, Mesh, MeshOptions};
use serde_json::json;

/// As Istio names the cluster of a Service.
const CLUSTER: &str = "outbound|7700||portcullis.portcullis.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn a_check_passes_the_proxy_in_front_of_the_service_under_istios_name_for_the_cluster() {
    let behind = Mesh::start("behind").await;
    let service = behind.service.as_ref().expect("a service").address();
    let directory = Directory::new("front");
    let nobody = "127.0.0.1:1".parse().unwrap();
    let front = Envoy::start(&directory, EnvoyOptions::new(service, nobody, None)).await;

    let mut options = MeshOptions { check_address: Some(front.address()), ..MeshOptions::default() };
    options.filter["revocation"]["cluster"] = json!(CLUSTER);
    options.edit = |bootstrap| bootstrap.replace("session_service", &format!("\"{CLUSTER}\""));
    let mesh = Mesh::start_with("in-a-mesh", options).await;
    let response = mesh.get(&mesh.token()).await;
    assert_eq!(response.status, 200, "{}", response.text());
}
