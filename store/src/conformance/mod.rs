//! The suite that every store must pass. A store's test target calls [`crate::conformance_tests!`] with an expression that
//! makes a [`Fixture`]; each case becomes a test of its own with a fixture of its own.
//!
//! Times are real and short, since a store's clock may be another machine's.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
pub mod audit;
pub mod identity;
pub mod issuers;
pub mod replay_guard;
pub mod revocations;
pub mod sessions;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::Stores;

/// A store under test, which is empty and complete at first. Dropped, it leaves nothing behind.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Another instance of the service opens the store. It must not create one.
    async fn open(&self) -> Stores;

    /// All data is lost, the identity included.
    async fn lose(&self);

    /// How far an issuer's clock may run ahead, as configured here. Whole seconds.
    fn future_iat_tolerance(&self) -> Duration;
}

/// A time after which an entry is gone that was to live for [`SHORT`].
const SHORT: Duration = Duration::from_millis(400);
const AFTER_SHORT: Duration = Duration::from_millis(900);
const LONG: Duration = Duration::from_secs(600);

async fn after_short() {
    sleep(AFTER_SHORT).await;
}

/// Makes a test of each case. `$fixture` is awaited.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests!(@module $fixture, revocations:
            an_unknown_key_is_live,
            answers_come_in_the_order_of_the_keys,
            before_covers_the_moment_of_the_write_and_the_tolerance,
            a_revocation_asked_for_earlier_does_not_end_what_came_later,
            dead_stays_over_before_and_a_larger_before_over_a_smaller,
            an_entry_expires_and_lives_as_long_as_the_longest_write_asked_for,
            an_endless_entry_stays_endless,
            the_note_of_what_is_in_force_is_kept,
            lifting_removes_and_counts,
            every_entry_is_listed,
            a_cursor_of_another_kind_is_refused,
            a_batch_is_written_and_read_as_one,
            what_is_acknowledged_is_readable_by_every_instance,
            concurrent_writes_leave_the_strongest,
        );
        $crate::conformance_tests!(@module $fixture, identity:
            an_empty_store_is_not_nobody_revoked,
            a_lost_store_is_not_read_written_or_listed,
        );
        $crate::conformance_tests!(@module $fixture, sessions:
            a_session_is_read_as_it_was_created,
            a_name_is_created_once,
            a_session_ends_with_its_lifetime,
            an_unused_session_ends_with_its_idle_timeout_and_a_used_one_does_not,
            a_use_within_a_step_is_not_noted_again,
            a_rotation_replaces_the_token_and_puts_its_record_first,
            a_replaced_token_is_a_race_within_the_grace_and_a_theft_after_it,
            an_unknown_token_is_a_theft,
            of_concurrent_rotations_one_is_done,
            an_ended_session_stays_ended,
            a_deleted_session_is_gone,
            a_subject_lists_its_sessions_up_to_the_bound,
            an_expired_index_entry_makes_room,
        );
        $crate::conformance_tests!(@module $fixture, replay_guard:
            a_token_is_claimed_once,
            of_concurrent_claims_one_succeeds,
            a_released_or_expired_claim_can_be_claimed_again,
            a_completed_token_is_done_for_its_time,
        );
        $crate::conformance_tests!(@module $fixture, audit:
            entries_are_paged_in_the_order_of_appending,
            the_newest_page_is_in_order_too,
            old_entries_are_not_listed,
            the_number_of_entries_is_bounded,
            concurrent_entries_are_all_kept,
        );
        $crate::conformance_tests!(@module $fixture, issuers:
            announced_issuers_are_known_to_every_instance,
            the_registry_is_bounded_and_forgets,
        );
    };
    (@module $fixture:expr, $module:ident: $($case:ident,)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let fixture = $fixture.await;
                    $crate::conformance::$module::$case(&fixture).await;
                }
            )+
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_run() {
        let sources = [
            include_str!("audit.rs"),
            include_str!("identity.rs"),
            include_str!("issuers.rs"),
            include_str!("replay_guard.rs"),
            include_str!("revocations.rs"),
            include_str!("sessions.rs"),
        ];
        let list = include_str!("mod.rs");
        let cases =
            sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("pub async fn "));
        for case in cases.filter_map(|line| line.split_once('(')).map(|(case, _)| case) {
            assert!(list.contains(&format!(" {case},\n")), "{case}");
        }
    }
}
