//! A process that writes is killed again and again, at any moment: while it opens the file, commits, or removes. What it
//! acknowledged before is there. `KILL_ROUNDS=200` for more rounds than in a quick run.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store::{Ends, Revocation, RevocationStore as _, Unobserved};
use store_embedded::{Config, EmbeddedStore, create_store};
use wire::{Answer, RevocationKey};

const DEFAULT_ROUNDS: u64 = 10;
const TASKS: u64 = 8;
/// The latest moment of a kill: from the start of the process in every other round, since opening must survive it too, and in
/// the others after so many lines of its output.
const LATEST_MILLIS: u64 = 150;
const LATEST_LINE: u64 = 60;
/// A busy machine may need so long for these lines.
const LONGEST: Duration = Duration::from_secs(20);
const FILE: &str = "PORTCULLIS_KILL_FILE";
const ROUND: &str = "PORTCULLIS_KILL_ROUND";

fn open(path: &Path) -> EmbeddedStore {
    let config = Config {
        path: path.to_owned(),
        create: false,
        store_id: None,
        max_bytes: 256 << 20,
        future_iat_tolerance_seconds: 1,
    };
    EmbeddedStore::open(&config, Arc::new(Unobserved)).expect("the file is whole")
}

fn key(number: u64) -> RevocationKey {
    let mut key = [0x2d; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    RevocationKey(key)
}

/// The process that is killed. It writes the number of each revocation when it is acknowledged, and of each fourth, which it
/// lifts at once, when it begins and when that is acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other test"]
async fn writes_until_it_is_killed() {
    let (Ok(path), Ok(round)) = (std::env::var(FILE), std::env::var(ROUND)) else { return };
    let first = round.parse::<u64>().unwrap() * 1_000_000;
    let store = Arc::new(open(Path::new(&path)));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in (first + task..).step_by(usize::try_from(TASKS).unwrap()) {
                let revocation = Revocation {
                    key: key(number),
                    ends: Ends::ForGood,
                    sealed: vec![9; 200],
                    ttl: Some(Duration::from_secs(3600)),
                };
                store.revoke(vec![revocation]).await.unwrap();
                say("revoked", number);
                if number % 4 == 0 {
                    say("lifting", number);
                    store.lift(vec![key(number)]).await.unwrap();
                    say("lifted", number);
                }
            }
        });
    }
    tasks.join_all().await;
}

/// One system call, so that a line is whole.
fn say(what: &str, number: u64) {
    let _ = std::io::stdout().lock().write_all(format!("\n#{what} {number}\n").as_bytes());
    let _ = std::io::stdout().flush();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = std::env::var("KILL_ROUNDS").map_or(DEFAULT_ROUNDS, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let id = create_store(&path).unwrap();
    // Not reproducible, since the moment of a kill is not either.
    let mut random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut expected, mut without) = (BTreeMap::new(), 0);
    for round in 0..rounds {
        let moment = match round % 2 {
            0 => Moment::Line(next() % LATEST_LINE),
            _ => Moment::Time(Duration::from_millis(next() % LATEST_MILLIS)),
        };
        let acknowledged = run_and_kill(&path, round, moment);
        without += u64::from(acknowledged.is_empty());
        expected.extend(acknowledged);
        let store = open(&path);
        assert_eq!(store.id(), id);
        for (number, answer) in &expected {
            let Some(answer) = answer else { continue };
            let found = store.check(&[key(*number)]).await.unwrap();
            assert_eq!(found, [*answer], "round {round}: {number}");
        }
    }
    println!("{rounds} kills, {} acknowledged writes, {without} rounds without one", expected.len());
    assert!(without < rounds, "nothing was acknowledged in any round");
}

enum Moment {
    Time(Duration),
    Line(u64),
}

/// What must be answered: `None` if the process was killed while it lifted.
fn run_and_kill(path: &PathBuf, round: u64, moment: Moment) -> BTreeMap<u64, Option<Answer>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let (say, said) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        lines
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.starts_with('#'))
            .for_each(|line| say.send(line).unwrap());
    });
    let mut read = Vec::new();
    match moment {
        Moment::Time(after) => std::thread::sleep(after),
        Moment::Line(count) => (0..=count).for_each(|_| read.extend(said.recv_timeout(LONGEST).ok())),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    let mut acknowledged = BTreeMap::new();
    for line in read.into_iter().chain(said.try_iter()) {
        // A line that was cut off by the kill is left out, since it ends the output.
        let Some((what, number)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else { continue };
        let Ok(number) = number.parse() else { continue };
        let answer = match what {
            "revoked" => Some(Answer::Dead),
            "lifted" => Some(Answer::Live),
            _ => None,
        };
        acknowledged.insert(number, answer);
    }
    acknowledged
}
