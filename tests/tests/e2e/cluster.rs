//! A Redis Cluster, and Sentinels, that lose a primary while requests come: no ended session passes, what was
//! acknowledged stays in force, and all of it recovers by itself.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::mesh::{FRESHNESS, ISSUER, claims, unix_now};
use harness::{
    Cluster, Connection, Directory, Mesh, MeshOptions, PATIENCE, Redis, Request, Sentinels, Service, ServiceOptions,
    exchange, wait_until,
};
use mint::random_id;
use serde_json::{Value, json};
use wire::check::{CONTENT_TYPE, Needs, PATH, Question, StoreError};
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret};

/// What a revocation may take beyond the freshness, from its acknowledgement.
const GRACE: Duration = Duration::from_millis(500);
/// How soon all must be well again: the silence after which a primary is replaced, the election, and a busy machine.
const RECOVERY: Duration = Duration::from_secs(20);
const CODES: [&str; 3] = ["REDIS_CONN_REFUSED", "SESSION_STORE_LATENCY", "STORE_UNAVAILABLE"];

/// A token of a session of its own.
struct Session {
    id: String,
    token: String,
    /// When its revocation was acknowledged.
    ended: Mutex<Option<Instant>>,
}

impl Session {
    fn of(mesh: &Mesh) -> Self {
        let mut claims = claims();
        let id = random_id();
        claims["sid"] = json!(id);
        Self { id, token: mesh.keys.first.mint(&claims), ended: Mutex::default() }
    }

    fn key(&self) -> RevocationKey {
        derived().revocation_key(Kind::Session, ISSUER, self.id.as_bytes())
    }

    /// Where its revocation lies, once there is one.
    fn entry(&self) -> String {
        let key = self.key();
        format!("portcullis:{{{:02x}}}:r:{key}", key.0[0])
    }

    /// What the service says of it alone. A filter asks of its user and more with it, which lie on other servers.
    async fn check(&self, mesh: &Mesh) -> Result<Answer, StoreError> {
        answers(mesh, &[self.key()]).await.map(|answers| answers[0])
    }
}

/// What the service says of these, in one question.
async fn answers(mesh: &Mesh, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
    let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() };
    let question = Question::new(&derived(), nonce(), needs, keys).unwrap();
    let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(question.bytes());
    let answer = exchange(mesh.service.as_ref().unwrap().address(), &request).await.unwrap();
    question.read_reply(&derived(), answer.status, &answer.body).expect("an authentic reply").map(|reply| reply.answers)
}

fn derived() -> DerivedKeys {
    Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive()
}

/// Never the same twice.
fn nonce() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::SeqCst)).to_be_bytes()
}

async fn mesh_on(directory: Directory, urls: String, arguments: &[&str]) -> Mesh {
    let mut service = ServiceOptions::new(urls);
    service.arguments = arguments.iter().map(ToString::to_string).collect();
    let options = MeshOptions { service: Some(service), ..MeshOptions::default() };
    Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"))
}

async fn cluster(name: &str) -> (Cluster, Mesh) {
    let directory = Directory::new(name);
    let cluster = Cluster::start(directory.path(), 3).await;
    // A shard without its replica confirms nothing, however long it is waited for.
    let arguments = ["--redis-mode", "cluster", "--min-replicas", "1", "--confirm-timeout", "300ms"];
    let mesh = mesh_on(directory, cluster.urls(), &arguments).await;
    (cluster, mesh)
}

/// The answer to one attempt at ending `session`.
async fn try_to_end(mesh: &Mesh, session: &Session) -> (u16, Value) {
    let service = mesh.service.as_ref().unwrap();
    let body = json!({ "kind": "session", "issuer": ISSUER, "id": session.id }).to_string();
    let request = Request::new("POST", "/v1/revocations").bearer(&service.options().admin_token).body(body);
    let answer = exchange(service.admin_address(), &request).await.unwrap();
    if answer.status == 201 {
        session.ended.lock().unwrap().get_or_insert_with(Instant::now);
    }
    (answer.status, answer.json())
}

/// Until it is written at least: a shard that lost its only replica cannot confirm anything. Then it is not known from
/// when it must hold, but it must in the end.
async fn write_end(mesh: &Mesh, session: &Session) {
    let mut last = Value::Null;
    let written = wait_until(RECOVERY, async || {
        let (status, answer) = try_to_end(mesh, session).await;
        last = answer;
        status == 201 || last["written"] == "yes"
    });
    assert!(written.await, "never written: {last}");
}

/// Until it is acknowledged, as an operator would.
async fn end(mesh: &Mesh, session: &Session) {
    let mut last = Value::Null;
    let ended = wait_until(RECOVERY, async || {
        let (status, answer) = try_to_end(mesh, session).await;
        assert!(status == 201 || status == 503, "{status} {answer}");
        last = answer;
        status == 201
    });
    assert!(ended.await, "never acknowledged: {last}");
}

#[derive(Debug, Clone)]
struct Sent {
    session: usize,
    at: Instant,
    status: u16,
    code: String,
}

/// Requests of all sessions, over and over, from a few clients, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Vec<Sent>>>,
    sessions: Arc<Vec<Session>>,
}

impl Load {
    async fn start(mesh: &Mesh, sessions: &Arc<Vec<Session>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for client in 0..4 {
            let mut connection = Connection::open(mesh.envoy.address()).await.unwrap();
            let (stop, sessions) = (Arc::clone(&stop), Arc::clone(sessions));
            clients.push(tokio::spawn(async move {
                let mut all = Vec::new();
                let mut next = client * 7;
                while !stop.load(Ordering::SeqCst) {
                    let session = next % sessions.len();
                    next += 1;
                    let at = Instant::now();
                    let request = Request::get("/api").bearer(&sessions[session].token);
                    let response = connection.send(&request).await.expect("Envoy answers");
                    let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
                    all.push(Sent { session, at, status: response.status, code });
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                all
            }));
        }
        Self { stop, clients, sessions: Arc::clone(sessions) }
    }

    /// Stops, and judges every answer: none but 200, 403 and 503, and no 200 for who was ended before. Returns the codes
    /// of the refusals that blame the store.
    async fn judge(self, what: &str) -> BTreeSet<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for client in self.clients {
            all.extend(client.await.unwrap());
        }
        let mut codes = BTreeSet::new();
        for sent in &all {
            let ended = *self.sessions[sent.session].ended.lock().unwrap();
            match (sent.status, sent.code.as_str()) {
                (200, "") => {
                    let late = ended.filter(|ended| sent.at > *ended + FRESHNESS + GRACE);
                    assert!(late.is_none(), "{what}: session {} passed after its end", sent.session);
                }
                (403, "SESSION_REVOKED") => {}
                (503, code) if CODES.contains(&code) => {
                    codes.insert(code.to_owned());
                }
                (status, code) => panic!("{what}: {status} {code}"),
            }
        }
        let count = |status| all.iter().filter(|sent| sent.status == status).count();
        let (passed, ended, unsure) = (count(200), count(403), count(503));
        println!("{what}: {passed} passed, {ended} were ended, {unsure} could not be told ({codes:?})");
        assert!(passed > 100 && ended > 100, "{what}: the load was too small to show anything");
        codes
    }
}

async fn all_are(mesh: &Mesh, sessions: &[Session], status: u16, what: &str) {
    let start = Instant::now();
    for (at, session) in sessions.iter().enumerate() {
        let mut last = (0, String::new());
        let seen = wait_until(RECOVERY, async || {
            let response = mesh.get(&session.token).await;
            last = (response.status, response.text());
            last.0 == status
        });
        assert!(seen.await, "{what}: session {at} is never {status}: {last:?}");
    }
    println!("{what}: all {} are {status} after {} ms", sessions.len(), start.elapsed().as_millis());
}

/// Ends a third of the sessions before the primary is lost, a third while it is, and keeps the last.
async fn loses_a_primary(
    what: &str,
    mesh: &Mesh,
    lose: impl AsyncFnOnce(&Session),
    after: impl AsyncFnOnce(),
    code: &str,
) {
    let sessions: Arc<Vec<_>> = Arc::new((0..36).map(|_| Session::of(mesh)).collect());
    all_are(mesh, &sessions, 200, &format!("{what}, at first")).await;
    let load = Load::start(mesh, &sessions).await;
    for session in &sessions[..12] {
        end(mesh, session).await;
    }
    lose(&sessions[0]).await;
    for session in &sessions[12..24] {
        write_end(mesh, session).await;
    }
    all_are(mesh, &sessions[24..], 200, &format!("{what}, recovered")).await;
    all_are(mesh, &sessions[..24], 403, &format!("{what}, recovered")).await;
    // Acknowledged or not, they were seen to be in force.
    for session in &sessions[..24] {
        session.ended.lock().unwrap().get_or_insert_with(Instant::now);
    }
    // What comes back has not heard of the last of these.
    after().await;
    for session in &sessions[..24] {
        end(mesh, session).await;
    }
    all_are(mesh, &sessions[..24], 403, &format!("{what}, the lost one is back")).await;
    all_are(mesh, &sessions[24..], 200, &format!("{what}, the lost one is back")).await;
    let codes = load.judge(what).await;
    assert!(codes.contains(code), "{what}: {codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_of_a_cluster_takes_no_revocation_with_it() {
    let (cluster, mesh) = cluster("cluster-killed").await;
    let cluster = tokio::sync::Mutex::new((cluster, 0));
    let kill = async |ended: &Session| {
        let (cluster, lost) = &mut *cluster.lock().await;
        *lost = cluster.owner(0, &ended.entry()).await;
        cluster.nodes[*lost].process().kill();
    };
    let back = async || {
        let (cluster, lost) = &mut *cluster.lock().await;
        cluster.nodes[*lost].restart().await;
    };
    loses_a_primary("a primary killed", &mesh, kill, back, "REDIS_CONN_REFUSED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_stopped_and_goes_on_answers_for_nobody() {
    let (cluster, mesh) = cluster("cluster-paused").await;
    let cluster = tokio::sync::Mutex::new((cluster, 0));
    let pause = async |ended: &Session| {
        let (cluster, lost) = &mut *cluster.lock().await;
        *lost = cluster.owner(0, &ended.entry()).await;
        cluster.nodes[*lost].process().pause();
    };
    let back = async || {
        let (cluster, lost) = &mut *cluster.lock().await;
        let (lost, next) = (*lost, cluster.successor(*lost).await);
        let mut session = Session::of(&mesh);
        while cluster.owner(next, &session.entry()).await != next {
            session = Session::of(&mesh);
        }
        let session = [session];
        write_end(&mesh, &session[0]).await;
        all_are(&mesh, &session, 403, "ended at the successor").await;
        // The old primary comes back as it was, hears of nobody, and answers reads all the same. For a moment any old
        // primary is so, before it has heard; this one is for as long as we look.
        let others: Vec<_> = (0..cluster.nodes.len()).filter(|at| *at != lost).collect();
        for at in &others {
            cluster.nodes[*at].process().pause();
        }
        cluster.nodes[lost].process().kill();
        cluster.nodes[lost].restart_with(&["--cluster-allow-reads-when-down", "yes"]).await;
        let entry = session[0].entry();
        let (mut lies, mut refused) = (0, 0);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if cluster.ask(lost, &["GET", &entry]).await == "$-1\r\n" {
                lies += 1;
            }
            let answer = session[0].check(&mesh).await;
            assert_ne!(answer, Ok(Answer::Live), "the service believes it");
            refused += usize::from(answer.is_err());
        }
        println!("the old primary said {lies} times that it knows of no end; {refused} checks were refused");
        assert!(lies > 0 && refused > 0, "{lies} lies, {refused} refused");
        for at in others {
            cluster.nodes[at].process().resume();
        }
        all_are(&mesh, &session, 403, "all go on").await;
    };
    loses_a_primary("a primary paused", &mesh, pause, back, "SESSION_STORE_LATENCY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_are_followed_when_the_primary_is_silent() {
    let directory = Directory::new("sentinel-paused");
    let all = Sentinels::start(directory.path()).await;
    let arguments = [
        &["--redis-mode", "sentinel", "--sentinel-master", "main"][..],
        &["--min-replicas", "1", "--confirm-timeout", "300ms"],
    ]
    .concat();
    // One is enough to find the others.
    let one = all.urls().split(',').next().unwrap().to_owned();
    let mesh = mesh_on(directory, one, &arguments).await;
    let sessions: Arc<Vec<_>> = Arc::new((0..8).map(|_| Session::of(&mesh)).collect());
    all_are(&mesh, &sessions, 200, "sentinel, at first").await;
    let load = Load::start(&mesh, &sessions).await;
    for session in &sessions[..4] {
        end(&mesh, session).await;
    }
    let all = tokio::sync::Mutex::new(all);
    all.lock().await.servers[0].process().pause();
    all_are(&mesh, &sessions[4..], 200, "sentinel, after the primary was paused").await;
    all_are(&mesh, &sessions[..4], 403, "sentinel, after the primary was paused").await;
    // The only replica is the primary now, so nothing can be confirmed; what is written is in force all the same.
    let (status, answer) = try_to_end(&mesh, &sessions[4]).await;
    assert_eq!((status, answer["written"].as_str()), (503, Some("yes")), "{answer}");
    all_are(&mesh, &sessions[4..5], 403, "ended without a replica").await;
    let ended = Instant::now();
    sessions[4].ended.lock().unwrap().get_or_insert(ended);
    // The old primary goes on, and has not heard of that.
    all.lock().await.servers[0].process().resume();
    write_end(&mesh, &sessions[5]).await;
    let until = Instant::now() + FRESHNESS * 2;
    while Instant::now() < until {
        all_are(&mesh, &sessions[..5], 403, "sentinel, the old primary goes on").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    all_are(&mesh, &sessions[5..6], 403, "sentinel, the old primary goes on").await;
    all_are(&mesh, &sessions[6..], 200, "sentinel, the old primary goes on").await;
    let codes = load.judge("sentinel").await;
    assert!(codes.contains("SESSION_STORE_LATENCY"), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_on_its_way_to_another_node_is_answered_and_a_lost_one_is_noticed() {
    let (cluster, mesh) = cluster("cluster-moves").await;
    let (ended, live, later) = (Session::of(&mesh), Session::of(&mesh), Session::of(&mesh));
    end(&mesh, &ended).await;
    let sessions = [ended];
    all_are(&mesh, &sessions, 403, "before").await;
    let [ended] = sessions;
    let others: Vec<_> = (0..6).map(|_| Session::of(&mesh)).collect();
    for other in others.iter().step_by(2) {
        end(&mesh, other).await;
    }
    // Of several servers, buckets and answers, one of them twice, and two of the same bucket that nobody ended.
    let near = |last: u8| {
        let mut key = ended.key();
        key.0[15] ^= last;
        key
    };
    let keys = [
        (near(1), Answer::Live),
        (others[0].key(), Answer::Dead),
        (ended.key(), Answer::Dead),
        (others[1].key(), Answer::Live),
        (others[2].key(), Answer::Dead),
        (near(2), Answer::Live),
        (others[3].key(), Answer::Live),
        (ended.key(), Answer::Dead),
        (others[4].key(), Answer::Dead),
        (others[5].key(), Answer::Live),
    ];
    let (keys, each): (Vec<_>, Vec<_>) = keys.into_iter().unzip();

    // The bucket of the ended one goes, name by name, to another primary.
    let name = ended.entry();
    let (bucket, _) = name.rsplit_once(":r:").unwrap();
    let sentinel = format!("{bucket}:sentinel");
    let from = cluster.owner(0, &name).await;
    let to = (from + 1) % 3;
    let slot = cluster.ask(0, &["CLUSTER", "KEYSLOT", &name]).await.trim().trim_start_matches(':').to_owned();
    let (from_id, to_id) = (cluster.id(from).await, cluster.id(to).await);
    cluster.tell(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
    cluster.tell(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
    let check = async |what: &str| {
        // No verdict is fresh any more.
        tokio::time::sleep(FRESHNESS + Duration::from_millis(50)).await;
        for (session, status) in [(&ended, 403), (&live, 200)] {
            let response = mesh.get(&session.token).await;
            assert_eq!(response.status, status, "{what}: {}", response.text());
        }
        assert_eq!(answers(&mesh, &keys).await.as_ref(), Ok(&each), "{what}");
    };
    check("nothing has gone").await;
    let port = cluster.nodes[to].address().port().to_string();
    cluster.tell(from, &["MIGRATE", "127.0.0.1", &port, &name, "0", "5000"]).await;
    check("the entry has gone").await;
    cluster.tell(from, &["MIGRATE", "127.0.0.1", &port, &sentinel, "0", "5000"]).await;
    check("the sentinel has gone").await;
    for at in [to, from, 3 - from - to] {
        cluster.tell(at, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }
    check("it has arrived").await;
    end(&mesh, &later).await;
    all_are(&mesh, &[later], 403, "ended afterwards").await;

    // A shard that lost a part says so, and nothing is answered until somebody decides.
    let id = cluster.ask(to, &["GET", &sentinel]).await.lines().nth(1).unwrap().to_owned();
    cluster.tell(to, &["DEL", &sentinel]).await;
    all_are(&mesh, &[live], 503, "a sentinel was lost").await;
    let urls = cluster.urls();
    let tool = |more: &[&str]| {
        let mut all = vec!["store", "create", "--redis", &urls, "--redis-mode", "cluster"];
        all.extend(more);
        Service::portcullis(&all)
    };
    let (_, said, code) = tool(&[]);
    assert!(code == 1 && said.contains("lost 1 of its sentinels"), "{code} {said}");
    assert_eq!(cluster.ask(to, &["EXISTS", &sentinel]).await, ":0\r\n");
    let (_, said, code) = tool(&["--dangerously-complete", "00112233445566778899aabbccddeeff"]);
    assert!(code == 1 && said.contains("lost 1 of its sentinels"), "{code} {said}");
    let (said, errors, code) = tool(&["--dangerously-complete", &id]);
    assert_eq!((said.trim(), code), (id.as_str(), 0), "{errors}");
    all_are(&mesh, &[ended], 403, "completed").await;
    let (_, said, code) = tool(&[]);
    assert!(code == 1 && said.contains(&id), "there is a store already: {said}");

    // A Cluster that replaces primaries sooner than our trust in them ends is not answered from.
    let patience = async |millis: &str| {
        for at in 0..3 {
            cluster.tell(at, &["CONFIG", "SET", "cluster-node-timeout", millis]).await;
        }
    };
    let sessions = [Session::of(&mesh)];
    patience("1999").await;
    all_are(&mesh, &sessions, 503, "hasty").await;
    patience("2000").await;
    all_are(&mesh, &sessions, 200, "patient again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_acknowledged_when_a_replica_has_it_and_not_before() {
    let directory = Directory::new("replica");
    let primary = Redis::start_in(&directory.path().join("primary"), &[]).await;
    let follows = format!("127.0.0.1 {}", primary.address().port());
    let mut replica = Redis::start_in(&directory.path().join("replica"), &["--replicaof", &follows]).await;
    let mesh = mesh_on(directory, primary.url(), &["--min-replicas", "1", "--confirm-timeout", "500ms"]).await;
    let (first, second) = (Session::of(&mesh), Session::of(&mesh));
    let mut answer = Value::Null;
    let acknowledged = wait_until(RECOVERY, async || {
        answer = try_to_end(&mesh, &first).await.1;
        answer["replicas"] == 1
    });
    assert!(acknowledged.await, "{answer}");
    assert_eq!(answer["on_disk"], true, "{answer}");
    let there = replica.command(&["GET", &first.entry()]).await.unwrap();
    assert!(there.contains("D;"), "{there}");
    replica.process().pause();
    let (status, answer) = try_to_end(&mesh, &second).await;
    assert_eq!(
        (status, answer["code"].as_str(), answer["written"].as_str()),
        (503, Some("not_confirmed"), Some("yes"))
    );
    assert!(answer["detail"].as_str().unwrap().contains("0 of 1 replicas"), "{answer}");
    all_are(&mesh, &[first, second], 403, "confirmed or not").await;
}
