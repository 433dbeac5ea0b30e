//! What `portcullis dev` prints: lines to paste, in the order in which they are worth trying.
use std::net::SocketAddr;
use std::path::Path;

use super::folder::{Folder, ISSUER, Login};

pub fn text(folder: &Folder, login: &Login, envoy: SocketAddr, admin: SocketAddr) -> String {
    let tool = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
    let Login { session, token } = login;
    let curl = format!("curl -i http://{envoy}/hello -H 'Authorization: Bearer {token}'");
    let tool = quoted(&tool);
    let admin_token = quoted(&folder.file("admin-token"));
    let revoke = format!("{tool} revoke --service http://{admin} --token-file {admin_token}");
    let end = format!("{revoke} session --issuer {ISSUER} --id {session} --reason dev");
    let of_envoy = format!("--envoy http://$(cat {})", quoted(&folder.file("envoy.admin")));
    // In the form in which an on-call person gets it: what the client saw, and Envoy's log.
    let explain = format!(
        "{} | {tool} explain {of_envoy} --problem - --log {}",
        curl.replace("curl -i", "curl -s"),
        quoted(&folder.file("envoy.log"))
    );
    let secret = format!("PORTCULLIS_SECRET=\"$(cat {})\"", quoted(&folder.file("shared-secret")));
    [
        "# Envoy, the service with its store in a file, an issuer and an upstream are up. Ctrl-C stops all of them."
            .to_owned(),
        format!("# Files and logs: {}", folder.path().display()),
        String::new(),
        format!("# alice, in the session {session}: 200, with what the upstream received"),
        curl.clone(),
        String::new(),
        "# without a token: 401".to_owned(),
        format!("curl -i http://{envoy}/hello"),
        String::new(),
        "# end the session".to_owned(),
        end,
        String::new(),
        "# alice again: 403 within a second".to_owned(),
        curl,
        String::new(),
        "# why is it refused?".to_owned(),
        explain,
        String::new(),
        "# what is revoked, by whom and why".to_owned(),
        format!("{revoke} list --output table"),
        String::new(),
        "# is anything wrong with this mesh?".to_owned(),
        format!("{secret} {tool} doctor {of_envoy} --service http://{admin}"),
        String::new(),
        "# its requests, live: q ends it".to_owned(),
        format!("{tool} top {of_envoy} --service http://{admin}"),
        String::new(),
        format!("# the operator's page, which asks for what is in {admin_token}: http://{admin}/operator/"),
        String::new(),
        format!("# another token, of a session of bob\n{tool} {}", mint(folder)),
        String::new(),
    ]
    .join("\n")
}

fn mint(folder: &Folder) -> String {
    let key = quoted(&folder.file("key.pem"));
    format!("mint token --key {key} --alg ES256 --kid dev-1 --iss {ISSUER} --aud dev --sub bob --sid bob-1")
}

/// As a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_if_a_shell_would_split_it() {
        assert_eq!(quoted(Path::new("/tmp/a-b.c")), "/tmp/a-b.c");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
