//! A mesh whose service keeps its store in DynamoDB: `make dynamodb`, which names the test server in `DYNALITE`, and in `PORTCULLIS` a
//! build of the tool that can use it.
use std::process::Command;
use std::time::Duration;

use harness::mesh::{ISSUER, claims};
use harness::{Directory, Mesh, MeshOptions, Process, Request, Service, ServiceOptions, exchange, wait_until};
use serde_json::json;

/// Far more than a revocation, a start or a recovery may take.
const SOON: Duration = Duration::from_secs(20);

fn dynalite(directory: &Directory, port: u16) -> Process {
    let mut command = Command::new("node");
    command.arg(std::env::var_os("DYNALITE").expect("make dynamodb sets DYNALITE"));
    command.args(["--host", "127.0.0.1", "--createTableMs", "0", "--port", &port.to_string()]);
    command.arg("--path").arg(directory.path().join("dynalite"));
    Process::start("dynalite", command, directory.path())
}

async fn make_table(port: u16) {
    let attribute = |name: &str| json!({ "AttributeName": name, "AttributeType": "S" });
    let key = |name: &str, kind: &str| json!({ "AttributeName": name, "KeyType": kind });
    let table = json!({
        "TableName": "portcullis",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [attribute("p"), attribute("s")],
        "KeySchema": [key("p", "HASH"), key("s", "RANGE")],
    });
    let signed =
        "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=b";
    let request = Request::new("POST", "/")
        .body(table.to_string())
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", "DynamoDB_20120810.CreateTable")
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", signed);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let made = async || exchange(address, &request).await.is_ok_and(|answer| answer.status == 200);
    assert!(wait_until(SOON, made).await, "the server makes no table");
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Node, dynalite and a build with DynamoDB: run `make dynamodb`"]
async fn a_mesh_on_dynamodb_closes_with_the_table_and_opens_with_it_again() {
    let directory = Directory::new("dynamodb");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = dynalite(&directory, port);
    make_table(port).await;
    let store = format!("dynamodb:portcullis?region=eu-west-1&endpoint=http://127.0.0.1:{port}");
    let (id, errors, code) = Service::portcullis(&["store", "create", "--store", &store]);
    assert!(code == 0 && id.trim().len() >= 32, "{code}: {id} {errors}");
    let (_, errors, code) = Service::portcullis(&["store", "create", "--store", &store]);
    assert!(code != 0 && errors.contains("holds a store already"), "{errors}");

    let mut options = MeshOptions::timed();
    options.service = Some(ServiceOptions { redis_timeout: None, ..ServiceOptions::new(store) });
    options.filter["revocation"]["feed"] = json!({ "lag": "1s" });
    let mesh =
        Mesh::try_start_in(directory, options).await.unwrap_or_else(|log| panic!("envoy does not start:\n{log}"));
    let ended = claims();
    let (token, other) = (mesh.keys.first.mint(&ended), mesh.token());
    let is_clear = async || {
        mesh.get(&other).await;
        mesh.envoy.stats("feed").await.iter().any(|(name, count)| name.contains("clear") && *count > 0)
    };
    assert!(wait_until(SOON, is_clear).await, "no token passes by the feed");
    assert_eq!(mesh.get(&token).await.status, 200);
    let end = async |sid: &str| mesh.revoke(&["session", "--issuer", ISSUER, "--id", sid]).await;
    end(ended["sid"].as_str().unwrap()).await;
    let is_refused = async || mesh.get(&token).await.json()["code"] == "SESSION_REVOKED";
    assert!(wait_until(SOON, is_refused).await);

    server.pause();
    let is_closed = async || mesh.get(&mesh.token()).await.status == 503;
    assert!(wait_until(SOON, is_closed).await, "a frozen table closes");
    server.resume();
    let is_open = async || mesh.get(&other).await.status == 200;
    assert!(wait_until(SOON, is_open).await, "it opens again");
    assert!(wait_until(SOON, is_refused).await);

    server.kill();
    assert!(wait_until(SOON, is_closed).await, "a killed table closes");
    server = dynalite(&mesh.directory, port);
    assert!(wait_until(SOON, is_open).await, "it opens again");
    assert!(wait_until(SOON, is_refused).await);
    drop(server);
}
