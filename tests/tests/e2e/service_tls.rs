//! TLS between Envoy and the service: requires client certificates signed by our CA, and a certificate of the service.
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::mesh::{ISSUER, claims};
use harness::{
    Authority, Connection, Directory, Mesh, MeshOptions, Redis, Request, Service, ServiceOptions, ServiceTls, exchange,
    wait_until,
};
use serde_json::json;

/// The files are looked at every 5 s.
const RELOAD: Duration = Duration::from_secs(20);

/// Fields drop in this order.
struct Stack {
    _redis: Redis,
    service: ServiceOptions,
    ours: Authority,
    theirs: Authority,
    directory: Directory,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Stack {
    /// The arguments of a service that speaks TLS, with client certificates or without.
    async fn new(name: &str, asks_for_certificates: bool) -> Self {
        let directory = Directory::new(name);
        let place = directory.path();
        let redis = Redis::start(&directory).await;
        let (ours, theirs) = (Authority::new(place, "ours"), Authority::new(place, "theirs"));
        let (certificate, key) = ours.sign(place, "service");
        let mut service = ServiceOptions::new(redis.url());
        service.arguments = vec!["--tls-cert".into(), text(&certificate), "--tls-key".into(), text(&key)];
        if asks_for_certificates {
            service.arguments.extend(["--client-ca".into(), text(&ours.certificate)]);
        }
        Self { _redis: redis, service, ours, theirs, directory }
    }

    fn client(&self, authority: &Authority, name: &str) -> Option<(PathBuf, PathBuf)> {
        Some(authority.sign(self.directory.path(), name))
    }

    /// An Envoy that reaches the service so, and the service.
    async fn mesh(&self, name: &str, service: ServiceOptions, tls: ServiceTls) -> Mesh {
        let options = MeshOptions { service: Some(service), service_tls: Some(tls), ..MeshOptions::default() };
        let directory = Directory::new(name);
        Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"))
    }
}

fn again(options: &ServiceOptions) -> ServiceOptions {
    ServiceOptions { arguments: options.arguments.clone(), ..ServiceOptions::new(options.redis_url.clone()) }
}

async fn refuses(mesh: &Mesh) {
    let answer = mesh.get(&mesh.token()).await;
    let said = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
    assert_eq!(said, (503, Some("STORE_UNAVAILABLE".to_owned())), "{}", answer.text());
}

#[tokio::test]
async fn checks_go_over_mutual_tls_and_nobody_else_gets_an_answer() {
    let stack = Stack::new("mutual-tls", true).await;
    let right = || ServiceTls {
        name: "service.example".into(),
        authority: stack.ours.certificate.clone(),
        client: stack.client(&stack.ours, "envoy"),
    };
    let mesh = stack.mesh("mutual-tls-right", again(&stack.service), right()).await;
    let claims = claims();
    let token = mesh.keys.first.mint(&claims);
    assert_eq!(mesh.get(&token).await.status, 200);
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", claims["sid"].as_str().unwrap()]).await;
    assert!(mesh.becomes_everywhere(&token, 403).await);

    let address = mesh.service.as_ref().unwrap().address();
    // Without TLS, and without a certificate: TLS 1.3 lets a client finish before the server has seen that none came.
    assert!(exchange(address, &Request::get("/healthz")).await.is_err());
    let unknown = Connection::open_tls(address, &stack.ours.certificate).await;
    if let Ok(mut unknown) = unknown {
        assert!(unknown.send(&Request::get("/healthz")).await.is_err());
    }
    // Probes have the other listener.
    let probed = exchange(mesh.service.as_ref().unwrap().admin_address(), &Request::get("/readyz")).await.unwrap();
    assert_eq!((probed.status, probed.json()), (200, json!({ "ready": true })));

    let strangers = ServiceTls { client: stack.client(&stack.theirs, "stranger"), ..right() };
    refuses(&stack.mesh("mutual-tls-stranger", again(&stack.service), strangers).await).await;
    let none = ServiceTls { client: None, ..right() };
    refuses(&stack.mesh("mutual-tls-none", again(&stack.service), none).await).await;
}

#[tokio::test]
async fn who_is_not_the_service_by_its_certificate_is_asked_nothing() {
    let stack = Stack::new("service-tls", false).await;
    let right =
        || ServiceTls { name: "service.example".into(), authority: stack.ours.certificate.clone(), client: None };
    assert_eq!(
        {
            let mesh = stack.mesh("service-tls-right", again(&stack.service), right()).await;
            mesh.get(&mesh.token()).await.status
        },
        200
    );
    let wrong_authority = ServiceTls { authority: stack.theirs.certificate.clone(), ..right() };
    refuses(&stack.mesh("service-tls-authority", again(&stack.service), wrong_authority).await).await;
    let wrong_name = ServiceTls { name: "other.example".into(), ..right() };
    refuses(&stack.mesh("service-tls-name", again(&stack.service), wrong_name).await).await;
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_without_a_restart_and_a_wrong_one_does_not_start() {
    let stack = Stack::new("service-tls-files", false).await;
    let mut service = Service::start(&stack.directory, again(&stack.service)).await;
    let address = service.address();
    let shows = async |authority: &Authority| match Connection::open_tls(address, &authority.certificate).await {
        Ok(mut connection) => connection.send(&Request::get("/healthz")).await.is_ok_and(|answer| answer.status == 200),
        Err(_) => false,
    };
    assert!(shows(&stack.ours).await && !shows(&stack.theirs).await);
    // In the place of the old files.
    stack.theirs.sign(stack.directory.path(), "service");
    assert!(wait_until(RELOAD, async || shows(&stack.theirs).await).await);
    assert!(!shows(&stack.ours).await);

    // A file that cannot be used changes nothing.
    stack.directory.write("service.key", "no key");
    let said = async || service.process().log().contains("the certificates stay as they were");
    assert!(wait_until(RELOAD, said).await, "{}", service.process().log_tail());
    assert!(shows(&stack.theirs).await);
    drop(service);

    let Err(log) = Service::try_start(&stack.directory, again(&stack.service)).await else { panic!("it starts") };
    assert!(log.contains("service.key"), "{log}");
}
