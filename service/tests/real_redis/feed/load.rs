//! Measurements, not tests. To run them: `cargo test --profile native -p portcullis-cli -p benches -p service --test
//! real_redis -- --ignored --nocapture --test-threads 1 feed::load`.
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::feed::piece_of;

use super::*;

fn numbered(number: u64) -> RevocationKey {
    RevocationKey(u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

/// Writes revocations into Redis directly, as a store of an older version has them.
fn fill(redis: &Redis, count: u64) {
    redis.ask(&["CONFIG", "SET", "appendfsync", "no"]);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    for begin in (0..count).step_by(10_000) {
        let mut text = String::new();
        for number in begin..begin + 10_000 {
            let name = entry(numbered(number));
            let length = name.len();
            text.push_str(&format!(
                "*5\r\n$3\r\nSET\r\n${length}\r\n{name}\r\n$2\r\nD;\r\n$2\r\nEX\r\n$5\r\n80000\r\n"
            ));
        }
        stream.write_all(text.as_bytes()).unwrap();
        stream.read_exact(&mut vec![0; "+OK\r\n".len() * 10_000]).unwrap();
    }
    redis.ask(&["CONFIG", "SET", "appendfsync", "always"]);
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned()
}

#[test]
#[ignore = "a measurement"]
fn a_million_revocations() {
    const COUNT: u64 = 1_000_000;
    let (redis, service) = started();
    fill(&redis, COUNT);
    println!("before: {}", memory());
    let mut follower = Follower::new(1);
    let began = Instant::now();
    while follower.poll(&service, Duration::from_secs(5)) == Err(Trouble::Incomplete) {}
    println!("the service has read them, and made a snapshot: {:?}", began.elapsed());
    follower.catch_up(&service);
    println!("the first follower has them: {:?}", began.elapsed());
    println!("after: {}", memory());
    let began = Instant::now();
    let mut other = Follower::new(1);
    other.catch_up(&service);
    println!("another follower has them after {:?}", began.elapsed());
    let bytes: usize = other.pieces.iter().map(Membership::len_bytes).sum();
    println!("its picture: {bytes} bytes in {} pieces", other.pieces.len());
    assert!((0..COUNT).all(|number| other.may_contain(&numbered(number))));
    // As a filter does: in the piece that the key belongs to.
    let pieces = u16::try_from(other.pieces.len()).unwrap();
    let in_piece = |key: RevocationKey| other.pieces[usize::from(piece_of(&key, pieces))].may_contain(&key);
    let others = (COUNT..2 * COUNT).filter(|number| in_piece(numbered(*number))).count();
    println!("of {COUNT} other keys, {others} may be contained");
    let (_, metrics) = service.admin_text("GET", "/metrics", None, "");
    for line in metrics.lines().filter(|line| line.contains("feed_") && !line.starts_with('#')) {
        println!("{line}");
    }
    let began = Instant::now();
    service.revoke(Kind::User, "alice");
    other.poll(&service, HELD).unwrap();
    println!("a revocation, made and told: {:?}", began.elapsed());
}

/// CPU time of the threads of this process whose names fit.
fn cpu(fits: impl Fn(&str) -> bool) -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (head, rest) = stat.rsplit_once(')').unwrap();
        if fits(head.split_once('(').unwrap().1) {
            ticks += rest.split(' ').skip(12).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 10)
}

fn commands(redis: &Redis) -> u64 {
    let stats = redis.ask(&["INFO", "stats"]);
    stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap().parse().unwrap()
}

/// A poll over a connection that is kept.
async fn poll(stream: &mut TcpStream, follower: &mut Follower, wait: Duration) -> Vec<RevocationKey> {
    let poll = Poll::new(&follower.derived, nonce(), needs(), wait, &follower.cursor);
    let head = format!("POST /v1/feed HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", poll.bytes().len());
    stream.write_all(&[head.as_bytes(), poll.bytes()].concat()).await.unwrap();
    let mut reply = Vec::new();
    let (head, length) = loop {
        assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "closed");
        let Some(end) = reply.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        break (end + 4, length.parse::<usize>().unwrap());
    };
    let status = String::from_utf8_lossy(&reply[9..12]).parse().unwrap();
    while reply.len() < head + length {
        assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "closed");
    }
    match poll.read_reply(&follower.derived, status, &reply[head..]).unwrap() {
        Ok(reply) => {
            follower.cursor = reply.cursor;
            match reply.news {
                News::Keys { keys, .. } => keys,
                News::Piece { .. } => Vec::new(),
            }
        }
        Err(trouble) => panic!("{trouble:?}"),
    }
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_followers() {
    const FOLLOWERS: usize = 1000;
    const WAIT: Duration = Duration::from_millis(500);
    let (redis, service) = started();
    Follower::new(1).catch_up(&service);
    let mut clients = tokio::runtime::Builder::new_multi_thread();
    let clients = clients.worker_threads(2).thread_name("client").enable_all().build().unwrap();
    let (told, ends) =
        (Arc::new(std::sync::Mutex::new(Vec::<(RevocationKey, Instant)>::new())), Arc::new(AtomicBool::new(false)));
    let polls = Arc::new(AtomicU64::new(0));
    println!("before: {}", memory());
    for number in 0..FOLLOWERS {
        let (address, told, ends, polls) = (service.at.listen, told.clone(), ends.clone(), polls.clone());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut follower = Follower::new(1);
            while !ends.load(Ordering::Relaxed) {
                let keys = poll(&mut stream, &mut follower, WAIT).await;
                let now = Instant::now();
                polls.fetch_add(1, Ordering::Relaxed);
                // All are told; the times of a part of them are kept.
                if number % 10 == 0 {
                    told.lock().unwrap().extend(keys.into_iter().map(|key| (key, now)));
                }
            }
        });
        if number % 100 == 99 {
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    let is_service = |name: &str| !name.starts_with("client");
    let measure = |name: &str, work: &mut dyn FnMut()| {
        let (began, used, asked, polled) =
            (Instant::now(), cpu(is_service), commands(&redis), polls.load(Ordering::Relaxed));
        work();
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{name}: service {:.2} cores, {:.0} Redis commands/s, {:.0} polls/s; {}",
            (cpu(is_service) - used).as_secs_f64() / seconds,
            (commands(&redis) - asked) as f64 / seconds,
            (polls.load(Ordering::Relaxed) - polled) as f64 / seconds,
            memory(),
        );
    };
    measure("idle", &mut || std::thread::sleep(Duration::from_secs(5)));
    let late = |acknowledged: &[(RevocationKey, Instant)]| {
        let told = std::mem::take(&mut *told.lock().unwrap());
        let mut after: Vec<_> = acknowledged
            .iter()
            .flat_map(|(key, at)| {
                told.iter().filter(move |(of, _)| of == key).map(move |(_, now)| now.saturating_duration_since(*at))
            })
            .collect();
        after.sort_unstable();
        let at = |part: usize| after.get(after.len() * part / 1000).copied();
        println!(
            "from acknowledged to told, p50 {:?}, p99 {:?}, most {:?}, of {}",
            at(500),
            at(990),
            after.last(),
            after.len()
        );
    };
    let mut acknowledged = Vec::new();
    measure("100 revocations a second", &mut || {
        let began = Instant::now();
        for number in 0..500_u32 {
            std::thread::sleep((Duration::from_millis(10) * number).saturating_sub(began.elapsed()));
            let id = format!("one-{number}");
            service.revoke(Kind::User, &id);
            acknowledged.push((key(Kind::User, &id), Instant::now()));
        }
    });
    std::thread::sleep(Duration::from_secs(2));
    late(&acknowledged);
    let mut acknowledged = Vec::new();
    measure("a burst of 10,000", &mut || {
        for batch in 0..10 {
            let lines: Vec<_> =
                (0..1000).map(|number| asking(Kind::User, &format!("burst-{batch}-{number}"))).collect();
            let (status, text) = service.admin_text("POST", "/v1/revocations/bulk", Some(ADMIN), &lines.join("\n"));
            assert_eq!(status, 200, "{text}");
            let now = Instant::now();
            acknowledged.extend((0..20).map(|n| (key(Kind::User, &format!("burst-{batch}-{}", n * 50)), now)));
        }
    });
    std::thread::sleep(Duration::from_secs(2));
    late(&acknowledged);
    ends.store(true, Ordering::Relaxed);
    clients.shutdown_timeout(Duration::from_secs(2));
}
