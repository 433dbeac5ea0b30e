//! `portcullis doctor` on a healthy mesh, and on one with faults planted for real.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::mesh::{ISSUER, claims, claims_with};
use harness::{
    Authority, Directory, Envoy, FilterHost, Mesh, MeshOptions, Redis, Service, ServiceOptions, project, wait_until,
};
use mint::to_base64url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(15);
/// Of a busy machine, so that a healthy mesh has no finding.
const PATIENCE: &str = "2s";

struct Run {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Run {
    /// On a configuration, with the secrets of a mesh.
    fn new(filter: &str) -> Self {
        let environment = [("PORTCULLIS_SECRET", MeshOptions::secret()), ("KEY_SHARED", to_base64url([7; 32]))];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        Self { arguments: vec![format!("--config={filter}")], environment }
    }

    fn with(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn envoy(self, envoy: &Envoy) -> Self {
        self.with(format!("--envoy=http://{}", envoy.admin_address()))
    }

    fn redis(self, address: SocketAddr, limit: &str) -> Self {
        self.with(format!("--redis=redis://{address}")).with(format!("--redis-timeout={limit}"))
    }

    /// The exit code and the answer.
    fn ask(&self) -> (i32, Value) {
        // The servers that it asks may run in this process.
        tokio::task::block_in_place(|| {
            let mut command = Command::new(Service::binary());
            command.args(["doctor", "--json"]).args(&self.arguments).envs(self.environment.iter().cloned());
            let output = command.output().expect("the tool runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let said = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
            (output.status.code().unwrap_or(-1), said)
        })
    }

    /// Finds this, with everything that a finding says.
    fn finds(&self, name: &str, severity: &str) {
        let (code, said) = self.ask();
        let findings = said["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["name"] == name);
        let finding = found.unwrap_or_else(|| panic!("{name} is not found: {said}"));
        assert_eq!(finding["severity"], severity, "{finding}");
        for part in ["what", "why", "mend", "link"] {
            assert!(finding[part].as_str().is_some_and(|text| !text.is_empty()), "{part}: {finding}");
        }
        let link = finding["link"].as_str().unwrap();
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let page = std::fs::read_to_string(project().join(file)).unwrap_or_else(|_| panic!("there is no {file}"));
        let slug = |heading: &str| {
            let kept = heading.trim_matches(['#', ' ']).to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>()
                .replace(' ', "-")
        };
        let headings = page.lines().filter(|line| line.starts_with('#'));
        assert!(anchor.is_empty() || headings.into_iter().any(|heading| slug(heading) == anchor), "{link}");
        let worst = if findings.iter().any(|finding| finding["severity"] == "error") { 1 } else { 4 };
        assert_eq!(code, worst, "{said}");
    }
}

/// The library of tests/src/shim.c.
fn shim(directory: &Directory) -> PathBuf {
    let library = directory.path().join("shim.so");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(project().join("tests/src/shim.c")).arg("-ldl");
    let output = command.output().expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A way to a server on which one of four answers is slow.
async fn slow_way(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let there = tokio::io::copy(&mut from_client, &mut to_server);
                let back = async {
                    let mut bytes = vec![0; 65_536];
                    for number in 0_u32.. {
                        let count = from_server.read(&mut bytes).await?;
                        if count == 0 {
                            break;
                        }
                        if number % 4 == 3 {
                            tokio::time::sleep(delay).await;
                        }
                        to_client.write_all(&bytes[..count]).await?;
                    }
                    Ok::<u64, std::io::Error>(0)
                };
                tokio::try_join!(there, back).map(drop)
            });
        }
    });
    address
}

/// It runs the filter, whose configuration is in a file beside it.
async fn mesh(name: &str, options: MeshOptions) -> (Mesh, String) {
    let filter = options.filter.to_string();
    let mesh = Mesh::start_with(name, options).await;
    let path = mesh.directory.write("filter.json", filter).display().to_string();
    (mesh, path)
}

/// `portcullis top` sees what this mesh does, by the metrics of either host, and says what is unreachable.
async fn top_shows_requests(mesh: &Mesh, token: &str) {
    let envoy = format!("http://{}", mesh.envoy.admin_address());
    let service = format!("http://{}", mesh.service.as_ref().unwrap().admin_address());
    let mut command = Command::new(Service::binary());
    command.args(["top", "--once", "--interval", "1s", "--envoy", &envoy, "--service", &service]);
    let mut running =
        command.args(["--envoy", "http://127.0.0.1:1"]).stdout(Stdio::piped()).spawn().expect("it starts");
    while running.try_wait().unwrap().is_none() {
        assert_eq!(mesh.get(token).await.status, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let output = running.wait_with_output().expect("its output");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let proxy = row(envoy.trim_start_matches("http://"));
    assert_eq!(proxy.len(), 13, "{text}");
    // All of them passed, with a token that was verified before, though not by each worker.
    let remembered: f64 = proxy[6].strip_suffix('%').and_then(|share| share.parse().ok()).expect("a share");
    assert!(proxy[1] != "0" && proxy[1] != "-" && proxy[1] == proxy[2] && remembered > 50.0, "{text}");
    assert_eq!(proxy[3..6], ["0", "0", "0"], "{text}");
    assert_eq!(row("api")[1..3], proxy[1..3], "{text}");
    assert_eq!(row(service.trim_start_matches("http://")).last().map(String::as_str), Some("ready"), "{text}");
    assert!(row("127.0.0.1:1 ").contains(&"unreachable:".to_owned()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_on_a_healthy_mesh_and_each_planted_fault_is() {
    let (mut mesh, filter) = mesh("doctor", MeshOptions::default()).await;
    let redis = mesh.redis.as_ref().unwrap().address();
    let token = mesh.token();
    assert_eq!(mesh.get(&token).await.status, 200);
    let admin = mesh.service.as_ref().unwrap().admin_address();
    let all = || Run::new(&filter).envoy(&mesh.envoy).redis(redis, PATIENCE).with(format!("--service=http://{admin}"));
    let (code, said) = all().with(format!("--token={token}")).with("--path=/api").ask();
    assert_eq!((code, &said["ok"]), (0, &json!(true)), "{said}");
    assert_eq!(said["skipped"], json!([]), "{said}");
    // The configuration that Envoy has loaded is enough.
    let mut loaded = all();
    loaded.arguments.remove(0);
    let (code, said) = loaded.ask();
    assert_eq!((code, &said["findings"]), (0, &json!([])));

    top_shows_requests(&mesh, &token).await;

    // Tokens.
    let now = harness::mesh::unix_now();
    let with_token = |token: &str| all().with(format!("--token={token}")).with("--path=/api");
    let mint = |members: Value| mesh.keys.first.mint(&claims_with(&members));
    with_token(&mint(json!({ "iat": now - 900, "exp": now - 300 }))).finds("JWT_EXPIRED", "error");
    with_token(&format!("{}{}", &token[..token.len() - 86], to_base64url([7; 64]))).finds("SIG_MISMATCH", "error");
    let misspelt = with_token(&mint(json!({ "iss": format!("{ISSUER}/") })));
    misspelt.finds("INVALID_ISSUER", "error");
    misspelt.finds("issuer_typo", "error");
    with_token(&mint(json!({ "iat": now + 120, "exp": now + 600 }))).finds("clock_drift", "error");
    let revoked = claims();
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", revoked["sid"].as_str().unwrap()]).await;
    let revoked = mesh.keys.first.mint(&revoked);
    with_token(&revoked).finds("SESSION_REVOKED", "error");

    // A rule that looks at no token says nothing about one.
    let (code, said) = all().with(format!("--token={revoked}")).with("--path=/public").ask();
    assert_eq!(code, 0, "{said}");
    assert!(!said["passed"].to_string().contains("admit") && said["skipped"][0]["check"] == "token", "{said}");
    // Nor do answers to a placeholder.
    let mut assumed = with_token(&token).with("--assume-secrets");
    assumed.environment.clear();
    let (code, said) = assumed.ask();
    assert_eq!((code, said["skipped"].as_array().unwrap().len()), (0, 2), "{said}");

    // What Envoy has loaded.
    let mut changed: Value = serde_json::from_str(&std::fs::read_to_string(&filter).unwrap()).unwrap();
    changed["limits"] = json!({ "cached_tokens": 1000 });
    let other = mesh.directory.write("changed.json", changed.to_string()).display().to_string();
    Run::new(&other).envoy(&mesh.envoy).finds("configuration_differs", "error");
    all().set("PORTCULLIS_SECRET", "another-secret-that-is-long-enough-too").finds("STORE_UNAVAILABLE", "error");

    // This machine.
    let shim = shim(&mesh.directory).display().to_string();
    let shimmed = || all().set("LD_PRELOAD", &shim);
    let (code, said) = shimmed().ask();
    assert_eq!((code, &said["findings"]), (0, &json!([])));
    shimmed().set("SHIM_SECONDS", "3600").finds("clock_drift", "error");
    shimmed().set("SHIM_SECONDS", "-3600").finds("clock_drift", "error");
    let low = mesh.directory.write("entropy", "12\n").display().to_string();
    shimmed().set("SHIM_ENTROPY", low).finds("entropy", "error");
    let empty = mesh.directory.path().join("random");
    assert!(Command::new("mkfifo").arg(&empty).status().unwrap().success());
    shimmed().set("SHIM_RANDOM", empty.display().to_string()).finds("entropy", "error");

    // Redis.
    let way = slow_way(redis, Duration::from_millis(200)).await;
    Run::new(&filter).envoy(&mesh.envoy).redis(way, "400ms").finds("latency_jitter", "warning");
    let store = mesh.redis.as_ref().unwrap();
    store.command(&["SET", "portcullis:{00}:s:forgotten", "x"]).await.unwrap();
    all().finds("redis_names_stay", "warning");
    store.command(&["DEL", "portcullis:{00}:s:forgotten"]).await.unwrap();
    store.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await.unwrap();
    all().finds("redis_evicts", "error");
    store.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    let info = store.command(&["INFO", "memory"]).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse::<u64>().unwrap();
    store.command(&["CONFIG", "SET", "maxmemory", &(used + 300_000).to_string()]).await.unwrap();
    let large = "x".repeat(50_000);
    let refuses = wait_until(DEADLINE, async || {
        let name = format!("fill:{}", mint::random_id());
        store.command(&["SET", &name, &large]).await.unwrap().contains("OOM")
    });
    assert!(refuses.await, "Redis is not full");
    all().finds("redis_out_of_memory", "error");
    store.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();

    mesh.redis.as_mut().unwrap().process().pause();
    Run::new(&filter).envoy(&mesh.envoy).redis(redis, "300ms").finds("SESSION_STORE_LATENCY", "error");
    mesh.redis.as_mut().unwrap().process().resume();
    mesh.redis.as_mut().unwrap().process().kill();
    Run::new(&filter).envoy(&mesh.envoy).redis(redis, PATIENCE).finds("REDIS_CONN_REFUSED", "error");
    mesh.service.as_mut().unwrap().process().kill();
    Run::new(&filter).envoy(&mesh.envoy).finds("STORE_UNAVAILABLE", "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_open_is_found_and_so_is_a_certificate_that_ends_soon() {
    let directory = Directory::new("doctor-tls");
    let place = directory.path();
    let redis = Redis::start(&directory).await;
    let authority = Authority::new(place, "ours");
    let (certificate, key) = authority.sign(place, "service");
    let mut options = ServiceOptions::new(redis.url());
    let path = |path: &PathBuf| path.display().to_string();
    options.arguments = vec!["--tls-cert".into(), path(&certificate), "--tls-key".into(), path(&key)];
    let service = Service::start(&directory, options).await;
    let filter = directory.write("filter.json", MeshOptions::default().filter.to_string()).display().to_string();
    // The harness makes certificates for one day.
    let run = || {
        Run::new(&filter)
            .with(format!("--cluster=session_service=https://{}", service.address()))
            .with(format!("--ca-file={}", path(&authority.certificate)))
    };
    run().finds("certificate_expiry", "warning");
    let (code, said) = run().with("--expiry=1h").ask();
    assert_eq!((code, &said["findings"]), (0, &json!([])), "{said}");

    if !FilterHost::is_native() {
        let options = MeshOptions {
            edit: |bootstrap| bootstrap.replace("failure_policy: FAIL_RELOAD", "failure_policy: FAIL_OPEN"),
            ..MeshOptions::default()
        };
        let (mesh, filter) = mesh("doctor-open", options).await;
        Run::new(&filter).envoy(&mesh.envoy).finds("fail_open", "error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_on_a_mesh_with_regions_a_feed_hijack_detection_and_a_store_in_a_file() {
    let there = Directory::new("doctor-region");
    let secret = there.write("join-secret", "a-join-secret-of-the-tests-long-enough").display().to_string();
    let mut other = ServiceOptions::in_file(&there);
    other.arguments = vec![format!("--join-secret-file={secret}")];
    let other = Service::start(&there, other).await;

    let directory = Directory::new("doctor-all");
    let sightings = directory.write("hijack.yaml", "signals: { network: [audit] }\n").display().to_string();
    let mut service = ServiceOptions::in_file(&directory);
    service.arguments = vec![
        format!("--join-secret-file={secret}"),
        format!("--join=http://{}", other.address()),
        format!("--sightings-file={sightings}"),
    ];
    let mut options = MeshOptions::default();
    options.filter["revocation"]["feed"] = json!({ "lag": "1s" });
    options.filter["revocation"]["regions"] = json!({ "max_lag": "10s", "on_exceeded": "close" });
    options.filter["sightings"] = json!({});
    options.service = Some(service);
    let filter = directory.write("filter.json", options.filter.to_string()).display().to_string();
    let mesh =
        Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"));
    let admin = mesh.service.as_ref().unwrap().admin_address();
    let token = mesh.token();
    let all = || Run::new(&filter).envoy(&mesh.envoy).with(format!("--service=http://{admin}"));
    // Also before the regions were compared for the first time.
    let (code, said) = all().ask();
    assert_eq!((code, &said["findings"]), (0, &json!([])), "{said}");
    assert!(wait_until(DEADLINE, async || mesh.get(&token).await.status == 200).await, "the regions are not compared");
    let (code, said) = all().with(format!("--token={token}")).with("--path=/api").ask();
    assert_eq!((code, &said["findings"]), (0, &json!([])), "{said}");
}
