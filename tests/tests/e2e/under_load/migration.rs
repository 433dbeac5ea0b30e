//! A store moves from one Redis to a Cluster as docs/migration.md has it, while sessions are ended and refreshed and checks
//! come: nothing that was acknowledged is lost, and nothing that was ended comes back.
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::mesh::unix_now;
use harness::{Cluster, Connection, Directory, Redis, Request, Service, ServiceOptions, exchange, wait_until};
use mint::random_id;
use serde_json::{Value, json};
use wire::check::{CONTENT_TYPE, Needs, PATH, Question};
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret};

const ISSUER: &str = "https://sessions.example";
const CLIENT_SECRET: &str = "a-client-secret-of-the-tests-long-enough";
/// Revocations that are there at the beginning, so that copying takes a moment.
const EARLIER: usize = 10_000;
const SESSIONS: usize = 24;
const SOON: Duration = Duration::from_secs(20);

fn derived() -> DerivedKeys {
    Secret::new(ServiceOptions::new(String::new()).secret.as_bytes()).unwrap().derive()
}

fn key(id: &str) -> RevocationKey {
    derived().revocation_key(Kind::Session, ISSUER, id.as_bytes())
}

/// A replica of the service, at the same addresses after each restart.
struct Replica {
    service: Service,
    _directory: Directory,
}

impl Replica {
    async fn start(name: &str, url: &str) -> Self {
        let directory = Directory::new(name);
        directory.write("client-secret", CLIENT_SECRET);
        let clients = json!({ "clients": [
            { "client_id": "app", "secret_files": ["client-secret"], "may": ["refresh"] },
        ] });
        let clients = directory.write("clients.json", clients.to_string());
        let mut options = ServiceOptions::new(url.to_owned());
        let clients = clients.display().to_string();
        for word in ["--session-issuer", ISSUER, "--session-audience", "api", "--clients-file", &clients] {
            options.arguments.push(word.to_owned());
        }
        options.arguments.extend(["--require-disk", "--admin-rate", "10000"].map(str::to_owned));
        let service = Service::start(&directory, options).await;
        Self { service, _directory: directory }
    }

    fn place(&self) -> Place {
        Place { listen: self.service.address(), admin: self.service.admin_address() }
    }

    /// With other stores, and nothing else changed.
    async fn restart(&mut self, redis: &str, stores: &[&str]) {
        self.service
            .restart_with(|options| {
                let is_of_stores = |word: &String| ["--redis", "--mirror"].iter().any(|part| word.starts_with(part));
                if let Some(first) = options.arguments.iter().position(is_of_stores) {
                    options.arguments.truncate(first);
                }
                options.redis_url = redis.to_owned();
                options.arguments.extend(stores.iter().map(ToString::to_string));
            })
            .await;
        let address = self.service.address();
        let ready = async || exchange(address, &Request::get("/readyz")).await.is_ok_and(|answer| answer.status == 200);
        assert!(wait_until(SOON, ready).await, "not ready:\n{}", self.service.process().log_tail());
    }
}

#[derive(Clone, Copy)]
struct Place {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    /// `None`: it is being restarted.
    async fn admin(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let mut request = Request::new(method, path).bearer(&ServiceOptions::new(String::new()).admin_token);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = exchange(self.admin, &request).await.ok()?;
        Some((answer.status, answer.json()))
    }

    async fn revoke(&self, id: &str) -> Option<u16> {
        let body = json!({ "kind": "session", "issuer": ISSUER, "id": id });
        self.admin("POST", "/v1/revocations", &body).await.map(|(status, _)| status)
    }

    /// `None`: it cannot tell.
    async fn check(&self, key: RevocationKey) -> Option<Answer> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let nonce = u128::from(NEXT.fetch_add(1, Ordering::SeqCst)).to_be_bytes();
        let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() };
        let question = Question::new(&derived(), nonce, needs, &[key]).unwrap();
        let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(question.bytes());
        let answer = exchange(self.listen, &request).await.ok()?;
        question.read_reply(&derived(), answer.status, &answer.body).ok()?.ok().map(|reply| reply.answers[0])
    }

    async fn refresh(&self, token: &str) -> Result<(u16, Value), Unanswered> {
        let form =
            format!("client_id=app&client_secret={CLIENT_SECRET}&grant_type=refresh_token&refresh_token={token}");
        let request = Request::new("POST", "/oauth2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let mut connection = Connection::open(self.listen).await.map_err(|_| Unanswered::NotSent)?;
        let answer = connection.send(&request).await.map_err(|_| Unanswered::Sent)?;
        if answer.status == 503 { Err(Unanswered::Sent) } else { Ok((answer.status, answer.json())) }
    }
}

/// Why a refresh has no answer: the service is being restarted, or cannot tell.
#[derive(Debug)]
enum Unanswered {
    NotSent,
    /// The refresh token may have been replaced.
    Sent,
}

/// Sids, and their newest refresh tokens. `None`: it was ended, or a reply with the next token was lost.
type Sessions = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// The load, from the first step to the last.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
    /// Ids whose end was acknowledged.
    ended: Arc<Mutex<Vec<String>>>,
    sessions: Sessions,
}

impl Load {
    async fn start(places: [Place; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(Mutex::new(Vec::<String>::new()));
        let mut sessions = Vec::new();
        for at in 0..SESSIONS {
            let body = json!({ "subject": format!("user-{}", at % 5), "client_id": "app", "refresh": true });
            let (status, made) = places[0].admin("POST", "/v1/sessions", &body).await.expect("it runs");
            assert_eq!(status, 201, "{made}");
            let text = |name: &str| made[name].as_str().unwrap().to_owned();
            sessions.push((text("sid"), Some(text("refresh_token"))));
        }
        let sessions = Arc::new(Mutex::new(sessions));
        let mut tasks = Vec::new();
        // Revokes at one replica, then at the other.
        for task in 0..2 {
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            tasks.push(tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    count += 1;
                    let id = random_id();
                    match places[(task + count as usize) % 2].revoke(&id).await {
                        Some(201) => ended.lock().unwrap().push(id),
                        Some(503) | None => tokio::time::sleep(Duration::from_millis(20)).await,
                        Some(status) => panic!("{status}"),
                    }
                }
                count
            }));
        }
        // Checks revoked sessions at both: none may be live.
        for place in places {
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            tasks.push(tokio::spawn(async move {
                let mut count: usize = 0;
                while !stop.load(Ordering::SeqCst) {
                    count += 1;
                    let id = {
                        let ended = ended.lock().unwrap();
                        let at = count.wrapping_mul(7919) % ended.len().max(1);
                        // The newest as often as the others.
                        if count.is_multiple_of(2) { ended.last().cloned() } else { ended.get(at).cloned() }
                    };
                    let Some(id) = id else {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    };
                    let answer = place.check(key(&id)).await;
                    assert!(!matches!(answer, Some(Answer::Live | Answer::Before(_))), "{answer:?} of what was ended");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                count as u64
            }));
        }
        // Refreshes sessions at one replica and then the other, and ends some.
        {
            let (stop, ended, sessions) = (Arc::clone(&stop), Arc::clone(&ended), Arc::clone(&sessions));
            tasks.push(tokio::spawn(async move {
                let mut count: usize = 0;
                while !stop.load(Ordering::SeqCst) {
                    count += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let (at, place) = (count % SESSIONS, places[(count / SESSIONS) % 2]);
                    let (sid, token) = sessions.lock().unwrap()[at].clone();
                    let Some(token) = token else { continue };
                    // Every other one, one by one.
                    let next = if at % 2 == 0 && count.is_multiple_of(97) {
                        match place.admin("DELETE", &format!("/v1/sessions/{sid}"), &Value::Null).await {
                            Some((200..=299, _)) => {
                                ended.lock().unwrap().push(sid.clone());
                                None
                            }
                            Some((503, _)) | None => None,
                            Some(other) => panic!("{other:?}"),
                        }
                    } else {
                        match place.refresh(&token).await {
                            Ok((200, next)) => Some(next["refresh_token"].as_str().unwrap().to_owned()),
                            Err(Unanswered::NotSent) => Some(token),
                            // The answer may have been lost with the connection.
                            Err(Unanswered::Sent) => None,
                            Ok((status, refused)) => panic!("{sid} was not refreshed: {status} {refused}"),
                        }
                    };
                    sessions.lock().unwrap()[at].1 = next;
                }
                count as u64
            }));
        }
        Self { stop, tasks, ended, sessions }
    }

    fn acknowledged(&self) -> usize {
        self.ended.lock().unwrap().len()
    }

    /// Until 20 more are acknowledged, so that an earlier change is in use.
    async fn goes_on(&self, what: &str) {
        let before = self.acknowledged();
        let more = wait_until(SOON, async || self.acknowledged() > before + 20).await;
        assert!(more, "{what}: nothing is acknowledged any more");
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "{what}: a part of the load has ended");
        println!("{what}: {} acknowledged so far", self.acknowledged());
    }
}

/// Runs it to its end, which must be a good one.
fn run(arguments: &[&str]) -> String {
    let (out, err, code) = end_of(migrate(arguments).spawn().expect("the tool runs"));
    assert!(code == 0, "{code} {out}\n{err}");
    out
}

fn migrate(arguments: &[&str]) -> Command {
    let mut tool = Command::new(Service::binary());
    tool.arg("migrate").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    tool
}

fn end_of(child: Child) -> (String, String, i32) {
    let output = child.wait_with_output().expect("the tool runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
}

async fn names_in(cluster: &Cluster) -> usize {
    let mut all = 0;
    for node in 0..3 {
        let size = cluster.ask(node, &["DBSIZE"]).await;
        all += size.trim().trim_start_matches(':').parse::<usize>().unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_to_a_cluster_under_load_and_no_revocation_is_lost() {
    let old_directory = Directory::new("migration-old");
    let mut old = Redis::start(&old_directory).await;
    let new_directory = Directory::new("migration-new");
    let new = Cluster::start(new_directory.path(), 3).await;
    let (old_url, new_urls) = (old.url(), new.urls());
    let mut replicas = [Replica::start("migration-a", &old_url).await, Replica::start("migration-b", &old_url).await];
    let earlier: Vec<_> = (0..EARLIER).map(|at| key(&format!("earlier-{at}"))).collect();
    for some in earlier.chunks(1000) {
        let names: Vec<_> = some.iter().map(|key| format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])).collect();
        let write = "for at = 1, #ARGV do redis.call('SET', ARGV[at], 'D;', 'PX', 86400000) end";
        let mut words = vec!["EVAL", write, "0"];
        words.extend(names.iter().map(String::as_str));
        assert!(!old.command(&words).await.unwrap().starts_with('-'));
    }
    let load = Load::start([replicas[0].place(), replicas[1].place()]).await;
    load.goes_on("at first").await;

    // 1: the new store is prepared, and every replica writes to both.
    let to = ["--to", &new_urls, "--to-mode", "cluster", "--min-replicas", "1"];
    let id = run(&[&["--prepare"][..], &to].concat());
    let also_new = ["--mirror-redis", &new_urls, "--mirror-redis-mode", "cluster", "--mirror-redis-min-replicas", "1"];
    for replica in &mut replicas {
        replica.restart(&old_url, &also_new).await;
        load.goes_on("a replica writes to both").await;
    }

    // 2: copied, broken off, and gone on with.
    let before = names_in(&new).await;
    let both = [&["--from", &old_url, "--json"][..], &to].concat();
    let first = migrate(&both).spawn().unwrap();
    // More than its first page.
    let begun = wait_until(SOON, async || names_in(&new).await > before + EARLIER / 5).await;
    assert!(begun, "nothing is copied");
    let interrupted = Command::new("kill").args(["-INT", &first.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let (report, said, code) = end_of(first);
    assert_eq!((report.as_str(), code), ("", 3), "{said}");
    assert!(said.contains("broken off") && said.contains("copying"), "{said}");
    let there = names_in(&new).await - before;
    assert!(there < EARLIER, "it was over before it was broken off");
    load.goes_on("broken off").await;
    let report = run(&both);
    let report: Value = serde_json::from_str(&report).unwrap();
    println!("{report}");
    assert_eq!((&report["verified"], &report["complete"]), (&json!(true), &json!(true)), "{report}");
    assert_eq!(report["to"].as_str(), Some(id.trim()));
    let of =
        |kind: &str| report["contents"].as_array().unwrap().iter().find(|one| one["kind"] == kind).unwrap().clone();
    let revocations = of("revocations");
    assert!(revocations["found"].as_u64().unwrap() >= EARLIER as u64, "{report}");
    assert!(revocations["copied"].as_u64().unwrap() < EARLIER as u64 * 9 / 10, "it began again: {report}");
    assert!(of("sessions")["found"].as_u64().unwrap() > 0 && of("audit entries")["found"].as_u64().unwrap() > 0);

    // 3: reads switch, one replica after the other, and both stores are written to.
    let also_old = [
        "--redis-mode",
        "cluster",
        "--min-replicas",
        "1",
        "--mirror-redis",
        &old_url,
        "--mirror-redis-min-replicas",
        "0",
    ];
    for replica in &mut replicas {
        replica.restart(&new_urls, &also_old).await;
        load.goes_on("a replica answers from the new store").await;
    }
    let verify = [&both[..], &["--verify", "--to-store-id", id.trim()]].concat();
    run(&verify);

    // The way back is open: the old one has all of it. A source whose slots are on their way is not read.
    let old_id = report["from"].as_str().unwrap().to_owned();
    let back = ["--verify", "--json", "--from", &new_urls, "--from-mode", "cluster", "--to", &old_url];
    let back = [&back[..], &["--to-store-id", &old_id]].concat();
    let mut empty = 0;
    while new.ask(0, &["CLUSTER", "COUNTKEYSINSLOT", &empty.to_string()]).await != ":0\r\n" {
        empty += 1;
    }
    let (empty, elsewhere) = (empty.to_string(), new.id(1).await);
    new.tell(0, &["CLUSTER", "SETSLOT", &empty, "MIGRATING", &elsewhere]).await;
    let (_, said, code) = end_of(migrate(&back).spawn().unwrap());
    assert!(code == 3 && said.contains("slots moved"), "{code} {said}");
    new.tell(0, &["CLUSTER", "SETSLOT", &empty, "STABLE"]).await;
    run(&back);

    // 4: the old one goes.
    for replica in &mut replicas {
        replica.restart(&new_urls, &["--redis-mode", "cluster", "--min-replicas", "1"]).await;
    }
    old.process().kill();
    load.goes_on("the old store is gone").await;

    load.stop.store(true, Ordering::SeqCst);
    let mut counts = Vec::new();
    for task in load.tasks {
        counts.push(task.await.expect("no part of the load failed"));
    }
    println!("revoking, checking and refreshing: {counts:?}");
    let ended = load.ended.lock().unwrap().clone();
    let places = [replicas[0].place(), replicas[1].place()];
    for (at, id) in ended.iter().enumerate() {
        assert_eq!(places[at % 2].check(key(id)).await, Some(Answer::Dead), "{id} was acknowledged");
    }
    for key in earlier.iter().step_by(41) {
        assert_eq!(places[0].check(*key).await, Some(Answer::Dead));
    }
    assert_eq!(places[0].check(key("nobody")).await, Some(Answer::Live));
    // Sessions that were not ended go on, with their last token.
    let sessions = load.sessions.lock().unwrap().clone();
    let mut alive = 0;
    for (at, (sid, token)) in sessions.iter().enumerate() {
        let Some(token) = token else { continue };
        assert!(!ended.contains(sid));
        let (status, answer) = places[at % 2].refresh(token).await.expect("it runs");
        assert_eq!(status, 200, "{answer}");
        alive += 1;
    }
    println!("{} ends acknowledged and in force; {alive} of {SESSIONS} sessions refreshed to the end", ended.len());
    assert!(ended.len() > 150 && alive > 0, "the load was too small to show anything");
}
