//! Tests that keep the machine busy from start to end. They run one at a time.
mod memory;
mod migration;
mod strangers;
mod upgrade;
