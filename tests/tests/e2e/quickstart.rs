//! The quick start for one's own Envoy, executed from README.md's own text. The places in
//! angle brackets are filled in, and ports, so that tests do not collide.
use std::process::Command;
use std::time::Duration;

use harness::mesh::unix_now;
use harness::{Directory, Process, Redis, Request, Service, Upstream, exchange, project, wait_until};
use mint::{Alg, SigningKey, random_id};
use serde_json::{Value, json};

const LATEST: Duration = Duration::from_secs(20);

/// The blocks of the README's section: indented ones are commands, fenced ones YAML.
struct Section {
    commands: Vec<String>,
    yaml: Vec<String>,
}

fn section(title: &str) -> Section {
    let readme = std::fs::read_to_string(project().join("README.md")).expect("README.md");
    let (_, rest) = readme.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("README has no `{title}`"));
    let text = rest.split("\n## ").next().expect("a section");
    let fenced = text.split("```yaml\n").skip(1).map(|block| block.split("```").next().expect("an end").to_owned());
    let prose = text.split("```").step_by(2).collect::<String>();
    let commands = prose.replace("\\\n", " ");
    let commands = commands.lines().filter(|line| line.starts_with("    ")).map(|line| line.trim().to_owned());
    Section { commands: commands.collect(), yaml: fenced.collect() }
}

fn find<'a>(commands: &'a [String], part: &str) -> &'a str {
    commands.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("README has no command with `{part}`"))
}

/// As typed into a shell in the reader's folder, with the tool on the PATH.
fn shell(directory: &Directory, line: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tool = Service::binary().parent().expect("a folder").to_path_buf();
    let paths = std::iter::once(tool).chain(std::env::split_paths(&path));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec {line}")]).current_dir(directory.path());
    command.env("PATH", std::env::join_paths(paths).expect("a PATH"));
    command
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "README has no `{old}` in\n{text}");
    text.replace(old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_for_ones_own_envoy_works_as_it_is_written() {
    let directory = Directory::new("quickstart");
    let (use_it, end_it) = (section("In your Envoy"), section("End a session"));
    for secret in ["> shared-secret", "> admin-token"] {
        let line = format!("{}\n{}", find(&use_it.commands, "umask"), find(&use_it.commands, secret));
        let made = Command::new("/bin/sh").args(["-c", &line]).current_dir(directory.path()).status().expect("sh runs");
        assert!(made.success(), "{line}");
    }
    let redis = Redis::start(&directory).await;
    let line = replaced(find(&use_it.commands, "portcullis serve"), "redis://127.0.0.1:6379", &redis.url());
    let line = format!("{line} --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ports-file ports");
    let mut service = Process::start("service", shell(&directory, &line), directory.path());
    let mut ports = Value::Null;
    let listens = wait_until(LATEST, async || {
        let text = std::fs::read_to_string(directory.path().join("ports")).unwrap_or_default();
        ports = serde_json::from_str(&text).unwrap_or_default();
        ports["listen"].is_string() || !service.is_running()
    });
    assert!(listens.await && service.is_running(), "{line}\n{}", service.log_tail());
    let address = |name: &str| ports[name].as_str().expect("an address").to_owned();
    let port = address("listen").rsplit(':').next().expect("a port").to_owned();

    let key = SigningKey::generate(Alg::ES256, "mine");
    let jwk = Value::Object(key.public_jwk().expect("a public key"));
    let part = |name: &str| jwk[name].as_str().expect("a text").to_owned();
    let [manager, clusters] = use_it.yaml.as_slice() else { panic!("README has two blocks of YAML there") };
    let mut manager = replaced(manager, "<kid>", "mine");
    manager = replaced(&manager, "<x>", &part("x"));
    manager = replaced(&manager, "<y>", &part("y"));
    let wasm = project().join("dist/portcullis.wasm").display().to_string();
    manager = replaced(&manager, "/usr/local/lib/portcullis.wasm", &wasm);
    let clusters = replaced(clusters, "port_value: 7700", &format!("port_value: {port}"));
    let upstream = Upstream::start().await;

    // The reader's own Envoy, to which the README says to add.
    let mut manager: Value = serde_norway::from_str(&manager).expect("YAML");
    manager["@type"] =
        json!("type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
    manager["stat_prefix"] = json!("own");
    manager["route_config"] = json!({ "virtual_hosts": [{ "name": "own", "domains": ["*"],
        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "own" } }] }] });
    let mut clusters: Value = serde_norway::from_str(&clusters).expect("YAML");
    let at = |address: &str, port: u16| json!({ "socket_address": { "address": address, "port_value": port } });
    let own = json!({ "name": "own", "type": "STATIC", "load_assignment": { "cluster_name": "own", "endpoints": [
        { "lb_endpoints": [{ "endpoint": { "address": at("127.0.0.1", upstream.address().port()) } }] }] } });
    clusters.as_array_mut().expect("a list of clusters").push(own);
    let filters = json!([{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }]);
    let bootstrap = json!({
        "admin": { "address": at("127.0.0.1", 0) },
        "static_resources": {
            "listeners": [{ "name": "own", "address": at("127.0.0.1", 0), "filter_chains": [{ "filters": filters }] }],
            "clusters": clusters,
        },
    });
    directory.write("own.json", bootstrap.to_string());
    let envoy = project().join(".venv/bin/envoy").display().to_string();
    let line = "PORTCULLIS_SECRET=\"$(cat shared-secret)\" envoy …";
    let readme = std::fs::read_to_string(project().join("README.md")).expect("README.md").replace('\n', " ");
    assert!(readme.contains(line), "README does not say `{line}`");
    let arguments = "-c own.json --admin-address-path admin --disable-hot-restart --log-level warning --concurrency 1";
    let line = format!("env {}", line.replace("envoy …", &format!("{envoy} {arguments}")));
    let mut envoy = Process::start("envoy", shell(&directory, &line), directory.path());

    let mut listener = None;
    let serves = wait_until(LATEST, async || {
        listener = listening(&directory).await;
        listener.is_some() || !envoy.is_running()
    });
    assert!(serves.await && envoy.is_running(), "{}", envoy.log_tail());
    let listener = listener.expect("a listener");
    let now = unix_now();
    let session = format!("s{}", random_id());
    let token = key.mint(&json!({ "iss": "https://issuer.example", "aud": "my-api", "sub": "alice", "sid": session,
        "jti": random_id(), "iat": now, "exp": now + 600 }));
    let get =
        async |path: &str, token: &str| exchange(listener, &Request::get(path).bearer(token)).await.expect("an answer");
    let passed = get("/api/things", &token).await;
    assert_eq!((passed.status, passed.upstream_saw("x-user")), (200, vec!["alice".to_owned()]), "{}", passed.text());
    assert_eq!(get("/api/things", "garbage").await.status, 401);
    assert_eq!(exchange(listener, &Request::get("/healthz")).await.expect("an answer").status, 200);

    let line = replaced(find(&end_it.commands, "revoke session"), "<sid>", &session);
    let export = find(&end_it.commands, "export ").trim_start_matches("export ").split_once('=').expect("NAME=value");
    let mut revoke = shell(&directory, &line);
    revoke.env(export.0, export.1).env("PORTCULLIS_ADMIN", format!("http://{}", address("admin")));
    let output = revoke.output().expect("the tool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ended = wait_until(LATEST, async || get("/api/things", &token).await.json()["code"] == "SESSION_REVOKED");
    assert!(ended.await, "the session lives on");
}

async fn listening(directory: &Directory) -> Option<std::net::SocketAddr> {
    let admin = std::fs::read_to_string(directory.path().join("admin")).ok()?.trim().parse().ok()?;
    let listeners = exchange(admin, &Request::get("/listeners?format=json")).await.ok()?.json();
    let port = listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
    Some(std::net::SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).ok()?)))
}
