//! `portcullis --help`: the commands in groups, with examples. The commands themselves are stated in `main`.
use std::fmt::Write as _;

use clap::Command;

/// A group's heading and its commands, in the order of the help. A name that is no command is left out; a command that
/// stands in no group comes last.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Run the service", &["dev", "serve", "store", "migrate", "ready"]),
    ("End sessions", &["revoke", "session", "audit"]),
    ("Find out what is wrong", &["doctor", "explain", "check-config", "jwks", "top"]),
    ("Tools", &["mint", "completions", "help"]),
];

/// A command and its examples. A test parses each line.
const EXAMPLES: [(&str, &str); 16] = [
    (
        "portcullis",
        "  portcullis serve --config /etc/portcullis/serve.toml
  portcullis revoke user --issuer https://idp.example --id alice --reason 'laptop stolen'
  portcullis explain --config envoy.yaml --path /api/orders --token - < token.jwt",
    ),
    (
        "serve",
        "  portcullis serve --secret-file shared-secret --admin-token-file admin-token
  portcullis serve --store file:store --create-store --secret-file shared-secret --admin-token-file admin-token
  portcullis serve --config /etc/portcullis/serve.toml --check
  portcullis serve --config /etc/portcullis/serve.toml --listen 0.0.0.0:7700",
    ),
    (
        "dev",
        "  portcullis dev
  portcullis dev --dir try-it --listen 127.0.0.1:8080
  portcullis dev --host native --filter dist/libportcullis.so --envoy .venv/bin/envoy",
    ),
    (
        "revoke",
        "  portcullis revoke session --issuer https://idp.example --id 6c1f --reason 'laptop stolen'
  portcullis revoke token - < token.jwt
  portcullis revoke list --subject alice --since 24h --output table
  portcullis revoke bulk revocations.jsonl --resume finished",
    ),
    (
        "audit",
        "  portcullis audit --subject alice --since 24h --output table
  portcullis audit --follow",
    ),
    (
        "doctor",
        "  portcullis doctor --envoy http://127.0.0.1:9901 --service http://127.0.0.1:7701 --redis redis://127.0.0.1:6379
  portcullis doctor --config envoy.yaml --cluster session_service=http://127.0.0.1:7700 --token - < token.jwt",
    ),
    (
        "session",
        "  portcullis session create --subject alice --format jwt
  portcullis session list --subject alice
  portcullis session end --subject alice",
    ),
    (
        "explain",
        "  portcullis explain --config envoy.yaml --path /api/orders --token - < token.jwt
  portcullis explain --config envoy.yaml --path /api/orders --token - --answer dead < token.jwt
  portcullis explain --envoy http://127.0.0.1:9901 --live --path /api/orders --token - < token.jwt
  portcullis explain --config envoy.yaml --problem problem.json --log envoy.log",
    ),
    (
        "jwks",
        "  portcullis jwks --config envoy.yaml --issuer login
  portcullis jwks --url https://idp.example/.well-known/jwks.json",
    ),
    (
        "top",
        "  portcullis top --envoy http://127.0.0.1:9901 --service http://127.0.0.1:7701
  portcullis top --envoy http://10.0.0.1:9901 --envoy http://10.0.0.2:9901 --once",
    ),
    (
        "store",
        "  portcullis store create --redis rediss://redis.example:6379 --redis-password-file password
  portcullis store create --store file:/var/lib/portcullis/store
  portcullis store compact --store file:/var/lib/portcullis/store",
    ),
    (
        "migrate",
        "  portcullis migrate --from redis://old.example --to redis://new.example
  portcullis migrate --from file:/var/lib/portcullis/store --to redis://new.example",
    ),
    ("ready", "  portcullis ready --service http://127.0.0.1:7701"),
    (
        "check-config",
        "  portcullis check-config envoy.yaml
  portcullis check-config filter.yaml --assume-secrets --json",
    ),
    (
        "mint",
        "  portcullis mint key --alg ES256 --out key.pem > key.jwk
  portcullis mint token --key key.pem --alg ES256 --iss https://idp.example --sub alice --aud api",
    ),
    (
        "completions",
        "  portcullis completions bash > /usr/share/bash-completion/completions/portcullis
  portcullis completions zsh > /usr/share/zsh/site-functions/_portcullis
  portcullis completions fish > ~/.config/fish/completions/portcullis.fish",
    ),
];

/// The command with its commands in groups, and with examples before the exit codes.
pub fn arranged(command: Command) -> Command {
    let command = with_examples(command).mut_subcommands(with_examples);
    // Their name and usage line are only there once it is built.
    let mut built = command.clone();
    built.build();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\nOptions:\n{{options}}\n\n\
         `portcullis help COMMAND` has the options of a command.{{after-help}}",
        grouped(&built)
    );
    command.help_template(template)
}

fn with_examples(command: Command) -> Command {
    let Some((_, examples)) = EXAMPLES.iter().find(|(name, _)| *name == command.get_name()) else { return command };
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    command.after_help(format!("Examples:\n{examples}\n\n{after}").trim_end().to_owned())
}

fn grouped(command: &Command) -> String {
    let shown: Vec<&Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let width = shown.iter().map(|verb| verb.get_name().len()).max().unwrap_or_default();
    let in_group = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let rest: Vec<&str> = shown.iter().map(|verb| verb.get_name()).filter(|name| !in_group(name)).collect();
    let mut text = String::new();
    for (heading, names) in GROUPS.into_iter().chain([("Other commands", rest.as_slice())]) {
        let verbs: Vec<_> =
            names.iter().filter_map(|name| shown.iter().find(|verb| verb.get_name() == *name)).collect();
        if !verbs.is_empty() {
            let _ = writeln!(text, "\n{heading}:");
        }
        for verb in verbs {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:width$}  {about}", verb.get_name());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Cli;

    fn help() -> String {
        arranged(Cli::command()).render_long_help().to_string()
    }

    #[test]
    fn each_command_is_shown_once_and_in_a_group() {
        let help = help();
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let lines = help.lines().filter(|line| line.split_whitespace().next() == Some(verb.get_name()));
            assert_eq!(lines.count(), 1, "{}: {help}", verb.get_name());
        }
        assert!(!help.contains("Other commands"), "{help}");
    }

    #[test]
    fn the_help_has_examples_and_exit_codes_and_no_line_is_wider_than_a_terminal() {
        let help = help();
        assert!(help.contains("Examples:\n  portcullis ") && help.contains("Exit codes:\n  0  done"), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    /// Words as a shell makes them of a line with single quotes, without redirections.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" < ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(nth, part)| match nth % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn the_examples_are_valid_command_lines() {
        // In place of a configuration file, which would have them.
        let of_file = ["--secret-file", "s", "--admin-token-file", "t"];
        for line in EXAMPLES.iter().flat_map(|(_, examples)| examples.lines()) {
            let is_from_file = line.contains("serve.toml");
            let words = words(line).into_iter().chain(of_file.iter().filter(|_| is_from_file).map(ToString::to_string));
            if let Err(error) = Cli::command().try_get_matches_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
