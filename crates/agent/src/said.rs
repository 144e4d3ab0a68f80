//! What persons have said of this host, kept beside its journal and told to the loop again at each start.

use std::path::Path;
use std::sync::Arc;

use decide::host::Event;
use tokio::sync::Mutex;

use crate::exclusions::OfVms;
use crate::kept::Kept;
use crate::steering::Steering;
use crate::switch::Switch;
use crate::{draining, exclusions};

/// Each is changed by one at a time, so that what is kept is what was said last.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) switch: Arc<Mutex<Switch>>,
    pub(crate) exclusions: Arc<Mutex<Kept<OfVms>>>,
    pub(crate) drain: draining::Shared,
}

impl Said {
    /// In this folder, which is there.
    pub(crate) fn within(folder: &Path) -> Said {
        Said {
            switch: Arc::new(Switch::within(folder).into()),
            exclusions: Arc::new(Kept::within(folder, exclusions::FILE).into()),
            drain: Arc::new(Kept::within(folder, draining::FILE).into()),
        }
    }

    /// Tells the loop, which has just begun.
    ///
    /// # Errors
    /// Something that was kept cannot be read.
    pub(crate) async fn resume(&self, steering: &mut Steering) -> anyhow::Result<()> {
        if !self.switch.lock().await.is_on()? {
            steering.handle(Event::Balancer { on: false });
        }
        exclusions::resume(steering, &*self.exclusions.lock().await)?;
        draining::resume(steering, &*self.drain.lock().await)
    }
}
