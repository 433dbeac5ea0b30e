//! `portcullis ready`: asks whether a service can answer, as the health check of a container without a shell.
//!
//! Exit codes: 0 it can; 1 it cannot, and the reason is printed; 2 wrong usage; 3 it cannot be reached.
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use ureq::Agent;

use crate::outcome::{Outcome, say, url};

/// Longer than the service waits for Redis.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Ready {
    /// Either listener of the service.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7700", value_parser = url)]
    service: String,
}

impl Ready {
    pub fn run(self) -> Result<Outcome> {
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
        let url = format!("{}/readyz", self.service.trim_end_matches('/'));
        let answer = Agent::new_with_config(config)
            .get(&url)
            .call()
            .and_then(|mut response| Ok((response.status().as_u16(), response.body_mut().read_to_string()?)));
        match answer {
            Ok((status, body)) => {
                say(body.trim_end());
                Ok(if status == 200 { Outcome::Done } else { Outcome::Refused })
            }
            Err(error) => {
                eprintln!("portcullis: {url}: {error}");
                Ok(Outcome::Unconfirmed)
            }
        }
    }
}
