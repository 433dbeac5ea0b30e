//! The store seen from the service: model types, one trait for each use, errors, and a conformance suite. Nothing here
//! knows a database.
//!
//! A store implements [`RevocationStore`], [`RevocationLog`], [`SessionStore`], [`AuditLog`], [`ReplayGuard`],
//! [`IssuerRegistry`] and [`SightingStore`], usually with one type, and passes the suite in `conformance` (feature `conformance`). `store-redis` and `store-embedded` are two. Keys and names
//! are HMACs, and notes are encrypted, before they come here: no store learns an identity.
//!
//! An empty store does not mean that nothing is revoked. A store proves its identity ([`StoreId`]) with each answer.
//!
//! ```
//! use std::time::Duration;
//!
//! use store::memory::{Contents, MemoryStore};
//! use store::{Ends, Revocation, RevocationStore, StoreError, StoreId};
//! use wire::{Answer, RevocationKey};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let contents = Contents::default();
//! contents.create(StoreId::new([7; 16]));
//! let store = MemoryStore::open(&contents, Duration::ZERO);
//!
//! let key = RevocationKey([1; 16]);
//! assert_eq!(store.check(&[key]).await, Ok(vec![Answer::Live]));
//! let ttl = Some(Duration::from_secs(3600));
//! store.revoke(vec![Revocation { key, ends: Ends::ForGood, sealed: Vec::new(), ttl }]).await.expect("a good store");
//! assert_eq!(store.check(&[key]).await, Ok(vec![Answer::Dead]));
//!
//! contents.lose();
//! assert_eq!(store.check(&[key]).await, Err(StoreError::StoreChanged));
//! # }
//! ```
#![allow(clippy::arithmetic_side_effects, reason = "sums of small numbers, and no code of the proxy")]
#![forbid(unsafe_code)]

mod audit;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod export;
mod identity;
mod issuers;
#[cfg(feature = "memory")]
pub mod memory;
mod observer;
mod replay_guard;
mod revocation_log;
mod revocations;
mod sessions;
mod sightings;
mod stores;
pub mod throttle;

pub use audit::{AuditBounds, AuditEntry, AuditFrom, AuditId, AuditIdError, AuditLog};
pub use error::{StoreError, WriteError};
pub use export::{Export, ExportName, Exported, ExportedSession};
pub use identity::{StoreId, StoreIdError};
pub use issuers::{IssuerBounds, IssuerRegistry, KnownIssuer};
pub use observer::{Observer, Unobserved};
pub use replay_guard::{Claim, PROOF, ReplayGuard, STATUS_INDEX};
pub use revocation_log::{Change, LogEntry, Place, RevocationLog, ShardNews};
pub use revocations::{
    Durability, Ending, Ends, InForce, Lifted, ListError, MergedRevocation, Page, Revocation, RevocationStore,
    StoredRevocation, Written,
};
pub use sessions::{IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionRecord, SessionStore, SubjectName};
pub use sightings::SightingStore;
pub use stores::Stores;

/// Makes a test of each case of the suite. `$fixture` is awaited and gives a [`conformance::Fixture`].
#[cfg(feature = "conformance")]
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
            what_another_store_has_is_merged_in_any_order,
            what_is_here_already_is_not_merged_again,
            many_entries_are_shown_at_once,
        );
        $crate::conformance_tests!(@module $fixture, revocation_log:
            what_is_acknowledged_before_a_call_is_in_its_news,
            entries_come_in_the_order_of_the_writes,
            a_repeated_revocation_and_a_lift_are_entries_too,
            what_has_expired_or_was_lifted_is_not_read_anew,
            a_follower_that_is_far_behind_reads_anew,
            shards_are_in_the_order_of_keys,
            a_place_of_another_history_is_a_gap,
            a_lost_store_is_not_followed,
            concurrent_writers_are_all_followed,
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
        $crate::conformance_tests!(@module $fixture, sightings:
            a_record_is_read_as_it_was_written_by_every_instance,
            only_the_record_that_was_read_is_replaced,
            a_record_expires,
            of_concurrent_writers_one_replaces_the_record,
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
