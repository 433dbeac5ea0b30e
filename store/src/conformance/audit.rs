//! The audit log: order, pages, bounds.
use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::{Fixture, LONG, SHORT, after_short};
use crate::{AuditBounds, AuditEntry, AuditFrom, AuditId, AuditLog};

const BOUNDS: AuditBounds = AuditBounds { max_age: LONG, max_entries: 10_000 };
const BEGIN: AuditId = AuditId { millis: 0, number: 0 };

async fn append(log: &dyn AuditLog, entries: std::ops::Range<u32>) {
    for entry in entries {
        log.append(entry.to_be_bytes().to_vec(), BOUNDS).await.unwrap();
    }
}

fn numbers(entries: &[AuditEntry]) -> Vec<u32> {
    entries.iter().map(|entry| u32::from_be_bytes(entry.sealed.clone().try_into().unwrap())).collect()
}

pub async fn entries_are_paged_in_the_order_of_appending(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.audit, fixture.open().await.audit);
    assert_eq!(one.page(AuditFrom::After(BEGIN), 10, LONG).await, Ok(vec![]));
    append(&*one, 0..25).await;
    let (mut found, mut after) = (Vec::new(), BEGIN);
    loop {
        let page = other.page(AuditFrom::After(after), 10, LONG).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 10);
        after = last.id;
        found.extend(page);
    }
    assert_eq!(numbers(&found), (0..25).collect::<Vec<_>>());
    assert!(found.windows(2).all(|pair| pair[0].id < pair[1].id), "{found:?}");
    // A time in place of an id.
    let later = AuditId { millis: after.millis + 1, number: 0 };
    assert_eq!(other.page(AuditFrom::After(later), 10, LONG).await, Ok(vec![]));
}

pub async fn the_newest_page_is_in_order_too(fixture: &impl Fixture) {
    let log = fixture.open().await.audit;
    append(&*log, 0..25).await;
    assert_eq!(numbers(&log.page(AuditFrom::Last, 4, LONG).await.unwrap()), [21, 22, 23, 24]);
    assert_eq!(numbers(&log.page(AuditFrom::Last, 100, LONG).await.unwrap()).len(), 25);
}

pub async fn old_entries_are_not_listed(fixture: &impl Fixture) {
    let log = fixture.open().await.audit;
    append(&*log, 0..3).await;
    after_short().await;
    append(&*log, 3..5).await;
    for from in [AuditFrom::Last, AuditFrom::After(BEGIN)] {
        assert_eq!(numbers(&log.page(from, 10, SHORT).await.unwrap()), [3, 4]);
        assert_eq!(numbers(&log.page(from, 10, LONG).await.unwrap()), [0, 1, 2, 3, 4]);
    }
}

pub async fn the_number_of_entries_is_bounded(fixture: &impl Fixture) {
    let log = fixture.open().await.audit;
    let bounds = AuditBounds { max_entries: 100, ..BOUNDS };
    for entry in 0..1000_u32 {
        log.append(entry.to_be_bytes().to_vec(), bounds).await.unwrap();
    }
    let left = numbers(&log.page(AuditFrom::After(BEGIN), 10_000, LONG).await.unwrap());
    assert!((100..=400).contains(&left.len()), "{} entries are left", left.len());
    assert_eq!(left.last(), Some(&999), "the oldest go first");
    assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

pub async fn concurrent_entries_are_all_kept(fixture: &impl Fixture) {
    let logs = [fixture.open().await.audit, fixture.open().await.audit];
    let mut tasks = JoinSet::new();
    for task in 0..8_u32 {
        let log = logs[task as usize % 2].clone();
        tasks.spawn(async move { append(&*log, task * 20..task * 20 + 20).await });
    }
    tasks.join_all().await;
    let found = numbers(&logs[0].page(AuditFrom::After(BEGIN), 1000, LONG).await.unwrap());
    assert_eq!(found.len(), 160);
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), (0..160).collect());
}
