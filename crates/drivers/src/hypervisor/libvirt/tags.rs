//! A VM's tags, written where they stand: in its domain's `<metadata>`, now and for its next start.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::definition::{Definition, NAMESPACE};
use super::rpc::RpcError;
use super::vm::VmTask;
use crate::hypervisor::{ChangedTags, TagChange, TagsError};

/// What our namespace is called in a definition that we write.
const PREFIX: &str = "evenkeel";

/// A change that somebody waits for.
pub(super) struct Wanted {
    pub(super) change: TagChange,
    pub(super) tell: oneshot::Sender<ChangedTags>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change of tags")
    }
}

impl VmTask {
    pub(super) async fn on_tags(&mut self, Wanted { change, tell }: Wanted) {
        let changed = self.change_tags(change).await;
        // Whoever asked may have gone.
        drop(tell.send(changed));
        self.stale = true;
        self.look_at_domain().await;
    }

    async fn change_tags(&mut self, change: TagChange) -> ChangedTags {
        if self.is_in_move() {
            let why = "it is in a move: its definition is on its way. Ask again when that is over";
            return Err(TagsError::Refused(why.to_owned()));
        }
        let Some(domain) = self.domain.clone() else {
            return Err(TagsError::Refused("libvirt knows no such domain here".to_owned()));
        };
        let refused = |error: RpcError| TagsError::Refused(error.to_string());
        let place = Arc::clone(&self.place);
        let (rpc, _turn) = place.question(self.doubted).await.map_err(refused)?;
        let live = rpc.live(&domain).await.map_err(refused)?;
        let kept = rpc.kept(&domain).await.map_err(refused)?.is_some();
        let definition =
            Definition::parse(&live).map_err(|garbled| TagsError::Refused(garbled.to_string()))?;
        let tags = change(definition.tags).map_err(TagsError::Wrong)?;
        let element = (!tags.is_empty()).then(|| element(&tags));
        rpc.set_metadata(&domain, (PREFIX, NAMESPACE), element.as_deref(), kept).await.map_err(
            |error| match error {
                RpcError::Refused { message, .. } => TagsError::Refused(message),
                error @ (RpcError::Silent(_) | RpcError::Lost | RpcError::Odd(_)) => {
                    TagsError::Failed(error.to_string())
                }
            },
        )?;
        Ok(tags)
    }
}

/// What libvirt puts into our namespace.
fn element(tags: &[String]) -> String {
    let tag = |tag: &String| {
        let text = tag.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<tag>{text}</tag>")
    };
    format!("<vm>{}</vm>", tags.iter().map(tag).collect::<String>())
}
