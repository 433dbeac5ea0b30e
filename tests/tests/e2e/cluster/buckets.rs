//! A bucket that moves to another node, and an acknowledgement that waits for a replica.
use super::*;

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
    // Keys of several servers, buckets and answers; one of them twice, and two live ones of the same bucket.
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

    // A shard that lost a part says so, and nothing is answered until an operator decides.
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
