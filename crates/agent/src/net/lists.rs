//! Inventories: this host's, for whoever asks, and the others', fetched one call each.
//!
//! A fetch has a connection of its own: a host asks another when that one's VMs have changed, which is seldom enough.
//!
//! **Invariant:** what is given out is what the agent knew when its last event was over, never older.
//! **Invariant:** each fetch is answered once, by [`Heard::Inventory`], within [`DELIVERY_MAX`].

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use decide::membership::inventory::Inventory;
use decide::wire::limits::MESSAGE_MAX;
use decide::wire::proto;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::guard::Guard;
use super::services::peer::peer_client::PeerClient;
use super::{DELIVERY_MAX, Heard, To};

/// This host's own list, which the server gives out and the agent's loop replaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Own(Arc<RwLock<proto::Inventory>>);

impl Own {
    pub(super) fn set(&self, inventory: &Inventory) {
        // A panic of another thread leaves it whole: it is replaced as one.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = inventory.into();
    }

    pub(super) fn get(&self) -> proto::Inventory {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Fetches the list of a host, and tells it or why there is none.
pub(super) async fn fetch(
    from: IpAddr,
    guard: Guard,
    To { host, at }: To,
    heard: mpsc::Sender<Heard>,
) {
    let asked = async {
        let channel = guard.dial(from, at, Some(host)).map_err(|error| format!("{error:#}"))?;
        let mut peer = PeerClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let answer = peer.inventory(proto::InventoryRequest {}).await;
        let form = answer.map_err(|status| super::peers::cause(&status))?.into_inner();
        Inventory::try_from(form).map_err(|bad| bad.to_string())
    };
    let late = || Err(super::peers::too_late());
    let fetched = timeout(DELIVERY_MAX, asked).await.unwrap_or_else(|_elapsed| late());
    // Nobody left to be told: the agent is stopping.
    let _ = heard.send(Heard::Inventory { host, fetched }).await;
}
