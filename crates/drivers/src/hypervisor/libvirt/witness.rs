//! Who owns a VM, written into its domain's `<metadata>`: in a namespace of its own, which nobody has a reason to edit.
//!
//! ```text
//!   <metadata>
//!     <evenkeel-owner:owner xmlns:evenkeel-owner="urn:evenkeel:owner" host="2f6c…" epoch="7"/>
//!   </metadata>
//! ```
//!
//! It is evidence for an agent whose journal was lost or set back, or which finds a domain that another host has written; the journal decides.
//! So it is no part of what a domain is: a target is not told of it, and that it changes is no change of the domain.
//!
//! **Invariant:** nothing waits for it, and it is not written while the VM is in a move, or while libvirt has another job for it.

use std::sync::Arc;

use decide::units::Epoch;
use roxmltree::{Document, Node};

use super::adopt::ANOTHER_JOB;
use super::calls::Domain;
use super::definition::child;
use super::vm::VmTask;

/// The namespace of what this file writes.
const NAMESPACE: &str = "urn:evenkeel:owner";
/// What it is called in a definition.
const PREFIX: &str = "evenkeel-owner";
/// Looks, of two seconds each, before a write that failed is tried again.
const AGAIN_LOOKS: u32 = 5;

/// What a domain's definitions say of who owns it, and what they are to say.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Absent until the agent has said so, and after somebody else has written what it must judge.
    wanted: Option<Epoch>,
    /// By the definition of the domain that runs, as read last or written since.
    live: Option<Epoch>,
    /// By that for its next start, where libvirt keeps one.
    kept: Option<Option<Epoch>>,
    /// As the agent was told last.
    told: Option<Epoch>,
    /// Looks before it is tried again.
    wait: u32,
    /// Why it could not be written, as last logged.
    failed: Option<String>,
}

impl Witness {
    /// Takes what was read; whether the agent is to judge it. What is lower than what it wants, or is missing, is written over instead.
    pub(super) fn read(&mut self, live: Option<Epoch>, kept: Option<Option<Epoch>>) -> bool {
        (self.live, self.kept) = (live, kept);
        let said = self.said();
        if let Some(wanted) = self.wanted {
            if said.is_none_or(|said| said == wanted || said.number < wanted.number) {
                return false;
            }
            self.wanted = None;
        }
        self.told != said
    }

    /// What goes to the agent.
    pub(super) fn tell(&mut self) -> Option<Epoch> {
        self.told = self.said();
        self.told
    }

    /// The highest that either definition says.
    fn said(&self) -> Option<Epoch> {
        let all = [self.kept.flatten(), self.live];
        all.into_iter().flatten().max_by_key(|epoch| epoch.number)
    }

    fn lacks(&self) -> bool {
        self.wanted.is_some()
            && (self.live != self.wanted || self.kept.is_some_and(|kept| kept != self.wanted))
    }

    fn is_written(&mut self) {
        (self.live, self.told) = (self.wanted, self.wanted);
        self.kept = self.kept.map(|_before| self.wanted);
        (self.wait, self.failed) = (0, None);
    }
}

impl VmTask {
    pub(super) async fn on_testify(&mut self, epoch: Epoch) {
        (self.witness.wanted, self.witness.wait) = (Some(epoch), 0);
        self.write_witness().await;
    }

    /// Writes what is wanted, unless that stands there. What fails is tried again at a later look.
    pub(super) async fn write_witness(&mut self) {
        let adopted = self.run_state.is_some() && self.mute == 0;
        if !adopted || !self.witness.lacks() || self.is_in_move() {
            return;
        }
        if self.witness.wait > 0 {
            self.witness.wait -= 1;
            return;
        }
        let (Some(domain), Some(wanted)) = (self.domain.clone(), self.witness.wanted) else {
            return;
        };
        match self.try_write(&domain, wanted).await {
            Ok(()) => self.witness.is_written(),
            Err(why) => {
                self.witness.wait = AGAIN_LOOKS;
                if self.witness.failed.as_ref() != Some(&why) {
                    tracing::warn!(vm = %self.vm, why, "its definition does not name its owner yet: it is tried again");
                    self.witness.failed = Some(why);
                }
            }
        }
    }

    async fn try_write(&mut self, domain: &Domain, wanted: Epoch) -> Result<(), String> {
        let place = Arc::clone(&self.place);
        let text = |error: super::rpc::RpcError| error.to_string();
        let (rpc, _turn) = place.question(self.doubted).await.map_err(text)?;
        // It would have this wait for its end.
        if rpc.job(domain, false).await.map_err(text)?.active {
            return Err(ANOTHER_JOB.to_owned());
        }
        let kept = rpc.kept(domain).await.map_err(text)?.is_some();
        let element = element(wanted);
        rpc.set_metadata(domain, (PREFIX, NAMESPACE), Some(&element), kept).await.map_err(text)
    }
}

fn element(Epoch { number, owner }: Epoch) -> String {
    format!("<owner host=\"{owner}\" epoch=\"{number}\"/>")
}

fn found<'a, 'b>(domain: Node<'a, 'b>) -> Option<(Node<'a, 'b>, Node<'a, 'b>)> {
    let metadata = child(domain, "metadata")?;
    let ours = metadata.children().find(|it| it.tag_name().namespace() == Some(NAMESPACE))?;
    Some((metadata, ours))
}

/// Who owns a domain, as its definition says. What cannot be read says nothing: it is written anew.
pub(super) fn of(domain: Node<'_, '_>) -> Option<Epoch> {
    let (_, ours) = found(domain)?;
    let owner = ours.attribute("host")?.parse().ok()?;
    Some(Epoch { number: ours.attribute("epoch")?.parse().ok()?, owner })
}

/// The same of a definition's text.
pub(super) fn of_text(xml: &str) -> Option<Epoch> {
    of(Document::parse(xml).ok()?.root_element())
}

/// The definition as if nothing of that had ever been written.
pub(super) fn without(mut xml: String) -> String {
    let Some(range) = Document::parse(&xml).ok().and_then(|document| {
        let (metadata, ours) = found(document.root_element())?;
        let alone = metadata.children().filter(Node::is_element).count() == 1;
        Some(if alone { metadata.range() } else { ours.range() })
    }) else {
        return xml;
    };
    // With the line that it stood on.
    let begin = xml[..range.start].trim_end().len();
    xml.replace_range(begin..range.end, "");
    xml
}

#[cfg(test)]
mod tests {
    use decide::units::HostId;

    use super::*;

    const BARE: &str = "<domain>\n  <uuid>x</uuid>\n  <memory>4</memory>\n</domain>";
    const THEIRS: &str = "<t:it xmlns:t=\"urn:theirs\" host=\"h\" epoch=\"9\"/>";
    const TAGS: &str = "<evenkeel:vm xmlns:evenkeel=\"urn:evenkeel:vm\"><evenkeel:tag>a</evenkeel:tag></evenkeel:vm>";

    fn epoch(number: u64, owner: u128) -> Epoch {
        Epoch { number, owner: HostId(owner) }
    }

    /// As libvirt writes these elements.
    fn with(elements: &[&str]) -> String {
        let lines: String = elements.iter().map(|it| format!("\n    {it}")).collect();
        let metadata = format!("</uuid>\n  <metadata>{lines}\n  </metadata>");
        BARE.replace("</uuid>", &metadata)
    }

    fn ours(of: Epoch) -> String {
        let named = format!("<{PREFIX}:owner xmlns:{PREFIX}=\"{NAMESPACE}\"");
        element(of).replace("<owner", &named)
    }

    #[test]
    fn what_is_written_is_read_again_and_taken_out_and_nothing_else_is() {
        let it = epoch(7, 0x2f6c);
        for others in [&[][..], &[THEIRS], &[TAGS, THEIRS]] {
            let before = if others.is_empty() { BARE.to_owned() } else { with(others) };
            let ours = ours(it);
            let after = with(&[others, &[&ours]].concat());
            assert_eq!(of_text(&after), Some(it));
            assert_eq!(without(after), before);
            assert_eq!((of_text(&before), without(before.clone())), (None, before));
        }
        let first = with(&[&ours(it), THEIRS]);
        assert_eq!(without(first), with(&[THEIRS]));
    }

    #[test]
    fn what_cannot_be_read_says_nothing_and_is_taken_out_too() {
        for (from, to) in [("epoch=\"7\"", ""), ("\"7\"", "\"-7\""), ("00002f6c", "2f6c")] {
            let odd = ours(epoch(7, 0x2f6c)).replace(from, to);
            assert_ne!(odd, ours(epoch(7, 0x2f6c)));
            assert_eq!(of_text(&with(&[&odd])), None, "{odd}");
            assert_eq!(without(with(&[&odd])), BARE);
        }
        assert_eq!(without("no definition".to_owned()), "no definition");
    }

    #[test]
    fn what_is_lower_or_missing_is_written_over_and_what_is_not_the_agent_judges() {
        let (we, they) = (1, 2);
        let mut witness = Witness::default();
        assert!(!witness.read(None, None) && !witness.lacks(), "nobody has said anything");
        witness.wanted = Some(epoch(3, we));
        assert!(witness.lacks());
        witness.is_written();
        for (live, kept, news, lacks) in [
            (Some(epoch(3, we)), None, false, false),
            // Kept from now on, by a definition from before.
            (Some(epoch(3, we)), Some(None), false, true),
            (Some(epoch(3, we)), Some(Some(epoch(3, we))), false, false),
            (Some(epoch(2, they)), Some(Some(epoch(3, we))), false, true),
            (None, None, false, true),
            // From here on nothing is wanted, until the agent says so.
            (Some(epoch(3, we)), Some(Some(epoch(4, they))), true, false),
            (Some(epoch(3, we)), Some(Some(epoch(4, they))), false, false),
            (None, None, true, false),
            (Some(epoch(3, they)), None, true, false),
        ] {
            let what = format!("{live:?} {kept:?}");
            assert_eq!((witness.read(live, kept), witness.lacks()), (news, lacks), "{what}");
            // Until it was told it is news.
            assert_eq!(witness.read(live, kept), news, "{what}");
            if news {
                witness.tell();
            }
        }
    }
}
