//! Who owns a VM, written into its domain's `<metadata>`: in a namespace of its own, which nobody has a reason to edit.
//!
//! ```text
//!   <metadata>
//!     <evenkeel-owner:owner xmlns:evenkeel-owner="urn:evenkeel:owner" host="2f6c…" name="host2" epoch="7"/>
//!   </metadata>
//! ```
//!
//! It is evidence for an agent whose journal was lost or set back, or which finds a domain that another host has written; the journal decides.
//! So it is no part of what a domain is: a target is not told of it, and that it changes is no change of the domain.
//!
//! **Invariant:** nothing waits for it, and it is not written while the VM is in a move, or while libvirt has another job for it.

use std::sync::Arc;

use decide::migrate::hypervisor::Witness;
use decide::units::Epoch;
use roxmltree::{Document, Node};

use super::adopt::ANOTHER_JOB;
use super::calls::Domain;
use super::definition::child;
use super::rpc::RpcError;
use super::vm::VmTask;

/// The namespace of what this file writes.
const NAMESPACE: &str = "urn:evenkeel:owner";
/// What it is called in a definition.
const PREFIX: &str = "evenkeel-owner";
/// Looks, of two seconds each, before a write that failed is tried again.
const AGAIN_LOOKS: u32 = 5;

/// What a domain's definitions say of who owns it, and what they are to say.
#[derive(Debug, Default)]
pub(super) struct Testimony {
    /// Absent until the agent has said so, and after somebody else has written what it must judge.
    wanted: Option<Witness>,
    /// By the definition of the domain that runs, as read last or written since.
    live: Option<Witness>,
    /// By that for its next start, where libvirt keeps one.
    kept: Option<Option<Witness>>,
    /// As the agent was told last.
    told: Option<Witness>,
    /// Looks before it is tried again.
    wait: u32,
    /// Why it could not be written, as last logged.
    failed: Option<String>,
}

fn epoch(of: Option<&Witness>) -> Option<Epoch> {
    of.map(|witness| witness.epoch)
}

impl Testimony {
    /// Takes what was read; whether the agent is to judge it. What is lower than what it wants, or is missing, is written over instead.
    pub(super) fn read(&mut self, live: Option<Witness>, kept: Option<Option<Witness>>) -> bool {
        (self.live, self.kept) = (live, kept);
        let said = epoch(self.said());
        if let Some(wanted) = epoch(self.wanted.as_ref()) {
            if said.is_none_or(|said| said == wanted || said.number < wanted.number) {
                return false;
            }
            self.wanted = None;
        }
        said != epoch(self.told.as_ref())
    }

    /// What goes to the agent.
    pub(super) fn tell(&mut self) -> Option<Witness> {
        self.told = self.said().cloned();
        self.told.clone()
    }

    /// The highest that either definition says.
    fn said(&self) -> Option<&Witness> {
        let all = [self.kept.as_ref().and_then(Option::as_ref), self.live.as_ref()];
        all.into_iter().flatten().max_by_key(|witness| witness.epoch.number)
    }

    /// What is to be written.
    fn lacks(&self) -> Option<&Witness> {
        let says = |it: &Option<Witness>| epoch(it.as_ref()) == epoch(self.wanted.as_ref());
        let stands = says(&self.live) && self.kept.as_ref().is_none_or(says);
        self.wanted.as_ref().filter(|_| !stands)
    }

    fn is_written(&mut self) {
        self.live.clone_from(&self.wanted);
        self.told.clone_from(&self.wanted);
        self.kept = self.kept.take().map(|_before| self.wanted.clone());
        (self.wait, self.failed) = (0, None);
    }
}

impl VmTask {
    pub(super) async fn on_testify(&mut self, witness: Witness) {
        (self.testimony.wanted, self.testimony.wait) = (Some(witness), 0);
        self.write_witness().await;
    }

    /// Writes what is wanted, unless that stands there. What fails is tried again at a later look.
    pub(super) async fn write_witness(&mut self) {
        let adopted = self.run_state.is_some() && self.mute == 0;
        if !adopted || self.is_in_move() {
            return;
        }
        let (Some(domain), Some(witness)) = (self.domain.clone(), self.testimony.lacks()) else {
            return;
        };
        if self.testimony.wait > 0 {
            self.testimony.wait -= 1;
            return;
        }
        let element = element(witness);
        match self.try_write(&domain, &element).await {
            Ok(()) => self.testimony.is_written(),
            Err(why) => {
                self.testimony.wait = AGAIN_LOOKS;
                if self.testimony.failed.as_ref() != Some(&why) {
                    tracing::warn!(vm = %self.vm, why, "its definition does not name its owner yet: it is tried again");
                    self.testimony.failed = Some(why);
                }
            }
        }
    }

    async fn try_write(&self, domain: &Domain, element: &str) -> Result<(), String> {
        let place = Arc::clone(&self.place);
        let text = |error: RpcError| error.to_string();
        let (rpc, _turn) = place.question(self.doubted).await.map_err(text)?;
        // It would have this wait for its end.
        if rpc.job(domain, false).await.map_err(text)?.active {
            return Err(ANOTHER_JOB.to_owned());
        }
        let kept = rpc.kept(domain).await.map_err(text)?.is_some();
        rpc.set_metadata(domain, (PREFIX, NAMESPACE), Some(element), kept).await.map_err(text)
    }
}

fn element(Witness { epoch: Epoch { number, owner }, name }: &Witness) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    format!("<owner host=\"{owner}\" name=\"{name}\" epoch=\"{number}\"/>")
}

fn found<'a, 'b>(domain: Node<'a, 'b>) -> Option<(Node<'a, 'b>, Node<'a, 'b>)> {
    let metadata = child(domain, "metadata")?;
    let ours = metadata.children().find(|it| it.tag_name().namespace() == Some(NAMESPACE))?;
    Some((metadata, ours))
}

/// Who owns a domain, as its definition says. What cannot be read says nothing: it is written anew.
pub(super) fn of(domain: Node<'_, '_>) -> Option<Witness> {
    let (_, ours) = found(domain)?;
    let owner = ours.attribute("host")?.parse().ok()?;
    let epoch = Epoch { number: ours.attribute("epoch")?.parse().ok()?, owner };
    Some(Witness { epoch, name: ours.attribute("name").unwrap_or_default().to_owned() })
}

/// The same of a definition's text.
pub(super) fn of_text(xml: &str) -> Option<Witness> {
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

    fn witness(number: u64, owner: u128) -> Witness {
        let epoch = Epoch { number, owner: HostId(owner) };
        Witness { epoch, name: format!("<host> & \"{owner}\"") }
    }

    /// As libvirt writes these elements.
    fn with(elements: &[&str]) -> String {
        let lines: String = elements.iter().map(|it| format!("\n    {it}")).collect();
        let metadata = format!("</uuid>\n  <metadata>{lines}\n  </metadata>");
        BARE.replace("</uuid>", &metadata)
    }

    fn ours(of: &Witness) -> String {
        let named = format!("<{PREFIX}:owner xmlns:{PREFIX}=\"{NAMESPACE}\"");
        element(of).replace("<owner", &named)
    }

    #[test]
    fn what_is_written_is_read_again_and_taken_out_and_nothing_else_is() {
        let it = witness(7, 0x2f6c);
        for others in [&[][..], &[THEIRS], &[TAGS, THEIRS]] {
            let before = if others.is_empty() { BARE.to_owned() } else { with(others) };
            let ours = ours(&it);
            let after = with(&[others, &[&ours]].concat());
            assert_eq!(of_text(&after), Some(it.clone()));
            assert_eq!(without(after), before);
            assert_eq!((of_text(&before), without(before.clone())), (None, before));
        }
        let first = with(&[&ours(&it), THEIRS]);
        assert_eq!(without(first), with(&[THEIRS]));
    }

    #[test]
    fn what_cannot_be_read_says_nothing_and_is_taken_out_too() {
        for (from, to) in [("epoch=\"7\"", ""), ("\"7\"", "\"-7\""), ("00002f6c", "2f6c")] {
            let odd = ours(&witness(7, 0x2f6c)).replace(from, to);
            assert_ne!(odd, ours(&witness(7, 0x2f6c)));
            assert_eq!(of_text(&with(&[&odd])), None, "{odd}");
            assert_eq!(without(with(&[&odd])), BARE);
        }
        assert_eq!(without("no definition".to_owned()), "no definition");
    }

    #[test]
    fn what_is_lower_or_missing_is_written_over_and_what_is_not_the_agent_judges() {
        let (we, they) = (1, 2);
        let mut here = Testimony::default();
        assert!(!here.read(None, None) && here.lacks().is_none(), "nobody has said anything");
        here.wanted = Some(witness(3, we));
        assert!(here.lacks().is_some());
        here.is_written();
        for (live, kept, news, lacks) in [
            (Some(witness(3, we)), None, false, false),
            // Kept from now on, by a definition from before.
            (Some(witness(3, we)), Some(None), false, true),
            (Some(witness(3, we)), Some(Some(witness(3, we))), false, false),
            (Some(witness(2, they)), Some(Some(witness(3, we))), false, true),
            (None, None, false, true),
            // From here on nothing is wanted, until the agent says so.
            (Some(witness(3, we)), Some(Some(witness(4, they))), true, false),
            (Some(witness(3, we)), Some(Some(witness(4, they))), false, false),
            (None, None, true, false),
            (Some(witness(3, they)), None, true, false),
        ] {
            let what = format!("{live:?} {kept:?}");
            assert_eq!(here.read(live.clone(), kept.clone()), news, "{what}");
            assert_eq!(here.lacks().is_some(), lacks, "{what}");
            // Until it was told it is news.
            assert_eq!(here.read(live, kept), news, "{what}");
            if news {
                here.tell();
            }
        }
    }
}
