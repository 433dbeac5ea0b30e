//! The service and its Redis with a growing number of revocations: CPU per queried key, beside that of the same Redis
//! when `redis-benchmark` queries as many keys itself.
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use harness::{Directory, Redis, Request, Service, ServiceOptions, exchange};
use mint::random_id;
use serde::Serialize;
use tokio::runtime::Runtime;
use wire::check::{CONTENT_TYPE, Needs, PATH, Question};
use wire::{Answer, DerivedKeys, Kind, Secret};

use super::Bench;
use crate::load::Generator;
use crate::machine;
use crate::measure::{SETTLE, is_interrupted};
use crate::statistics::Quartiles;
use crate::tokens::now;

/// Keys in one check, as the goal is defined.
const KEYS: usize = 64;
/// Different checks, sent in turn.
const QUESTIONS: usize = 2_000;
/// Revocations that are written before their acknowledgements are read.
const WRITTEN_AT_ONCE: usize = 10_000;
/// The connections of `redis-benchmark`.
const CLIENTS: &str = "32";
/// A name as long as a revocation's; twelve of its characters are a random number.
const NAME: &str = "portcullis:{00}:r:__rand_int__0123456789";

/// A Redis with revocations, and its service.
pub struct Stack {
    pub service: Service,
    redis: Redis,
    pub revocations: usize,
    requests: Vec<Vec<u8>>,
    _directory: Directory,
}

/// One window, in CPU µs per key.
#[derive(Debug, Clone, Copy)]
pub struct StoreSample {
    pub service: f64,
    /// While the service queried it.
    pub redis: f64,
    /// While `redis-benchmark` queried as many keys in one command.
    pub together: f64,
    /// While it queried each separately, as many in flight: `-P 64`.
    pub pipelined: f64,
    pub questions_per_second: f64,
}

/// One stack for all series except that of revocations.
pub fn start(runtime: &Runtime, directory: &Directory) -> (Redis, Service) {
    let redis = runtime.block_on(Redis::start(directory));
    let service = runtime.block_on(Service::start(directory, ServiceOptions::new(redis.url())));
    (redis, service)
}

impl Stack {
    /// One for each number of revocations, each ten times the one before.
    ///
    /// # Errors
    /// Redis does not accept them, or the service does not find them.
    pub fn start_all(bench: &Bench<'_>, most: usize) -> anyhow::Result<Vec<Self>> {
        let sizes = [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|size| *size <= most);
        sizes.map(|revocations| Self::start(bench.plan.runtime, revocations)).collect()
    }

    fn start(runtime: &Runtime, revocations: usize) -> anyhow::Result<Self> {
        eprintln!("writing {revocations} revocations");
        let directory = Directory::new("growth-store");
        let (redis, service) = start(runtime, &directory);
        let derived = Secret::new(service.options().secret.as_bytes())?.derive();
        fill(&redis, &derived, revocations)?;
        let questions = questions(&derived, revocations)?;
        let first = questions.first().context("no questions")?;
        // A wrong answer must not count, however fast.
        let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(first.bytes());
        let reply = runtime.block_on(exchange(service.address(), &request))?;
        let answers = first.read_reply(&derived, reply.status, &reply.body)?.map(|reply| reply.answers);
        let mut expected = vec![Answer::Live; KEYS];
        expected[0] = Answer::Dead;
        ensure!(answers == Ok(expected), "the service does not answer as Redis was filled: {answers:?}");
        let requests = questions.iter().map(|question| whole(question, service.address())).collect();
        Ok(Self { service, redis, revocations, requests, _directory: directory })
    }

    fn measure(&mut self, bench: &Bench<'_>, next: &mut usize) -> anyhow::Result<StoreSample> {
        let keys = |answered: u64| answered as f64 * KEYS as f64;
        let (service, redis) = (self.service.process().id(), self.redis.process().id());
        let mut generator = Generator::connect(self.service.address(), bench.plan.connections, &self.requests, *next)?;
        generator.run(bench.plan.warm_up, 0)?;
        std::thread::sleep(SETTLE);
        let before = (machine::cpu_of(service)?, machine::cpu_of(redis)?);
        let run = generator.run(bench.plan.window, 0)?;
        std::thread::sleep(SETTLE);
        let after = (machine::cpu_of(service)?, machine::cpu_of(redis)?);
        *next = generator.next();
        if let Some(answer) = run.first_failure {
            bail!("{} questions were not answered: {answer}", run.failed);
        }
        let each = |after: Duration, before| {
            let spent = after.checked_sub(before).context("a thread ended")?;
            anyhow::Ok(spent.as_secs_f64() * 1e6 / keys(run.answered))
        };
        // About as many as the service was asked for.
        let asked = run.answered.max(1_000);
        let together: Vec<&str> =
            ["MGET", "portcullis:{00}:sentinel"].into_iter().chain(std::iter::repeat_n(NAME, KEYS)).collect();
        Ok(StoreSample {
            service: each(after.0, before.0)?,
            redis: each(after.1, before.1)?,
            together: self.benchmark(bench, 1, asked, &together)? / keys(asked),
            pipelined: self.benchmark(bench, KEYS, asked * KEYS as u64, &["GET", NAME])? / keys(asked),
            questions_per_second: run.answered as f64 / run.took.as_secs_f64(),
        })
    }

    /// CPU µs that Redis takes for `command` this often, with this many in flight on each connection.
    fn benchmark(&mut self, bench: &Bench<'_>, at_once: usize, count: u64, asked: &[&str]) -> anyhow::Result<f64> {
        let mut command = Command::new("redis-benchmark");
        let address = self.redis.address();
        command
            .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-q"])
            .args(["-n", &count.to_string(), "-c", CLIENTS, "-P", &at_once.to_string(), "-r", "1000000000"])
            .args(asked)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let redis = self.redis.process().id();
        std::thread::sleep(SETTLE);
        let before = machine::cpu_of(redis)?;
        machine::pin(bench.cores.proxy)?;
        let status = command.status();
        machine::pin(bench.cores.load)?;
        ensure!(status.context("redis-benchmark")?.success(), "redis-benchmark failed");
        std::thread::sleep(SETTLE);
        let spent = machine::cpu_of(redis)?.checked_sub(before).context("a thread of Redis ended")?;
        Ok(spent.as_secs_f64() * 1e6)
    }
}

/// CPU µs per key.
#[derive(Debug, Serialize)]
pub struct StoreRow {
    pub revocations: usize,
    pub keys_per_question: usize,
    pub service_micros: Quartiles,
    pub redis_micros: Quartiles,
    pub redis_benchmark_micros: Quartiles,
    pub redis_benchmark_pipelined_micros: Quartiles,
    /// The service's divided by that of Redis under `redis-benchmark`, without and with pipelining, round by round.
    pub ratio: f64,
    pub ratio_pipelined: f64,
    pub questions_per_second: f64,
}

impl StoreRow {
    fn new(revocations: usize, keys_per_question: usize, samples: &[StoreSample]) -> Self {
        let each = |of: fn(&StoreSample) -> f64| Quartiles::of(samples.iter().map(of));
        Self {
            revocations,
            keys_per_question,
            service_micros: each(|sample| sample.service),
            redis_micros: each(|sample| sample.redis),
            redis_benchmark_micros: each(|sample| sample.together),
            redis_benchmark_pipelined_micros: each(|sample| sample.pipelined),
            ratio: each(|sample| sample.service / sample.together).median,
            ratio_pipelined: each(|sample| sample.service / sample.pipelined).median,
            questions_per_second: each(|sample| sample.questions_per_second).median,
        }
    }
}

/// Every stack once in each round. The service has the proxy's core for itself.
///
/// # Errors
/// A server does not answer as it should.
pub fn measure(bench: &Bench<'_>, mut stacks: Vec<Stack>) -> anyhow::Result<Vec<StoreRow>> {
    let mut samples: Vec<Vec<StoreSample>> = stacks.iter().map(|_| Vec::new()).collect();
    let mut next = vec![0; stacks.len()];
    for stack in &mut stacks {
        machine::move_to(stack.service.process().id(), bench.cores.proxy)?;
    }
    for round in 0..bench.rounds {
        eprintln!("service: round {} of {}", round + 1, bench.rounds);
        for place in 0..stacks.len() {
            if is_interrupted() {
                bail!("interrupted");
            }
            let at = (place + round) % stacks.len();
            let sample = stacks[at].measure(bench, &mut next[at]);
            let log = || format!("the service's log ends:\n{}", stacks[at].service.process().log_tail());
            samples[at].push(sample.with_context(log)?);
        }
    }
    Ok(stacks.iter().zip(&samples).map(|(stack, samples)| StoreRow::new(stack.revocations, KEYS, samples)).collect())
}

/// In the service's format: an answer, an encrypted note and an expiry.
fn fill(redis: &Redis, derived: &DerivedKeys, count: usize) -> anyhow::Result<()> {
    let note = "n".repeat(60);
    let mut stream = TcpStream::connect(redis.address())?;
    for first in (0..count).step_by(WRITTEN_AT_ONCE) {
        let numbers = first..(first + WRITTEN_AT_ONCE).min(count);
        let mut commands = String::new();
        for number in numbers.clone() {
            let key = derived.revocation_key(Kind::Session, "", revoked(number).as_bytes());
            let name = format!("portcullis:{{{:02x}}}:r:{key}", key.0[0]);
            let value = format!("D;{note}");
            commands.push_str("*5\r\n");
            for argument in ["SET", &name, &value, "EX", "86400"] {
                commands.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
            }
        }
        stream.write_all(commands.as_bytes())?;
        let mut replies = vec![0; "+OK\r\n".len() * numbers.len()];
        stream.read_exact(&mut replies).context("Redis does not take the revocations")?;
        ensure!(replies.chunks(5).all(|reply| reply == b"+OK\r\n"), "Redis refuses a revocation");
    }
    Ok(())
}

fn revoked(number: usize) -> String {
    format!("revoked {number}")
}

/// Each with one revoked key and many that are not, like sessions in use.
fn questions(derived: &DerivedKeys, revocations: usize) -> anyhow::Result<Vec<Question>> {
    let needs = Needs { future_iat_tolerance_seconds: 0, now_seconds: now()? };
    let key = |id: &str| derived.revocation_key(Kind::Session, "", id.as_bytes());
    let make = |number: usize| {
        let mut keys = vec![key(&revoked(number * revocations / QUESTIONS))];
        keys.resize_with(KEYS, || key(&random_id()));
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Question::new(derived, nonce, needs, &keys).context("a question")
    };
    (0..QUESTIONS).map(make).collect()
}

/// The check as Envoy sends it.
fn whole(question: &Question, service: std::net::SocketAddr) -> Vec<u8> {
    let body = question.bytes();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {service}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n\
         x-envoy-internal: true\r\nx-forwarded-for: 127.0.0.1\r\nx-envoy-expected-rq-timeout-ms: 1000\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
