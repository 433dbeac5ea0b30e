//! A DynamoDB server of its own for each test: dynalite. `DYNALITE` names its cli.js.
#![allow(dead_code, reason = "each test uses a part")]
pub mod follower;
pub mod region;
pub mod replication;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest, ScalarAttributeType,
    WriteRequest,
};
use store::{Stores, Unobserved};
use store_dynamodb::{Config, DynamoStore, TableName};

pub const TABLE: &str = "portcullis";

pub struct Server {
    process: Child,
    pub port: u16,
    pub client: Client,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_in(None, 0).await
    }

    /// With its data in a folder, so that it survives; on a port that it had before.
    pub async fn start_in(folder: Option<&str>, port: u16) -> Self {
        let program = std::env::var("DYNALITE").expect("DYNALITE names dynalite's cli.js");
        let mut command = Command::new("node");
        command.arg(program).args(["--host", "127.0.0.1", "--createTableMs", "0", "--deleteTableMs", "0"]);
        command.args([
            "--port",
            &match port {
                0 => free_port(),
                port => port,
            }
            .to_string(),
        ]);
        if let Some(folder) = folder {
            command.args(["--path", folder]);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().expect("node starts");
        let mut line = String::new();
        let reads = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
        reads.unwrap();
        let port = line.trim().rsplit_once(':').expect("dynalite says where it listens").1.parse().unwrap();
        let client = client(port);
        let server = Self { process, port, client };
        if server.client.list_tables().send().await.unwrap().table_names().is_empty() {
            server.make_table().await;
        }
        server
    }

    /// With further settings, as `&name=value`.
    pub fn table(&self, settings: &str) -> TableName {
        named(self.port, settings)
    }

    pub async fn make_table(&self) {
        let attribute = |name: &str| {
            let made = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
            made.build().unwrap()
        };
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let made = self.client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
        let made = made.attribute_definitions(attribute("p")).attribute_definitions(attribute("s"));
        let made = made.key_schema(key("p", KeyType::Hash)).key_schema(key("s", KeyType::Range));
        made.send().await.unwrap();
        self.is_there(true).await;
    }

    pub async fn drop_table(&self) {
        self.client.delete_table().table_name(TABLE).send().await.unwrap();
        self.is_there(false).await;
    }

    async fn is_there(&self, expected: bool) {
        for _ in 0..500 {
            let described = self.client.describe_table().table_name(TABLE).send().await;
            let status = described.ok().and_then(|reply| reply.table?.table_status);
            let active = status.as_ref().is_some_and(|status| status.as_str() == "ACTIVE");
            if (expected && active) || (!expected && status.is_none()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the table does not change");
    }

    pub async fn items(&self) -> Vec<HashMap<String, AttributeValue>> {
        let pages = self.client.scan().table_name(TABLE).consistent_read(true).into_paginator().items().send();
        pages.collect::<Result<Vec<_>, _>>().await.unwrap()
    }

    pub async fn put(&self, items: &[HashMap<String, AttributeValue>]) {
        for items in items.chunks(25) {
            let write = |item: &HashMap<_, _>| {
                let put = PutRequest::builder().set_item(Some(item.clone())).build().unwrap();
                WriteRequest::builder().put_request(put).build()
            };
            let writes = items.iter().map(write).collect();
            self.client.batch_write_item().request_items(TABLE, writes).send().await.unwrap();
        }
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([&format!("-{signal}"), &self.process.id().to_string()]).status();
        assert!(done.unwrap().success());
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `settings` as `&name=value`; the region is `eu-west-1` unless they have one.
pub fn named(port: u16, settings: &str) -> TableName {
    let region = if settings.contains("&region=") { "" } else { "&region=eu-west-1" };
    format!("dynamodb:{TABLE}?endpoint=http://127.0.0.1:{port}{region}{settings}").parse().unwrap()
}

pub fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}

/// Opens the store as one more instance.
pub async fn open(table: TableName) -> Stores {
    let config = Config { table, store_id: None, create: false, future_iat_tolerance_seconds: 1 };
    Arc::new(DynamoStore::open(&config, Arc::new(Unobserved)).await.unwrap()).into()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn client(port: u16) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(format!("http://127.0.0.1:{port}"));
    Client::from_conf(config.build())
}
