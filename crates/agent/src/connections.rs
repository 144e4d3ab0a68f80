//! How many connections may be open: so many in all, and so many of one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Those that are open. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    all: Arc<Semaphore>,
    per_address: usize,
    by: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    address: IpAddr,
    by: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(all: usize, per_address: usize) -> Connections {
        Connections { all: Arc::new(Semaphore::new(all)), per_address, by: Arc::default() }
    }

    /// Waits until one more may be open.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// None: this address has as many as it may have.
    pub(crate) fn open(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Open> {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by.entry(address).or_default();
        if *open >= self.per_address {
            return None;
        }
        *open += 1;
        Some(Open { address, by: Arc::clone(&self.by), _permit: permit })
    }

    /// None: this address has as many as it may have, or all together have.
    pub(crate) fn try_open(&self, address: IpAddr) -> Option<Open> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        self.open(address, permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                by.remove(&self.address);
            }
        }
    }
}
