//! `portcullis serve` as systemd starts it: its configuration file, its readiness, and its signals.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
#[path = "serve/reload.rs"]
mod reload;
#[path = "serve/reload_peers.rs"]
mod reload_peers;
#[path = "serve/reload_races.rs"]
mod reload_races;

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    /// With both secrets, and a configuration file that names them and ends with `more`.
    fn new(more: &str) -> Self {
        let desk = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["shared-secret", "admin-token"] {
            std::fs::write(desk.path(name), name.repeat(4)).unwrap();
            desk.set_mode(name, 0o600);
        }
        desk.configure(more);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin-listen = '127.0.0.1:0'\nredis = 'redis://127.0.0.1:1'\n\
             secret-file = {:?}\nadmin-token-file = {:?}\n{more}",
            self.path("shared-secret"),
            self.path("admin-token")
        );
        std::fs::write(self.path("serve.toml"), text).unwrap();
    }

    fn serve(&self) -> Command {
        let mut command = portcullis();
        command.args(["serve", "--config"]).arg(self.path("serve.toml"));
        command
    }
}

fn portcullis() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PORTCULLIS_")) {
        command.env_remove(name);
    }
    command
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_file_that_is_right_is_ok_and_one_that_is_wrong_is_named_with_its_keys() {
    let out = Desk::new("max-lifetime = '1h'\n").serve().arg("--check").output().unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"ok\n"[..]), "{}", stderr(&out));
    for (more, code, said) in [
        ("max-lifetme = '1h'\n", 1, "`max-lifetme`: no such option; did you mean `max-lifetime`?"),
        ("max-lifetime = '1 hour'\n", 2, "max-lifetime"),
        // What clap requires together, it requires of a file too.
        ("tls-cert = '/cert'\n", 2, "--tls-key"),
        ("max-session = '1h'\n", 1, "max-session"),
        ("tls-cert = '/none'\ntls-key = '/none'\n", 1, "/none"),
        ("providers-file = '/none'\n", 1, "/none"),
    ] {
        let out = Desk::new(more).serve().arg("--check").output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{more}: {}", stderr(&out));
        assert!(stderr(&out).contains(said) && stderr(&out).contains("serve.toml") | (code == 1), "{}", stderr(&out));
    }
}

#[test]
fn the_environment_replaces_the_file_and_the_command_line_both() {
    let desk = Desk::new("max-session = '1h'\n");
    let check = |change: &dyn Fn(&mut Command)| {
        let mut command = desk.serve();
        command.arg("--check");
        change(&mut command);
        command.output().unwrap().status.code()
    };
    assert_eq!(check(&|_| {}), Some(1));
    assert_eq!(check(&|command| _ = command.env("PORTCULLIS_MAX_SESSION", "30d")), Some(0));
    let both = |command: &mut Command| _ = command.env("PORTCULLIS_MAX_SESSION", "1h").args(["--max-session", "30d"]);
    assert_eq!(check(&both), Some(0));
    let mut by_environment = portcullis();
    by_environment.env("PORTCULLIS_CONFIG", desk.path("serve.toml")).args(["serve", "--check", "--max-session", "30d"]);
    assert_eq!(by_environment.output().unwrap().status.code(), Some(0));
}

#[test]
fn a_secret_that_every_user_can_read_is_refused_unless_it_is_allowed() {
    let desk = Desk::new("");
    desk.set_mode("admin-token", 0o644);
    let out = desk.serve().arg("--check").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("admin-token") && stderr(&out).contains("chmod o-r"), "{}", stderr(&out));
    assert!(!stderr(&out).contains("shared-secret"), "{}", stderr(&out));
    let allowed = desk.serve().args(["--check", "--allow-readable-secrets"]).output().unwrap();
    assert_eq!(allowed.status.code(), Some(0), "{}", stderr(&allowed));
    desk.set_mode("admin-token", 0o640);
    assert_eq!(desk.serve().arg("--check").output().unwrap().status.code(), Some(0));
}

/// Whatever else is secret is no less so.
#[test]
fn keys_passwords_and_tokens_that_every_user_can_read_are_refused_too() {
    let key = mint::SigningKey::generate(mint::Alg::ES256, "k").private_pem().unwrap();
    let providers = "providers: [{ issuer: 'https://a.example', audiences: [a], jwks_uri: 'https://a.example/jwks', \
                     events: { poll: { url: 'https://a.example/poll', token_file: 'PATH' } } }]";
    for (more, content) in [
        ("session-issuer = 'https://s.example'\nsession-audience = 'a'\nsigning-key = 'PATH'\n", key.as_str()),
        (
            "session-issuer = 'https://s.example'\nsession-audience = 'a'\nclients-file = 'CLIENTS'\n",
            "secret-of-an-oauth-client-with-32-bytes",
        ),
        ("sightings-file = 'SIGHTINGS'\n", "bearer-of-the-webhook"),
        ("redis-password-file = 'PATH'\n", "password"),
        ("admin-tls-cert = 'PATH'\nadmin-tls-key = 'PATH'\n", key.as_str()),
        ("providers-file = 'PROVIDERS'\n", "bearer-of-the-transmitter"),
    ] {
        let desk = Desk::new("");
        let path = |text: &str| {
            let of = |name: &str| desk.path(name).display().to_string();
            text.replace("PATH", &of("secret"))
                .replace("PROVIDERS", &of("providers.yaml"))
                .replace("CLIENTS", &of("clients"))
                .replace("SIGHTINGS", &of("sightings"))
        };
        desk.configure(&path(more));
        std::fs::write(desk.path("providers.yaml"), path(providers)).unwrap();
        // Named relative to the file.
        let clients = r#"{"clients": [{"client_id": "a", "secret_files": ["secret"], "may": []}]}"#;
        std::fs::write(desk.path("clients"), clients).unwrap();
        let webhook = "webhook: { url: 'https://a.example/hook', token_file: 'PATH' }";
        std::fs::write(desk.path("sightings"), path(webhook)).unwrap();
        std::fs::write(desk.path("secret"), content).unwrap();
        desk.set_mode("secret", 0o644);
        let out = desk.serve().arg("--check").output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{more}");
        assert!(stderr(&out).contains("/secret: chmod o-r"), "{more}: {}", stderr(&out));
        desk.set_mode("secret", 0o600);
        let out = desk.serve().arg("--check").output().unwrap();
        assert!(!stderr(&out).contains("chmod"), "{more}: {}", stderr(&out));
    }
}

/// A transmitter gets this token with each poll.
#[test]
fn a_secret_of_ours_is_not_sent_to_a_transmitter() {
    let desk = Desk::new("");
    desk.configure(&format!("providers-file = {:?}\n", desk.path("providers.yaml")));
    let providers = serde_json::json!({ "providers": [{
        "issuer": "https://a.example", "audiences": ["a"], "jwks_uri": "https://a.example/jwks",
        "events": { "poll": { "url": "https://a.example/poll", "token_file": desk.path("admin-token") } },
    }] });
    std::fs::write(desk.path("providers.yaml"), providers.to_string()).unwrap();
    let out = desk.serve().arg("--check").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("the same secret"), "{}", stderr(&out));
}

struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_is_told_and_a_hangup_reads_the_file_again() {
    let desk = Desk::new("log = 'info'\n");
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let heard = || {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        // systemd takes it for the answer to its signal by this time.
        if let Some((said, time)) = text.split_once("\nMONOTONIC_USEC=") {
            assert!(said == "RELOADING=1" && time.parse::<u64>().unwrap() > 0, "{text}");
            return said.to_owned();
        }
        text
    };
    let mut command = desk.serve();
    command.env("NOTIFY_SOCKET", desk.path("notify")).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(heard(), "READY=1");

    let mut log = |message: &str| lines.find(|line| line.contains(message)).unwrap();
    desk.configure("log = 'info'\nmax-followers = 7\nissuer = 'https://i.example'\n");
    running.signal("-HUP");
    let line = log("these options need a restart");
    assert!(line.contains(r#""options":"max-followers""#), "{line}");
    assert_eq!([heard(), heard()], ["RELOADING=1", "READY=1"]);
    desk.configure("log = 'inof'\n");
    running.signal("-HUP");
    let line = log("nothing was changed");
    assert!(line.contains("inof"), "{line}");
    desk.configure("log = 'info,portcullis=debug'\nmax-followers = 7\n");
    running.signal("-HUP");
    let line = log("the configuration was read again");
    assert!(line.contains("max-followers"), "{line}");
    assert_eq!([heard(), heard(), heard(), heard()], ["RELOADING=1", "READY=1", "RELOADING=1", "READY=1"]);

    running.signal("-TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_watchdog_is_told_that_the_service_runs() {
    let desk = Desk::new("");
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = desk.serve();
    command.env("NOTIFY_SOCKET", desk.path("notify")).env("WATCHDOG_USEC", "100000").stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let mut bytes = [0; 64];
    for said in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let length = socket.recv(&mut bytes).unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..length]), Ok(said));
    }
}

#[test]
fn shells_get_a_script_and_man_pages_name_no_value_of_the_environment() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let out = portcullis().args(["completions", shell]).output().unwrap();
        assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("check-config"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = portcullis();
    command.env("PORTCULLIS_LISTEN", "192.0.2.7:1").args(["docs", "--man"]).arg(directory.path());
    assert!(command.status().unwrap().success());
    let page = |name: &str| std::fs::read_to_string(Path::new(directory.path()).join(name)).unwrap();
    assert!(page("portcullis.1").contains("check\\-config") && page("portcullis-revoke-user.1").contains("issuer"));
    let serve = page("portcullis-serve.1");
    assert!(serve.contains("PORTCULLIS_LISTEN") && !serve.contains("192.0.2.7"));
}
