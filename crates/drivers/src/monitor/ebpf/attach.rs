//! The programs, loaded once and put to links.

use std::collections::BTreeMap;

use aya::maps::{Map, MapError};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};

use super::maps::Maps;
use super::pins::Pins;
use super::{Attach, Counting, NotCounted};

/// Compiled from `nic.bpf.c` by `cargo xtask bpf`, which also tells whether the two still belong together.
static OBJECT: &[u8] = aya::include_bytes_aligned!("nic.bpf.o");

/// A program's name for each direction.
const WAYS: [(&str, TcAttachType); 2] =
    [("evenkeel_in", TcAttachType::Ingress), ("evenkeel_out", TcAttachType::Egress)];
const MAPS: [&str; 3] = ["links", "cells", "lost"];

/// The programs and where they are.
pub(super) struct Programs {
    ebpf: Ebpf,
    at: BTreeMap<u32, [Option<SchedClassifierLinkId>; 2]>,
    by_clsact: bool,
    /// Kept for its lock.
    _pins: Option<Pins>,
}

/// Loads the programs, and makes their maps or finds those that an earlier agent left.
pub(super) fn load(counting: &Counting) -> Result<(Programs, Maps), NotCounted> {
    let pins = match Pins::open(&counting.pins, OBJECT) {
        Ok(pins) => Some(pins),
        Err(why) => {
            tracing::warn!(
                "what is counted at taps will begin anew with each start of the agent: {why}"
            );
            None
        }
    };
    let mut loader = EbpfLoader::new();
    // The programs need nothing of the kernel's own types.
    loader.btf(None);
    for map in MAPS {
        if let Some(pins) = &pins {
            loader.map_pin_path(map, pins.path(map));
        }
    }
    fn failed(error: impl std::error::Error + 'static) -> NotCounted {
        NotCounted::from_error("loading the program", &error)
    }
    let mut ebpf = loader.load(OBJECT).map_err(failed)?;
    for (name, _) in WAYS {
        program(&mut ebpf, name).load().map_err(failed)?;
    }
    let maps = take_maps(&mut ebpf).map_err(failed)?;
    let has_tcx = KernelVersion::current().is_ok_and(|is| is >= KernelVersion::new(6, 6, 0));
    let by_clsact = counting.attach == Attach::Clsact || !has_tcx;
    Ok((Programs { ebpf, at: BTreeMap::new(), by_clsact, _pins: pins }, maps))
}

fn take_maps(ebpf: &mut Ebpf) -> Result<Maps, MapError> {
    let mut take = |name: &str| -> Map { ebpf.take_map(name).expect("the object has it") };
    let (links, cells, lost) = (take("links"), take("cells"), take("lost"));
    Ok(Maps::new(links.try_into()?, cells.try_into()?, lost.try_into()?)?)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    let program = ebpf.program_mut(name).expect("the object has it");
    program.try_into().expect("it is of this kind")
}

impl Programs {
    /// The links that have them.
    pub(super) fn attached(&self) -> Vec<u32> {
        self.at.keys().copied().collect()
    }

    /// Whether the link has them.
    pub(super) fn is_at(&self, ifindex: u32) -> bool {
        self.at.contains_key(&ifindex)
    }

    /// Puts both programs to a link, before all others: what those stop is counted too.
    pub(super) fn attach(&mut self, ifindex: u32, name: &str) -> Result<(), NotCounted> {
        let mut ids = [None, None];
        for ((program_name, way), id) in WAYS.into_iter().zip(&mut ids) {
            match self.attach_one(program_name, way, name) {
                Ok(put) => *id = Some(put),
                Err(error) => {
                    self.take_away(ids);
                    return Err(NotCounted::from_error("attaching the program", &error));
                }
            }
        }
        self.at.insert(ifindex, ids);
        Ok(())
    }

    fn attach_one(
        &mut self,
        name: &str,
        way: TcAttachType,
        link: &str,
    ) -> Result<SchedClassifierLinkId, ProgramError> {
        let program = program(&mut self.ebpf, name);
        if !self.by_clsact {
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            return program.attach_with_options(link, way, first);
        }
        // If the qdisc is there already so much the better; if it could not be made the next call says so.
        let _ = tc::qdisc_add_clsact(link);
        // An agent that was killed leaves its filters: they would count everything twice.
        let _ = tc::qdisc_detach_program(link, way, name);
        program.attach_with_options(link, way, TcAttachOptions::Netlink(NlOptions::default()))
    }

    /// Takes them off a link, which may be gone.
    pub(super) fn detach(&mut self, ifindex: u32) {
        if let Some(ids) = self.at.remove(&ifindex) {
            self.take_away(ids);
        }
    }

    fn take_away(&mut self, ids: [Option<SchedClassifierLinkId>; 2]) {
        for ((name, _), id) in WAYS.into_iter().zip(ids) {
            // Fails where the link is gone, and the program with it.
            let _ = id.map(|id| program(&mut self.ebpf, name).detach(id));
        }
    }
}
