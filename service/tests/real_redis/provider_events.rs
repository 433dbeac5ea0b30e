//! Logout tokens, security events and revocation requests, good and bad, as providers and attackers send them.
mod events;
mod global_revocation;
mod keys;
mod logout;
mod pending;
mod poll;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mint::{Alg, SigningKey, random_id, to_base64url};
use serde_json::{Value, json};
use wire::{Answer, Kind};

use crate::provider::*;
use crate::support::*;

struct Stack {
    jwks: Jwks,
    service: Running,
    redis: Redis,
    key: SigningKey,
}

fn stack() -> Stack {
    stack_with(json!({}))
}

fn stack_with(members: Value) -> Stack {
    let key = key_of(Alg::EdDSA, "k");
    let says = Says::Body(set(&[&key]));
    stack_of(key, says, members)
}

/// The provider says something else than its keys.
fn stack_saying(says: Says, members: Value) -> Stack {
    stack_of(key_of(Alg::EdDSA, "k"), says, members)
}

fn stack_of(key: SigningKey, says: Says, members: Value) -> Stack {
    let jwks = Jwks::saying(says);
    let redis = Redis::start();
    let provider = with(provider(&jwks.uri()), &members);
    let service =
        Running::start(service::Options { providers_file: providers(&redis, &[provider]), ..options(&redis) });
    Stack { jwks, service, redis, key }
}

impl Stack {
    fn is(&self, kind: Kind, id: &str) -> Answer {
        self.service.check(&[key(kind, id)]).unwrap()[0]
    }

    fn revocations(&self) -> usize {
        // A machine that is busy may be too slow for the service's time limits.
        let page = eventually(NOTICED, || {
            let (status, page) = self.service.admin("GET", "/v1/revocations?limit=1000", "");
            (status == 200).then_some(page)
        });
        page["revocations"].as_array().unwrap().len()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What anybody can send: this provider's claims under a key that it does not have.
fn forged(kid: &str) -> String {
    typed(&key_of(Alg::EdDSA, kid), "logout+jwt", &logout_claims())
}

const NOTICED: Duration = Duration::from_secs(10);
