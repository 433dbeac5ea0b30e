//! Asks a service how long it keeps revocations, and compares that with what each issuer's tokens need.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authn::revocation::Revocation;
use ureq::Agent;
use wire::check::{CONTENT_TYPE, MAX_REPLY_BYTES, Needs, PATH, Question, Reply, StoreError};
use wire::{Retention, RevocationKey};

use crate::document::Compiled;
use crate::surroundings::Remark;

/// Longer than the service waits for Redis.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is wrong between this configuration and the service at `url`.
pub fn remarks(compiled: &Compiled, url: &str) -> Vec<Remark> {
    let Some(revocation) = compiled.policy.revocation() else { return Vec::new() };
    let of_service = |message: String| vec![Remark { is_error: true, field: "--service".into(), message }];
    if !compiled.assumed.is_empty() {
        return of_service(format!(
            "cannot be asked without the secret: `{}` is a placeholder",
            compiled.assumed.join("`, `")
        ));
    }
    match ask(revocation, url) {
        Ok(Ok(reply)) => too_short(compiled, reply.keeps),
        Ok(Err(trouble)) => of_service(format!("{url} answers {}: docs/operations.md", trouble.name())),
        Err(why) => of_service(format!("{url}: {why}")),
    }
}

fn ask(revocation: &Revocation, url: &str) -> Result<Result<Reply, StoreError>, String> {
    let mut nonce = [0; 16];
    // Of so many characters, all random.
    nonce.iter_mut().zip(::mint::random_id().bytes()).for_each(|(to, from)| *to = from);
    let now_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let needs = Needs {
        future_iat_tolerance_seconds: u16::try_from(revocation.future_iat_tolerance).unwrap_or(u16::MAX),
        now_seconds,
    };
    let question = Question::new(&revocation.derived, nonce, needs, &[RevocationKey(nonce)]);
    let question = question.map_err(|error| error.to_string())?;
    let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let answer = Agent::new_with_config(config)
        .post(format!("{}{PATH}", url.trim_end_matches('/')))
        .header("content-type", CONTENT_TYPE)
        .send(question.bytes())
        .and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(MAX_REPLY_BYTES as u64 + 1).read_to_vec()?;
            Ok((answer.status().as_u16(), body))
        });
    let (status, body) = answer.map_err(|error| format!("cannot be reached: {error}"))?;
    if status == 401 {
        return Err("does not accept this secret".to_owned());
    }
    question.read_reply(&revocation.derived, status, &body).map_err(|error| format!("answers {status}: {error}"))
}

fn too_short(compiled: &Compiled, keeps: Retention) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for named in compiled.policy.issuers_asked_about() {
        let Some(place) = compiled.policy.issuer_index(&named.issuer) else { continue };
        let mut compare = |field: &str, flag: &str, needs: u32, keeps: u32| {
            if needs > keeps {
                remarks.push(Remark {
                    is_error: true,
                    field: format!("issuers[{place}].{field}"),
                    message: format!(
                        "revocations must be kept for {needs} s (with `skew` and `revocation.future_iat_tolerance`), and the service \
                         keeps them for {keeps} s: its tokens would be refused with STORE_UNAVAILABLE (retention_too_short). \
                         Lower this, or raise {flag} of `portcullis serve`"
                    ),
                });
            }
        };
        compare("max_lifetime", "--max-lifetime", named.needs.token, keeps.token);
        compare("max_session", "--max-session", named.needs.login, keeps.login);
    }
    remarks
}
