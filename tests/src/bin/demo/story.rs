//! The walk: six steps, each of which asks the running mesh and judges the answers. Nothing is waited for but seen.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{FilterHost, wait_until};
use serde_json::json;

use crate::mesh::{EC, Login, Mesh, RSA, WORKERS, url};
use crate::partner::{MAX_AGE, Partner};
use crate::reply::{Ask, Reply};
use crate::show::Show;

const ORDERS: &str = "/api/orders";
const ADMIN: &str = "/api/admin/users";
const PUBLIC: &str = "/healthz";

/// How much later than the cache time a revocation may show: the way to the service, and our looking.
const GRACE: Duration = Duration::from_millis(500);
/// The longest that anything here is waited for.
const DEADLINE: Duration = Duration::from_secs(15);
/// New connections go to any worker: so many refusals in a row that none of them can be the one that still passes.
const REFUSALS_IN_A_ROW: u32 = 16;

/// Returns whether every step did what it says.
pub async fn tell(mesh: &mut Mesh) -> bool {
    let mut story = Story { mesh, show: Show::new() };
    story.introduce();
    story.a_token_passes().await;
    story.what_is_wrong_is_refused().await;
    let ended = story.a_session_is_ended().await;
    story.a_user_is_logged_out_everywhere().await;
    story.an_issuer_changes_its_keys().await;
    story.redis_is_lost_and_comes_back(&ended).await;
    story.show.table()
}

struct Story<'a> {
    mesh: &'a mut Mesh,
    show: Show,
}

/// How a session that passed ended, as seen by asking again and again. Times count from where the asker says.
struct Ending {
    refusal: Reply,
    first_refused: Duration,
    last_passed: Option<Duration>,
}

impl Story<'_> {
    fn introduce(&self) {
        let (mesh, show) = (&self.mesh, &self.show);
        println!("Portcullis at work. All of it runs on this machine, for as long as this takes:");
        show.say(format!(
            "Envoy      {}, {WORKERS} workers, envoy/{} and envoy/filter.yaml",
            url(mesh.envoy.address(), ""),
            FilterHost::chosen().bootstrap()
        ));
        show.say(format!("service    {}, and for operators {}", mesh.service.address(), mesh.service.admin_address()));
        show.say(format!("Redis      {}, every write on disk", mesh.redis.address()));
        show.say(format!("upstream   {}, answers with what it received", mesh.upstream.address()));
        show.say(format!("issuer     {}: `portcullis mint`", mesh.issuer.name));
        show.say(format!("partner    {}: publishes its keys at {}", mesh.partner.name, mesh.partner.address()));
        show.say(format!("An answer of the service counts for {} s.", mesh.freshness.as_secs()));
    }

    async fn a_token_passes(&mut self) {
        self.show.heading("A signed token passes, and the upstream learns who asks");
        let alice = self.sign(&Login::new(RSA, "alice", "alice-laptop"));
        let reply = self.ask(&Ask::get(ORDERS).token(&alice).note("alice")).await;
        let told = reply.passed() && reply.told("x-user-id", "alice") && reply.told("x-user-scope", "orders");
        self.show.claim(told, "the token's sub and scope reached the upstream as headers");
        self.show.claim(reply.upstream.is_some_and(|received| !received.token), "the token itself did not");

        let reply = self.ask(&Ask::get(ORDERS).token(&alice).header("X-User-Id", "root").note("alice")).await;
        self.show
            .claim(reply.passed() && reply.told("x-user-id", "alice"), "an identity that the client made up is gone");
        let reply = self.ask(&Ask::get(PUBLIC).header("X-User-Id", "root")).await;
        let nobody = reply.passed() && reply.upstream.is_some_and(|received| received.identity.is_empty());
        self.show.claim(nobody, "on the public route too, which needs no token");

        let root = Login {
            claims: json!({ "scope": "orders", "roles": ["staff", "admin"] }),
            ..Login::new(EC, "root", "root-console")
        };
        let root = self.sign(&root);
        let reply = self.ask(&Ask::get(ADMIN).token(&root).note("root, an admin")).await;
        self.show.claim(
            reply.passed() && reply.told("x-user-id", "root"),
            "an admin passes where only admins do, with a token signed by ES256",
        );
    }

    async fn what_is_wrong_is_refused(&mut self) {
        self.show.heading("What is wrong is refused, each with its reason");
        let login = || Login::new(RSA, "alice", "alice-laptop");
        let forger = self.mesh.issuer.foreign_key(EC.0);
        let forged = Login { forged_with: Some(&forger), ..Login::new(EC, "alice", "alice-laptop") };
        let expired = Login { lifetime: "-1m", ..login() };
        let elsewhere = json!({ "scope": "orders", "iss": "https://elsewhere.example" });
        let elsewhere = Login { claims: elsewhere, ..login() };
        let profile = Login { claims: json!({ "scope": "profile" }), ..login() };
        let cases = [
            ("no token", ORDERS, None, 401, "TOKEN_MISSING"),
            ("signed with another key under the same key id", ORDERS, Some(forged), 403, "SIG_MISMATCH"),
            ("expired a minute ago", ORDERS, Some(expired), 401, "JWT_EXPIRED"),
            ("of an issuer that is not ours", ORDERS, Some(elsewhere), 401, "INVALID_ISSUER"),
            ("without the scope that the route asks for", ORDERS, Some(profile), 403, "SCOPE_INSUFFICIENT"),
            ("without the role that admins have", ADMIN, Some(login()), 403, "CLAIM_INSUFFICIENT"),
        ];
        for (what, path, login, status, code) in cases {
            let mut ask = Ask::get(path).note(what);
            if let Some(login) = login {
                ask = ask.token(&self.sign(&login));
            }
            let reply = self.ask(&ask).await;
            self.show.claim(reply.is(status, code), format!("refused with {status} {code}"));
        }
    }

    /// Returns the session that was ended.
    async fn a_session_is_ended(&mut self) -> Ask {
        self.show.heading("A session is ended");
        let laptop = self.session(RSA, "alice", "alice-laptop");
        let phone = self.session(RSA, "alice", "alice-phone");
        let (first, second) = (self.ask(&laptop).await, self.ask(&phone).await);
        self.show.claim(first.passed() && second.passed(), "alice's two sessions pass");

        let Some(returned) =
            self.revoke("session", "alice-laptop", "the laptop was lost").await.map(|_| Instant::now())
        else {
            return laptop;
        };
        let ending = self.until_refused(&laptop, returned).await;
        self.judge_revoked(&laptop, ending);
        let reply = self.ask(&phone).await;
        self.show.claim(reply.passed(), "alice's other session still passes");
        laptop
    }

    async fn a_user_is_logged_out_everywhere(&mut self) {
        self.show.heading("A user is logged out everywhere, and logs in again");
        let phone = self.session(RSA, "bob", "bob-phone");
        let tablet = self.session(EC, "bob", "bob-tablet");
        let (first, second) = (self.ask(&phone).await, self.ask(&tablet).await);
        self.show.claim(first.passed() && second.passed(), "bob's two sessions pass");

        let Some(answer) = self.revoke("user", "bob", "bob asked for it").await else { return };
        let returned = Instant::now();
        let (ended, also) = tokio::join!(self.until_refused(&phone, returned), self.until_refused(&tablet, returned));
        self.judge_revoked(&phone, ended);
        self.judge_revoked(&tablet, also);

        let Some(before) = answer["before"].as_u64() else {
            return self.show.claim(false, "the service said which tokens it ended: those issued before when");
        };
        let ready = wait_until(DEADLINE, async || unix_now() >= before).await;
        let again = self.session(RSA, "bob", "bob-phone-2");
        let reply = self.ask(&again).await;
        self.show.claim(ready && reply.passed(), format!("his next login, issued at {before} or later, passes"));
        let old = self.ask(&phone).await;
        self.show.claim(old.is(403, "SESSION_REVOKED"), "his older token is still refused");
    }

    async fn an_issuer_changes_its_keys(&mut self) {
        self.show.heading("An issuer changes its keys, and no good token is refused");
        let new = Partner::key("new");
        let partner = &self.mesh.partner;
        let earlier =
            Ask::get(ORDERS).token(&partner.sign(&partner.first, "dana")).note("dana, signed with the old key");
        let later = Ask::get(ORDERS).token(&partner.sign(&new, "dana")).note("dana, signed with the new key");
        let reply = self.ask(&earlier).await;
        self.show.claim(reply.passed(), "a token of the partner passes: its key was fetched");

        self.show.say("it publishes a second key, and signs with it at once");
        self.mesh.partner.publish(&[&self.mesh.partner.first, &new]);
        let asked = Instant::now();
        let reply = self.ask(&later).await;
        let took = asked.elapsed().as_millis();
        self.show.claim(reply.passed(), format!("the new key's token passes: it waited {took} ms for one fetch"));
        self.show.measured(format!("new key after {took} ms"));
        let reply = self.ask(&earlier).await;
        self.show.claim(reply.passed(), "the old key's token still passes");

        self.show.say(format!("it takes the old key away; its answers may be kept for {} s", MAX_AGE.as_secs()));
        self.mesh.partner.publish(&[&new]);
        let removed = Instant::now();
        let ending = self.until_refused(&earlier, removed).await;
        self.show.repeated(earlier.curl(self.mesh.envoy.address()));
        let fetched = self.mesh.partner.fetched_after(removed);
        if let (Some(Ending { refusal, last_passed, .. }), Some(fetched)) = (ending, fetched) {
            self.show.answered(&refusal);
            let last_passed = removed + last_passed.unwrap_or_default();
            let lag = last_passed.saturating_duration_since(fetched).as_millis();
            let allowed = Duration::from_secs(1).as_millis();
            self.show.claim(
                lag <= allowed && refusal.is(401, "KEY_UNKNOWN"),
                format!(
                    "fetched {} ms later; the last token passed {lag} ms after that",
                    (fetched - removed).as_millis()
                ),
            );
            self.show.measured(format!("old key gone {lag} ms after the fetch"));
        } else {
            self.show.claim(false, "the old key's token is refused");
        }
        let reply = self.ask(&later).await;
        self.show.claim(reply.passed(), "the new key's token passes");
        let fetches = self.mesh.partner.fetches();
        self.show
            .claim(fetches <= 4, format!("{fetches} fetches in all, by one virtual machine for {WORKERS} workers"));
    }

    async fn redis_is_lost_and_comes_back(&mut self, ended: &Ask) {
        self.show.heading("Redis stops, and comes back");
        // Nobody has asked about this session yet, so the answer is new.
        let carol = self.session(EC, "carol", "carol-laptop");
        let asked = Instant::now();
        let reply = self.ask(&carol).await;
        self.show.claim(reply.passed(), "carol's session passes");

        self.show.typed(format!("kill -TERM {}  # Redis", self.mesh.redis.process().id()));
        let stopped = self.mesh.redis.process().stop();
        self.show.claim(stopped, "Redis has stopped");
        let reply = self.ask(&carol).await;
        self.show.claim(reply.passed(), "her session still passes: the last answer is still fresh");
        let ending = self.until_refused(&carol, asked).await;
        self.show.repeated(carol.curl(self.mesh.envoy.address()));
        if let Some(Ending { refusal, first_refused, last_passed }) = ending {
            self.show.answered(&refusal);
            let limit = self.mesh.freshness + GRACE;
            let in_time = first_refused <= limit && last_passed.is_none_or(|passed| passed <= limit);
            let after = first_refused.as_millis();
            self.show.claim(
                in_time && refusal.is(503, "REDIS_CONN_REFUSED"),
                format!("{after} ms after it was last checked, the session cannot be checked any more: 503 REDIS_CONN_REFUSED"),
            );
            self.show.measured(format!("503 after {after} ms"));
        } else {
            self.show.claim(false, "her session is refused once the session cannot be checked any more");
        }
        let reply = self.ask(&Ask::get(PUBLIC)).await;
        self.show.claim(reply.passed(), "the public route answers all the while");

        self.show.typed("redis-server …  # again, with the data that it had");
        self.mesh.redis.restart().await;
        let back = Instant::now();
        let (mut reply, mut strange) = (None, None);
        let recovered = wait_until(DEADLINE, async || {
            let now = self.mesh.send(&carol).await;
            let passed = now.passed();
            if !passed && now.status != 503 {
                strange = Some(now.clone());
            }
            reply = Some(now);
            passed
        })
        .await;
        let after = back.elapsed().as_millis();
        self.show.repeated(carol.curl(self.mesh.envoy.address()));
        if let Some(reply) = &reply {
            self.show.answered(reply);
        }
        if let Some(strange) = &strange {
            self.show.say(format!("and before that: {strange}"));
        }
        let claim = format!("{after} ms after Redis answered again, all passes again: nothing else was restarted");
        self.show.claim(recovered && strange.is_none(), claim);
        self.show.measured(format!("back after {after} ms"));
        let reply = self.ask(ended).await;
        self.show.claim(reply.is(403, "SESSION_REVOKED"), "the session that alice lost is still ended");
    }

    /// A request of a login that has just happened.
    fn session(&self, key: (&str, &str), user: &str, session: &'static str) -> Ask {
        Ask::get(ORDERS).token(&self.sign(&Login::new(key, user, session))).note(session)
    }

    fn sign(&self, login: &Login<'_>) -> String {
        self.mesh.issuer.sign(login)
    }

    /// Sends it and shows both sides.
    async fn ask(&self, ask: &Ask) -> Reply {
        self.show_request(ask);
        let reply = self.mesh.send(ask).await;
        self.show.answered(&reply);
        reply
    }

    fn show_request(&self, ask: &Ask) {
        self.show.typed(ask.curl(self.mesh.envoy.address()));
    }

    /// Runs the real command; its answer, when it says that the revocation holds.
    async fn revoke(&mut self, kind: &str, id: &str, reason: &str) -> Option<serde_json::Value> {
        let arguments = ["revoke", kind, "--issuer", &self.mesh.issuer.name, "--id", id, "--reason", reason];
        let typed =
            format!("portcullis revoke {kind} --issuer {} --id {id} --reason '{reason}'", self.mesh.issuer.name);
        self.show.typed(typed);
        match self.mesh.revoke(&arguments) {
            Ok(answer) => {
                let word = |name: &str| answer[name].to_string().trim_matches('"').to_owned();
                let before = answer["before"].as_u64().map(|before| format!(", issued before {before}"));
                let before = before.unwrap_or_default();
                self.show.answered(format!(
                    "key {}: {}{before}, on disk: {}",
                    word("key"),
                    word("answer"),
                    word("on_disk")
                ));
                Some(answer)
            }
            Err(error) => {
                self.show.answered(error);
                self.show.claim(false, "the command says that it is done");
                None
            }
        }
    }

    /// Asks until it is refused, on both workers; none if that never comes.
    async fn until_refused(&self, ask: &Ask, since: Instant) -> Option<Ending> {
        let mut ending: Option<Ending> = None;
        let (mut last_passed, mut in_a_row) = (None, 0);
        wait_until(DEADLINE, async || {
            let reply = self.mesh.send(ask).await;
            let after = since.elapsed();
            if reply.passed() {
                last_passed = Some(after);
                in_a_row = 0;
            } else {
                in_a_row += 1;
                ending.get_or_insert(Ending { refusal: reply, first_refused: after, last_passed: None });
            }
            in_a_row >= REFUSALS_IN_A_ROW
        })
        .await
        .then_some(())?;
        ending.map(|ending| Ending { last_passed, ..ending })
    }

    fn judge_revoked(&mut self, ask: &Ask, ending: Option<Ending>) {
        self.show.repeated(ask.curl(self.mesh.envoy.address()));
        let limit = self.mesh.freshness + GRACE;
        let Some(Ending { refusal, first_refused, last_passed }) = ending else {
            return self.show.claim(false, "refused, at last");
        };
        self.show.answered(&refusal);
        let in_time = first_refused <= limit && last_passed.is_none_or(|passed| passed <= limit);
        let after = first_refused.as_millis();
        let allowed = limit.as_millis();
        self.show.claim(
            in_time && refusal.is(403, "SESSION_REVOKED"),
            format!("first refused {after} ms after the command returned, for good ({allowed} ms are allowed)"),
        );
        self.show.measured(format!("refused after {after} ms"));
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
