//! Frames counted at taps and uplink by a program in the kernel, and the traffic matrix: who sent how many to whom.
//!
//! The program (`nic.bpf.c`) sits at both directions of each tap of a watched VM and of the uplink. It only counts.
//!
//! **Who sent, and to whom.** A cell of the matrix has two interfaces: the one by which the kernel took a frame in, and the
//! one by which it let it out (`ingress_ifindex` of a frame at its egress). No address is looked at, so there is none to
//! forge: who writes another VM's address into a frame, as sender or as receiver, changes only cells of its own row, and those
//! whom it really reached. (A table of addresses was the other way. The bridge learns its own from what guests send, so a guest
//! can take another's place in it; a definition's can be right and yet not tell where the bridge took the frame.) Frames to many
//! are counted where they come in, all others where they go out: each once. Where the bridge does not know an address it
//! floods, and each VM reached is counted. What the host sends itself, and what it receives, has no cell; nor has what it routes
//! (NAT) from a bridge of its own to the uplink.
//!
//! **Following links.** Which taps there are is taken from the dump of statistics that every cycle begins with: an index that
//! is new gets its programs, one that is gone loses its entries. Notices of links (RTM_NEWLINK) would be heard up to a second
//! earlier, by another socket that can overflow, and gain nothing: a tap is reported from the first cycle that watches its VM.
//!
//! **Invariant:** an entry of a link that is gone is deleted in the first cycle that does not see it.
//! **Invariant:** the maps are bounded, and cost memory by what is in them only.

mod attach;
mod maps;
mod permission;
mod pins;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use decide::units::{Bytes, VmId};
use decide::usage::reading::{End, Flow, FrameCounters};

use self::attach::Programs;
use self::maps::{Cell, Link, Maps};
pub use self::permission::NotCounted;
use super::Watched;
use super::netlink::LinkStatistics;

/// How frames are to be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    /// A folder under a mounted bpffs: what is counted there outlives the agent.
    pub pins: PathBuf,
    /// How the programs are put to their links.
    pub attach: Attach,
}

/// How a program is put to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// By tcx where the kernel has it (6.6), else as below.
    Newest,
    /// By a clsact qdisc and its filters.
    Clsact,
}

impl Default for Counting {
    fn default() -> Counting {
        Counting { pins: PathBuf::from("/sys/fs/bpf/evenkeel"), attach: Attach::Newest }
    }
}

/// The programs at work, and what they counted.
pub(super) struct Frames {
    programs: Programs,
    maps: Maps,
    /// Links that could not be given a program, so that each is told of once.
    refused: BTreeSet<u32>,
    full: bool,
}

/// What was counted so far at the links of one cycle.
#[derive(Debug, Default)]
pub(super) struct Counted {
    links: BTreeMap<u32, Link>,
    /// The traffic matrix, in the order of its ends.
    pub(super) flows: Vec<Flow>,
}

impl Frames {
    /// Loads the programs; they are put to links by [`Frames::read`].
    ///
    /// # Errors
    /// If this process may not, or the kernel cannot. Nothing is left behind.
    pub(super) fn start(counting: &Counting) -> Result<Frames, NotCounted> {
        let (programs, maps) = attach::load(counting)?;
        Ok(Frames { programs, maps, refused: BTreeSet::new(), full: false })
    }

    /// Puts programs to links that are new, forgets those that are gone, and reads what was counted.
    pub(super) fn read(
        &mut self,
        links: &BTreeMap<String, LinkStatistics>,
        uplink: Option<&str>,
        watched: &[Watched],
    ) -> Result<Counted, NotCounted> {
        let mut wanted = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (name, vm) in watched.iter().filter_map(|one| Some((one.tap.as_deref()?, one.vm))) {
            if let Some(link) = links.get(name) {
                wanted.insert(link.ifindex, name);
                owners.insert(link.ifindex, vm);
            }
        }
        wanted.extend(uplink.and_then(|name| Some((links.get(name)?.ifindex, name))));
        self.follow(&wanted)?;
        let there: BTreeSet<u32> = links.values().map(|link| link.ifindex).collect();
        self.refused.retain(|ifindex| there.contains(ifindex));
        let of_links = self.maps.links(|ifindex| wanted.contains_key(&ifindex))?;
        let cells = self.maps.cells(|ifindex| there.contains(&ifindex))?;
        self.tell_if_full()?;
        Ok(Counted { links: of_links, flows: flows(&cells, &owners) })
    }

    fn follow(&mut self, wanted: &BTreeMap<u32, &str>) -> Result<(), NotCounted> {
        for ifindex in self.programs.attached() {
            if !wanted.contains_key(&ifindex) {
                self.programs.detach(ifindex);
            }
        }
        for (ifindex, name) in wanted {
            if self.programs.is_at(*ifindex) || self.refused.contains(ifindex) {
                continue;
            }
            // First the entry, then the program that looks for it.
            self.maps.add_link(*ifindex)?;
            if let Err(why) = self.programs.attach(*ifindex, name) {
                tracing::warn!(link = name, "frames are not counted there: {why}");
                self.refused.insert(*ifindex);
            }
        }
        Ok(())
    }

    fn tell_if_full(&mut self) -> Result<(), NotCounted> {
        if !self.full && self.maps.lost()? > 0 {
            self.full = true;
            tracing::warn!(
                "more pairs of VMs speak with each other than are told apart: the traffic matrix lacks some"
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("at", &self.programs.attached()).finish_non_exhaustive()
    }
}

impl Counted {
    /// What was counted at a VM's tap, in the VM's direction.
    pub(super) fn of_vm(&self, tap: u32) -> Option<FrameCounters> {
        let Link { coming, going } = self.links.get(&tap)?;
        let mut sizes = coming.sizes;
        sizes.iter_mut().zip(going.sizes).for_each(|(sum, more)| *sum = sum.wrapping_add(more));
        Some(FrameCounters {
            sent: coming.frames,
            sent_bytes: Bytes(coming.bytes),
            received: going.frames,
            received_bytes: Bytes(going.bytes),
            sizes,
        })
    }
}

/// Cells by VM instead of interface; those without a VM at either end are left out.
fn flows(cells: &[Cell], owners: &BTreeMap<u32, VmId>) -> Vec<Flow> {
    let end = |ifindex: u32| owners.get(&ifindex).map_or(End::Outside, |vm| End::Vm(*vm));
    let mut sums: BTreeMap<(End, End), (u64, u64)> = BTreeMap::new();
    for cell in cells {
        let to = if cell.to == maps::MANY { End::Many } else { end(cell.to) };
        let ends = (end(cell.from), to);
        if !matches!(ends, (End::Vm(_), _) | (_, End::Vm(_))) {
            continue;
        }
        let (frames, bytes) = sums.entry(ends).or_default();
        *frames = frames.wrapping_add(cell.frames);
        *bytes = bytes.wrapping_add(cell.bytes);
    }
    let flow = |((from, to), (frames, bytes))| Flow { from, to, frames, bytes: Bytes(bytes) };
    sums.into_iter().map(flow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_flows_between_vms() {
        let cell = |from, to, frames| Cell { from, to, frames, bytes: frames * 100 };
        let owners = BTreeMap::from([(5, VmId(1)), (6, VmId(2))]);
        // 2 is the uplink, 9 another interface, 0 the host itself (as a sender) or many (as receivers).
        let cells = [
            cell(6, 5, 1),
            cell(5, 2, 2),
            cell(5, 0, 3),
            cell(2, 5, 4),
            cell(9, 5, 5),
            cell(0, 5, 6),
            cell(2, 0, 7),
            cell(0, 2, 8),
        ];
        let flow = |from, to, frames| Flow { from, to, frames, bytes: Bytes(frames * 100) };
        let (one, two) = (End::Vm(VmId(1)), End::Vm(VmId(2)));
        let expected = [
            flow(one, End::Outside, 2),
            flow(one, End::Many, 3),
            flow(two, one, 1),
            flow(End::Outside, one, 15),
        ];
        assert_eq!(flows(&cells, &owners), expected);
    }
}
