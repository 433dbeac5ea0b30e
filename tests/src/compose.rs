//! The mesh of envoy/compose.yaml as processes of this machine: the same commands, environments, files, dependencies and
//! health checks, without containers. Users, read-only roots, limits and networks need a container engine and are not
//! here.
//!
//! Each service has a loopback address of its own, so that all keep their ports. Three things are rewritten in the
//! command, environment and files of a service, and nothing else: names of services where an address is meant, its own
//! `0.0.0.0` and `127.0.0.1`, and paths at which a container has a file.
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;

use crate::{Directory, FilterHost, Process, START_DEADLINE, Service, project, wait_until};

/// The longest that a service which ends by itself may take.
const ONCE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

pub struct Compose {
    document: Value,
    addresses: BTreeMap<String, Ipv4Addr>,
    processes: BTreeMap<String, Process>,
    directory: Directory,
}

impl Compose {
    /// Reads the file and makes the secrets with envoy/secrets.sh. Nothing runs yet.
    ///
    /// # Panics
    /// The file cannot be read, or the script fails.
    pub fn new(name: &str) -> Self {
        static MESHES: AtomicU8 = AtomicU8::new(0);
        let directory = Directory::new(name);
        let path = project().join("envoy/compose.yaml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut document: serde_norway::Value = serde_norway::from_str(&text).expect("compose.yaml is YAML");
        document.apply_merge().expect("its `<<` can be merged");
        let document: Value = serde_json::to_value(document).expect("it is JSON too");
        let services = document["services"].as_object().expect("services").keys();
        // Of a loopback network that this process and this mesh have to themselves.
        let [.., high, low] = std::process::id().to_be_bytes();
        let first = MESHES.fetch_add(1, Ordering::Relaxed) * 32 + 1;
        let addresses: BTreeMap<_, _> =
            services.cloned().zip((first..).map(|host| Ipv4Addr::new(127, 64 + high % 128, low, host))).collect();
        let names: Vec<_> = addresses.values().map(|address| format!("IP:{address}")).collect();
        let made = Command::new(project().join("envoy/secrets.sh"))
            .arg(directory.path().join("secrets"))
            .env("EXTRA_NAMES", names.join(","))
            .output()
            .expect("envoy/secrets.sh runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mesh = Self { document, addresses, processes: BTreeMap::new(), directory };
        mesh.make_path();
        mesh
    }

    /// Starts a service when those it waits for are healthy, and waits until it is.
    ///
    /// # Panics
    /// One does not become healthy: with its log.
    pub async fn up(&mut self, service: &str) {
        if self.processes.contains_key(service) {
            return;
        }
        self.depend(service).await;
        let process = Process::start(service, self.command(service), self.directory.path());
        self.processes.insert(service.to_owned(), process);
        self.healthy(service).await;
    }

    /// Runs a service that ends by itself, after those it depends on. Returns its output.
    ///
    /// # Panics
    /// It fails, or does not end: with its log.
    pub async fn run(&mut self, service: &str) -> String {
        Box::pin(self.depend(service)).await;
        let mut process = Process::start(service, self.command(service), self.directory.path());
        let ended = wait_until(ONCE_DEADLINE, async || !process.is_running()).await;
        assert!(ended && process.succeeded(), "{service} failed:\n{}", process.log_tail());
        process.log()
    }

    async fn depend(&mut self, service: &str) {
        let conditions = self.service(service)["depends_on"].as_object().cloned().unwrap_or_default();
        for (name, how) in conditions {
            match how["condition"].as_str() {
                Some("service_healthy") => Box::pin(self.up(&name)).await,
                Some("service_completed_successfully") => drop(Box::pin(self.run(&name)).await),
                other => panic!("{service} waits for {name} in a way that is not known here: {other:?}"),
            }
        }
    }

    /// Waits until the service's own health check says so.
    ///
    /// # Panics
    /// It does not: with its log.
    pub async fn healthy(&mut self, service: &str) {
        let mut last = String::new();
        let test = texts(&self.service(service)["healthcheck"]["test"]);
        let (how, test) = test.split_first().unwrap_or_else(|| panic!("{service} has no health check"));
        assert_eq!(how, "CMD", "{service}: only this form is known here");
        let mut test = test.to_vec();
        test.iter_mut().skip(1).for_each(|argument| *argument = self.native(service, argument));
        let healthy = wait_until(START_DEADLINE, async || {
            let mut command = self.program(service, &test);
            let output = command.stdin(Stdio::null()).output().expect("the health check runs");
            last = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            output.status.success() || self.processes.get_mut(service).is_some_and(|process| !process.is_running())
        })
        .await;
        let process = self.process(service);
        assert!(healthy && process.is_running(), "{service} is not healthy: {last}\n{}", process.log_tail());
    }

    /// Starts a service again that was stopped, with the data that it had.
    pub async fn restart(&mut self, service: &str) {
        self.processes.remove(service);
        self.up(service).await;
    }

    pub fn process(&mut self, service: &str) -> &mut Process {
        self.processes.get_mut(service).unwrap_or_else(|| panic!("{service} was not started"))
    }

    pub fn address(&self, service: &str, port: u16) -> SocketAddr {
        SocketAddr::from((self.addresses[service], port))
    }

    pub fn secret(&self, name: &str) -> PathBuf {
        self.directory.path().join("secrets").join(name)
    }

    /// A file as the service has it, made on the way.
    pub fn config(&self, service: &str, target: &str) -> String {
        let path = self.native(service, target);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn service(&self, name: &str) -> &Value {
        let service = &self.document["services"][name];
        assert!(service.is_object(), "compose.yaml has no service `{name}`");
        service
    }

    fn command(&self, service: &str) -> Command {
        let definition = self.service(service);
        let mut arguments = match texts(&definition["entrypoint"]) {
            given if !given.is_empty() => given,
            // The entry point of the image.
            _ => match definition["image"].as_str() {
                Some("portcullis/service") => vec!["portcullis".to_owned()],
                Some("portcullis/echo") => vec!["echo".to_owned()],
                Some(image) if image.starts_with("prom/prometheus:") => vec!["prometheus".to_owned()],
                _ => Vec::new(),
            },
        };
        arguments.extend(texts(&definition["command"]));
        // But for the program, which may be called as a service is.
        for argument in arguments.iter_mut().skip(1) {
            *argument = self.native(service, argument);
        }
        self.program(service, &arguments)
    }

    fn program(&self, service: &str, arguments: &[String]) -> Command {
        let (program, arguments) = arguments.split_first().expect("something to run");
        let bin = self.directory.path().join("bin");
        let own = bin.join(program);
        let mut command = if own.exists() { Command::new(own) } else { Command::new(program) };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&path));
        command.args(arguments).env_clear().env("PATH", std::env::join_paths(paths).expect("a PATH"));
        let environment = self.service(service)["environment"].as_object().into_iter().flatten();
        for (name, value) in environment {
            command.env(name, self.native(service, value.as_str().expect("environment: texts")));
        }
        command
    }

    /// The programs that the images have.
    fn make_path(&self) {
        let bin = self.directory.path().join("bin");
        std::fs::create_dir_all(&bin).expect("a directory for programs");
        let venv = project().join(".venv/bin");
        let programs = [
            ("portcullis", Service::binary()),
            ("echo", Service::binary().with_file_name("echo")),
            ("envoy", venv.join("envoy")),
            ("prometheus", venv.join("prometheus")),
            ("promtool", venv.join("promtool")),
        ];
        for (name, program) in programs {
            assert!(program.exists(), "no {}: run `make setup checkers build`", program.display());
            std::os::unix::fs::symlink(program, bin.join(name)).expect("a link");
        }
    }

    /// The text of a command, variable or file of a service, rewritten for a process on this machine.
    fn native(&self, service: &str, text: &str) -> String {
        // Compose's own way to write a dollar.
        let mut text = text.replace("$$", "$");
        let definition = self.service(service);
        let own = self.addresses[service].to_string();
        text = text.replace("0.0.0.0", &own).replace("127.0.0.1", &own);
        for (name, address) in &self.addresses {
            let address = address.to_string();
            // A service that ends by itself has no address, and `store` is a verb of the tool.
            if self.service(name)["profiles"].is_null() {
                text = at_addresses(&text, name, &address);
            }
            if let Some(fixed) = self.service(name)["networks"]["store"]["ipv4_address"].as_str() {
                text = text.replace(fixed, &address);
            }
        }
        text = text.replace("/run/secrets/", &format!("{}/", self.secret("").display()).replace("//", "/"));
        let module = FilterHost::wasm_module();
        text = text.replace("/etc/portcullis/portcullis.wasm", &module.display().to_string());
        for volume in texts(&definition["volumes"]) {
            let (name, target) = volume.split_once(':').expect("name:path");
            let path = self.directory.path().join(format!("volume-{name}"));
            std::fs::create_dir_all(&path).expect("a directory for a volume");
            text = replace_path(&text, target, &path);
        }
        for config in definition["configs"].as_array().into_iter().flatten() {
            let (Some(source), Some(target)) = (config["source"].as_str(), config["target"].as_str()) else {
                panic!("{service}: a config has a source and a target")
            };
            if text.contains(target) {
                text = replace_path(&text, target, &self.write_config(service, source, target));
            }
        }
        text
    }

    /// The file behind a config, rewritten as the service needs it.
    fn write_config(&self, service: &str, source: &str, target: &str) -> PathBuf {
        let name = format!("{service}-{}", Path::new(target).file_name().expect("a file").to_string_lossy());
        let path = self.directory.path().join(&name);
        if !path.exists() {
            let file = self.document["configs"][source]["file"].as_str().expect("a config is a file");
            let original = project().join("envoy").join(file);
            let text = std::fs::read_to_string(&original).unwrap_or_else(|error| panic!("{file}: {error}"));
            let text = self.native(service, &text);
            self.directory.write(&name, text);
        }
        path
    }
}

/// `name` where an address is meant: alone, before a port, or after `address: `.
fn at_addresses(text: &str, name: &str, address: &str) -> String {
    if text == name {
        return address.to_owned();
    }
    let mut made = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let is_word =
            |character: Option<char>| character.is_some_and(|one| one.is_alphanumeric() || "-_".contains(one));
        let whole = !is_word(before.chars().next_back()) && !is_word(after.chars().next());
        let has_port =
            after.strip_prefix(':').is_some_and(|port| port.starts_with(|digit: char| digit.is_ascii_digit()));
        made.push_str(before);
        made.push_str(if whole && (has_port || before.ends_with("address: ")) { address } else { name });
        rest = after;
    }
    made + rest
}

/// The path itself and what is below it, not one that ends so.
fn replace_path(text: &str, container: &str, host: &Path) -> String {
    let host = host.display().to_string();
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(container) {
        made.push_str(before);
        let is_path = |one: char| one.is_alphanumeric() || ".-_".contains(one);
        let whole = !made.ends_with(|one: char| is_path(one) || one == '/') && !after.starts_with(is_path);
        made.push_str(if whole { &host } else { container });
        rest = after;
    }
    made + rest
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_rewritten() {
        let cases = [
            ("redis-1", "1.2.3.4"),
            ("rediss://redis-1:6379,x", "rediss://1.2.3.4:6379,x"),
            ("{ address: redis-1, port_value: 1 }", "{ address: 1.2.3.4, port_value: 1 }"),
            ("cluster: redis-1", "cluster: redis-1"),
            ("redis-10:6379", "redis-10:6379"),
            ("my-redis-1:6379", "my-redis-1:6379"),
        ];
        for (text, wanted) in cases {
            assert_eq!(at_addresses(text, "redis-1", "1.2.3.4"), wanted);
        }
    }
}
