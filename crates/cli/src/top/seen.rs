//! What the agent last answered.

use api::client::{Client, ClientError};
use api::{HostView, MoveView, Status, VmPlace, VmView};

/// All of it, of one moment or nearly.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) hosts: Vec<HostView>,
    /// Where each VM of the cluster is.
    pub(super) places: Vec<VmPlace>,
    /// What this host measures of its own.
    pub(super) vms: Vec<VmView>,
    pub(super) moves: Vec<MoveView>,
    /// Why the agent does not answer now; what is shown is from before.
    pub(super) trouble: Option<String>,
}

/// A VM as it is shown: figures where this host has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vm<'a> {
    pub(super) place: &'a VmPlace,
    pub(super) here: Option<&'a VmView>,
}

impl Seen {
    /// # Errors
    /// If the agent does not answer.
    pub(super) async fn of(client: &Client) -> Result<Seen, ClientError> {
        Ok(Seen {
            status: client.status().await?,
            hosts: client.hosts().await?,
            places: client.inventory().await?,
            vms: client.vms().await?,
            moves: client.moves().await?,
            trouble: None,
        })
    }

    /// Asks again; what does not come stays as it was, and is said to be old.
    pub(super) async fn renew(&mut self, client: &Client) {
        match Seen::of(client).await {
            Ok(seen) => *self = seen,
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    /// All VMs of the cluster.
    pub(super) fn all(&self) -> impl Iterator<Item = Vm<'_>> {
        self.places.iter().map(|place| {
            let here = self.vms.iter().find(|vm| vm.id == place.id && place.host == vm.host);
            Vm { place, here }
        })
    }

    /// Moves under way first, then those that ended last.
    pub(super) fn moves(&self) -> impl Iterator<Item = &MoveView> {
        let (open, ended): (Vec<_>, Vec<_>) = self.moves.iter().partition(|one| !one.ended);
        open.into_iter().chain(ended)
    }
}
