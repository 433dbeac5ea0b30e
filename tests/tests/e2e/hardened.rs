//! The Redis that we ship a configuration for: over TLS, with users, and nothing that the service does not need.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::mesh::{ISSUER, claims};
use harness::{Authority, Directory, Mesh, MeshOptions, Redis, Service, ServiceOptions, project, wait_until};
use serde_json::json;

const RECOVERY: Duration = Duration::from_secs(10);
const PASSWORDS: [(&str, &str); 4] = [
    ("PORTCULLIS", "the-service's-password"),
    ("REPLICA", "the-replicas'-password"),
    ("SENTINEL", "the-sentinels'-password"),
    ("ADMIN", "the-admin's-password"),
];

struct Hardened {
    redis: Redis,
    arguments: Vec<String>,
}

impl Hardened {
    /// From `envoy/redis.conf` as it is, with the paths, passwords and certificates that it needs.
    async fn start(directory: &Directory) -> Self {
        let place = directory.path();
        let mut users = std::fs::read_to_string(project().join("envoy/users.acl")).unwrap();
        for (name, password) in PASSWORDS {
            let digest = sha256(password);
            users = users.replace(&format!("${{{name}_PASSWORD_SHA256}}"), &digest);
        }
        let users = directory.write("users.acl", users);
        directory.write("redis-password", format!("{}\n", PASSWORDS[0].1));
        let authority = Authority::new(place, "authority");
        let (certificate, key) = authority.sign(place, "redis-server");
        let (ours, our_key) = authority.sign(place, "service-client");
        let text = |path: &Path| path.display().to_string();
        let ca = text(&authority.certificate);
        let conf = text(&project().join("envoy/redis.conf"));
        let (users, certificate, key) = (text(&users), text(&certificate), text(&key));
        let options = [
            &["--port", "0", "--tls-port", "{port}", "--aclfile", &users][..],
            &["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca],
        ];
        let redis = Redis::start_from(&conf, place, &options.concat()).await;
        let (password, ours, our_key) = (text(&place.join("redis-password")), text(&ours), text(&our_key));
        let arguments = [
            ["--redis-username", "portcullis"],
            ["--redis-password-file", &password],
            ["--redis-ca-file", &ca],
            ["--redis-cert-file", &ours],
            ["--redis-key-file", &our_key],
        ];
        let mut arguments: Vec<_> = arguments.concat().iter().map(ToString::to_string).collect();
        arguments.push("--require-disk".to_owned());
        Self { redis, arguments }
    }

    fn url(&self) -> String {
        format!("rediss://{}", self.redis.address())
    }

    fn service(&self) -> ServiceOptions {
        ServiceOptions { arguments: self.arguments.clone(), ..ServiceOptions::new(self.url()) }
    }

    /// With one of the arguments changed.
    fn service_with(&self, name: &str, value: &str) -> ServiceOptions {
        let mut service = self.service();
        let at = service.arguments.iter().position(|argument| argument == name).unwrap();
        service.arguments[at + 1] = value.to_owned();
        service
    }

    /// The reply of Redis to a user, through redis-cli.
    fn says(&self, user: Option<&str>, words: &[&str]) -> String {
        let value = |name: &str| {
            let at = self.arguments.iter().position(|argument| argument == name).unwrap();
            self.arguments[at + 1].clone()
        };
        let mut tool = Command::new("redis-cli");
        tool.args(["--no-auth-warning", "-p", &self.redis.address().port().to_string(), "--tls", "--cacert"]);
        tool.args([value("--redis-ca-file"), "--cert".to_owned(), value("--redis-cert-file")]);
        tool.args(["--key".to_owned(), value("--redis-key-file")]);
        if let Some(user) = user {
            let (_, password) = PASSWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(user)).unwrap();
            tool.args(["--user", user, "--pass", password]);
        }
        let output = tool.args(words).output().expect("redis-cli runs");
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// As `sha256sum` prints it.
fn sha256(text: &str) -> String {
    use std::io::Write as _;
    let mut tool = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

async fn ready(service: &Service) -> (u16, String) {
    let response = harness::exchange(service.address(), &harness::Request::get("/readyz")).await.unwrap();
    (response.status, response.text())
}

/// It never was, and says so with this trouble: an attempt on a busy machine may have been slow before.
async fn is_not_ready(service: &Service, trouble: &str) {
    let mut last = (0, String::new());
    let said = wait_until(RECOVERY, async || {
        last = ready(service).await;
        assert_eq!(last.0, 503, "{last:?}");
        last.1.contains(trouble)
    });
    assert!(said.await, "never {trouble}: {last:?}");
}

/// Sessions and the audit stream need more commands of Redis: the user must have the rights for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_redis_that_we_ship_lets_sessions_live_and_end() {
    let directory = Directory::new("redis-conf-sessions");
    let hardened = Hardened::start(&directory).await;
    let mut options = hardened.service();
    let secret = "a-client-secret-of-at-least-32-bytes";
    directory.write("app", secret);
    let clients =
        json!({ "clients": [{ "client_id": "app", "secret_files": ["app"], "may": ["introspect", "refresh"] }] });
    let clients = directory.write("clients.json", clients.to_string());
    let sessions = ["--session-issuer", ISSUER, "--session-audience", "api", "--clients-file"];
    options.arguments.extend(sessions.map(str::to_owned));
    options.arguments.push(clients.display().to_string());
    let service = Service::start(&directory, options).await;
    let admin = format!("http://{}", service.admin_address());
    let token_file = service.admin_token_file().display().to_string();
    let tool = |arguments: &[&str]| {
        let common = ["--json", "--service", &admin, "--token-file", &token_file];
        let (out, err, code) = Service::portcullis(&[arguments, &common[..]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        serde_json::from_str::<serde_json::Value>(out.lines().last().unwrap_or("null")).unwrap()
    };
    let ask = async |path: &str, body: String| {
        let request = harness::Request::new("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("{body}&client_id=app&client_secret={secret}"));
        let response = harness::exchange(service.address(), &request).await.unwrap();
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    };
    assert!(wait_until(RECOVERY, async || ready(&service).await.0 == 200).await);
    let create = ["session", "create", "--subject", "alice", "--client-id", "app", "--refresh", "--idle-timeout", "2s"];
    let made = tool(&create);
    let text = |value: &serde_json::Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    // Used for longer than it may lie unused, so that its use is noted.
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < until {
        let said = ask("/oauth2/introspect", format!("token={}", text(&made, "access_token"))).await;
        assert_eq!(said["active"], true, "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let form = format!("grant_type=refresh_token&refresh_token={}", text(&made, "refresh_token"));
    let refreshed = ask("/oauth2/token", form).await;
    assert_eq!(tool(&["session", "list", "--subject", "alice"])["sid"], made["sid"]);
    assert_eq!(tool(&["session", "end", &text(&made, "sid")])["ended"], json!([made["sid"]]));
    let said = ask("/oauth2/introspect", format!("token={}", text(&refreshed, "access_token"))).await;
    assert_eq!(said, json!({ "active": false }));
    assert_eq!(tool(&["audit"])["action"], "session.end");
    assert_eq!(tool(&["audit", "--since", "1h"])["action"], "GET /v1/audit");
}

/// The rights that the old store's user needs for a move, as in docs/migration.md.
const READS_ONLY: &str = "%R~portcullis:* resetchannels -@all +info +role +cluster|nodes +config|get +time +scan +get \
                          +pttl +hmget +zrange +xrange";

/// There with the service's user, and back with one that can only read.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_to_the_redis_that_we_ship_and_from_it() {
    let directory = Directory::new("redis-conf-move");
    let hardened = Hardened::start(&directory).await;
    let (plain_place, back_place) = (Directory::new("redis-conf-move-from"), Directory::new("redis-conf-move-back"));
    let (plain, back) = (Redis::start(&plain_place).await, Redis::start(&back_place).await);
    let under = |prefix: &str| -> Vec<String> {
        let arguments = hardened.arguments.iter().filter(|argument| *argument != "--require-disk");
        let mut arguments: Vec<_> =
            arguments.map(|argument| argument.replace("--redis-", &format!("{prefix}-"))).collect();
        arguments.extend([prefix.to_owned(), hardened.url()]);
        arguments
    };
    let migrate = |arguments: &[Vec<String>]| {
        let words: Vec<_> = arguments.concat();
        let words: Vec<_> =
            ["migrate", "--json", "--require-disk"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let (out, err, code) = Service::portcullis(&words);
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    };
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    migrate(&[words(&["--prepare"]), under("--to")]);

    let mut options = ServiceOptions::new(plain.url());
    options.arguments =
        [under("--mirror-redis"), words(&["--session-issuer", ISSUER, "--session-audience", "api"])].concat();
    let service = Service::start(&plain_place, options).await;
    assert!(wait_until(RECOVERY, async || ready(&service).await.0 == 200).await);
    let admin = format!("http://{}", service.admin_address());
    let token_file = service.admin_token_file().display().to_string();
    let tool = |arguments: &[&str]| {
        let common = ["--service", &admin, "--token-file", &token_file];
        let (out, err, code) = Service::portcullis(&[arguments, &common[..]].concat());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    };
    tool(&["session", "create", "--subject", "alice", "--idle-timeout", "1h"]);
    tool(&["session", "create", "--subject", "bob"]);
    tool(&["session", "end", "--subject", "bob"]);
    tool(&["revoke", "user", "--issuer", ISSUER, "--id", "carol"]);
    drop(service);
    let verified = |report: &str, copied: bool| {
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        assert_eq!((&report["verified"], &report["complete"]), (&json!(true), &json!(true)), "{report}");
        for one in report["contents"].as_array().unwrap() {
            let count = |name: &str| one[name].as_u64().unwrap();
            let there = one["kind"] == "marks of used tokens" || count("found") > 0;
            assert!(there && (count("copied") > 0) == (copied && count("found") > 0), "{report}");
        }
    };
    // The service has written all of it already.
    verified(&migrate(&[words(&["--from", &plain.url()]), under("--to")]), false);

    let rule: Vec<_> =
        ["ACL", "SETUSER", "mover", "on", ">the-mover's-password"].into_iter().chain(READS_ONLY.split(' ')).collect();
    let said = hardened.says(Some("admin"), &rule);
    assert!(said.contains("OK"), "{said}");
    let password = directory.write("mover-password", "the-mover's-password");
    let mut from = under("--from");
    for (name, value) in
        [("--from-username", "mover".to_owned()), ("--from-password-file", password.display().to_string())]
    {
        let at = from.iter().position(|word| word == name).unwrap();
        from[at + 1] = value;
    }
    migrate(&[words(&["--prepare", "--to", &back.url()])]);
    verified(&migrate(&[from, words(&["--to", &back.url()])]), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_that_we_ship_lets_the_service_work_and_do_nothing_else() {
    let directory = Directory::new("redis-conf");
    let hardened = Hardened::start(&directory).await;
    let options = MeshOptions { service: Some(hardened.service()), ..MeshOptions::default() };
    let mesh = Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("{log}"));
    let claims = claims();
    let token = mesh.keys.first.mint(&claims);
    assert_eq!(mesh.get(&token).await.status, 200);
    let revoked = mesh.revoke(&["session", "--issuer", ISSUER, "--id", claims["sid"].as_str().unwrap()]).await;
    assert_eq!(revoked["on_disk"], json!(true), "{revoked}");
    assert!(wait_until(RECOVERY, async || mesh.get(&token).await.status == 403).await);
    let listed = mesh.revoke(&["list"]).await;
    assert!(listed.to_string().contains(revoked["key"].as_str().unwrap()), "{listed}");
    mesh.revoke(&["lift", revoked["key"].as_str().unwrap()]).await;
    assert!(wait_until(RECOVERY, async || mesh.get(&token).await.status == 200).await);

    for (words, what) in [
        (&["FLUSHALL"][..], "flushall"),
        (&["FLUSHDB"], "flushdb"),
        (&["KEYS", "*"], "keys"),
        (&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], "config|set"),
        (&["CONFIG", "RESETSTAT"], "config|resetstat"),
        (&["ACL", "LIST"], "acl|list"),
        (&["DEBUG", "SLEEP", "0"], "debug"),
        (&["SHUTDOWN"], "shutdown"),
        (&["REPLICAOF", "127.0.0.1", "1"], "replicaof"),
        (&["SCRIPT", "FLUSH"], "script|flush"),
        (&["FUNCTION", "FLUSH"], "function|flush"),
        (&["MONITOR"], "monitor"),
        (&["CLIENT", "KILL", "TYPE", "normal"], "client|kill"),
        (&["CLUSTER", "RESET"], "cluster|reset"),
        (&["EXPIRE", "portcullis:{00}:sentinel", "1"], "expire"),
        (&["SET", "other", "1"], "keys"),
        (&["GET", "other"], "keys"),
        (&["EVAL", "return redis.call('FLUSHALL')", "0"], "script"),
        (&["EVAL", "return redis.call('SET', 'other', 1)", "0"], "script"),
    ] {
        let said = hardened.says(Some("portcullis"), words);
        let refusals = ["NOPERM", "can't run", "can't access", "No permissions", "DEBUG command not allowed"];
        assert!(refusals.iter().any(|refusal| said.contains(refusal)), "{what}: {said}");
    }
    for words in [&["PING"][..], &["GET", "portcullis:{00}:sentinel"], &["FLUSHALL"]] {
        let said = hardened.says(None, words);
        assert!(said.contains("NOAUTH"), "nobody: {words:?}: {said}");
    }
    let said = hardened.says(Some("admin"), &["FLUSHALL"]);
    assert!(said.contains("NOPERM"), "not even the admin by accident: {said}");
    assert_eq!(mesh.get(&token).await.status, 200, "nothing of this did any harm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_certificate_or_password_is_refused_and_said() {
    let directory = Directory::new("redis-tls");
    let hardened = Hardened::start(&directory).await;
    let stranger = Authority::new(directory.path(), "stranger");
    let text = |path: &Path| path.display().to_string();
    let (strange, strange_key) = stranger.sign(directory.path(), "strange-client");
    let wrong_password = directory.write("wrong-password", "not it");

    // A server whose certificate another authority signed.
    let wrong_ca = hardened.service_with("--redis-ca-file", &text(&stranger.certificate));
    let place = Directory::new("redis-tls-wrong-ca");
    let mut service = Service::start(&place, wrong_ca).await;
    is_not_ready(&service, "store_refused").await;
    let log = service.process().log();
    assert!(log.contains("store_refused") && log.contains("invalid peer certificate"), "{log}");
    drop(service);

    // Our own certificate from another authority.
    let mut wrong_client = hardened.service_with("--redis-cert-file", &text(&strange));
    let at = wrong_client.arguments.iter().position(|argument| argument == "--redis-key-file").unwrap();
    wrong_client.arguments[at + 1] = text(&strange_key);
    let place = Directory::new("redis-tls-wrong-client");
    let mut service = Service::start(&place, wrong_client).await;
    is_not_ready(&service, "store_refused").await;
    assert!(service.process().log().contains("store_refused"), "{}", service.process().log());
    drop(service);

    // Without TLS, a server that wants it.
    let mut plain = ServiceOptions::new(hardened.redis.url());
    plain.arguments = hardened.arguments[..4].to_vec();
    let place = Directory::new("redis-tls-plain");
    let service = Service::start(&place, plain).await;
    assert_eq!(ready(&service).await.0, 503);
    drop(service);

    // A wrong password, until the file is replaced.
    let wrong = hardened.service_with("--redis-password-file", &text(&wrong_password));
    let place = Directory::new("redis-tls-wrong-password");
    let mut service = Service::start(&place, wrong).await;
    is_not_ready(&service, "store_failed").await;
    let log = service.process().log();
    assert!(log.contains("WRONGPASS") && !log.contains("not it"), "{log}");
    directory.write("wrong-password", PASSWORDS[0].1);
    assert!(wait_until(RECOVERY, async || ready(&service).await.0 == 200).await, "{}", service.process().log());

    // The password rotates: Redis takes both for a while, then the old one is gone and with it every connection of it.
    let rotate =
        |words: &[&str]| hardened.says(Some("admin"), &[&["ACL", "SETUSER", "portcullis"][..], words].concat());
    assert!(rotate(&[">the-next-password"]).contains("OK"));
    directory.write("wrong-password", "the-next-password");
    assert!(rotate(&[&format!("<{}", PASSWORDS[0].1)]).contains("OK"));
    let killed = hardened.says(Some("admin"), &["CLIENT", "KILL", "USER", "portcullis"]);
    assert!(killed.trim() != "0", "{killed}");
    assert!(wait_until(RECOVERY, async || ready(&service).await.0 == 200).await, "{}", service.process().log());
}
