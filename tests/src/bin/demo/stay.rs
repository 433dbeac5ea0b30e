//! `make run`: the mesh stays up, with lines to paste, until Ctrl-C.
use std::io;
use std::time::Duration;

use harness::Service;
use serde_json::json;

use crate::Stop;
use crate::mesh::{EC, Login, Mesh, RSA, WORKERS, short};
use crate::reply::url;

/// How soon the end of a part of the mesh is noticed.
const GLANCE: Duration = Duration::from_millis(500);

/// Returns false when a part ended by itself.
pub async fn stay(stop: &mut Stop) -> io::Result<bool> {
    let mut mesh = tokio::select! {
        mesh = Mesh::start("run") => mesh,
        () = stop.told() => return Ok(true),
    };
    println!("{}", lines(&mesh));
    let mut glance = tokio::time::interval(GLANCE);
    loop {
        tokio::select! {
            // First, because Ctrl-C in a terminal also reaches the parts, and they end.
            biased;
            () = stop.told() => {
                println!("\nstopping");
                mesh.stop();
                return Ok(true);
            }
            _ = glance.tick() => if let Some(name) = mesh.ended() {
                eprintln!("demo: {name} has ended");
                mesh.keep_logs();
                return Ok(false);
            }
        }
    }
}

fn lines(mesh: &Mesh) -> String {
    let tool = quoted(&short(&Service::binary()));
    let envoy = mesh.envoy.address();
    let hour = |login| Login { lifetime: "1h", ..login };
    let bob = hour(Login::new(EC, "bob", "bob-phone"));
    let alice = hour(Login::new(RSA, "alice", "alice-laptop"));
    let mut root = hour(Login::new(RSA, "root", "root-console"));
    root.claims = json!({ "scope": "orders", "roles": ["admin"] });
    let curl = |path: &str, login: &Login<'_>| {
        format!("curl -i {} -H 'Authorization: Bearer {}'", url(envoy, path), mesh.issuer.sign(login))
    };
    let mint: Vec<_> = mesh.issuer.mint(&bob).iter().map(|argument| quoted(argument)).collect();
    let [(_, service), (_, token_file)] = mesh.admin_environment();
    let revoke = |what: &str| format!("{tool} revoke --service {service} --token-file {} {what}", quoted(&token_file));
    let issuer = quoted(&mesh.issuer.name);
    let freshness = mesh.freshness.as_secs();
    let directory = short(mesh.directory());

    [
        format!(
            "The mesh is up: Envoy ({WORKERS} workers) with envoy/filter.yaml, the service, Redis, and an upstream that"
        ),
        "says what it received.".to_owned(),
        String::new(),
        "# alice's session alice-laptop; root, who is an admin; nobody".to_owned(),
        curl("/api/orders", &alice),
        curl("/api/admin/users", &root),
        format!("curl -i {}", url(envoy, "/api/orders")),
        String::new(),
        "# another token".to_owned(),
        format!("{tool} {}", mint.join(" ")),
        String::new(),
        format!("# end a session, log a user out everywhere, look, take it back; refused at most {freshness} s later"),
        revoke(&format!("session --issuer {issuer} --id alice-laptop --reason 'laptop lost'")),
        revoke(&format!("user --issuer {issuer} --id bob")),
        revoke("list"),
        revoke("lift KEY"),
        String::new(),
        format!("Envoy's admin       {}", url(mesh.envoy.admin_address(), "/stats?filter=portcullis")),
        format!("the service's admin {}", url(mesh.service.admin_address(), "/metrics")),
        format!("                    {}", url(mesh.service.admin_address(), "/readyz")),
        format!("Redis               {}", mesh.redis.url()),
        format!(
            "logs                {directory}/{{envoy,service,redis}}.log, removed at the end unless KEEP_STACKS is set"
        ),
        String::new(),
        "Ctrl-C stops it all.".to_owned(),
    ]
    .join("\n")
}

/// For a POSIX shell.
fn quoted(argument: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
