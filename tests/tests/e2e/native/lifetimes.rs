//! Configurations, requests and callouts that end while others go on.
use super::*;

/// The service answers this late, and without proof: a request that gets its answer is refused with 503.
const LATE: Duration = Duration::from_secs(2);
/// How long a request may wait for the service: longer than [`LATE`], so that its answer is what ends the wait.
const PATIENT: &str = "5s";
const WAITING: usize = 20;

struct Late {
    mesh: Mesh,
    service: Upstream,
}

/// Envoy in front of a service that answers late.
async fn late(name: &str, late: Duration, drain: Duration) -> Late {
    let service = Upstream::answering(move |_| Answer::new(200, "late").after(late)).await;
    let mut options =
        MeshOptions { check_address: Some(service.address()), listener_from_file: true, drain, ..native() };
    options.filter["revocation"]["timeout"] = PATIENT.into();
    options.filter["revocation"]["freshness"] = "5s".into();
    Late { mesh: Mesh::start_with(name, options).await, service }
}

impl Late {
    /// Requests of new sessions, when all of them wait. The tasks end with the status, or nothing if Envoy closes.
    async fn waiting(&self) -> JoinSet<Option<u16>> {
        let mut requests = JoinSet::new();
        for _ in 0..WAITING {
            let (address, request) = (self.mesh.envoy.address(), Request::get("/api").bearer(&self.mesh.token()));
            requests.spawn(async move { exchange(address, &request).await.ok().map(|response| response.status) });
        }
        let wanted = u64::try_from(WAITING).expect("small");
        let all = wait_until(SOON, async || self.active().await >= wanted && self.service.requests() > 0);
        assert!(all.await, "requests do not wait");
        requests
    }

    /// Replaces the configuration by one that differs, and waits until the listener with it is there.
    async fn replace(&self) {
        let before = self.mesh.envoy.stat("listener_manager.lds.update_success").await;
        self.mesh.envoy.update_listener(r#"\"timeout\":\"5s\""#, r#"\"timeout\":\"4900ms\""#);
        let replaced =
            wait_until(SOON, async || self.mesh.envoy.stat("listener_manager.lds.update_success").await > before);
        assert!(replaced.await, "no update");
    }

    async fn drained(&self) -> bool {
        wait_until(SOON, async || self.mesh.envoy.stat("listener_manager.total_listeners_draining").await == 0).await
    }

    async fn active(&self) -> u64 {
        self.mesh.envoy.stat("http.main.downstream_rq_active").await
    }

    /// It lives, decides, and nothing is left behind.
    async fn assert_unharmed(mut self) {
        assert_eq!(self.mesh.get("garbage").await.status, 401);
        assert_eq!(self.mesh.send(&Request::get("/public")).await.status, 200);
        let idle = wait_until(SOON, async || {
            let waiting = self.mesh.envoy.stats("portcullis.waiting_requests").await;
            self.active().await == 0 && waiting.iter().all(|(_, value)| *value == 0)
        });
        assert!(idle.await, "requests are left behind: {:?}", self.mesh.envoy.stats("waiting_requests").await);
        self.mesh.envoy.process().assert_running();
        let log = self.mesh.envoy_log();
        assert!(!log.contains("a fault in the module"), "{log}");
        assert!(self.mesh.envoy.process().stop(), "it does not stop");
    }
}

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_while_their_configuration_is_replaced_are_answered() {
    let late = late("native-replaced", LATE, Duration::from_secs(10)).await;
    let requests = late.waiting().await;
    late.replace().await;
    assert_eq!(late.active().await, u64::try_from(WAITING).expect("small"), "the update came too late for this test");
    let statuses = requests.join_all().await;
    assert_eq!(statuses, [Some(503); WAITING]);
    late.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_reset_during_its_callout_leaves_nothing_behind() {
    let late = late("native-reset", LATE, Duration::from_secs(1)).await;
    let mut requests = late.waiting().await;
    requests.abort_all();
    while requests.join_next().await.is_some() {}
    assert!(wait_until(SOON, async || late.active().await == 0).await, "Envoy keeps requests without a client");
    // The answers come to nobody.
    sleep(LATE).await;
    late.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_after_its_configuration_has_gone() {
    let late = late("native-gone", LATE * 2, Duration::from_secs(1)).await;
    let mut requests = late.waiting().await;
    requests.abort_all();
    while requests.join_next().await.is_some() {}
    late.replace().await;
    assert!(late.drained().await, "the old listener does not drain");
    sleep(LATE * 2).await;
    late.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_has_drained_ends_the_requests_that_still_wait() {
    let late = late("native-drained", Duration::from_secs(8), Duration::from_secs(1)).await;
    let requests = late.waiting().await;
    late.replace().await;
    assert!(late.drained().await, "the old listener does not drain");
    let statuses = timeout(SOON, requests.join_all()).await.expect("every request ends");
    assert!(statuses.iter().all(|status| matches!(status, None | Some(503))), "{statuses:?}");
    late.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_stops_while_requests_wait() {
    let mut late = late("native-stopped", Duration::from_secs(8), Duration::from_secs(1)).await;
    let requests = late.waiting().await;
    assert!(late.mesh.envoy.process().stop(), "it does not stop:\n{}", late.mesh.envoy_log());
    let log = late.mesh.envoy_log();
    assert!(!log.contains("Caught") && !log.contains("a fault in the module"), "{log}");
    let statuses = timeout(SOON, requests.join_all()).await.expect("every request ends");
    assert!(statuses.iter().all(|status| matches!(status, None | Some(503))), "{statuses:?}");
}
