//! Primaries that are lost while requests come.
use super::*;

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

    /// Stops, and judges every answer: none but 200, 403 and 503, and no 200 for a session that was ended before. Returns
    /// the codes of the refusals that blame the store.
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
    // The server that comes back does not have the last of these.
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
    let _turn = harness::under_load().await;
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
    let _turn = harness::under_load().await;
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
        // The old primary comes back as it was, without contact to the others, and answers reads all the same. Any old
        // primary does so for a moment. This one does so during the whole check.
        let others: Vec<_> = (0..cluster.nodes.len()).filter(|at| *at != lost).collect();
        for at in &others {
            cluster.nodes[*at].process().pause();
        }
        cluster.nodes[lost].process().kill();
        cluster.nodes[lost].restart_with(&["--cluster-allow-reads-when-down", "yes"]).await;
        let entry = session[0].entry();
        let (mut lies, mut refused) = (0, 0);
        let until = Instant::now() + NODE_TIMEOUT;
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
    let _turn = harness::under_load().await;
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
