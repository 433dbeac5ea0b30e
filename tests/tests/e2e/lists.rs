//! What operators list and try before they do it, with the command and a real service.
use harness::mesh::{ISSUER, OTHER_ISSUER};
use harness::{Directory, Redis, Service, ServiceOptions};
use serde_json::{Value, json};

struct Desk {
    service: Service,
    _redis: Redis,
    directory: Directory,
}

impl Desk {
    async fn new(name: &str) -> Self {
        let directory = Directory::new(name);
        let redis = Redis::start(&directory).await;
        let mut options = ServiceOptions::new(redis.url());
        options.arguments =
            ["--session-issuer", "https://sessions.example", "--session-audience", "api"].map(str::to_owned).into();
        let service = Service::start(&directory, options).await;
        Self { service, _redis: redis, directory }
    }

    /// The command's output, its errors and its exit code.
    fn run(&self, words: &[&str]) -> (String, String, i32) {
        let url = format!("http://{}", self.service.admin_address());
        let file = self.service.admin_token_file().display().to_string();
        let access = ["--service", &url, "--token-file", &file];
        tokio::task::block_in_place(|| Service::portcullis(&[words, &access].concat()))
    }

    fn ok(&self, words: &[&str]) -> String {
        let (output, errors, code) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {errors}");
        output
    }
}

fn ids(output: &str) -> Vec<String> {
    let entries = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{output}")));
    let mut ids: Vec<String> = entries.map(|entry| entry["id"].as_str().unwrap_or("-").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_ordered_and_printed_as_asked() {
    let desk = Desk::new("lists").await;
    for (kind, issuer, id, reason) in [
        ("user", ISSUER, "alice", "Stolen laptop"),
        ("user", OTHER_ISSUER, "alice", "left"),
        ("user", ISSUER, "bob", "left"),
        ("session", ISSUER, "s-1", "stolen phone"),
        ("client", ISSUER, "app", "leaked"),
    ] {
        desk.ok(&["revoke", kind, "--issuer", issuer, "--id", id, "--reason", reason]);
    }
    let list = |more: &[&str]| ids(&desk.ok(&[&["revoke", "list", "--output", "jsonl"], more].concat()));
    assert_eq!(list(&[]).len(), 5);
    assert_eq!(list(&["--subject", "alice"]), ["alice", "alice"]);
    assert_eq!(list(&["--subject", "alice", "--issuer", ISSUER]), ["alice"]);
    assert_eq!(list(&["--client", "app"]), ["app"]);
    assert_eq!(list(&["--reason", "STOLEN"]), ["alice", "s-1"]);
    assert_eq!(list(&["--kind", "session", "--since", "1h"]), ["s-1"]);
    assert_eq!(list(&["--limit", "2"]).len(), 2);
    let array: Value =
        serde_json::from_str(&desk.ok(&["revoke", "list", "--output", "json", "--sort", "oldest"])).unwrap();
    let times: Vec<u64> = array.as_array().unwrap().iter().map(|entry| entry["at"].as_u64().unwrap()).collect();
    assert!(times.len() == 5 && times.is_sorted(), "{times:?}");
    let table = desk.ok(&["revoke", "list", "--output", "table", "--kind", "session"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("KEY ") && lines[1].contains("s-1"), "{table}");
    let (output, errors, code) = desk.run(&["revoke", "list", "--subject", "nobody"]);
    assert_eq!((output.as_str(), code), ("", 0));
    assert!(errors.contains("nothing matched"), "{errors}");
    let audit = ids(&desk.ok(&["audit", "--subject", "alice", "--output", "jsonl", "--since", "1h"]));
    assert_eq!(audit.len(), 2, "{audit:?}");

    // Pages, times, and what a list cannot tell.
    let page = |skip: &str| list(&["--sort", "oldest", "--limit", "3", "--skip", skip]);
    assert_eq!((page("0").len(), page("3").len(), page("5").len()), (3, 2, 0));
    assert_eq!(list(&["--since", "2026-01-01T00:00:00Z"]).len(), 5);
    let dates = desk.ok(&["revoke", "list", "--output", "jsonl", "--kind", "session", "--utc"]);
    let dated: Value = serde_json::from_str(&dates).unwrap();
    assert!(dated["at"].as_str().unwrap().ends_with('Z') && dated["until"].as_str().unwrap().ends_with('Z'), "{dates}");
    let newest: Value =
        serde_json::from_str(&desk.ok(&["audit", "--since", "1h", "--sort", "newest", "--output", "json"])).unwrap();
    let times: Vec<u64> = newest.as_array().unwrap().iter().map(|entry| entry["at"].as_u64().unwrap()).collect();
    assert!(times.len() > 5 && times.iter().rev().is_sorted(), "{times:?}");
    let from_here = ["audit", "--since", "1h", "--ip", "127.0.0.1", "--output", "jsonl", "--limit", "2"];
    assert_eq!(desk.ok(&from_here).lines().count(), 2);
    let (_, errors, code) = desk.run(&["revoke", "list", "--ip", "127.0.0.1"]);
    assert!(code == 2 && errors.contains("portcullis audit --ip"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_a_bulk_that_stopped_goes_on() {
    let desk = Desk::new("dry-runs").await;
    let would = desk.ok(&["revoke", "user", "--issuer", ISSUER, "--id", "alice", "--dry-run"]);
    assert!(would.contains("would_send") && would.contains("alice"), "{would}");
    let listed = || ids(&desk.ok(&["revoke", "list", "--output", "jsonl"]));
    assert!(listed().is_empty());
    let token = "eyJhbGciOiJub25lIn0.e30.c2VjcmV0";
    assert!(!desk.ok(&["revoke", "token", token, "--dry-run"]).contains("c2VjcmV0"));

    let line = |id: &str| json!({ "kind": "user", "issuer": ISSUER, "id": id }).to_string();
    let lines = ["a", "b", "c"].map(line).join("\n");
    let file = desk.directory.write("bulk.jsonl", format!("{lines}\n")).display().to_string();
    let done = desk.directory.write("done", "1").display().to_string();
    let said = desk.ok(&["revoke", "bulk", &file, "--dry-run", "--resume", &done]);
    assert!(said.starts_with("2 lines would be sent, 0 cannot be read, 1 were revoked before"), "{said}");
    assert!(listed().is_empty());
    assert!(desk.ok(&["revoke", "bulk", &file, "--resume", &done]).starts_with("2 revoked, 0 failed"));
    assert_eq!(listed(), ["b", "c"]);
    assert!(std::fs::read_to_string(&done).unwrap().starts_with("3 "));
    let (_, errors, _) = desk.run(&["revoke", "bulk", &file, "--resume", &done]);
    assert!(errors.contains("nothing to do"), "{errors}");

    let key = desk.ok(&["revoke", "list", "--json", "--subject", "b"]);
    let key = serde_json::from_str::<Value>(&key).unwrap()["key"].as_str().unwrap().to_owned();
    desk.ok(&["revoke", "lift", &key, "--dry-run"]);
    assert_eq!(listed(), ["b", "c"]);

    desk.ok(&["session", "create", "--subject", "carol"]);
    let (output, errors, code) = desk.run(&["session", "end", "--subject", "carol", "--dry-run"]);
    assert!(code == 0 && output.contains("carol") && errors.contains("1 sessions would be ended"), "{output}{errors}");
    let sessions = desk.ok(&["session", "list", "--subject", "carol", "--output", "table"]);
    assert_eq!(sessions.lines().count(), 2, "{sessions}");
    desk.ok(&["session", "end", "--subject", "carol"]);
    let (_, errors, _) = desk.run(&["session", "list", "--subject", "carol"]);
    assert!(errors.contains("nothing matched"), "{errors}");
    let (_, errors, _) = desk.run(&["session", "end", "--subject", "nobody"]);
    assert!(errors.contains("nothing matched"), "{errors}");
}
