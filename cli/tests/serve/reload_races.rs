//! SIGHUP at bad moments: many at once, under load, before the end, and with files that are half written.
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use serde_json::Value;

use super::reload::{Server, secret, secrets, write};
use super::*;

#[test]
fn a_file_that_is_cut_anywhere_in_a_line_changes_nothing() {
    let desk = Desk::new("");
    let (first, second) = (secret(&desk, "first-secret"), secret(&desk, "second-secret"));
    let one = secrets(&desk, "admin-token", &["first-secret"]);
    let mut server = Server::start(desk, &one);
    write(&server.desk, &secrets(&server.desk, "admin-token", &["second-secret"]));
    let whole = std::fs::read_to_string(server.desk.path("serve.toml")).unwrap();
    for line in whole.lines() {
        let end = whole.find(line).unwrap() + line.len() - 1;
        std::fs::write(server.desk.path("serve.toml"), &whole[..end]).unwrap();
        server.process.signal("-HUP");
        let said = server.reloaded();
        assert!(said.contains("nothing was changed") || line.ends_with("true"), "{}: {said}", &whole[..end]);
    }
    assert_eq!((server.is_dead(&first, "a"), server.is_dead(&second, "a")), (Some(false), None));
    // A secret that others may read since.
    server.desk.set_mode("first-secret", 0o644);
    let said = server.reload(&one);
    assert!(said.contains("nothing was changed") && said.contains("first-secret: chmod o-r"), "{said}");
    server.desk.set_mode("first-secret", 0o600);
    assert!(!server.reload(&one).contains("nothing was changed"));
}

#[test]
fn checks_and_revocations_go_on_while_secrets_are_rotated() {
    let desk = Desk::new("");
    let token = "admin-token".repeat(4);
    let [first, second] = ["first-secret", "second-secret"].map(|name| secret(&desk, name));
    let one = secrets(&desk, "admin-token", &["first-secret"]);
    let both = secrets(&desk, "admin-token", &["second-secret", "first-secret"]);
    let last = secrets(&desk, "admin-token", &["second-secret"]);
    let mut server = Server::start(desk, &one);
    assert_eq!(server.revoke(&token, "s0"), 201);
    let (stop, written) = (AtomicBool::new(false), AtomicU32::new(1));
    let client = server.client.clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let next = written.load(Ordering::Relaxed);
                assert_eq!(client.revoke(&token, &format!("s{next}")), 201);
                written.store(next + 1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let newest = written.load(Ordering::Relaxed) - 1;
                assert_eq!(client.is_dead(&first, &format!("s{newest}")), Some(true));
            }
        });
        for round in 0..10 {
            let options = if round % 2 == 0 { &both } else { &one };
            assert!(!server.reload(&format!("{options}admin-rate = 100000\n")).contains("nothing was changed"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let count = written.load(Ordering::Relaxed);
    assert!((0..count).all(|number| server.is_dead(&first, &format!("s{number}")) == Some(true)), "{count}");

    // Notes are sealed with the primary secret, and can be read as long as that is among the secrets.
    server.reload(&format!("{both}admin-rate = 100000\n"));
    assert_eq!(server.revoke(&token, "later"), 201);
    let reasons = |server: &Server| {
        let request = server.agent.get(format!("http://{}/v1/revocations?limit=500", server.admin));
        let mut answer = request.header("authorization", format!("Bearer {token}")).call().unwrap();
        let page: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        let read = page["revocations"].as_array().unwrap().iter().filter(|entry| entry["reason"] == "case 17").count();
        (read > 1, read > 0)
    };
    assert_eq!(reasons(&server), (true, true));
    server.reload(&format!("{last}admin-rate = 100000\n"));
    assert_eq!(server.is_dead(&second, "later"), Some(true));
    assert!(reasons(&server).1);
}

#[test]
fn many_signals_at_once_end_with_the_last_file_and_a_stop_is_not_held_up() {
    let desk = Desk::new("");
    let [first, second] = ["first-secret", "second-secret"].map(|name| secret(&desk, name));
    let one = secrets(&desk, "admin-token", &["first-secret"]);
    let other = secrets(&desk, "admin-token", &["second-secret"]);
    let mut server = Server::start(desk, &one);
    for round in 0..20 {
        write(&server.desk, if round % 2 == 0 { &one } else { &other });
        server.process.signal("-HUP");
    }
    // One more: signals that come during a reload are one.
    server.reload(&format!("{other}max-followers = 9\n"));
    let started = std::time::Instant::now();
    while (server.is_dead(&first, "a"), server.is_dead(&second, "a")) != (None, Some(false)) {
        assert!(started.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(20));
    }
    for signal in ["-HUP", "-TERM", "-HUP"] {
        server.process.signal(signal);
    }
    assert_eq!(server.process.0.wait().unwrap().code(), Some(0));
}
