//! Tests that keep the machine busy from their first to their last second. They run one at a time.
mod memory;
mod migration;
mod strangers;
mod upgrade;
