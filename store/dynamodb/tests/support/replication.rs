//! Replication between the regions of a simulated global table: each change arrives in each other region after a random time, so in
//! any order, and not while the regions are cut from each other.
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::region::Region;

pub struct GlobalTable {
    pub regions: Vec<Region>,
    is_cut: Arc<AtomicBool>,
    /// Changes of items whose partition begins with this wait.
    held: Arc<Mutex<Option<&'static str>>>,
    under_way: Arc<AtomicUsize>,
    max_delay: Arc<AtomicU64>,
}

impl GlobalTable {
    pub async fn start(count: usize, max_delay: Duration) -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let is_cut = Arc::new(AtomicBool::new(false));
        let held = Arc::new(Mutex::new(None));
        let under_way = Arc::new(AtomicUsize::new(0));
        let max_delay = Arc::new(AtomicU64::new(u64::try_from(max_delay.as_millis()).unwrap()));
        let (mut regions, mut queues) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (changes, queue) = mpsc::unbounded_channel();
            regions.push(Region::start(index, Arc::clone(&clock), Some(changes)).await);
            queues.push(queue);
        }
        for (from, mut queue) in queues.into_iter().enumerate() {
            let others = regions.iter().filter(|region| region.state.index != from);
            let others: Vec<_> = others.map(|region| Arc::clone(&region.state)).collect();
            let (is_cut, under_way, max_delay) = (Arc::clone(&is_cut), Arc::clone(&under_way), Arc::clone(&max_delay));
            let held = Arc::clone(&held);
            tokio::spawn(async move {
                while let Some(change) = queue.recv().await {
                    for other in &others {
                        let (change, other) = (change.clone(), Arc::clone(other));
                        let (is_cut, held, under_way) =
                            (Arc::clone(&is_cut), Arc::clone(&held), Arc::clone(&under_way));
                        let delay = super::random() % (max_delay.load(Ordering::Relaxed) + 1);
                        under_way.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(async move {
                            sleep(Duration::from_millis(delay)).await;
                            let is_held = || held.lock().unwrap().is_some_and(|start| change.name.0.starts_with(start));
                            while is_cut.load(Ordering::SeqCst) || is_held() {
                                sleep(Duration::from_millis(5 + super::random() % 50)).await;
                            }
                            other.apply(&change).await;
                            under_way.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                }
            });
        }
        Self { regions, is_cut, held, under_way, max_delay }
    }

    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Holds back items whose partition begins with this.
    pub fn hold(&self, start: Option<&'static str>) {
        *self.held.lock().unwrap() = start;
    }

    pub fn delay(&self, most: Duration) {
        self.max_delay.store(u64::try_from(most.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Waits until everything has arrived. Nothing may be written meanwhile.
    pub async fn settled(&self) {
        for _ in 0..3000 {
            sleep(Duration::from_millis(20)).await;
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
        }
        panic!("changes do not arrive");
    }
}
